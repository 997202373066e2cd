//! Deciding: what is to be done so that the host is as a cluster wants it, or free of the cluster.
//!
//! Pure and total: the same desired and observed always give the same plan; planning again after
//! the plan was executed gives an empty one; planning again after any part of it gives the rest.
//!
//! Order on the way up: pool (disks are deleted in one that runs), what goes (removed and replaced nodes),
//! network, the VMs that run on it, image files, and then
//! node by node volume, definition, start, so that the first node runs while the others are made.
//! A disk always goes before the definition of its domain: a volume without a domain is thus a fresh
//! one, left by an interrupted creation, and is used.
//!
//! - `definition`: a node's VM as it shall be
//! - `disks`: which files in the pool are the cluster's
//! - `foreign`: VMs of somebody else's in the way
//! - `network`: own and adopted networks
//! - `nodes`: volumes and domains that come, stay and go
//! - `others`: other clusters, and how they go
//! - `renamed`: VMs of ours under other names
//! - `starts`: [`plan_starts`]
//! - `storage`: pool, image files, space
//! - `taps`: running VMs back onto their network's bridge
//! - `teardown`: [`plan_teardown`]

mod definition;
mod disks;
mod foreign;
mod lookup;
mod network;
mod nodes;
mod others;
mod renamed;
mod starts;
mod storage;
mod taps;
mod teardown;
#[cfg(test)]
mod tests;

use k8sctl_types::failure::Failure;

use crate::adoption::Adoption;
use crate::change::{Action, HostChange, HostOp, HostPlan, Kind};
use crate::desired::DesiredHost;
use crate::observed::ObservedHost;

pub(crate) use disks::left_disk;
pub use starts::{StartPlan, plan_starts};
pub(crate) use storage::disk_full;
pub use teardown::plan_teardown;

/// The changes that make the host what the cluster wants. Whatever stands in the way and is not
/// ours is a failure that names it and the ways out; nothing was changed then.
pub fn plan_host(
    desired: &DesiredHost,
    observed: &ObservedHost,
    adopted: &Adoption,
) -> Result<HostPlan, Failure> {
    let network = network::plan_network(desired, observed, adopted)?;
    let nodes = nodes::plan_nodes(desired, observed)?;
    let storage = storage::plan_storage(desired, observed, &nodes)?;
    let taps = taps::plan_taps(desired, observed, &network.changes, &nodes.deletes);

    let mut changes = storage.pool;
    changes.extend(nodes.deletes);
    changes.extend(network.changes);
    changes.extend(taps);
    changes.extend(storage.images);
    changes.extend(nodes.creates);
    Ok(HostPlan { changes, adoption: network.adoption })
}

fn change(action: Action, kind: Kind, name: &str, reason: impl Into<String>, op: HostOp) -> HostChange {
    HostChange { action, kind, name: name.to_owned(), reason: reason.into(), destructive: false, op }
}

fn destructive(change: HostChange) -> HostChange {
    HostChange { destructive: true, ..change }
}
