//! On whose behalf a look acts: it reads the operation, then waits for other clusters, for an image, for VMs. An
//! operation that has given way meanwhile acts no more.

use std::time::{Duration, Instant};

use host_hypervisor::change::{Action, HostChange, HostOp, Kind};
use host_hypervisor::desired::volume_name;
use k8sctl_types::failure::Failure;

use super::host::{stands, started};
use super::trouble::Trouble;
use super::{ClusterTask, is_one};
use crate::cluster::execute::execute_change;
use crate::cluster::planning::shown_name;
use crate::cluster::turns::Turn;
use crate::records::{Agreed, ClusterRecord, OperationKind, OperationRecord, RecordError};

/// Longest time from a plan to the operation that is begun with it.
const PLANNED: Duration = Duration::from_secs(600);

/// What was done to the host of late. An effect that had begun when the next operation was planned is none that its plan
/// could show, and ends after it.
#[derive(Debug, Default)]
pub(super) struct Doings(Vec<Doing>);

#[derive(Debug)]
struct Doing {
    /// The operation for which it was done.
    by: Option<String>,
    ended: jiff::Timestamp,
    /// The object that is not what it was, and how much of it.
    object: Agreed,
}

impl Doings {
    fn note(&mut self, cluster: &ClusterRecord, by: Option<&OperationRecord>, change: &HostChange) {
        let ended = jiff::Timestamp::now();
        self.0.retain(|it| it.ended >= ended - PLANNED);
        let runs_anew = matches!(change.op, HostOp::StartDomain { .. } | HostOp::RestartDomain { .. });
        if change.action == Action::Update && !runs_anew {
            return;
        }
        let by = by.map(|it| it.id.clone());
        // What is lost with the object.
        let with_it = match &change.op {
            // Nothing is left of a VM without its disk.
            HostOp::DeleteVolume { name, .. } => {
                let node = cluster.nodes.iter().find(|it| volume_name(&cluster.id, &it.name) == *name);
                node.map(|node| (Kind::Domain, node.name.clone()))
            }
            // The disk that was just made for it is empty still, and goes where the VM is made anew.
            HostOp::DefineDomain { .. } => {
                let volume = volume_name(&cluster.id, &change.name);
                self.is_untouched(by.as_ref(), &volume, &change.name).then_some((Kind::Volume, volume))
            }
            _ => None,
        };
        let objects = [(change.kind, change.name.clone())].into_iter().chain(with_it);
        self.0.extend(objects.map(|(kind, name)| {
            let object = Agreed { action: change.action, kind, name };
            Doing { by: by.clone(), ended, object }
        }));
    }

    /// Whether the same operation has made this disk, and done nothing to its VM since.
    fn is_untouched(&self, by: Option<&String>, volume: &str, domain: &str) -> bool {
        let its = |it: &&Doing| match it.object.kind {
            Kind::Volume => it.object.name == volume,
            Kind::Domain => it.object.name == domain,
            _ => false,
        };
        let last = self.0.iter().rev().find(its);
        last.is_some_and(|it| {
            it.by.as_ref() == by
                && it.object.kind == Kind::Volume
                && matches!(it.object.action, Action::Create | Action::Replace)
        })
    }

    /// What was done, and not for this operation, after its plan was made.
    pub(super) fn unsettled(&self, operation: &OperationRecord) -> Vec<Agreed> {
        let since = |it: &&Doing| it.ended >= operation.started && it.by.as_ref() != Some(&operation.id);
        self.0.iter().filter(since).map(|it| it.object.clone()).collect()
    }

    /// All is as an operation wants it: what others did is made good, and what changes from now on is somebody's doing.
    pub(super) fn settle(&mut self, operation: Option<&OperationRecord>) {
        self.0.retain(|it| it.by.as_ref() == operation.map(|it| &it.id));
    }
}

/// How far changes were carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// To the end.
    All,
    /// Another operation has begun: the rest is not to be done.
    GivenWay,
    /// Others wait for their turn on the host: the rest is to be planned anew.
    TurnOver,
}

impl ClusterTask {
    /// The running operation, but for one that failed and could not be recorded as such.
    pub(super) fn unless_it_failed(&self, running: Option<OperationRecord>) -> Option<OperationRecord> {
        running.filter(|it| !is_one(&self.unwritten, it))
    }

