//! A host of plugins on a real API server, that can be started anew on what it left, and killed where it says where it is.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use host_plugins::{
    Ceilings, ClusterAccess, Deadlines, Ended, FetchSetup, Follow, Given, HostSetup, Library, Limits,
    Manifests, Offer, PluginEvent, PluginHost, PluginStatus, Removal, Runner, SCHEMA, TrustPolicy, Vault,
    Wish, WishError, WishKind,
};
use host_store::Store;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;
use kube::Api;
use plugin_package::Package;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::common::cluster::Cluster;
use crate::shelf::Shelf;

thread_local! {
    /// Where the host is killed next. The tasks of a test are all on its thread.
    static KILL: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Kills the host's task the next time that it says that it is there.
pub fn kill_at(point: &'static str) {
    KILL.with(|kill| kill.set(Some(point)));
}

/// Whether it came there.
pub fn was_killed() -> bool {
    KILL.with(Cell::get).is_none()
}

fn point(name: &'static str) {
    let here = KILL.with(|kill| kill.get() == Some(name));
    if here {
        KILL.with(|kill| kill.set(None));
        panic!("killed at {name}");
    }
}

pub struct Bench {
    pub cluster: Cluster,
    pub shelf: Shelf,
    pub host: PluginHost,
    pub access: ClusterAccess,
    trusted: Vec<String>,
    store: Store,
    roots: Vec<Vec<u8>>,
    events: RefCell<mpsc::Receiver<PluginEvent>>,
    ready: Duration,
}

impl Bench {
    /// With these packages, which are trusted as if they were built with the host agent. `None`: there is no API server.
    pub async fn start(make: impl AsyncFn(&Shelf) -> Vec<Package>) -> Option<Self> {
        Self::start_with(Vec::new(), make).await
    }

    /// The same, with these authorities for manifests, DER.
    pub async fn start_with(roots: Vec<Vec<u8>>, make: impl AsyncFn(&Shelf) -> Vec<Package>) -> Option<Self> {
        // Built before servers run, whose time is bounded.
        let shelf = Shelf::new().await;
        let cluster = Cluster::start().await?;
        let trusted: Vec<_> = make(&shelf).await.into_iter().map(|package| package.sha256).collect();
        let store = Store::in_memory(&[SCHEMA]).expect("a database in memory");
        let ready = Duration::from_secs(60);
        let (host, events) = host(&shelf, &trusted, &store, &roots, ready);
        let (access, events) = (cluster.access(), RefCell::new(events));
        Some(Self { cluster, shelf, host, access, trusted, store, roots, events, ready })
    }

    /// The host agent as it would be after a kill.
    pub fn restart(&mut self) {
        let (host, events) = host(&self.shelf, &self.trusted, &self.store, &self.roots, self.ready);
        (self.host, self.events) = (host, RefCell::new(events));
    }

    /// The same, with objects that may take so long to be ready.
    pub fn restart_with(&mut self, ready: Duration) {
        self.ready = ready;
        self.restart();
    }

    pub async fn offer(&self, wish: &Wish) -> Result<Offer, WishError> {
        self.host.offer(&self.access, wish, false).await
    }

    /// Approves whatever it asks for.
    pub async fn begin(&self, wish: &Wish) -> Result<Follow, WishError> {
        let approved_digest = self.offer(wish).await?.permissions_digest;
        let given = Given { approved_digest, by_uid: 1000, ..Given::default() };
        self.host.begin(&self.access, wish, &given).await
    }

    /// The same, to the end.
    pub async fn wish(&self, wish: &Wish) -> Result<PluginStatus, WishError> {
        match self.begin(wish).await?.ended.await {
            Ended::Status(status) => Ok(status),
            Ended::Failed(failure) => Err(failure.into()),
            Ended::Gone { kept } => panic!("it is gone, and kept {kept:?}"),
        }
    }

    pub async fn remove(&self, plugin: &str) -> Result<Vec<String>, Failure> {
        let follow = self.host.begin_removal(&self.access, plugin, &Removal::default()).await?;
        match follow.ended.await {
            Ended::Gone { kept } => Ok(kept),
            Ended::Failed(failure) => Err(failure),
            Ended::Status(status) => panic!("it is still there: {status:?}"),
        }
    }

    pub async fn status(&self, plugin: &str) -> Option<PluginStatus> {
        let all = self.host.list(&self.access.cluster_id, false).await.expect("it lists");
        all.into_iter().find(|status| status.name == plugin)
    }

    pub async fn runs(&self, plugin: &str) -> usize {
        self.host.runs(plugin).await.expect("it reads").len()
    }

    /// The text in a plugin's ConfigMap, and the object's UID.
    pub async fn text(&self, plugin: &str) -> Option<(String, String)> {
        self.text_in(plugin, plugin).await
    }

    /// The same, of one in another namespace than its own.
    pub async fn text_in(&self, namespace: &str, plugin: &str) -> Option<(String, String)> {
        let maps: Api<ConfigMap> = Api::namespaced(self.cluster.client.clone(), namespace);
        let map = maps.get_opt(plugin).await.expect("the API answers")?;
        Some((map.data?.get("text")?.clone(), map.metadata.uid?))
    }

    pub async fn has_namespace(&self, name: &str) -> bool {
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        namespaces.get_opt(name).await.expect("the API answers").is_some()
    }

    /// What was told since the last time: plugin and kind.
    pub fn told(&self) -> Vec<(String, EventType)> {
        let mut events = self.events.borrow_mut();
        std::iter::from_fn(|| events.try_recv().ok()).map(|event| (event.plugin, event.kind)).collect()
    }

    /// Looks after the plugins until it is so; two minutes at most.
    pub async fn keep_until(&self, what: &str, is_so: impl AsyncFn(&Self) -> bool) {
        let looked = async {
            while !is_so(self).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = self.host.keep(self.access.clone()) => panic!("it keeps for ever"),
            looked = tokio::time::timeout(Duration::from_secs(120), looked) => {
                assert!(looked.is_ok(), "not in two minutes: {what}");
            }
        }
    }
}

fn host(
    shelf: &Shelf,
    trusted: &[String],
    store: &Store,
    roots: &[Vec<u8>],
    ready: Duration,
) -> (PluginHost, mpsc::Receiver<PluginEvent>) {
    let (events, told) = mpsc::channel(256);
    let at = |name: &str| -> PathBuf { shelf.at(name) };
    let policy = TrustPolicy { built_in: trusted.iter().cloned().collect(), ..TrustPolicy::default() };
    let manifests = Manifests::new(FetchSetup {
        folder: at("manifests"),
        roots: roots.to_vec(),
        deadline: Duration::from_secs(10),
        idle: Duration::from_secs(5),
    });
    let host = PluginHost::new(HostSetup {
        store: store.clone(),
        library: Library::new(vec![at("path")], at("store"), policy),
        runner: Runner::new(Deadlines::default(), Ceilings::default()),
        manifests: manifests.expect("a store of manifests"),
        vault: Vault::new(at("secrets")),
        limits: Limits { ready, stable: Duration::from_millis(100), ..Limits::default() },
        points: point,
        events,
        drift_interval: Duration::from_millis(500),
    });
    (host, told)
}

pub fn wish(change: WishKind, plugin: &str, config: Option<&Value>) -> Wish {
    Wish {
        change,
        plugin: plugin.to_owned(),
        config_json: config.map(Value::to_string),
        dev: false,
        lift_quarantine: false,
        adopt: false,
        to: None,
    }
}

/// The failure of what went wrong otherwise than by the config.
pub fn failure<T>(result: Result<T, WishError>) -> Failure {
    match result {
        Err(WishError::Failure(failure)) => failure,
        Err(WishError::Config(mistakes)) => panic!("the config is at fault: {mistakes:?}"),
        Ok(_) => panic!("a failure was expected"),
    }
}
