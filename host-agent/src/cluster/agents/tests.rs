use std::sync::Arc;

use k8sctl_proto::node::v1::{AgentReplacement, Hello, StatusReport};
use tokio::sync::Mutex;

use super::*;
use crate::cluster::fake::{FakeHostAgent, SPEC};
use crate::nodes::registry::Refused;

const OLD: &str = "0ld";

fn hello(sha256: &str) -> Hello {
    Hello { protocol: 1, protocol_minor: 1, program_sha256: sha256.to_owned(), ..Hello::default() }
}

fn report(attempt: &str, state: ReplacementState, message: &str) -> StatusReport {
    let replacement = AgentReplacement {
        attempt: attempt.to_owned(),
        state: state.into(),
        message: message.to_owned(),
        ..AgentReplacement::default()
    };
    StatusReport { replacement: Some(replacement), ..StatusReport::default() }
}

#[test]
fn who_is_away_or_cannot_is_told_without_waiting() {
    let failed = |view: &NodeView| match before(view, "new") {
        Some(Standing::Failed { id, .. }) => id,
        other => panic!("{other:?}"),
    };
    let view = NodeView::default();
    assert_eq!(failed(&view), "NODE-NOT-CONNECTED");
    let connected = |hello| NodeView { connected: true, hello: Some(hello), ..NodeView::default() };
    assert_eq!(before(&connected(hello("new")), "new"), Some(Standing::Done));
    assert_eq!(before(&connected(hello(OLD)), "new"), None);
    let previous = Hello { protocol: 1, ..Hello::default() };
    assert_eq!(failed(&connected(previous)), "NODE-AGENT-FIXED");
    let refused = |can_be_replaced, called| {
        let refused = Refused { reason: "too old".to_owned(), can_be_replaced, called };
        NodeView { refused: Some(refused), ..NodeView::default() }
    };
    let now = Instant::now();
    assert_eq!(before(&refused(true, now), "new"), None, "it calls");
    assert_eq!(failed(&refused(false, now)), "NODE-AGENT-FIXED");
    let long_ago = now.checked_sub(2 * CALLS_WITHIN).expect("the machine runs longer");
    assert_eq!(failed(&refused(true, long_ago)), "NODE-NOT-CONNECTED", "it called once");
}

#[test]
fn a_node_is_done_when_the_new_agent_has_a_session_and_not_before() {
    let program = AgentProgram { sha256: "new".into(), attempt: "one".into(), ..AgentProgram::default() };
    let view = |connected, sha256, report| NodeView {
        connected,
        hello: Some(hello(sha256)),
        report: Arc::new(report),
        ..NodeView::default()
    };
    let replaced = || report("one", ReplacementState::Replaced, "");
    assert_eq!(judge(&view(true, "new", replaced()), &program), Standing::Done);
    for going in [
        view(false, "new", replaced()),
        view(true, OLD, replaced()),
        view(true, "new", StatusReport::default()),
        view(true, OLD, report("another", ReplacementState::RolledBack, "of another wish")),
        view(true, OLD, report("one", ReplacementState::OnTrial, "")),
    ] {
        assert!(matches!(judge(&going, &program), Standing::Going(_)), "{going:?}");
    }
    let earlier = view(true, "new", report("another", ReplacementState::Replaced, ""));
    assert_eq!(judge(&earlier, &program), Standing::Done, "its wish is fulfilled");
    let back = judge(&view(true, OLD, report("one", ReplacementState::RolledBack, "no session")), &program);
    assert!(matches!(back, Standing::Failed { id: "NODE-AGENT-ROLLED-BACK", .. }), "{back:?}");
    let stuck = judge(&view(true, "new", report("one", ReplacementState::RolledBack, "no copy")), &program);
    assert!(matches!(stuck, Standing::Failed { id: "NODE-AGENT-NOT-BACK", .. }), "{stuck:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_away_or_cannot_holds_up_no_other() {
    let agent = FakeHostAgent::new().await;
    let begun = agent.begin(agent.generation(SPEC).await).await;
    let record = agent.cluster("home").await;
    agent.shared.records.finish_operation(&begun.id, None).await.expect("writes");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("k8s-node-agent");
    std::fs::write(&path, "the new agent").expect("written");
    let (file, alone) = (AgentFile::new(&path), Arc::new(Mutex::default()));
    let registry = Arc::clone(&agent.shared.registry);
    let id = |name: &str| record.nodes.iter().find(|node| node.name == name).expect("a node").id.clone();
    let fixed = Hello { protocol: 1, ..Hello::default() };
    for (of_worker, expected) in [(hello(OLD), "NODE-NOT-CONNECTED"), (fixed, "NODE-AGENT-FIXED")] {
        let upgrade = AgentUpgrade::plan(&agent.shared, &record, &[], None, &file, Arc::clone(&alone)).await;
        let upgrade = upgrade.expect("it begins");
        let sha256 = upgrade.program.sha256.clone();
        let worker = registry.open_session(&id("worker"), of_worker);
        let _control = registry.open_session(&id("control"), hello(&sha256));
        let (sender, mut told) = mpsc::channel(64);
        let began = Instant::now();
        let goes_away = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(worker);
        };
        let (ended, ()) = tokio::join!(upgrade.run(sender), goes_away);
        ended.expect("to its end");
        assert!(began.elapsed() < AWAY + SLACK, "{:?}", began.elapsed());
        let mut all = Vec::new();
        while let Some(response) = told.recv().await {
            all.push(response.expect("a response"));
        }
        assert_eq!(last(&all, "worker"), (UpgradeState::Failed, Some(expected.to_owned())));
        assert_eq!(last(&all, "control"), (UpgradeState::Done, None));
    }
}

