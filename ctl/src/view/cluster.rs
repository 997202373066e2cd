//! A cluster's status.

use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1::{self as node, ConditionStatus, NodeRole, RepairOutcome, StepState};
use serde::Serialize;

use super::{FailureView, PluginView, text, time};

/// A cluster, of `status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterView {
    /// Name.
    pub name: String,
    /// Id, never used again.
    pub id: String,
    /// Counts the specs that were applied.
    pub generation: u64,
    /// `v1.29.0`
    pub kubernetes_version: String,
    /// Digest of the node image's inputs.
    pub image_id: String,
    /// The bundle is for trying things out only.
    pub trial_bundle: bool,
    /// The operation that runs now.
    pub operation_id: Option<String>,
    /// Why the last operation failed, until one succeeds.
    pub last_failure: Option<FailureView>,
    /// Conditions of the whole cluster.
    pub conditions: Vec<ConditionView>,
    /// Nodes.
    pub nodes: Vec<NodeView>,
    /// Installed plugins.
    pub plugins: Vec<PluginView>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeView {
    /// Name of VM, host and Kubernetes node.
    pub name: String,
    /// Id.
    pub id: String,
    /// `control-plane` or `worker`
    pub role: &'static str,
    /// Address.
    pub ip: String,
    /// libvirt's word.
    pub vm_state: String,
    /// `Ready`, or what it is doing.
    pub phase: String,
    /// One line on the phase.
    pub message: Option<String>,
    /// Its agent has a session.
    pub connected: bool,
    /// When its agent was last heard.
    pub last_seen: Option<String>,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// When its VM was started.
    pub powered_on: Option<String>,
    /// When its agent first had a session after that.
    pub joined: Option<String>,
    /// Conditions; `True` is the good state of each.
    pub conditions: Vec<ConditionView>,
    /// Steps in order.
    pub steps: Vec<StepView>,
    /// The last repairs that its agent made or tried, oldest first.
    pub repairs: Vec<RepairView>,
    /// What the agent sees of its machine; `null` until it called home.
    pub facts: Option<FactsView>,
}

/// What an agent sees of its machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FactsView {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Root file system.
    pub disk_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Operating system.
    pub os: String,
    /// Its own hostname.
    pub hostname: String,
    /// From power-on to the agent's start.
    pub boot_to_agent_seconds: Option<f64>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConditionView {
    /// `KubeletReady`
    pub r#type: String,
    /// `True`, `False` or `Unknown`
    pub status: &'static str,
    /// CamelCase word.
    pub reason: Option<String>,
    /// One line.
    pub message: Option<String>,
    /// When the status last changed.
    pub since: Option<String>,
}

/// A step of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepView {
    /// `kubeadm`
    pub name: String,
    /// `pending`, `running`, `done` or `failed`
    pub state: &'static str,
    /// One line.
    pub message: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it began.
    pub started: Option<String>,
    /// When it ended.
    pub finished: Option<String>,
    /// What its last failed command left behind.
    pub evidence: Option<EvidenceView>,
}

/// What a failed command left behind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvidenceView {
    /// The command.
    pub argv: Vec<String>,
    /// `null` where a signal or its deadline ended it.
    pub exit_status: Option<i32>,
    /// Last lines of its output.
    pub output_tail: Option<String>,
    /// Last lines of the unit's journal.
    pub journal_tail: Option<String>,
}

/// Something that an agent put right, or tried to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepairView {
    /// Counts up by one per repair of the node's disk.
    pub number: u64,
    /// When.
    pub time: Option<String>,
    /// `containerd`, `kubelet`, `disk`, or a step.
    pub object: String,
    /// What was wrong.
    pub reason: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// `repaired`, `failed`, `gave-up` or `unknown`
    pub outcome: &'static str,
    /// Why it failed, or until when the agent rests.
    pub message: Option<String>,
}

