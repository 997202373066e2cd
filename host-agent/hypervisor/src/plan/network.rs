//! The cluster's network: created and owned, or somebody else's, adopted and given back.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::{AddressRange, NodeSpec};

use super::others::{Other, other};
use super::{change, destructive};
use crate::address::address_of_host;
use crate::adoption::{AdoptedNetwork, AdoptedUse, Adoption, DhcpHost, DhcpRange};
use crate::change::{Action, HostChange, HostOp, Kind};
use crate::desired::DesiredHost;
use crate::observed::{ObservedHost, ObservedNetwork};
use crate::xml::network::NetworkPlan;
use crate::xml::owner::Owner;

/// What is to be done about the network.
pub(super) struct NetworkDecision {
    pub changes: Vec<HostChange>,
    pub adoption: Adoption,
}

pub(super) fn plan_network(
    desired: &DesiredHost,
    observed: &ObservedHost,
    adopted: &Adoption,
) -> Result<NetworkDecision, Failure> {
    refuse_overlap(desired, observed)?;
    decide(desired, observed, adopted)
}

/// The same for who only starts what is there: the cluster's VMs have run on its network, whoever has come to its
/// addresses since. The next `up` tells it.
pub(super) fn plan_network_there(
    desired: &DesiredHost,
    observed: &ObservedHost,
    adopted: &Adoption,
) -> Result<NetworkDecision, Failure> {
    if !has_network(desired, observed, adopted) {
        refuse_overlap(desired, observed)?;
    }
    decide(desired, observed, adopted)
}

/// Whether the network is there, and is the cluster's own or adopted for it.
fn has_network(desired: &DesiredHost, observed: &ObservedHost, adopted: &Adoption) -> bool {
    let (id, name) = (&desired.cluster_id, &desired.network.name);
    observed.network(name).is_some_and(|network| match &network.ours {
        Some(owner) => owner.cluster_id == *id,
        None => adopted
            .networks
            .get(name)
            .is_some_and(|record| record.uuid == network.uuid && record.users.contains_key(id)),
    })
}

fn decide(
    desired: &DesiredHost,
    observed: &ObservedHost,
    adopted: &Adoption,
) -> Result<NetworkDecision, Failure> {
    let spec = &desired.network;
    refuse_address_of_host(desired, observed)?;
    let gateway = spec.gateway();
    let is_elsewhere = |network: &ObservedNetwork| network.gateway != Some(gateway);
    let keep = |changes| NetworkDecision { changes, adoption: adopted.clone() };
    let Some(network) = observed.network(&spec.name) else {
        return Ok(keep(create(desired, observed, Action::Create, "the network does not exist")));
    };
    match &network.ours {
        Some(owner) if owner.cluster_id != desired.cluster_id => {
            let Other { whose, way } = other(owner, desired, observed);
            Err(Failure::new(
                "LIBVIRT-NETWORK-TAKEN",
                format!("network {}", spec.name),
                format!("it belongs to {whose}"),
                format!("give this cluster another network.name and network.cidr, or {way}"),
            ))
        }
        Some(_) if network.cidr != Some(spec.cidr) || is_elsewhere(network) => {
            let name = spec.name.clone();
            let delete = HostOp::DeleteNetwork { name, cluster_id: desired.cluster_id.clone() };
            let reason = if network.cidr == Some(spec.cidr) {
                format!("the host's address on it changes from {} to {gateway}", show(network.gateway))
            } else {
                format!("its CIDR changes from {} to {}", show(network.cidr), spec.cidr)
            };
            let delete = destructive(change(Action::Replace, Kind::Network, &spec.name, &reason, delete));
            let create = create(desired, observed, Action::Replace, &reason);
            // The VMs stay: their interfaces are put onto the new one's bridge.
            Ok(keep(std::iter::once(delete).chain(create).collect()))
        }
        Some(_) => Ok(keep(update_own(desired, observed, network))),
        None if network.cidr != Some(spec.cidr) => Err(Failure::new(
            "LIBVIRT-NETWORK-OTHER-CIDR",
            format!("network {}", spec.name),
            format!("it exists, is not ours and has {}; the spec says {}", show(network.cidr), spec.cidr),
            match network.cidr {
                Some(cidr) => {
                    format!(
                        "either set network.cidr to {cidr} to use it, or give the cluster another network.name"
                    )
                }
                // A bridge of somebody else's, such as to the host's own network.
                None => "give the cluster another network.name".to_owned(),
            },
        )),
        None if is_elsewhere(network) => Err(Failure::new(
            "LIBVIRT-NETWORK-OTHER-ADDRESS",
            format!("network {}", spec.name),
            format!(
                "it exists, is not ours, and the host's address on it is {}; nodes look for the host at {gateway}",
                show(network.gateway)
            ),
            "give the cluster another network.name and network.cidr",
        )),
        None => adopt(desired, network, adopted),
    }
}

