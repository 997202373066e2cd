//! What `status` shows of a cluster, as pure functions of what is observed, and what of it is told as events.

use std::collections::HashMap;

use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1::{Condition, ConditionStatus, StepState};

use super::conditions::{self, READY};
use super::desired::ImageFacts;
use super::progress::{self, Observed, REMOVING};
use crate::records::{ClusterRecord, NodeRecord, OperationRecord};
use crate::wire;

#[cfg(test)]
mod tests;

/// What `status` shows of a cluster at which nobody has looked yet: its nodes, and nothing of how they are.
pub fn first_status(cluster: &ClusterRecord) -> control::ClusterStatus {
    let mut status = cluster_status(cluster, &Observed::default(), None, None, None);
    status.conditions.clear();
    status.nodes.iter_mut().for_each(|node| node.conditions.clear());
    status
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

/// All that `status` shows; `image` is `None` where it cannot be read.
pub fn cluster_status(
    cluster: &ClusterRecord,
    observed: &Observed,
    image: Option<&ImageFacts>,
    running: Option<&OperationRecord>,
    last_failure: Option<control::Failure>,
) -> control::ClusterStatus {
    let now = jiff::Timestamp::now();
    control::ClusterStatus {
        name: cluster.name.clone(),
        id: cluster.id.clone(),
        generation: cluster.generation,
        kubernetes_version: cluster.kubernetes.clone(),
        image_id: cluster.image_id.clone(),
        trial_bundle: cluster.trial,
        conditions: conditions::of_cluster(cluster, image, observed, now),
        nodes: cluster.nodes.iter().map(|node| node_status(node, observed, now)).collect(),
        operation_id: running.map(|operation| operation.id.clone()).unwrap_or_default(),
        last_failure: last_failure.filter(|_| running.is_none()),
        plugins: observed.plugins.iter().cloned().map(wire::plugin_status).collect(),
    }
}

fn node_status(node: &NodeRecord, observed: &Observed, now: jiff::Timestamp) -> control::NodeStatus {
    let phase = progress::node_phase(node, observed);
    let view = observed.agents.get(&node.id).cloned().unwrap_or_default();
    let vm = observed.vms.get(&node.id).cloned().unwrap_or_default();
    let own = conditions::of_node(node, observed, now);
    // Whoever is root in the VM does not speak for the host.
    let is_theirs = |theirs: &&Condition| own.iter().all(|ours| ours.r#type != theirs.r#type);
    let mut conditions: Vec<Condition> = view.report.conditions.iter().filter(is_theirs).cloned().collect();
    for condition in &mut conditions {
        if !view.connected {
            without_session(condition, now);
        }
        // By a clock that was ahead.
        let latest = wire::timestamp(now);
        let since = condition.since.get_or_insert(latest);
        if (since.seconds, since.nanos) > (latest.seconds, latest.nanos) {
            *since = latest;
        }
    }
    conditions.extend(own);
    control::NodeStatus {
        name: node.name.clone(),
        id: node.id.clone(),
        role: super::desired::wire_role(node.spec.role).into(),
        ip: node.spec.ip.to_string(),
        vm_state: vm.state,
        phase: phase.phase.to_owned(),
        message: phase.message,
        conditions,
        steps: view.report.steps.clone(),
        facts: view.hello.as_ref().and_then(|hello| hello.facts.clone()),
        connected: view.connected,
        last_seen: view.last_seen.map(wire::timestamp),
        agent_version: view.hello.map(|hello| hello.agent_version).unwrap_or_default(),
        powered_on: vm.started.map(wire::timestamp),
        joined: view.joined.map(wire::timestamp),
        repairs: view.report.repairs.clone(),
    }
}

/// What a node's agent repairs besides its steps, and rests from when it did so too often.
const REPAIRED: [&str; 4] = ["ContainerdReady", "KubeletReady", "ClockOK", "DiskOK"];

/// Whether a person who asks for the cluster again asks for nothing. One whose nodes work may have an agent that rests
/// from a repair: that ends with the next operation.
pub fn leaves_nothing_to_ask_for(status: &control::ClusterStatus) -> bool {
    let is = |conditions: &[Condition], kind: &str, wanted: ConditionStatus| {
        conditions.iter().any(|it| it.r#type == kind && it.status() == wanted)
    };
    let may_rest = |node: &control::NodeStatus| {
        node.steps.iter().any(|step| step.state() == StepState::Failed)
            || REPAIRED.iter().any(|kind| is(&node.conditions, kind, ConditionStatus::False))
    };
    is(&status.conditions, READY, ConditionStatus::True) && !status.nodes.iter().any(may_rest)
}

/// What an agent said last, now that it says nothing.
fn without_session(condition: &mut Condition, now: jiff::Timestamp) {
    let message = "its agent has no session";
    *condition = wire::condition(&condition.r#type, ConditionStatus::Unknown, "NoSession", message, now);
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

/// Conditions of nodes that the host judges, which no agent tells of: what was known of each last.
#[derive(Clone, Debug, Default)]
pub struct ToldConditions(HashMap<(String, &'static str), ConditionStatus>);

impl ToldConditions {
    /// What changed since the last call, with its node. The first that is known of a node is no change, and who does not
    /// answer (an API server, libvirt) tells nothing.
    pub fn changes<'a>(
        &mut self,
        nodes: &'a [control::NodeStatus],
    ) -> Vec<(&'a control::NodeStatus, &'a Condition)> {
        self.0.retain(|(id, _), _| nodes.iter().any(|node| node.id == *id));
        let mut changes = Vec::new();
        // Of one that is being removed nothing is expected.
        for node in nodes.iter().filter(|node| node.phase != REMOVING) {
            for kind in conditions::OF_HOST {
                let condition = node.conditions.iter().find(|condition| condition.r#type == kind);
                let known = condition.filter(|it| it.status() != ConditionStatus::Unknown);
                let Some(condition) = known else { continue };
                let before = self.0.insert((node.id.clone(), kind), condition.status());
                if before.is_some_and(|before| before != condition.status()) {
                    changes.push((node, condition));
                }
            }
        }
        changes
    }
}
