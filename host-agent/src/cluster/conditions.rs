//! How the host agent itself judges nodes and the whole cluster, as pure functions of what is observed. `True` is the
//! good state of every condition, and each is there at all times, so that one can wait for it. `docs/health.md` has them.

use host_plugins::PluginState;
use k8sctl_proto::node::v1::{Condition, ConditionStatus};
use k8sctl_types::spec::Role;

use super::desired::ImageFacts;
use super::progress::{self, Observed, VM_UNKNOWN};
use crate::kubernetes::PodState;
use crate::nodes::registry::condition;
use crate::records::{ClusterRecord, NodeRecord, NodeState};
use crate::wire;

#[cfg(test)]
mod tests;

/// Whether the whole cluster is as its spec says.
pub(super) const READY: &str = "Ready";
/// Whether a node's VM runs.
pub(super) const VM_RUNNING: &str = "VMRunning";
/// Whether a node's agent has a session and all that it needs.
pub(super) const AGENT_READY: &str = "AgentReady";
/// What Kubernetes says of a node.
pub(super) const NODE_READY: &str = "NodeReady";

/// What else Kubernetes says of it.
pub(super) const NODE_OK: &str = "NodeOK";
/// What the host says of a node; the rest is what its agent says.
pub(crate) const OF_HOST: [&str; 4] = [VM_RUNNING, AGENT_READY, NODE_READY, NODE_OK];

/// What the pods of the cluster's name service are called.
pub(super) const DNS: &str = "coredns-";
/// What kubeadm names the static pods of a control plane.
const CONTROL_PLANE: [&str; 4] = ["etcd-", "kube-apiserver-", "kube-controller-manager-", "kube-scheduler-"];
/// What the agent of a control plane says of the same parts: one whose pod is ready may have an alarm all the same.
const PARTS: [&str; 4] = ["ApiServerReady", "ControllerManagerReady", "SchedulerReady", "EtcdReady"];
/// Names in one message.
const NAMES: usize = 5;

/// Status, reason, message.
type Verdict = (ConditionStatus, String, String);

fn verdict(status: ConditionStatus, reason: &str, message: impl Into<String>) -> Verdict {
    (status, reason.to_owned(), message.into())
}

fn good(reason: &str) -> Verdict {
    verdict(ConditionStatus::True, reason, "")
}

fn bad(reason: &str, message: impl Into<String>) -> Verdict {
    verdict(ConditionStatus::False, reason, message)
}

fn unknown(reason: &str, message: impl Into<String>) -> Verdict {
    verdict(ConditionStatus::Unknown, reason, message)
}

fn made<const N: usize>(verdicts: [(&str, Verdict); N], now: jiff::Timestamp) -> Vec<Condition> {
    let condition = |(kind, (status, reason, message)): (&str, Verdict)| {
        wire::condition(kind, status, &reason, message, now)
    };
    verdicts.into_iter().map(condition).collect()
}

/// Conditions of a node.
pub(super) fn of_node(node: &NodeRecord, observed: &Observed, now: jiff::Timestamp) -> Vec<Condition> {
    let verdicts = [
        (VM_RUNNING, vm_running(node, observed)),
        (AGENT_READY, agent_ready(node, observed)),
        (NODE_READY, node_ready(node, observed)),
        (NODE_OK, node_ok(node, observed)),
    ];
    let mut conditions = made(verdicts, now);
    let seen = observed.kubernetes.nodes.get(&node.name).and_then(|seen| seen.since);
    let is_of_kubernetes = |it: &&mut Condition| it.r#type == NODE_READY && it.reason.starts_with("Kubelet");
    if let (Some(condition), Some(since)) = (conditions.iter_mut().find(is_of_kubernetes), seen) {
        // It knows since before this program began.
        condition.since = Some(wire::timestamp(since));
    }
    conditions
}

/// Conditions of the whole cluster; `image` is `None` where it cannot be read.
pub(super) fn of_cluster(
    cluster: &ClusterRecord,
    image: Option<&ImageFacts>,
    observed: &Observed,
    now: jiff::Timestamp,
) -> Vec<Condition> {
    let verdicts = [
        (READY, ready(cluster, observed)),
        ("ControlPlaneReady", control_plane_ready(cluster, observed)),
        ("KubernetesAPI", kubernetes_api(observed)),
        ("VMsRunning", rolled_up(cluster, "AllRunning", |node| vm_running(node, observed))),
        ("AgentsReady", rolled_up(cluster, "AllReady", |node| agent_ready(node, observed))),
        ("NodesHealthy", rolled_up(cluster, "AllWell", |node| healthy(node, observed))),
        ("HostOK", host_ok(observed)),
        ("ClusterDNS", cluster_dns(image, observed)),
        ("PluginsReady", plugins_ready(cluster, observed)),
    ];
    made(verdicts, now)
}

