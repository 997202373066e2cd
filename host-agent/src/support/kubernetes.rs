//! Nodes, pods and events of a cluster, as its API tells them: how things are, and nothing that a person has written into
//! environments, arguments or annotations.

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use k8sctl_types::failure::Failure;
use kube::Client;
use kube::api::{Api, ListParams, LogParams};
use serde_json::{Value, json};

use super::{Text, pretty};
use crate::cluster::manager::RequestError;
use crate::records::ClusterRecord;

/// Most objects of a kind.
const OBJECTS: u32 = 2000;
/// Where the system's pods are.
const SYSTEM: &str = "kube-system";
/// On a pod that the API server only shows: its node runs it by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Most containers whose logs are read.
const LOGS: usize = 40;
/// Last lines of each. A line has 16 KiB and more where its program wishes, and all that is read at a time is in memory.
const LINES: i64 = 500;

/// Nodes with their conditions.
pub(super) async fn nodes(client: &Client) -> Result<Text, Failure> {
    let nodes = Api::<Node>::all(client.clone()).list(&params()).await.map_err(failed)?;
    let shown = nodes.items.iter().map(|node| {
        json!({
            "name": node.metadata.name,
            "created": node.metadata.creation_timestamp,
            "labels": node.metadata.labels,
            "pod_cidr": node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()),
            "unschedulable": node.spec.as_ref().and_then(|spec| spec.unschedulable),
            "taints": node.spec.as_ref().and_then(|spec| spec.taints.as_ref()),
            "status": node.status.as_ref().map(|status| json!({
                "addresses": status.addresses,
                "allocatable": status.allocatable,
                "capacity": status.capacity,
                "conditions": status.conditions,
                "node_info": status.node_info,
            })),
        })
    });
    Ok(first(&shown.collect(), &nodes.metadata))
}

/// Pods of all namespaces.
pub(super) async fn pods(client: &Client) -> Result<Text, Failure> {
    let pods = Api::<Pod>::all(client.clone()).list(&params()).await.map_err(failed)?;
    Ok(first(&pods.items.iter().map(pod).collect(), &pods.metadata))
}

/// A container of a pod of the system.
#[derive(Debug, PartialEq)]
pub(super) struct Container {
    pub(super) pod: String,
    pub(super) name: String,
}

/// The containers of the system's pods but the static ones, which their nodes tell of. Those of pods that are not Ready
/// come first, and of many these are the ones that are left.
pub(super) async fn system_containers(client: &Client) -> Result<Vec<Container>, Failure> {
    let pods = Api::<Pod>::namespaced(client.clone(), SYSTEM);
    let pods = pods.list(&params()).await.map_err(failed)?.items;
    Ok(containers(pods))
}

fn containers(mut pods: Vec<Pod>) -> Vec<Container> {
    pods.retain(|pod| !pod.metadata.annotations.iter().any(|notes| notes.contains_key(MIRROR)));
    pods.sort_by_cached_key(|pod| (is_ready(pod), pod.metadata.name.clone()));
    let of_pod = |pod: Pod| {
        let name = pod.metadata.name.unwrap_or_default();
        let all = pod.spec.map(|spec| spec.containers).unwrap_or_default();
        all.into_iter().map(move |container| Container { pod: name.clone(), name: container.name })
    };
    pods.into_iter().flat_map(of_pod).take(LOGS).collect()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The end of what it has said.
pub(super) async fn log(client: &Client, container: &Container) -> Result<Text, Failure> {
    let params = LogParams {
        container: Some(container.name.clone()),
        // Not so many bytes: of the last lines a kubelet gives the first ones then.
        tail_lines: Some(LINES),
        timestamps: true,
        ..LogParams::default()
    };
    let pods = Api::<Pod>::namespaced(client.clone(), SYSTEM);
    let text = pods.logs(&container.pod, &params).await.map_err(failed)?;
    let is_end = text.lines().count() >= LINES as usize;
    Ok(Text { text, is_end })
}

fn pod(pod: &Pod) -> Value {
    let containers = pod.spec.as_ref().map(|spec| &spec.containers);
    let images: Vec<Value> = containers
        .into_iter()
        .flatten()
        .map(|container| json!({ "name": container.name, "image": container.image }))
        .collect();
    json!({
        "namespace": pod.metadata.namespace,
        "name": pod.metadata.name,
        "created": pod.metadata.creation_timestamp,
        "deleted": pod.metadata.deletion_timestamp,
        "owners": pod.metadata.owner_references.as_ref().map(|owners| {
            owners.iter().map(|owner| format!("{} {}", owner.kind, owner.name)).collect::<Vec<_>>()
        }),
        "node": pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()),
        "containers": images,
        "status": pod.status,
    })
}

