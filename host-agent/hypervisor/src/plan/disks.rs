//! Which files in the pool are disks of a cluster: by their names, and by who uses them. Anybody may put a backup or a
//! clone of one beside it.

use std::path::Path;

use k8sctl_types::failure::Failure;

use super::nodes::belongs;
use crate::desired::{DesiredHost, DesiredNode, DesiredPool, is_volume_name, volume_name, volume_prefix};
use crate::observed::{ObservedDomain, ObservedHost, ObservedVolume};

/// Whether this file is the disk of a node of the cluster, whether its VM is there or not.
pub(super) fn is_own_disk(
    cluster_id: &str,
    pool: &DesiredPool,
    observed: &ObservedHost,
    volume: &ObservedVolume,
) -> bool {
    is_volume_name(cluster_id, &volume.name) && !is_of_stranger(cluster_id, pool, observed, volume)
}

/// What goes with a VM of the cluster: the disk of its name, and what a snapshot has put in that one's place. Of the
/// latter nothing that VMs of the cluster have that stay.
pub(super) fn disks_of<'a>(
    cluster_id: &str,
    pool: &DesiredPool,
    observed: &'a ObservedHost,
    domain: &ObservedDomain,
    staying: &[&ObservedDomain],
) -> Vec<&'a ObservedVolume> {
    let (name, prefix) = (volume_name(cluster_id, &domain.name), volume_prefix(cluster_id));
    let is_used = |it: &ObservedVolume| {
        it.name.starts_with(&prefix) && has_disk(&[domain], pool, it) && !has_disk(staying, pool, it)
    };
    let is_its = |it: &&ObservedVolume| it.name == name || is_used(it);
    let all = observed.volumes.iter().filter(is_its);
    all.filter(|it| !is_of_stranger(cluster_id, pool, observed, it)).collect()
}

/// Whether any of these VMs has that disk.
fn has_disk(domains: &[&ObservedDomain], pool: &DesiredPool, volume: &ObservedVolume) -> bool {
    let path = pool.path.join(&volume.name);
    domains.iter().any(|it| it.disks.contains(&path))
}

/// Refuses a disk that was there before its node: it has another machine's system, which a stranger's VM may have kept
/// from being removed. Of a node that is known it is its own, whose VM was undefined by hand or not made yet.
pub(super) fn refuse_left(
    desired: &DesiredHost,
    node: &DesiredNode,
    volume: Option<&ObservedVolume>,
) -> Result<(), Failure> {
    let Some(volume) = volume.filter(|_| node.is_new) else { return Ok(()) };
    let name = &node.spec.name;
    let reason = format!("an earlier node {name} has left it there, and node {name} is a new one");
    Err(left_disk(&desired.pool.path.join(&volume.name), reason))
}

/// The failure of a disk that is in the place of a new one.
pub(crate) fn left_disk(path: &Path, reason: impl Into<String>) -> Failure {
    let next = format!(
        "remove it with `rm {0}`, or keep it as another file with `mv {0} {0}.kept`; then run the command again",
        path.display()
    );
    Failure::new("LIBVIRT-DISK-LEFT", format!("disk {}", path.display()), reason, next)
}

fn is_of_stranger(
    cluster_id: &str,
    pool: &DesiredPool,
    observed: &ObservedHost,
    volume: &ObservedVolume,
) -> bool {
    let path = pool.path.join(&volume.name);
    observed.domains.iter().any(|it| it.disks.contains(&path) && !belongs(it, cluster_id))
}