fn vm_running(node: &NodeRecord, observed: &Observed) -> Verdict {
    match observed.vms.get(&node.id).map_or(VM_UNKNOWN, |vm| vm.state.as_str()) {
        "running" => good("Running"),
        VM_UNKNOWN => unknown("NotSeen", "libvirt has not told of it"),
        state => bad("NotRunning", format!("the VM is {state}")),
    }
}

/// In a session what the agent says of itself.
fn agent_ready(node: &NodeRecord, observed: &Observed) -> Verdict {
    let view = observed.agents.get(&node.id);
    if let Some(reason) = view
        .filter(|view| !view.connected)
        .and_then(|view| view.refused.as_ref())
        .map(|refused| refused.reason.as_str())
    {
        return bad("Refused", reason);
    }
    match view.filter(|view| view.hello.is_some()) {
        None => unknown("NeverSeen", "its agent has not called home"),
        Some(view) if !view.connected && view.rebooted => {
            bad("VMRebooted", "its VM was rebooted, and its agent has had no session since")
        }
        Some(view) if !view.connected => bad("NoSession", "its agent has no session"),
        Some(view) => match condition(&view.report.conditions, AGENT_READY) {
            None => good("InSession"),
            Some(said) => verdict(known(said), &said.reason, said.message.as_str()),
        },
    }
}

