//! Replaced agents, and what is in a support bundle.

use k8sctl_proto::control::v1::{UpgradeAgentsResponse, UpgradeState};
use serde::Serialize;

use super::FailureView;

/// How far a node is with becoming this host's agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UpgradeView {
    /// Name of the node.
    pub node: String,
    /// `running`, `done`, `failed` or `skipped`
    pub state: &'static str,
    /// One line.
    pub message: String,
    /// Why it did not.
    pub failure: Option<FailureView>,
}

/// A support bundle; its `manifest.json` has the same, without the path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SupportBundleView {
    /// The file; `null` in the file itself.
    pub path: Option<String>,
    /// When it was begun.
    pub created: String,
    /// Version of the `k8sctl` that made it.
    pub k8sctl_version: String,
    /// Everything that was asked for, had or not.
    pub parts: Vec<PartView>,
}

/// A part of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartView {
    /// Its path in the archive, behind the archive's own directory.
    pub path: String,
    /// Bytes of it that are there; `null` where nothing is.
    pub size_bytes: Option<u64>,
    /// Only the end of it is there: it was too long.
    pub cut: bool,
    /// Why it is not there, or not whole.
    pub error: Option<FailureView>,
}

impl From<UpgradeAgentsResponse> for UpgradeView {
    fn from(wire: UpgradeAgentsResponse) -> Self {
        Self {
            state: match wire.state() {
                UpgradeState::Done => "done",
                UpgradeState::Failed => "failed",
                UpgradeState::Skipped => "skipped",
                UpgradeState::Running | UpgradeState::Unspecified => "running",
            },
            node: wire.node_name,
            message: wire.message,
            failure: wire.failure.map(Into::into),
        }
    }
}
