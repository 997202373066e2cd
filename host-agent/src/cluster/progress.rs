//! How far a cluster is and whether its operation has ended, as pure functions of what is observed.
//!
//! - `plugins`: the part of its plugins, and of what they need of nodes

use std::collections::BTreeMap;
use std::time::Duration;

use host_plugins::{Converged, NodeNeed, PluginStatus};
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1::{StepState, StepStatus, Target};
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::Role;
use k8sctl_types::version::KubernetesVersion;

use crate::kubernetes::{KubernetesView, Remaining};
use crate::nodes::registry::NodeView;
use crate::records::{ClusterRecord, NodeRecord, NodeState};

mod plugins;
#[cfg(test)]
pub(super) mod tests;

pub use plugins::{handover, has_settled, plugin_line, plugin_progress, too_old};

/// A step that failed so often, in its agent's own retries, fails the operation.
const STEP_ATTEMPTS: u32 = 3;

/// The state of a VM of which nothing is known: libvirt does not answer.
pub const VM_UNKNOWN: &str = "unknown";
/// The state of a VM that QEMU stopped.
pub const VM_IO_ERROR: &str = "stopped by an I/O error";
/// The phase of a node whose VM is being destroyed.
pub const REMOVING: &str = "Removing";
/// A VM that was started so often in a row, and does not run, fails the operation.
const VM_STARTS: u32 = 5;

/// What kubeadm names the pods that make Services reachable from a node.
pub const PROXY: &str = "kube-proxy-";

/// The VM of a node, as last observed.
#[derive(Clone, Debug, Default)]
pub struct VmView {
    /// libvirt's word: running, shut off, …; `missing` where there is no domain.
    pub state: String,
    /// Since when it has been running, as far as this host agent saw: what it may have missed before is not judged.
    pub powered_on: Option<jiff::Timestamp>,
    /// Since when it has been running, whoever saw that.
    pub started: Option<jiff::Timestamp>,
    /// How often in a row it was started.
    pub starts: u32,
}

/// All that is observed of a cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// By node id.
    pub vms: BTreeMap<String, VmView>,
    /// By node id.
    pub agents: BTreeMap<String, NodeView>,
    /// The generation that each agent shall have reached, by node id.
    pub generations: BTreeMap<String, u64>,
    /// The Kubernetes API.
    pub kubernetes: KubernetesView,
    /// Pods that are still on nodes that leave, by node id.
    pub drains: BTreeMap<String, Remaining>,
    /// Installed plugins.
    pub plugins: Vec<PluginStatus>,
    /// What they need of nodes.
    pub needs: Vec<NodeNeed>,
    /// How far those of the spec are, while an operation wants them.
    pub converged: Option<Converged>,
    /// The node whose pods are made anew for another pod network, by its id, and those that are still there.
    pub restart: Option<(String, Remaining)>,
    /// Why the last look at all this broke off.
    pub trouble: Option<Failure>,
}

/// A node's place on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePhase {
    /// `Ready`, or what it is doing.
    pub phase: &'static str,
    /// One line for a person.
    pub message: String,
}

impl NodePhase {
    fn new(phase: &'static str, message: impl Into<String>) -> Self {
        Self { phase, message: message.into() }
    }

    /// The node is a working member of the cluster.
    pub fn is_ready(&self) -> bool {
        self.phase == "Ready"
    }
}

/// Whether the control plane can take workers: what a join reads is in its API, or kubeadm has run to its end. Looked
/// at here, over one connection that stands, because each look of a worker costs the API server a TLS handshake while
/// it has the most to do.
pub fn control_plane_is_up(cluster: &ClusterRecord, observed: &Observed) -> bool {
    let version = cluster.kubernetes.parse::<KubernetesVersion>();
    let is_there = |name: &str| observed.kubernetes.configs.contains_key(name);
    version.is_ok_and(|version| version.join_config_maps().iter().all(|name| is_there(name)))
        || cluster
            .nodes
            .iter()
            .filter(|node| node.spec.role == Role::ControlPlane)
            .all(|node| observed.agents.get(&node.id).is_some_and(|view| step_is_done(view, "kubeadm")))
}

/// Whether the control plane has done what needs the host's processors alone: it is past its own boot.
pub fn control_plane_is_starting(cluster: &ClusterRecord, observed: &Observed) -> bool {
    cluster
        .nodes
        .iter()
        .filter(|node| node.spec.role == Role::ControlPlane)
        .all(|node| observed.agents.get(&node.id).is_some_and(|view| step_has_begun(view, "kubeadm")))
}

