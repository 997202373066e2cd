//! Requests and the tasks behind them, on a host in memory.

use async_trait::async_trait;
use host_hypervisor::change::{DomainRef, HostOp, Outcome as Effect};
use host_hypervisor::desired::DesiredPool;
use host_hypervisor::fake::FakeHost;
use host_hypervisor::observed::{DomainState, ObservedDomain, ObservedHost};
use host_hypervisor::{FakeHypervisor, Hypervisor};
use tokio::sync::Semaphore;

use super::*;
use crate::cluster::fake::{FakeHostAgent, SPEC, other_spec, spec_file};
use crate::events::Selection;
use crate::records::OperationState;

mod cut;
mod deadlines;
mod ends;
mod plugins;
mod told;
mod turns;

async fn up(manager: &Manager, spec: &str, yes: bool) -> Result<Applied, RequestError> {
    let file = spec_file(spec, "cluster.toml");
    manager.apply(&file, "", yes, None, Role::Admin).await
}

fn id(applied: Result<Applied, RequestError>) -> String {
    applied.expect("it is accepted").operation_id.expect("something is to be done")
}

fn refusal(answer: Result<impl std::fmt::Debug, RequestError>) -> Failure {
    match answer {
        Err(RequestError::Refused(failure)) => failure,
        other => panic!("it is not refused: {other:?}"),
    }
}

fn domain<'a>(host: &'a mut FakeHost, name: &str) -> &'a mut ObservedDomain {
    host.observed.domains.iter_mut().find(|it| it.name == name).expect("it is there")
}

fn all_run(host: &FakeHost) -> bool {
    let domains = &host.observed.domains;
    domains.len() == 2 && domains.iter().all(|it| it.state == DomainState::Running)
}

fn has_succeeded(operation: &control::Operation) -> bool {
    operation.state() == control::OperationState::Succeeded
}

/// How many VMs, disks and networks went.
fn deleted(host: &FakeHost) -> [u32; 3] {
    let count = |op| host.effects.get(op).copied().unwrap_or_default();
    [count("delete-domain"), count("delete-volume"), count("delete-network")]
}

/// As `virsh snapshot-create-as --disk-only` leaves it.
fn snapshot(agent: &FakeHostAgent, name: &str) {
    domain(&mut agent.hypervisor.host(), name).disks = vec!["/pool/snapshot.s1".into()];
    agent.hypervisor.notify();
}

#[tokio::test]
async fn a_running_up_destroys_only_what_was_agreed_to() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let first = id(up(&manager, SPEC, true).await);
    agent.wait_host("both VMs run", all_run).await;

    snapshot(&agent, "control");
    let failure = agent.failure_of(&first).await;
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("PLAN-CONSENT", "domain control"));
    assert!(failure.reason.contains("it has another disk than it should"), "{}", failure.reason);
    assert!(failure.next_step.contains("`k8sctl up`"), "{}", failure.next_step);
    assert_eq!(deleted(&agent.hypervisor.host()), [0, 0, 0]);

    // The next one shows it and asks; what was agreed to is done, also where its reason is another by then.
    assert_eq!(refusal(up(&manager, SPEC, false).await).id, "PLAN-CONSENT");
    let second = id(up(&manager, SPEC, true).await);
    agent.wait_host("it is replaced", |host| deleted(host) == [1, 1, 0] && all_run(host)).await;
    agent.hypervisor.host().observed.volumes.retain(|it| !it.name.ends_with("-control.qcow2"));
    agent.hypervisor.notify();
    agent.wait_host("the rest is done", |host| deleted(host) == [2, 1, 0] && all_run(host)).await;

    // All of it would have to go, of which half was agreed to: nothing goes.
    agent.hypervisor.host().observed.volumes.retain(|it| it.backing.is_none());
    agent.hypervisor.notify();
    let failure = agent.failure_of(&second).await;
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("PLAN-CONSENT", "domain worker"));
    assert_eq!(deleted(&agent.hypervisor.host()), [2, 1, 0]);
}

#[tokio::test]
async fn a_vm_that_is_paused_is_not_turned_off_to_wait_for_its_turn() {
    let agent = FakeHostAgent::new().await;
    // Fewer processors than VMs want: workers wait until the control plane has done its part.
    agent.hypervisor.host().observed.host_cpus = 1;
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    let worker_is_defined = |host: &FakeHost| host.observed.domains.len() == 2;
    agent.wait_host("the worker waits", worker_is_defined).await;
    domain(&mut agent.hypervisor.host(), "worker").state = DomainState::Paused;
    agent.hypervisor.notify();
    agent.wait_host("it goes on", all_run).await;
    assert_eq!(agent.hypervisor.host().effects.get("shut-down-domain"), None);
}

