//! What was done to the host and not told: an event is written behind its effect, and the host agent may be killed between
//! the two. The first look of a task finds VMs and disks of which the event log says otherwise, and tells of them.
//!
//! Of what is not there any more nothing shows that it was not told; the ends of nodes and clusters have events of their
//! own, which are written before.

use std::collections::HashMap;

use host_hypervisor::desired::volume_name;
use host_hypervisor::observed::{DomainState, ObservedHost};
use k8sctl_types::event::EventType;

use super::ClusterTask;
use crate::cluster::desired::vm_of;
use crate::events::{EventLog, NewEvent, Selection};
use crate::records::{ClusterRecord, NodeState, RecordError};

/// Said of each.
const LATE: &str = "it is there, and was not told: seen after a restart of the host agent";

/// The last that was told of each object.
#[derive(Debug)]
struct LastTold {
    disks: HashMap<String, EventType>,
    definitions: HashMap<String, EventType>,
    runs: HashMap<String, EventType>,
    /// Nothing was taken out of the log yet: what is not in it was not told.
    is_whole: bool,
}

impl LastTold {
    async fn read(log: &EventLog, cluster: &str) -> Result<Self, RecordError> {
        use EventType::{
            VMDefined, VMDeleted, VMRestarted, VMStarted, VMStopped, VolumeCreated, VolumeDeleted,
        };
        let oldest = log.page(u64::MAX, &Selection::default()).await?.oldest;
        Ok(Self {
            disks: log.last_of(cluster, &[VolumeCreated, VolumeDeleted]).await?,
            definitions: log.last_of(cluster, &[VMDefined, VMDeleted]).await?,
            runs: log.last_of(cluster, &[VMStarted, VMRestarted, VMStopped, VMDeleted]).await?,
            is_whole: oldest <= 1,
        })
    }

    /// Whether the log says that the object is not there, by the last of its events.
    fn is_missing(&self, last: Option<&EventType>) -> bool {
        match last {
            None => self.is_whole,
            Some(last) => {
                matches!(last, EventType::VolumeDeleted | EventType::VMDeleted | EventType::VMStopped)
            }
        }
    }
}

impl ClusterTask {
    /// Tells, once, what whoever was at work before this task has done and not told.
    pub(super) async fn tell_untold(
        &mut self,
        cluster: &ClusterRecord,
        observed: &ObservedHost,
    ) -> Result<(), RecordError> {
        if self.has_caught_up {
            return Ok(());
        }
        let last = LastTold::read(&self.shared.events, &cluster.name).await?;
        for event in untold(cluster, observed, &last) {
            self.shared.events.record(event).await;
        }
        self.has_caught_up = true;
        Ok(())
    }
}

/// What is there although the log says otherwise, in the order in which it is made.
fn untold(cluster: &ClusterRecord, observed: &ObservedHost, last: &LastTold) -> Vec<NewEvent> {
    let mut events = Vec::new();
    for node in cluster.nodes.iter().filter(|node| node.state == NodeState::Present) {
        let mut tell = |is_there: bool, object: String, told: &HashMap<String, EventType>, kind| {
            if is_there && last.is_missing(told.get(&object)) {
                let (cluster, message) = (cluster.name.clone(), LATE.to_owned());
                events.push(NewEvent { cluster, object, kind, message, warning: false });
            }
        };
        let disk = volume_name(&cluster.id, &node.name);
        let vm = vm_of(observed, cluster, node);
        let domain = format!("domain {}", node.name);
        let has_disk = observed.volume(&disk).is_some();
        let runs = vm.is_some_and(|vm| vm.state == DomainState::Running);
        tell(has_disk, format!("volume {disk}"), &last.disks, EventType::VolumeCreated);
        tell(vm.is_some(), domain.clone(), &last.definitions, EventType::VMDefined);
        tell(runs, domain, &last.runs, EventType::VMStarted);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC};

    async fn told(agent: &FakeHostAgent) -> Vec<String> {
        let types = vec![EventType::VolumeCreated, EventType::VMDefined, EventType::VMStarted];
        let worker = Selection { node: "worker".to_owned(), types, ..Selection::of_cluster("home") };
        let events = agent.shared.events.page(0, &worker).await.expect("reads").events;
        events.into_iter().map(|event| event.r#type).collect()
    }

    /// Takes events out of the log, as where the host agent was killed before they were written.
    fn lose(agent: &FakeHostAgent, what: &str) {
        let lose = |c: &mut rusqlite::Connection| c.execute(&format!("DELETE FROM event WHERE {what}"), []);
        assert_ne!(agent.store.call_blocking(lose).expect("writes"), 0, "{what}");
    }

    #[tokio::test]
    async fn what_a_kill_left_untold_is_told_once_by_the_next_task() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let cluster = agent.cluster("home").await;
        let look = async || {
            let mut task = agent.task("home");
            for _ in 0..2 {
                let acted = task.converge_host(&cluster, &image, Some(&operation)).await;
                assert!(matches!(acted, Ok(true)));
            }
            told(&agent).await
        };
        let all = ["VolumeCreated", "VMDefined", "VMStarted"];
        assert_eq!(look().await, all);
        assert_eq!(look().await, all, "nothing was lost");
        lose(&agent, "node = 'worker' AND type IN ('VolumeCreated', 'VMStarted')");
        assert_eq!(look().await, ["VMDefined", "VolumeCreated", "VMStarted"]);
        assert_eq!(look().await.len(), 3, "it is told by now");
        // What was told of the disk is too old to be kept; of the VM the log says that it was stopped.
        lose(&agent, "number = 1");
        lose(&agent, "node = 'worker' AND type = 'VolumeCreated'");
        let stopped = NewEvent {
            cluster: "home".to_owned(),
            object: "domain worker".to_owned(),
            kind: EventType::VMStopped,
            message: String::new(),
            warning: false,
        };
        agent.shared.events.record(stopped).await;
        assert_eq!(look().await, ["VMDefined", "VMStarted", "VMStarted"]);
    }
}
