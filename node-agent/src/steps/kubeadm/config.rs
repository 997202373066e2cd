//! kubeadm's configuration file for a node, in the language of its version. Pure.
//!
//! v1beta2 up to 1.21, v1beta3 up to 1.30, v1beta4 from 1.31 (extra arguments are lists, timeouts a block).

use std::ops::RangeInclusive;
use std::time::Duration;

use k8sctl_proto::node::v1::{DesiredState, NodeRole};
use k8sctl_types::node_label::kubelet_may_set;
use k8sctl_types::version::KubernetesVersion;
use serde_json::{Value, json};

use crate::steps::containerd::SOCKET;

/// Every wait of kubeadm's own: longer than an emulated machine needs. It ends before kubeadm is ended, so that kubeadm
/// says itself what it waited for.
pub const PATIENCE: Duration = Duration::from_secs(8 * 60);
/// What the host delivers for the ports of these two; they read it again when it changes.
const CONTROLLER_MANAGER_PKI: &str = "/etc/kubernetes/pki/controller-manager";
const SCHEDULER_PKI: &str = "/etc/kubernetes/pki/scheduler";
/// The bootstrap token that kubeadm makes in any case and nobody uses.
const TOKEN_LIFE: &str = "1m0s";

/// Minor releases whose API server takes a sample a millisecond of each priority level, which is half of all that it
/// does in a small cluster (kubernetes/kubernetes#97685, #108272; gone since #110104). Without priority and fairness its
/// limits of requests in flight hold.
const SAMPLED_FAIRNESS: RangeInclusive<u64> = 20..=24;

/// The language of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Api {
    /// Up to 1.21.
    V1Beta2,
    /// 1.22 to 1.30.
    V1Beta3,
    /// From 1.31.
    V1Beta4,
}

impl Api {
    /// What this version's kubeadm reads best.
    pub fn of(version: &KubernetesVersion) -> Self {
        match version.minor() {
            ..=21 => Self::V1Beta2,
            22..=30 => Self::V1Beta3,
            _ => Self::V1Beta4,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V1Beta2 => "kubeadm.k8s.io/v1beta2",
            Self::V1Beta3 => "kubeadm.k8s.io/v1beta3",
            Self::V1Beta4 => "kubeadm.k8s.io/v1beta4",
        }
    }

    /// Extra arguments: a map, or a list since v1beta4.
    fn arguments(self, arguments: &[(&str, String)]) -> Value {
        if self == Self::V1Beta4 {
            return arguments.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        }
        arguments.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect()
    }

    fn timeouts(self) -> Value {
        let patience = patience();
        json!({
            "controlPlaneComponentHealthCheck": patience,
            "discovery": patience,
            "etcdAPICall": patience,
            "kubeletHealthCheck": patience,
            "kubernetesAPICall": patience,
            "tlsBootstrap": patience,
        })
    }
}

/// [`PATIENCE`] as Kubernetes writes it.
fn patience() -> String {
    format!("{}m0s", PATIENCE.as_secs() / 60)
}

