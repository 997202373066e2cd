//! Manifests of elsewhere, into the store: from upstream, or from a directory that somebody carried here.

use std::path::Path;
use std::sync::Arc;

use k8sctl_rpc::task;
use k8sctl_types::failure::Failure;
use plugin_package::{Manifest, PinnedManifest};
use plugin_plan::{Handling, RemoteManifest};

use super::PluginHost;
use super::wish::ClusterAccess;
use crate::engine::Progress;
use crate::status::Vendored;

impl PluginHost {
    /// Gets the manifests that plugins pin: those of one, or of all that are in the plugin path or installed. What cannot be
    /// got is told beside the others.
    pub async fn vendor(
        &self,
        access: Option<&ClusterAccess>,
        plugin: Option<&str>,
        from: Option<&Path>,
        progress: &Progress,
    ) -> Result<Vec<Vendored>, Failure> {
        let wanted = self.pinned_manifests(access, plugin).await?;
        if let Some(folder) = from {
            let digests: Vec<_> = wanted.iter().map(|(_, pinned)| pinned.sha256.clone()).collect();
            let found = self.inner.manifests.take_from(folder, &digests).await?;
            progress.say(format!("{} of {} are in {}", found.len(), digests.len(), folder.display()));
        }
        let mut vendored = Vec::new();
        for (manifest, pinned) in wanted {
            let PinnedManifest { url, sha256, bytes } = pinned;
            let is_stored = self.inner.manifests.stored(&sha256).await.is_some();
            let problem = if is_stored {
                String::new()
            } else if let Some(folder) = from {
                format!("no file in {} has this digest", folder.display())
            } else {
                progress.say(format!("getting {url}"));
                let remote = whole(&url, &sha256, bytes);
                let may_fetch = |url: &str| manifest.may_fetch(url);
                let got = self.inner.manifests.get(&manifest.name, &remote, &may_fetch).await;
                got.err().map(|failure| failure.to_string()).unwrap_or_default()
            };
            vendored.push(Vendored { url, sha256, present: problem.is_empty(), problem });
        }
        Ok(vendored)
    }

    /// Every manifest once, with the plugin that pins it.
    async fn pinned_manifests(
        &self,
        access: Option<&ClusterAccess>,
        plugin: Option<&str>,
    ) -> Result<Vec<(Arc<Manifest>, PinnedManifest)>, Failure> {
        let (mut plugins, mut unknown) = (Vec::new(), None);
        match plugin {
            // Perhaps it is installed, and not in the plugin path any more.
            Some(plugin) => match self.find(plugin, true).await {
                Ok(package) => plugins.push(Arc::new(package.manifest)),
                Err(failure) => unknown = Some(failure),
            },
            None => {
                let library = self.inner.library.clone();
                let (found, _) = task::blocking(move || library.scan()).await;
                plugins.extend(found.into_iter().map(|package| Arc::new(package.manifest)));
            }
        }
        if let Some(access) = access {
            for install in self.installs(&access.cluster_id).await? {
                if plugin.is_none_or(|plugin| plugin == install.plugin) {
                    plugins.extend(self.manifest_of(&install).await);
                }
            }
        }
        if let Some(failure) = unknown
            && plugins.is_empty()
        {
            return Err(failure);
        }
        let mut wanted = Vec::<(Arc<Manifest>, PinnedManifest)>::new();
        for manifest in plugins {
            for pinned in &manifest.manifests {
                if !wanted.iter().any(|(_, other)| other.sha256 == pinned.sha256) {
                    wanted.push((Arc::clone(&manifest), pinned.clone()));
                }
            }
        }
        Ok(wanted)
    }
}

/// A manifest as it is, to be kept and not applied.
fn whole(url: &str, sha256: &str, bytes: u64) -> RemoteManifest {
    RemoteManifest {
        url: url.to_owned(),
        sha256: sha256.to_owned(),
        max_bytes: bytes,
        objects: 0,
        namespace: String::new(),
        exclude: Vec::new(),
        patches: Vec::new(),
        handling: Handling::default(),
    }
}
