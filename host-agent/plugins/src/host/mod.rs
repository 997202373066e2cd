//! What the host agent calls. Puts the rooms of this crate together; one operation at a time per plugin and cluster, each
//! in a task of its own that goes on when whoever asked is gone, and again when the host agent was.
//!
//! - [`wish`]: what is asked and answered
//! - [`read`]: what is installed and what there is; starts nothing
//! - [`resolve`]: from a wish to a package and a config
//! - [`ask`]: one process, one plan, checked
//! - [`offer`]: what a wish would do; writes nothing
//! - [`begin`], [`operation`], [`removal`]: how an operation begins, what it does, how it ends
//! - [`handover`]: nodes make way for another pod network before its objects are written
//! - [`running`] and [`memory`]: who works on what; what was seen last
//! - [`spec`], [`converge`], [`order`]: the plugins of a cluster file
//! - [`keeper`]: drift and health, and what was interrupted
//! - [`outcome`]: how processes ended, quarantine
//! - [`vendor`]: manifests of elsewhere, into the store
//! - [`verify`]: digests and signatures of all packages that the host has

mod ask;
mod begin;
mod converge;
mod handover;
mod keeper;
mod memory;
mod offer;
mod operation;
mod order;
mod outcome;
mod read;
mod removal;
mod resolve;
mod running;
mod spec;
mod vendor;
mod verify;
mod wish;

use std::sync::Arc;
use std::time::Duration;

use host_store::{Store, StoreError};
use k8sctl_rpc::task;
use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;
use plugin_package::Package;
use plugin_plan::SecretRef;
use plugin_process::Runner;
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use crate::engine::{Engine, EngineSetup, Limits, Points, Progress, Secrets};
use crate::inventory::{Inventory, store_failure};
use crate::library::Library;
use crate::records::{Install, Place, Records};
use crate::remote::Manifests;
use crate::requirements;
use crate::vault::{self, Vault};

use memory::Memory;
use running::Running;

pub use wish::{
    ClusterAccess, Converged, Ended, Follow, Gate, Given, Handover, NodeNeed, ObjectDiffView, Offer,
    PinnedPlugin, PluginEvent, ProposedAction, ProposedChange, Removal, SpecAsk, SpecProposal, WantedPlugin,
    Wish, WishError, WishKind,
};

/// Of what a host is made.
pub struct HostSetup {
    /// Opened with [`crate::SCHEMA`].
    pub store: Store,
    /// Packages.
    pub library: Library,
    /// Starts processes.
    pub runner: Runner,
    /// Manifests of elsewhere.
    pub manifests: Manifests,
    /// Secrets.
    pub vault: Vault,
    /// How long it waits.
    pub limits: Limits,
    /// Where tests end it.
    pub points: Points,
    /// Who is told what happened. A full queue loses events, which are then only logged.
    pub events: mpsc::Sender<PluginEvent>,
    /// Between two looks of the keeper, a tenth more or less.
    pub drift_interval: Duration,
}

/// See the module. Clones share everything.
#[derive(Clone)]
pub struct PluginHost {
    inner: Arc<Inner>,
}

struct Inner {
    records: Records,
    library: Library,
    runner: Runner,
    manifests: Manifests,
    vault: Vault,
    limits: Limits,
    points: Points,
    events: mpsc::Sender<PluginEvent>,
    drift_interval: Duration,
    changes: watch::Sender<u64>,
    running: Running,
    memory: Memory,
}

