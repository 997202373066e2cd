//! Manifests of upstream projects: fetched by https from declared places, checked by digest, kept by it. Called by the
//! host before a plan is checked, and by `plugin vendor`; what a manifest may hold is decided in `plugin-plan`.
//!
//! - `fetch`: one request after the other, at most so many redirects, bytes and seconds
//! - `cache`: the files, named by their digests, which is what makes an installation work without a network
//! - `place`: pure: may this URL be asked at all

mod cache;
mod fetch;
mod place;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8sctl_types::failure::Failure;
use plugin_plan::{RemoteManifest, limits};

use cache::Cache;
use fetch::{Fetcher, Wanted};

/// What [`Manifests`] are made of.
#[derive(Clone, Debug)]
pub struct FetchSetup {
    /// Where they are kept.
    pub folder: PathBuf,
    /// Certificate authorities beside the system's, DER; for tests.
    pub roots: Vec<Vec<u8>>,
    /// Longest that one may take.
    pub deadline: Duration,
    /// Longest that a server may say nothing.
    pub idle: Duration,
}

impl FetchSetup {
    /// Kept in this folder, with the limits that the host agent has.
    pub fn new(folder: PathBuf) -> Self {
        let (deadline, idle) = (Duration::from_secs(120), Duration::from_secs(15));
        Self { folder, roots: Vec::new(), deadline, idle }
    }
}

/// Manifests by their digests. Clones share the folder, and fetch one at a time each.
#[derive(Clone)]
pub struct Manifests {
    cache: Cache,
    fetcher: Fetcher,
    /// By digest, who fetches it.
    busy: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Manifests {
    /// Fetches nothing yet. The proxies are those of the environment.
    pub fn new(setup: FetchSetup) -> Result<Self, Failure> {
        let fetcher = Fetcher::new(&setup)?;
        Ok(Self { cache: Cache::new(setup.folder), fetcher, busy: Arc::default() })
    }

    /// From the store, by digest, checked again.
    pub async fn stored(&self, sha256: &str) -> Option<Vec<u8>> {
        self.cache.read(sha256).await
    }

    /// From the store, else fetched: https, without user or fragment, each redirect below a prefix, at most `max_bytes`,
    /// the digest right; and kept under it. `may_fetch` tells whether a URL is below a declared prefix.
    pub async fn get(
        &self,
        plugin: &str,
        remote: &RemoteManifest,
        may_fetch: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Vec<u8>, Failure> {
        let slot = self.slot(&remote.sha256);
        let _alone = slot.lock().await;
        if let Some(body) = self.cache.read(&remote.sha256).await {
            return Ok(body);
        }
        let most = if remote.max_bytes == 0 { limits::REMOTE_DEFAULT_BYTES } else { remote.max_bytes };
        let wanted = Wanted {
            url: &remote.url,
            sha256: &remote.sha256,
            most: most.min(limits::REMOTE_BYTES),
            may_fetch,
        };
        let object = || format!("plugin {plugin}");
        let body = self.fetcher.fetch(&wanted).await.map_err(|error| error.failure(object()))?;
        match self.cache.keep(&remote.sha256, body).await {
            Ok(body) => Ok(body),
            Err(error) => {
                let folder = self.cache.folder().display();
                let reason = format!("{} was fetched and cannot be kept in {folder}: {error}", remote.url);
                let next = "see that the host agent's state directory has space and is writable, then run the same \
                            command again";
                Err(Failure::new("PLUGIN-STORE", object(), reason, next))
            }
        }
    }

    /// Takes every file of a directory whose digest is wanted; gives those that were found.
    pub async fn take_from(&self, folder: &Path, wanted: &[String]) -> Result<Vec<String>, Failure> {
        self.cache.take_from(folder, wanted).await.map_err(|error| {
            let object = format!("directory {}", folder.display());
            let next = "it must be a directory that the host agent can read, on its own machine";
            Failure::new("PLUGIN-REMOTE", object, format!("its files cannot be taken: {error}"), next)
        })
    }

    fn slot(&self, sha256: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds any more are of no use to anybody.
        busy.retain(|_, slot| Arc::strong_count(slot) > 1);
        busy.entry(sha256.to_owned()).or_default().clone()
    }
}