    /// Whether the cluster's running operation, or that there is none, is what the look began with. Every new spec, and
    /// every removal, comes with an operation of its own.
    pub(super) async fn is_at_work(
        &self,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
    ) -> Result<bool, RecordError> {
        let running = self.unless_it_failed(self.shared.records.running_operation(&cluster.id).await?);
        let holds = running.map(|it| it.id) == operation.map(|it| it.id.clone());
        if !holds {
            self.wake.notify_one();
        }
        Ok(holds)
    }

    /// The operation's deadline by now: who re-attached to it may have put it off since the look read it.
    pub(super) async fn deadline(&self, operation: &OperationRecord) -> Result<jiff::Timestamp, RecordError> {
        let now = self.shared.records.operation(&operation.id).await?;
        Ok(now.map_or(operation.deadline, |it| it.deadline))
    }

    /// Executes the changes in order; stops at the first that fails, and at the operation's deadline.
    pub(super) async fn carry_out(
        &mut self,
        turn: Option<&Turn<'_>>,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
        changes: &[HostChange],
    ) -> Result<Carried, Trouble> {
        // What leaves no trace is planned again: a turn that ends behind it would have been for nothing.
        let mut has_acted = false;
        for (done, change) in changes.iter().enumerate() {
            if has_acted && turn.is_some_and(Turn::is_over) {
                return Ok(Carried::TurnOver);
            }
            if !self.is_at_work(cluster, operation).await? {
                return Ok(Carried::GivenWay);
            }
            self.refuse_overdue(cluster, operation, &changes[done..]).await?;
            let is_news = started(&change.op).is_none_or(|name| {
                let host = self.host.as_ref().map(|(_, _, host)| host);
                self.starts.note(name, host.is_some_and(|host| stands(host, name)), Instant::now())
            });
            let done = execute_change(&self.shared, operation, &cluster.name, change, is_news).await;
            // Also one that failed may have had its effect.
            self.doings.note(cluster, operation, change);
            done?;
            has_acted |= !matches!(change.op, HostOp::CheckAddresses { .. });
        }
        Ok(Carried::All)
    }

    /// Refuses to begin what is left of an operation's changes after its deadline.
    pub(super) async fn refuse_overdue(
        &self,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
        left: &[HostChange],
    ) -> Result<(), Trouble> {
        // Also a host that stood still in this look is taken in only by the next one.
        let is_over = |it: &&OperationRecord| self.pace.now() >= it.deadline;
        let (Some(operation), Some(first)) = (operation.filter(is_over), left.first()) else {
            return Ok(());
        };
        if self.pace.now() < self.deadline(operation).await? {
            return Ok(());
        }
        Err(overdue(cluster, operation, first, left.len()).into())
    }
}

fn overdue(cluster: &ClusterRecord, operation: &OperationRecord, first: &HostChange, left: usize) -> Failure {
    let HostChange { action, kind, name, reason, .. } = first;
    let next = match operation.kind {
        OperationKind::Up => {
            "run `k8sctl up` again to go on from here, with a longer `--deadline` if the host is slow"
        }
        OperationKind::Down => "run `k8sctl down` again to wait for the rest, which goes on",
    };
    Failure::new(
        "OPERATION-DEADLINE",
        format!("{kind} {}", shown_name(name, &cluster.id)),
        format!("the deadline passed with {left} changes still to be made, first to {action} it: {reason}"),
        next,
    )
}