/// How far a node may go now.
pub fn node_target(cluster: &ClusterRecord, node: &NodeRecord, observed: &Observed) -> Target {
    // Where it waits or fails by now, the node was let go on before, and is not held back again.
    let is_member = observed.agents.get(&node.id).is_some_and(|view| step_has_begun(view, "kubeadm"));
    if node.spec.role == Role::ControlPlane || is_member || control_plane_is_up(cluster, observed) {
        Target::Member
    } else {
        Target::Prepared
    }
}

fn step<'a>(view: &'a NodeView, name: &str) -> Option<&'a StepStatus> {
    view.report.steps.iter().find(|step| step.name == name)
}

fn step_has_begun(view: &NodeView, name: &str) -> bool {
    step(view, name).is_some_and(|step| step.state() != StepState::Pending)
}

fn step_is_done(view: &NodeView, name: &str) -> bool {
    step(view, name).is_some_and(|step| step.state() == StepState::Done)
}

/// Where a node is.
pub fn node_phase(node: &NodeRecord, observed: &Observed) -> NodePhase {
    let vm = observed.vms.get(&node.id).map_or(VM_UNKNOWN, |vm| vm.state.as_str());
    match node.state {
        NodeState::Draining => {
            let message = observed.drains.get(&node.id).map_or_else(
                || "moving its pods away".to_owned(),
                |left| format!("{} pods are still on it, first {}: {}", left.count, left.first, left.why),
            );
            return NodePhase::new("Draining", message);
        }
        NodeState::Removing => return NodePhase::new(REMOVING, "destroying its VM"),
        NodeState::Present => {}
    }
    // A VM of which libvirt cannot tell is judged by its agent.
    if vm != "running" && vm != VM_UNKNOWN {
        return NodePhase::new("VM", format!("the VM is {vm}"));
    }
    let view = observed.agents.get(&node.id).cloned().unwrap_or_default();
    if view.hello.is_none() && vm == VM_UNKNOWN {
        return NodePhase::new("VM", "nothing is known of the VM yet");
    }
    if view.hello.is_none() || view.joined.is_none() {
        return NodePhase::new("Booting", "waiting for its agent to call home");
    }
    if !view.connected && view.rebooted {
        return NodePhase::new("Booting", "its VM was rebooted, waiting for its agent to call home");
    }
    if !view.connected {
        return NodePhase::new("Disconnected", "its agent has no session");
    }
    let wanted = observed.generations.get(&node.id).copied().unwrap_or(u64::MAX);
    // After a restart of the host agent with a clock that was set back they begin at lower ones.
    if view.report.observed_generation != wanted {
        return NodePhase::new("Configuring", "its agent takes in the desired state");
    }
    if let Some(open) = view.report.steps.iter().find(|step| step.state() != StepState::Done) {
        let waits = open.state() == StepState::Pending;
        let phase = if waits { "Waiting" } else { "Configuring" };
        let message = if open.message.is_empty() { String::new() } else { format!(": {}", open.message) };
        return NodePhase::new(phase, format!("{}{message}", open.name));
    }
    if view.report.steps.is_empty() {
        return NodePhase::new("Configuring", "its agent has not reported its steps yet");
    }
    match observed.kubernetes.nodes.get(&node.name) {
        _ if !observed.kubernetes.reachable => NodePhase::new(
            "API",
            format!("the Kubernetes API does not answer: {}", observed.kubernetes.error),
        ),
        None => NodePhase::new("Registering", "its kubelet has not registered the node yet"),
        Some(seen) if seen.pod_cidr.is_none() => {
            NodePhase::new("Registering", "the host gives it its pod network and its labels")
        }
        Some(seen) if !seen.ready => NodePhase::new("NotReady", seen.why.clone()),
        Some(_) => NodePhase::new("Ready", ""),
    }
}

/// The first thing that keeps a cluster from being as desired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Kind and name, `node k8s-worker-1`.
    pub object: String,
    /// Its state, and why.
    pub reason: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.reason)
    }
}

