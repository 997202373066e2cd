//! The engine against a real API server: install, again, change, remove; what is not ours is neither changed nor
//! deleted; a wait that fails says why. The Deployment controller is played by [`make_available`].

mod common;

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use common::cluster::Cluster;
use common::{hello_program, host_with, plugin_folder};
use futures::StreamExt;
use host_plugins::{InstallError, PluginHost, PluginState, PluginStatus, SCHEMA};
use host_store::Store;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8sctl_types::failure::Failure;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchParams};
use kube::{Api, Client};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;

async fn hello_folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    plugin_folder(&folder.path().join("hello"), &hello_program().await, |manifest| manifest);
    let path = folder.path().to_owned();
    (folder, path)
}

/// Does what the Deployment controller and kubelets would: reports every pod of the current generation available.
/// Never ends.
async fn make_available(client: &Client) -> Infallible {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "hello");
    loop {
        let Ok(events) = deployments.watch(&WatchParams::default(), "0").await else { continue };
        let mut events = Box::pin(events);
        while let Some(Ok(event)) = events.next().await {
            use kube::core::WatchEvent::{Added, Modified};
            let (Added(live) | Modified(live)) = event else { continue };
            let generation = live.metadata.generation;
            if live.status.and_then(|status| status.observed_generation) == generation {
                continue;
            }
            let replicas = live.spec.and_then(|spec| spec.replicas);
            let status = json!({"status": {
                "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
                "readyReplicas": replicas, "availableReplicas": replicas,
            }});
            let _ = deployments.patch_status("hello", &PatchParams::default(), &Patch::Merge(&status)).await;
        }
    }
}

/// How long objects may take that have nothing to wait for.
const PATIENT: Duration = Duration::from_secs(60);

struct Bench {
    cluster: Cluster,
    host: PluginHost,
    store: Store,
    folder: TempDir,
}

impl Bench {
    async fn new() -> Option<Self> {
        // Built before servers run, whose time is bounded.
        let (folder, path) = hello_folder().await;
        let cluster = Cluster::start().await?;
        let store = Store::in_memory(&[SCHEMA]).expect("a database in memory");
        Some(Self { cluster, host: host_with(&path, store.clone(), PATIENT), store, folder })
    }

    /// A host agent that was started anew, and whose objects may take so long.
    fn restart(&mut self, patience: Duration) {
        self.host = host_with(self.folder.path(), self.store.clone(), patience);
    }

    async fn install(&self, config: &str) -> Result<PluginStatus, InstallError> {
        let access = self.cluster.access();
        let digest = self.host.offer(&access, "hello", config).await?.digest;
        let (progress, _lines) = mpsc::channel(64);
        tokio::select! {
            result = self.host.install(&access, "hello", config, &digest, progress) => result,
            never = make_available(&self.cluster.client) => match never {},
        }
    }

    async fn remove(&self) -> (Result<(), Failure>, Vec<String>) {
        let (progress, mut lines) = mpsc::channel(64);
        let result = self.host.remove(&self.cluster.access(), "hello", progress).await;
        let mut said = Vec::new();
        while let Some(line) = lines.recv().await {
            said.push(line);
        }
        (result, said)
    }

    async fn versions(&self) -> [Option<String>; 3] {
        let client = &self.cluster.client;
        let namespace = Api::<Namespace>::all(client.clone()).get("hello").await.expect("the namespace");
        let deployment = Api::<Deployment>::namespaced(client.clone(), "hello")
            .get("hello")
            .await
            .expect("the deployment");
        let service =
            Api::<Service>::namespaced(client.clone(), "hello").get("hello").await.expect("the service");
        [namespace.metadata, deployment.metadata, service.metadata].map(|metadata| metadata.resource_version)
    }
}

fn failure(result: Result<PluginStatus, InstallError>) -> Failure {
    match result {
        Err(InstallError::Failure(failure)) => failure,
        other => panic!("a failure was expected: {other:?}"),
    }
}

