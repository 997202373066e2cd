//! The cluster's Kubernetes API as the host agent uses it: a live view of nodes and system pods, and the few
//! things that are done to nodes (pod CIDR, drain, restart of pods for another pod network, delete).
//!
//! One [`Kubernetes`] per cluster; its watches run until it is dropped. It decides nothing.
//!
//! - `eviction`: pods that leave a node, or are made anew on it

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, Node, NodeCondition, Pod};
use k8sctl_types::node_label::kubelet_may_set;
use k8sctl_types::spec::{NodeSpec, Role};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{PartialObjectMeta, Status};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::crash;
use crate::pki;

mod eviction;
#[cfg(test)]
mod tests;

pub use eviction::Remaining;
use eviction::{has_ended, is_mirror};

/// What the API server says now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubernetesView {
    /// The node list has been read since the last interruption.
    pub reachable: bool,
    /// Why it is not reachable, as last seen.
    pub error: String,
    /// By node name.
    pub nodes: BTreeMap<String, KubernetesNode>,
    /// Pods of kube-system by name; `true` means: running and ready.
    pub system_pods: BTreeMap<String, PodState>,
    /// Names of the ConfigMaps in kube-system.
    pub configs: BTreeMap<String, ()>,
}

/// A client is made anew after this time; an administrator's certificate lives for 30 days.
const CLIENT_LIFE: SignedDuration = SignedDuration::from_hours(15 * 24);
/// A watch is ended by the API server after so many seconds and begun anew: a connection on which nothing comes for
/// [`READ_TIMEOUT`] is then dead.
const WATCH_SECONDS: u32 = 45;
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two tries of a watch.
const PAUSE: Duration = Duration::from_millis(400);

/// Label by which kubectl tells a worker.
const WORKER_LABEL: &str = "node-role.kubernetes.io/worker";
/// Annotation of a node that was cordoned here, and not by a person.
const DRAINING: &str = "k8sctl.org/draining";

/// A node object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubernetesNode {
    /// Its Ready condition is True.
    pub ready: bool,
    /// Reason and message of the Ready condition.
    pub why: String,
    /// When the Ready condition last changed its status.
    pub since: Option<jiff::Timestamp>,
    /// Its other conditions that are True, which is bad of all of them: DiskPressure and what other watchers add.
    pub troubles: Vec<String>,
    /// `spec.podCIDR`.
    pub pod_cidr: Option<String>,
    /// This host agent has begun to drain it.
    pub draining: bool,
}

/// A pod of kube-system.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodState {
    /// Running and ready.
    pub ready: bool,
    /// Phase or waiting reason.
    pub why: String,
    /// Where it runs.
    pub node: String,
    /// It has done its work, or was given up: a Job's, or one that was evicted. Nobody waits for it.
    pub ended: bool,
}

/// Something that was asked of the API failed.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// The kubeconfig that we made ourselves does not make a client.
    #[error("cannot make a client of the administrator's kubeconfig")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A request failed.
    #[error("cannot {what} {object}")]
    Request {
        /// What was asked.
        what: &'static str,
        /// Of which object.
        object: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A cluster's API. Dropping it ends its watches.
pub struct Kubernetes {
    made: jiff::Timestamp,
    client: Client,
    view: watch::Receiver<KubernetesView>,
    _watches: JoinSet<()>,
}

/// Retry policy of the watches: the API server of a cluster that comes up answers any moment now, so the pause
/// stays short.
#[derive(Debug)]
struct ShortPause;

impl Iterator for ShortPause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(PAUSE)
    }
}

impl Backoff for ShortPause {
    fn reset(&mut self) {}
}

impl Kubernetes {
    /// A client for that kubeconfig, watching from now on. The API server need not be up yet.
    pub async fn connect(kubeconfig_yaml: &str) -> Result<Self, KubernetesError> {
        let client = client(kubeconfig_yaml).await?;
        let (sender, view) = watch::channel(KubernetesView::default());
        let mut watches = JoinSet::new();
        watches.spawn(watch_nodes(Api::all(client.clone()), sender.clone()));
        watches.spawn(watch_system_pods(Api::namespaced(client.clone(), "kube-system"), sender.clone()));
        watches.spawn(watch_configs(Api::namespaced(client.clone(), "kube-system"), sender));
        Ok(Self { made: jiff::Timestamp::now(), client, view, _watches: watches })
    }

