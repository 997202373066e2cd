//! MAC addresses that nobody wrote into the file: pure functions of cluster name and address.

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

/// The MAC address of a node that has none in the file, under QEMU's prefix `52:54:00`.
///
/// The last 24 bits are the cluster name's hash with the address's low 16 bits mixed in. A network has at
/// most 16 host bits, so two nodes of a cluster never get the same one.
pub fn derived_mac(cluster: &str, ip: Ipv4Addr) -> String {
    let hash = Sha256::digest(cluster.as_bytes());
    let [_, _, high, low] = ip.octets();
    format!("52:54:00:{:02x}:{:02x}:{:02x}", hash[0], hash[1] ^ high, hash[2] ^ low)
}
