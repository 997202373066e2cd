//! What `status` shows of a cluster, as pure functions of what is observed, and what of it is told as events.

use std::collections::HashMap;

use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1::{Condition, ConditionStatus};

use super::progress::{self, Observed};
use crate::records::{ClusterRecord, NodeRecord, OperationRecord};
use crate::wire;

#[cfg(test)]
mod tests;

/// Whether a node's agent has a session and all that it needs.
const AGENT_READY: &str = "AgentReady";
/// What Kubernetes says of a node.
const NODE_READY: &str = "NodeReady";
/// Whether the whole cluster is as its spec says.
const READY: &str = "Ready";

/// Conditions of the whole cluster.
pub fn cluster_conditions(
    cluster: &ClusterRecord,
    image: &super::desired::ImageFacts,
    observed: &Observed,
    now: jiff::Timestamp,
) -> Vec<Condition> {
    let missing = progress::missing(cluster, observed);
    let (status, reason) = match &missing {
        None => (ConditionStatus::True, "AllNodesReady"),
        Some(_) => (ConditionStatus::False, "NotAsDesired"),
    };
    let missing = missing.map(|missing| missing.to_string()).unwrap_or_default();
    let mut conditions = vec![wire::condition(READY, status, reason, missing, now)];
    let (status, reason, message) = match observed.kubernetes.reachable {
        true => (ConditionStatus::True, "Answers", String::new()),
        false => (ConditionStatus::False, "NoAnswer", observed.kubernetes.error.clone()),
    };
    conditions.push(wire::condition("KubernetesAPI", status, reason, message, now));
    if let Some(trouble) = &observed.trouble {
        let message = trouble.to_string();
        conditions.push(wire::condition("HostOK", ConditionStatus::False, &trouble.id, message, now));
    }
    if !image.coredns {
        let message = "the bundle holds no CoreDNS: Services are reachable by address, not by name";
        conditions.push(wire::condition("ClusterDNS", ConditionStatus::False, "NotInBundle", message, now));
    }
    conditions
}

/// What `status` shows of a cluster at which nobody has looked yet: its nodes, and nothing of how they are.
pub fn first_status(cluster: &ClusterRecord) -> control::ClusterStatus {
    let observed = Observed::default();
    let facts = super::desired::ImageFacts::default();
    let status = cluster_status(cluster, &observed, &facts, None, None, Vec::new());
    control::ClusterStatus { conditions: Vec::new(), ..status }
}

