//! Removing a cluster from the host: all that is its own, nothing else.

use std::collections::BTreeSet;

use k8sctl_types::failure::Failure;

use super::disks::{disks_of, is_own_disk};
use super::nodes::{belongs, delete_node, delete_volume};
use super::storage::{foreign_pool, refuse_disks_elsewhere};
use super::{change, destructive, network};
use crate::adoption::Adoption;
use crate::change::{Action, HostChange, HostOp, HostPlan, Kind};
use crate::desired::{DesiredPool, image_of_file, is_image_part};
use crate::observed::{DomainState, ObservedHost, ObservedVolume};

/// The changes that free the host of a cluster: its domains, volumes, networks, what it changed in
/// adopted networks, image files that nobody else uses, and the pool when nothing is left in it.
///
/// A pool of our name with another directory is a failure, and so are VMs of the cluster with their disks in another
/// one: the cluster's disks are there, and would stay there unseen. Of VMs that were undefined by hand nobody knows.
pub fn plan_teardown(
    cluster_id: &str,
    pool: &DesiredPool,
    observed: &ObservedHost,
    adopted: &Adoption,
) -> Result<HostPlan, Failure> {
    refuse_disks_elsewhere(cluster_id, pool, observed)?;
    let reason = "the cluster is taken down";
    let mut changes = Vec::new();
    // libvirt deletes volumes of a running pool only.
    let for_deleting = "what is in it is to be deleted";
    let start = HostOp::StartPool { name: pool.name.clone() };
    match &observed.pool {
        Some(there) if there.path.as_ref() != Some(&pool.path) => return Err(foreign_pool(pool, there)),
        Some(there) if !there.active && !observed.volumes.is_empty() => {
            changes.push(change(Action::Update, Kind::Pool, &pool.name, for_deleting, start));
        }
        // Somebody undefined it and left the disks behind.
        None if observed.volumes.iter().any(|it| is_own_disk(cluster_id, pool, observed, it)) => {
            let define = HostOp::DefinePool { name: pool.name.clone(), path: pool.path.clone() };
            changes.push(change(Action::Create, Kind::Pool, &pool.name, for_deleting, define));
            changes.push(change(Action::Create, Kind::Pool, &pool.name, for_deleting, start));
        }
        _ => {}
    }
    let has_pool = observed.pool.is_some() || !changes.is_empty();
    for domain in observed.domains.iter().filter(|it| belongs(it, cluster_id)) {
        let disks = disks_of(cluster_id, pool, observed, domain, &[]);
        delete_node(&pool.name, domain, &disks, Action::Delete, reason, &mut changes);
    }
    let files = plan_files(cluster_id, pool, observed, &changes, reason);
    changes.extend(files.changes);
    if has_pool && files.left == 0 {
        let op = HostOp::DeletePool { name: pool.name.clone() };
        changes.push(change(Action::Delete, Kind::Pool, &pool.name, "nothing is left in it", op));
    }
    let (released, adoption) = network::plan_release(cluster_id, observed, adopted);
    changes.extend(released);
    changes.extend(plan_networks(cluster_id, observed, reason));
    Ok(HostPlan { changes, adoption })
}

/// What goes from the pool's directory, and how many files stay in it.
struct FilesDecision {
    changes: Vec<HostChange>,
    left: usize,
}

fn plan_files(
    cluster_id: &str,
    pool: &DesiredPool,
    observed: &ObservedHost,
    before: &[HostChange],
    reason: &str,
) -> FilesDecision {
    let mut changes = Vec::new();
    let is_planned = |it: &ObservedVolume| {
        before.iter().any(|change| change.kind == Kind::Volume && change.name == it.name)
    };
    let is_own = |it: &ObservedVolume| is_own_disk(cluster_id, pool, observed, it);
    for volume in observed.volumes.iter().filter(|it| is_own(it) && !is_planned(it)) {
        changes.push(delete_volume(&pool.name, volume, Action::Delete, reason));
    }

    let stays = |it: &&ObservedVolume| !is_own(it) && !is_planned(it);
    let disks = observed.volumes.iter().filter(stays).filter_map(|it| it.backing.as_ref());
    // A clone boots from the image, too, wherever its disk is.
    let strangers = observed.domains.iter().filter(|it| !belongs(it, cluster_id));
    let booted = strangers.flat_map(|it| [&it.kernel, &it.initrd]).flatten();
    let used: BTreeSet<&str> =
        disks.chain(booted).filter_map(|it| image_of_file(it.file_name()?.to_str()?)).collect();
    // In a pool that does not run a disk's header may not tell what it is based on: then every image counts as used.
    let is_unknown = |name: &str| image_of_file(name).is_none() && !is_image_part(name);
    let blind = observed.pool.as_ref().is_none_or(|there| !there.active)
        && observed.volumes.iter().filter(stays).any(|it| it.backing.is_none() && is_unknown(&it.name));
    let mut left = 0;
    for file in observed.volumes.iter().filter(stays) {
        let why = match image_of_file(&file.name) {
            Some(image) if !blind && !used.contains(image) => "no node uses it any more",
            None if is_image_part(&file.name) => "its copying was interrupted",
            _ => {
                left += 1;
                continue;
            }
        };
        let op = HostOp::RemoveFile { pool: pool.name.clone(), target: pool.path.join(&file.name) };
        changes.push(change(Action::Delete, Kind::Image, &file.name, why, op));
    }
    FilesDecision { changes, left }
}

fn plan_networks(cluster_id: &str, observed: &ObservedHost, reason: &str) -> Vec<HostChange> {
    let ours = observed
        .networks
        .iter()
        .filter(|it| it.ours.as_ref().is_some_and(|owner| owner.cluster_id == cluster_id));
    let delete = |it: &crate::observed::ObservedNetwork| {
        let strangers: Vec<&str> = observed
            .domains
            .iter()
            .filter(|domain| !belongs(domain, cluster_id) && domain.state != DomainState::Off)
            .filter(|domain| domain.networks.contains(&it.name))
            .map(|domain| domain.name.as_str())
            .collect();
        let reason = match strangers.as_slice() {
            [] => reason.to_owned(),
            names => format!("{reason}; cuts off {}", names.join(", ")),
        };
        let op = HostOp::DeleteNetwork { name: it.name.clone(), cluster_id: cluster_id.to_owned() };
        destructive(change(Action::Delete, Kind::Network, &it.name, reason, op))
    };
    ours.map(delete).collect()
}