/// What still keeps the cluster from being as desired; `None` means: nothing.
pub fn missing(cluster: &ClusterRecord, observed: &Observed) -> Option<Missing> {
    for node in &cluster.nodes {
        let phase = node_phase(node, observed);
        if !phase.is_ready() {
            let colon = if phase.message.is_empty() { "" } else { ": " };
            let reason = format!("{}{colon}{}", phase.phase, phase.message);
            return Some(Missing { object: format!("node {}", node.name), reason });
        }
    }
    let pods = &observed.kubernetes.system_pods;
    let waiting = pods.iter().find(|(_, pod)| !pod.ready && !pod.ended).map(|(name, pod)| Missing {
        object: format!("pod kube-system/{name}"),
        reason: format!("{} on {}", pod.why, pod.node),
    });
    // On a slow machine a node is Ready before the controller manager has made its pods.
    let has_proxy = |node: &NodeRecord| {
        pods.iter().any(|(name, pod)| name.starts_with(PROXY) && pod.node == node.name && pod.ready)
    };
    let proxy = || {
        let node = cluster.nodes.iter().find(|node| !has_proxy(node))?;
        let reason = "no pod of kube-proxy is on it yet".to_owned();
        Some(Missing { object: format!("node {}", node.name), reason })
    };
    waiting.or_else(proxy).or_else(|| plugins::missing(cluster, observed))
}

/// How long a VM may be silent, for one operation.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// When the operation began, or the host went on after it had stood still. What was silent before may be mended since.
    pub since: jiff::Timestamp,
    /// How long is too long.
    pub limit: Duration,
}

impl Silence {
    /// When a VM that is on since then has been silent for too long.
    fn ends(&self, powered_on: jiff::Timestamp) -> jiff::Timestamp {
        let limit = jiff::SignedDuration::try_from(self.limit).unwrap_or(jiff::SignedDuration::MAX);
        powered_on.max(self.since).checked_add(limit).unwrap_or(jiff::Timestamp::MAX)
    }
}

/// Since when the node's VM has been on without a word from its agent.
fn silent_since(node: &NodeRecord, observed: &Observed) -> Option<jiff::Timestamp> {
    let powered_on = observed.vms.get(&node.id).filter(|vm| vm.state == "running")?.powered_on?;
    match observed.agents.get(&node.id) {
        Some(view) if view.connected => None,
        Some(view) if view.joined.is_some() => {
            Some(view.last_seen.map_or(powered_on, |seen| seen.max(powered_on)))
        }
        _ => Some(powered_on),
    }
}

/// The next moment at which a VM will have been silent for too long.
pub fn next_silence(
    cluster: &ClusterRecord,
    observed: &Observed,
    silence: Silence,
) -> Option<jiff::Timestamp> {
    let present = cluster.nodes.iter().filter(|node| node.state == NodeState::Present);
    present.filter_map(|node| silent_since(node, observed)).map(|on| silence.ends(on)).min()
}

/// A reason to end the operation badly now, if there is one, with the id of the node that it is.
pub fn failure(
    cluster: &ClusterRecord,
    observed: &Observed,
    silence: Silence,
    now: jiff::Timestamp,
) -> Option<(Option<String>, Failure)> {
    let of_node = node_failure(cluster, observed, silence, now);
    let of_node = of_node.map(|(node_id, failure)| (Some(node_id), failure));
    of_node.or_else(|| Some((None, plugins::failure(cluster, observed)?)))
}

fn node_failure(
    cluster: &ClusterRecord,
    observed: &Observed,
    silence: Silence,
    now: jiff::Timestamp,
) -> Option<(String, Failure)> {
    cluster.nodes.iter().filter(|node| node.state == NodeState::Present).find_map(|node| {
        let object = format!("node {}", node.name);
        if let Some(failed) = failed_step(node, observed) {
            return Some((node.id.clone(), step_failure(&object, &node.name, failed)));
        }
        let vm = observed.vms.get(&node.id);
        if let Some(vm) = vm.filter(|vm| vm.starts >= VM_STARTS && vm.state != "running") {
            let reason = format!("its VM was started {} times in a row and is {}", vm.starts, vm.state);
            let next = format!(
                "check the space under the pool's directory and the end of /var/log/libvirt/qemu/{}.log, then run \
                 `k8sctl up` again",
                node.name
            );
            return Some((node.id.clone(), Failure::new("VM-STOPS", object, reason, next)));
        }
        let silent = silent_since(node, observed)?;
        (now >= silence.ends(silent)).then(|| {
            let on = now.duration_since(silent).as_secs().unsigned_abs();
            let on = humantime::format_duration(Duration::from_secs(on));
            let had_session = observed.agents.get(&node.id).is_some_and(|view| view.joined.is_some());
            let reason = if had_session {
                format!("its VM runs and its agent has had no session for {on}")
            } else {
                format!("its VM has run for {on} and its agent has never called home")
            };
            let next = "read the end of its console that is shown: if the VM did not boot, mend that; if it did, \
                        check with `k8sctl doctor` that no firewall stands between the VM and the host agent; then run \
                        `k8sctl up` again";
            (node.id.clone(), Failure::new("NODE-SILENT", object, reason, next))
        })
    })
}

