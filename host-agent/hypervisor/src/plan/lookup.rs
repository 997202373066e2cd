//! What there is on the host, by what it is looked for: a plan of a thousand nodes looks for each of them a dozen times.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::nodes::belongs;
use crate::desired::{DesiredHost, is_volume_name};
use crate::observed::{ObservedDomain, ObservedHost, ObservedVolume};

/// See the module. Of one cluster.
pub(super) struct Lookup<'a> {
    cluster_id: &'a str,
    pool: &'a Path,
    domains: HashMap<&'a str, &'a ObservedDomain>,
    volumes: HashMap<&'a str, &'a ObservedVolume>,
    /// Domains of the cluster, by the id of their node. Copies have the same.
    of_nodes: HashMap<&'a str, Vec<&'a ObservedDomain>>,
    strangers: Vec<&'a ObservedDomain>,
    strangers_disks: HashSet<&'a Path>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(desired: &'a DesiredHost, observed: &'a ObservedHost) -> Self {
        let cluster_id = desired.cluster_id.as_str();
        let mut of_nodes: HashMap<_, Vec<_>> = HashMap::new();
        for domain in &observed.domains {
            if let Some(owner) = domain.ours.as_ref().filter(|owner| owner.cluster_id == cluster_id) {
                of_nodes.entry(owner.node_id.as_str()).or_default().push(domain);
            }
        }
        let strangers: Vec<_> = observed.domains.iter().filter(|it| !belongs(it, cluster_id)).collect();
        Self {
            cluster_id,
            pool: &desired.pool.path,
            domains: observed.domains.iter().map(|it| (it.name.as_str(), it)).collect(),
            volumes: observed.volumes.iter().map(|it| (it.name.as_str(), it)).collect(),
            of_nodes,
            strangers_disks: disks(&strangers),
            strangers,
        }
    }

    pub(super) fn domain(&self, name: &str) -> Option<&'a ObservedDomain> {
        self.domains.get(name).copied()
    }

    pub(super) fn volume(&self, name: &str) -> Option<&'a ObservedVolume> {
        self.volumes.get(name).copied()
    }

    /// The VMs that have this node's id, whatever their names.
    pub(super) fn of_node(&self, node_id: &str) -> &[&'a ObservedDomain] {
        self.of_nodes.get(node_id).map_or(&[], Vec::as_slice)
    }

    /// VMs that are not the cluster's.
    pub(super) fn strangers(&self) -> &[&'a ObservedDomain] {
        &self.strangers
    }

    /// Whether this file is the disk of a node of the cluster, whether its VM is there or not.
    pub(super) fn is_own_disk(&self, volume: &ObservedVolume) -> bool {
        is_volume_name(self.cluster_id, &volume.name)
            && !self.strangers_disks.contains(self.pool.join(&volume.name).as_path())
    }
}

/// All that these VMs have.
pub(super) fn disks<'a>(domains: &[&'a ObservedDomain]) -> HashSet<&'a Path> {
    domains.iter().flat_map(|it| &it.disks).map(|disk| disk.as_path()).collect()
}
