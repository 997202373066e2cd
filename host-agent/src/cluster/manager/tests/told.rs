//! What `status` tells while the host is being changed.

use k8sctl_proto::node::v1::Condition;

use super::*;

/// Sooner than a status that waits for the end of the first look.
async fn told(manager: &Manager) -> control::ClusterStatus {
    let status = tokio::time::timeout(FIRST_LOOK / 2, manager.status("home")).await.expect("at once");
    status.expect("it is there").borrow().clone()
}

fn ready(status: &control::ClusterStatus) -> &Condition {
    status.conditions.iter().find(|it| it.r#type == "Ready").expect("it is told")
}

fn assert_under_way(status: &control::ClusterStatus, operation: &str, what: &str) {
    assert_eq!(status.operation_id, operation);
    assert_eq!(status.last_failure, None);
    let ready = ready(status);
    assert_eq!(ready.reason, "OperationRunning", "{ready:?}");
    assert!(ready.message.contains(what), "{ready:?}");
}

#[tokio::test]
async fn a_new_cluster_is_told_while_its_image_is_copied() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("install-file", &mut agent);
    let manager = agent.start().await;
    let operation = id(up(&manager, SPEC, true).await);
    slow.reached().await;
    assert_under_way(&told(&manager).await, &operation, "`up`");
    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
}

#[tokio::test]
async fn an_up_is_told_while_it_changes_the_host() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("restart-domain", &mut agent);
    let manager = agent.start().await;
    let first = id(up(&manager, SPEC, true).await);
    agent.wait_host("both VMs run", all_run).await;
    // As when its nodes are Ready.
    agent.shared.records.finish_operation(&first, None).await.expect("writes");
    let larger = SPEC.replace("192.168.122.11\"", "192.168.122.11\"\nmemory = \"5GiB\"");
    let second = id(up(&manager, &larger, true).await);
    slow.reached().await;
    let status = told(&manager).await;
    assert_under_way(&status, &second, "`up`");
    assert_eq!((status.generation, status.nodes.len()), (2, 2));
    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
}

#[tokio::test]
async fn a_removal_is_told_while_it_takes_vms_away() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("delete-domain", &mut agent);
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    agent.wait_host("both VMs run", all_run).await;
    let down = manager.destroy("home", "", None).await.expect("it begins");
    slow.reached().await;
    assert_under_way(&told(&manager).await, &down, "`down`");
    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
    agent.wait_operation("it is gone", &down, has_succeeded).await;
}
