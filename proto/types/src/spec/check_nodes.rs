//! What only shows between the nodes, and between a node's values and its role.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::hash::Hash;

use super::check_network::usable;
use super::mac::derived_mac;
use super::model::Role;
use super::read::{Draft, NodeDraft};
use super::report::{Located, Place, Report};
use super::values::{GIB, MIB, show_size};

const MOST_VCPUS: i64 = 255;
const MOST_MEMORY: u64 = 4096 * GIB;
const LEAST_DISK: u64 = 8 * GIB;
const MOST_DISK: u64 = 16384 * GIB;

/// Checks the nodes of the draft.
pub(super) fn check(draft: &Draft, report: &mut Report<'_>) {
    for node in &draft.nodes {
        check_size(node, report);
        check_address(node, draft, report);
    }
    duplicates(draft, report);
    roles(draft, report);
}

fn check_size(node: &NodeDraft, report: &mut Report<'_>) {
    let role = node.role.as_ref().map(|role| role.value);
    if let Some(vcpus) = &node.vcpus {
        if !(1..=MOST_VCPUS).contains(&vcpus.value) {
            let message = format!("got {} vCPUs, expected 1 to {MOST_VCPUS}", vcpus.value);
            report.error("SPEC-VCPUS", &vcpus.at, message, "write vcpus = 2");
        } else if role == Some(Role::ControlPlane) && vcpus.value < 2 {
            let message = format!("got {} vCPU, kubeadm expects at least 2 on a control plane", vcpus.value);
            report.error("SPEC-VCPUS-SMALL", &vcpus.at, message, "write vcpus = 2");
        }
    }
    if let Some(memory) = &node.memory {
        // kubeadm counts what the kernel leaves over, about 5% less than the VM has.
        let (least, good, who) = match role {
            Some(Role::ControlPlane) => (1700 * MIB, 1850 * MIB, "kubeadm expects on a control plane"),
            _ => (512 * MIB, 1024 * MIB, "a worker needs"),
        };
        if memory.value > MOST_MEMORY {
            let message =
                format!("got {}, expected at most {}", show_size(memory.value), show_size(MOST_MEMORY));
            report.error("SPEC-MEMORY-LARGE", &memory.at, message, "check the unit");
        } else if memory.value < least {
            let message = format!("got {}, {who} at least {}", show_size(memory.value), show_size(least));
            report.error("SPEC-MEMORY-SMALL", &memory.at, message, "write memory = \"2GiB\" or more");
        } else if memory.value < good {
            let message =
                format!("{} leaves hardly the {} that {who}", show_size(memory.value), show_size(least));
            report.warning(
                "SPEC-MEMORY-TIGHT",
                &memory.at,
                message,
                format!("{} or more is safe", show_size(good)),
            );
        }
    }
    if let Some(disk) = &node.disk {
        let got = show_size(disk.value);
        if disk.value < LEAST_DISK {
            let message = format!("got {got}, the node image needs at least {}", show_size(LEAST_DISK));
            report.error(
                "SPEC-DISK-SMALL",
                &disk.at,
                message,
                "write disk = \"30GiB\"; only used space is taken",
            );
        } else if disk.value > MOST_DISK {
            let message = format!("got {got}, expected at most {}", show_size(MOST_DISK));
            report.error("SPEC-DISK-LARGE", &disk.at, message, "check the unit");
        }
    }
}

fn check_address(node: &NodeDraft, draft: &Draft, report: &mut Report<'_>) {
    let (Some(ip), Some(cidr)) = (&node.ip, &draft.network.cidr) else { return };
    let (address, net) = (ip.value, cidr.value);
    let usable = usable(net);
    let free = format!("take one of {}-{}", usable.first.saturating_next(), usable.last);
    if node.pool_index.is_some_and(|index| index > 0) {
        // Of those that do not fit, the first one; where the pool's own first address is wrong, that has been told.
        if !usable.contains(address) && usable.contains(address.saturating_previous()) {
            let message = format!("the pool's addresses run to {address}, out of the usable ones of {net}");
            report.error(
                "SPEC-POOL-OVERFLOW",
                &ip.at,
                message,
                "begin at a lower address, or take a smaller count",
            );
        }
        return;
    }
    let reserved = if !net.contains(&address) {
        report.error("SPEC-IP-OUTSIDE", &ip.at, format!("{address} is outside of network.cidr {net}"), free);
        return;
    } else if address == net.network() {
        "the network's own address"
    } else if address == net.broadcast() {
        "the broadcast address"
    } else if address == usable.first {
        "the gateway: the host has it"
    } else {
        return;
    };
    report.error("SPEC-IP-RESERVED", &ip.at, format!("{address} is {reserved}"), free);
}

