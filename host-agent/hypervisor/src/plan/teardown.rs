//! Removing a cluster from the host: all that is its own, nothing else.

use std::collections::BTreeSet;

use super::nodes::{belongs, delete_node, delete_volume};
use super::{change, destructive, network};
use crate::adoption::Adoption;
use crate::change::{Action, HostChange, HostOp, HostPlan, Kind};
use crate::desired::{DesiredPool, image_file_names, image_of_base, volume_name, volume_prefix};
use crate::observed::{DomainState, ObservedHost};

/// The changes that free the host of a cluster: its domains, volumes, networks, what it changed in
/// adopted networks, image files that nobody else uses, and the pool when nothing is left in it.
pub fn plan_teardown(
    cluster_id: &str,
    pool: &DesiredPool,
    observed: &ObservedHost,
    adopted: &Adoption,
) -> HostPlan {
    let reason = "the cluster is taken down";
    let mut changes = Vec::new();
    let pool_is_ours = observed.pool.as_ref().is_some_and(|there| there.path.as_ref() == Some(&pool.path));
    if pool_is_ours
        && observed.pool.as_ref().is_some_and(|there| !there.active)
        && !observed.volumes.is_empty()
    {
        // libvirt deletes volumes of a running pool only.
        let op = HostOp::StartPool { name: pool.name.clone() };
        changes.push(change(Action::Update, Kind::Pool, &pool.name, "what is in it is to be deleted", op));
    }
    for domain in observed.domains.iter().filter(|it| belongs(it, cluster_id)) {
        let volume = observed.volume(&volume_name(cluster_id, &domain.name)).filter(|_| pool_is_ours);
        delete_node(&pool.name, domain, volume, Action::Delete, reason, &mut changes);
    }
    if pool_is_ours {
        changes.extend(plan_pool(cluster_id, pool, observed, &changes, reason));
    }
    let (released, adoption) = network::plan_release(cluster_id, observed, adopted);
    changes.extend(released);
    changes.extend(plan_networks(cluster_id, observed, reason));
    HostPlan { changes, adoption }
}

fn plan_pool(
    cluster_id: &str,
    pool: &DesiredPool,
    observed: &ObservedHost,
    before: &[HostChange],
    reason: &str,
) -> Vec<HostChange> {
    let mut changes = Vec::new();
    let prefix = volume_prefix(cluster_id);
    let planned = |name: &str| before.iter().any(|it| it.kind == Kind::Volume && it.name == name);
    for volume in observed.volumes.iter().filter(|it| it.name.starts_with(&prefix) && !planned(&it.name)) {
        changes.push(delete_volume(&pool.name, volume, Action::Delete, reason));
    }

    let stays = |name: &str| !name.starts_with(&prefix);
    let used: BTreeSet<&str> = observed
        .volumes
        .iter()
        .filter(|it| stays(&it.name))
        .filter_map(|it| image_of_base(it.backing.as_ref()?.file_name()?.to_str()?))
        .collect();
    let image_of_file = |name: &'_ str| -> Option<String> {
        let short = image_of_base(name)
            .or_else(|| name.strip_prefix("kernel-"))
            .or_else(|| name.strip_prefix("initrd-"))?;
        image_file_names(short).iter().any(|it| it == name).then(|| short.to_owned())
    };
    // In a pool that is stopped nobody sees what a disk is based on: then every image counts as used.
    let is_unknown = |name: &str| image_of_file(name).is_none();
    let blind = observed.pool.as_ref().is_some_and(|there| !there.active)
        && observed.volumes.iter().any(|it| stays(&it.name) && is_unknown(&it.name));
    let mut left = 0;
    for file in observed.volumes.iter().filter(|it| stays(&it.name)) {
        match image_of_file(&file.name) {
            Some(image) if !blind && !used.contains(image.as_str()) => {
                let op = HostOp::RemoveFile { pool: pool.name.clone(), target: pool.path.join(&file.name) };
                changes.push(change(Action::Delete, Kind::Image, &file.name, "no node uses it any more", op));
            }
            _ => left += 1,
        }
    }
    if left == 0 {
        let op = HostOp::DeletePool { name: pool.name.clone() };
        changes.push(change(Action::Delete, Kind::Pool, &pool.name, "nothing is left in it", op));
    }
    changes
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
