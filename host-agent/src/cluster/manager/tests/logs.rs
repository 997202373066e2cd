//! Logs that cannot be opened.

use k8sctl_proto::node::v1::Hello;

use super::*;

#[tokio::test]
async fn a_node_that_is_asked_for_too_many_logs_at_once_is_busy_and_not_away() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    // Without a task, which would start its VM and end what is open.
    agent.begin(agent.generation(SPEC).await).await;
    let node = agent.cluster("home").await.nodes.remove(0);
    let open = || manager.open_logs("home", &node.name, LogSelector::default());
    assert_eq!(refusal(open().await).id, "NODE-NOT-CONNECTED");

    // Its agent takes in nothing of what it is asked.
    let session = agent.shared.registry.open_session(&node.id, Hello::default());
    let mut readers = Vec::new();
    let busy = loop {
        match open().await {
            Ok(reader) => readers.push(reader),
            refused => break refusal(refused),
        }
    };
    assert!(!readers.is_empty());
    assert_eq!((busy.id.as_str(), busy.object), ("NODE-BUSY", format!("node {}", node.name)));
    assert!(busy.next_step.contains("end one of the logs"), "{}", busy.next_step);
    drop(session);
    assert_eq!(refusal(open().await).id, "NODE-NOT-CONNECTED");
}
