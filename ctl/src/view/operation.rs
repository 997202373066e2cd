//! Plans, operations and how they end.

use k8sctl_proto::control::v1::{self as control, Action, OperationState};
use k8sctl_types::failure::Failure;
use k8sctl_types::spec;
use serde::Serialize;

use super::{StepView, text, time};

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanView {
    /// Name of the cluster.
    pub cluster_name: String,
    /// `v1.29.0`
    pub kubernetes_version: String,
    /// Digest of the node image's inputs.
    pub image_id: String,
    /// Digest of the changes, which an apply refuses to deviate from.
    pub digest: String,
    /// Changes in the order in which they are made.
    pub changes: Vec<ChangeView>,
    /// Remarks.
    pub notices: Vec<String>,
    /// Warnings about the cluster file.
    pub warnings: Vec<DiagnosticView>,
    /// The operation that carries it out already; `null` where none does.
    pub operation_id: Option<String>,
    /// What `k8sctl.lock` beside the file shall hold when this is applied; `null` means: what it holds.
    pub lock: Option<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeView {
    /// `create`, `update`, `replace`, `delete`, `adopt` or `release`
    pub action: &'static str,
    /// `network`, `pool`, `volume`, `domain`, `node`, …
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Loses data or stops workloads.
    pub destructive: bool,
    /// What a plugin asks for and nobody has approved yet, a line each.
    pub permissions: Vec<String>,
    /// Digest of those, which the plan's digest holds.
    pub permissions_digest: Option<String>,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationView {
    /// Id.
    pub id: String,
    /// Name of the cluster.
    pub cluster_name: String,
    /// `up` or `down`
    pub kind: String,
    /// `running`, `succeeded` or `failed`
    pub state: &'static str,
    /// When it began.
    pub started: Option<String>,
    /// When it ended.
    pub finished: Option<String>,
    /// What goes on now.
    pub progress: Vec<ProgressView>,
    /// Why it failed.
    pub failure: Option<FailureView>,
}

/// What goes on with one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProgressView {
    /// Name of a node, or `network`, `image`.
    pub object: String,
    /// What it is doing.
    pub phase: String,
    /// One line on that.
    pub message: Option<String>,
    /// It is as it should be.
    pub done: bool,
    /// When this began.
    pub started: Option<String>,
    /// Steps of a node.
    pub steps: Vec<StepView>,
}

/// A mistake in the user's file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiagnosticView {
    /// Stable id.
    pub id: String,
    /// Key path, `node[1].ip`.
    pub field: String,
    /// 1-based; 0 means the whole file.
    pub line: u32,
    /// 1-based, in characters; 0 means the whole line.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
    /// The file is usable all the same.
    pub warning: bool,
}

/// Why something ended badly.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureView {
    /// Stable id.
    pub id: String,
    /// Kind and name.
    pub object: String,
    /// What happened.
    pub reason: String,
    /// What to do.
    pub next_step: String,
    /// What was left behind.
    pub evidence: Option<String>,
}

impl PlanView {
    /// Whether a change needs consent.
    pub fn is_destructive(&self) -> bool {
        self.changes.iter().any(|change| change.destructive)
    }

    /// Changes that ask for permissions which nobody has approved yet.
    pub fn asking(&self) -> impl Iterator<Item = &ChangeView> {
        self.changes.iter().filter(|change| !change.permissions.is_empty())
    }

    /// Whether a notice says that the bundle is only for trying things out.
    pub fn is_trial(&self) -> bool {
        self.notices.iter().any(|notice| is_trial_notice(notice))
    }
}

/// Whether this notice is the one on trial bundles.
pub fn is_trial_notice(notice: &str) -> bool {
    notice.to_ascii_lowercase().contains("trial bundle")
}

impl From<control::Plan> for PlanView {
    fn from(wire: control::Plan) -> Self {
        Self {
            cluster_name: wire.cluster_name,
            kubernetes_version: wire.kubernetes_version,
            image_id: wire.image_id,
            digest: wire.digest,
            changes: wire.changes.into_iter().map(Into::into).collect(),
            notices: wire.notices,
            warnings: Vec::new(),
            operation_id: text(wire.operation_id),
            lock: text(wire.lock_text),
        }
    }
}

/// The word for an action.
pub(super) fn action(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Replace => "replace",
        Action::Delete => "delete",
        Action::Adopt => "adopt",
        Action::Release => "release",
        Action::Unspecified => "unknown",
    }
}

impl From<control::Change> for ChangeView {
    fn from(wire: control::Change) -> Self {
        Self {
            action: action(wire.action()),
            kind: wire.kind,
            name: wire.name,
            reason: wire.reason,
            destructive: wire.destructive,
            permissions: wire.permissions,
            permissions_digest: text(wire.permissions_digest),
        }
    }
}

impl From<control::Operation> for OperationView {
    fn from(wire: control::Operation) -> Self {
        Self {
            state: match wire.state() {
                OperationState::Succeeded => "succeeded",
                OperationState::Failed => "failed",
                OperationState::Running | OperationState::Unspecified => "running",
            },
            id: wire.id,
            cluster_name: wire.cluster_name,
            kind: wire.kind,
            started: time(wire.started),
            finished: time(wire.finished),
            progress: wire.progress.into_iter().map(Into::into).collect(),
            failure: wire.failure.map(Into::into),
        }
    }
}

impl From<control::Progress> for ProgressView {
    fn from(wire: control::Progress) -> Self {
        Self {
            object: wire.object,
            phase: wire.phase,
            message: text(wire.message),
            done: wire.done,
            started: time(wire.started),
            steps: wire.steps.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<control::Diagnostic> for DiagnosticView {
    fn from(wire: control::Diagnostic) -> Self {
        Self {
            id: wire.id,
            field: wire.field,
            line: wire.line,
            column: wire.column,
            message: wire.message,
            hint: wire.hint,
            warning: wire.warning,
        }
    }
}

impl From<spec::Diagnostic> for DiagnosticView {
    fn from(found: spec::Diagnostic) -> Self {
        Self {
            id: found.id.to_string(),
            field: found.field,
            line: found.line,
            column: found.column,
            message: found.message,
            hint: found.hint,
            warning: found.warning,
        }
    }
}

impl From<control::Failure> for FailureView {
    fn from(wire: control::Failure) -> Self {
        Self {
            id: wire.id,
            object: wire.object,
            reason: wire.reason,
            next_step: wire.next_step,
            evidence: text(wire.evidence),
        }
    }
}

impl From<&Failure> for FailureView {
    fn from(failure: &Failure) -> Self {
        Self {
            id: failure.id.clone(),
            object: failure.object.clone(),
            reason: failure.reason.clone(),
            next_step: failure.next_step.clone(),
            evidence: text(failure.evidence.clone()),
        }
    }
}

impl From<&FailureView> for Failure {
    fn from(view: &FailureView) -> Self {
        let failure = Failure::new(&view.id, &view.object, &view.reason, &view.next_step);
        failure.with_evidence(view.evidence.clone().unwrap_or_default())
    }
}