/// What a client was told of each node last.
fn last(all: &[UpgradeAgentsResponse], node: &str) -> (UpgradeState, Option<String>) {
    let last = all.iter().rfind(|it| it.node_name == node).expect("it was told of");
    (last.state(), last.failure.as_ref().map(|failure| failure.id.clone()))
}

#[tokio::test]
async fn one_after_the_other_and_none_after_one_that_went_back() {
    let agent = FakeHostAgent::new().await;
    let begun = agent.begin(agent.generation(SPEC).await).await;
    let record = agent.cluster("home").await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("k8s-node-agent");
    std::fs::write(&path, "the new agent").expect("written");
    let (file, alone) = (AgentFile::new(&path), Arc::new(Mutex::default()));
    let plan = async |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        AgentUpgrade::plan(&agent.shared, &record, &names, None, &file, Arc::clone(&alone)).await
    };
    let Err(RequestError::Refused(busy)) = plan(&[]).await else { panic!("an up runs") };
    assert_eq!(busy.id, "OPERATION-RUNNING");
    agent.shared.records.finish_operation(&begun.id, None).await.expect("writes");
    let Err(RequestError::Refused(unknown)) = plan(&["nosuch"]).await else { panic!("it is refused") };
    assert_eq!(
        (unknown.id.as_str(), unknown.next_step.as_str()),
        ("NODE-UNKNOWN", "the nodes are: control, worker")
    );

    let upgrade = plan(&[]).await.expect("it begins");
    let Err(RequestError::Refused(second)) = plan(&[]).await else { panic!("one at a time") };
    assert_eq!(second.id, "OPERATION-RUNNING");
    let names: Vec<&str> = upgrade.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["worker", "control"], "workers first");

    let registry = Arc::clone(&agent.shared.registry);
    let id = |name: &str| record.nodes.iter().find(|node| node.name == name).expect("a node").id.clone();
    let (worker, control) = (id("worker"), id("control"));
    let session = registry.open_session(&worker, hello(OLD));
    let other = registry.open_session(&control, hello(OLD));
    let (sender, mut told) = mpsc::channel(64);
    let goes_back = async {
        let wanted = loop {
            if let Some(wanted) = registry.wanted_agent(&worker) {
                break wanted;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(registry.wanted_agent(&control), None, "one after the other");
        assert_eq!(wanted.size_bytes, "the new agent".len() as u64);
        assert!(session.report(report(&wanted.attempt, ReplacementState::RolledBack, "it had no session")));
    };
    let (ended, ()) = tokio::join!(upgrade.run(sender), goes_back);
    ended.expect("to its end");
    let mut all = Vec::new();
    while let Some(response) = told.recv().await {
        all.push(response.expect("a response"));
    }
    let back = Some("NODE-AGENT-ROLLED-BACK".to_owned());
    assert_eq!(last(&all, "worker"), (UpgradeState::Failed, back));
    assert_eq!(last(&all, "control"), (UpgradeState::Skipped, None));
    assert_eq!((registry.wanted_agent(&worker), registry.wanted_agent(&control)), (None, None));
    drop(other);
    plan(&["control"]).await.expect("the next one may begin");
}