impl ConditionView {
    /// Nothing is known of it because its agent has no session, or its kubelet says nothing, which is a condition of its
    /// own.
    pub fn is_silence(&self) -> bool {
        self.status == "Unknown" && matches!(self.reason.as_deref(), Some("NoSession" | "NodeNotReady"))
    }
}

impl From<control::ClusterStatus> for ClusterView {
    fn from(wire: control::ClusterStatus) -> Self {
        Self {
            name: wire.name,
            id: wire.id,
            generation: wire.generation,
            kubernetes_version: wire.kubernetes_version,
            image_id: wire.image_id,
            trial_bundle: wire.trial_bundle,
            operation_id: text(wire.operation_id),
            last_failure: wire.last_failure.map(Into::into),
            conditions: wire.conditions.into_iter().map(Into::into).collect(),
            nodes: wire.nodes.into_iter().map(Into::into).collect(),
            plugins: wire.plugins.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<control::NodeStatus> for NodeView {
    fn from(wire: control::NodeStatus) -> Self {
        Self {
            role: match wire.role() {
                NodeRole::ControlPlane => "control-plane",
                NodeRole::Worker => "worker",
                NodeRole::Unspecified => "unknown",
            },
            name: wire.name,
            id: wire.id,
            ip: wire.ip,
            vm_state: wire.vm_state,
            phase: wire.phase,
            message: text(wire.message),
            connected: wire.connected,
            last_seen: time(wire.last_seen),
            agent_version: text(wire.agent_version),
            powered_on: time(wire.powered_on),
            joined: time(wire.joined),
            conditions: wire.conditions.into_iter().map(Into::into).collect(),
            steps: wire.steps.into_iter().map(Into::into).collect(),
            repairs: wire.repairs.into_iter().map(Into::into).collect(),
            facts: wire.facts.map(|facts| FactsView {
                vcpus: facts.vcpus,
                memory_bytes: facts.memory_bytes,
                disk_bytes: facts.disk_bytes,
                kernel: facts.kernel,
                os: facts.os,
                hostname: facts.hostname,
                boot_to_agent_seconds: facts
                    .boot_to_agent
                    .map(|length| length.seconds as f64 + f64::from(length.nanos) / 1e9),
            }),
        }
    }
}

impl From<node::Condition> for ConditionView {
    fn from(wire: node::Condition) -> Self {
        Self {
            status: match wire.status() {
                ConditionStatus::True => "True",
                ConditionStatus::False => "False",
                ConditionStatus::Unknown | ConditionStatus::Unspecified => "Unknown",
            },
            r#type: wire.r#type,
            reason: text(wire.reason),
            message: text(wire.message),
            since: time(wire.since),
        }
    }
}

impl From<node::StepStatus> for StepView {
    fn from(wire: node::StepStatus) -> Self {
        Self {
            state: match wire.state() {
                StepState::Running => "running",
                StepState::Done => "done",
                StepState::Failed => "failed",
                StepState::Pending | StepState::Unspecified => "pending",
            },
            name: wire.name,
            message: text(wire.message),
            attempts: wire.attempts,
            started: time(wire.started),
            finished: time(wire.finished),
            evidence: wire.evidence.map(|evidence| EvidenceView {
                argv: evidence.argv,
                exit_status: evidence.exit_status,
                output_tail: text(evidence.output_tail),
                journal_tail: text(evidence.journal_tail),
            }),
        }
    }
}

impl From<node::Repair> for RepairView {
    fn from(wire: node::Repair) -> Self {
        Self {
            outcome: match wire.outcome() {
                RepairOutcome::Repaired => "repaired",
                RepairOutcome::Failed => "failed",
                RepairOutcome::GaveUp => "gave-up",
                RepairOutcome::Unspecified => "unknown",
            },
            number: wire.number,
            time: time(wire.time),
            object: wire.object,
            reason: text(wire.reason),
            action: text(wire.action),
            message: text(wire.message),
        }
    }
}
