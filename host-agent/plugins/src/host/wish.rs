//! What is asked of the host, and what it answers: plain values.

use std::time::Duration;

use futures::future::{BoxFuture, Shared};
use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::PluginSpec;
use plugin_package::{LockFile, Requirement, Trust};
use plugin_plan::{Diagnostic, NodeRequirement};
use plugin_process::ClusterFacts;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::{DiffAction, Progress};
use crate::status::PluginStatus;

/// Something happened to a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginEvent {
    /// The user's name for the cluster; empty: of none.
    pub cluster_name: String,
    /// The plugin.
    pub plugin: String,
    /// What happened.
    pub kind: EventType,
    /// One line.
    pub message: String,
    /// Somebody should look at it.
    pub warning: bool,
}

/// A running cluster, as an operation needs it.
#[derive(Clone)]
pub struct ClusterAccess {
    /// Its id; the key of all that is kept.
    pub cluster_id: String,
    /// The user's name for it, for events.
    pub cluster_name: String,
    /// A client with the rights of an administrator.
    pub client: kube::Client,
    /// What plugins are told.
    pub facts: ClusterFacts,
}

/// What a person wants done to a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What.
    pub change: WishKind,
    /// Name in the plugin path; to add one also the absolute path of a folder or archive.
    pub plugin: String,
    /// Config as JSON. To add: `None` means `{}`. To configure: the whole config. To upgrade: `None` means as it is.
    pub config_json: Option<String>,
    /// Also a package that nobody signed.
    pub dev: bool,
    /// Start it although it is in quarantine.
    pub lift_quarantine: bool,
    /// Take over objects of these names that others made.
    pub adopt: bool,
    /// To upgrade: absolute path of a folder or archive; `None`: the one in the plugin path.
    pub to: Option<String>,
}

/// The kinds of wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WishKind {
    /// It shall be there. One that is there already gets this package and this config.
    Add,
    /// Another config.
    Configure,
    /// Another package.
    Upgrade,
    /// The revision of before.
    RollBack,
}

/// What a person agreed to with a wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Digest of the permissions that were approved; empty: none are new.
    pub approved_digest: String,
    /// Digest of the plan that was seen; empty: whatever it is.
    pub plan_digest: String,
    /// Many objects may be deleted at once.
    pub prune_many: bool,
    /// Longest time until all is ready; `None`: that of [`crate::Limits`].
    pub deadline: Option<Duration>,
    /// Who.
    pub by_uid: u32,
}

/// How a plugin is taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Also volumes and their claims, definitions of which others have objects, its namespaces with all that others have in
    /// them, and secrets.
    pub purge: bool,
    /// Longest time until all is gone; `None`: that of [`crate::Limits`].
    pub deadline: Option<Duration>,
    /// The operation that wants it, since the cluster file has it no more; `None`: a command.
    pub attempt: Option<String>,
}

/// An operation that goes on by itself.
#[derive(Clone)]
pub struct Follow {
    /// What it says.
    pub progress: Progress,
    /// Resolves when it has ended.
    pub ended: Shared<BoxFuture<'static, Ended>>,
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").field("ended", &self.ended.peek()).finish_non_exhaustive()
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// The plugin is as it was wished.
    Status(PluginStatus),
    /// It is gone.
    Gone {
        /// Objects that stay, with why.
        kept: Vec<String>,
    },
    /// Badly.
    Failed(Failure),
}

/// A wish that is not carried out; nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WishError {
    /// The config has mistakes.
    #[error("the config of the plugin has {} mistake(s)", .0.len())]
    Config(Vec<Diagnostic>),
    /// Something else.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl WishError {
    /// Mistakes in the config as one failure, for whoever has no config to show them in.
    pub(crate) fn into_failure(self, plugin: &str) -> Failure {
        match self {
            Self::Failure(failure) => failure,
            Self::Config(mistakes) => {
                if let Some(secret) = mistakes.iter().find(|mistake| mistake.code == "PLUGIN-SECRET") {
                    let (reason, next) = (secret.message.clone(), secret.hint.clone());
                    return Failure::new("PLUGIN-SECRET", format!("plugin {plugin}"), reason, next);
                }
                let lines: Vec<_> = mistakes.iter().map(line).collect();
                let reason = format!("its config has {} mistake(s): {}", lines.len(), lines.join("; "));
                let next = "correct them, then run the same command again";
                Failure::new("PLUGIN-CONFIG", format!("plugin {plugin}"), reason, next)
                    .with_evidence(lines.join("\n"))
            }
        }
    }
}

fn line(mistake: &Diagnostic) -> String {
    let place = if mistake.path.is_empty() { String::new() } else { format!("{}: ", mistake.path) };
    format!("{place}{}", mistake.message)
}

