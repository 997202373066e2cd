//! What only shows on a given host: whether its memory, CPUs and disk are enough. Pure; the host agent
//! measures and calls this before it plans.

use super::diagnostic::Diagnostic;
use super::model::ClusterSpec;
use super::values::{GIB, MIB};

/// What the host keeps for itself before it is called tight.
const HOST_RESERVE: u64 = GIB;

/// Mistakes and warnings of a spec on a host with this much memory, CPUs and free disk space.
///
/// `host_memory_bytes` is all of the host's memory, not what is free now; `free_disk_bytes` the free space
/// of the pool plus what the cluster's own disks have taken already.
pub fn check_host(
    spec: &ClusterSpec,
    host_memory_bytes: u64,
    host_cpus: u32,
    free_disk_bytes: u64,
) -> Vec<Diagnostic> {
    let sum = |of: fn(&super::model::NodeSpec) -> u64| {
        spec.nodes.iter().fold(0_u64, |total, node| total.saturating_add(of(node)))
    };
    let (memory, disk) = (sum(|node| node.memory_bytes), sum(|node| node.disk_bytes));
    let vcpus = sum(|node| u64::from(node.vcpus));
    let about = |id, field: &str, message, hint: &str, warning| Diagnostic {
        id,
        field: field.to_owned(),
        line: 0,
        column: 0,
        message,
        hint: hint.to_owned(),
        warning,
    };
    let mut found = Vec::new();
    if memory > host_memory_bytes {
        let message = format!(
            "the nodes want {} MiB together, the host has {} MiB",
            memory / MIB,
            host_memory_bytes / MIB
        );
        let hint = "give the nodes less memory, or take fewer nodes";
        found.push(about("SPEC-HOST-MEMORY", "node.memory", message, hint, false));
    } else if memory.saturating_add(HOST_RESERVE) > host_memory_bytes {
        let message = format!(
            "the nodes want {} MiB together and leave the host {} MiB",
            memory / MIB,
            (host_memory_bytes - memory) / MIB
        );
        found.push(about(
            "SPEC-HOST-MEMORY-TIGHT",
            "node.memory",
            message,
            "leave it 1024 MiB or more",
            true,
        ));
    }
    if vcpus > u64::from(host_cpus) {
        let message =
            format!("the nodes have {vcpus} vCPUs together, the host has {host_cpus} CPUs: they share");
        found.push(about("SPEC-HOST-VCPUS", "node.vcpus", message, "fewer vCPUs make nothing slower", true));
    }
    if disk > free_disk_bytes {
        let message = format!(
            "the disks can grow to {} GiB together, the pool has {} GiB left",
            disk.div_ceil(GIB),
            free_disk_bytes / GIB
        );
        let hint = "disks take only what is used; watch the pool, or make them smaller";
        found.push(about("SPEC-HOST-DISK", "node.disk", message, hint, true));
    }
    found
}
