//! Plays the controllers and kubelets that a cluster of a test does not have: workloads become available, Jobs complete,
//! claims are bound, load balancers get addresses. What is told to be left alone stays as it is, and what is told to fail
//! fails.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::discovery::ApiResource;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(150);
const THEN: &str = "2026-01-01T00:00:00Z";

#[derive(Default)]
struct Orders {
    alone: BTreeSet<String>,
    failing: BTreeSet<String>,
}

/// Ends with its last clone.
#[derive(Clone)]
pub struct Kubelet {
    orders: Arc<Mutex<Orders>>,
    _task: Arc<JoinSet<()>>,
}

impl Kubelet {
    pub fn start(client: &Client) -> Self {
        let orders = Arc::<Mutex<Orders>>::default();
        let (client, heard) = (client.clone(), orders.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                look(&client, &heard).await;
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { orders, _task: Arc::new(task) }
    }

    /// Objects of this name stay as they are.
    pub fn leave_alone(&self, name: &str) {
        self.orders().alone.insert(name.to_owned());
    }

    /// No more.
    pub fn care_for(&self, name: &str) {
        self.orders().alone.remove(name);
    }

    /// Jobs of this name fail.
    pub fn fail(&self, name: &str) {
        self.orders().failing.insert(name.to_owned());
    }

    fn orders(&self) -> std::sync::MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look at everything. Requests that fail are made again with the next one: the API server may be away.
async fn look(client: &Client, orders: &Mutex<Orders>) {
    play::<Deployment>(client, orders, deployment).await;
    play::<DaemonSet>(client, orders, daemon_set).await;
    play::<StatefulSet>(client, orders, stateful_set).await;
    play::<PersistentVolumeClaim>(client, orders, claim).await;
    play::<Service>(client, orders, service).await;
    let failing = orders.lock().unwrap_or_else(PoisonError::into_inner).failing.clone();
    play::<Job>(client, orders, |job| {
        let fails = failing.contains(job["metadata"]["name"].as_str().unwrap_or_default());
        job_status(job, fails)
    })
    .await;
}

/// Gives every object of a kind the status that it should have, where it has another one.
async fn play<K>(client: &Client, orders: &Mutex<Orders>, status: impl Fn(&Value) -> Option<Value>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let Ok(list) = Api::<K>::all(client.clone()).list(&ListParams::default()).await else { return };
    for object in list {
        let object = serde_json::to_value(&object).expect("an object");
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let is_alone = orders.lock().unwrap_or_else(PoisonError::into_inner).alone.contains(&name);
        if is_alone {
            continue;
        }
        if let Some(status) = status(&object) {
            let kind = ApiResource::erase::<K>(&());
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &kind);
            let patch = Patch::Merge(json!({"status": status}));
            let _ = api.patch_status(&name, &PatchParams::default(), &patch).await;
        }
    }
}

/// `None`: its controller has seen it.
fn generation(object: &Value) -> Option<i64> {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(1);
    (object["status"]["observedGeneration"].as_i64() != Some(generation)).then_some(generation)
}

fn deployment(object: &Value) -> Option<Value> {
    let (generation, replicas) = (generation(object)?, object["spec"]["replicas"].as_i64().unwrap_or(1));
    Some(json!({
        "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": replicas, "availableReplicas": replicas,
    }))
}

fn stateful_set(object: &Value) -> Option<Value> {
    let (generation, replicas) = (generation(object)?, object["spec"]["replicas"].as_i64().unwrap_or(1));
    Some(json!({
        "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": replicas, "currentReplicas": replicas, "availableReplicas": replicas,
        "currentRevision": "a", "updateRevision": "a",
    }))
}

/// There are two nodes; none for those that want a label which no node has.
fn daemon_set(object: &Value) -> Option<Value> {
    let nodes = if object.pointer("/spec/template/spec/nodeSelector/nobody").is_some() { 0 } else { 2 };
    Some(json!({
        "observedGeneration": generation(object)?, "desiredNumberScheduled": nodes, "currentNumberScheduled": nodes,
        "numberMisscheduled": 0, "numberReady": nodes, "updatedNumberScheduled": nodes, "numberAvailable": nodes,
    }))
}

fn job_status(object: &Value, fails: bool) -> Option<Value> {
    if object["status"]["conditions"].is_array() {
        return None;
    }
    let condition = |kind: &str, message: &str| {
        json!({"type": kind, "status": "True", "reason": "Played", "message": message,
               "lastProbeTime": THEN, "lastTransitionTime": THEN})
    };
    Some(if fails {
        let conditions = [condition("FailureTarget", "it fails"), condition("Failed", "it was told to fail")];
        json!({"startTime": THEN, "failed": 1, "conditions": conditions})
    } else {
        let conditions = [condition("SuccessCriteriaMet", "it runs"), condition("Complete", "it ran")];
        json!({"startTime": THEN, "completionTime": THEN, "succeeded": 1, "conditions": conditions})
    })
}

/// Claims of classes that wait for a pod are bound with the pod, and there is none.
fn claim(object: &Value) -> Option<Value> {
    let waits = object["spec"]["storageClassName"].as_str().is_some_and(|class| class.starts_with("waiting"));
    (object["status"]["phase"] != "Bound" && !waits).then(|| json!({"phase": "Bound"}))
}

fn service(object: &Value) -> Option<Value> {
    let wants = object["spec"]["type"] == "LoadBalancer";
    let has = object.pointer("/status/loadBalancer/ingress").is_some();
    (wants && !has).then(|| json!({"loadBalancer": {"ingress": [{"ip": "192.168.122.100"}]}}))
}
