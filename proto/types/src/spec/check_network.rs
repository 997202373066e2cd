//! What only shows between the values of `[network]`, and between them and the nodes' addresses.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::model::AddressRange;
use super::read::{Draft, NetworkDraft};
use super::report::{Located, Report};

/// Checks the networks and ranges of the draft.
pub(super) fn check(draft: &Draft, report: &mut Report<'_>) {
    overlaps(&draft.network, report);
    pods_fit(draft, report);
    let ranges = [("load_balancer", &draft.network.load_balancer), ("dhcp", &draft.network.dhcp)];
    for (key, range) in ranges {
        if let Some(range) = range {
            check_range(key, range, draft, report);
        }
    }
    if let (Some(lb), Some(dhcp)) = (&draft.network.load_balancer, &draft.network.dhcp) {
        let (pool, leases) = (lb.value, dhcp.value);
        if pool.first <= leases.last && leases.first <= pool.last {
            let message = format!(
                "the DHCP range {}-{} and load_balancer {}-{} (line {}) share addresses",
                leases.first,
                leases.last,
                pool.first,
                pool.last,
                report.line(&lb.at)
            );
            let hint = "take a DHCP range outside of load_balancer, or leave dhcp out: nodes do not need it";
            report.error("SPEC-DHCP-LB-OVERLAP", &dhcp.at, message, hint);
        }
    }
}

/// Each pair of node, pod and service network.
fn overlaps(network: &NetworkDraft, report: &mut Report<'_>) {
    let all = [("cidr", &network.cidr), ("pods", &network.pods), ("services", &network.services)];
    for (index, (later, second)) in all.iter().enumerate() {
        for (earlier, first) in &all[..index] {
            let (Some(first), Some(second)) = (first, second) else { continue };
            if !first.value.contains(&second.value) && !second.value.contains(&first.value) {
                continue;
            }
            // Where the user wrote only one of the two, that one is to change.
            let (at, this, other, named) = if second.written {
                (&second.at, second, first, earlier)
            } else {
                (&first.at, first, second, later)
            };
            let message = format!("{} overlaps {named} {}", this.value, other.value);
            let hint = "node, pod and service network need ranges of their own, as 192.168.122.0/24, \
                        10.244.0.0/16 and 10.96.0.0/12";
            report.error("SPEC-CIDR-OVERLAP", at, message, hint);
        }
    }
}

fn pods_fit(draft: &Draft, report: &mut Report<'_>) {
    let Some(pods) = &draft.network.pods else { return };
    let prefix = pods.value.prefix_len();
    let room = if prefix > 24 { 0 } else { 1_usize << (24 - prefix) };
    let nodes = draft.nodes.len().max(1);
    if room < nodes {
        let message = format!(
            "{} has room for {room} networks of /24, expected one for each of {nodes} nodes",
            pods.value
        );
        let needed = 24_u32.saturating_sub(nodes.next_power_of_two().trailing_zeros());
        report.error("SPEC-PODS-TOO-SMALL", &pods.at, message, format!("take /{needed} or larger"));
    }
}

/// First and last address that a host may have: neither network nor broadcast.
pub(super) fn usable(net: Ipv4Net) -> AddressRange {
    AddressRange {
        first: Ipv4Addr::from(u32::from(net.network()).saturating_add(1)),
        last: Ipv4Addr::from(u32::from(net.broadcast()).saturating_sub(1)),
    }
}

fn check_range(key: &str, range: &Located<AddressRange>, draft: &Draft, report: &mut Report<'_>) {
    let (id, what) = match key {
        "dhcp" => ("SPEC-DHCP-CONFLICT", "the DHCP range"),
        _ => ("SPEC-LB-CONFLICT", "the load balancer range"),
    };
    let AddressRange { first, last } = range.value;
    let mut covered = Vec::new();
    if let Some(cidr) = &draft.network.cidr {
        let usable = usable(cidr.value);
        if !usable.contains(first) || !usable.contains(last) {
            let message = format!("{what} {first}-{last} is not within {}-{}", usable.first, usable.last);
            let hint = format!("take addresses of network.cidr, {}", cidr.value);
            report.error("SPEC-RANGE-OUTSIDE", &range.at, message, hint);
        } else if range.value.contains(usable.first) {
            covered.push(format!("the gateway {}", usable.first));
        }
    }
    for node in &draft.nodes {
        if let Some(ip) = node.ip.as_ref().filter(|ip| range.value.contains(ip.value)) {
            let name = node.name.as_ref().map_or("", |name| name.value.as_str());
            covered.push(format!("node {name} {} (line {})", ip.value, report.line(&ip.at)));
        }
    }
    if !covered.is_empty() {
        let more = covered.len().saturating_sub(5);
        covered.truncate(5);
        let mut list = covered.join(", ");
        if more > 0 {
            list.push_str(&format!(" and {more} more"));
        }
        let message = format!("{what} {first}-{last} covers {list}");
        report.error(id, &range.at, message, "take a range without them, or move the nodes");
    }
}
