//! What the host agent calls: which plugins there are, what one asks for, install it, remove it. Puts the rooms of
//! this crate together; one operation at a time per plugin and cluster.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use host_store::Store;
use k8sctl_proto::plugin::v1::ClusterFacts;
use k8sctl_types::failure::Failure;
use tokio::sync::mpsc;

use crate::conversation::{Answer, Description, Diagnostic, ask_for_plan};
use crate::engine::{Engine, Limits, store_failure};
use crate::inventory::{self, Inventory};
use crate::launch::{Deadlines, Launcher, Program, broken_failure, launch_failure};
use crate::manifest::{Found, PluginDir};
use crate::plan::{Planned, ReadinessRule, check_plan};
use crate::status::{PluginState, PluginStatus};

/// A running cluster, as an operation needs it.
#[derive(Clone)]
pub struct ClusterAccess {
    /// Its id; the inventory's key.
    pub cluster_id: String,
    /// A client with the rights of an administrator.
    pub client: kube::Client,
    /// What plugins are told.
    pub facts: ClusterFacts,
}

/// What a plugin would do, for the admin to approve.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line per permission.
    pub permissions: Vec<String>,
    /// Digest of the permissions; given back to [`PluginHost::install`].
    pub digest: String,
    /// The objects that would be applied, in order.
    pub objects: Vec<String>,
    /// Remarks on the config that stop nothing.
    pub warnings: Vec<Diagnostic>,
}

/// An installation did not take place.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InstallError {
    /// The config has mistakes; nothing was changed.
    #[error("the config of the plugin has {} mistake(s)", .0.len())]
    Config(Vec<Diagnostic>),
    /// Something else.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// A plan that was checked, and where it came from.
struct Proposal {
    found: Found,
    binary_sha256: String,
    planned: Vec<Planned>,
    readiness: Vec<ReadinessRule>,
    warnings: Vec<Diagnostic>,
}

/// Runs plugins. Clones share the database and the list of running operations.
#[derive(Clone)]
pub struct PluginHost {
    plugins: PluginDir,
    store: Store,
    launcher: Launcher,
    limits: Limits,
    running: Arc<Mutex<HashSet<(String, String)>>>,
}

impl PluginHost {
    /// Plugins from these folders; the store was opened with [`crate::SCHEMA`].
    pub fn new(plugins: PluginDir, store: Store) -> Self {
        Self {
            plugins,
            store,
            launcher: Launcher::default(),
            limits: Limits::default(),
            running: Arc::default(),
        }
    }

    /// The same with other limits.
    pub fn with_limits(mut self, deadlines: Deadlines, limits: Limits) -> Self {
        self.launcher = Launcher { deadlines };
        self.limits = limits;
        self
    }

    /// Plugins of a cluster, and those that it could have. Reads the disk; starts nothing.
    pub async fn list(&self, cluster_id: &str) -> Result<Vec<PluginStatus>, Failure> {
        let installs = inventory::installs(&self.store, cluster_id)
            .await
            .map_err(|error| store_failure("list", &error))?;
        let mut statuses: Vec<_> =
            installs.into_iter().map(|install| self.status(cluster_id, install)).collect();
        let (found, broken) = self.plugins.scan();
        for Found { manifest, .. } in found {
            if !statuses.iter().any(|status| status.name == manifest.name) {
                statuses.push(PluginStatus {
                    name: manifest.name,
                    version: manifest.version,
                    state: PluginState::Available,
                    message: manifest.summary,
                    objects: 0,
                    installed: None,
                });
            }
        }
        for failure in broken {
            let name = failure.object.trim_start_matches("plugin ").to_owned();
            if !statuses.iter().any(|status| status.name == name) {
                let (state, message) = (PluginState::Failed, failure.to_string());
                let version = String::new();
                statuses.push(PluginStatus { name, version, state, message, objects: 0, installed: None });
            }
        }
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(statuses)
    }

    fn status(&self, cluster_id: &str, install: inventory::Install) -> PluginStatus {
        let inventory::Install { plugin, version, mut state, mut message, installed, objects } = install;
        let busy = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = busy.contains(&(cluster_id.to_owned(), plugin.clone()));
        if !runs && state == PluginState::Installing {
            state = PluginState::Failed;
            message = "the installation was interrupted; add it again to go on".to_owned();
        }
        if !runs && state == PluginState::Removing {
            state = PluginState::Failed;
            message = "the removal was interrupted; remove it again to go on".to_owned();
        }
        PluginStatus { name: plugin, version, state, message, objects, installed }
    }