    /// Whether its certificate comes near its end, or has not begun since the host's clock went back.
    pub fn is_old(&self) -> bool {
        pki::is_due(self.made, CLIENT_LIFE, jiff::Timestamp::now())
    }

    /// When it was made, by which one is told from another.
    pub fn made(&self) -> jiff::Timestamp {
        self.made
    }

    /// The live view.
    pub fn view(&self) -> watch::Receiver<KubernetesView> {
        self.view.clone()
    }

    /// For the plugin engine.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Gives a new node its pod CIDR, which Kubernetes allows once, and the labels that its kubelet may not give it.
    pub async fn introduce_node(&self, node: &NodeSpec, cidr: &str) -> Result<(), KubernetesError> {
        crash::point("before-introduce-node");
        self.patch_node("set the pod CIDR of node", &node.name, &introduction(node, cidr)).await?;
        crash::point("after-introduce-node");
        Ok(())
    }

    /// Keeps new pods off a node.
    async fn cordon(&self, node: &str) -> Result<(), KubernetesError> {
        let patch = json!({
            "metadata": { "annotations": { DRAINING: "true" } },
            "spec": { "unschedulable": true },
        });
        self.patch_node("cordon node", node, &patch).await
    }

    /// Lets pods onto a node again that was cordoned here.
    pub async fn uncordon(&self, node: &str) -> Result<(), KubernetesError> {
        let patch = json!({
            "metadata": { "annotations": { DRAINING: null } },
            "spec": { "unschedulable": false },
        });
        self.patch_node("uncordon node", node, &patch).await
    }

    async fn patch_node(
        &self,
        what: &'static str,
        node: &str,
        patch: &serde_json::Value,
    ) -> Result<(), KubernetesError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        match nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(request_error(what, node, error)),
        }
    }

    /// Removes a node object; without effect if it is gone.
    pub async fn delete_node(&self, node: &str) -> Result<(), KubernetesError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        match nodes.delete(node, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(request_error("delete node", node, error)),
        }
    }
}

/// A client for that kubeconfig. The API server need not be up yet.
pub async fn client(kubeconfig_yaml: &str) -> Result<Client, KubernetesError> {
    let config =
        Kubeconfig::from_yaml(kubeconfig_yaml).map_err(|error| KubernetesError::Client(Box::new(error)))?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .map_err(|error| KubernetesError::Client(Box::new(error)))?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(READ_TIMEOUT);
    // What a connection has been idle for does not count against the next answer.
    config.reset_reader_on_write = true;
    // Who asks decides whether to ask again: an eviction that a budget forbids would be repeated for minutes.
    config.default_retry = false;
    // The API server is in our own VM network: an outside proxy never leads there.
    config.proxy_url = None;
    Client::try_from(config).map_err(|error| KubernetesError::Client(Box::new(error)))
}

/// In one patch, so that a node that has its pod CIDR has its labels too. A worker gets the role that `kubectl get nodes`
/// shows: kubeadm knows none but the control plane's.
fn introduction(node: &NodeSpec, cidr: &str) -> serde_json::Value {
    let mut labels: BTreeMap<&str, &str> = node
        .labels
        .iter()
        .filter(|(key, _)| !kubelet_may_set(key))
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    if node.role == Role::Worker {
        labels.insert(WORKER_LABEL, "");
    }
    json!({ "metadata": { "labels": labels }, "spec": { "podCIDR": cidr, "podCIDRs": [cidr] } })
}

