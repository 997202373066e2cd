//! What was cut short: requests between what they commit and whom they tell, a removal before it revoked.

use host_pki::join::{JoinError, Refusal};

use super::*;

#[tokio::test]
async fn who_asks_again_makes_a_new_cluster_go_on() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let begun = agent.begin(agent.generation(SPEC).await).await;
    let again = up(&manager, SPEC, true).await.expect("it is accepted");
    assert!(again.attached);
    assert_eq!(again.operation_id, Some(begun.id));
    agent.wait_host("both VMs run", all_run).await;
}

#[tokio::test]
async fn who_asks_again_for_a_removal_makes_it_go_on() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    agent.begin(agent.generation(SPEC).await).await;
    let begun = agent.shared.records.begin_down(&agent.cluster("home").await, jiff::Timestamp::MAX).await;
    let Ok(Begun::New(down, _)) = begun else { panic!("it does not begin: {begun:?}") };
    assert_eq!(manager.destroy("home", "", None).await.expect("it follows"), down.id);
    agent.wait_operation("it ends", &down.id, has_succeeded).await;
}

#[tokio::test]
async fn who_watches_what_gave_way_hears_of_it() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let first = id(up(&manager, SPEC, true).await);
    agent.wait_host("both VMs run", all_run).await;
    let larger = SPEC.replace("192.168.122.11\"", "192.168.122.11\"\ndisk = \"100GiB\"");
    agent.begin(agent.generation(&larger).await).await;
    assert!(up(&manager, &larger, false).await.expect("it is accepted").attached);
    let failure = agent.failure_of(&first).await;
    assert_eq!(
        (failure.id.as_str(), failure.reason.as_str()),
        ("OPERATION-SUPERSEDED", "a newer spec was applied")
    );
}

#[tokio::test]
async fn a_node_that_comes_back_while_it_is_removed_leaves_no_identity_behind() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    agent.begin(agent.generation(SPEC).await).await;
    let (smaller, _) = SPEC.rsplit_once("[[node]]").expect("it has a worker");
    agent.begin(agent.generation(smaller).await).await;
    // Its removal was cut short, before its certificate was revoked.
    let home = agent.cluster("home").await;
    let old = &home.nodes[1];
    agent.shared.records.set_removing(&old.id).await.expect("writes");
    let offer = async || agent.shared.authority.offer(&home.id, &old.id, &old.machine_uuid).await;
    offer().await.expect("it could still join");
    id(up(&manager, SPEC, true).await);
    let refused = offer().await.expect_err("it is gone");
    assert!(matches!(refused, JoinError::Refused { refusal: Refusal::Removed, .. }), "{refused}");
    agent.wait_host("both VMs run", all_run).await;
}