#[tokio::test]
async fn hello_comes_stays_changes_and_goes() {
    let Some(bench) = Bench::new().await else { return };
    let client = bench.cluster.client.clone();

    let status = bench.install("{}").await.expect("it installs");
    assert_eq!((status.state, status.objects), (PluginState::Ready, 3));
    assert!(status.installed.is_some());

    // Again: nothing is written.
    let before = bench.versions().await;
    let again = bench.install("{}").await.expect("it installs again");
    assert_eq!((again.state, again.message.as_str()), (PluginState::Ready, "no changes"));
    assert_eq!(bench.versions().await, before);

    // Another config: only the Deployment changes.
    bench.install(r#"{"replicas": 3}"#).await.expect("it changes");
    let after = bench.versions().await;
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);

    // A field that somebody else took is not taken back by force.
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "hello");
    let theirs = json!({"spec": {"replicas": 5}});
    let manager = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
    deployments.patch("hello", &manager, &Patch::Merge(&theirs)).await.expect("somebody scales it");
    let conflict = failure(bench.install("{}").await);
    assert_eq!(conflict.id, "PLUGIN-CONFLICT", "{conflict:?}");
    assert!(conflict.reason.contains("somebody"), "{conflict}");
    let list = bench.host.list("cluster-1").await.expect("it lists");
    assert_eq!(list[0].state, PluginState::Failed);

    let (removed, said) = bench.remove().await;
    removed.expect("it is removed");
    let order: Vec<_> = said.iter().map(String::as_str).filter(|line| line.starts_with("deleted")).collect();
    assert_eq!(
        order,
        [
            "deleted apps/v1 Deployment hello/hello",
            "deleted v1 Service hello/hello",
            "deleted v1 Namespace hello"
        ]
    );
    assert!(Api::<Namespace>::all(client).get_opt("hello").await.expect("the API answers").is_none());
    let list = bench.host.list("cluster-1").await.expect("it lists");
    assert_eq!((list[0].state, list[0].objects), (PluginState::Available, 0));
    assert_eq!(bench.remove().await.0.expect_err("it is gone").id, "PLUGIN-NOT-INSTALLED");
}

#[tokio::test]
async fn what_is_not_ours_is_neither_changed_nor_deleted() {
    let Some(bench) = Bench::new().await else { return };
    let client = bench.cluster.client.clone();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "hello");
    let services: Api<Service> = Api::namespaced(client.clone(), "hello");

    // A namespace of that name is there already: nothing at all is written.
    let mut theirs = Namespace::default();
    theirs.metadata.name = Some("hello".to_owned());
    let made = namespaces.create(&PostParams::default(), &theirs).await.expect("it is made");
    let refused = failure(bench.install("{}").await);
    assert_eq!(refused.id, "PLUGIN-OBJECT-FOREIGN", "{refused:?}");
    let (removed, _) = bench.remove().await;
    removed.expect("there is nothing of ours");
    let still = namespaces.get("hello").await.expect("it is still there");
    assert_eq!((still.metadata.uid, still.metadata.labels), (made.metadata.uid, made.metadata.labels));
    namespaces.delete("hello", &DeleteParams::default()).await.expect("its owner deletes it");

    // While that one is on its way out, an installation waits for it.
    bench.install("{}").await.expect("it installs");

    // A Service that somebody made anew under our name, and notes in our namespace.
    let ours = services.get("hello").await.expect("ours");
    services.delete("hello", &DeleteParams::default()).await.expect("somebody deletes ours");
    let mut spec = ours.spec.expect("it has one");
    spec.cluster_ip = None;
    spec.cluster_ips = None;
    let mut foreign = Service { spec: Some(spec), ..Service::default() };
    foreign.metadata.name = Some("hello".to_owned());
    foreign.metadata.annotations = ours.metadata.annotations;
    let foreign = services.create(&PostParams::default(), &foreign).await.expect("and makes their own");
    let mut notes = ConfigMap::default();
    notes.metadata.name = Some("notes".to_owned());
    maps.create(&PostParams::default(), &notes).await.expect("notes are made");

    let (removed, said) = bench.remove().await;
    removed.expect("it is removed");
    assert!(said.iter().any(|line| line.starts_with("left v1 Service hello/hello")), "{said:?}");
    let kept = said.iter().find(|line| line.starts_with("kept v1 Namespace hello")).expect("it is said");
    assert!(kept.contains("ConfigMap notes") && kept.contains("Service hello"), "{kept}");
    assert!(!kept.contains("kube-root-ca.crt") && !kept.contains("Secret"), "{kept}");
    let left = services.get("hello").await.expect("it is still there");
    assert_eq!(left.metadata.uid, foreign.metadata.uid);
    maps.get("notes").await.expect("they are still there");
    let deployment = Api::<Deployment>::namespaced(client, "hello").get_opt("hello").await;
    assert!(deployment.expect("the API answers").is_none());
}