    /// What the plugin would do with this config. Changes nothing.
    pub async fn offer(
        &self,
        cluster: &ClusterAccess,
        plugin: &str,
        config_json: &str,
    ) -> Result<Offer, InstallError> {
        let proposal = self.propose(&cluster.facts, plugin, config_json).await?;
        let manifest = &proposal.found.manifest;
        Ok(Offer {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            permissions: manifest.permission_lines(),
            digest: manifest.permissions_digest(),
            objects: proposal.planned.iter().map(|planned| planned.key.to_string()).collect(),
            warnings: proposal.warnings,
        })
    }

    /// Plans, checks, applies, and waits until everything is ready. The same config again writes nothing; after an
    /// interruption or a failure it goes on. `approved_digest` is the one of the [`Offer`] that the admin saw.
    pub async fn install(
        &self,
        cluster: &ClusterAccess,
        plugin: &str,
        config_json: &str,
        approved_digest: &str,
        progress: mpsc::Sender<String>,
    ) -> Result<PluginStatus, InstallError> {
        let proposal = self.propose(&cluster.facts, plugin, config_json).await?;
        let manifest = &proposal.found.manifest;
        let name = manifest.name.as_str();
        let digest = manifest.permissions_digest();
        if approved_digest != digest && !manifest.permission_lines().is_empty() {
            let reason = if approved_digest.is_empty() {
                "it asks for permissions that nobody approved".to_owned()
            } else {
                format!("approved were the permissions {approved_digest}, it asks for {digest}")
            };
            let next = "read the permissions that `k8sctl plugin add` shows, and approve them";
            let failure = Failure::new("PLUGIN-NOT-APPROVED", format!("plugin {name}"), reason, next);
            return Err(failure.with_evidence(manifest.permission_lines().join("\n")).into());
        }
        let _running = self.claim(&cluster.cluster_id, name)?;
        let inventory = Inventory::new(self.store.clone(), &cluster.cluster_id, name);
        let keys = proposal.planned.iter().map(|planned| planned.key.clone()).collect();
        inventory
            .begin(&manifest.version, &proposal.binary_sha256, config_json, keys)
            .await
            .map_err(|error| store_failure(name, &error))?;
        let engine = self.engine(cluster, name, &inventory, progress);
        match engine.install(&proposal.planned, &proposal.readiness).await {
            Ok(applied) => {
                tracing::info!(
                    cluster.id = cluster.cluster_id,
                    plugin.name = name,
                    objects.written = applied.written,
                    objects.unchanged = applied.unchanged,
                    objects.pruned = applied.pruned,
                    "a plugin is installed"
                );
                let message = if applied.written + applied.pruned == 0 { "no changes" } else { "ready" };
                self.conclude(&inventory, name, PluginState::Ready, message).await?;
            }
            Err(failure) => {
                self.conclude(&inventory, name, PluginState::Failed, &failure.to_string()).await?;
                return Err(failure.into());
            }
        }
        let install = inventory.install().await.map_err(|error| store_failure(name, &error))?;
        let gone =
            || Failure::new("PLUGIN-STORE", format!("plugin {name}"), "its row is gone", "add it again");
        Ok(self.status(&cluster.cluster_id, install.ok_or_else(gone)?))
    }

    /// Deletes what the plugin made and waits until it is gone. Does not start the plugin: a broken one can be
    /// removed, and so can one whose folder is gone.
    pub async fn remove(
        &self,
        cluster: &ClusterAccess,
        plugin: &str,
        progress: mpsc::Sender<String>,
    ) -> Result<(), Failure> {
        let failed = |error| store_failure(plugin, &error);
        let inventory = Inventory::new(self.store.clone(), &cluster.cluster_id, plugin);
        if inventory.install().await.map_err(failed)?.is_none() {
            let reason = "it is not installed on this cluster";
            let next = "`k8sctl plugin list` shows what is";
            return Err(Failure::new("PLUGIN-NOT-INSTALLED", format!("plugin {plugin}"), reason, next));
        }
        let _running = self.claim(&cluster.cluster_id, plugin)?;
        inventory.set_state(PluginState::Removing, "").await.map_err(failed)?;
        let engine = self.engine(cluster, plugin, &inventory, progress);
        match engine.remove().await {
            Ok(()) => inventory.end().await.map_err(failed),
            Err(failure) => {
                self.conclude(&inventory, plugin, PluginState::Failed, &failure.to_string()).await?;
                Err(failure)
            }
        }
    }

