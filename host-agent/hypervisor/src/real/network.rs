//! Networks: executing.

use std::net::Ipv4Addr;

use virt::connect::Connect;
use virt::error::ErrorNumber;
use virt::network::Network;
use virt::sys;

use super::daemons::is_local_system;
use super::error::{Context, LibvirtError, Result, missing, not_ours, optional};
use super::observe::observe_network;
use crate::address;
use crate::adoption::{DhcpHost, DhcpRange};
use crate::change::Outcome;
use crate::xml::network::{NetworkPlan, host_xml, ipv4_index, range_xml, read_dhcp};
use crate::xml::owner::owner_of;

fn find(connect: &Connect, name: &str) -> Result<Option<Network>> {
    optional(connect.lookup_network_by_name(name)).call("look up", "network", name)
}

fn get(connect: &Connect, name: &str) -> Result<Network> {
    find(connect, name)?.ok_or_else(|| missing("network", name).into())
}

fn belongs(network: &Network, name: &str, cluster_id: &str) -> Result<()> {
    let xml = network.xml_desc(0).call("read", "network", name)?;
    match owner_of(&xml, name).call("read", "network", name)? {
        Some(owner) if owner.cluster_id == cluster_id => Ok(()),
        _ => Err(not_ours("network", name).into()),
    }
}

pub(super) fn execute_define(connect: &Connect, plan: &NetworkPlan) -> Result<Outcome> {
    let name = &plan.name;
    let define = |xml: &str| connect.define_network_xml(xml).call("define", "network", name);
    let (network, mut outcome) = match find(connect, name)? {
        Some(network) => {
            belongs(&network, name, &plan.owner.cluster_id)?;
            if network.is_persistent().call("read", "network", name)? {
                (network, Outcome::AlreadySo)
            } else {
                // As it runs: libvirt defines none of this name with another UUID.
                let xml = network_xml(&network, false).call("read", "network", name)?;
                (define(&xml)?, Outcome::Done)
            }
        }
        None => (define(&plan.to_xml().call("write", "network", name)?)?, Outcome::Done),
    };
    if !network.autostart().call("read", "network", name)? {
        network.set_autostart(true).call("autostart", "network", name)?;
        outcome = Outcome::Done;
    }
    Ok(outcome)
}

pub(super) fn execute_start(connect: &Connect, name: &str) -> Result<Outcome> {
    let network = get(connect, name)?;
    if network.is_active().call("read", "network", name)? {
        let is_here = connect.uri().is_ok_and(|uri| is_local_system(&uri));
        if observe_network(&network, is_here)?.active {
            return Ok(Outcome::AlreadySo);
        }
        network.destroy().call("stop", "network", name)?;
    }
    network.create().call("start", "network", name)?;
    Ok(Outcome::Done)
}

pub(super) fn execute_stop(connect: &Connect, name: &str) -> Result<Outcome> {
    let Some(network) = find(connect, name)? else { return Ok(Outcome::AlreadySo) };
    if !network.is_active().call("read", "network", name)? {
        return Ok(Outcome::AlreadySo);
    }
    network.destroy().call("stop", "network", name)?;
    Ok(Outcome::Done)
}

pub(super) fn execute_delete(connect: &Connect, name: &str, cluster_id: &str) -> Result<Outcome> {
    let Some(network) = find(connect, name)? else { return Ok(Outcome::AlreadySo) };
    belongs(&network, name, cluster_id)?;
    let persistent = network.is_persistent().call("read", "network", name)?;
    if network.is_active().call("read", "network", name)? {
        network.destroy().call("stop", "network", name)?;
    }
    if persistent {
        network.undefine().call("undefine", "network", name)?;
    }
    Ok(Outcome::Done)
}

/// The persistent XML of a network, or what is in force. Drivers that do not know the difference
/// have one for both.
pub(super) fn network_xml(
    network: &Network,
    persistent: bool,
) -> std::result::Result<String, virt::error::Error> {
    if !persistent {
        return network.xml_desc(0);
    }
    match network.xml_desc(sys::VIR_NETWORK_XML_INACTIVE) {
        Err(error) if error.code() == ErrorNumber::InvalidArg.into() => network.xml_desc(0),
        result => result,
    }
}

/// One of the two configurations of a network, in the terms of `virNetworkUpdate`. They are changed
/// apart: after a crash between the two, each is found as it is.
struct Side<'a> {
    network: &'a Network,
    name: &'a str,
    persistent: bool,
    affect: sys::virNetworkUpdateFlags,
}

