//! Brings a checked plan onto a cluster, keeps it so, and takes it away again. Called by the host, one [`Engine`] per
//! operation or look; never sees a plugin's process. Whether a plan may be applied at all was decided before, in
//! `plugin-plan`; here it is only carried out.
//!
//! - `apply`: the whole of it in order: observe, preflight, and, once that is accepted, stages, readiness, prune
//! - `observe`, `preflight`: what is there and whose, and what the server would say to each object; they write nothing
//! - `write`, `secrets`: one object, with the values that nobody else sees
//! - `gate`: kinds are served and webhooks answer before what needs them
//! - `wait`, `explain`: readiness and absence, with a deadline that names the blocking object and its reason
//! - `look`, `correct`: what others changed since, and undoing it; `diff`: what an apply would change
//! - `prune`, `remove`, `foreign`: deletes by UID, keeps what holds others' things or data
//! - `absent`: what is not there, and what is only not served yet
//! - `loss`: what a server may leave out of an object without loss
//! - `kinds`, `request`, `retry`, `failures`: the API: which kinds, one request, which are made again, what failed
//! - `progress`, `tell`: what others are told
//!
//! It is level-triggered: whatever was done by an operation that was interrupted, the same operation again ends in
//! the same state.

mod absent;
mod apply;
mod correct;
mod diff;
mod explain;
mod failures;
mod foreign;
mod gate;
mod kinds;
mod look;
mod loss;
mod meta;
mod observe;
mod preflight;
mod progress;
mod prune;
mod remove;
mod request;
mod retry;
mod secrets;
#[cfg(test)]
mod stub;
mod tell;
mod wait;
mod write;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8sctl_types::failure::Failure;
use plugin_plan::SecretRef;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::inventory::{Entry, Inventory, store_failure};
use kinds::Kinds;

pub use apply::{Accepted, Applied, Consent};
pub use correct::Corrected;
pub use diff::{DiffAction, ObjectDiff};
pub use look::{Look, Seen};
pub use progress::{Blocking, Progress};
pub use remove::Removed;

/// Put on every object; holds a digest of cluster and plugin.
const OWNER_ANNOTATION: &str = "k8sctl.dev/owner";
const PLUGIN_LABEL: &str = "k8sctl.dev/plugin";
const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Requests that only read, at the same time.
const READS: usize = 8;

/// Called at each place where a crash must leave something that can be gone on with; in production it does nothing.
pub type Points = fn(&'static str);

/// The names that [`Points`] is called with by the engine.
pub const POINTS: [&str; 8] = [
    "before-first-write",
    "before-bind",
    "after-write",
    "after-stage",
    "before-prune",
    "after-delete",
    "before-saw",
    "after-replaced",
];

/// How long the engine waits, and how much it does at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For all objects to become ready.
    pub ready: Duration,
    /// For all deleted objects of an operation, and the pods that they had, to be gone.
    pub gone: Duration,
    /// For a kind that the plan itself brings to be served.
    pub kind: Duration,
    /// For an API server that does not answer, or says that it cannot now.
    pub api: Duration,
    /// For a webhook that must be asked.
    pub webhook: Duration,
    /// For all that is ready to be ready still.
    pub stable: Duration,
    /// Writes at the same time.
    pub parallel: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ready: Duration::from_secs(600),
            // A namespace is looked at again up to a minute after its last pod has gone.
            gone: Duration::from_secs(600),
            kind: Duration::from_secs(60),
            api: Duration::from_secs(180),
            webhook: Duration::from_secs(120),
            stable: Duration::from_secs(5),
            parallel: 4,
        }
    }
}

/// Where the values of secrets come from. They go to the Kubernetes API and nowhere else.
pub trait Secrets: Send + Sync {
    /// The value; the error is PLUGIN-SECRET.
    fn value(&self, secret: &SecretRef) -> Result<zeroize::Zeroizing<Vec<u8>>, Failure>;
}

/// What an [`Engine`] is made of.
pub struct EngineSetup {
    /// With the rights of an administrator.
    pub client: kube::Client,
    /// The cluster's id, the inventory's key.
    pub cluster_id: String,
    /// Whose objects these are.
    pub plugin: String,
    /// Version of the API server, `v1.20.2`, for refusals.
    pub kubernetes: String,
    /// Rows of this plugin on this cluster.
    pub inventory: Inventory,
    /// How long it waits.
    pub limits: Limits,
    /// Who is told.
    pub progress: Progress,
    /// Where tests kill it.
    pub points: Points,
    /// Values of secrets.
    pub secrets: Arc<dyn Secrets>,
}

/// One plugin on one cluster.
pub struct Engine {
    client: kube::Client,
    plugin: String,
    kubernetes: String,
    owner: String,
    manager: String,
    inventory: Inventory,
    limits: Limits,
    progress: Progress,
    points: Points,
    secrets: Arc<dyn Secrets>,
    kinds: Kinds,
    /// Namespaces that this operation made: not every part of the API server knows them at once.
    made: Mutex<HashSet<String>>,
    /// When what is deleted has to be gone; set with the first wait for that.
    gone_by: OnceLock<Instant>,
}

impl Engine {
    /// An engine; asks nobody for anything yet.
    pub fn new(setup: EngineSetup) -> Self {
        let EngineSetup { cluster_id, plugin, .. } = &setup;
        Self {
            owner: hex::encode(Sha256::digest(format!("{cluster_id}/{plugin}"))),
            manager: format!("k8sctl/{plugin}"),
            client: setup.client,
            plugin: setup.plugin,
            kubernetes: setup.kubernetes,
            inventory: setup.inventory,
            limits: setup.limits,
            progress: setup.progress,
            points: setup.points,
            secrets: setup.secrets,
            kinds: Kinds::default(),
            made: Mutex::default(),
            gone_by: OnceLock::new(),
        }
    }

    fn say(&self, line: impl Into<String>) {
        self.progress.say(line);
    }

    fn failure(&self, id: &str, reason: impl Into<String>, next_step: impl Into<String>) -> Failure {
        Failure::new(id, format!("plugin {}", self.plugin), reason, next_step)
    }

    fn store_failure(&self, error: &host_store::StoreError) -> Failure {
        store_failure(&self.plugin, error)
    }

    async fn entries(&self) -> Result<Vec<Entry>, Failure> {
        self.inventory.entries().await.map_err(|error| self.store_failure(&error))
    }

    fn is_new_namespace(&self, namespace: &str) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace)
    }
}

/// The answers of all in their order, at most so many at a time.
async fn together<F: Future>(width: usize, asked: Vec<F>) -> Vec<F::Output> {
    futures::stream::iter(asked).buffered(width.max(1)).collect().await
}

/// The same of what may be given up: the first failure ends it, so that a server which is away is waited for once and not
/// for each object.
async fn all_of<T, E, F>(width: usize, asked: Vec<F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    futures::stream::iter(asked).buffered(width.max(1)).try_collect().await
}