#[tokio::test]
async fn a_wait_that_fails_says_what_blocks_and_the_next_one_goes_on() {
    let (_folder, path) = hello_folder().await;
    let Some(cluster) = Cluster::start().await else { return };
    let store = Store::in_memory(&[SCHEMA]).expect("a database in memory");
    let host = host_with(&path, store.clone(), Duration::from_secs(2));
    let access = cluster.access();
    let digest = host.offer(&access, "hello", "{}").await.expect("an offer").digest;
    let (progress, mut lines) = mpsc::channel(64);
    let result = host.install(&access, "hello", "{}", &digest, progress).await;

    // Nobody runs pods here.
    let failure = failure(result);
    assert_eq!(failure.id, "PLUGIN-NOT-READY", "{failure:?}");
    assert!(failure.reason.contains("apps/v1 Deployment hello/hello"), "{failure}");
    assert!(failure.reason.contains("its controller has not seen it yet"), "{failure}");
    let mut said = Vec::new();
    while let Some(line) = lines.recv().await {
        said.push(line);
    }
    assert!(said.iter().any(|line| line == "created apps/v1 Deployment hello/hello"), "{said:?}");

    // The same command, by a host agent that was started anew, goes on.
    let host = host_with(&path, store, Duration::from_secs(60));
    let (progress, _lines) = mpsc::channel(64);
    let status = tokio::select! {
        result = host.install(&access, "hello", "{}", &digest, progress) => result.expect("it goes on"),
        never = make_available(&cluster.client) => match never {},
    };
    assert_eq!((status.state, status.message.as_str()), (PluginState::Ready, "no changes"));
}

#[tokio::test]
async fn a_namespace_that_stays_says_which_pod_holds_it() {
    let Some(mut bench) = Bench::new().await else { return };
    bench.install("{}").await.expect("it installs");

    // On its way out, and held.
    let client = bench.cluster.client.clone();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "hello");
    let pod = json!({
        "metadata": {"name": "held", "finalizers": ["example.com/hold"]},
        "spec": {"containers": [{"name": "held", "image": "held"}], "automountServiceAccountToken": false},
    });
    // Its controller makes the account a moment after the namespace.
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "hello");
    let made = async {
        while accounts.get_opt("default").await.expect("the API answers").is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENT, made).await.expect("the namespace has an account");
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    pods.create(&PostParams::default(), &pod).await.expect("it is made");
    pods.delete("held", &DeleteParams::default().grace_period(0)).await.expect("it is deleted");

    bench.restart(Duration::from_secs(2));
    let (removed, said) = bench.remove().await;
    let failure = removed.expect_err("the pod holds it");
    assert_eq!(failure.id, "PLUGIN-NOT-GONE", "{failure:?}");
    let held = "pod held has the finalizers example.com/hold";
    assert!(failure.reason.contains(held), "{failure}");
    assert!(failure.next_step.contains("kubectl get namespace hello -o yaml"), "{failure:?}");
    assert!(said.contains(&format!("waiting until v1 Namespace hello is gone: {held}")), "{said:?}");

    // It lets go, and the same command goes on.
    let free = json!({"metadata": {"finalizers": null}});
    pods.patch("held", &PatchParams::default(), &Patch::Merge(&free)).await.expect("it is let go");
    bench.restart(PATIENT);
    bench.remove().await.0.expect("it is removed");
}
