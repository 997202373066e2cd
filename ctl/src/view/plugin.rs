//! Plugins: how they are, what they ask for, what a change would do, what their programs said.

use k8sctl_proto::control::v1 as control;
use serde::Serialize;
use serde_json::Value;

use super::operation::action;
use super::{FailureView, text, time};

/// A plugin of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PluginView {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `Available`, `Pending`, `Installing`, `Ready`, `Degraded`, `Removing`, `Failed` or `Quarantined`
    pub state: String,
    /// One line.
    pub message: Option<String>,
    /// Number of its objects.
    pub objects: u32,
    /// When it was installed.
    pub installed: Option<String>,
    /// The object that keeps it from being ready.
    pub blocking: Option<BlockingView>,
    /// `built-in`, `signed:KEYID` or `dev`
    pub trust: Option<String>,
    /// Who asked for it: `spec`, the cluster file, or `command`.
    pub origin: Option<String>,
    /// A newer version, or a changed one, that the host's plugin path has.
    pub newer_version: Option<String>,
    /// Counts its configs and versions; 0 until one was applied.
    pub revision: u64,
    /// Objects with other people's changes that stay.
    pub drifted: Vec<String>,
}

/// What keeps a plugin from being ready.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockingView {
    /// `apps/v1 Deployment hello/hello`
    pub object: String,
    /// Why it is not ready.
    pub reason: String,
    /// A pod of it and what is wrong with that; `null` where none is known.
    pub pod: Option<String>,
    /// Since when.
    pub since: Option<String>,
}

impl BlockingView {
    /// What is told while a change runs; nothing for what takes the last one back.
    pub fn of(wire: Option<control::Blocking>) -> Option<Self> {
        wire.filter(|blocking| !blocking.object.is_empty()).map(Self::from)
    }

    /// In one line.
    pub fn line(&self) -> String {
        let pod = self.pod.as_deref().map(|pod| format!(" ({pod})")).unwrap_or_default();
        format!("{}: {}{pod}", self.object, self.reason)
    }
}

/// What a change of a plugin asks for and brings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfferView {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// The version before, of an upgrade or a rollback.
    pub from_version: Option<String>,
    /// `built-in`, `signed:KEYID` or `dev`
    pub trust: String,
    /// One line per permission.
    pub permissions: Vec<String>,
    /// Those that nobody has approved yet.
    pub new_permissions: Vec<String>,
    /// Digest of the permissions, which consent is tied to.
    pub permissions_digest: String,
    /// Objects that would be applied.
    pub objects: Vec<String>,
    /// What nodes would be told.
    pub node_requirements: Vec<String>,
    /// Remarks: how many objects change, which manifests are not in the store.
    pub remarks: Vec<String>,
    /// Digest of the plan, which a change refuses to deviate from.
    pub plan_digest: String,
}

/// What a change would do to one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectDiffView {
    /// `create`, `update`, `delete`, or `keep` for what would be left alone.
    pub action: &'static str,
    /// `apps/v1 Deployment hello/hello`
    pub object: String,
    /// Unified, with values of Secrets masked; `null` for one that is made or deleted.
    pub diff: Option<String>,
}

/// All that is known of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PluginDetailsView {
    /// How it is.
    pub status: PluginView,
    /// `plugin.toml` as it is.
    pub manifest: String,
    /// Digest of it, which holds all others.
    pub package_sha256: String,
    /// Where its package lies on the host.
    pub package_path: String,
    /// Its config; `null` where it is not installed.
    pub config: Value,
    /// The schema of that.
    pub config_schema: Value,
    /// One line per permission.
    pub permissions: Vec<String>,
    /// What it has in the cluster.
    pub objects: Vec<String>,
    /// What it tells plugins that need it, by name.
    pub outputs: Vec<OutputView>,
    /// What it was and could be again, newest first.
    pub revisions: Vec<RevisionView>,
}

/// Something that a plugin tells others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OutputView {
    /// `pool`
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A config and version that a plugin had.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RevisionView {
    /// Counts up.
    pub revision: u64,
    /// Version.
    pub version: String,
    /// When it was asked for.
    pub created: Option<String>,
    /// When it was in the cluster; `null` where it never was.
    pub applied: Option<String>,
    /// It is the one that is there now.
    pub current: bool,
}

