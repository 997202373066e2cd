//! What is shown of a plugin: plain values, made by [`crate::PluginHost`], one for each message of the control service.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use k8sctl_types::failure::Failure;

use crate::engine::Blocking;

/// A plugin on one cluster, or one that could be installed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginStatus {
    /// Its name.
    pub name: String,
    /// The installed version, or the one that is available.
    pub version: String,
    /// Where it stands.
    pub state: PluginState,
    /// Why, one line; may be empty.
    pub message: String,
    /// Objects in the inventory.
    pub objects: u32,
    /// When it first became ready; `None`: not yet.
    pub installed: Option<SystemTime>,
    /// The object that keeps it from being ready.
    pub blocking: Option<Blocking>,
    /// `built-in`, `signed:KEYID`, `dev`; empty: its package is not at hand.
    pub trust: String,
    /// `spec`, `command`; empty: it is not installed.
    pub origin: String,
    /// Another version in the plugin path, newer than the installed one, or `0.1.0 (changed)`; empty: none.
    pub newer_version: String,
    /// The revision that is applied; 0: none.
    pub revision: u64,
    /// Objects with other people's changes that stay.
    pub drifted: Vec<String>,
}

/// Where a plugin stands on one cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PluginState {
    /// In the plugin path, not installed.
    #[default]
    Available,
    /// Wanted; waits for others, or for the API to answer.
    Pending,
    /// Being installed, upgraded, configured or rolled back.
    Installing,
    /// Installed, and everything is ready.
    Ready,
    /// Installed, and not everything is ready any more.
    Degraded,
    /// Being removed.
    Removing,
    /// The last operation failed; the same command tries again.
    Failed,
    /// Its program is not started any more.
    Quarantined,
}

impl PluginState {
    /// The word that the store and the wire use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Pending => "Pending",
            Self::Installing => "Installing",
            Self::Ready => "Ready",
            Self::Degraded => "Degraded",
            Self::Removing => "Removing",
            Self::Failed => "Failed",
            Self::Quarantined => "Quarantined",
        }
    }

    pub(crate) fn from_stored(word: &str) -> Self {
        match word {
            "Installing" => Self::Installing,
            "Ready" => Self::Ready,
            "Degraded" => Self::Degraded,
            "Removing" => Self::Removing,
            _ => Self::Failed,
        }
    }
}

impl fmt::Display for PluginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// All that is known of one plugin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginDetails {
    /// Where it stands.
    pub status: PluginStatus,
    /// `plugin.toml` as it is.
    pub manifest_toml: String,
    /// JSON Schema of its config.
    pub config_schema_json: String,
    /// Its config as JSON; empty: it is not installed.
    pub config_json: String,
    /// One line per permission.
    pub permissions: Vec<String>,
    /// Its objects, `apps/v1 Deployment hello/hello`.
    pub objects: Vec<String>,
    /// What dependents are told.
    pub outputs: BTreeMap<String, String>,
    /// Revisions, the newest first.
    pub revisions: Vec<PluginRevision>,
    /// SHA-256 of `plugin.toml`.
    pub package_sha256: String,
    /// Folder of the package.
    pub package_path: String,
}

/// What was once applied, or was to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRevision {
    /// Counts up.
    pub revision: u64,
    /// Version of the package.
    pub version: String,
    /// When it was planned.
    pub created: SystemTime,
    /// When all of it was ready; `None`: never.
    pub applied: Option<SystemTime>,
    /// It is what is applied.
    pub current: bool,
}

/// A process of a plugin that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRun {
    /// When it began.
    pub time: SystemTime,
    /// `plan`, `assess`, `migrate`, `describe`.
    pub purpose: String,
    /// How long it lived.
    pub took: Duration,
    /// `ok`, or what went wrong.
    pub outcome: String,
    /// What it wrote.
    pub stderr: String,
}

/// How a package was come upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// Whoever asked named its path.
    #[default]
    Given,
    /// By its name, in the plugin path.
    PluginPath,
    /// A lock file names it.
    LockFile,
    /// In the host agent's own store, where what is installed lies.
    Store,
}

impl Found {
    /// As the control service says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::PluginPath => "plugin-path",
            Self::LockFile => "lock-file",
            Self::Store => "store",
        }
    }
}

/// A package whose digests were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Its name.
    pub name: String,
    /// Its version; empty: it cannot be read.
    pub version: String,
    /// SHA-256 of `plugin.toml`.
    pub sha256: String,
    /// `built-in`, `signed:KEYID`, `dev`.
    pub trust: String,
    /// How it was come upon.
    pub found: Found,
    /// Its folder or archive; empty: there is none of that name.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Option<Failure>,
}

/// A manifest that a plugin needs of elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vendored {
    /// Where it comes from.
    pub url: String,
    /// Its digest.
    pub sha256: String,
    /// It is in the store.
    pub present: bool,
    /// Why not; empty: it is there.
    pub problem: String,
}