#[tokio::test]
async fn two_that_want_the_same_follow_one_operation() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let (first, second) = tokio::join!(up(&manager, SPEC, true), up(&manager, SPEC, true));
    let attached = [&first, &second].map(|it| it.as_ref().is_ok_and(|applied| applied.attached));
    assert!(attached.contains(&true) && attached.contains(&false), "{attached:?}");
    assert_eq!(id(first), id(second));

    let (first, second) = tokio::join!(manager.destroy("home", "", None), manager.destroy("home", "", None));
    let down = first.expect("it begins");
    assert_eq!(down, second.expect("it follows"));
    agent.wait_operation("it is gone", &down, has_succeeded).await;
    assert_eq!(refusal(manager.destroy("home", "", None).await).id, "CLUSTER-UNKNOWN");
}

#[tokio::test]
async fn what_is_removed_must_be_named() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    assert_eq!(refusal(manager.plan_down("").await).id, "CLUSTER-WHICH");
    assert_eq!(refusal(manager.destroy("", "", None).await).id, "CLUSTER-WHICH");
    assert!(manager.status("").await.is_ok(), "who only looks means the only one");
    assert!(manager.plan_down("home").await.is_ok());
}

#[tokio::test]
async fn a_pinned_version_without_bundle_is_told_with_its_line() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let pinned = SPEC.replace("name = \"home\"", "name = \"home\"\nkubernetes = \"v1.31.4\"");
    let failure = refusal(up(&manager, &pinned, true).await);
    assert_eq!(failure.id, "BUNDLE-MISSING");
    assert!(failure.reason.starts_with("cluster.toml:3: Kubernetes v1.31.4 is wanted"), "{}", failure.reason);
    // A file that names none has no line for it.
    let other = SPEC.replace("name = \"home\"", "name = \"home\"\nimage.suite = \"trixie\"");
    assert!(refusal(up(&manager, &other, true).await).reason.starts_with("no Kubernetes bundle"));
}

#[tokio::test]
async fn a_plan_counts_the_memory_of_the_other_clusters() {
    let agent = FakeHostAgent::new().await;
    agent.hypervisor.host().observed.host_memory_bytes = 20 << 30;
    let manager = agent.start().await;
    let notices = async |spec: &str| {
        let file = spec_file(spec, "cluster.toml");
        manager.plan_up(&file).await.expect("it is planned").plan.notices.join("\n")
    };
    assert!(!notices(SPEC).await.contains("memory"), "12 of 20 GiB");
    id(up(&manager, SPEC, true).await);
    assert!(!notices(SPEC).await.contains("memory"), "itself is no other one");
    let den = SPEC
        .replace("home", "den")
        .replace("\"control\"", "\"c2\"")
        .replace("\"worker\"\nrole", "\"w2\"\nrole");
    let den = den.replace("[network]", "[network]\ncidr = \"192.168.77.0/24\"").replace("122.1", "77.1");
    let told = notices(&den).await;
    assert!(
        told.contains("with home the nodes want 24576 MiB of memory together, the host has 20480 MiB"),
        "{told}"
    );
}

/// Whether nothing can be recorded, as on a full disk.
fn set_read_only(agent: &FakeHostAgent, read_only: bool) {
    let set = |c: &mut rusqlite::Connection| c.pragma_update(None, "query_only", read_only);
    agent.store.call_blocking(set).expect("sets");
}

#[tokio::test]
async fn a_failure_that_cannot_be_written_down_is_told_and_written_later() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let operation = id(up(&manager, SPEC, true).await);
    agent.wait_host("both VMs run", all_run).await;
    set_read_only(&agent, true);
    snapshot(&agent, "control");
    assert_eq!(agent.failure_of(&operation).await.id, "PLAN-CONSENT");
    let state = || async {
        let record = agent.shared.records.operation(&operation).await.expect("reads");
        record.expect("it is there").state
    };
    assert_eq!(state().await, OperationState::Running);

    let mut operations = manager.operations();
    set_read_only(&agent, false);
    agent.hypervisor.notify();
    // Written, it is published as the records have it.
    operations.changed().await.expect("the sender lives");
    assert!(matches!(state().await, OperationState::Failed(failure) if failure.id == "PLAN-CONSENT"));
    assert_eq!(agent.failure_of(&operation).await.id, "PLAN-CONSENT");
}

