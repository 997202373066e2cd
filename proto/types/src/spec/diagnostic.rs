//! One mistake in the user's file, how it is printed, and the list of every id.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// One mistake in the user's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable id, `SPEC-CIDR-OVERLAP`; of a plugin's own mistake the plugin's.
    pub id: Cow<'static, str>,
    /// Key path, `node[1].ip`.
    pub field: String,
    /// 1-based; what is not there is told in the first line. 0 means the file as a whole.
    pub line: u32,
    /// 1-based, in characters; 0 means the whole line.
    pub column: u32,
    /// What is wrong, got and expected.
    pub message: String,
    /// What to write instead.
    pub hint: String,
    /// Only a warning: the spec is usable.
    pub warning: bool,
}

impl Diagnostic {
    /// The diagnostic as a line about this file: `cluster.toml:12:6: error SPEC-… node[1].ip: …`.
    pub fn in_file<'a>(&'a self, file: &'a str) -> InFile<'a> {
        InFile { diagnostic: self, file }
    }
}

/// Without a file name: `12:6: error SPEC-IP-OUTSIDE node[1].ip: … (hint: …)`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => {}
            (line, 0) => write!(f, "{line}: ")?,
            (line, column) => write!(f, "{line}:{column}: ")?,
        }
        let severity = if self.warning { "warning" } else { "error" };
        write!(f, "{severity} {}", self.id)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}", self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " (hint: {})", self.hint) }
    }
}

/// A diagnostic with the name of its file; made by [`Diagnostic::in_file`].
#[derive(Clone, Copy, Debug)]
pub struct InFile<'a> {
    diagnostic: &'a Diagnostic,
    file: &'a str,
}

impl fmt::Display for InFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.diagnostic.line == 0 { ": " } else { ":" };
        write!(f, "{}{separator}{}", self.file, self.diagnostic)
    }
}

/// Every id that [`super::parse`] and [`super::parse_on`] give out, with its meaning.
pub const IDS: &[(&str, &str)] = &[
    ("SPEC-CIDR", "a network is not written as address/prefix"),
    ("SPEC-CIDR-HOST-BITS", "a network's address has bits set behind its prefix"),
    ("SPEC-CIDR-OVERLAP", "two of the node, pod and service networks overlap"),
    ("SPEC-CIDR-PUBLIC", "warning: a network is outside of the private ranges"),
    ("SPEC-CIDR-RESERVED", "a network lies in a range that no host can use"),
    ("SPEC-CIDR-SIZE", "a network is too small or too large for its use"),
    ("SPEC-CONTROL-PLANE-EVEN", "an even number of control planes"),
    ("SPEC-CONTROL-PLANE-NONE", "no node is a control plane"),
    ("SPEC-COUNT", "a worker pool's count is out of bounds"),
    ("SPEC-DHCP-CONFLICT", "the DHCP range covers the gateway or a node's address"),
    ("SPEC-DHCP-LB-OVERLAP", "the DHCP range and the load balancer range share addresses"),
    ("SPEC-DISK-LARGE", "a disk is larger than its file system can be"),
    ("SPEC-DISK-SMALL", "a disk is smaller than the node image needs"),
    ("SPEC-DUPLICATE-IP", "two nodes have the same address"),
    ("SPEC-DUPLICATE-KEY", "a key or table is written twice"),
    ("SPEC-DUPLICATE-LABEL", "a node has the same taint twice"),
    ("SPEC-DUPLICATE-MAC", "two nodes have the same MAC address"),
    ("SPEC-DUPLICATE-NAME", "two nodes or pools have the same name"),
    ("SPEC-FILE-SIZE", "the file is too long"),
    ("SPEC-HA-UNSUPPORTED", "more than one control plane, or a key of an endpoint for it"),
    ("SPEC-HOST-DISK", "warning: the disks together are larger than the host's free space"),
    (
        "SPEC-HOST-MEMORY",
        "a node wants more memory than the host has, or the nodes want more than twice as much together",
    ),
    ("SPEC-HOST-MEMORY-TIGHT", "warning: the nodes leave the host little memory, or none"),
    ("SPEC-HOST-VCPUS", "warning: the nodes have more virtual CPUs than the host has CPUs"),
    ("SPEC-IP", "no IPv4 address"),
    ("SPEC-IP-OUTSIDE", "a node's address is outside of the network"),
    ("SPEC-IP-RESERVED", "a node has the network's own, its broadcast or the gateway's address"),
    ("SPEC-LABEL", "a label breaks the rules of Kubernetes"),
    ("SPEC-LABEL-RESERVED", "a label that a node has in any case, as its hostname or its role"),
    ("SPEC-LB-CONFLICT", "the load balancer range covers the gateway or a node's address"),
    ("SPEC-MAC", "no MAC address"),
    ("SPEC-MAC-MULTICAST", "a multicast or all-zero MAC address"),
    ("SPEC-MAC-RESERVED", "a MAC address that libvirt keeps for the host, beginning with fe"),
    ("SPEC-MEMORY-LARGE", "a node has more memory than a VM can have"),
    ("SPEC-MEMORY-SMALL", "a node has less memory than its role needs"),
    ("SPEC-MEMORY-TIGHT", "warning: a node has hardly the memory that its role needs"),
    ("SPEC-MISSING", "a required key is missing"),
    ("SPEC-MORE", "there are more mistakes than are told; they are told when these are mended"),
    ("SPEC-MULTI-HOST-UNSUPPORTED", "a key of clusters over several hosts"),
    ("SPEC-NAME", "a name breaks the rules for names"),
    ("SPEC-NO-NODES", "the file has no nodes"),
    ("SPEC-NO-WORKERS", "warning: no node is a worker"),
    ("SPEC-NODES", "more nodes than a cluster can have, pools counted"),
    ("SPEC-PLUGIN-NAME", "a plugin's name breaks the rules for names"),
    ("SPEC-PLUGIN-PACKAGE", "a package of no plugin in the file, or no absolute path"),
    ("SPEC-PLUGIN-VALUE", "a plugin's config holds a value that JSON cannot hold"),
    ("SPEC-PODS-TOO-SMALL", "the pod network has no /24 for each node"),
    ("SPEC-POOL-OVERFLOW", "a worker pool's addresses do not fit into the network"),
    ("SPEC-RANGE", "an address range is not written as FIRST-LAST"),
    ("SPEC-RANGE-OUTSIDE", "an address range reaches out of the network's usable addresses"),
    ("SPEC-RANGE-REVERSED", "an address range ends before it begins"),
    ("SPEC-ROLE", "a role that is neither control-plane nor worker"),
    ("SPEC-SIZE", "no size, or one that cannot be"),
    ("SPEC-SIZE-UNIT", "a size without a unit or with an unknown one"),
    ("SPEC-SIZE-WHOLE", "a size that is not whole MiB"),
    ("SPEC-SUITE", "no Debian or Ubuntu suite that images can be made of"),
    ("SPEC-TAINT", "a taint that is not key=value:Effect"),
    ("SPEC-TOML", "the file is not TOML here"),
    ("SPEC-TYPE", "a value of the wrong type"),
    ("SPEC-UNKNOWN-KEY", "a key that does not exist"),
    ("SPEC-VCPUS", "a number of virtual CPUs that cannot be"),
    ("SPEC-VCPUS-SMALL", "fewer virtual CPUs than kubeadm wants on a control plane"),
    ("SPEC-VERSION", "no Kubernetes version"),
    ("SPEC-VERSION-OLD", "a Kubernetes version that is no longer supported"),
];
