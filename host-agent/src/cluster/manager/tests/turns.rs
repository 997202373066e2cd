//! Two clusters on one host: what one of them does to it for long holds the other up no more than it must.

use super::*;
use crate::cluster::turns::HostTurns;

/// The same cluster with more memory for the node at this address, which takes a restart.
fn larger(spec: &str, host: u8) -> String {
    let ip = format!(".{host}\"");
    spec.replace(&ip, &format!("{ip}\nmemory = \"5GiB\""))
}

fn four_run(host: &FakeHost) -> bool {
    host.observed.domains.iter().filter(|it| it.state == DomainState::Running).count() == 4
}

fn waits_for_home(operation: &control::Operation) -> bool {
    let is_told = |line: &control::Progress| line.phase == "Waiting" && line.message.contains("cluster home");
    operation.progress.iter().any(is_told)
}

#[tokio::test]
async fn a_cluster_goes_on_while_another_one_changes_the_host() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("restart-domain", &mut agent);
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    let other = id(up(&manager, &other_spec(), true).await);
    agent.wait_host("all VMs run", four_run).await;
    // As when its nodes are Ready.
    agent.shared.records.finish_operation(&other, None).await.expect("writes");
    id(up(&manager, &larger(SPEC, 11), true).await);
    slow.reached().await;

    // Its VMs are started again, and its status moves.
    let mut status = manager.status("other").await.expect("it is there");
    let powered_on = |status: &control::ClusterStatus| status.nodes[1].powered_on;
    let known = tokio::time::timeout(Duration::from_secs(60), status.wait_for(|it| powered_on(it).is_some()));
    let before = powered_on(&known.await.expect("in time").expect("the task lives"));
    domain(&mut agent.hypervisor.host(), "other-worker").state = DomainState::Crashed;
    agent.hypervisor.notify();
    agent.wait_host("the VM runs again", four_run).await;
    let moved = status.wait_for(|it| powered_on(it).is_some_and(|on| Some(on) != before));
    tokio::time::timeout(Duration::from_secs(60), moved).await.expect("in time").expect("the task lives");

    // What changes the host waits, says for what, and ends at its deadline.
    let file = spec_file(&larger(&other_spec(), 11), "other.toml");
    let late = id(manager.apply(&file, "", true, Some(Duration::from_secs(3)), Role::Admin).await);
    agent.wait_operation("it says for what it waits", &late, waits_for_home).await;
    let failure = agent.failure_of(&late).await;
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("OPERATION-DEADLINE", "cluster other"));
    assert!(failure.reason.contains("cluster home"), "{}", failure.reason);

    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
    id(up(&manager, &file.text, true).await);
    let restarted = |host: &FakeHost| host.effects.get("restart-domain") == Some(&2) && four_run(host);
    agent.wait_host("both are larger", restarted).await;
}

#[tokio::test]
async fn between_two_changes_of_one_cluster_another_has_its_turn() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("restart-domain", &mut agent);
    // However short a change is.
    Arc::get_mut(&mut agent.shared).expect("nobody else has it yet").turns = HostTurns::new(Duration::ZERO);
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    agent.wait_host("both VMs run", all_run).await;
    id(up(&manager, &larger(&larger(SPEC, 10), 11), true).await);
    slow.reached().await;
    let other = id(up(&manager, &other_spec(), true).await);
    agent.wait_operation("it waits", &other, waits_for_home).await;
    let networks = || agent.hypervisor.host().effects.get("define-network").copied();
    assert_eq!(networks(), Some(1));
    slow.go_on.add_permits(1);
    // The first VM has been restarted, the second is to be.
    slow.reached().await;
    assert_eq!(networks(), Some(2));
    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
    let is_done = |host: &FakeHost| host.effects.get("restart-domain") == Some(&2) && four_run(host);
    agent.wait_host("both are as they shall be", is_done).await;
}

/// What leaves no trace, as looking for addresses that are taken, is done again at the next turn.
#[tokio::test]
async fn two_new_clusters_do_not_keep_each_other_from_their_nodes() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("install-file", &mut agent);
    Arc::get_mut(&mut agent.shared).expect("nobody else has it yet").turns = HostTurns::new(Duration::ZERO);
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    slow.reached().await;
    let other = id(up(&manager, &other_spec(), true).await);
    agent.wait_operation("it waits", &other, waits_for_home).await;
    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
    agent.wait_host("all VMs run", four_run).await;
}

#[tokio::test]
async fn an_operation_is_seen_while_the_one_before_it_waits() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("restart-domain", &mut agent);
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    id(up(&manager, &other_spec(), true).await);
    agent.wait_host("all VMs run", four_run).await;
    id(up(&manager, &larger(SPEC, 11), true).await);
    slow.reached().await;
    let patient = id(up(&manager, &larger(&other_spec(), 11), true).await);
    agent.wait_operation("it waits", &patient, waits_for_home).await;
    let file = spec_file(&larger(&other_spec(), 10), "other.toml");
    let hasty = id(manager.apply(&file, "", true, Some(Duration::from_secs(3)), Role::Admin).await);
    agent.wait_operation("it waits too", &hasty, waits_for_home).await;
    let failure = agent.failure_of(&hasty).await;
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("OPERATION-DEADLINE", "cluster other"));
    assert_eq!(agent.failure_of(&patient).await.id, "OPERATION-SUPERSEDED");
}

#[tokio::test]
async fn a_removal_that_waits_ends_at_its_deadline_and_goes_on_after_it() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("restart-domain", &mut agent);
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    id(up(&manager, &other_spec(), true).await);
    agent.wait_host("all VMs run", four_run).await;
    id(up(&manager, &larger(SPEC, 11), true).await);
    slow.reached().await;
    let deadline = deadline_from_now(Duration::from_secs(3));
    agent.shared.records.begin_down(&agent.cluster("other").await, deadline).await.expect("answers");
    let down = manager.destroy("other", "", None).await.expect("it is followed");
    agent.wait_operation("it says for what it waits", &down, waits_for_home).await;
    let failure = agent.failure_of(&down).await;
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("OPERATION-DEADLINE", "cluster other"));
    assert_eq!(agent.hypervisor.host().observed.domains.len(), 4);
    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
    agent.wait_host("it is gone", |host| host.observed.domains.len() == 2).await;
}
