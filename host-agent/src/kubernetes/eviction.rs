//! Pods that shall leave a node, for ever or to be made anew: evicted, so that disruption budgets are honoured.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::json;

use super::{Kubernetes, KubernetesError, is_gone, request_error};

/// Pods that are still on a node that is drained, or whose pods are restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// How many.
    pub count: usize,
    /// Namespace and name of the first.
    pub first: String,
    /// Why it stays.
    pub why: String,
}

impl Kubernetes {
    /// Cordons a node and evicts its pods, those of DaemonSets and static ones excepted; what is still there is told.
    /// Called until nothing is. Disruption budgets are honoured. A node that is not Ready ends no pod any more:
    /// there it is enough that all have been told to.
    pub async fn drain(&self, node: &str) -> Result<Option<Remaining>, KubernetesError> {
        match self.cordon(node).await {
            Err(KubernetesError::Request { source, .. }) if is_gone(&source) => return Ok(None),
            other => other?,
        }
        let pods = self.pods_on(node).await?;
        self.evict_all(node, pods.iter().filter(|pod| must_leave(pod)).collect()).await
    }

    /// UIDs of the pods of a node that have an address of the pod network.
    pub async fn networked_pods(&self, node: &str) -> Result<BTreeSet<String>, KubernetesError> {
        let pods = self.pods_on(node).await?;
        Ok(pods.iter().filter(|pod| is_networked(pod)).filter_map(|pod| pod.metadata.uid.clone()).collect())
    }

    /// Evicts those of these pods that are still there, for others to take their places; what is still there is told.
    /// Called until nothing is. Disruption budgets are honoured.
    pub async fn restart_pods(
        &self,
        node: &str,
        uids: &BTreeSet<String>,
    ) -> Result<Option<Remaining>, KubernetesError> {
        let pods = self.pods_on(node).await?;
        let is_meant =
            |pod: &&Pod| !has_ended(pod) && pod.metadata.uid.as_ref().is_some_and(|uid| uids.contains(uid));
        self.evict_all(node, pods.iter().filter(is_meant).collect()).await
    }

    async fn pods_on(&self, node: &str) -> Result<Vec<Pod>, KubernetesError> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let listed = pods.list(&on_node).await;
        Ok(listed.map_err(|error| request_error("list pods of node", node, error))?.items)
    }

    /// What of these is still there.
    async fn evict_all(&self, node: &str, pods: Vec<&Pod>) -> Result<Option<Remaining>, KubernetesError> {
        let is_dead = self.view.borrow().nodes.get(node).is_some_and(|seen| !seen.ready);
        let (mut count, mut first) = (0, None);
        for pod in pods {
            let ends = pod.metadata.deletion_timestamp.is_some();
            if ends && is_dead {
                continue;
            }
            let mut why = String::from("it is ending");
            if !ends && let Err(error) = self.evict(pod).await {
                why = k8sctl_rpc::chain(&error).to_string();
            }
            count += 1;
            first.get_or_insert((pod_name(pod), why));
        }
        Ok(first.map(|(first, why)| Remaining { count, first, why }))
    }

    async fn evict(&self, pod: &Pod) -> Result<(), KubernetesError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
        // policy/v1 evictions exist from Kubernetes 1.22 on; older servers know v1beta1 only.
        for version in ["policy/v1", "policy/v1beta1"] {
            let body = json!({ "apiVersion": version, "kind": "Eviction",
                "metadata": { "name": name, "namespace": namespace } });
            let request = http::Request::post(&path)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(body.to_string().into_bytes())
                .expect("path and header are valid");
            match self.client.request::<serde_json::Value>(request).await {
                Ok(_) => return Ok(()),
                Err(error) if is_gone(&error) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 400 && version == "policy/v1" => {}
                Err(error) => return Err(request_error("evict pod", &pod_name(pod), error)),
            }
        }
        Ok(())
    }
}

fn pod_name(pod: &Pod) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

/// Static pods mirror files and DaemonSet pods come back: both stay until the node is gone.
pub(super) fn must_leave(pod: &Pod) -> bool {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let is_daemon = owners.iter().any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true));
    !is_mirror(pod) && !is_daemon && !has_ended(pod)
}

/// It has an address of the pod network, and another one when it is made anew.
pub(super) fn is_networked(pod: &Pod) -> bool {
    let is_on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    !is_on_host && !is_mirror(pod) && !has_ended(pod)
}

/// A static pod, which comes and goes with its file on the node.
pub(super) fn is_mirror(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"))
}

/// It does not run and will not run again.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