#[tokio::test]
async fn who_asks_again_after_a_failure_that_could_not_be_written_down_gets_another_try() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let first = id(up(&manager, SPEC, true).await);
    agent.wait_host("both VMs run", all_run).await;
    set_read_only(&agent, true);
    snapshot(&agent, "control");
    assert_eq!(agent.failure_of(&first).await.id, "PLAN-CONSENT");
    set_read_only(&agent, false);
    // Its task has not looked again; the records have it as running.
    let file = spec_file(SPEC, "cluster.toml");
    let plan = manager.plan_up(&file).await.expect("plans").plan;
    assert_eq!(plan.operation_id, "");
    let second = up(&manager, SPEC, true).await.expect("it is accepted");
    assert!(!second.attached);
    assert_ne!(second.operation_id, Some(first.clone()));
    let ended = agent.shared.records.operation(&first).await.expect("reads").expect("is there").state;
    assert!(matches!(&ended, OperationState::Failed(failure) if failure.id == "PLAN-CONSENT"), "{ended:?}");
}

#[tokio::test]
async fn an_end_that_cannot_be_read_back_is_told_all_the_same() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let spoil = |c: &mut rusqlite::Connection| {
        c.execute_batch(
            "CREATE TRIGGER spoil AFTER UPDATE OF state ON operation
             BEGIN UPDATE operation SET failure = '{' WHERE id = NEW.id; END",
        )
    };
    agent.store.call_blocking(spoil).expect("writes");
    let first = id(up(&manager, SPEC, true).await);
    id(up(&manager, &SPEC.replace("122.11", "122.21"), true).await);
    assert_eq!(agent.failure_of(&first).await.id, "OPERATION-SUPERSEDED");
    let down = manager.destroy("home", "", None).await.expect("it begins");
    agent.wait_operation("it is told", &down, has_succeeded).await;
}

#[tokio::test]
async fn what_cannot_change_is_refused_before_a_bundle_is_asked_for() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    for (line, said) in [
        ("kubernetes = \"v1.30.0\"\n", "cluster.toml:1: kubernetes is v1.29.0 and would become v1.30.0"),
        ("image.suite = \"trixie\"\n", "cluster.toml:1: image.suite is bookworm and would become trixie"),
    ] {
        let refused = refusal(up(&manager, &format!("{line}{SPEC}"), true).await);
        assert_eq!(refused.id, "SPEC-FIXED", "{refused}");
        assert!(refused.reason.contains(said), "{refused}");
    }
}

