//! What is installed and what there is: from the database, the plugin path, and what was seen last. Starts nothing.

use std::collections::HashMap;

use k8sctl_rpc::task;
use k8sctl_types::failure::Failure;
use plugin_package::Package;

use super::memory::Seen;
use super::wish::ClusterAccess;
use super::{PluginHost, stored_badly};
use crate::engine::{Limits, Progress};
use crate::inventory::store_failure;
use crate::records::{Install, Place};
use crate::status::{PluginDetails, PluginRevision, PluginRun, PluginState, PluginStatus};

/// All that a status is made of beside the plugin's row.
struct Around {
    /// What is done, as it was before the rows were read.
    running: HashMap<String, (String, Progress)>,
    seen: HashMap<String, Seen>,
    /// Why, by digest.
    quarantines: HashMap<String, String>,
    /// Packages of the plugin path, and those that cannot be read.
    shelf: (Vec<Package>, Vec<Failure>),
    /// Whose package it is, by digest.
    trust: HashMap<String, String>,
}

impl PluginHost {
    /// Plugins of a cluster and, where asked, those that it could have. Reads the disk; starts nothing.
    pub async fn list(&self, cluster_id: &str, available: bool) -> Result<Vec<PluginStatus>, Failure> {
        let running = self.inner.running.all_doing(cluster_id);
        let installs = self.installs(cluster_id).await?;
        let around = self.around(cluster_id, &installs, running).await?;
        let mut statuses: Vec<_> =
            installs.iter().map(|install| self.status_of(cluster_id, install, &around)).collect();
        for (plugin, seen) in &around.seen {
            if !statuses.iter().any(|status| status.name == *plugin) {
                statuses.extend(self.status_of_begun(&Place::new(cluster_id, plugin), seen));
            }
        }
        if available {
            let others = available_of(&around);
            let is_new = |other: &PluginStatus| !statuses.iter().any(|status| status.name == other.name);
            let others: Vec<_> = others.into_iter().filter(is_new).collect();
            statuses.extend(others);
        }
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(statuses)
    }

    /// All that is known of one plugin. Starts nothing.
    pub async fn show(&self, cluster_id: &str, plugin: &str) -> Result<PluginDetails, Failure> {
        let place = Place::new(cluster_id, plugin);
        let Some(install) = self.install(&place).await? else {
            let (library, name) = (self.inner.library.clone(), plugin.to_owned());
            let package = task::blocking(move || library.locate(&name, true)).await?;
            let all = self.list(cluster_id, true).await?;
            let status = all.into_iter().find(|status| status.name == plugin).unwrap_or_default();
            return self.details(status, Some(package)).await;
        };
        let status = self.status(&place).await?;
        let package = self.package_of(&install).await.ok();
        let entries = self.inventory(&place).entries().await;
        let entries = entries.map_err(|error| store_failure(plugin, &error))?;
        let revisions = self.inner.records.revisions(&place).await.map_err(stored_badly(&place))?;
        let revision = |one: crate::records::Revision| PluginRevision {
            current: one.revision == install.revision,
            revision: one.revision,
            version: one.version,
            created: one.created,
            applied: one.applied,
        };
        Ok(PluginDetails {
            objects: entries.iter().map(|entry| entry.key.to_string()).collect(),
            revisions: revisions.into_iter().map(revision).collect(),
            config_json: install.config_json.clone(),
            outputs: install.outputs.clone(),
            ..self.details(status, package).await?
        })
    }

    /// What a package says of itself.
    async fn details(
        &self,
        status: PluginStatus,
        package: Option<Package>,
    ) -> Result<PluginDetails, Failure> {
        let Some(package) = package else { return Ok(PluginDetails { status, ..PluginDetails::default() }) };
        task::blocking(move || {
            let name = &package.manifest.name;
            let text = package.manifest_text().map_err(|error| error.failure(name))?;
            let schema = package.config_schema().map_err(|error| error.failure(name))?;
            Ok(PluginDetails {
                status,
                manifest_toml: text,
                config_schema_json: schema.to_string(),
                permissions: package.manifest.approval().lines,
                package_path: package.folder.display().to_string(),
                package_sha256: package.sha256,
                ..PluginDetails::default()
            })
        })
        .await
    }

    /// How the last processes of a plugin ended and what they wrote, the newest first.
    pub async fn runs(&self, plugin: &str) -> Result<Vec<PluginRun>, Failure> {
        self.inner.records.runs(plugin).await.map_err(|error| store_failure(plugin, &error))
    }

    /// Pods of a plugin's workloads: namespace and name.
    pub async fn pods(&self, access: &ClusterAccess, plugin: &str) -> Result<Vec<(String, String)>, Failure> {
        let place = Place::new(&access.cluster_id, plugin);
        let install = self.installed(&place).await?;
        if install.target == 0 {
            return Ok(Vec::new());
        }
        let plan = self.plan_of(&place, install.target).await?;
        let limits: Limits = self.inner.limits;
        self.engine(access, plugin, limits, Progress::new()).pods(&plan).await
    }

