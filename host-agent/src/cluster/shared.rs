//! What cluster tasks and services share: the configuration, the stores, libvirt, the node agents.

use std::collections::BTreeMap;
use std::sync::Arc;

use host_artifacts::bundle::BundleStore;
use host_artifacts::image::ImageStore;
use host_hypervisor::{Documents, Hypervisor};
use host_pki::join::JoinAuthority;
use host_plugins::PluginHost;
use k8sctl_proto::control::v1 as control;
use k8sctl_rpc::pace::Pace;
use k8sctl_types::failure::Failure;
use tokio::sync::watch;

use super::plugins::ClusterPlugins;
use super::turns::HostTurns;
use crate::config::HostConfig;
use crate::events::{EventLog, NewEvent, Told};
use crate::nodes::registry::NodeRegistry;
use crate::pki::PkiStore;
use crate::records::{OperationRecord, OperationState, RecordError, Records};
use crate::trace::Tracer;
use crate::wire;

/// Under what the event log remembers which ends were told; no node has this id.
const ENDS: &str = "ends";
/// Operations that have ended and are kept in memory, for those who watch them.
const KEPT: usize = 50;

/// See the module.
pub struct Shared {
    /// The host agent's configuration.
    pub config: HostConfig,
    /// What must not be forgotten.
    pub records: Records,
    /// What happened.
    pub events: EventLog,
    /// libvirt.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// libvirt's own documents, for support bundles.
    pub documents: Arc<dyn Documents>,
    /// Node agents.
    pub registry: Arc<NodeRegistry>,
    /// Node images.
    pub images: ImageStore,
    /// Bundles.
    pub bundles: BundleStore,
    /// Certificate authorities of each cluster.
    pub pki: PkiStore,
    /// Join tokens and node certificates.
    pub authority: Arc<JoinAuthority>,
    /// Plugins, as a person changes them.
    pub plugins: PluginHost,
    /// Whether each process of a plugin gets a control group of its own.
    pub plugin_cgroups: bool,
    /// Plugins, as specs want them.
    pub cluster_plugins: Arc<dyn ClusterPlugins>,
    /// One cluster after the other changes the host.
    pub turns: HostTurns,
    /// Held while a cluster chooses the port that its node agents dial: it sees those of the others.
    pub node_ports: tokio::sync::Mutex<()>,
    /// When handshakes begin at the node ports, all of them together.
    pub handshakes: Arc<Pace>,
    /// Operations by id, as last published; of those that have ended the last.
    pub operations: watch::Sender<BTreeMap<String, control::Operation>>,
    /// Where traces of operations go.
    pub tracer: Tracer,
}

impl Shared {
    /// Publishes an operation as the records have it now; without lines its last progress stays.
    pub async fn publish_operation(
        &self,
        id: &str,
        lines: Vec<control::Progress>,
    ) -> Result<(), RecordError> {
        let Some(record) = self.records.operation(id).await? else { return Ok(()) };
        self.publish_record(&record, lines);
        Ok(())
    }

    /// Publishes the end of an operation as the records have it; where they cannot be read, as it is said to be:
    /// nobody would look at it again.
    pub async fn publish_end(&self, ended: &OperationRecord) {
        if self.publish_operation(&ended.id, Vec::new()).await.is_err() {
            self.publish_record(ended, Vec::new());
        }
    }

    /// Records an end of something, whose id `of` is: once, however often and by whomever that is come to. It is come to
    /// again where the host agent is killed, or cannot write, before that stands in the records.
    pub async fn record_end(&self, of: &str, event: NewEvent) {
        let told = Told::once(ENDS, format!("{of} {}", event.kind));
        self.events.record_once(event, told).await;
    }

    /// The running operation of a cluster. One whose end was told, and could not be recorded, is ended in the records
    /// first: who asks now wants another try.
    pub async fn running_operation(&self, cluster_id: &str) -> Result<Option<OperationRecord>, RecordError> {
        let Some(running) = self.records.running_operation(cluster_id).await? else { return Ok(None) };
        let told = self.operations.borrow().get(&running.id).cloned();
        let Some(ended) = told.filter(|it| it.state() != control::OperationState::Running) else {
            return Ok(Some(running));
        };
        let failure = ended
            .failure
            .map(|it| Failure::new(&it.id, it.object, it.reason, it.next_step).with_evidence(it.evidence));
        self.records.finish_operation(&running.id, failure.as_ref()).await?;
        Ok(None)
    }

