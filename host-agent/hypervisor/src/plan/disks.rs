//! Which files in the pool are disks of a cluster: by their names, and by who uses them. Anybody may put a backup or a
//! clone of one beside it.

use super::nodes::belongs;
use crate::desired::{DesiredPool, is_volume_name, volume_name, volume_prefix};
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

/// What goes with a VM of the cluster: the disk of its name, and what a snapshot has put in that one's place.
pub(super) fn disks_of<'a>(
    cluster_id: &str,
    pool: &DesiredPool,
    observed: &'a ObservedHost,
    domain: &ObservedDomain,
) -> Vec<&'a ObservedVolume> {
    let (name, prefix) = (volume_name(cluster_id, &domain.name), volume_prefix(cluster_id));
    let is_used = |name: &str| name.starts_with(&prefix) && domain.disks.contains(&pool.path.join(name));
    let is_its = |it: &&ObservedVolume| it.name == name || is_used(&it.name);
    let all = observed.volumes.iter().filter(is_its);
    all.filter(|it| !is_of_stranger(cluster_id, pool, observed, it)).collect()
}

fn is_of_stranger(
    cluster_id: &str,
    pool: &DesiredPool,
    observed: &ObservedHost,
    volume: &ObservedVolume,
) -> bool {
    let path = pool.path.join(&volume.name);
    observed.domains.iter().any(|it| !belongs(it, cluster_id) && it.disks.contains(&path))
}