/// What a wish would do.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// The version that it would have.
    pub version: String,
    /// The version that it has; `None`: it is not installed.
    pub from_version: Option<String>,
    /// Whose package it is.
    pub trust: Trust,
    /// One line per permission.
    pub permissions: Vec<String>,
    /// Those that nobody approved yet.
    pub new_permissions: Vec<String>,
    /// Given back as [`Given::approved_digest`].
    pub permissions_digest: String,
    /// Objects that would be applied, in order.
    pub objects: Vec<String>,
    /// What nodes would be told.
    pub node: Vec<String>,
    /// What is worth knowing beside.
    pub remarks: Vec<String>,
    /// Given back as [`Given::plan_digest`].
    pub plan_digest: String,
    /// Remarks of the plugin on the config, which stop nothing.
    pub warnings: Vec<Diagnostic>,
    /// What would change in each object, where that was asked for.
    pub diffs: Vec<ObjectDiffView>,
}

/// What would change in one object.
#[derive(Clone, Debug)]
pub struct ObjectDiffView {
    /// What would be done.
    pub action: DiffAction,
    /// `apps/v1 Deployment hello/hello`
    pub object: String,
    /// Unified, values of Secrets masked; empty for one that is made or deleted.
    pub text: String,
}

/// The plugins of a cluster file.
#[derive(Clone, Copy)]
pub struct SpecAsk<'a> {
    /// `None`: the cluster is not there yet.
    pub cluster_id: Option<&'a str>,
    /// As they would be.
    pub facts: &'a ClusterFacts,
    /// In the order of the file.
    pub wanted: &'a [PluginSpec],
    /// `k8sctl.lock`.
    pub lock: &'a LockFile,
    /// Refuse what is not in it.
    pub locked: bool,
    /// What was agreed to with the spec that the cluster has. It is approved, also where a plugin of it has not begun.
    pub agreed: &'a [PinnedPlugin],
}

/// What the plugins of a cluster file would change.
#[derive(Clone, Debug, Default)]
pub struct SpecProposal {
    /// Nothing is changed in those that are not among them.
    pub changes: Vec<ProposedChange>,
    /// Mistakes and remarks, each with its plugin.
    pub diagnostics: Vec<(String, Diagnostic)>,
    /// What stands in the way of a plugin and is no mistake of its config.
    pub failures: Vec<(String, Failure)>,
    /// What is agreed to with the spec.
    pub pinned: Vec<PinnedPlugin>,
    /// What `k8sctl.lock` shall hold.
    pub lock: LockFile,
    /// What is worth knowing beside.
    pub notices: Vec<String>,
}

/// What would be done to one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedChange {
    /// What.
    pub action: ProposedAction,
    /// Which one.
    pub plugin: String,
    /// `0.1.0 (in tree), 31 objects and 1 manifest`
    pub reason: String,
    /// It deletes objects.
    pub destructive: bool,
    /// Permissions that nobody approved yet.
    pub permissions: Vec<String>,
    /// Digest of all its permissions.
    pub permissions_digest: String,
}

/// The kinds of proposed changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposedAction {
    /// It is not there.
    Create,
    /// Something about it is another.
    Update,
    /// The file has it no more.
    Delete,
}

/// A plugin as it was agreed to with the spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinnedPlugin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of its package.
    pub package_sha256: String,
    /// Its permissions.
    pub approved: Vec<String>,
    /// Capabilities that it brings.
    pub provides: Vec<String>,
    /// What it needs.
    pub requires: Vec<Requirement>,
    /// What it needs of nodes.
    pub node: Vec<NodeRequirement>,
}

/// A plugin that a cluster shall have.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedPlugin {
    /// What was agreed to.
    pub pinned: PinnedPlugin,
    /// Its config, as in the file.
    pub config: Value,
}

/// How far a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nodes are not ready yet: only plugins that make the pod network.
    Network,
    /// All of them.
    Everything,
}

/// How far the nodes of a cluster are with making way for the pod network of a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// The plugin for which they were told to; empty: for none.
    pub plugin: String,
    /// Those that have not, each by its name and with why.
    pub waiting: Vec<(String, String)>,
}

/// How far the plugins of a cluster are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Converged {
    /// Those that are not as they shall be, with why.
    pub waiting: Vec<(String, String)>,
    /// The first whose try failed.
    pub failed: Option<(String, Failure)>,
}

impl Converged {
    /// All are as they shall be.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.failed.is_none()
    }
}

/// What a plugin needs of nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeNeed {
    /// The plugin.
    pub plugin: String,
    /// What.
    pub requirement: NodeRequirement,
    /// Everything of the plugin was ready once.
    pub was_ready: bool,
}
