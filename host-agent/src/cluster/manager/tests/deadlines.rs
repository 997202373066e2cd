//! Deadlines of those who follow what runs already.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

async fn up_within(manager: &Manager, deadline: Option<Duration>) -> Applied {
    let file = spec_file(SPEC, "cluster.toml");
    manager.apply(&file, "", true, deadline, Role::Admin).await.expect("it is accepted")
}

async fn ends(agent: &FakeHostAgent, operation: &str) -> jiff::Timestamp {
    agent.shared.records.operation(operation).await.expect("reads").expect("is there").deadline
}

#[tokio::test]
async fn who_follows_an_up_gives_it_as_long_as_they_want_to_wait() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let first = up_within(&manager, Some(HOUR)).await;
    let id = first.operation_id.expect("something is to be done");
    let before = ends(&agent, &id).await;
    for deadline in [None, Some(HOUR / 2)] {
        assert!(up_within(&manager, deadline).await.attached);
        assert_eq!(ends(&agent, &id).await, before, "{deadline:?}: nobody takes time from it");
    }
    let again = up_within(&manager, Some(HOUR * 4)).await;
    assert_eq!((again.attached, again.operation_id.as_deref()), (true, Some(id.as_str())));
    assert!(ends(&agent, &id).await >= before + HOUR * 3 - Duration::from_secs(60));
    // It goes on, and is told as it was.
    agent.wait_host("both VMs run", all_run).await;
    let running = |it: &control::Operation| it.state() == control::OperationState::Running;
    agent.wait_operation("it runs", &id, running).await;

    // One that has ended had what it had.
    agent.shared.records.finish_operation(&id, None).await.expect("writes");
    let ended = ends(&agent, &id).await;
    let next = up_within(&manager, Some(HOUR * 9)).await;
    assert_ne!(next.operation_id, Some(id.clone()));
    assert_eq!(ends(&agent, &id).await, ended);
}

#[tokio::test]
async fn who_follows_a_down_gives_it_as_long_as_they_want_to_wait() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("delete-domain", &mut agent);
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    agent.wait_host("both VMs run", all_run).await;
    let down = manager.destroy("home", "", Some(HOUR)).await.expect("it begins");
    slow.reached().await;
    let before = ends(&agent, &down).await;
    for (deadline, is_longer) in [(None, false), (Some(HOUR / 2), false), (Some(HOUR * 4), true)] {
        assert_eq!(manager.destroy("home", "", deadline).await.expect("it follows"), down);
        assert_eq!(ends(&agent, &down).await > before, is_longer, "{deadline:?}");
    }
    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
    agent.wait_operation("it is gone", &down, has_succeeded).await;
}
