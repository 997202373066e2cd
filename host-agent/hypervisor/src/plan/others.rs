//! Clusters other than the one that is planned: whose what is in the way is, and how it goes.

use super::disks::is_own_disk;
use super::nodes::belongs;
use crate::desired::DesiredHost;
use crate::observed::ObservedHost;
use crate::xml::owner::Owner;

/// Another cluster, for a person.
pub(super) struct Other {
    /// `cluster NAME`, or its id where nobody knows its name.
    pub whose: String,
    /// How it goes: nobody else may change what that cluster has.
    pub way: String,
}

/// The cluster of that mark.
pub(super) fn other(owner: &Owner, desired: &DesiredHost, observed: &ObservedHost) -> Other {
    let id = &owner.cluster_id;
    match desired.others.get(id) {
        Some(name) => Other {
            whose: format!("cluster {name}"),
            way: format!("take that cluster down: `k8sctl down {name}`"),
        },
        None => Other {
            whose: format!("a cluster that is in no record of this host agent (id {id})"),
            way: without_record(id, desired, observed),
        },
    }
}

/// The host agent's database was lost, or is of a time before the cluster: no command takes its id.
fn without_record(id: &str, desired: &DesiredHost, observed: &ObservedHost) -> String {
    let pool = &desired.pool;
    let vms = observed.domains.iter().filter(|it| belongs(it, id)).map(|it| it.name.as_str());
    let is_its = |owner: &Option<Owner>| owner.as_ref().is_some_and(|it| it.cluster_id == id);
    let networks = observed.networks.iter().filter(|it| is_its(&it.ours)).map(|it| it.name.as_str());
    let disks = observed.volumes.iter().filter(|it| is_own_disk(id, pool, observed, it));
    let parts = [
        (vms.collect(), "VM", "`virsh destroy VM`, `virsh undefine VM --managed-save`".to_owned()),
        (
            networks.collect(),
            "NETWORK",
            "`virsh net-destroy NETWORK`, `virsh net-undefine NETWORK`".to_owned(),
        ),
        (disks.map(|it| it.name.as_str()).collect(), "DISK", format!("`rm {}/DISK`", pool.path.display())),
    ];
    let there = parts.into_iter().filter(|(names, ..): &(Vec<&str>, _, _)| !names.is_empty());
    let remove: Vec<_> =
        there.map(|(names, what, how)| format!("{how} for {what} {}", names.join(", "))).collect();
    format!(
        "restore the host agent's database from a backup, or remove all that is left of that cluster: {}",
        remove.join("; ")
    )
}