fn show(address: Option<impl ToString>) -> String {
    address.map_or_else(|| "no IPv4 address".to_owned(), |address| address.to_string())
}

/// The same addresses in two places never work.
fn refuse_overlap(desired: &DesiredHost, observed: &ObservedHost) -> Result<(), Failure> {
    let spec = &desired.network;
    let overlaps = |cidr: Ipv4Net| cidr.contains(&spec.cidr) || spec.cidr.contains(&cidr);
    let other = observed.networks.iter().find(|it| it.name != spec.name && it.cidr.is_some_and(overlaps));
    if let Some(other) = other {
        let bridge = other.bridge.as_deref().unwrap_or("no bridge");
        return Err(Failure::new(
            "LIBVIRT-NETWORK-CONFLICT",
            format!("network {}", spec.name),
            format!("{} is already on network {} ({bridge}, {})", spec.cidr, other.name, show(other.cidr)),
            format!("either set network.name to {} to use it, or choose another network.cidr", other.name),
        ));
    }
    let own_bridge = observed.network(&spec.name).and_then(|network| network.bridge.as_deref());
    let interface = observed
        .interfaces
        .iter()
        .find(|it| Some(it.name.as_str()) != own_bridge && overlaps(it.address.trunc()));
    match interface {
        None => Ok(()),
        Some(interface) => Err(Failure::new(
            "LIBVIRT-NETWORK-CONFLICT",
            format!("network {}", spec.name),
            format!(
                "{} overlaps {} on the host's interface {}",
                spec.cidr, interface.address, interface.name
            ),
            format!("either choose another network.cidr, or take the address off {}", interface.name),
        )),
    }
}

/// The host answers for its own addresses before anybody asks for them on the bridge.
fn refuse_address_of_host(desired: &DesiredHost, observed: &ObservedHost) -> Result<(), Failure> {
    for node in &desired.nodes {
        if let Some(interface) = observed.interfaces.iter().find(|it| it.address.addr() == node.spec.ip) {
            return Err(address_of_host(&desired.cluster_name, node, interface));
        }
    }
    Ok(())
}

fn dhcp_host(spec: &NodeSpec) -> DhcpHost {
    DhcpHost {
        mac: Some(spec.mac.to_ascii_lowercase()),
        name: Some(spec.name.clone()),
        ip: Some(spec.ip.to_string()),
    }
}

/// Entries of the nodes, and of those that leave what is there under their name.
fn dhcp_hosts(desired: &DesiredHost, there: &[DhcpHost]) -> Vec<DhcpHost> {
    let leaves = |host: &&DhcpHost| desired.leaving.iter().any(|spec| host.name.as_ref() == Some(&spec.name));
    let leaving = there.iter().filter(leaves).cloned();
    desired.nodes.iter().map(|node| dhcp_host(&node.spec)).chain(leaving).collect()
}

fn create(desired: &DesiredHost, observed: &ObservedHost, action: Action, reason: &str) -> Vec<HostChange> {
    let name = &desired.network.name;
    let define = define(desired, free_bridge(observed), dhcp_hosts(desired, &[]));
    vec![
        change(action, Kind::Network, name, reason, define),
        change(action, Kind::Network, name, "it shall run", HostOp::StartNetwork { name: name.clone() }),
    ]
}

fn define(desired: &DesiredHost, bridge: String, hosts: Vec<DhcpHost>) -> HostOp {
    let spec = &desired.network;
    let network = NetworkPlan {
        name: spec.name.clone(),
        bridge,
        cidr: spec.cidr,
        gateway: spec.gateway(),
        ranges: spec.dhcp.map(DhcpRange::from).into_iter().collect(),
        hosts,
        owner: Owner {
            cluster_id: desired.cluster_id.clone(),
            generation: desired.generation,
            ..Owner::default()
        },
    };
    HostOp::DefineNetwork { network }
}

/// `virbr-k8s<n>`: no network and no link of the host has it.
fn free_bridge(observed: &ObservedHost) -> String {
    let taken = |name: &String| {
        observed.links.contains(name) || observed.networks.iter().any(|it| it.bridge.as_ref() == Some(name))
    };
    let mut numbered = (0..u32::MAX).map(|number| format!("virbr-k8s{number}"));
    numbered.find(|name| !taken(name)).unwrap_or_default()
}