/// What the agent says of its machine, and Kubernetes besides. Without a session the agent says nothing, and its own
/// condition tells of that; without a Ready node Kubernetes says nothing.
fn healthy(node: &NodeRecord, observed: &Observed) -> Verdict {
    let view = observed.agents.get(&node.id).filter(|view| view.connected);
    let said = view.map(|view| view.report.conditions.as_slice()).unwrap_or_default();
    let untrue = |status: ConditionStatus| {
        let all = said.iter().filter(|it| !OF_HOST.contains(&it.r#type.as_str()));
        listed(all.filter(|it| known(it) == status).map(|it| format!("{} ({})", it.r#type, it.reason)))
    };
    let (status, reason, _) = node_ok(node, observed);
    let trouble = (status == ConditionStatus::False).then(|| format!("{NODE_OK} ({reason})"));
    let not_well = [untrue(ConditionStatus::False), trouble];
    match (listed(not_well.into_iter().flatten()), untrue(ConditionStatus::Unknown)) {
        (Some(all), _) => bad("NotWell", all),
        (None, Some(all)) => unknown("NotKnown", all),
        (None, None) => good("AllWell"),
    }
}

/// An agent of another release may say what this one does not know.
fn known(condition: &Condition) -> ConditionStatus {
    match condition.status() {
        ConditionStatus::Unspecified => ConditionStatus::Unknown,
        status => status,
    }
}

/// What Kubernetes says of the node.
fn node_ready(node: &NodeRecord, observed: &Observed) -> Verdict {
    match observed.kubernetes.nodes.get(&node.name) {
        _ if !observed.kubernetes.reachable => unknown("APINoAnswer", observed.kubernetes.error.clone()),
        None => bad("NotRegistered", "Kubernetes does not know it"),
        Some(seen) if seen.ready => good("KubeletReady"),
        Some(seen) => bad("KubeletNotReady", seen.why.clone()),
    }
}

/// What else it says of one that is Ready; of another its kubelet says nothing.
fn node_ok(node: &NodeRecord, observed: &Observed) -> Verdict {
    let seen = observed.kubernetes.nodes.get(&node.name);
    match seen.filter(|seen| observed.kubernetes.reachable && seen.ready) {
        None => unknown("NodeNotReady", "see NodeReady"),
        // Each begins with its kind.
        Some(seen) => match seen.troubles.first().and_then(|trouble| trouble.split(':').next()) {
            None => good("NoPressure"),
            Some(kind) => bad(kind, listed(seen.troubles.iter().cloned()).unwrap_or_default()),
        },
    }
}

fn ready(cluster: &ClusterRecord, observed: &Observed) -> Verdict {
    match progress::missing(cluster, observed) {
        None => good("AllNodesReady"),
        Some(missing) => bad("NotAsDesired", missing.to_string()),
    }
}

fn control_plane_ready(cluster: &ClusterRecord, observed: &Observed) -> Verdict {
    for node in cluster.nodes.iter().filter(|node| node.spec.role == Role::ControlPlane) {
        let phase = progress::node_phase(node, observed);
        if !phase.is_ready() {
            let colon = if phase.message.is_empty() { "" } else { ": " };
            return bad(
                "NodeNotReady",
                format!("node {}: {}{colon}{}", node.name, phase.phase, phase.message),
            );
        }
        if let Some(part) = unwell_part(node, observed) {
            return bad("PartNotHealthy", format!("node {}: {}: {}", node.name, part.r#type, part.message));
        }
    }
    let is_part = |name: &str| CONTROL_PLANE.iter().any(|part| name.starts_with(part));
    let waits = |(name, pod): &(&String, &PodState)| is_part(name) && !pod.ready && !pod.ended;
    match observed.kubernetes.system_pods.iter().find(waits) {
        None => good("AllPartsReady"),
        Some((name, pod)) => bad("PodNotReady", format!("pod kube-system/{name}: {}", pod.why)),
    }
}

/// The first part of which the node's agent says that it is not well.
fn unwell_part<'a>(node: &NodeRecord, observed: &'a Observed) -> Option<&'a Condition> {
    let said = &observed.agents.get(&node.id)?.report.conditions;
    said.iter().find(|it| PARTS.contains(&it.r#type.as_str()) && it.status() == ConditionStatus::False)
}

fn kubernetes_api(observed: &Observed) -> Verdict {
    match observed.kubernetes.reachable {
        true => good("Answers"),
        false => bad("NoAnswer", observed.kubernetes.error.clone()),
    }
}

/// One verdict for all nodes that shall be there; of those that leave nothing is expected.
fn rolled_up(cluster: &ClusterRecord, well: &str, judge: impl Fn(&NodeRecord) -> Verdict) -> Verdict {
    let present = cluster.nodes.iter().filter(|node| node.state == NodeState::Present);
    let judged: Vec<(&NodeRecord, Verdict)> = present.map(|node| (node, judge(node))).collect();
    for status in [ConditionStatus::False, ConditionStatus::Unknown] {
        let all = || judged.iter().filter(move |(_, (theirs, ..))| *theirs == status);
        let Some((_, (_, reason, _))) = all().next() else { continue };
        let lines = all().map(|(node, (_, _, message))| format!("{}: {message}", node.name));
        return verdict(status, reason, listed(lines).unwrap_or_default());
    }
    good(well)
}

fn host_ok(observed: &Observed) -> Verdict {
    match &observed.trouble {
        None => good("NoTrouble"),
        Some(trouble) => bad(&trouble.id, trouble.to_string()),
    }
}

fn cluster_dns(image: Option<&ImageFacts>, observed: &Observed) -> Verdict {
    let Some(image) = image else {
        return unknown("ImageUnreadable", "the node image does not say whether there is one");
    };
    if !image.coredns {
        let message = "the bundle holds no CoreDNS: Services are reachable by address, not by name";
        return bad("NotInBundle", message);
    }
    if !observed.kubernetes.reachable {
        return unknown("APINoAnswer", observed.kubernetes.error.clone());
    }
    let is_dns = |(name, pod): &(&String, &PodState)| name.starts_with(DNS) && !pod.ended;
    let mut pods = observed.kubernetes.system_pods.iter().filter(is_dns);
    let why = match pods.clone().next() {
        _ if pods.any(|(_, pod)| pod.ready) => return good("PodReady"),
        None => "there is no pod of CoreDNS".to_owned(),
        Some((name, pod)) => format!("pod kube-system/{name}: {}", pod.why),
    };
    bad("PodNotReady", why)
}

/// All that are installed, also by a command, and those of the spec that are not yet.
fn plugins_ready(cluster: &ClusterRecord, observed: &Observed) -> Verdict {
    if let Some((node, protocol)) = progress::too_old(cluster, observed) {
        let message = format!(
            "the agent of node {} speaks protocol {protocol} and passes over what plugins need of it; replace it with \
             `k8sctl upgrade agents`",
            node.name
        );
        return bad("AgentTooOld", message);
    }
    let untrue = observed.plugins.iter().filter(|status| status.state != PluginState::Ready);
    let untrue = untrue.map(|status| format!("{}: {}", status.name, progress::plugin_line(status)));
    let is_there = |name: &str| observed.plugins.iter().any(|status| status.name == name);
    let absent = cluster.plugins.iter().filter(|plugin| !is_there(&plugin.name));
    let absent = absent.map(|plugin| format!("{}: it is not installed yet", plugin.name));
    match listed(untrue.chain(absent)) {
        Some(all) => bad("NotReady", all),
        None if observed.plugins.is_empty() => good("NoPlugins"),
        None => good("AllReady"),
    }
}

/// The first ones, and how many more there are; `None` for none at all.
fn listed(all: impl Iterator<Item = String>) -> Option<String> {
    let mut all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(NAMES);
    all.truncate(NAMES);
    match (all.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(all.join(", ")),
        (false, more) => Some(format!("{} and {more} more", all.join(", "))),
    }
}
