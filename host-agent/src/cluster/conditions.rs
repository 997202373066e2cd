//! How the host agent itself judges nodes and the whole cluster, as pure functions of what is observed. `True` is the
//! good state of every condition, and each is there at all times, so that one can wait for it. `docs/health.md` has them.

use k8sctl_proto::node::v1::{Condition, ConditionStatus};
use k8sctl_types::spec::Role;

use super::desired::ImageFacts;
use super::progress::{self, Observed, VM_UNKNOWN};
use crate::kubernetes::PodState;
use crate::records::{ClusterRecord, NodeRecord, NodeState};
use crate::wire;

#[cfg(test)]
mod tests;

/// What the pods of the cluster's name service are called.
pub(super) const DNS: &str = "coredns-";
/// What kubeadm names the static pods of a control plane.
const CONTROL_PLANE: [&str; 4] = ["etcd-", "kube-apiserver-", "kube-controller-manager-", "kube-scheduler-"];
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
        ("VMRunning", vm_running(node, observed)),
        ("AgentConnected", agent_connected(node, observed)),
        ("NodeReady", node_ready(node, observed)),
    ];
    let mut conditions = made(verdicts, now);
    let seen = observed.kubernetes.nodes.get(&node.name).and_then(|seen| seen.since);
    let is_of_kubernetes = |it: &&mut Condition| it.r#type == "NodeReady" && it.reason.starts_with("Kubelet");
    if let (Some(condition), Some(since)) = (conditions.iter_mut().find(is_of_kubernetes), seen) {
        // It knows since before this program began.
        condition.since = Some(wire::timestamp(since));
    }
    conditions
}

/// Those of a node whose changes nobody else tells of.
pub(super) fn worth_an_event(node: &NodeRecord, observed: &Observed) -> Vec<Condition> {
    let verdicts = [("VMRunning", vm_running(node, observed)), ("NodeReady", node_ready(node, observed))];
    made(verdicts, jiff::Timestamp::now())
}

/// Conditions of the whole cluster; `image` is `None` where it cannot be read.
pub(super) fn of_cluster(
    cluster: &ClusterRecord,
    image: Option<&ImageFacts>,
    observed: &Observed,
    now: jiff::Timestamp,
) -> Vec<Condition> {
    let verdicts = [
        ("Ready", ready(cluster, observed)),
        ("ControlPlaneReady", control_plane_ready(cluster, observed)),
        ("KubernetesAPI", kubernetes_api(observed)),
        ("VMsRunning", vms_running(cluster, observed)),
        ("AgentsConnected", agents_connected(cluster, observed)),
        ("HostOK", host_ok(observed)),
        ("ClusterDNS", cluster_dns(image, observed)),
    ];
    made(verdicts, now)
}

/// A condition whose status did not change keeps the time since when it holds.
pub(super) fn keep_since(old: &[Condition], new: &mut [Condition]) {
    for condition in new {
        let before = old.iter().find(|old| old.r#type == condition.r#type && old.status == condition.status);
        if let Some(before) = before {
            condition.since = before.since;
        }
    }
}

fn vm_state<'a>(node: &NodeRecord, observed: &'a Observed) -> &'a str {
    observed.vms.get(&node.id).map_or(VM_UNKNOWN, |vm| vm.state.as_str())
}

fn vm_running(node: &NodeRecord, observed: &Observed) -> Verdict {
    match vm_state(node, observed) {
        "running" => good("Running"),
        VM_UNKNOWN => unknown("NotSeen", "libvirt has not told of it"),
        state => bad("NotRunning", format!("the VM is {state}")),
    }
}

fn agent_connected(node: &NodeRecord, observed: &Observed) -> Verdict {
    let view = observed.agents.get(&node.id);
    match view.and_then(|view| view.last_seen) {
        _ if view.is_some_and(|view| view.connected) => good("InSession"),
        None => bad("NeverSeen", "its agent has not called home"),
        Some(seen) => bad("NoSession", format!("its agent was last heard at {seen:.0}")),
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
    }
    let is_part = |name: &str| CONTROL_PLANE.iter().any(|part| name.starts_with(part));
    let waits = |(name, pod): &(&String, &PodState)| is_part(name) && !pod.ready;
    match observed.kubernetes.system_pods.iter().find(waits) {
        None => good("AllPartsReady"),
        Some((name, pod)) => bad("PodNotReady", format!("pod kube-system/{name}: {}", pod.why)),
    }
}

fn kubernetes_api(observed: &Observed) -> Verdict {
    match observed.kubernetes.reachable {
        true => good("Answers"),
        false => bad("NoAnswer", observed.kubernetes.error.clone()),
    }
}

fn vms_running(cluster: &ClusterRecord, observed: &Observed) -> Verdict {
    let in_state = |is_so: fn(&str) -> bool| {
        present(cluster).map(|node| (node, vm_state(node, observed))).filter(move |(_, state)| is_so(state))
    };
    let off = in_state(|state| state != "running" && state != VM_UNKNOWN);
    let off = listed(off.map(|(node, state)| format!("{} is {state}", node.name)));
    let unseen = listed(in_state(|state| state == VM_UNKNOWN).map(|(node, _)| node.name.clone()));
    match (off, unseen) {
        (Some(off), _) => bad("NotRunning", off),
        (None, Some(unseen)) => unknown("NotSeen", format!("libvirt has not told of {unseen}")),
        (None, None) => good("AllRunning"),
    }
}

fn agents_connected(cluster: &ClusterRecord, observed: &Observed) -> Verdict {
    let away = |node: &&NodeRecord| !observed.agents.get(&node.id).is_some_and(|view| view.connected);
    match listed(present(cluster).filter(away).map(|node| node.name.clone())) {
        None => good("AllInSession"),
        Some(away) => bad("NoSession", format!("without a session: {away}")),
    }
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
    let mut pods = observed.kubernetes.system_pods.iter().filter(|(name, _)| name.starts_with(DNS));
    let why = match pods.clone().next() {
        _ if pods.any(|(_, pod)| pod.ready) => return good("PodReady"),
        None => "there is no pod of CoreDNS".to_owned(),
        Some((name, pod)) => format!("pod kube-system/{name}: {}", pod.why),
    };
    bad("PodNotReady", why)
}

/// Nodes that shall be there: of those that leave nothing is expected.
fn present(cluster: &ClusterRecord) -> impl Iterator<Item = &NodeRecord> {
    cluster.nodes.iter().filter(|node| node.state == NodeState::Present)
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
