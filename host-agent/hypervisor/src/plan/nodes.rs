//! Volumes and domains of a cluster's nodes: which come, stay and go.

use std::collections::HashSet;

use k8sctl_types::failure::Failure;
use k8sctl_types::spec::{NodeSpec, Role};

use super::definition::{image_of, plan_domain, short_id};
use super::disks::{disks_of, refuse_left};
use super::foreign::refuse_foreign;
use super::lookup::{Lookup, disks};
use super::renamed::refuse_renamed;
use super::{change, destructive};
use crate::change::{Action, DomainRef, HostChange, HostOp, Kind};
use crate::desired::{DesiredHost, DesiredNode, volume_name};
use crate::observed::{DomainState, ObservedDomain, ObservedHost, ObservedVolume};

/// What is to be done about the nodes.
#[derive(Default)]
pub(super) struct NodesDecision {
    /// Executed before everything but the pool's start: addresses and names must be free again.
    pub deletes: Vec<HostChange>,
    pub creates: Vec<HostChange>,
    /// Capacities of overlays that are new.
    pub new_disks: Vec<u64>,
    /// Whether any node boots from the desired image.
    pub needs_image: bool,
}

/// A node with what there is of it.
struct Fate<'a> {
    node: &'a DesiredNode,
    domain: Option<&'a ObservedDomain>,
    /// Why its VM goes and is made anew; `None` where it stays or is not there.
    replace: Option<String>,
}

impl<'a> Fate<'a> {
    /// What stands in the node's way is refused.
    fn of(
        desired: &DesiredHost,
        node: &'a DesiredNode,
        observed: &'a ObservedHost,
        there: &Lookup<'a>,
    ) -> Result<Self, Failure> {
        let domain = there.domain(&node.spec.name);
        let volume = there.volume(&volume_name(&desired.cluster_id, &node.spec.name));
        let replace = domain.and_then(|it| replace_reason(desired, node, it, volume));
        let stays = replace.is_none() && domain.is_some_and(|it| belongs(it, &desired.cluster_id));
        refuse_foreign(desired, node, observed, there.strangers(), stays)?;
        refuse_renamed(node, observed, there.of_node(&node.node_id))?;
        Ok(Self { node, domain, replace })
    }
}

pub(super) fn plan_nodes(desired: &DesiredHost, observed: &ObservedHost) -> Result<NodesDecision, Failure> {
    let there = Lookup::new(desired, observed);
    let fates = desired.nodes.iter().map(|node| Fate::of(desired, node, observed, &there));
    let fates = fates.collect::<Result<Vec<_>, _>>()?;
    let mut plan = NodesDecision {
        deletes: plan_deletes(desired, observed, &there, &fates),
        ..NodesDecision::default()
    };
    let gone: HashSet<String> =
        plan.deletes.iter().filter(|it| it.kind == Kind::Volume).map(|it| it.name.clone()).collect();
    let mut fresh = Vec::new();
    let mut node_changes = Vec::new();
    for Fate { node, domain, replace } in fates {
        let name = volume_name(&desired.cluster_id, &node.spec.name);
        // What goes, whosever it was, is not there for what comes.
        let volume = there.volume(&name).filter(|_| !gone.contains(&name));
        let domain = domain.filter(|_| replace.is_none());
        if domain.is_none() {
            refuse_left(desired, node, volume)?;
            fresh.push((node.spec.ip, node.spec.mac.to_ascii_lowercase()));
        }
        let action = if replace.is_some() { Action::Replace } else { Action::Create };
        plan_volume(desired, node, domain, volume, action, &mut plan.new_disks, &mut node_changes)?;
        plan_domain(desired, node, observed, domain, volume, action, &mut node_changes);
        plan.needs_image |= volume.is_none_or(|volume| image_of(volume) == Some(short_id(desired).as_str()));
    }
    if !fresh.is_empty() {
        let op = HostOp::CheckAddresses { network: desired.network.name.clone(), addresses: fresh };
        let reason = "nobody else may answer for the addresses of new nodes";
        plan.creates.push(change(Action::Create, Kind::Address, &desired.network.name, reason, op));
    }
    plan.creates.extend(node_changes);
    Ok(plan)
}