    /// Where one plugin stands.
    pub(super) async fn status(&self, place: &Place) -> Result<PluginStatus, Failure> {
        let running = self.inner.running.all_doing(&place.cluster_id);
        let install = self.installed(place).await?;
        let around = self.around(&place.cluster_id, std::slice::from_ref(&install), running).await?;
        Ok(self.status_of(&place.cluster_id, &install, &around))
    }

    async fn around(
        &self,
        cluster_id: &str,
        installs: &[Install],
        running: HashMap<String, (String, Progress)>,
    ) -> Result<Around, Failure> {
        let quarantines = self.inner.records.quarantines().await;
        let quarantines = quarantines.map_err(|error| store_failure("all", &error))?;
        let library = self.inner.library.clone();
        let packages: Vec<_> = installs.iter().map(|install| install.package_sha256.clone()).collect();
        let (shelf, trust) = task::blocking(move || {
            let trust = |sha256: String| {
                let package = library.stored(&sha256).ok()?;
                Some((sha256, package.trust.to_string()))
            };
            let trust: HashMap<_, _> = packages.into_iter().filter_map(trust).collect();
            (library.scan(), trust)
        })
        .await;
        let seen = self.inner.memory.seen_of(cluster_id);
        Ok(Around { running, seen, quarantines, shelf, trust })
    }

    fn status_of(&self, cluster_id: &str, install: &Install, around: &Around) -> PluginStatus {
        let place = Place::new(cluster_id, &install.plugin);
        let seen = around.seen.get(&install.plugin).cloned().unwrap_or_default();
        let begun_since = || self.inner.running.doing(&place);
        let doing = around.running.get(&install.plugin).cloned().or_else(begun_since);
        let (mut state, mut message) = (install.state, install.message.clone());
        if doing.is_none() && install.operation.is_some() {
            state = PluginState::Pending;
            message = "its operation was interrupted, and goes on when the cluster's API answers".to_owned();
        } else if let Some(reason) = around.quarantines.get(&install.package_sha256)
            && install.is_settled()
        {
            state = PluginState::Quarantined;
            message = format!("what it installed goes on; its program is not started any more: {reason}");
        } else if let Some((_, failure)) = &seen.failed {
            message = format!("the last try changed nothing: {failure}");
        } else if let Some(pending) = &seen.pending {
            message.clone_from(pending);
        }
        let blocking = match &doing {
            Some((_, progress)) => progress.follow().1.borrow().clone(),
            None => seen.blocking,
        };
        PluginStatus {
            name: install.plugin.clone(),
            version: install.version.clone(),
            state,
            message,
            objects: install.objects,
            installed: install.installed,
            blocking,
            trust: around.trust.get(&install.package_sha256).cloned().unwrap_or_default(),
            origin: install.origin.as_str().to_owned(),
            newer_version: newer(install, &around.shelf.0),
            revision: install.revision,
            drifted: seen.drifted,
        }
    }

    /// One that is wanted and of which nothing is stored yet.
    fn status_of_begun(&self, place: &Place, seen: &Seen) -> Option<PluginStatus> {
        let status = |state, message: String| {
            Some(PluginStatus { name: place.plugin.clone(), state, message, ..PluginStatus::default() })
        };
        if let Some((doing, _)) = self.inner.running.doing(place) {
            return status(PluginState::Installing, format!("it {doing}"));
        }
        if let Some((_, failure)) = &seen.failed {
            return status(PluginState::Failed, failure.to_string());
        }
        seen.pending.clone().and_then(|pending| status(PluginState::Pending, pending))
    }
}

/// Packages of the plugin path as statuses, those that cannot be read among them.
fn available_of(around: &Around) -> Vec<PluginStatus> {
    let (found, broken) = &around.shelf;
    let available = found.iter().map(|package| {
        let reason = around.quarantines.get(&package.sha256);
        let state = if reason.is_some() { PluginState::Quarantined } else { PluginState::Available };
        PluginStatus {
            name: package.manifest.name.clone(),
            version: package.manifest.version.to_string(),
            state,
            message: reason.unwrap_or(&package.manifest.summary).clone(),
            trust: package.trust.to_string(),
            ..PluginStatus::default()
        }
    });
    let broken = broken.iter().map(|failure| PluginStatus {
        name: name_in(failure).to_owned(),
        state: PluginState::Failed,
        message: failure.to_string(),
        ..PluginStatus::default()
    });
    available.chain(broken).collect()
}

fn name_in(failure: &Failure) -> &str {
    failure.object.trim_start_matches("plugin ")
}

/// What the plugin path has in place of what is installed, if that is newer.
fn newer(install: &Install, shelf: &[Package]) -> String {
    let Some(package) = shelf.iter().find(|package| package.manifest.name == install.plugin) else {
        return String::new();
    };
    let found = &package.manifest.version;
    if package.sha256 == install.package_sha256 {
        return String::new();
    }
    match semver::Version::parse(&install.version) {
        Ok(installed) if *found > installed => found.to_string(),
        Ok(installed) if *found == installed && !install.package_sha256.is_empty() => {
            format!("{found} (changed)")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
