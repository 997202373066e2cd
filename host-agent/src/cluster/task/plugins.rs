//! A cluster's plugins: has those of its spec installed while an `up` runs, looks after all of them, tells nodes what they
//! need and the host of plugins how far nodes are with another pod network, and restarts pods where another plugin brings
//! that from now on.

use std::collections::BTreeSet;

use host_plugins::{ClusterAccess, Gate, WantedPlugin};
use k8sctl_proto::node::v1::NodeRequirements;
use k8sctl_types::event::EventType;

use super::trouble::Trouble;
use super::{AbortOnDrop, ClusterTask};
use crate::cluster::desired::cluster_facts;
use crate::cluster::node_requirements;
use crate::cluster::plugins::PluginsSeen;
use crate::cluster::progress::{self, Observed};
use crate::events::Selection;
use crate::kubernetes::{KubernetesView, Remaining};
use crate::records::{ClusterRecord, NodeRecord, NodeState, OperationRecord, RecordError};

/// Looks after installed plugins for as long as it is kept.
pub(super) struct Keeper {
    /// The spec's generation, of which plugins are told, and the client that it has.
    of: (u64, jiff::Timestamp),
    _task: AbortOnDrop,
}

/// A node whose pods are made anew for another pod network.
pub(super) struct Restart {
    node_id: String,
    /// The plugin that brings it; empty: the built-in one.
    network: String,
    /// Those that were there when it began: whoever takes their places is on the new one.
    pods: BTreeSet<String>,
    /// What of them was there at the last look.
    pub(super) remaining: Option<Remaining>,
}

impl Restart {
    /// The node, and what keeps it.
    pub(super) fn seen(&self) -> Option<(String, Remaining)> {
        Some((self.node_id.clone(), self.remaining.clone()?))
    }
}

impl ClusterTask {
    /// Reads how plugins are, and tells where nodes are to be something else for them.
    pub(super) async fn look_at_plugins(&mut self, cluster: &ClusterRecord) -> Result<(), Trouble> {
        let seen = self.shared.cluster_plugins.look(cluster).await.map_err(Trouble::Passing)?;
        let needed = node_requirements::shown(&cluster.plugins, &seen.needs);
        // The first that is known is no change.
        if self.needed.as_ref().is_some_and(|before| *before != needed) {
            let what = if needed.is_empty() { "nothing" } else { &needed };
            let message = format!("plugins need of its nodes: {what}");
            let kind = EventType::NodeRequirementsChanged;
            self.event(&format!("cluster {}", cluster.name), kind, message).await;
        }
        self.needed = Some(needed);
        self.plugins = Some(seen);
        Ok(())
    }

    /// What a node is told; `None` where nothing is needed of it.
    pub(super) fn requirements(
        cluster: &ClusterRecord,
        node: &NodeRecord,
        seen: &PluginsSeen,
    ) -> Option<NodeRequirements> {
        let is_elsewhere = node.pod_network != wanted_network(cluster, seen).0;
        node_requirements::of_node(&cluster.plugins, &seen.needs, is_elsewhere)
    }

    /// Says how far nodes are with making way for the pod network that they were just told of: a plugin that brings it waits
    /// for that.
    pub(super) fn tell_of_handover(&self, cluster: &ClusterRecord, observed: &Observed) {
        let registry = &self.shared.registry;
        let handover = progress::handover(cluster, observed, |node_id| registry.desired_generation(node_id));
        self.shared.plugins.nodes_make_way(&cluster.id, handover);
    }

    /// Has installed plugins looked after, by what is known of the cluster now.
    pub(super) fn keep_plugins(&mut self, cluster: &ClusterRecord) {
        let of = self.kubernetes.as_ref().map(|kubernetes| (cluster.generation, kubernetes.made()));
        if self.keeper.as_ref().map(|keeper| keeper.of) == of {
            return;
        }
        // One at a time.
        self.keeper = None;
        let (Some(of), Some(access)) = (of, self.access(cluster)) else { return };
        let plugins = self.shared.plugins.clone();
        let task = k8sctl_rpc::task::spawn(format!("plugins-{}", cluster.name), async move {
            plugins.keep(access).await;
        });
        self.keeper = Some(Keeper { of, _task: AbortOnDrop(task) });
    }

    fn access(&self, cluster: &ClusterRecord) -> Option<ClusterAccess> {
        let kubernetes = self.kubernetes.as_ref()?;
        let images = self.shared.images.container_images(&cluster.image_id);
        Some(ClusterAccess {
            cluster_id: cluster.id.clone(),
            cluster_name: cluster.name.clone(),
            client: kubernetes.client(),
            facts: cluster_facts(cluster, images.as_ref()),
        })
    }

