//! Taking nodes, or the whole cluster, away: Kubernetes first, then trust, then the VM, then our record of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host_artifacts::image::Image;
use host_hypervisor::change::HostChange;
use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;

use super::ClusterTask;
use super::trouble::Trouble;
use crate::cluster::crash;
use crate::cluster::desired::console_dir;
use crate::cluster::execute::execute_change;
use crate::cluster::planning::teardown;
use crate::cluster::turns::Turn;
use crate::kubernetes::Remaining;
use crate::records::{ClusterRecord, NodeRecord, NodeState, OperationRecord, RecordError};

/// How long a node's pods have to leave.
const DRAIN_DEADLINE: Duration = Duration::from_secs(300);

/// Pods on their way off a node.
#[derive(Clone, Debug)]
pub(super) struct Drain {
    since: Instant,
    /// What was there at the last look.
    pub(super) remaining: Option<Remaining>,
}

impl Drain {
    fn new(since: Instant) -> Self {
        Self { since, remaining: None }
    }
}

fn still_there(node: &NodeRecord, remaining: &Remaining) -> Failure {
    let Remaining { count, first, why } = remaining;
    Failure::new(
        "NODE-DRAIN",
        format!("node {}", node.name),
        format!("{count} pods are still on it, first {first}: {why}"),
        format!(
            "look at them with `kubectl get pods -A -o wide --field-selector spec.nodeName={}`, at disruption budgets \
             with `kubectl get pdb -A`, then run the command again",
            node.name
        ),
    )
}

