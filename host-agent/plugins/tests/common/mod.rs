//! What the tests of this crate share: a real API server ([`cluster`]), what runs on it ([`kubelet`]), plans
//! ([`plans`]), faults ([`faults`]) and upstream's manifests ([`upstream`]).
#![allow(dead_code)] // Each test binary uses its part.

pub mod bundle;
pub mod cluster;
pub mod faults;
pub mod https;
pub mod kubelet;
pub mod plans;
pub mod scenarios;
pub mod upstream;
pub mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host_plugins::engine::{Applied, Consent, Engine, EngineSetup, Points, Secrets};
use host_plugins::inventory::Inventory;
use host_plugins::{Limits, Progress, SCHEMA};
use host_store::{Store, StoreError};
use k8sctl_types::failure::Failure;
use kube::Client;
use plugin_plan::{CheckedPlan, SecretRef};
use zeroize::Zeroizing;

use cluster::Cluster;

/// The id of the one cluster of a test.
pub const CLUSTER: &str = "cluster-1";

/// The repository, asked for when the test runs: checkouts that share a target directory share its programs.
pub fn workspace() -> PathBuf {
    let ours = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests"));
    ours.ancestors().nth(2).expect("two levels below the workspace").to_owned()
}

pub fn store() -> Store {
    Store::in_memory(&[SCHEMA]).expect("a database in memory")
}

/// Limits that suit tests: nothing settles, nothing takes long.
pub fn limits() -> Limits {
    Limits {
        ready: Duration::from_secs(60),
        gone: Duration::from_secs(60),
        kind: Duration::from_secs(30),
        api: Duration::from_secs(60),
        webhook: Duration::from_secs(30),
        stable: Duration::ZERO,
        parallel: 4,
    }
}

/// Secrets that a test knows.
#[derive(Clone, Debug, Default)]
pub struct FakeSecrets(pub BTreeMap<SecretRef, Vec<u8>>);

impl Secrets for FakeSecrets {
    fn value(&self, secret: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let value = self.0.get(secret).cloned();
        value.map(Zeroizing::new).ok_or_else(|| {
            let reason = format!("nobody has set {}.{}", secret.handle, secret.key);
            Failure::new("PLUGIN-SECRET", "a secret", reason, "set it")
        })
    }
}

/// One plugin on the cluster of a test, as the host would keep it.
#[derive(Clone)]
pub struct Installation {
    pub plugin: String,
    pub store: Store,
    pub client: Client,
    pub version: String,
    pub limits: Limits,
    pub points: Points,
    pub secrets: FakeSecrets,
    pub progress: Progress,
}

impl Installation {
    pub fn new(cluster: &Cluster, plugin: &str) -> Self {
        Self {
            plugin: plugin.to_owned(),
            store: store(),
            client: cluster.client.clone(),
            version: cluster.version.clone(),
            limits: limits(),
            points: |_| {},
            secrets: FakeSecrets::default(),
            progress: Progress::new(),
        }
    }

    pub fn inventory(&self) -> Inventory {
        Inventory::new(self.store.clone(), CLUSTER, &self.plugin)
    }

    /// A new engine on what is there.
    pub fn engine(&self) -> Engine {
        Engine::new(EngineSetup {
            client: self.client.clone(),
            cluster_id: CLUSTER.to_owned(),
            plugin: self.plugin.clone(),
            kubernetes: self.version.clone(),
            inventory: self.inventory(),
            limits: self.limits,
            progress: self.progress.clone(),
            points: self.points,
            secrets: Arc::new(self.secrets.clone()),
        })
    }

    /// What the host writes before an engine begins.
    pub fn expect(&self, plan: &CheckedPlan) {
        let keys: Vec<_> =
            plan.objects.iter().map(|planned| (planned.key.clone(), planned.handling.keep)).collect();
        let written = self.store.call_blocking(|connection| -> Result<(), StoreError> {
            let transaction = connection.transaction()?;
            Inventory::expect(&transaction, CLUSTER, &self.plugin, 1, &keys)?;
            Ok(transaction.commit()?)
        });
        written.expect("it is written");
    }

    pub async fn apply(&self, plan: &CheckedPlan) -> Result<Applied, Failure> {
        self.apply_with(plan, Consent::default()).await
    }

    pub async fn apply_with(&self, plan: &CheckedPlan, consent: Consent) -> Result<Applied, Failure> {
        self.expect(plan);
        self.engine().apply(plan, consent).await
    }

    /// What is told while `work` runs.
    pub async fn lines<T>(&self, work: impl Future<Output = T>) -> (T, Vec<String>) {
        let (mut lines, _) = self.progress.follow();
        let done = work.await;
        let mut told = Vec::new();
        while let Ok(line) = lines.try_recv() {
            told.push(line);
        }
        (done, told)
    }
}