    /// Has the spec's plugins installed, as far as they may be by now, and those of before removed. An API that is away is
    /// waited for.
    pub(super) async fn converge_plugins(
        &mut self,
        cluster: &ClusterRecord,
        up: &OperationRecord,
    ) -> Result<(), Trouble> {
        let observed = self.observed(cluster);
        if !observed.kubernetes.reachable {
            return Ok(());
        }
        let wanted = wanted(cluster);
        let gate = gate(cluster, &observed);
        let access = self.access(cluster);
        let plugins = &self.shared.cluster_plugins;
        let converged = plugins.converge(access.as_ref(), &wanted, gate, &up.id).await;
        self.converged = Some(converged.map_err(Trouble::Passing)?);
        // What was begun shows at once.
        self.look_at_plugins(cluster).await
    }

    /// Has the pods of one node after the other made anew, where they are on another network than the cluster has by now.
    pub(super) async fn move_pods(
        &mut self,
        cluster: &ClusterRecord,
        view: &KubernetesView,
    ) -> Result<(), Trouble> {
        let Some(seen) = &self.plugins else { return Ok(()) };
        let (network, may_begin) = wanted_network(cluster, seen);
        let is_elsewhere =
            |node: &&NodeRecord| node.state == NodeState::Present && node.pod_network != network;
        let elsewhere: Vec<&NodeRecord> =
            cluster.nodes.iter().filter(is_elsewhere).filter(|_| may_begin).collect();
        if elsewhere.is_empty() {
            self.restart = None;
            return Ok(());
        }
        // Until its agent has done its part, of what it may just have been told, a pod that is made anew may be on the
        // network of before. A node whose agent is away keeps no other waiting: pods share addresses until they moved.
        let registry = &self.shared.registry;
        let has_settled = |node: &NodeRecord| {
            progress::has_settled(&registry.view(&node.id), registry.desired_generation(&node.id))
        };
        let mut settled: Vec<&NodeRecord> = elsewhere.into_iter().filter(|node| has_settled(node)).collect();
        // The one that was begun, first.
        let begun = self.restart.as_ref().map(|it| it.node_id.as_str());
        settled.sort_by_key(|node| begun != Some(node.id.as_str()));
        let Some(&node) = settled.first() else { return Ok(()) };
        if let Some(kubernetes) = self.kubernetes.as_ref().filter(|_| view.reachable) {
            let begun = self.restart.as_ref().filter(|it| it.node_id == node.id && it.network == network);
            let pods = match begun {
                Some(begun) => begun.pods.clone(),
                None => kubernetes.networked_pods(&node.name).await?,
            };
            let remaining = kubernetes.restart_pods(&node.name, &pods).await?;
            if remaining.is_some() {
                self.restart = Some(Restart { node_id: node.id.clone(), network, pods, remaining });
                return Ok(());
            }
        } else if !self.shared.config.simulated_kubernetes {
            return Ok(());
        }
        self.tell_pod_network(node, &network).await?;
        self.shared.records.set_pod_network(&node.id, &network).await?;
        self.restart = None;
        self.wake.notify_one();
        Ok(())
    }

    /// Told before it is recorded: what a kill in between leaves is done again, and told once. It is known by the last that
    /// was told of the node, since it may come and go as often as it likes.
    async fn tell_pod_network(&self, node: &NodeRecord, network: &str) -> Result<(), RecordError> {
        let shown = if network.is_empty() { "the built-in one" } else { network };
        let message = format!("its pod network is {shown} now, and its pods were made anew for it");
        let (kind, events) = (EventType::PodNetworkChanged, &self.shared.events);
        let of_node =
            Selection { node: node.name.clone(), types: vec![kind], ..Selection::of_cluster(&self.name) };
        let last = match events.tail_start(1, 0, &of_node).await? {
            Some(number) => events.page(number, &of_node).await?.events.pop(),
            None => None,
        };
        if last.is_none_or(|last| last.message != message) {
            self.event(&format!("node {}", node.name), kind, message).await;
        }
        Ok(())
    }
}

/// The plugin that shall bring the pod network, empty for the built-in one, and whether it can by now.
fn wanted_network(cluster: &ClusterRecord, seen: &PluginsSeen) -> (String, bool) {
    match node_requirements::pod_network(&cluster.plugins, &seen.needs) {
        Some(network) => (network.plugin, network.was_ready),
        None => (String::new(), true),
    }
}

/// The plugins of the spec with what was agreed to of each. A cluster of the release before has agreed to none.
fn wanted(cluster: &ClusterRecord) -> Vec<WantedPlugin> {
    let of = |plugin: &k8sctl_types::spec::PluginSpec| {
        let pinned = cluster.plugins.iter().find(|pinned| pinned.name == plugin.name)?.clone();
        Some(WantedPlugin { pinned, config: plugin.config.clone() })
    };
    cluster.spec.plugins.iter().filter_map(of).collect()
}

/// Nodes that are not Ready may wait for their pod network, and everything else for them.
fn gate(cluster: &ClusterRecord, observed: &Observed) -> Gate {
    let mut present = cluster.nodes.iter().filter(|node| node.state == NodeState::Present);
    if present.all(|node| progress::node_phase(node, observed).is_ready()) {
        Gate::Everything
    } else {
        Gate::Network
    }
}

#[cfg(test)]
mod tests;
