//! Which certificates a cluster has and what stands in each: data, no keys. The names and roles are kubeadm's, since
//! RBAC and kubeadm's checks depend on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::ControlPlane;
use crate::PkiError;

/// kubeadm's default, and what our kubeadm configuration says.
const DNS_DOMAIN: &str = "cluster.local";
/// First minor release in which administrators are bound by RBAC instead of being above it.
const CLUSTER_ADMINS_SINCE: u64 = 29;
/// Port of the API server on its node.
const API_PORT: u16 = 6443;

/// Which authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Signer {
    Kubernetes,
    FrontProxy,
    Etcd,
}

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Usage {
    Server,
    Client,
    Both,
}

/// What stands in a certificate, besides key, serial and validity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaf {
    pub(super) signer: Signer,
    pub(super) common_name: String,
    pub(super) organization: Option<String>,
    pub(super) names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) usage: Usage,
}

/// A client certificate that goes into a kubeconfig.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Name of the file in `/etc/kubernetes`.
    pub(super) file: &'static str,
    /// Name of the user in the kubeconfig.
    pub(super) user: String,
    /// URL of the API server.
    pub(super) server: String,
    pub(super) leaf: Leaf,
}

/// Where the kubelet looks for the certificate of its own port, without ending. What it finds there it takes; else it
/// makes two RSA keys at its first start and trusts itself.
pub(super) const KUBELET_SERVING: &str = "/var/lib/kubelet/pki/kubelet";

/// The certificates in `/etc/kubernetes/pki`, by file name without ending.
pub(super) fn control_plane_leaves(wanted: &ControlPlane<'_>) -> Result<Vec<(&'static str, Leaf)>, PkiError> {
    let node_ip = IpAddr::from(wanted.node_ip);
    let client = |signer, common_name: &str, organization: Option<&str>| Leaf {
        organization: organization.map(str::to_owned),
        ..leaf(signer, common_name, Usage::Client)
    };
    let etcd = |common_name: &str| Leaf {
        names: vec![wanted.node_name.to_owned(), "localhost".to_owned()],
        addresses: vec![node_ip, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        ..leaf(Signer::Etcd, common_name, Usage::Both)
    };
    // For the ports on which they tell their health and metrics. kubeadm leaves it to them to make their own at each
    // start, two RSA keys, which nobody can verify.
    let component = |common_name: &str| Leaf {
        names: vec![wanted.node_name.to_owned(), "localhost".to_owned()],
        addresses: vec![node_ip, Ipv4Addr::LOCALHOST.into()],
        ..leaf(Signer::Kubernetes, common_name, Usage::Server)
    };
    Ok(vec![
        ("apiserver", api_server(wanted)?),
        (
            "apiserver-kubelet-client",
            client(Signer::Kubernetes, "kube-apiserver-kubelet-client", Some(administrators(wanted))),
        ),
        ("front-proxy-client", client(Signer::FrontProxy, "front-proxy-client", None)),
        ("etcd/server", etcd(wanted.node_name)),
        ("etcd/peer", etcd(wanted.node_name)),
        ("etcd/healthcheck-client", client(Signer::Etcd, "kube-etcd-healthcheck-client", None)),
        ("apiserver-etcd-client", client(Signer::Etcd, "kube-apiserver-etcd-client", None)),
        ("controller-manager/server", component("kube-controller-manager")),
        ("scheduler/server", component("kube-scheduler")),
    ])
}

fn api_server(wanted: &ControlPlane<'_>) -> Result<Leaf, PkiError> {
    let mut names = vec![wanted.node_name.to_owned()];
    for suffix in ["", ".default", ".default.svc"] {
        names.push(format!("kubernetes{suffix}"));
    }
    names.push(format!("kubernetes.default.svc.{DNS_DOMAIN}"));
    let mut addresses = vec![first_address(wanted.service_cidr)?.into(), IpAddr::from(wanted.node_ip)];
    let host = wanted.endpoint.rsplit_once(':').map_or(wanted.endpoint, |(host, _)| host);
    match host.parse::<IpAddr>() {
        Ok(address) if !addresses.contains(&address) => addresses.push(address),
        Ok(_) => {}
        Err(_) => names.push(host.to_owned()),
    }
    Ok(Leaf { names, addresses, ..leaf(Signer::Kubernetes, "kube-apiserver", Usage::Server) })
}

/// The first address of the service network, which the API server's own Service has.
fn first_address(cidr: Ipv4Net) -> Result<Ipv4Addr, PkiError> {
    cidr.hosts().next().filter(|_| cidr.prefix_len() < 31).ok_or(PkiError::ServiceNetwork { cidr })
}

/// The kubeconfigs of a control-plane node.
pub(super) fn control_plane_clients(wanted: &ControlPlane<'_>) -> Vec<Client> {
    let endpoint = url(wanted.endpoint);
    // Controllers talk to the API server beside them, as kubeadm has it since 1.20.
    let local = format!("https://{}:{API_PORT}", wanted.node_ip);
    let client = |file, user: &str, server: &str, organization: Option<&str>| Client {
        file,
        user: user.to_owned(),
        server: server.to_owned(),
        leaf: Leaf {
            organization: organization.map(str::to_owned),
            ..leaf(Signer::Kubernetes, user, Usage::Client)
        },
    };
    let mut clients = vec![
        client("admin.conf", "kubernetes-admin", &endpoint, Some(administrators(wanted))),
        client("controller-manager.conf", "system:kube-controller-manager", &local, None),
        client("scheduler.conf", "system:kube-scheduler", &local, None),
        kubelet_client(wanted.node_name, wanted.endpoint),
    ];
    if wanted.version.minor() >= CLUSTER_ADMINS_SINCE {
        // With it kubeadm binds the group that admin.conf is in.
        clients.push(client("super-admin.conf", "kubernetes-super-admin", &endpoint, Some("system:masters")));
    }
    clients
}

/// The kubelet's kubeconfig.
pub(super) fn kubelet_client(node_name: &str, endpoint: &str) -> Client {
    let user = format!("system:node:{node_name}");
    Client {
        file: "kubelet.conf",
        server: url(endpoint),
        leaf: Leaf {
            organization: Some("system:nodes".to_owned()),
            ..leaf(Signer::Kubernetes, &user, Usage::Client)
        },
        user,
    }
}

/// What the kubelet shows on its own port: the subject is the one that Kubernetes' signer of such certificates asks for.
pub(super) fn kubelet_serving(node_name: &str, node_ip: Ipv4Addr) -> Leaf {
    Leaf {
        organization: Some("system:nodes".to_owned()),
        names: vec![node_name.to_owned()],
        addresses: vec![node_ip.into()],
        ..leaf(Signer::Kubernetes, &format!("system:node:{node_name}"), Usage::Server)
    }
}

/// `https://HOST:PORT` of an endpoint with or without scheme.
pub(super) fn url(endpoint: &str) -> String {
    if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}") }
}

fn administrators(wanted: &ControlPlane<'_>) -> &'static str {
    if wanted.version.minor() >= CLUSTER_ADMINS_SINCE { "kubeadm:cluster-admins" } else { "system:masters" }
}

fn leaf(signer: Signer, common_name: &str, usage: Usage) -> Leaf {
    Leaf {
        signer,
        common_name: common_name.to_owned(),
        organization: None,
        names: Vec::new(),
        addresses: Vec::new(),
        usage,
    }
}
