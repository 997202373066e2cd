//! Nodes, pods and events of a cluster, as its API tells them: how things are, and nothing that a person has written into
//! environments, arguments or annotations.

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8sctl_types::failure::Failure;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::pretty;
use crate::cluster::manager::RequestError;
use crate::records::ClusterRecord;

/// Most objects of a kind.
const OBJECTS: u32 = 2000;

/// Nodes with their conditions.
pub(super) async fn nodes(client: &Client) -> Result<String, Failure> {
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
    Ok(pretty(&shown.collect()))
}

/// Pods of all namespaces.
pub(super) async fn pods(client: &Client) -> Result<String, Failure> {
    let pods = Api::<Pod>::all(client.clone()).list(&params()).await.map_err(failed)?;
    Ok(pretty(&pods.items.iter().map(pod).collect()))
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
pub(super) async fn events(client: &Client) -> Result<String, Failure> {
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
    Ok(pretty(&shown.collect()))
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
