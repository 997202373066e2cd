//! The network document: ours as it is written, anybody's as it is read.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::owner::{Metadata, Owner, owner_of};
use super::{XmlError, read, write};
use crate::adoption::{DhcpHost, DhcpRange};
use crate::observed::ObservedNetwork;

/// A NAT network of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// libvirt's name.
    pub name: String,
    /// Name of its bridge, at most 15 characters.
    pub bridge: String,
    /// Addresses of the network.
    pub cidr: Ipv4Net,
    /// The host's address on it.
    pub gateway: Ipv4Addr,
    /// DHCP ranges for strangers.
    pub ranges: Vec<DhcpRange>,
    /// Host entries of the nodes.
    pub hosts: Vec<DhcpHost>,
    /// Whose it is.
    pub owner: Owner,
}

#[derive(Serialize)]
struct NetworkElement {
    name: String,
    metadata: Metadata,
    forward: Forward,
    bridge: Bridge,
    ip: IpElement,
}

#[derive(Serialize)]
struct Forward {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Serialize)]
struct Bridge {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@stp")]
    stp: &'static str,
    #[serde(rename = "@delay")]
    delay: u32,
}

#[derive(Serialize)]
struct IpElement {
    #[serde(rename = "@address")]
    address: Ipv4Addr,
    #[serde(rename = "@netmask")]
    netmask: Ipv4Addr,
    dhcp: Dhcp,
}

#[derive(Default, Serialize, Deserialize)]
struct Dhcp {
    #[serde(default)]
    range: Vec<DhcpRange>,
    #[serde(default)]
    host: Vec<DhcpHost>,
}

impl NetworkPlan {
    /// The document for libvirt.
    pub fn to_xml(&self) -> Result<String, XmlError> {
        let element = NetworkElement {
            name: self.name.clone(),
            metadata: Metadata::new(&self.owner, &self.name),
            forward: Forward { mode: "nat" },
            // One bridge with nothing behind it makes no loop; with STP each VM's port would stay
            // closed for its first seconds.
            bridge: Bridge { name: self.bridge.clone(), stp: "off", delay: 0 },
            ip: IpElement {
                address: self.gateway,
                netmask: self.cidr.netmask(),
                dhcp: Dhcp { range: self.ranges.clone(), host: self.hosts.clone() },
            },
        };
        write("a network", "network", &element)
    }
}

/// A `<range>` for `virNetworkUpdate`.
pub fn range_xml(range: &DhcpRange) -> Result<String, XmlError> {
    write("a DHCP range", "range", range)
}

/// A `<host>` for `virNetworkUpdate`.
pub fn host_xml(host: &DhcpHost) -> Result<String, XmlError> {
    write("a DHCP host", "host", host)
}

#[derive(Deserialize)]
struct ReadNetwork {
    name: String,
    uuid: String,
    #[serde(default)]
    forward: Option<ReadForward>,
    #[serde(default)]
    bridge: Option<ReadNamed>,
    #[serde(default)]
    ip: Vec<ReadIp>,
}

#[derive(Deserialize)]
struct ReadForward {
    // libvirt leaves the mode out where it is NAT.
    #[serde(rename = "@mode", default)]
    mode: Option<String>,
}

#[derive(Deserialize)]
struct ReadNamed {
    #[serde(rename = "@name", default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct ReadIp {
    #[serde(rename = "@address", default)]
    address: Option<String>,
    #[serde(rename = "@netmask", default)]
    netmask: Option<Ipv4Addr>,
    #[serde(rename = "@prefix", default)]
    prefix: Option<u8>,
    #[serde(default)]
    dhcp: Option<Dhcp6Or4>,
}

/// Ranges of an IPv6 block do not parse as IPv4 ones and are no business of ours.
#[derive(Deserialize)]
struct Dhcp6Or4 {
    #[serde(default)]
    range: Vec<ReadRange>,
    #[serde(default)]
    host: Vec<DhcpHost>,
}

#[derive(Deserialize)]
struct ReadRange {
    #[serde(rename = "@start")]
    start: String,
    #[serde(rename = "@end")]
    end: String,
    #[serde(default)]
    lease: Option<crate::adoption::Lease>,
}

impl ReadIp {
    fn ipv4(&self) -> Option<(Ipv4Addr, Ipv4Net)> {
        let address: Ipv4Addr = self.address.as_deref()?.parse().ok()?;
        let prefix = match (self.prefix, self.netmask) {
            (Some(prefix), _) => prefix,
            (None, Some(mask)) => ipnet::ipv4_mask_to_prefix(mask).ok()?,
            (None, None) => 32,
        };
        Some((address, Ipv4Net::new(address, prefix).ok()?.trunc()))
    }

    fn ranges(&self) -> Vec<DhcpRange> {
        let ranges = self.dhcp.iter().flat_map(|dhcp| &dhcp.range);
        ranges
            .filter_map(|range| {
                Some(DhcpRange {
                    start: range.start.parse().ok()?,
                    end: range.end.parse().ok()?,
                    lease: range.lease.clone(),
                })
            })
            .collect()
    }
}

/// DHCP ranges and hosts of the first IPv4 block that has DHCP, and whether there is one.
pub(crate) fn read_dhcp(xml: &str) -> Result<(Vec<DhcpRange>, Vec<DhcpHost>), XmlError> {
    let network: ReadNetwork = read("network", xml)?;
    Ok(network.dhcp())
}

/// Which `<ip>` element, counted from 0, `virNetworkUpdate` must be told to change.
pub(crate) fn ipv4_index(xml: &str) -> Result<Option<usize>, XmlError> {
    let network: ReadNetwork = read("network", xml)?;
    Ok(network.ip.iter().position(|ip| ip.ipv4().is_some()))
}

impl ReadNetwork {
    fn dhcp(&self) -> (Vec<DhcpRange>, Vec<DhcpHost>) {
        let Some(ip) = self.ip.iter().find(|ip| ip.ipv4().is_some()) else { return Default::default() };
        (ip.ranges(), ip.dhcp.as_ref().map(|dhcp| dhcp.host.clone()).unwrap_or_default())
    }
}

/// A network out of its persistent XML, and its live XML where it runs.
pub fn read_network(
    inactive: &str,
    live: Option<&str>,
    autostart: bool,
) -> Result<ObservedNetwork, XmlError> {
    let network: ReadNetwork = read("network", inactive)?;
    let live: Option<ReadNetwork> = live.map(|xml| read("network", xml)).transpose()?;
    let (ranges, hosts) = network.dhcp();
    let (live_ranges, live_hosts) = live.as_ref().map(ReadNetwork::dhcp).unzip();
    let active = live.is_some();
    // One that was edited has its new bridge from its next start on.
    let bridge = live.map_or(network.bridge, |live| live.bridge);
    let first = network.ip.iter().find_map(ReadIp::ipv4);
    Ok(ObservedNetwork {
        ours: owner_of(inactive, &network.name)?,
        cidr: first.map(|(_, cidr)| cidr),
        gateway: first.map(|(gateway, _)| gateway),
        forward: match network.forward {
            None => String::new(),
            Some(forward) => forward.mode.unwrap_or_else(|| "nat".to_owned()),
        },
        bridge: bridge.and_then(|bridge| bridge.name),
        active,
        autostart,
        persistent: true,
        ranges,
        hosts,
        live_ranges,
        live_hosts,
        name: network.name,
        uuid: network.uuid,
    })
}