#[cfg(test)]
mod tests {
    use super::super::pace::Pace;
    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC};
    use crate::records::{NewGeneration, NodeState};

    async fn begin(agent: &FakeHostAgent, text: &str) -> (ClusterRecord, OperationRecord) {
        let operation = agent.begin(agent.generation(text).await).await;
        (agent.cluster("home").await, operation)
    }

    #[tokio::test]
    async fn what_was_read_before_the_wait_for_other_clusters_may_be_overtaken() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let mut task = agent.task("home");

        let (older, first) = begin(&agent, SPEC).await;
        let (newer, second) = begin(&agent, &SPEC.replace("122.11", "122.21")).await;
        for operation in [Some(&first), None] {
            let acted = task.converge_host(&older, &image, operation).await;
            assert!(matches!(acted, Ok(false)), "{:?}", operation.map(|it| &it.id));
        }
        assert!(agent.hypervisor.host().effects.is_empty(), "{:?}", agent.hypervisor.host().effects);
        assert!(matches!(task.converge_host(&newer, &image, Some(&second)).await, Ok(true)));
        assert_eq!(agent.hypervisor.host().observed.domains.len(), 2);
    }

    #[tokio::test]
    async fn an_operation_that_has_given_way_drains_no_node() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let mut task = agent.task("home");
        begin(&agent, SPEC).await;
        let (smaller, _) = SPEC.rsplit_once("[[node]]").expect("it has a worker");
        let (older, first) = begin(&agent, smaller).await;
        let (newer, second) = begin(&agent, &smaller.replace("122.10", "122.20")).await;
        let leaving = async || agent.cluster("home").await.nodes[1].state;
        assert!(task.remove_nodes(&older, &image, &first).await.is_ok());
        assert_eq!(leaving().await, NodeState::Draining);
        assert!(task.remove_nodes(&newer, &image, &second).await.is_ok());
        assert!(agent.cluster("home").await.nodes.iter().all(|node| node.name == "control"));
    }

    /// Somebody re-attached to it, with a longer deadline, since the look read it.
    #[tokio::test]
    async fn changes_go_on_until_a_deadline_that_was_put_off() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let mut task = agent.task("home");
        let (cluster, operation) = begin(&agent, SPEC).await;
        let as_read = OperationRecord { deadline: jiff::Timestamp::UNIX_EPOCH, ..operation };
        assert!(matches!(task.converge_host(&cluster, &image, Some(&as_read)).await, Ok(true)));
        assert_eq!(agent.hypervisor.host().observed.domains.len(), 2);
    }

    #[tokio::test]
    async fn a_host_that_stood_still_in_the_midst_of_a_look_has_that_much_longer() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let mut task = agent.task("home");
        let hour = jiff::SignedDuration::from_hours(1);
        let late = NewGeneration { deadline: jiff::Timestamp::now() - hour, ..agent.generation(SPEC).await };
        let operation = agent.begin(late).await;
        task.pace = Pace::of(jiff::Timestamp::now() - 2 * hour);
        let acted = task.converge_host(&agent.cluster("home").await, &image, Some(&operation)).await;
        assert!(matches!(acted, Ok(true)));
        assert_eq!(agent.hypervisor.host().observed.domains.len(), 2);
    }

    #[tokio::test]
    async fn a_deadline_follows_a_clock_that_is_set() {
        let agent = FakeHostAgent::new().await;
        let mut task = agent.task("home");
        let (now, hour) = (jiff::Timestamp::now(), jiff::SignedDuration::from_hours(1));
        let begun = agent.begin(NewGeneration { deadline: now + hour, ..agent.generation(SPEC).await }).await;
        let off = |operation: &OperationRecord| {
            let off = operation.deadline.duration_since(begun.deadline);
            off.round(jiff::Unit::Minute).expect("minutes").as_mins()
        };
        let mut seen = Some(begun.clone());
        task.operation.clone_from(&seen);
        // Set back by an hour, and then forward by two.
        task.pace = Pace::of(now + hour);
        task.take_standstill(&mut seen).await.expect("writes");
        assert_eq!(seen.as_ref().map(off), Some(-60));
        task.operation.clone_from(&seen);
        task.pace = Pace::of(now - 2 * hour);
        task.take_standstill(&mut seen).await.expect("writes");
        assert_eq!(seen.as_ref().map(off), Some(60));
        // Somebody has put it off since the last look, by the clock as it is now.
        task.pace = Pace::of(now + hour);
        task.take_standstill(&mut seen).await.expect("writes");
        assert_eq!(seen.as_ref().map(off), Some(60), "the last look knows another one");
    }

    #[tokio::test]
    async fn no_change_begins_after_the_deadline() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let mut task = agent.task("home");
        let late = NewGeneration { deadline: jiff::Timestamp::UNIX_EPOCH, ..agent.generation(SPEC).await };
        let operation = agent.begin(late).await;
        let acted = task.converge_host(&agent.cluster("home").await, &image, Some(&operation)).await;
        let Err(Trouble::Final(failure)) = acted else { panic!("it is not refused") };
        assert_eq!(failure.id, "OPERATION-DEADLINE", "{failure}");
        assert!(agent.hypervisor.host().effects.is_empty(), "{:?}", agent.hypervisor.host().effects);
    }
}