/// One run of a plugin's program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunView {
    /// When it began.
    pub time: Option<String>,
    /// `plan`, `assess`, `migrate` or `describe`
    pub purpose: String,
    /// How long it took.
    pub took_seconds: Option<f64>,
    /// `ok`, or how it ended.
    pub outcome: String,
    /// What it wrote to standard error.
    pub stderr: Option<String>,
}

/// A manifest that a plugin fetches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VendoredView {
    /// From where.
    pub url: String,
    /// Its digest.
    pub sha256: String,
    /// It is in the host's store.
    pub present: bool,
    /// Why it is not.
    pub problem: Option<String>,
}

/// A package whose digests and signature were checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifiedView {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Digest of its `plugin.toml`.
    pub sha256: String,
    /// `built-in`, `signed:KEYID` or `dev`
    pub trust: String,
    /// `given`, `plugin-path`, `lock-file` or `store`: the host agent's own
    pub found: String,
    /// Its folder or archive; `null` where there is none of that name.
    pub path: Option<String>,
    /// What is wrong with it; `null` where nothing is.
    pub problem: Option<FailureView>,
}

impl From<control::PluginStatus> for PluginView {
    fn from(wire: control::PluginStatus) -> Self {
        Self {
            name: wire.name,
            version: wire.version,
            state: wire.state,
            message: text(wire.message),
            objects: wire.objects,
            installed: time(wire.installed),
            blocking: wire.blocking.map(Into::into),
            trust: text(wire.trust),
            origin: text(wire.origin),
            newer_version: text(wire.newer_version),
            revision: wire.revision,
            drifted: wire.drifted,
        }
    }
}

impl From<control::Blocking> for BlockingView {
    fn from(wire: control::Blocking) -> Self {
        Self { object: wire.object, reason: wire.reason, pod: text(wire.pod), since: time(wire.since) }
    }
}

impl From<control::PluginOffer> for OfferView {
    fn from(wire: control::PluginOffer) -> Self {
        Self {
            name: wire.name,
            version: wire.version,
            from_version: text(wire.from_version),
            trust: wire.trust,
            permissions: wire.permissions,
            new_permissions: wire.new_permissions,
            permissions_digest: wire.permissions_digest,
            objects: wire.objects,
            node_requirements: wire.node_requirements,
            remarks: wire.remarks,
            plan_digest: wire.plan_digest,
        }
    }
}

impl From<control::ObjectDiff> for ObjectDiffView {
    fn from(wire: control::ObjectDiff) -> Self {
        let action = match wire.action() {
            control::Action::Unspecified => "keep",
            other => action(other),
        };
        Self { action, object: wire.object, diff: text(wire.text) }
    }
}

impl From<control::ShowPluginResponse> for PluginDetailsView {
    fn from(wire: control::ShowPluginResponse) -> Self {
        let mut outputs: Vec<_> =
            wire.outputs.into_iter().map(|(name, value)| OutputView { name, value }).collect();
        outputs.sort();
        Self {
            status: wire.status.unwrap_or_default().into(),
            manifest: wire.manifest_toml,
            package_sha256: wire.package_sha256,
            package_path: wire.package_path,
            config: json(&wire.config_json),
            config_schema: json(&wire.config_schema_json),
            permissions: wire.permissions,
            objects: wire.objects,
            outputs,
            revisions: wire.revisions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<control::PluginRevision> for RevisionView {
    fn from(wire: control::PluginRevision) -> Self {
        Self {
            revision: wire.revision,
            version: wire.version,
            created: time(wire.created),
            applied: time(wire.applied),
            current: wire.current,
        }
    }
}

impl From<control::PluginRun> for RunView {
    fn from(wire: control::PluginRun) -> Self {
        Self {
            time: time(wire.time),
            purpose: wire.purpose,
            took_seconds: wire.took.map(|took| took.seconds as f64 + f64::from(took.nanos) / 1e9),
            outcome: wire.outcome,
            stderr: text(wire.stderr),
        }
    }
}

impl From<control::VendoredManifest> for VendoredView {
    fn from(wire: control::VendoredManifest) -> Self {
        Self { url: wire.url, sha256: wire.sha256, present: wire.present, problem: text(wire.problem) }
    }
}

impl From<control::VerifiedPlugin> for VerifiedView {
    fn from(wire: control::VerifiedPlugin) -> Self {
        Self {
            name: wire.name,
            version: wire.version,
            sha256: wire.sha256,
            trust: wire.trust,
            found: wire.found,
            path: text(wire.path),
            problem: wire.problem.map(Into::into),
        }
    }
}

/// What is no JSON, or nothing, is `null`.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}