/// The whole file for `kubeadm init`.
pub fn render_init(desired: &DesiredState, version: &KubernetesVersion) -> String {
    let api = Api::of(version);
    let mut init = json!({
        "apiVersion": api.name(),
        "kind": "InitConfiguration",
        "bootstrapTokens": [{"ttl": TOKEN_LIFE}],
        "localAPIEndpoint": {"advertiseAddress": desired.node_ip, "bindPort": 6443},
        "nodeRegistration": registration(desired, version),
    });
    let mut cluster = json!({
        "apiVersion": api.name(),
        "kind": "ClusterConfiguration",
        "clusterName": desired.cluster_name,
        "kubernetesVersion": version.to_string(),
        "certificatesDir": "/etc/kubernetes/pki",
        "controlPlaneEndpoint": desired.control_plane_endpoint,
        "networking": {
            "dnsDomain": "cluster.local",
            "podSubnet": desired.pod_cidr,
            "serviceSubnet": desired.service_cidr,
        },
        // The host gives each node its pod CIDR. With one control plane there is nobody to elect: a lease that a
        // slow moment loses would only restart the controller manager.
        "controllerManager": {"extraArgs": api.arguments(&[
            ("allocate-node-cidrs", "false".to_owned()),
            ("leader-elect", "false".to_owned()),
            ("tls-cert-file", format!("{CONTROLLER_MANAGER_PKI}/server.crt")),
            ("tls-private-key-file", format!("{CONTROLLER_MANAGER_PKI}/server.key")),
        ])},
        "scheduler": {
            "extraArgs": api.arguments(&[
                ("leader-elect", "false".to_owned()),
                ("tls-cert-file", format!("{SCHEDULER_PKI}/server.crt")),
                ("tls-private-key-file", format!("{SCHEDULER_PKI}/server.key")),
            ]),
            // Its pod sees nothing of the cluster's PKI but this.
            "extraVolumes": [{
                "name": "serving",
                "hostPath": SCHEDULER_PKI,
                "mountPath": SCHEDULER_PKI,
                "readOnly": true,
                "pathType": "Directory",
            }],
        },
    });
    if !desired.image_repository.is_empty() {
        cluster["imageRepository"] = desired.image_repository.as_str().into();
    }
    if api == Api::V1Beta4 {
        init["timeouts"] = api.timeouts();
    } else {
        cluster["apiServer"] = json!({"timeoutForControlPlane": patience()});
    }
    if SAMPLED_FAIRNESS.contains(&version.minor()) {
        cluster["apiServer"]["extraArgs"] =
            api.arguments(&[("enable-priority-and-fairness", "false".to_owned())]);
    }
    documents(&[init, cluster, kubelet(desired)])
}

/// The whole file for `kubeadm join` of a worker with the kubeconfig at `discovery`.
pub fn render_join(desired: &DesiredState, version: &KubernetesVersion, discovery: &str) -> String {
    let api = Api::of(version);
    let mut join = json!({
        "apiVersion": api.name(),
        "kind": "JoinConfiguration",
        "caCertPath": "/etc/kubernetes/pki/ca.crt",
        "discovery": {"file": {"kubeConfigPath": discovery}},
        "nodeRegistration": registration(desired, version),
    });
    if api == Api::V1Beta4 {
        join["timeouts"] = api.timeouts();
    } else {
        join["discovery"]["timeout"] = patience().into();
    }
    documents(&[join])
}

fn registration(desired: &DesiredState, version: &KubernetesVersion) -> Value {
    let scheme = if version.minor() >= 24 { "unix://" } else { "" };
    let mut arguments = vec![("node-ip", desired.node_ip.clone())];
    let labels = node_labels(desired);
    if !labels.is_empty() {
        arguments.push(("node-labels", labels));
    }
    let mut registration = json!({
        "name": desired.node_name,
        "criSocket": format!("{scheme}{SOCKET}"),
        "kubeletExtraArgs": Api::of(version).arguments(&arguments),
    });
    // Left out means: kubeadm's own taint for a control plane.
    let taints: Vec<Value> = desired.taints.iter().filter_map(|taint| parse_taint(taint)).collect();
    if !taints.is_empty() || desired.role() == NodeRole::Worker {
        registration["taints"] = taints.into();
    }
    registration
}

/// Labels that a kubelet may give itself; with others it would not start, and the host gives them.
fn node_labels(desired: &DesiredState) -> String {
    let mut labels: Vec<String> = desired
        .labels
        .iter()
        .filter(|(key, _)| kubelet_may_set(key))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort();
    labels.join(",")
}

/// `key=value:Effect` or `key:Effect`.
fn parse_taint(text: &str) -> Option<Value> {
    let (key, effect) = text.rsplit_once(':')?;
    Some(match key.split_once('=') {
        Some((key, value)) => json!({"key": key, "value": value, "effect": effect}),
        None => json!({"key": key, "effect": effect}),
    })
}