impl PluginHost {
    /// A host; nothing is started or resumed before [`PluginHost::keep`] or [`PluginHost::converge`].
    pub fn new(setup: HostSetup) -> Self {
        let HostSetup { store, library, runner, manifests, vault, limits, points, events, drift_interval } =
            setup;
        let inner = Inner {
            records: Records::new(store),
            library,
            runner,
            manifests,
            vault,
            limits,
            points,
            events,
            drift_interval,
            changes: watch::Sender::new(0),
            running: Running::default(),
            memory: Memory::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Counts up with every change of any status.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Keeps a secret for a plugin, which need not be installed yet. An empty value: forgets it. What is installed gets a new
    /// value by the next look at it, which is at once.
    pub async fn set_secret(
        &self,
        cluster_id: &str,
        plugin: &str,
        secret: &SecretRef,
        value: Zeroizing<Vec<u8>>,
    ) -> Result<(), Failure> {
        let (vault, place, secret) =
            (self.inner.vault.clone(), Place::new(cluster_id, plugin), secret.clone());
        task::blocking(move || vault.put(&place.cluster_id, &place.plugin, &secret, &value)).await?;
        self.inner.memory.kick(cluster_id).notify_one();
        Ok(())
    }

    /// Forgets all that was on a cluster that does not exist any more, and ends what is done there.
    pub async fn forget_cluster(&self, cluster_id: &str) -> Result<(), Failure> {
        self.inner.running.abort_cluster(cluster_id);
        self.inner.memory.forget_cluster(cluster_id);
        let unused = self
            .inner
            .records
            .forget_cluster(cluster_id)
            .await
            .map_err(|error| store_failure("all", &error))?;
        let (host, cluster) = (self.clone(), cluster_id.to_owned());
        task::blocking(move || {
            host.inner.vault.forget(&cluster, None);
            host.forget_packages(&unused);
        })
        .await;
        self.changed();
        Ok(())
    }

    /// What installed plugins need of nodes, with whether their plugin was Ready once. Conflicts are PLUGIN-NODE-CONFLICT.
    pub async fn node_requirements(&self, cluster_id: &str) -> Result<Vec<NodeNeed>, Failure> {
        let needs = self.node_needs(cluster_id).await?;
        match requirements::conflict(&needs) {
            Some(failure) => Err(failure),
            None => Ok(needs),
        }
    }

    async fn node_needs(&self, cluster_id: &str) -> Result<Vec<NodeNeed>, Failure> {
        let rows = self.inner.records.node_rows(cluster_id).await;
        let rows = rows.map_err(|error| store_failure("all", &error))?;
        Ok(rows.into_iter().flat_map(requirements::of_row).collect())
    }

    /// Something that is shown is another.
    fn changed(&self) {
        self.inner.changes.send_modify(|count| *count += 1);
    }

    /// Tells what happened.
    fn tell(&self, whose: &Whose, kind: EventType, message: impl Into<String>, warning: bool) {
        let event = PluginEvent {
            cluster_name: whose.cluster_name.clone(),
            plugin: whose.place.plugin.clone(),
            kind,
            message: message.into(),
            warning,
        };
        if let Err(error) = self.inner.events.try_send(event) {
            let event = error.into_inner();
            tracing::warn!(
                plugin.name = event.plugin,
                event.kind = %event.kind,
                event.message,
                "an event of a plugin is lost"
            );
        }
    }

    fn point(&self, name: &'static str) {
        (self.inner.points)(name);
    }

    /// All plugins of a cluster, as stored.
    async fn installs(&self, cluster_id: &str) -> Result<Vec<Install>, Failure> {
        self.inner.records.installs(cluster_id).await.map_err(|error| store_failure("all", &error))
    }

    /// One of them.
    async fn install(&self, place: &Place) -> Result<Option<Install>, Failure> {
        self.inner.records.install(place).await.map_err(|error| store_failure(&place.plugin, &error))
    }

    /// The same; one that is not there is a failure.
    async fn installed(&self, place: &Place) -> Result<Install, Failure> {
        self.install(place).await?.ok_or_else(|| not_installed(&place.plugin))
    }

    fn inventory(&self, place: &Place) -> Inventory {
        Inventory::new(self.inner.records.store(), &place.cluster_id, &place.plugin)
    }

    fn engine(&self, access: &ClusterAccess, plugin: &str, limits: Limits, progress: Progress) -> Engine {
        let place = Place::new(&access.cluster_id, plugin);
        Engine::new(EngineSetup {
            client: access.client.clone(),
            cluster_id: access.cluster_id.clone(),
            plugin: plugin.to_owned(),
            kubernetes: access.facts.kubernetes_version.clone(),
            inventory: self.inventory(&place),
            limits,
            progress,
            points: self.inner.points,
            secrets: Arc::new(Held { vault: self.inner.vault.clone(), place }),
        })
    }

    /// A package by name, folder or archive, verified.
    async fn find(&self, source: &str, dev: bool) -> Result<Package, Failure> {
        let (library, source) = (self.inner.library.clone(), source.to_owned());
        task::blocking(move || library.find(&source, dev)).await
    }

    /// A package of the store.
    async fn stored(&self, sha256: &str) -> Result<Package, Failure> {
        let (library, sha256) = (self.inner.library.clone(), sha256.to_owned());
        task::blocking(move || library.stored(&sha256)).await
    }

    /// The package of an installed plugin. One that was installed before packages had digests is the one of its name.
    async fn package_of(&self, install: &Install) -> Result<Package, Failure> {
        if install.package_sha256.is_empty() {
            self.find(&install.plugin, true).await
        } else {
            self.stored(&install.package_sha256).await
        }
    }

    /// Takes those of these packages out of the store that nobody is about to use. Blocks.
    fn forget_packages(&self, packages: &[String]) {
        let unused: Vec<_> = packages.iter().filter(|it| !self.inner.memory.is_held(it)).cloned().collect();
        self.inner.library.forget(&unused);
    }
}

/// A plugin of a cluster, and the cluster's name for people.
#[derive(Clone, Debug)]
struct Whose {
    place: Place,
    cluster_name: String,
}

impl Whose {
    fn new(access: &ClusterAccess, plugin: &str) -> Self {
        Self { place: Place::new(&access.cluster_id, plugin), cluster_name: access.cluster_name.clone() }
    }
}

/// The secrets of one plugin.
struct Held {
    vault: Vault,
    place: Place,
}

impl Secrets for Held {
    fn value(&self, secret: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let Place { cluster_id, plugin } = &self.place;
        self.vault.get(cluster_id, plugin, secret)?.ok_or_else(|| vault::missing(plugin, secret))
    }
}

fn not_installed(plugin: &str) -> Failure {
    let reason = "it is not installed on this cluster";
    Failure::new(
        "PLUGIN-NOT-INSTALLED",
        format!("plugin {plugin}"),
        reason,
        "`k8sctl plugin list` shows what is",
    )
}

/// The database failed while this plugin was worked on.
fn stored_badly(place: &Place) -> impl Fn(StoreError) -> Failure {
    let plugin = place.plugin.clone();
    move |error| store_failure(&plugin, &error)
}
