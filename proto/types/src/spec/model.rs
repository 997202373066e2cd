//! The validated types: what a `cluster.toml` becomes. Only [`super::parse`] makes them from a user's
//! text; nothing here checks anything.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::diagnostic::Diagnostic;
use super::table::bare_or_quoted;
use crate::version::KubernetesVersion;

/// A cluster as the user wants it, complete and consistent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// DNS label, at most 40 characters.
    pub name: String,
    /// `None` means: the newest bundle installed.
    pub kubernetes: Option<KubernetesVersion>,
    /// Networks of the cluster.
    pub network: NetworkSpec,
    /// Control-plane nodes first, then workers, each in the order of the file; pools expanded.
    pub nodes: Vec<NodeSpec>,
    /// What the node image is made of.
    pub image: ImageSpec,
    /// Plugins with their config, in the order of the file.
    pub plugins: Vec<PluginSpec>,
}

/// The libvirt network and the CIDRs inside Kubernetes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// libvirt's name of the network.
    pub name: String,
    /// Network of the VMs; the host has its first address.
    pub cidr: Ipv4Net,
    /// Pod network, one /24 a node.
    pub pods: Ipv4Net,
    /// Service network.
    pub services: Ipv4Net,
    /// First and last address for Services of type LoadBalancer.
    pub load_balancer: Option<AddressRange>,
    /// DHCP range for strangers on this network. `None` means: only static host entries.
    pub dhcp: Option<AddressRange>,
}

impl NetworkSpec {
    /// The host's address on the bridge: the first of the network.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()) + 1)
    }
}

/// Both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, not below `first`.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// Whether the address lies in the range.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

/// What a node does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the API server, etcd and the controllers.
    ControlPlane,
    /// Runs the user's pods.
    Worker,
}

/// One VM that is a Kubernetes node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// DNS label; libvirt domain name, hostname and Kubernetes node name in one.
    pub name: String,
    /// Control plane or worker.
    pub role: Role,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in bytes, whole MiB.
    pub memory_bytes: u64,
    /// Root disk in bytes, whole MiB.
    pub disk_bytes: u64,
    /// Address in `network.cidr`.
    pub ip: Ipv4Addr,
    /// `52:54:00:…`; given in the file or derived from cluster name and IP.
    pub mac: String,
    /// Kubernetes labels.
    pub labels: Vec<(String, String)>,
    /// Taints as `key=value:Effect`.
    pub taints: Vec<String>,
}

/// What the node image is made of, besides bundle and node agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Debian or Ubuntu suite, `bookworm`.
    pub suite: String,
}

/// A plugin that the cluster shall have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginSpec {
    /// Name in the plugin path.
    pub name: String,
    /// Its config as JSON object.
    pub config: serde_json::Value,
    /// Absolute path of its folder or archive; `None` means: from the host's plugin path.
    #[serde(default)]
    pub source: Option<PathBuf>,
}

/// Where the keys of a file stand, for whoever finds out later that one does not fit.
#[derive(Clone, Debug, Default)]
pub struct KeyLines {
    pub(super) lines: BTreeMap<String, u32>,
    /// By plugin.
    pub(super) plugins: BTreeMap<String, ConfigPlaces>,
}

impl KeyLines {
    /// 1-based line of a key, `network.pods`, or the key of a node by its name, `node k8s-worker-1.labels`. A key that
    /// a node does not have is where the node is. `None`: the file does not say.
    pub fn of(&self, key: &str) -> Option<u32> {
        self.lines.get(key).copied()
    }

    /// 1-based line and column of a value of a plugin's config by its JSON pointer; of what is not there, its nearest
    /// parent's. `None`: the file has no such plugin.
    pub fn plugin(&self, name: &str, pointer: &str) -> Option<(u32, u32)> {
        self.plugins.get(name)?.of(pointer)
    }

    /// The key path of a value of a plugin's config, `plugins.metallb.addresses[0]`.
    pub fn plugin_field(name: &str, pointer: &str) -> String {
        let mut field = format!("plugins.{}", bare_or_quoted(name));
        for part in pointer.split('/').filter(|part| !part.is_empty()) {
            let is_index = part.chars().all(|c| c.is_ascii_digit());
            let part = part.replace("~1", "/").replace("~0", "~");
            field.push_str(&if is_index {
                format!("[{part}]")
            } else {
                format!(".{}", bare_or_quoted(&part))
            });
        }
        field
    }
}

/// Where the values of a plugin's config stand, by their JSON pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigPlaces(BTreeMap<String, (u32, u32)>);

impl ConfigPlaces {
    /// From the offsets of the values, and the places of these offsets.
    pub(super) fn new(pointers: &[(String, usize)], places: &HashMap<usize, (u32, u32)>) -> Self {
        let place = |(pointer, offset): &(String, usize)| Some((pointer.clone(), *places.get(offset)?));
        Self(pointers.iter().filter_map(place).collect())
    }

    /// 1-based line and column of a value; of what is not there, its nearest parent's. `None`: not even that is known, as
    /// of a whole file.
    pub fn of(&self, pointer: &str) -> Option<(u32, u32)> {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.0.get(pointer) {
                return Some(*place);
            }
            match pointer.rfind('/') {
                Some(end) => pointer = &pointer[..end],
                None if pointer.is_empty() => return None,
                None => pointer = "",
            }
        }
    }
}

/// A usable spec with its warnings.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The spec.
    pub spec: ClusterSpec,
    /// Where its keys stand.
    pub lines: KeyLines,
    /// Diagnostics that are only warnings.
    pub warnings: Vec<Diagnostic>,
}