#[tokio::test]
async fn a_damaged_cluster_holds_up_no_other() {
    let agent = FakeHostAgent::new().await;
    let mut running = HashMap::new();
    for spec in [SPEC, &other_spec()] {
        let operation = agent.begin(agent.generation(spec).await).await;
        running.insert(operation.cluster, operation.id);
    }
    let damage = |c: &mut rusqlite::Connection| {
        c.execute("UPDATE cluster SET spec = '{' || spec WHERE name = 'home'", [])
    };
    assert_eq!(agent.store.call_blocking(damage).expect("writes"), 1);

    let manager = agent.start().await;
    agent.wait_host("the other goes on", all_run).await;
    assert!(agent.hypervisor.host().observed.domains.iter().all(|it| it.name.starts_with("other-")));
    for asked in ["home", ""] {
        let found = manager.find(asked).await;
        match (asked, found) {
            ("home", Err(RequestError::Records(error))) => {
                let failure = error.failure();
                assert_eq!(
                    (failure.id.as_str(), failure.object.as_str()),
                    ("HOST-RECORD-DAMAGED", "cluster home")
                );
            }
            ("", Err(RequestError::Refused(failure))) => {
                assert!(failure.next_step.contains("other, home"), "{failure:?}");
            }
            (_, found) => panic!("{asked:?}: {found:?}"),
        }
    }
    let names: Vec<_> = manager.summaries().await.expect("reads").into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["other", "home"]);
    let events = agent.shared.events.page(0, &Selection::of_cluster("home")).await.expect("reads").events;
    assert!(events.iter().any(|event| event.r#type == "RecordDamaged"), "{events:?}");
    // Who watches it again after the restart would wait for ever.
    let ended = manager.operation(&running["home"]).await.expect("reads");
    assert_eq!(ended.failure.map(|it| it.id).as_deref(), Some("HOST-RECORD-DAMAGED"));
    assert_eq!(
        manager.operation(&running["other"]).await.expect("reads").state(),
        control::OperationState::Running
    );
}

/// A host that stops before one kind of effect until it may go on, as libvirt does that copies an image.
struct Slow {
    host: Arc<FakeHypervisor>,
    op: &'static str,
    reached: Semaphore,
    go_on: Semaphore,
}

impl Slow {
    /// In place of the agent's host, before its clusters are taken up.
    fn before(op: &'static str, agent: &mut FakeHostAgent) -> Arc<Self> {
        let (reached, go_on) = (Semaphore::new(0), Semaphore::new(0));
        let slow = Arc::new(Self { host: agent.hypervisor.clone(), op, reached, go_on });
        Arc::get_mut(&mut agent.shared).expect("nobody else has it yet").hypervisor = slow.clone();
        slow
    }

    async fn reached(&self) {
        let reached = tokio::time::timeout(Duration::from_secs(60), self.reached.acquire()).await;
        reached.expect("in time").expect("it is open").forget();
    }
}

#[async_trait]
impl Hypervisor for Slow {
    async fn observe(&self, pool: &DesiredPool) -> Result<ObservedHost, Failure> {
        self.host.observe(pool).await
    }

    async fn execute(&self, op: &HostOp) -> Result<Effect, Failure> {
        if op.name() == self.op {
            self.reached.add_permits(1);
            self.go_on.acquire().await.expect("it is open").forget();
        }
        self.host.execute(op).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.host.changes()
    }

    async fn console_tail(&self, domain: &DomainRef, bytes: usize) -> Result<String, Failure> {
        self.host.console_tail(domain, bytes).await
    }

    async fn join_channel(&self, domain: &DomainRef) -> Result<Option<std::path::PathBuf>, Failure> {
        self.host.join_channel(domain).await
    }
}

#[tokio::test]
async fn an_up_that_has_given_way_makes_no_more_changes() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("install-file", &mut agent);
    let manager = agent.start().await;
    let first = id(up(&manager, SPEC, true).await);
    slow.reached().await;
    // Nothing is there yet, so nothing is lost by it.
    let corrected = SPEC.replace("192.168.122.11\"", "192.168.122.21\"\nmemory = \"5GiB\"");
    let second = id(up(&manager, &corrected, false).await);
    assert_eq!(agent.failure_of(&first).await.id, "OPERATION-SUPERSEDED");
    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
    agent.wait_host("both VMs run", all_run).await;
    assert_eq!(domain(&mut agent.hypervisor.host(), "worker").memory_bytes, 5 << 30);
    assert_eq!(deleted(&agent.hypervisor.host()), [0, 0, 0]);
    let state = agent.shared.records.operation(&second).await.expect("reads").expect("is there").state;
    assert_eq!(state, OperationState::Running);
}

#[tokio::test]
async fn what_the_operation_before_was_at_when_the_next_was_planned_is_set_right() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("restart-domain", &mut agent);
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    agent.wait_host("both VMs run", all_run).await;
    let before = domain(&mut agent.hypervisor.host(), "worker").memory_bytes;
    let larger = SPEC.replace("192.168.122.11\"", "192.168.122.11\"\nmemory = \"5GiB\"");
    id(up(&manager, &larger, true).await);
    slow.reached().await;
    // It has the memory that it shall have: no restart is seen, and none agreed to.
    let back = id(up(&manager, SPEC, false).await);
    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
    let is_back = |host: &FakeHost| {
        let worker = host.observed.domain("worker").expect("it is there");
        host.effects.get("restart-domain") == Some(&2) && worker.live_memory_bytes == Some(before)
    };
    agent.wait_host("it runs with what it had", is_back).await;

    // From now on nothing may be lost.
    snapshot(&agent, "worker");
    assert_eq!(agent.failure_of(&back).await.id, "PLAN-CONSENT");
    assert_eq!(deleted(&agent.hypervisor.host()), [0, 0, 0]);
}

#[tokio::test]
async fn a_vm_in_the_making_is_made_anew_with_the_empty_disk_that_it_got() {
    let mut agent = FakeHostAgent::new().await;
    let slow = Slow::before("define-domain", &mut agent);
    let manager = agent.start().await;
    id(up(&manager, SPEC, true).await);
    slow.reached().await;
    slow.go_on.add_permits(1);
    // The worker's disk is there, its VM is not: nothing is lost by another address.
    slow.reached().await;
    let corrected = id(up(&manager, &SPEC.replace("122.11", "122.21"), false).await);
    slow.go_on.add_permits(Semaphore::MAX_PERMITS);
    agent.wait_host("both VMs run", all_run).await;
    let owner = domain(&mut agent.hypervisor.host(), "worker").ours.clone().expect("it is ours");
    assert_eq!(owner.ip, "192.168.122.21");
    assert_eq!(deleted(&agent.hypervisor.host()), [1, 1, 0]);
    let state = agent.shared.records.operation(&corrected).await.expect("reads").expect("is there").state;
    assert_eq!(state, OperationState::Running);
}
