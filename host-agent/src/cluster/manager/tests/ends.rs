//! Tasks that have ended, well or badly.

use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn a_cluster_that_begins_while_the_task_of_the_one_before_ends_gets_its_own() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    // It has forgotten its cluster, and looks no more.
    let (status, receiver) = watch::channel(control::ClusterStatus::default());
    let (end, ended) = oneshot::channel::<()>();
    manager.supervisor.spawn(exits::task_name("home"), async move {
        let _ = ended.await;
        drop(status);
    });
    manager.lock().insert("home".to_owned(), Handle { wake: Arc::default(), status: receiver });
    id(up(&manager, SPEC, true).await);
    end.send(()).expect("it waits");
    agent.wait_host("both VMs run", all_run).await;
}

/// A host at which every look panics.
struct Broken(Arc<FakeHypervisor>);

#[async_trait]
impl Hypervisor for Broken {
    async fn observe(&self, _: &DesiredPool) -> Result<ObservedHost, Failure> {
        panic!("the test wants it")
    }

    async fn execute(&self, op: &HostOp) -> Result<Effect, Failure> {
        self.0.execute(op).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    async fn console_tail(&self, domain: &DomainRef, bytes: usize) -> Result<String, Failure> {
        self.0.console_tail(domain, bytes).await
    }

    async fn join_channel(&self, domain: &DomainRef) -> Result<Option<std::path::PathBuf>, Failure> {
        self.0.join_channel(domain).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_task_panics_is_told_of_and_ends_at_its_deadline() {
    let mut agent = FakeHostAgent::new().await;
    let broken = Arc::new(Broken(agent.hypervisor.clone()));
    Arc::get_mut(&mut agent.shared).expect("nobody else has it yet").hypervisor = broken;
    let patient = agent.begin(agent.generation(SPEC).await).await.id;
    let late = NewGeneration { deadline: jiff::Timestamp::now(), ..agent.generation(&other_spec()).await };
    let late = agent.begin(late).await.id;
    let _manager = agent.start().await;
    let failure = agent.failure_of(&late).await;
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("HOST-INTERNAL", "cluster other"));
    assert!(failure.reason.contains("the test wants it"), "{}", failure.reason);
    let stored = agent.shared.records.operation(&late).await.expect("reads").expect("is there");
    assert!(
        matches!(&stored.state, OperationState::Failed(failure) if failure.id == "HOST-INTERNAL"),
        "{stored:?}"
    );
    let is_told = |line: &control::Progress| line.message.contains("HOST-INTERNAL");
    let told = |it: &control::Operation| it.progress.iter().any(is_told);
    let patient = agent.wait_operation("the other goes on", &patient, told).await;
    assert_eq!(patient.state(), control::OperationState::Running);
}

/// The host agent is killed, or cannot write, before the end of the operation stands in its records.
#[tokio::test]
async fn the_end_of_an_operation_whose_task_panics_is_one_event() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let late = NewGeneration { deadline: jiff::Timestamp::UNIX_EPOCH, ..agent.generation(SPEC).await };
    let late = agent.begin(late).await.id;
    for _ in 0..2 {
        manager.tell_of_panic("home", "the test wants it").await.expect("writes");
        assert_eq!(agent.failure_of(&late).await.id, "HOST-INTERNAL");
        let undo = |c: &mut rusqlite::Connection| {
            c.execute("UPDATE operation SET state = 'running', failure = NULL, finished = NULL", [])
        };
        assert_eq!(agent.store.call_blocking(undo).expect("writes"), 1);
        agent.shared.operations.send_modify(|all| all.clear());
    }
    let failed = Selection { types: vec![EventType::OperationFailed], ..Selection::of_cluster("home") };
    let told = agent.shared.events.page(0, &failed).await.expect("reads").events;
    assert_eq!(told.len(), 1, "{told:?}");
}
