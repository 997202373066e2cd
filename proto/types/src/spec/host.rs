//! What only shows on a given host: whether its memory, CPUs and disk are enough.

use super::read::{Draft, NodeDraft};
use super::report::{Located, Place, Report};
use super::values::{GIB, MIB};

/// What the host keeps for itself before it is called tight.
const HOST_RESERVE: u64 = GIB;
/// How many times a host's memory its nodes may want together: a VM takes page by page what it uses.
const OVERCOMMITTED: u64 = 2;

/// A host, as far as a spec must fit onto it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoom {
    /// All of the host's memory, not what is free now.
    pub memory_bytes: u64,
    /// Its processors.
    pub cpus: u32,
    /// Free space of the pool plus what the cluster's own disks have taken already.
    pub free_disk_bytes: u64,
}

/// The most memory, in bytes, that nodes may want together of a host that has so much.
pub fn most_memory(host_bytes: u64) -> u64 {
    host_bytes.saturating_mul(OVERCOMMITTED)
}

/// Mistakes and warnings on this host, told at the node that wants most.
pub(super) fn check(draft: &Draft, host: &HostRoom, report: &mut Report<'_>) {
    let (memory, at) = wanted(draft, |node| node.memory.as_ref());
    let largest = draft.nodes.iter().filter_map(|node| node.memory.as_ref()).map(|it| it.value).max();
    if let Some(largest) = largest.filter(|largest| *largest > host.memory_bytes) {
        let message =
            format!("the node wants {} MiB, the host has {} MiB", largest / MIB, host.memory_bytes / MIB);
        report.error(
            "SPEC-HOST-MEMORY",
            &at,
            message,
            "give it less: no VM starts that is larger than its host",
        );
    } else if memory > most_memory(host.memory_bytes) {
        let message = format!(
            "the nodes want {} MiB together, the host has {} MiB",
            memory / MIB,
            host.memory_bytes / MIB
        );
        report.error("SPEC-HOST-MEMORY", &at, message, "give the nodes less memory, or take fewer nodes");
    } else if memory.saturating_add(HOST_RESERVE) > host.memory_bytes {
        let wanted = format!("the nodes want {} MiB together", memory / MIB);
        let message = match host.memory_bytes.checked_sub(memory) {
            Some(left) => format!("{wanted} and leave the host {} MiB", left / MIB),
            None => format!(
                "{wanted}, the host has {} MiB: it swaps, or a VM ends, when all of it is used",
                host.memory_bytes / MIB
            ),
        };
        report.warning("SPEC-HOST-MEMORY-TIGHT", &at, message, "leave it 1024 MiB or more");
    }
    let (vcpus, at) = wanted(draft, |node| node.vcpus.as_ref());
    if vcpus > u64::from(host.cpus) {
        let message =
            format!("the nodes have {vcpus} vCPUs together, the host has {} CPUs: they share", host.cpus);
        report.warning("SPEC-HOST-VCPUS", &at, message, "fewer vCPUs make nothing slower");
    }
    let (disk, at) = wanted(draft, |node| node.disk.as_ref());
    if disk > host.free_disk_bytes {
        let message = format!(
            "the disks can grow to {} GiB together, the pool has {} GiB left",
            disk.div_ceil(GIB),
            host.free_disk_bytes / GIB
        );
        let hint = "disks take only what is used; watch the pool, or make them smaller";
        report.warning("SPEC-HOST-DISK", &at, message, hint);
    }
}

/// What all nodes want together, and where the first of those stands that wants most.
fn wanted<T>(draft: &Draft, of: impl Fn(&NodeDraft) -> Option<&Located<T>>) -> (u64, Place)
where
    T: Copy + TryInto<u64>,
{
    let (mut sum, mut most, mut place) = (0_u64, 0, Place::file("node"));
    for located in draft.nodes.iter().filter_map(of) {
        // What is no such number has been told already.
        let value = located.value.try_into().unwrap_or_default();
        sum = sum.saturating_add(value);
        if value > most {
            (most, place) = (value, located.at.clone());
        }
    }
    (sum, place)
}
