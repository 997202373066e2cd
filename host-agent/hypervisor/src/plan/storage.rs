//! Pool, image files in it, and whether there is room.

use std::ffi::OsStr;
use std::path::Path;

use k8sctl_types::failure::Failure;

use super::change;
use super::nodes::{NodesDecision, belongs};
use crate::change::{Action, HostChange, HostOp, Kind};
use crate::desired::{DesiredHost, DesiredPool, is_volume_name};
use crate::observed::{ObservedHost, ObservedPool};

/// What a fresh overlay needs at least: a node writes about this much until it is Ready.
const OVERLAY_BYTES: u64 = 2 << 30;

/// What is to be done about the pool and what is in it.
pub(super) struct StorageDecision {
    /// Executed before any disk is deleted: without a pool that runs nobody finds the disk, and its
    /// node would boot from it again.
    pub pool: Vec<HostChange>,
    pub images: Vec<HostChange>,
}

pub(super) fn plan_storage(
    desired: &DesiredHost,
    observed: &ObservedHost,
    nodes: &NodesDecision,
) -> Result<StorageDecision, Failure> {
    let pool = plan_pool(desired, observed)?;
    let mut images = Vec::new();
    let mut needed = nodes.new_disks.iter().map(|bytes| OVERLAY_BYTES.min(*bytes)).sum::<u64>();
    if nodes.needs_image {
        let image = &desired.image;
        let sources = [&image.disk, &image.kernel, &image.initrd];
        let missing: Vec<_> = image
            .pool_names()
            .into_iter()
            .zip(sources)
            .filter(|(name, _)| observed.volume(name).is_none())
            .collect();
        if !missing.is_empty() {
            needed += image.size_bytes;
        }
        for (name, source) in missing {
            let target = desired.pool.path.join(&name);
            let op = HostOp::InstallFile { pool: desired.pool.name.clone(), source: source.clone(), target };
            images.push(change(Action::Create, Kind::Image, &name, "nodes boot from it", op));
        }
    }
    if needed > observed.pool_free_bytes {
        return Err(disk_full(&desired.pool.path, needed, observed.pool_free_bytes));
    }
    Ok(StorageDecision { pool, images })
}

/// The failure of a pool without room.
pub(crate) fn disk_full(path: &Path, needed: u64, free: u64) -> Failure {
    Failure::new(
        "HOST-DISK-FULL",
        format!("pool directory {}", path.display()),
        format!("{} MiB are free, at least {} MiB are needed", free >> 20, needed.div_ceil(1 << 20)),
        "free space there, or set pool_dir to a directory on a larger file system",
    )
}

/// The failure of a pool with our name and another directory.
pub(super) fn foreign_pool(pool: &DesiredPool, there: &ObservedPool) -> Failure {
    let (name, wanted) = (&pool.name, pool.path.display());
    let (reason, set) = match &there.path {
        Some(path) => (
            format!("it exists with directory {}, expected {wanted}", path.display()),
            format!("set pool_dir to {} in the host agent's file and start it again, or, if", path.display()),
        ),
        None => (format!("it exists and is not a directory pool, expected is {wanted}"), "if".to_owned()),
    };
    let remove = format!("`virsh pool-destroy {name}` and `virsh pool-undefine {name}`");
    let next = format!(
        "{set} nothing in that pool is of a cluster, remove it with {remove}; then run the command again"
    );
    Failure::new("LIBVIRT-FOREIGN-POOL", format!("pool {name}"), reason, next)
}

/// The cluster's disks are where `pool_dir` was: nodes would be made anew, or their disks stay behind unseen.
pub(super) fn refuse_disks_elsewhere(
    cluster_id: &str,
    pool: &DesiredPool,
    observed: &ObservedHost,
) -> Result<(), Failure> {
    for domain in observed.domains.iter().filter(|it| belongs(it, cluster_id)) {
        let is_disk = |name: &OsStr| name.to_str().is_some_and(|name| is_volume_name(cluster_id, name));
        let its = domain.disks.iter().find(|disk| disk.file_name().is_some_and(is_disk));
        let Some(directory) = its.and_then(|disk| disk.parent()).filter(|it| **it != pool.path) else {
            continue;
        };
        let (there, wanted) = (directory.display(), pool.path.display());
        return Err(Failure::new(
            "LIBVIRT-FOREIGN-POOL",
            format!("pool {}", pool.name),
            format!("the disk of node {} is in {there}, and pool_dir is {wanted}", domain.name),
            format!(
                "set pool_dir to {there} in the host agent's file, start it again, then run the command again"
            ),
        ));
    }
    Ok(())
}

pub(super) fn plan_pool(desired: &DesiredHost, observed: &ObservedHost) -> Result<Vec<HostChange>, Failure> {
    let pool = &desired.pool;
    refuse_disks_elsewhere(&desired.cluster_id, pool, observed)?;
    let define = || HostOp::DefinePool { name: pool.name.clone(), path: pool.path.clone() };
    let start = || HostOp::StartPool { name: pool.name.clone() };
    match &observed.pool {
        None => Ok(vec![
            change(Action::Create, Kind::Pool, &pool.name, "disks live in a pool of our own", define()),
            change(Action::Create, Kind::Pool, &pool.name, "it shall run", start()),
        ]),
        Some(there) if there.path.as_ref() != Some(&pool.path) => Err(foreign_pool(pool, there)),
        Some(there) if !there.active || !there.autostart => Ok(vec![change(
            Action::Update,
            Kind::Pool,
            &pool.name,
            "it does not run, or not by itself",
            start(),
        )]),
        Some(_) => Ok(Vec::new()),
    }
}
