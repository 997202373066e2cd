//! What was changed in networks that are not ours, so that it can be undone to the letter; and the
//! arithmetic of DHCP ranges. Stored by the cluster controller, read and made by [`crate::plan`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8sctl_types::spec::AddressRange;
use serde::{Deserialize, Serialize};

/// All adopted networks of the host, by libvirt's name. One record for all clusters of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// Only networks with at least one user.
    pub networks: BTreeMap<String, AdoptedNetwork>,
}

/// One adopted network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedNetwork {
    /// libvirt's UUID: a network made anew under the same name is not the adopted one.
    pub uuid: String,
    /// Whether it ran before we came; if not, it is stopped when the last user leaves.
    pub was_active: bool,
    /// Its persistent DHCP ranges before we came, in their order.
    pub previous_ranges: Vec<DhcpRange>,
    /// What each cluster, by id, needs of it.
    pub users: BTreeMap<String, AdoptedUse>,
}

/// What one cluster needs of an adopted network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedUse {
    /// Host entries that we added: only these are removed again.
    pub hosts: Vec<DhcpHost>,
    /// Addresses that DHCP must not give to strangers.
    pub reserved: Vec<AddressRange>,
    /// The range that the spec leaves to strangers, if it names one.
    pub dhcp: Option<AddressRange>,
}

impl AdoptedNetwork {
    /// The DHCP ranges for all present users: what was there, or what a spec names, without what
    /// anybody has reserved.
    pub fn ranges(&self) -> Vec<DhcpRange> {
        let mut named = self.users.values().filter_map(|user| user.dhcp).peekable();
        let mut ranges = match named.peek() {
            Some(_) => named.map(DhcpRange::from).collect(),
            None => self.previous_ranges.clone(),
        };
        ranges.dedup();
        for user in self.users.values() {
            for reserved in &user.reserved {
                ranges = ranges.iter().flat_map(|range| range.without(*reserved)).collect();
            }
        }
        ranges
    }
}

/// A DHCP range as libvirt has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpRange {
    /// First address.
    #[serde(rename = "@start")]
    pub start: Ipv4Addr,
    /// Last address.
    #[serde(rename = "@end")]
    pub end: Ipv4Addr,
    /// Lease time, if one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

/// libvirt's `<lease>` element, as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// How long.
    #[serde(rename = "@expiry")]
    pub expiry: String,
    /// Of what; unset means minutes.
    #[serde(rename = "@unit", default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// A static DHCP entry as libvirt has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpHost {
    /// MAC address; strangers' entries may have none.
    #[serde(rename = "@mac", default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Host name.
    #[serde(rename = "@name", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address; strangers' entries may have none.
    #[serde(rename = "@ip", default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
}

impl From<AddressRange> for DhcpRange {
    fn from(range: AddressRange) -> Self {
        Self { start: range.first, end: range.last, lease: None }
    }
}

impl DhcpRange {
    /// What is left of the range: nothing, one or two pieces.
    fn without(&self, taken: AddressRange) -> Vec<Self> {
        let piece = |start: u32, end: u32| Self {
            start: Ipv4Addr::from(start),
            end: Ipv4Addr::from(end),
            lease: self.lease.clone(),
        };
        let (start, end) = (u32::from(self.start), u32::from(self.end));
        let (first, last) = (u32::from(taken.first), u32::from(taken.last));
        if last < start || end < first {
            return vec![self.clone()];
        }
        let before = (start < first).then(|| piece(start, first.saturating_sub(1)));
        let after = (last < end).then(|| piece(last.saturating_add(1), end));
        before.into_iter().chain(after).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use k8sctl_types::spec::AddressRange;

    use super::{AdoptedNetwork, AdoptedUse, DhcpRange};

    fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 122, last)
    }

    fn range(first: u8, last: u8) -> AddressRange {
        AddressRange { first: at(first), last: at(last) }
    }

    fn user(reserved: &[AddressRange], dhcp: Option<AddressRange>) -> AdoptedUse {
        AdoptedUse { hosts: Vec::new(), reserved: reserved.to_vec(), dhcp }
    }

    #[test]
    fn reserved_addresses_are_cut_out_and_the_rest_stays() {
        let mut network =
            AdoptedNetwork { previous_ranges: vec![range(2, 254).into()], ..Default::default() };
        network.users.insert("a".into(), user(&[range(10, 10), range(11, 11), range(100, 150)], None));
        let expected: Vec<DhcpRange> = vec![range(2, 9).into(), range(12, 99).into(), range(151, 254).into()];
        assert_eq!(network.ranges(), expected);

        network.users.insert("b".into(), user(&[range(1, 5), range(200, 254)], None));
        let expected: Vec<DhcpRange> = vec![range(6, 9).into(), range(12, 99).into(), range(151, 199).into()];
        assert_eq!(network.ranges(), expected, "for all users together");
    }

    #[test]
    fn a_named_range_replaces_what_was_there() {
        let mut network =
            AdoptedNetwork { previous_ranges: vec![range(2, 254).into()], ..Default::default() };
        network.users.insert("a".into(), user(&[range(10, 12)], Some(range(200, 250))));
        assert_eq!(network.ranges(), vec![DhcpRange::from(range(200, 250))]);
    }

    #[test]
    fn nothing_may_be_left() {
        let mut network =
            AdoptedNetwork { previous_ranges: vec![range(10, 20).into()], ..Default::default() };
        network.users.insert("a".into(), user(&[range(1, 254)], None));
        assert_eq!(network.ranges(), Vec::<DhcpRange>::new());
    }
}