fn kubelet(desired: &DesiredState) -> Value {
    let mut kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
        "clusterDomain": "cluster.local",
        // How often the kubelet looks whether its node has become Ready; it reports what has changed. What has not, it
        // would report as often, were the other one left out.
        "nodeStatusUpdateFrequency": "3s",
        "nodeStatusReportFrequency": "5m0s",
        "rotateCertificates": true,
        // How often each pod is looked at without a cause. One with a startup probe is not Ready behind a restart of the
        // kubelet until then, which would be a minute and more.
        "syncFrequency": "20s",
        // How long a node has disk or memory pressure, and gets no pods, behind its end; the kubelet's own five minutes are
        // for fleets in which pods go elsewhere meanwhile.
        "evictionPressureTransitionPeriod": "30s",
        // Behind the agent's own 10 %, at which it removes what nobody needs: the kubelet would remove the bundle's images
        // too, which nobody may be there to pull anew, and evict pods.
        "imageGCHighThresholdPercent": 95,
        "imageGCLowThresholdPercent": 90,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "5%",
            "nodefs.inodesFree": "3%",
            "imagefs.available": "5%",
            "imagefs.inodesFree": "3%",
        },
    });
    if !desired.cluster_dns.is_empty() {
        kubelet["clusterDNS"] = json!([desired.cluster_dns]);
    }
    kubelet
}

/// JSON documents, which are YAML too: kubeadm's YAML is of an age in which `yes` is no string.
fn documents(documents: &[Value]) -> String {
    let text = |document| serde_json::to_string_pretty(document).expect("JSON values print") + "\n";
    documents.iter().map(text).collect::<Vec<_>>().join("---\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn desired(role: NodeRole) -> DesiredState {
        let worker = role == NodeRole::Worker;
        DesiredState {
            cluster_name: "home".into(),
            node_name: if worker { "k8s-worker-1" } else { "k8s-control-plane-1" }.into(),
            role: role.into(),
            node_ip: if worker { "192.168.122.11" } else { "192.168.122.10" }.into(),
            control_plane_endpoint: "192.168.122.10:6443".into(),
            pod_cidr: "10.244.0.0/16".into(),
            service_cidr: "10.96.0.0/12".into(),
            cluster_dns: "10.96.0.10".into(),
            labels: [
                ("disk".into(), "ssd".into()),
                ("node-role.kubernetes.io/worker".into(), String::new()),
                ("topology.k8s-myhome.io/rack".into(), "1".into()),
            ]
            .into(),
            taints: if worker { vec!["gpu=yes:NoSchedule".into()] } else { Vec::new() },
            ..DesiredState::default()
        }
    }

    pub fn version(text: &str) -> KubernetesVersion {
        text.parse().expect("a version")
    }

    #[test]
    fn init_is_golden_in_each_language() {
        for text in ["v1.20.2", "v1.29.0", "v1.33.1"] {
            let mut desired = desired(NodeRole::ControlPlane);
            if text == "v1.20.2" {
                desired.image_repository = "k8s.gcr.io".into();
            }
            insta::assert_snapshot!(format!("init-{text}"), render_init(&desired, &version(text)));
        }
    }

    #[test]
    fn join_is_golden_in_each_language() {
        let desired = desired(NodeRole::Worker);
        for text in ["v1.20.2", "v1.29.0", "v1.33.1"] {
            let file = render_join(&desired, &version(text), "/run/k8s-myhome/discovery.conf");
            insta::assert_snapshot!(format!("join-{text}"), file);
        }
    }

    #[test]
    fn the_kubelet_is_given_the_labels_that_it_may_give_itself() {
        let mut desired = desired(NodeRole::Worker);
        desired.labels =
            ["topology.kubernetes.io/zone", "node.kubernetes.io/gpu", "node-role.kubernetes.io/storage"]
                .map(|key| (key.to_owned(), "a".to_owned()))
                .into();
        assert_eq!(node_labels(&desired), "node.kubernetes.io/gpu=a,topology.kubernetes.io/zone=a");
    }

    #[test]
    fn the_language_changes_at_22_and_31() {
        let of = |text| Api::of(&version(text));
        assert_eq!((of("v1.21.9"), of("v1.22.0")), (Api::V1Beta2, Api::V1Beta3));
        assert_eq!((of("v1.30.9"), of("v1.31.0")), (Api::V1Beta3, Api::V1Beta4));
    }
}
