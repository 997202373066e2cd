//! Looks at what a node's way to membership has left so far: files, the kubelet's unit, the API server.

use std::net::SocketAddr;

use k8sctl_proto::node::v1::{DesiredState, ManagedFile};
use k8sctl_types::version::KubernetesVersion;
use serde_json::Value;

use super::plan::{ApiObserved, InitObserved, JoinObserved, NodeObserved};
use crate::converge::step::StepError;
use crate::durable::Root;
use crate::kubeconfig::Kubeconfig;
use crate::probe::{ApiClient, ProbeError};
use crate::steps::files::{ADMIN_CONF, KUBELET_CONF};
use crate::steps::kubelet::{self, UNIT};
use crate::steps::unit_is_active;

const MANIFESTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
const CRI_ANNOTATION: &str = "/metadata/annotations/kubeadm.alpha.kubernetes.io~1cri-socket";
const CONTROL_PLANE_LABEL: &str = "/metadata/labels/node-role.kubernetes.io~1control-plane";

/// Looks with the credentials that the host delivered.
pub struct Observer<'a> {
    root: &'a Root,
    desired: &'a DesiredState,
    version: &'a KubernetesVersion,
    api: ApiClient,
}

impl<'a> Observer<'a> {
    /// Looks at this control plane itself, as its administrator.
    pub fn of_control_plane(
        root: &'a Root,
        desired: &'a DesiredState,
        version: &'a KubernetesVersion,
    ) -> Result<Self, StepError> {
        let address = format!("{}:6443", desired.node_ip);
        Ok(Self { root, desired, version, api: client(desired, &address, ADMIN_CONF)? })
    }

    /// Looks at the cluster's endpoint, as this node.
    pub fn of_worker(
        root: &'a Root,
        desired: &'a DesiredState,
        version: &'a KubernetesVersion,
    ) -> Result<Self, StepError> {
        let api = client(desired, &desired.control_plane_endpoint, KUBELET_CONF)?;
        Ok(Self { root, desired, version, api })
    }

    /// The control plane.
    pub async fn init(&self, coredns: bool) -> InitObserved {
        let manifest = |name: &str| self.root.exists(format!("/etc/kubernetes/manifests/{name}.yaml"));
        let (api, api_says) = match self.control_plane_api(coredns).await {
            Ok(api) => (Some(api), String::new()),
            Err(says) => (None, says),
        };
        InitObserved {
            manifests: MANIFESTS.iter().all(|name| manifest(name)),
            kubelet_config: self.kubelet_config(),
            kubelet_active: kubelet_is_active().await,
            api,
            api_says,
        }
    }

    /// The worker.
    pub async fn join(&self) -> JoinObserved {
        let kubelet_config = self.kubelet_config();
        let (api, api_says) = match self.worker_api(kubelet_config).await {
            Ok(api) => (Some(api), String::new()),
            Err(says) => (None, says),
        };
        let (configs, node) = api.unzip();
        JoinObserved {
            kubelet_config,
            configs: configs.unwrap_or(false),
            // Of no interest before there is an API server to join.
            kubelet_active: node.is_some() && kubelet_is_active().await,
            node,
            api_says,
        }
    }

