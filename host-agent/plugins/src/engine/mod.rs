//! Brings a checked plan onto a cluster and takes it away again. Called by [`crate::host`], one [`Engine`] per
//! operation; never sees a plugin's process.
//!
//! - [`apply`]: server-side apply without force, nothing written where nothing would change
//! - [`ready`]: pure: is this object ready, by the rule of its kind
//! - [`wait`]: waits for that, or for absence, with a deadline that names the blocking object and its reason
//! - [`remove`] and [`foreign`]: deletes by UID, keeps namespaces that hold what is not ours
//! - [`api`]: kinds, the API's errors as failures
//!
//! It is level-triggered: whatever was done by an operation that was interrupted, the same operation again ends in
//! the same state.

mod api;
mod apply;
mod explain;
mod foreign;
mod ready;
mod remove;
mod wait;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use host_store::StoreError;
use k8sctl_types::failure::Failure;
use kube::core::discovery::{ApiCapabilities, ApiResource};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::inventory::Inventory;

pub(crate) use ready::has_readiness;

/// Put on every object; holds a digest of cluster and plugin.
const OWNER_ANNOTATION: &str = "k8sctl.dev/owner";
const PLUGIN_LABEL: &str = "k8sctl.dev/plugin";
const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// How long the engine waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For all objects to become ready.
    pub ready: Duration,
    /// For a deleted object to be gone.
    pub gone: Duration,
    /// For a kind that the plan itself brings to be served.
    pub kind: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ready: Duration::from_secs(600),
            gone: Duration::from_secs(600),
            kind: Duration::from_secs(60),
        }
    }
}

/// One operation on one cluster.
pub(crate) struct Engine {
    client: kube::Client,
    plugin: String,
    owner: String,
    manager: String,
    inventory: Inventory,
    limits: Limits,
    progress: mpsc::Sender<String>,
    kinds: Mutex<HashMap<(String, String), (ApiResource, ApiCapabilities)>>,
}

impl Engine {
    pub(crate) fn new(
        client: kube::Client,
        cluster_id: &str,
        plugin: &str,
        inventory: Inventory,
        limits: Limits,
        progress: mpsc::Sender<String>,
    ) -> Self {
        Self {
            client,
            plugin: plugin.to_owned(),
            owner: hex::encode(Sha256::digest(format!("{cluster_id}/{plugin}"))),
            manager: format!("k8sctl/{plugin}"),
            inventory,
            limits,
            progress,
            kinds: Mutex::default(),
        }
    }

    /// Tells whoever listens; a slow listener misses lines and holds up nothing.
    fn say(&self, line: impl Into<String>) {
        let _ = self.progress.try_send(line.into());
    }

    fn failure(&self, id: &str, reason: impl Into<String>, next_step: impl Into<String>) -> Failure {
        Failure::new(id, format!("plugin {}", self.plugin), reason, next_step)
    }
}

/// The database could not keep the inventory.
pub(crate) fn store_failure(plugin: &str, error: &StoreError) -> Failure {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::new(
        "PLUGIN-STORE",
        format!("plugin {plugin}"),
        format!("{error}{cause}"),
        "see that the host agent's state directory has space and is writable, then run the same command again",
    )
}