    /// Ends a node for ever: its certificates open nothing any more, and its session ends.
    pub async fn revoke(&self, node_id: &str) -> Result<(), Failure> {
        self.authority.revoke(node_id).await.map_err(|error| {
            Failure::new(
                "JOIN-RECORDS",
                "join authority",
                k8sctl_rpc::chain(&error).to_string(),
                "check the disk under the host agent's state directory",
            )
        })?;
        self.registry.remove(node_id);
        Ok(())
    }

    /// Whether an operation was published as ended.
    pub fn has_ended(&self, id: &str) -> bool {
        let operations = self.operations.borrow();
        operations.get(id).is_some_and(|operation| operation.state() != control::OperationState::Running)
    }

    /// Publishes an operation as it is said to be; without lines its last progress stays. One that has ended does not
    /// run again, whoever read of it before its end.
    pub fn publish_record(&self, record: &OperationRecord, lines: Vec<control::Progress>) {
        let id = &record.id;
        self.operations.send_if_modified(|operations| {
            let old = operations.get(id);
            let has_ended = old.is_some_and(|old| old.state() != control::OperationState::Running);
            if record.state == OperationState::Running && has_ended {
                return false;
            }
            let kept = old.map(|old| old.progress.clone()).filter(|_| lines.is_empty());
            let new = wire_operation(record, kept.unwrap_or(lines));
            let changed = old != Some(&new);
            operations.insert(id.to_owned(), new);
            forget_old(operations);
            changed
        });
    }
}

/// Forgets those that ended first; the records have them for longer.
fn forget_old(operations: &mut BTreeMap<String, control::Operation>) {
    let ended = operations.iter().filter(|(_, it)| it.state() != control::OperationState::Running);
    let moment = |it: &control::Operation| it.finished.map(|end| (end.seconds, end.nanos));
    let mut ended: Vec<_> = ended.map(|(id, it)| (moment(it), id.clone())).collect();
    ended.sort_unstable();
    let many = ended.len().saturating_sub(KEPT);
    ended[..many].iter().for_each(|(_, id)| {
        operations.remove(id);
    });
}

/// An operation on the wire.
pub(super) fn wire_operation(
    record: &OperationRecord,
    progress: Vec<control::Progress>,
) -> control::Operation {
    let (state, failure) = match &record.state {
        OperationState::Running => (control::OperationState::Running, None),
        OperationState::Succeeded => (control::OperationState::Succeeded, None),
        OperationState::Failed(failure) => (control::OperationState::Failed, Some(wire::failure(failure))),
    };
    control::Operation {
        id: record.id.clone(),
        cluster_name: record.cluster.clone(),
        kind: record.kind.as_str().to_owned(),
        state: state.into(),
        started: Some(wire::timestamp(record.started)),
        finished: record.finished.map(wire::timestamp),
        progress,
        failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC};
    use crate::records::OperationKind;

    #[tokio::test]
    async fn only_the_last_that_have_ended_stay_in_memory() {
        let agent = FakeHostAgent::new().await;
        let running = agent.begin(agent.generation(SPEC).await).await;
        agent.shared.publish_record(&running, Vec::new());
        let end = |id: &str, second| {
            let finished = Some(jiff::Timestamp::from_second(second).expect("a moment"));
            let ended = running.clone().given_way(OperationKind::Up, "why");
            let ended = OperationRecord { id: id.to_owned(), finished, ..ended };
            agent.shared.publish_record(&ended, Vec::new());
        };
        for second in 0..2 * KEPT as i64 {
            end(&format!("{second:03}"), second);
        }
        // Begun before all these, and ended behind them.
        end("000", 1_000);
        let operations = agent.shared.operations.borrow();
        let ended: Vec<_> = operations.keys().filter(|id| **id != running.id).collect();
        assert_eq!((ended.len(), ended[0].as_str(), ended[1].as_str()), (KEPT, "000", "051"));
        assert!(operations.contains_key(&running.id));
    }
}
