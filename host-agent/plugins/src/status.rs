//! What `k8sctl plugin list` shows of a plugin. Plain values; made by [`crate::PluginHost`].

use std::fmt;
use std::time::SystemTime;

/// A plugin on one cluster, or one that could be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// Where a plugin stands on one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginState {
    /// In the plugin path, not installed.
    Available,
    /// Being installed.
    Installing,
    /// Installed; everything was ready.
    Ready,
    /// Being removed.
    Removing,
    /// The last operation failed or was interrupted; the same command resumes it.
    Failed,
}

impl PluginState {
    /// The word that the store and the wire use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Installing => "Installing",
            Self::Ready => "Ready",
            Self::Removing => "Removing",
            Self::Failed => "Failed",
        }
    }

    pub(crate) fn from_stored(word: &str) -> Self {
        match word {
            "Installing" => Self::Installing,
            "Ready" => Self::Ready,
            "Removing" => Self::Removing,
            _ => Self::Failed,
        }
    }
}

impl fmt::Display for PluginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