trait Neighbour {
    fn saturating_next(self) -> Self;
    fn saturating_previous(self) -> Self;
}

impl Neighbour for std::net::Ipv4Addr {
    fn saturating_next(self) -> Self {
        Self::from(u32::from(self).saturating_add(1))
    }

    fn saturating_previous(self) -> Self {
        Self::from(u32::from(self).saturating_sub(1))
    }
}

fn duplicates(draft: &Draft, report: &mut Report<'_>) {
    let names = draft.nodes.iter().filter_map(|node| node.name.clone());
    unique("SPEC-DUPLICATE-NAME", "name", names, "give each node a name of its own", report);
    let addresses = draft.nodes.iter().filter_map(|node| node.ip.clone());
    unique("SPEC-DUPLICATE-IP", "address", addresses, "give each node an address of its own", report);
    // Derived addresses are unique among themselves: only those of nodes with the same ip are equal.
    let written: Vec<_> = draft.nodes.iter().filter_map(|node| node.mac.clone()).collect();
    let mut seen: HashMap<String, Place> = HashMap::new();
    if let Some(cluster) = draft.name.as_ref().filter(|_| !written.is_empty()) {
        for node in draft.nodes.iter().filter(|node| node.mac.is_none()) {
            if let Some(ip) = &node.ip {
                seen.insert(derived_mac(&cluster.value, ip.value), ip.at.clone());
            }
        }
    }
    unique_after(
        seen,
        "SPEC-DUPLICATE-MAC",
        "MAC address",
        written,
        "leave mac out: it is derived then",
        report,
    );
}

fn unique<T: Eq + Hash + Display>(
    id: &'static str,
    what: &str,
    values: impl IntoIterator<Item = Located<T>>,
    hint: &str,
    report: &mut Report<'_>,
) {
    unique_after(HashMap::new(), id, what, values, hint, report);
}

fn unique_after<T: Eq + Hash + Display>(
    mut seen: HashMap<T, Place>,
    id: &'static str,
    what: &str,
    values: impl IntoIterator<Item = Located<T>>,
    hint: &str,
    report: &mut Report<'_>,
) {
    // A pool's nodes have one key for all of theirs: the first one tells.
    let mut told = HashSet::new();
    for Located { value, at, .. } in values {
        if let Some(first) = seen.get(&value) {
            if told.insert(at.field.clone()) {
                let line = report.line(first);
                let message = format!("the {what} {value} is taken by {} in line {line}", first.field);
                report.error(id, &at, message, hint);
            }
        } else {
            seen.insert(value, at);
        }
    }
}

fn roles(draft: &Draft, report: &mut Report<'_>) {
    // What could not be read, and has been reported, may be what seems to be missing.
    let all_known = draft.all_nodes && !report.is_incomplete();
    let Some(first) = draft.nodes.first() else {
        if all_known {
            let hint = "add [[node]] with name, role = \"control-plane\" and ip; see examples/home.toml";
            report.error("SPEC-NO-NODES", &Place::file("node"), "the file has no nodes", hint);
        }
        return;
    };
    let of = |role| {
        let found = draft.nodes.iter().filter_map(|node| node.role.as_ref());
        found.filter(|found| found.value == role).collect::<Vec<_>>()
    };
    let (control_planes, workers) = (of(Role::ControlPlane), of(Role::Worker));
    let count = control_planes.len();
    if let Some(second) = control_planes.get(1) {
        let message = format!(
            "got {count} control planes, expected 1: there is no shared endpoint or load balancer for several yet"
        );
        report.error(
            "SPEC-HA-UNSUPPORTED",
            &second.at,
            message,
            "keep one control plane, make the others workers",
        );
    }
    if let Some(last) = control_planes.last().filter(|_| count > 0 && count.is_multiple_of(2)) {
        let message = format!("got {count} control planes, an even number: etcd's majority needs an odd one");
        report.error("SPEC-CONTROL-PLANE-EVEN", &last.at, message, "keep one control plane");
    }
    let known = draft.nodes.iter().all(|node| node.role.is_some());
    let Some(first) = first.role.as_ref().filter(|_| known && all_known) else { return };
    if count == 0 {
        let hint = "give one [[node]] role = \"control-plane\"";
        report.error("SPEC-CONTROL-PLANE-NONE", &first.at, "no node is a control plane", hint);
    } else if workers.is_empty() {
        let hint = "add [[node]] with role = \"worker\", or a [[worker_pool]]";
        let message = "no node is a worker: a control plane takes no ordinary pods";
        report.warning("SPEC-NO-WORKERS", &first.at, message, hint);
    }
}