fn update_own(desired: &DesiredHost, observed: &ObservedHost, network: &ObservedNetwork) -> Vec<HostChange> {
    let name = &network.name;
    let there = present(network);
    let wanted = dhcp_hosts(desired, &there);
    let mut changes = Vec::new();
    if !network.autostart || !network.persistent {
        // It keeps its bridge, with all who are on it.
        let bridge = network.bridge.clone().unwrap_or_else(|| free_bridge(observed));
        let op = define(desired, bridge, wanted.clone());
        changes.push(change(Action::Update, Kind::Network, name, "it shall start with the host", op));
    }
    if !network.active {
        let op = HostOp::StartNetwork { name: name.clone() };
        changes.push(change(Action::Update, Kind::Network, name, "it does not run", op));
    }
    for host in there.into_iter().filter(|host| !wanted.iter().any(|it| same_host(it, host))) {
        let reason = format!("host entry of {} is no longer wanted", label(&host));
        let op = HostOp::RemoveDhcpHost { network: name.clone(), host };
        changes.push(change(Action::Update, Kind::Network, name, reason, op));
    }
    let ranges: Vec<DhcpRange> = desired.network.dhcp.map(DhcpRange::from).into_iter().collect();
    changes.extend(set_ranges(network, ranges, Action::Update, "DHCP range as in the spec"));
    changes.extend(add_hosts(network, &wanted, Action::Update));
    changes
}

fn adopt(
    desired: &DesiredHost,
    network: &ObservedNetwork,
    adopted: &Adoption,
) -> Result<NetworkDecision, Failure> {
    let name = &network.name;
    let mut adoption = adopted.clone();
    let record = adoption.networks.entry(name.clone()).or_default();
    let known = record.uuid == network.uuid;
    if !known {
        *record = AdoptedNetwork {
            uuid: network.uuid.clone(),
            was_active: network.active,
            previous_ranges: network.ranges.clone(),
            users: std::mem::take(&mut record.users),
        };
    }
    let there = present(network);
    let wanted = dhcp_hosts(desired, &there);
    let before = record.users.get(&desired.cluster_id).map(|user| user.hosts.clone()).unwrap_or_default();
    refuse_taken_entries(name, &wanted, &there, &before)?;

    let recorded = |host: &DhcpHost| before.iter().any(|it| same_host(it, host));
    let is_wanted = |host: &DhcpHost| wanted.iter().any(|it| same_host(it, host));
    let is_there = |host: &DhcpHost| there.iter().any(|it| same_host(it, host));
    // An identical entry that we did not make stays when we go.
    let mut hosts: Vec<DhcpHost> =
        wanted.iter().filter(|it| recorded(it) || !is_there(it)).cloned().collect();
    let leaving: Vec<DhcpHost> = before.iter().filter(|it| !is_wanted(it) && is_there(it)).cloned().collect();
    hosts.extend(leaving.iter().cloned());
    let user = AdoptedUse { hosts, reserved: reserved(desired, &wanted), dhcp: desired.network.dhcp };
    record.users.insert(desired.cluster_id.clone(), user);

    let action = if before.is_empty() { Action::Adopt } else { Action::Update };
    let mut changes = Vec::new();
    if !network.active {
        let op = HostOp::StartNetwork { name: name.clone() };
        changes.push(change(action, Kind::Network, name, "it does not run; stopped again on down", op));
    }
    for host in leaving {
        let reason = format!("our host entry of {} is no longer wanted", label(&host));
        let op = HostOp::RemoveDhcpHost { network: name.clone(), host };
        changes.push(change(action, Kind::Network, name, reason, op));
    }
    let reason = "DHCP must not give away addresses of nodes and load balancers; undone on down";
    changes.extend(set_ranges(network, record.ranges(), action, reason));
    changes.extend(add_hosts(network, &wanted, action));
    Ok(NetworkDecision { changes, adoption })
}

fn reserved(desired: &DesiredHost, wanted: &[DhcpHost]) -> Vec<AddressRange> {
    let mut nodes: Vec<Ipv4Addr> = wanted.iter().filter_map(|host| host.ip.as_ref()?.parse().ok()).collect();
    nodes.sort_unstable();
    let nodes = nodes.into_iter().map(|ip| AddressRange { first: ip, last: ip });
    nodes.chain(desired.network.load_balancer).collect()
}

