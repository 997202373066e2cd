//! What the host shall have for one cluster. Made by the cluster controller from spec and store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8sctl_types::spec::{NetworkSpec, NodeSpec, Role};
use serde::{Deserialize, Serialize};

/// One cluster's share of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesiredHost {
    /// The cluster's id, a UUID.
    pub cluster_id: String,
    /// The cluster's name, for reasons and descriptions.
    pub cluster_name: String,
    /// Spec generation, recorded in what is written now. It alone changes nothing.
    pub generation: u64,
    /// The network of the VMs.
    pub network: NetworkSpec,
    /// Nodes in the order in which they are made.
    pub nodes: Vec<DesiredNode>,
    /// Nodes on their way out, and those that wait for them: what there is of them stays as it is for now, and nothing
    /// is made.
    pub leaving: Vec<NodeSpec>,
    /// Image of nodes that are not there yet; existing nodes keep theirs.
    pub image: DesiredImage,
    /// Where disks live.
    pub pool: DesiredPool,
    /// Names of all clusters of the host agent by their ids, for what of theirs is in the way.
    pub others: BTreeMap<String, String>,
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesiredNode {
    /// The node's id in the store.
    pub node_id: String,
    /// Name, sizes, addresses.
    pub spec: NodeSpec,
    /// UUID of the domain and of the machine in it.
    pub machine_uuid: String,
    /// Whether it shall run.
    pub powered: bool,
    /// Added to the image's kernel command line; may be empty. Never a secret.
    pub cmdline: String,
    /// Planned only, and in no record: nothing that is there can be its own.
    pub is_new: bool,
}

impl DesiredNode {
    /// Whether its name and address stay until the cluster is taken down: the control plane's do.
    pub(crate) fn is_fixed(&self) -> bool {
        self.spec.role == Role::ControlPlane && !self.is_new
    }
}

/// The files of a built node image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesiredImage {
    /// Content id; its first 16 characters name the files in the pool.
    pub id: String,
    /// The qcow2 root disk.
    pub disk: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
    /// The kernel command line.
    pub cmdline: String,
    /// Size of the three files together, in bytes.
    pub size_bytes: u64,
}

/// The directory pool, ours alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredPool {
    /// libvirt's name, `k8s-myhome`.
    pub name: String,
    /// Absolute path of the directory.
    pub path: PathBuf,
}

impl DesiredHost {
    /// Names of all nodes of which something stays.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let leaving = self.leaving.iter().map(|spec| spec.name.as_str());
        self.nodes.iter().map(|node| node.spec.name.as_str()).chain(leaving)
    }
}

impl DesiredImage {
    /// Names of disk, kernel and initrd in the pool.
    pub fn pool_names(&self) -> [String; 3] {
        let short: String = self.id.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        image_file_names(&short)
    }
}

/// Names of disk, kernel and initrd in the pool for a shortened image id.
pub(crate) fn image_file_names(short: &str) -> [String; 3] {
    [format!("base-{short}.qcow2"), format!("kernel-{short}"), format!("initrd-{short}")]
}

/// The shortened image id out of a base disk's name in the pool.
pub(crate) fn image_of_base(name: &str) -> Option<&str> {
    name.strip_prefix("base-")?.strip_suffix(".qcow2").filter(|short| is_short_id(short))
}

/// The shortened image id out of the name of any of an image's files in the pool. Other people's
/// `kernel-mine` has none.
pub(crate) fn image_of_file(name: &str) -> Option<&str> {
    let boot = || name.strip_prefix("kernel-").or_else(|| name.strip_prefix("initrd-"));
    image_of_base(name).or_else(|| boot().filter(|short| is_short_id(short)))
}

/// Ids are small hexadecimal digits, and names in the pool have the first 16 of them.
fn is_short_id(short: &str) -> bool {
    short.len() == 16 && short.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What an image file is called in the pool until all of it is there.
pub(crate) fn part_name(file: &str) -> String {
    format!(".{file}.part")
}

/// Whether a file in the pool is the part of an image file, whose copying was interrupted.
pub(crate) fn is_image_part(name: &str) -> bool {
    let file = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part"));
    file.is_some_and(|file| image_of_file(file).is_some())
}

/// What the names of a cluster's volumes begin with.
pub fn volume_prefix(cluster_id: &str) -> String {
    let id: String = cluster_id.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{id}-")
}

/// Whether a file's name is that of the overlay of a node of this cluster; names of nodes have no dot.
pub(crate) fn is_volume_name(cluster_id: &str, name: &str) -> bool {
    let node = name.strip_prefix(&volume_prefix(cluster_id)).and_then(|rest| rest.strip_suffix(".qcow2"));
    node.is_some_and(|node| !node.is_empty() && !node.contains('.'))
}

/// Name of a node's overlay.
pub fn volume_name(cluster_id: &str, node: &str) -> String {
    format!("{}{node}.qcow2", volume_prefix(cluster_id))
}
