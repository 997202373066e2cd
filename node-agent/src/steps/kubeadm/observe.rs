//! Looks at what a node's way to membership has left so far: files, the kubelet's unit, the API server.

use std::net::SocketAddr;

use k8sctl_proto::node::v1::{DesiredState, ManagedFile};
use k8sctl_types::version::KubernetesVersion;
use serde_json::Value;

use super::plan::{ApiObserved, InitObserved, JoinObserved, NodeObserved};
use super::renewed;
use crate::converge::step::StepError;
use crate::durable::Root;
use crate::kubeconfig::Kubeconfig;
use crate::probe::{ApiClient, ProbeError};
use crate::steps::files::{ADMIN_CONF, KUBELET_CONF};
use crate::steps::kubelet::{self, UNIT};
use crate::steps::unit_is_active;

/// The static pods of a control plane.
pub const MANIFESTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// The kubelet's configuration.
pub const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// The kubelet's flags.
pub const KUBELET_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
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
    pub async fn init(&self, coredns: bool) -> Result<InitObserved, StepError> {
        let (api, api_says) = match self.control_plane_api(coredns).await {
            Ok(api) => (Some(api), String::new()),
            Err(says) => (None, says),
        };
        let stale = renewed::plan(self.root)?.into_iter().map(|(name, _)| name).collect();
        Ok(InitObserved {
            manifests: MANIFESTS.iter().all(|name| manifest_is_whole(self.root, name)),
            kubelet_config: kubelet_config_is_whole(self.root),
            kubelet_active: kubelet_is_active().await,
            node_is_lost: false,
            stale,
            api,
            api_says,
        })
    }

    /// Whether the API server has what objects of the cluster itself are put into. One that does not let the administrator
    /// look, as from 1.29 on before kubeadm has given it its rights, is taken to be as far.
    pub async fn takes_objects(&self) -> bool {
        let asked = self.api.get("/api/v1/namespaces/kube-system").await;
        asked.is_ok_and(|answer| matches!(answer.status, 200 | 403))
    }

    /// The worker.
    pub async fn join(&self) -> JoinObserved {
        let kubelet_config = kubelet_config_is_whole(self.root);
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
            node_is_lost: false,
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

    async fn control_plane_api(&self, coredns: bool) -> Result<ApiObserved, String> {
        match self.api.get("/readyz").await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return Err(failing_checks(&answer.body)),
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
            ready: is_ready(&node),
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

/// Where a static pod's manifest lies.
pub fn manifest_path(name: &str) -> String {
    format!("/etc/kubernetes/manifests/{name}.yaml")
}

/// kubeadm does not sync what it writes: after the power went, a file may be there without what was in it. Such a one
/// counts as missing.
pub fn manifest_is_whole(root: &Root, name: &str) -> bool {
    let manifest = document(root, &manifest_path(name), "Pod");
    manifest.is_some_and(|pod| pod.pointer("/metadata/name").and_then(Value::as_str) == Some(name))
}

/// The kubelet's configuration and its flags, of which there is at least the node's address.
pub fn kubelet_config_is_whole(root: &Root) -> bool {
    let flags = root.read_text(KUBELET_FLAGS).unwrap_or_default();
    let has_flags =
        |line: &str| line.strip_prefix("KUBELET_KUBEADM_ARGS=").is_some_and(|rest| rest.contains("--"));
    document(root, KUBELET_CONFIG, "KubeletConfiguration").is_some() && flags.lines().any(has_flags)
}

/// The file's object, if it can be read and is of this kind.
fn document(root: &Root, path: &str, kind: &str) -> Option<Value> {
    let object: Value = serde_yaml_ng::from_slice(&root.read(path).ok()??).ok()?;
    (object["kind"] == kind).then_some(object)
}

/// Whether Kubernetes holds the node for a working one.
fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
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

/// A client of the API server at this address with the credentials of a delivered kubeconfig.
pub fn client(desired: &DesiredState, address: &str, kubeconfig: &str) -> Result<ApiClient, StepError> {
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

/// `/readyz` and its like list their checks, `[-]etcd failed: …`; those that fail are the reason.
pub fn failing_checks(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("[-]")).collect();
    if failed.is_empty() { "not ready".to_owned() } else { failed.join(", ") }
}

/// A static pod's manifest as kubeadm might write it.
#[cfg(test)]
pub fn write_manifest(root: &Root, name: &str) {
    let manifest = format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n");
    root.write(manifest_path(name), manifest.as_bytes(), 0o600).expect("written");
}

/// The kubelet's configuration and flags as kubeadm might write them.
#[cfg(test)]
pub fn write_kubelet_config(root: &Root) {
    let config = b"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    root.write(KUBELET_CONFIG, config, 0o644).expect("written");
    let flags = b"KUBELET_KUBEADM_ARGS=\"--node-ip=10.0.0.1\"\n";
    root.write(KUBELET_FLAGS, flags, 0o644).expect("written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fake;

    #[test]
    fn failing_checks_are_the_reason() {
        let body = b"[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n";
        assert_eq!(failing_checks(body), "[-]etcd failed: reason withheld");
        assert_eq!(failing_checks(b""), "not ready");
    }

    /// A root with all that kubeadm has written on a control plane.
    fn written() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        write_kubelet_config(&root);
        MANIFESTS.iter().for_each(|name| write_manifest(&root, name));
        (dir, root)
    }

    fn looks(root: &Root) -> (bool, bool) {
        (MANIFESTS.iter().all(|name| manifest_is_whole(root, name)), kubelet_config_is_whole(root))
    }

    #[test]
    fn a_file_that_lost_its_content_counts_as_missing() {
        let (_dir, root) = written();
        assert_eq!(looks(&root), (true, true));
        let manifests = MANIFESTS.map(manifest_path).map(|path| (path, (false, true)));
        let config = [KUBELET_CONFIG, KUBELET_FLAGS].map(|path| (path.to_owned(), (true, false)));
        for (path, expected) in manifests.into_iter().chain(config) {
            let whole = root.read(&path).expect("read").expect("there");
            for torn in [&b""[..], &[0; 512], &whole[..whole.len() / 3], b"kind: Other\n", b"{"] {
                root.write(&path, torn, 0o600).expect("written");
                assert_eq!(looks(&root), expected, "{path}: {torn:?}");
            }
            root.remove(&path).expect("removed");
            assert_eq!(looks(&root), expected, "{path}");
            root.write(&path, &whole, 0o600).expect("written");
            assert_eq!(looks(&root), (true, true), "{path}");
        }
    }

    #[test]
    fn a_node_is_ready_when_its_condition_says_so() {
        let node =
            |status| serde_json::json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        assert!(is_ready(&node("True")));
        assert!(!is_ready(&node("Unknown")) && !is_ready(&Value::Null));
    }

    #[tokio::test]
    async fn objects_are_taken_once_the_namespace_is_there_or_hidden() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (root, desired) = (Root::new(dir.path()), DesiredState::default());
        let version = "v1.20.2".parse().expect("a version");
        for (status, takes) in
            [(200, true), (403, true), (404, false), (401, false), (500, false), (503, false)]
        {
            let api = fake::api(status).await;
            let observer =
                Observer { root: &root, desired: &desired, version: &version, api: api.client.clone() };
            assert_eq!(observer.takes_objects().await, takes, "{status}");
            assert_eq!(api.asked(), ["GET /api/v1/namespaces/kube-system"]);
        }
    }

    #[test]
    fn a_missing_kubeconfig_is_the_hosts_mistake() {
        let error = delivered(&DesiredState::default(), ADMIN_CONF).expect_err("nothing delivered");
        assert!(error.to_string().contains("/etc/kubernetes/admin.conf"), "{error}");
    }
}