    /// Puts the CRI socket on the Node object, as kubeadm does at its end.
    pub async fn annotate(&self, socket: &str) -> Result<(), String> {
        let patch = serde_json::json!({"metadata": {"annotations": {"kubeadm.alpha.kubernetes.io/cri-socket": socket}}});
        let path = format!("/api/v1/nodes/{}", self.desired.node_name);
        match self.api.merge_patch(&path, &patch).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("the API server answered {}", answer.status)),
            Err(error) => Err(says(&error)),
        }
    }

    fn kubelet_config(&self) -> bool {
        self.root.exists("/var/lib/kubelet/config.yaml")
            && self.root.exists("/var/lib/kubelet/kubeadm-flags.env")
    }

    async fn control_plane_api(&self, coredns: bool) -> Result<ApiObserved, String> {
        match self.api.get("/readyz").await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return Err(not_ready(&answer.body)),
            Err(error) => return Err(says(&error)),
        }
        Ok(ApiObserved {
            configs: self.configs().await?,
            cluster_info: self.there("/api/v1/namespaces/kube-public/configmaps/cluster-info").await?,
            kube_proxy: self.there("/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy").await?,
            coredns: !coredns
                || self.there("/apis/apps/v1/namespaces/kube-system/deployments/coredns").await?,
            node: self.node().await?,
        })
    }

    /// Whether the configuration that a join reads is there, and the node's object.
    async fn worker_api(&self, has_joined: bool) -> Result<(bool, NodeObserved), String> {
        let configs = has_joined || self.configs().await?;
        Ok((configs, self.node().await?))
    }

    /// What kubeadm uploads first: its own configuration and the kubelets'.
    async fn configs(&self) -> Result<bool, String> {
        for name in self.version.join_config_maps() {
            if !self.there(&format!("/api/v1/namespaces/kube-system/configmaps/{name}")).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn node(&self) -> Result<NodeObserved, String> {
        let Some(node) = self.object(&format!("/api/v1/nodes/{}", self.desired.node_name)).await? else {
            return Ok(NodeObserved::default());
        };
        Ok(NodeObserved {
            registered: true,
            // Kept in the kubelet's own configuration since 1.34.
            annotated: self.version.minor() >= 34 || node.pointer(CRI_ANNOTATION).is_some(),
            marked: node.pointer(CONTROL_PLANE_LABEL).is_some(),
        })
    }

    async fn there(&self, path: &str) -> Result<bool, String> {
        Ok(self.object(path).await?.is_some())
    }

    async fn object(&self, path: &str) -> Result<Option<Value>, String> {
        match self.api.get(path).await {
            Ok(answer) if answer.status == 200 => {
                serde_json::from_slice(&answer.body).map(Some).map_err(|error| error.to_string())
            }
            // From 1.29 on, the administrator has no rights before kubeadm has given them.
            Ok(answer) if matches!(answer.status, 403 | 404) => Ok(None),
            Ok(answer) => Err(format!("the API server answered {} to {path}", answer.status)),
            Err(error) => Err(says(&error)),
        }
    }
}

/// A healthy kubelet is asked itself: on an emulated machine, a process each look would take what the API server
/// needs for its start.
async fn kubelet_is_active() -> bool {
    kubelet::health().await.is_ok() || unit_is_active(UNIT).await
}

/// The kubeconfig that the host delivers at this path.
pub fn delivered<'a>(desired: &'a DesiredState, path: &str) -> Result<&'a ManagedFile, StepError> {
    let file = desired.files.iter().find(|file| file.path == path);
    file.ok_or_else(|| StepError::Desired(format!("{path} is not among the managed files")))
}

fn client(desired: &DesiredState, address: &str, kubeconfig: &str) -> Result<ApiClient, StepError> {
    let unusable = |what: &dyn std::fmt::Display| StepError::Desired(format!("{kubeconfig}: {what}"));
    let address: SocketAddr =
        address.parse().map_err(|_| StepError::Desired(format!("{address:?} is no address with port")))?;
    let parsed =
        Kubeconfig::parse(&delivered(desired, kubeconfig)?.content).map_err(|error| unusable(&error))?;
    ApiClient::new(address, &parsed).map_err(|error| unusable(&error))
}

fn says(error: &ProbeError) -> String {
    k8sctl_rpc::chain(error).to_string()
}

/// `/readyz` lists its checks, `[-]etcd failed: …`; those that fail are the reason.
fn not_ready(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("[-]")).collect();
    if failed.is_empty() { "not ready".to_owned() } else { failed.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_checks_are_the_reason() {
        let body = b"[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n";
        assert_eq!(not_ready(body), "[-]etcd failed: reason withheld");
        assert_eq!(not_ready(b""), "not ready");
    }

    #[test]
    fn a_missing_kubeconfig_is_the_hosts_mistake() {
        let error = delivered(&DesiredState::default(), ADMIN_CONF).expect_err("nothing delivered");
        assert!(error.to_string().contains("/etc/kubernetes/admin.conf"), "{error}");
    }
}
