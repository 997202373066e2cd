//! Packages: those in the plugin path, those that are given by path, and those in the store, where every package lies that
//! was ever begun to be applied, under its digest. Called by [`crate::host`]; starts nothing, and all of it blocks.
//!
//! - [`source`]: a name, a folder or an archive becomes a package
//! - [`store`]: packages by digest
//! - [`tree`]: digests of the packages that were built with this host agent

use std::path::PathBuf;
use std::sync::Arc;

use k8sctl_types::failure::Failure;
use plugin_package::{KeyRing, TrustPolicy};

mod source;
mod store;
#[cfg(test)]
mod tests;
mod tree;

/// See the module. Clones share what they go by.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    path: Vec<PathBuf>,
    store: PathBuf,
    policy: TrustPolicy,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { path, store, .. } = &*self.inner;
        f.debug_struct("Library").field("path", path).field("store", store).finish_non_exhaustive()
    }
}

impl Library {
    /// Packages from the folders of `path`, one folder each, and by digest in `store`, which is made when the first one
    /// comes.
    pub fn new(path: Vec<PathBuf>, store: PathBuf, policy: TrustPolicy) -> Self {
        Self { inner: Arc::new(Inner { path, store, policy }) }
    }

    /// Digests of the tree's own plugins, from the build, beside these keys.
    pub fn tree_policy(keys: KeyRing) -> TrustPolicy {
        TrustPolicy { built_in: tree::digests(), keys }
    }
}

fn failure(id: &str, plugin: &str, reason: impl Into<String>, next: impl Into<String>) -> Failure {
    Failure::new(id, format!("plugin {plugin}"), reason, next)
}