/// Nodes and volumes of this cluster that are not wanted any more, and nodes that are made anew.
fn plan_deletes(
    desired: &DesiredHost,
    observed: &ObservedHost,
    there: &Lookup<'_>,
    fates: &[Fate<'_>],
) -> Vec<HostChange> {
    let (id, pool) = (&desired.cluster_id, &desired.pool);
    let names: HashSet<&str> = desired.names().collect();
    let is_named = |name: &str| names.contains(name);
    let replaced = fates.iter().filter(|it| it.replace.is_some()).map(|it| it.node.spec.name.as_str());
    let replaced: HashSet<&str> = replaced.collect();
    let is_replaced = |name: &str| replaced.contains(name);
    let (staying, going): (Vec<_>, Vec<_>) = observed
        .domains
        .iter()
        .filter(|it| belongs(it, id))
        .partition(|it| is_named(&it.name) && !is_replaced(&it.name));
    let mut deletes = Vec::new();
    let delete = |domain: &ObservedDomain, action, reason: &str, deletes: &mut Vec<HostChange>| {
        let mut disks = disks_of(id, pool, observed, domain, &staying);
        disks.retain(|disk| !goes(deletes, &disk.name));
        delete_node(&pool.name, domain, &disks, action, reason, deletes);
    };
    for domain in going.iter().filter(|it| !is_named(&it.name)) {
        delete(domain, Action::Delete, "the node is no longer in the spec", &mut deletes);
    }
    let of_nodes: HashSet<String> = names.iter().map(|name| volume_name(id, name)).collect();
    let used = disks(&staying);
    let is_left = |it: &&ObservedVolume| {
        !of_nodes.contains(&it.name)
            && there.is_own_disk(it)
            && !used.contains(pool.path.join(&it.name).as_path())
    };
    for volume in observed.volumes.iter().filter(is_left) {
        if !goes(&deletes, &volume.name) {
            deletes.push(delete_volume(&pool.name, volume, Action::Delete, "no node uses it"));
        }
    }
    for Fate { domain, replace, .. } in fates {
        if let (Some(domain), Some(reason)) = (domain, replace) {
            delete(domain, Action::Replace, reason, &mut deletes);
        }
    }
    deletes
}

/// Whether that volume is among what goes.
fn goes(deletes: &[HostChange], volume: &str) -> bool {
    deletes.iter().any(|it| it.kind == Kind::Volume && it.name == volume)
}

pub(super) fn belongs(domain: &ObservedDomain, cluster_id: &str) -> bool {
    domain.ours.as_ref().is_some_and(|owner| owner.cluster_id == cluster_id)
}

pub(super) fn reference(domain: &ObservedDomain) -> DomainRef {
    let cluster_id = domain.ours.as_ref().map(|owner| owner.cluster_id.clone()).unwrap_or_default();
    DomainRef { name: domain.name.clone(), uuid: domain.uuid.clone(), cluster_id }
}

/// Off, disks gone, definition gone: in this order, see the module's head.
pub(super) fn delete_node(
    pool: &str,
    domain: &ObservedDomain,
    disks: &[&ObservedVolume],
    action: Action,
    reason: &str,
    changes: &mut Vec<HostChange>,
) {
    let reference = reference(domain);
    if domain.state != DomainState::Off {
        let op = HostOp::PowerOffDomain { domain: reference.clone() };
        changes.push(destructive(change(action, Kind::Domain, &domain.name, reason, op)));
    }
    changes.extend(disks.iter().map(|disk| delete_volume(pool, disk, action, reason)));
    let op = HostOp::DeleteDomain { domain: reference };
    changes.push(destructive(change(action, Kind::Domain, &domain.name, reason, op)));
}

pub(super) fn delete_volume(pool: &str, volume: &ObservedVolume, action: Action, reason: &str) -> HostChange {
    let op = HostOp::DeleteVolume { pool: pool.to_owned(), name: volume.name.clone() };
    destructive(change(action, Kind::Volume, &volume.name, reason, op))
}

fn replace_reason(
    desired: &DesiredHost,
    node: &DesiredNode,
    domain: &ObservedDomain,
    volume: Option<&ObservedVolume>,
) -> Option<String> {
    let owner = domain.ours.as_ref()?;
    let disk = desired.pool.path.join(volume_name(&desired.cluster_id, &node.spec.name));
    let differs = |what: &str, got: &str, wanted: &str| format!("its {what} changes from {got} to {wanted}");
    if owner.node_id != node.node_id {
        Some("it is another node of the same name".to_owned())
    } else if domain.uuid != node.machine_uuid {
        Some(differs("UUID", &domain.uuid, &node.machine_uuid))
    } else if owner.ip != node.spec.ip.to_string() {
        Some(differs("address", &owner.ip, &node.spec.ip.to_string()))
    } else if !domain.mac.eq_ignore_ascii_case(&node.spec.mac) {
        Some(differs("MAC address", &domain.mac, &node.spec.mac))
    } else if domain.networks != [desired.network.name.clone()] {
        Some(differs("network", &domain.networks.join(", "), &desired.network.name))
    } else if domain.disks.first() != Some(&disk) {
        let got = domain.disks.first().map_or_else(|| "none".to_owned(), |got| got.display().to_string());
        Some(format!(
            "it has another disk than it should, {got} and not {}; where that is a snapshot's, `virsh blockcommit {} vda \
             --active --pivot` brings back the old one",
            disk.display(),
            domain.name
        ))
    } else if volume.is_none() {
        Some(format!("its disk is gone; is the file system of {} mounted?", desired.pool.path.display()))
    } else {
        None
    }
}

fn plan_volume(
    desired: &DesiredHost,
    node: &DesiredNode,
    domain: Option<&ObservedDomain>,
    volume: Option<&ObservedVolume>,
    action: Action,
    new_disks: &mut Vec<u64>,
    changes: &mut Vec<HostChange>,
) -> Result<(), Failure> {
    let name = volume_name(&desired.cluster_id, &node.spec.name);
    let pool = desired.pool.name.clone();
    let capacity = node.spec.disk_bytes;
    let Some(volume) = volume else {
        let [base, ..] = desired.image.pool_names();
        let reason = format!("disk of node {}, {} GiB on {base}", node.spec.name, capacity >> 30);
        let op = HostOp::CreateVolume {
            pool,
            name: name.clone(),
            capacity,
            backing: desired.pool.path.join(base),
        };
        changes.push(change(action, Kind::Volume, &name, reason, op));
        new_disks.push(capacity);
        return Ok(());
    };
    if volume.capacity > capacity {
        return Err(disk_shrinks(desired, node, volume.capacity));
    }
    if volume.capacity < capacity {
        let reason = format!("disk grows from {} to {} MiB, in place", volume.capacity >> 20, capacity >> 20);
        let domain = domain.map_or_else(
            || DomainRef {
                name: node.spec.name.clone(),
                uuid: node.machine_uuid.clone(),
                cluster_id: desired.cluster_id.clone(),
            },
            reference,
        );
        let op = HostOp::GrowVolume { pool, name: name.clone(), capacity, domain };
        changes.push(change(Action::Update, Kind::Volume, &name, reason, op));
    }
    Ok(())
}

fn disk_shrinks(desired: &DesiredHost, node: &DesiredNode, got: u64) -> Failure {
    let NodeSpec { name, role, disk_bytes, .. } = &node.spec;
    // Whole MiB as a rule, and no two sizes are written alike.
    let gib = |bytes: u64| bytes as f64 / (1_u64 << 30) as f64;
    let anew = match role {
        Role::ControlPlane => {
            format!(
                "take the cluster down with `k8sctl down {}` and make it anew with `k8sctl up`",
                desired.cluster_name
            )
        }
        Role::Worker => "remove the node and add it again".to_owned(),
    };
    Failure::new(
        "HOST-DISK-SHRINK",
        format!("disk of node {name}"),
        format!(
            "it has {} GiB, the cluster file says {} GiB; a disk cannot get smaller",
            gib(got),
            gib(*disk_bytes)
        ),
        format!("set the disk of {name} back, or {anew}"),
    )
}