/// What Kubernetes says has happened.
pub(super) async fn events(client: &Client) -> Result<Text, Failure> {
    let events = Api::<Event>::all(client.clone()).list(&params()).await.map_err(failed)?;
    let shown = events.items.iter().map(|event| {
        json!({
            "first": event.first_timestamp,
            "last": event.last_timestamp,
            "count": event.count,
            "type": event.type_,
            "reason": event.reason,
            "object": [
                &event.involved_object.kind,
                &event.involved_object.namespace,
                &event.involved_object.name,
            ],
            "message": event.message,
        })
    });
    Ok(first(&shown.collect(), &events.metadata))
}

/// The first of a list, or all of it.
fn first(shown: &Value, list: &ListMeta) -> Text {
    let is_end = list.continue_.as_ref().is_some_and(|rest| !rest.is_empty());
    Text { text: pretty(shown), is_end }
}

/// The API of a cluster cannot be asked at all.
pub(super) fn unreachable(cluster: &ClusterRecord, error: &RequestError) -> Failure {
    match error {
        RequestError::Refused(failure) => failure.clone(),
        other => {
            kubernetes_failure(&format!("cluster {}", cluster.name), &k8sctl_rpc::chain(other).to_string())
        }
    }
}

fn params() -> ListParams {
    ListParams::default().limit(OBJECTS)
}

fn failed(error: kube::Error) -> Failure {
    kubernetes_failure("Kubernetes API", &k8sctl_rpc::chain(&error).to_string())
}

fn kubernetes_failure(object: &str, reason: &str) -> Failure {
    let next = "see `k8sctl status`; what the nodes say of it is in the logs of the control plane";
    Failure::new("KUBERNETES-API", object, reason, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_are_not_ready_are_read_first_and_static_ones_by_their_nodes() {
        let pod = |name: &str, ready: &str, notes: Value| {
            let pod = json!({
                "metadata": { "name": name, "annotations": notes },
                "spec": { "containers": [{ "name": "a" }, { "name": "b" }] },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            });
            serde_json::from_value::<Pod>(pod).expect("a pod")
        };
        let pods = vec![
            pod("etcd-cp", "False", json!({ MIRROR: "x" })),
            pod("kube-proxy-1", "True", Value::Null),
            pod("coredns-1", "False", json!({ "a": "b" })),
        ];
        let read = containers(pods);
        let names: Vec<String> = read.iter().map(|it| format!("{} {}", it.pod, it.name)).collect();
        assert_eq!(names, ["coredns-1 a", "coredns-1 b", "kube-proxy-1 a", "kube-proxy-1 b"]);
        let many = (0..LOGS).map(|number| pod(&number.to_string(), "True", Value::Null)).collect();
        assert_eq!(containers(many).len(), LOGS);
    }

    #[test]
    fn nothing_that_was_written_into_a_pod_is_shown() {
        let written = serde_json::from_value::<Pod>(json!({
            "metadata": {
                "name": "web",
                "namespace": "default",
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "canary" },
            },
            "spec": {
                "nodeName": "k8s-worker-1",
                "containers": [{
                    "name": "app",
                    "image": "app:1",
                    "env": [{ "name": "MOTD", "value": "canary" }],
                    "args": ["--motd", "canary"],
                }],
            },
            "status": { "phase": "Running" },
        }));
        let shown = pod(&written.expect("a pod"));
        assert!(!shown.to_string().contains("canary"), "{shown}");
        assert_eq!(
            (&shown["containers"][0]["image"], &shown["status"]["phase"]),
            (&json!("app:1"), &json!("Running"))
        );
    }
}