    /// Forgets what was installed on a cluster that does not exist any more.
    pub async fn forget_cluster(&self, cluster_id: &str) -> Result<(), Failure> {
        inventory::forget_cluster(&self.store, cluster_id).await.map_err(|error| store_failure("all", &error))
    }

    /// Starts the plugin and asks for its description, without a cluster.
    pub async fn describe(&self, plugin: &str) -> Result<Description, Failure> {
        let found = self.plugins.find(plugin)?;
        let (description, _, _) = self.ask(&found, "{}", ClusterFacts::default()).await?;
        Ok(description)
    }

    fn engine(
        &self,
        cluster: &ClusterAccess,
        plugin: &str,
        inventory: &Inventory,
        progress: mpsc::Sender<String>,
    ) -> Engine {
        let ClusterAccess { cluster_id, client, .. } = cluster;
        Engine::new(client.clone(), cluster_id, plugin, inventory.clone(), self.limits, progress)
    }

    async fn conclude(
        &self,
        inventory: &Inventory,
        plugin: &str,
        state: PluginState,
        message: &str,
    ) -> Result<(), Failure> {
        inventory.set_state(state, message).await.map_err(|error| store_failure(plugin, &error))
    }

    async fn propose(
        &self,
        facts: &ClusterFacts,
        plugin: &str,
        config_json: &str,
    ) -> Result<Proposal, InstallError> {
        let found = self.plugins.find(plugin)?;
        let config_json = if config_json.trim().is_empty() { "{}" } else { config_json };
        let (_, answer, binary_sha256) = self.ask(&found, config_json, facts.clone()).await?;
        let Answer { objects, readiness, diagnostics } = answer;
        let (warnings, mistakes): (Vec<_>, Vec<_>) = diagnostics.into_iter().partition(|one| one.warning);
        if !mistakes.is_empty() {
            return Err(InstallError::Config(mistakes));
        }
        let planned = check_plan(&found.manifest, objects, &readiness)?;
        if planned.is_empty() {
            let next = "nothing was changed; report this to the plugin's author";
            let object = format!("plugin {}", found.manifest.name);
            return Err(Failure::new("PLUGIN-REFUSED", object, "its plan is empty", next).into());
        }
        Ok(Proposal { found, binary_sha256, planned, readiness, warnings })
    }

    /// One process, one conversation.
    async fn ask(
        &self,
        found: &Found,
        config_json: &str,
        facts: ClusterFacts,
    ) -> Result<(Description, Answer, String), Failure> {
        let name = found.manifest.name.as_str();
        let path = found.program.clone();
        let program = match tokio::task::spawn_blocking(move || Program::read(&path)).await {
            Ok(program) => program.map_err(|error| launch_failure(name, &error.into()))?,
            Err(error) => {
                let reason = format!("its program could not be read: {error}");
                return Err(Failure::new("PLUGIN-PROGRAM", format!("plugin {name}"), reason, "try again"));
            }
        };
        let (description, answer) = self
            .launcher
            .run(name, &program, |stream| ask_for_plan(stream, &found.manifest, config_json, facts))
            .await
            .map_err(|error| launch_failure(name, &error))?
            .map_err(|broken| broken_failure(name, broken, self.launcher.deadlines))?;
        Ok((description, answer, program.sha256().to_owned()))
    }

    /// The right to work on a plugin of a cluster, until it is dropped.
    fn claim(&self, cluster_id: &str, plugin: &str) -> Result<Claim, Failure> {
        let key = (cluster_id.to_owned(), plugin.to_owned());
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.insert(key.clone()) {
            let reason = "another operation on it is running";
            let next = "wait until it has ended: `k8sctl plugin list` shows its state";
            return Err(Failure::new("PLUGIN-BUSY", format!("plugin {plugin}"), reason, next));
        }
        Ok(Claim { key, running: self.running.clone() })
    }
}

struct Claim {
    key: (String, String),
    running: Arc<Mutex<HashSet<(String, String)>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