impl ClusterTask {
    /// Takes nodes that left the file out of the cluster: pods first, then the Node, then the VM.
    pub(super) async fn remove_nodes(
        &mut self,
        cluster: &ClusterRecord,
        image: &Image,
        up: &OperationRecord,
    ) -> Result<(), Trouble> {
        if self.kubernetes.as_ref().is_some_and(|kubernetes| !kubernetes.view().borrow().reachable) {
            // An API that is away, or not read yet, tells of no pod. The operation's own deadline ends the wait.
            return Ok(());
        }
        self.drains.retain(|id, _| cluster.nodes.iter().any(|node| node.id == *id));
        for node in cluster.nodes.iter().filter(|node| node.state == NodeState::Draining) {
            // Changes to the host, and the drain before, may have taken minutes: the node may be wanted again.
            if !self.is_at_work(cluster, Some(up)).await? {
                return Ok(());
            }
            let since =
                self.drains.entry(node.id.clone()).or_insert_with(|| Drain::new(Instant::now())).since;
            let remaining = match &self.kubernetes {
                Some(kubernetes) => {
                    crash::point("before-drain");
                    kubernetes.drain(&node.name).await?
                }
                None => None,
            };
            if let Some(remaining) = remaining {
                if since.elapsed() >= DRAIN_DEADLINE {
                    // The next operation gives them as long again.
                    self.drains.remove(&node.id);
                    return Err(Trouble::Final(still_there(node, &remaining)));
                }
                self.drains.insert(node.id.clone(), Drain { since, remaining: Some(remaining) });
                continue;
            }
            self.drains.remove(&node.id);
            // A node that came back into the file meanwhile stays; it is uncordoned by the next look.
            self.shared.records.set_removing(&node.id).await?;
        }
        let now = self.shared.records.at_work(&self.name).await?;
        // Another operation has a look of its own, which goes by what was agreed to for that one.
        let Some((cluster, Some(_))) =
            now.filter(|(_, running)| running.as_ref().is_some_and(|it| it.id == up.id))
        else {
            return Ok(());
        };
        let removing = || cluster.nodes.iter().filter(|node| node.state == NodeState::Removing);
        if removing().next().is_none() {
            return Ok(());
        }
        for node in removing() {
            if let Some(kubernetes) = &self.kubernetes {
                kubernetes.delete_node(&node.name).await?;
                crash::point("after-delete-node");
            }
            // Revoked before the VM goes: from here on its certificate opens nothing.
            self.shared.revoke(&node.id).await.map_err(Trouble::Passing)?;
            let (object, kind) = (format!("node {}", node.name), EventType::NodeDrained);
            let message = "its pods have left, Kubernetes forgot it";
            self.end_event(&node.id, &object, kind, message, false).await;
        }
        self.host = None;
        if !self.converge_host(&cluster, image, Some(up)).await? {
            return Ok(());
        }
        for node in removing() {
            if let Some(kubernetes) = &self.kubernetes {
                // While the others had the turn its VM ran on, and its kubelet may have registered it anew.
                kubernetes.delete_node(&node.name).await?;
            }
            crash::point("before-forget-node");
            // Before its record goes: what a kill here leaves is done again.
            self.shared.pki.open(&cluster)?.forget_node(&cluster, &node.name)?;
            // Of a VM that was undefined by hand nobody has removed it.
            remove_consoles(&console_dir(&self.shared.config), std::slice::from_ref(node));
            self.shared.events.forget(&node.id).await.map_err(RecordError::from)?;
            let (object, kind) = (format!("node {}", node.name), EventType::NodeRemoved);
            self.end_event(&node.id, &object, kind, "its VM and disk are gone", false).await;
            self.shared.records.forget_node(&node.id).await?;
            self.ports.remove(&node.id);
            self.powered_on.remove(&node.id);
            self.starts.forget(&node.name);
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Takes the whole cluster off the host. `false` means: another operation has begun meanwhile, and the rest is left
    /// to its look.
    pub(super) async fn remove_cluster(
        &mut self,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
    ) -> Result<bool, Trouble> {
        self.keeper = None;
        self.kubernetes = None;
        self.kubernetes_view = None;
        self.ports.clear();
        for node in &cluster.nodes {
            self.shared.revoke(&node.id).await.map_err(Trouble::Passing)?;
        }
        self.listener = None;
        self.host = None;
        let shared = Arc::clone(&self.shared);
        let _turn = loop {
            let Some(turn) = self.turn(&shared, cluster, operation).await? else { return Ok(false) };
            self.host = None;
            let observed = self.observe_host().await?;
            let plan = teardown(&shared, cluster, &observed).await?;
            if !self.take_down(&turn, cluster, operation, &plan.changes).await? {
                continue;
            }
            let record = serde_json::to_value(&plan.adoption).expect("an adoption has string keys only");
            shared.records.set_adoption(&record).await?;
            break turn;
        };
        crash::point("before-forget-cluster");
        remove_consoles(&console_dir(&shared.config), &cluster.nodes);
        self.shared.plugins.forget_cluster(&cluster.id).await?;
        self.shared.pki.remove(&cluster.id)?;
        for node in &cluster.nodes {
            self.shared.events.forget(&node.id).await.map_err(RecordError::from)?;
        }
        // Told before the record goes: whoever is killed in between comes here again, and afterwards nobody would.
        let (object, kind) = (format!("cluster {}", cluster.name), EventType::ClusterRemoved);
        self.end_event(&cluster.id, &object, kind, "all that was ours is gone", false).await;
        if let Some(operation) = operation {
            let kind = EventType::OperationSucceeded;
            self.end_event(&operation.id, &object, kind, "all that was ours is gone", false).await;
        }
        let ended = self.shared.records.forget_cluster(&cluster.id).await?;
        crash::point("after-forget-cluster");
        // Perhaps another one than the look began with. No look follows that would tell of it.
        if let Some(ended) = ended {
            self.shared.publish_record(&ended, Vec::new());
        }
        Ok(true)
    }

    /// Executes what takes a cluster down. `false` means that the turn is over. A removal is not called off, so nobody is
    /// asked in between; past the deadline of its operation it goes on without one.
    async fn take_down(
        &self,
        turn: &Turn<'_>,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
        changes: &[HostChange],
    ) -> Result<bool, Trouble> {
        for (done, change) in changes.iter().enumerate() {
            if done > 0 && turn.is_over() {
                return Ok(false);
            }
            self.refuse_overdue(cluster, operation, &changes[done..]).await?;
            execute_change(&self.shared, operation, &cluster.name, change, true).await?;
        }
        Ok(true)
    }
}

/// Removes the console logs of VMs that are gone, and the directory after the last one. What cannot be removed is
/// told: it holds no cluster back.
fn remove_consoles(dir: &Path, nodes: &[NodeRecord]) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // virtlogd rotates NAME.log into NAME.log.0 and so on.
        let is_theirs = nodes.iter().any(|node| {
            name.strip_prefix(&node.name).is_some_and(|rest| rest == ".log" || rest.starts_with(".log."))
        });
        if is_theirs && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::warn!(path = %entry.path().display(), error = %error, "cannot remove a console log");
        }
    }
    // Fails while the consoles of another cluster are in it.
    let _ = std::fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use k8sctl_proto::roles::Role;

    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC, spec_file};

    #[tokio::test]
    async fn the_console_of_a_node_that_was_undefined_by_hand_goes_with_it() {
        let agent = FakeHostAgent::new().await;
        let manager = agent.start().await;
        let spec = |text: &str| spec_file(text, "cluster.toml");
        manager.apply(&spec(SPEC), "", true, None, Role::Admin).await.expect("it is accepted");
        agent.wait_host("both VMs are there", |host| host.observed.domains.len() == 2).await;
        let dir = console_dir(&agent.shared.config);
        std::fs::create_dir_all(&dir).expect("a directory");
        for log in ["control.log", "worker.log", "worker.log.0"] {
            std::fs::write(dir.join(log), "").expect("writes");
        }
        agent.hypervisor.host().observed.domains.retain(|domain| domain.name != "worker");
        let (smaller, _) = SPEC.rsplit_once("[[node]]").expect("it has nodes");
        manager.apply(&spec(smaller), "", true, None, Role::Admin).await.expect("it is accepted");
        let is_gone = async {
            while agent.shared.records.cluster("home").await.expect("reads").expect("is there").nodes.len()
                > 1
            {
                // The record goes behind the event that tells of it.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), is_gone).await.expect("in time");
        let left: Vec<_> =
            std::fs::read_dir(&dir).expect("reads").flatten().map(|it| it.file_name()).collect();
        assert_eq!(left, ["control.log"]);
    }
}