/// Tells of an operation for which nothing is done yet: what is done for it may take minutes. What was known of the nodes
/// stays.
pub fn announce(
    status: &mut control::ClusterStatus,
    cluster: &ClusterRecord,
    operation: &OperationRecord,
    now: jiff::Timestamp,
) {
    let message = format!("`{}` is under way", operation.kind.as_str());
    let mut ready = wire::condition(READY, ConditionStatus::False, "OperationRunning", message, now);
    keep_since(&status.conditions, std::slice::from_mut(&mut ready));
    status.conditions.retain(|condition| condition.r#type != READY);
    status.conditions.insert(0, ready);
    status.operation_id.clone_from(&operation.id);
    status.generation = cluster.generation;
    status.last_failure = None;
}

/// All that `status` shows.
pub fn cluster_status(
    cluster: &ClusterRecord,
    observed: &Observed,
    image: &super::desired::ImageFacts,
    running: Option<&OperationRecord>,
    last_failure: Option<control::Failure>,
    plugins: Vec<control::PluginStatus>,
) -> control::ClusterStatus {
    let now = jiff::Timestamp::now();
    control::ClusterStatus {
        name: cluster.name.clone(),
        id: cluster.id.clone(),
        generation: cluster.generation,
        kubernetes_version: cluster.kubernetes.clone(),
        image_id: cluster.image_id.clone(),
        trial_bundle: cluster.trial,
        conditions: cluster_conditions(cluster, image, observed, now),
        nodes: cluster.nodes.iter().map(|node| node_status(node, observed, now)).collect(),
        operation_id: running.map(|operation| operation.id.clone()).unwrap_or_default(),
        last_failure: last_failure.filter(|_| running.is_none()),
        plugins,
    }
}

fn node_status(node: &NodeRecord, observed: &Observed, now: jiff::Timestamp) -> control::NodeStatus {
    let phase = progress::node_phase(node, observed);
    let view = observed.agents.get(&node.id).cloned().unwrap_or_default();
    let vm = observed.vms.get(&node.id).cloned().unwrap_or_default();
    let mut conditions = view.report.conditions;
    if !view.connected {
        conditions.iter_mut().for_each(|condition| without_session(condition, now));
    }
    conditions.push(node_ready(node, observed, now));
    control::NodeStatus {
        name: node.name.clone(),
        id: node.id.clone(),
        role: super::desired::wire_role(node.spec.role).into(),
        ip: node.spec.ip.to_string(),
        vm_state: vm.state,
        phase: phase.phase.to_owned(),
        message: phase.message,
        conditions,
        steps: view.report.steps,
        facts: view.hello.as_ref().and_then(|hello| hello.facts.clone()),
        connected: view.connected,
        last_seen: view.last_seen.map(wire::timestamp),
        agent_version: view.hello.map(|hello| hello.agent_version).unwrap_or_default(),
        powered_on: vm.powered_on.map(wire::timestamp),
        joined: view.joined.map(wire::timestamp),
    }
}

/// What an agent said last, now that it says nothing.
fn without_session(condition: &mut Condition, now: jiff::Timestamp) {
    let is_agent = condition.r#type == AGENT_READY;
    let status = if is_agent { ConditionStatus::False } else { ConditionStatus::Unknown };
    let message = "its agent has no session";
    *condition = wire::condition(&condition.r#type, status, "NoSession", message, now);
}

/// What Kubernetes says of the node.
fn node_ready(node: &NodeRecord, observed: &Observed, now: jiff::Timestamp) -> Condition {
    let kind = NODE_READY;
    match observed.kubernetes.nodes.get(&node.name) {
        _ if !observed.kubernetes.reachable => {
            let error = observed.kubernetes.error.clone();
            wire::condition(kind, ConditionStatus::Unknown, "APINoAnswer", error, now)
        }
        None => {
            wire::condition(kind, ConditionStatus::False, "NotRegistered", "Kubernetes does not know it", now)
        }
        Some(seen) if seen.ready => wire::condition(kind, ConditionStatus::True, "KubeletReady", "", now),
        Some(seen) => wire::condition(kind, ConditionStatus::False, "KubeletNotReady", seen.why.clone(), now),
    }
}

/// A condition whose status did not change keeps the time since when it holds.
pub fn keep_since(old: &[Condition], new: &mut [Condition]) {
    for condition in new {
        let before = old.iter().find(|old| old.r#type == condition.r#type && old.status == condition.status);
        if let Some(before) = before {
            condition.since = before.since;
        }
    }
}

/// Conditions of nodes that no agent can tell of: what was known of each last.
#[derive(Clone, Debug, Default)]
pub struct ToldConditions(HashMap<(String, &'static str), ConditionStatus>);

impl ToldConditions {
    /// What changed since the last call, with the name of its node. The first that is known of a node is no change, and
    /// an API server that does not answer tells nothing.
    pub fn changes<'a>(&mut self, nodes: &'a [control::NodeStatus]) -> Vec<(&'a str, &'a Condition)> {
        self.0.retain(|(id, _), _| nodes.iter().any(|node| node.id == *id));
        let mut changes = Vec::new();
        for node in nodes {
            for kind in [AGENT_READY, NODE_READY] {
                let condition = node.conditions.iter().find(|condition| condition.r#type == kind);
                let known = condition.filter(|it| it.status() != ConditionStatus::Unknown);
                let Some(condition) = known else { continue };
                let before = self.0.insert((node.id.clone(), kind), condition.status());
                if before.is_some_and(|before| before != condition.status()) {
                    changes.push((node.name.as_str(), condition));
                }
            }
        }
        changes
    }
}
