//! Bundles, images, checks and versions.

use k8sctl_proto::control::v1::{self as control, CheckState};
use serde::Serialize;

use super::{FailureView, text, time};

/// A bundle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BundleView {
    /// Name.
    pub name: String,
    /// `v1.29.0`
    pub kubernetes_version: String,
    /// `x86_64`
    pub arch: String,
    /// For trying things out only.
    pub trial: bool,
    /// Size of the file.
    pub size_bytes: u64,
    /// The file.
    pub path: String,
    /// Why it cannot be used; name, version and arch are empty then.
    pub problem: Option<FailureView>,
}

/// A node image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageView {
    /// Digest of its inputs.
    pub id: String,
    /// `v1.29.0`
    pub kubernetes_version: String,
    /// Name of its bundle.
    pub bundle: String,
    /// Debian or Ubuntu suite.
    pub suite: String,
    /// Size of its files.
    pub size_bytes: u64,
    /// When it was built.
    pub created: Option<String>,
    /// For trying things out only.
    pub trial: bool,
    /// Clusters that use it.
    pub used_by: Vec<String>,
    /// Why it cannot be used; what is not known of it is empty then.
    pub problem: Option<FailureView>,
}

/// A check of the doctor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckView {
    /// Stable id.
    pub id: String,
    /// `ok`, `warning`, `failed` or `skipped`
    pub state: &'static str,
    /// What was found.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Versions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionView {
    /// This program.
    pub k8sctl: ProgramView,
    /// The host agent; `null` where none answers.
    pub host_agent: Option<ProgramView>,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProgramView {
    /// `0.1.0`
    pub version: String,
    /// Control protocol.
    pub protocol: u32,
}

impl From<control::Bundle> for BundleView {
    fn from(wire: control::Bundle) -> Self {
        Self {
            name: wire.name,
            kubernetes_version: wire.kubernetes_version,
            arch: wire.arch,
            trial: wire.trial,
            size_bytes: wire.size_bytes,
            path: wire.path,
            problem: wire.problem.map(Into::into),
        }
    }
}

impl From<control::Image> for ImageView {
    fn from(wire: control::Image) -> Self {
        Self {
            id: wire.id,
            kubernetes_version: wire.kubernetes_version,
            bundle: wire.bundle,
            suite: wire.suite,
            size_bytes: wire.size_bytes,
            created: time(wire.created),
            trial: wire.trial,
            used_by: wire.used_by,
            problem: wire.problem.map(Into::into),
        }
    }
}

impl From<control::Check> for CheckView {
    fn from(wire: control::Check) -> Self {
        Self {
            state: match wire.state() {
                CheckState::Ok => "ok",
                CheckState::Warning => "warning",
                CheckState::Failed => "failed",
                CheckState::Skipped | CheckState::Unspecified => "skipped",
            },
            id: wire.id,
            message: wire.message,
            hint: text(wire.hint),
        }
    }
}
