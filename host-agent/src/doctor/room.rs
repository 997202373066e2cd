//! Whether the host has the memory and the disk that its clusters want, or that the smallest one would.

use host_hypervisor::observed::ObservedHost;
use k8sctl_proto::control::v1::Check;
use k8sctl_types::spec::most_memory;

use super::{Host, failed, ok, warning};
use crate::records::{ClusterRecord, NodeState};

const GIB: u64 = 1 << 30;
/// A control plane and a worker of the least size, and something for the host.
const SMALLEST_CLUSTER: u64 = 4 * GIB;
/// What the host itself keeps.
const RESERVE: u64 = GIB;

/// Sums over all clusters, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Memory of all nodes.
    pub memory: u64,
    /// Size of all nodes' disks.
    pub disk: u64,
}

/// All checks of this file; none of the disk where libvirt does not answer.
pub fn examine(host: &Host, observed: Option<&ObservedHost>, clusters: &[ClusterRecord]) -> Vec<Check> {
    let nodes = clusters.iter().flat_map(|cluster| &cluster.nodes);
    let wanted =
        nodes.filter(|node| node.state == NodeState::Present).fold(Wanted::default(), |sum, node| Wanted {
            memory: sum.memory.saturating_add(node.spec.memory_bytes),
            disk: sum.disk.saturating_add(node.spec.disk_bytes),
        });
    let meminfo = host.read("/proc/meminfo").unwrap_or_default();
    let mut checks = vec![decide_memory(wanted.memory, &meminfo)];
    checks.extend(observed.and_then(|observed| decide_disk(wanted.disk, observed.pool_free_bytes)));
    checks
}

/// Memory against what the clusters want, or the smallest one.
pub fn decide_memory(wanted: u64, meminfo: &str) -> Check {
    const ID: &str = "HOST-MEMORY";
    let (total, available) = (meminfo_bytes(meminfo, "MemTotal"), meminfo_bytes(meminfo, "MemAvailable"));
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / GIB as f64);
    let has = format!("the host has {}, {} of it available", gib(total), gib(available));
    if wanted > most_memory(total) {
        let message = format!("the clusters want {}, {has}", gib(wanted));
        return failed(ID, message, "give the nodes less memory in the cluster file, or take fewer nodes");
    }
    if wanted == 0 && available < SMALLEST_CLUSTER {
        let message = format!("{has}: the smallest useful cluster wants {}", gib(SMALLEST_CLUSTER));
        return warning(ID, message, "end what needs memory, or use a larger host");
    }
    if wanted > 0 && wanted.saturating_add(RESERVE) > total {
        let message = format!("the clusters want {} and leave the host little: {has}", gib(wanted));
        return warning(ID, message, "give the nodes less memory in the cluster file");
    }
    let clusters = if wanted > 0 { format!("the clusters want {}, ", gib(wanted)) } else { String::new() };
    ok(ID, format!("{clusters}{has}"))
}

fn meminfo_bytes(meminfo: &str, key: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default().saturating_mul(1024)
}

/// Disks are thin: that they can outgrow the host is a warning, and none where there are no clusters.
pub fn decide_disk(wanted: u64, free: u64) -> Option<Check> {
    const ID: &str = "HOST-DISK-ROOM";
    if wanted == 0 {
        return None;
    }
    let message =
        format!("the clusters' disks may grow to {} GiB, {} GiB are free", wanted / GIB, free / GIB);
    Some(if wanted > free {
        warning(ID, message, "watch the free space, or set pool_dir to a larger file system")
    } else {
        ok(ID, message)
    })
}