/// A step that failed too often. What an agent reports of an older desired state is no news: of a newer one it says only
/// of what it has tried that it failed, and with a new operation it begins to count anew.
fn failed_step<'a>(node: &NodeRecord, observed: &'a Observed) -> Option<&'a StepStatus> {
    let view = observed.agents.get(&node.id)?;
    let wanted = observed.generations.get(&node.id);
    let is_of_it = wanted.is_none_or(|wanted| view.report.observed_generation == *wanted);
    let steps = view.report.steps.iter().filter(|_| is_of_it);
    steps.into_iter().find(|step| step.state() == StepState::Failed && step.attempts >= STEP_ATTEMPTS)
}

fn step_failure(object: &str, node: &str, step: &StepStatus) -> Failure {
    let id = match step.name.as_str() {
        "kubeadm" => "KUBEADM-FAILED",
        _ => "NODE-STEP-FAILED",
    };
    let reason = format!("step {} failed {} times: {}", step.name, step.attempts, step.message);
    let source = if step.name == "kubeadm" { "kubelet" } else { "agent" };
    let next = format!(
        "see `k8sctl logs {node} --source {source} --tail 100`; the agent goes on trying; \
                        `k8sctl up` makes it try at once, and waits for it again"
    );
    let evidence = step.evidence.as_ref().map(evidence_text).unwrap_or_default();
    Failure::new(id, object, reason, next).with_evidence(evidence)
}

fn evidence_text(evidence: &k8sctl_proto::node::v1::Evidence) -> String {
    let mut text = evidence.output_tail.clone();
    if !evidence.argv.is_empty() {
        let status = match evidence.exit_status {
            Some(status) => format!("exit status {status}"),
            None => "ended by a signal".to_owned(),
        };
        text = format!("$ {}\n{}\n({status})", evidence.argv.join(" "), text.trim_end());
    }
    if !evidence.journal_tail.is_empty() {
        text.push_str("\n-- journal --\n");
        text.push_str(&evidence.journal_tail);
    }
    text
}

/// The failure of an operation that ran out of time.
/// With the node that is in the way, if one is.
pub fn deadline_failure(cluster: &ClusterRecord, observed: &Observed) -> (Option<String>, Failure) {
    let node = cluster.nodes.iter().find(|node| !node_phase(node, observed).is_ready());
    let open =
        node.and_then(|node| observed.agents.get(&node.id)).into_iter().flat_map(|view| &view.report.steps);
    let evidence = open
        .filter(|step| step.state() != StepState::Done)
        .filter_map(|step| step.evidence.as_ref())
        .next_back()
        .map(evidence_text);
    let missing = missing(cluster, observed).unwrap_or_else(|| Missing {
        object: format!("cluster {}", cluster.name),
        reason: "as it should be, a moment too late".to_owned(),
    });
    let failure = Failure::new(
        "OPERATION-DEADLINE",
        missing.object,
        format!("the deadline passed; it was last seen as {}", missing.reason),
        "run `k8sctl up` again to go on from here, with a longer `--deadline` if the host is slow",
    );
    (node.map(|node| node.id.clone()), failure.with_evidence(evidence.unwrap_or_default()))
}

/// The line of something that is in the way of an operation and may pass by itself.
pub fn trouble_line(failure: &Failure) -> control::Progress {
    control::Progress {
        object: failure.object.clone(),
        phase: "Waiting".to_owned(),
        message: format!("{}: {}; {}", failure.id, failure.reason, failure.next_step),
        ..control::Progress::default()
    }
}

/// A node's line in the progress of an operation.
pub fn node_progress(node: &NodeRecord, observed: &Observed) -> control::Progress {
    let phase = node_phase(node, observed);
    let steps = observed.agents.get(&node.id).map(|view| view.report.steps.clone()).unwrap_or_default();
    control::Progress {
        object: node.name.clone(),
        phase: phase.phase.to_owned(),
        done: phase.is_ready(),
        message: phase.message,
        started: None,
        steps,
    }
}