fn refuse_taken_entries(
    network: &str,
    wanted: &[DhcpHost],
    there: &[DhcpHost],
    recorded: &[DhcpHost],
) -> Result<(), Failure> {
    for host in wanted {
        let clash = there.iter().find(|it| {
            let same = |a: &Option<String>, b: &Option<String>| {
                a.as_ref().zip(b.as_ref()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
            };
            let touches = same(&it.mac, &host.mac) || same(&it.ip, &host.ip) || same(&it.name, &host.name);
            touches && !same_host(it, host) && !recorded.iter().any(|ours| same_host(ours, it))
        });
        if let Some(clash) = clash {
            return Err(Failure::new(
                "LIBVIRT-HOST-ENTRY-TAKEN",
                format!("network {network}"),
                format!("it has a DHCP entry of somebody else for {}; we need {}", label(clash), label(host)),
                format!(
                    "give the node another ip, mac or name, the first and the last of which a control plane can have \
                     only after `k8sctl down`, or remove the entry with `virsh net-edit {network}`"
                ),
            ));
        }
    }
    Ok(())
}

/// Entries of either configuration.
fn present(network: &ObservedNetwork) -> Vec<DhcpHost> {
    let mut hosts = network.hosts.clone();
    for host in network.live_hosts.iter().flatten() {
        if !hosts.iter().any(|it| same_host(it, host)) {
            hosts.push(host.clone());
        }
    }
    hosts
}

fn set_ranges(
    network: &ObservedNetwork,
    ranges: Vec<DhcpRange>,
    action: Action,
    reason: &str,
) -> Option<HostChange> {
    let so = network.ranges == ranges && network.live_ranges.as_ref().is_none_or(|live| *live == ranges);
    let name = network.name.clone();
    (!so).then(|| {
        change(action, Kind::Network, &network.name, reason, HostOp::SetDhcpRanges { network: name, ranges })
    })
}

fn add_hosts(network: &ObservedNetwork, wanted: &[DhcpHost], action: Action) -> Vec<HostChange> {
    let has = |hosts: &[DhcpHost], host: &DhcpHost| hosts.iter().any(|it| same_host(it, host));
    let missing = wanted.iter().filter(|host| {
        !has(&network.hosts, host) || network.live_hosts.as_ref().is_some_and(|live| !has(live, host))
    });
    let add = |host: &DhcpHost| {
        let op = HostOp::AddDhcpHost { network: network.name.clone(), host: host.clone() };
        change(action, Kind::Network, &network.name, format!("host entry of {}", label(host)), op)
    };
    missing.map(add).collect()
}

/// Undoes what adopting did for this cluster.
pub(super) fn plan_release(
    cluster_id: &str,
    observed: &ObservedHost,
    adopted: &Adoption,
) -> (Vec<HostChange>, Adoption) {
    let mut adoption = adopted.clone();
    let mut changes = Vec::new();
    for (name, record) in &mut adoption.networks {
        let Some(user) = record.users.remove(cluster_id) else { continue };
        let network =
            observed.network(name).filter(|network| network.uuid == record.uuid && network.ours.is_none());
        let Some(network) = network else { continue };
        let there = present(network);
        for host in user.hosts.into_iter().filter(|host| there.iter().any(|it| same_host(it, host))) {
            let reason = format!("our host entry of {}", label(&host));
            let op = HostOp::RemoveDhcpHost { network: name.clone(), host };
            changes.push(change(Action::Release, Kind::Network, name, reason, op));
        }
        let last = record.users.is_empty();
        let ranges = if last { record.previous_ranges.clone() } else { record.ranges() };
        changes.extend(set_ranges(network, ranges, Action::Release, "DHCP range as it was"));
        let in_use = observed.domains.iter().any(|domain| {
            let ours = domain.ours.as_ref().is_some_and(|owner| owner.cluster_id == cluster_id);
            !ours && domain.state != crate::observed::DomainState::Off && domain.networks.contains(name)
        });
        if last && network.active && !record.was_active && !in_use {
            let op = HostOp::StopNetwork { name: name.clone() };
            changes.push(change(Action::Release, Kind::Network, name, "it did not run before", op));
        }
    }
    adoption.networks.retain(|_, record| !record.users.is_empty());
    (changes, adoption)
}

/// libvirt keeps MAC addresses as they were written.
fn same_host(a: &DhcpHost, b: &DhcpHost) -> bool {
    let lower = |mac: &Option<String>| mac.as_ref().map(|mac| mac.to_ascii_lowercase());
    a.name == b.name && a.ip == b.ip && lower(&a.mac) == lower(&b.mac)
}

fn label(host: &DhcpHost) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
    format!("{} ({}, {})", part(&host.name), part(&host.ip), part(&host.mac))
}
