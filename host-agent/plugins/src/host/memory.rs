//! What the host knows only while it runs: what was seen of plugins last, whose turn it is to write to a plugin's objects,
//! which packages are about to be used, manifests that were read already, and how far nodes are with another pod network.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use k8sctl_types::failure::Failure;
use plugin_package::Manifest;
use tokio::sync::{Mutex as Turn, Notify, watch};

use super::wish::Handover;
use crate::engine::Blocking;
use crate::records::Place;

/// What was last seen of a plugin.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// What keeps it from being ready.
    pub(super) blocking: Option<Blocking>,
    /// Objects with other people's changes that stay.
    pub(super) drifted: Vec<String>,
    /// Objects that are given up to somebody else.
    pub(super) fights: BTreeSet<String>,
    /// For what it waits before anything is begun.
    pub(super) pending: Option<String>,
    /// A try that failed before anything was begun, and what asked for it.
    pub(super) failed: Option<(String, Failure)>,
    /// Looks in a row at which not everything was ready.
    pub(super) bad_looks: u32,
    /// Versions of all objects when the plugin judged them last, when that was, and what it said if it was not content.
    pub(super) judged: Option<(String, Instant, Option<String>)>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Memory {
    seen: Mutex<HashMap<Place, Seen>>,
    turns: Mutex<HashMap<Place, Arc<Turn<()>>>>,
    kicks: Mutex<HashMap<String, Arc<Notify>>>,
    held: Mutex<HashMap<String, usize>>,
    manifests: Mutex<HashMap<String, Arc<Manifest>>>,
    handovers: Mutex<HashMap<String, watch::Sender<Option<Handover>>>>,
}

impl Memory {
    /// What was last seen of a plugin; of one that nobody looked at, nothing.
    pub(super) fn seen(&self, place: &Place) -> Seen {
        lock(&self.seen).get(place).cloned().unwrap_or_default()
    }

    /// All plugins of a cluster of which something was seen.
    pub(super) fn seen_of(&self, cluster_id: &str) -> HashMap<String, Seen> {
        let seen = lock(&self.seen);
        let of = seen.iter().filter(|(place, _)| place.cluster_id == cluster_id);
        of.map(|(place, seen)| (place.plugin.clone(), seen.clone())).collect()
    }

    pub(super) fn note(&self, place: &Place, note: impl FnOnce(&mut Seen)) {
        note(lock(&self.seen).entry(place.clone()).or_default());
    }

    pub(super) fn forget(&self, place: &Place) {
        lock(&self.seen).remove(place);
    }

    pub(super) fn forget_cluster(&self, cluster_id: &str) {
        lock(&self.seen).retain(|place, _| place.cluster_id != cluster_id);
        lock(&self.turns).retain(|place, _| place.cluster_id != cluster_id);
        lock(&self.kicks).remove(cluster_id);
        lock(&self.handovers).remove(cluster_id);
    }

    /// Held by whoever writes to the objects of a plugin: an operation, or the keeper.
    pub(super) fn turn(&self, place: &Place) -> Arc<Turn<()>> {
        Arc::clone(lock(&self.turns).entry(place.clone()).or_default())
    }

    /// What wakes the keeper of a cluster.
    pub(super) fn kick(&self, cluster_id: &str) -> Arc<Notify> {
        Arc::clone(lock(&self.kicks).entry(cluster_id.to_owned()).or_default())
    }

    /// How far the nodes of a cluster are with another pod network; `None`: nobody has looked yet.
    pub(super) fn handover(&self, cluster_id: &str) -> watch::Sender<Option<Handover>> {
        lock(&self.handovers).entry(cluster_id.to_owned()).or_default().clone()
    }

    /// A package that is about to be used stays in the store until this is dropped.
    pub(super) fn hold<'a>(&'a self, package_sha256: &str) -> Hold<'a> {
        *lock(&self.held).entry(package_sha256.to_owned()).or_default() += 1;
        Hold { memory: self, package_sha256: package_sha256.to_owned() }
    }

    /// The same, for as long as the host agent runs: a spec names it, and nothing else does yet.
    pub(super) fn pin(&self, package_sha256: &str) {
        *lock(&self.held).entry(package_sha256.to_owned()).or_default() += 1;
    }

    pub(super) fn is_held(&self, package_sha256: &str) -> bool {
        lock(&self.held).get(package_sha256).is_some_and(|count| *count > 0)
    }

    /// A manifest of the store by its package's digest: what has a digest does not change.
    pub(super) fn manifest(&self, package_sha256: &str) -> Option<Arc<Manifest>> {
        lock(&self.manifests).get(package_sha256).cloned()
    }

    pub(super) fn keep_manifest(&self, package_sha256: &str, manifest: Manifest) -> Arc<Manifest> {
        let manifest = Arc::new(manifest);
        lock(&self.manifests).insert(package_sha256.to_owned(), Arc::clone(&manifest));
        manifest
    }
}

/// See [`Memory::hold`].
pub(super) struct Hold<'a> {
    memory: &'a Memory,
    package_sha256: String,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut held = lock(&self.memory.held);
        if let Some(count) = held.get_mut(&self.package_sha256) {
            *count = count.saturating_sub(1);
        }
        held.retain(|_, count| *count > 0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