fn request_error(what: &'static str, object: &str, source: kube::Error) -> KubernetesError {
    KubernetesError::Request { what, object: object.to_owned(), source: Box::new(source) }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn watches() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Listed anew after each interruption: a watch that goes on from where it was would never say that all is seen again.
async fn watch_nodes(api: Api<Node>, view: watch::Sender<KubernetesView>) {
    loop {
        let stream = watcher::watcher(api.clone(), watches());
        mirror(stream, &view, |view| &mut view.nodes, node_view, true).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn watch_system_pods(api: Api<Pod>, view: watch::Sender<KubernetesView>) {
    let stream = watcher::watcher(api, watches()).backoff(ShortPause);
    mirror(stream, &view, |view| &mut view.system_pods, pod_view, false).await;
}

/// Their content is of no interest.
async fn watch_configs(api: Api<PartialObjectMeta<ConfigMap>>, view: watch::Sender<KubernetesView>) {
    let stream = watcher::watcher(api, watches()).backoff(ShortPause);
    mirror(stream, &view, |view| &mut view.configs, |_| (), false).await;
}

/// Keeps one map of the view equal to what the API server holds. The one that leads says whether the API is reachable,
/// and ends with the first error.
async fn mirror<K, V>(
    stream: impl futures::Stream<Item = Result<Event<K>, watcher::Error>>,
    view: &watch::Sender<KubernetesView>,
    map: impl Fn(&mut KubernetesView) -> &mut BTreeMap<String, V>,
    read: impl Fn(&K) -> V,
    leads: bool,
) where
    K: kube::Resource,
    V: PartialEq,
{
    let name = |object: &K| object.meta().name.clone().unwrap_or_default();
    let mut fresh = BTreeMap::new();
    let mut stream = Box::pin(stream.into_stream());
    while let Some(event) = stream.next().await {
        let ends = leads && event.is_err();
        view.send_if_modified(|view| match event {
            Ok(Event::Init) => {
                fresh.clear();
                false
            }
            Ok(Event::InitApply(object)) => {
                fresh.insert(name(&object), read(&object));
                false
            }
            Ok(Event::InitDone) => {
                *map(view) = std::mem::take(&mut fresh);
                if leads {
                    view.reachable = true;
                    view.error.clear();
                }
                true
            }
            Ok(Event::Apply(object)) => {
                let value = read(&object);
                let old = map(view).insert(name(&object), value);
                old.as_ref() != map(view).get(&name(&object))
            }
            Ok(Event::Delete(object)) => map(view).remove(&name(&object)).is_some(),
            Err(error) if leads => {
                let text = watch_error(&error);
                let changed = view.reachable || view.error != text;
                view.reachable = false;
                view.error = text;
                changed
            }
            Err(_) => false,
        });
        if ends {
            return;
        }
    }
}

fn watch_error(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => api_error(status),
        other => k8sctl_rpc::chain(other).to_string(),
    }
}

fn api_error(status: &Status) -> String {
    format!("{} {}", status.code, status.message)
}

fn node_view(node: &Node) -> KubernetesNode {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is_trouble = |it: &&NodeCondition| it.type_ != "Ready" && it.status == "True";
    let trouble = |it: &NodeCondition| format!("{}: {}", it.type_, part(&it.message));
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let spec = node.spec.as_ref();
    KubernetesNode {
        ready: ready.is_some_and(|condition| condition.status == "True"),
        why: ready.map_or_else(
            || "the kubelet has not reported yet".to_owned(),
            |condition| format!("{}: {}", part(&condition.reason), part(&condition.message)),
        ),
        troubles: conditions.iter().filter(is_trouble).map(trouble).collect(),
        since: ready.and_then(|condition| Some(condition.last_transition_time.as_ref()?.0)),
        pod_cidr: spec.and_then(|spec| spec.pod_cidr.clone()).filter(|cidr| !cidr.is_empty()),
        draining: node.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(DRAINING)),
    }
}

fn pod_view(pod: &Pod) -> PodState {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let waiting = status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default()
        .iter()
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    PodState {
        ready,
        why: waiting
            .or_else(|| status.and_then(|status| status.phase.clone()))
            .unwrap_or_else(|| "Unknown".to_owned()),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        ended: has_ended(pod) && !is_mirror(pod),
    }
}