fn sides<'a>(network: &'a Network, name: &'a str) -> Result<Vec<Side<'a>>> {
    let mut sides = Vec::new();
    if network.is_active().call("read", "network", name)? {
        sides.push(Side { network, name, persistent: false, affect: sys::VIR_NETWORK_UPDATE_AFFECT_LIVE });
    }
    if network.is_persistent().call("read", "network", name)? {
        sides.push(Side { network, name, persistent: true, affect: sys::VIR_NETWORK_UPDATE_AFFECT_CONFIG });
    }
    Ok(sides)
}

impl Side<'_> {
    fn xml(&self) -> Result<String> {
        network_xml(self.network, self.persistent).call("read", "network", self.name)
    }

    fn dhcp(&self) -> Result<(Vec<DhcpRange>, Vec<DhcpHost>)> {
        read_dhcp(&self.xml()?).call("read", "network", self.name)
    }

    fn update(&self, add: bool, section: sys::virNetworkUpdateSection, xml: &str) -> Result<()> {
        let command = if add {
            sys::VIR_NETWORK_UPDATE_COMMAND_ADD_LAST
        } else {
            sys::VIR_NETWORK_UPDATE_COMMAND_DELETE
        };
        let index = ipv4_index(&self.xml()?).call("read", "network", self.name)?.unwrap_or_default();
        let index = i32::try_from(index).unwrap_or(-1);
        self.network.update(command, section, index, xml, self.affect).call(
            "change DHCP of",
            "network",
            self.name,
        )
    }

    fn range(&self, add: bool, range: &DhcpRange) -> Result<()> {
        let xml = range_xml(range).call("write", "network", self.name)?;
        self.update(add, sys::VIR_NETWORK_SECTION_IP_DHCP_RANGE, &xml)
    }
}

pub(super) fn execute_ranges(connect: &Connect, name: &str, wanted: &[DhcpRange]) -> Result<Outcome> {
    let network = get(connect, name)?;
    let mut outcome = Outcome::AlreadySo;
    for side in sides(&network, name)? {
        let (there, _) = side.dhcp()?;
        // What stays at the front stays; the rest goes and comes back in order.
        let same = there.iter().zip(wanted).take_while(|(there, wanted)| there == wanted).count();
        for range in &there[same..] {
            side.range(false, range)?;
            outcome = Outcome::Done;
        }
        for range in &wanted[same..] {
            side.range(true, range)?;
            outcome = Outcome::Done;
        }
    }
    Ok(outcome)
}

pub(super) fn execute_host(connect: &Connect, name: &str, host: &DhcpHost, wanted: bool) -> Result<Outcome> {
    let found = find(connect, name)?;
    let network = match found {
        Some(network) => network,
        None if !wanted => return Ok(Outcome::AlreadySo),
        None => return Err(missing("network", name).into()),
    };
    let mut outcome = Outcome::AlreadySo;
    for side in sides(&network, name)? {
        let (_, hosts) = side.dhcp()?;
        if hosts.contains(host) != wanted {
            let xml = host_xml(host).call("write", "network", name)?;
            side.update(wanted, sys::VIR_NETWORK_SECTION_IP_DHCP_HOST, &xml)?;
            outcome = Outcome::Done;
        }
    }
    Ok(outcome)
}

/// The bridge of a network; empty where it has none, or its driver does not tell.
pub(super) fn bridge_impl(connect: &Connect, name: &str) -> Result<String> {
    Ok(get(connect, name)?.bridge_name().unwrap_or_default())
}

pub(super) async fn execute_check_addresses(
    bridge: &str,
    addresses: &[(Ipv4Addr, String)],
) -> Result<Outcome> {
    let ips: Vec<Ipv4Addr> = addresses.iter().map(|(ip, _)| *ip).collect();
    let answers = if bridge.is_empty() { Ok(Vec::new()) } else { address::answering(&ips, bridge).await };
    let answers = answers.map_err(|source| LibvirtError::Neighbours { bridge: bridge.to_owned(), source })?;
    for (ip, mac) in answers {
        let ours = addresses.iter().any(|(address, ours)| *address == ip && ours.eq_ignore_ascii_case(&mac));
        if !ours {
            return Err(address::in_use(ip, &mac, bridge).into());
        }
    }
    Ok(Outcome::AlreadySo)
}
