//! The table of every key of a `cluster.toml`: what the reader accepts and what
//! `docs/configuration.md` documents (a test compares both, row by row).

use super::values::distance;
use crate::suite;

/// One key of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Table that holds it: empty for the top level, `node` for `[[node]]`.
    pub section: &'static str,
    /// The key.
    pub name: &'static str,
    /// What its value is.
    pub kind: &'static str,
    /// What holds when it is left out; `required` when it may not be.
    pub default: &'static str,
    /// What is refused.
    pub limits: &'static str,
}

impl Key {
    /// `node.ip`; the key alone on the top level.
    pub fn path(&self) -> String {
        if self.section.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.section, self.name) }
    }

    /// Whether the file must have it.
    pub fn required(&self) -> bool {
        self.default == REQUIRED
    }
}

const REQUIRED: &str = "required";

const fn key(
    section: &'static str,
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    limits: &'static str,
) -> Key {
    Key { section, name, kind, default, limits }
}

const LABELS: &str = "at most 64, keys and values as in Kubernetes; none that a node has in any case";
const TAINTS: &str = "at most 64, effects NoSchedule, PreferNoSchedule, NoExecute";
const WORKER_MEMORY: &str = "at least 512MiB, at most 4TiB";
const DISK: &str = "at least 8GiB, at most 16TiB";

/// Every key, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key("", "name", "string", REQUIRED, "DNS label, at most 40 characters"),
    key("", "kubernetes", "version", "newest installed bundle", "full version with v, at least v1.20.0"),
    key("", "network", "table", "every key at its default", ""),
    key(
        "",
        "node",
        "array of tables",
        "no nodes",
        "exactly one control plane over the whole file; with pools at most 1000 nodes",
    ),
    key("", "worker_pool", "array of tables", "no pools", ""),
    key("", "image", "table", "every key at its default", ""),
    key("", "plugins", "table of tables", "no plugins", "names are DNS labels"),
    key(
        "",
        "plugin_packages",
        "table of strings",
        "none: from the host's plugin path",
        "absolute paths; each has a table in plugins",
    ),
    key("network", "name", "string", "default", "letters, digits, `-`, `_` and `.`, at most 50 characters"),
    key("network", "cidr", "network", "192.168.122.0/24", "prefix /16 to /28, no host bits"),
    key("network", "pods", "network", "10.244.0.0/16", "prefix /8 to /24, a /24 for each node"),
    key("network", "services", "network", "10.96.0.0/12", "prefix /12 to /28"),
    key("network", "load_balancer", "address range", "none", "in cidr, without gateway and nodes"),
    key(
        "network",
        "dhcp",
        "address range",
        "none: only static entries",
        "in cidr, without gateway, nodes and load_balancer",
    ),
    key("node", "name", "string", REQUIRED, "DNS label, unique"),
    key("node", "role", "control-plane or worker", REQUIRED, ""),
    key(
        "node",
        "vcpus",
        "integer",
        "4 for a control plane, 2 for a worker",
        "1 to 255; control plane at least 2",
    ),
    key(
        "node",
        "memory",
        "size",
        "8GiB for a control plane, 4GiB for a worker",
        "control plane at least 1700MiB, worker at least 512MiB, at most 4TiB",
    ),
    key("node", "disk", "size", "50GiB for a control plane, 30GiB for a worker", DISK),
    key("node", "ip", "IPv4 address", REQUIRED, "in cidr, unique, not the gateway"),
    key(
        "node",
        "mac",
        "MAC address",
        "derived from cluster name and ip",
        "unicast, unique, not beginning with fe",
    ),
    key("node", "labels", "table of strings", "none", LABELS),
    key("node", "taints", "array of strings", "none", TAINTS),
    key("worker_pool", "name", "string", REQUIRED, "DNS label together with the number, unique"),
    key("worker_pool", "count", "integer", REQUIRED, "1 to 1000"),
    key("worker_pool", "vcpus", "integer", "2", "1 to 255"),
    key("worker_pool", "memory", "size", "4GiB", WORKER_MEMORY),
    key("worker_pool", "disk", "size", "30GiB", DISK),
    key("worker_pool", "first_ip", "IPv4 address", REQUIRED, "all addresses in cidr and unique"),
    key("worker_pool", "labels", "table of strings", "none", LABELS),
    key("worker_pool", "taints", "array of strings", "none", TAINTS),
    key("image", "suite", "string", suite::DEFAULT, "bookworm, trixie, bullseye, jammy, noble or questing"),
    key("plugins", "NAME", "table", "no plugins", "free-form; checked by the plugin"),
];

/// The keys of one table.
pub(super) fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// How the tables of a key of the top level stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `[network]`
    One,
    /// `[[node]]`
    Many,
}

impl Shape {
    /// The header of such a table.
    pub(super) fn header(self, key: &str) -> String {
        match self {
            Self::One => format!("[{key}]"),
            Self::Many => format!("[[{key}]]"),
        }
    }
}

/// The shape of a key of the top level; `None` for one that holds no tables.
pub(super) fn shape(name: &str) -> Option<Shape> {
    match keys_of("").find(|key| key.name == name)?.kind {
        "array of tables" => Some(Shape::Many),
        "table" | "table of tables" | "table of strings" => Some(Shape::One),
        _ => None,
    }
}

/// The last part of a key as it is written: `vcpus` of `node.vcpus`.
pub(super) fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key).trim()
}

/// What the value of a key is, as it is written in whatever table; `None` for one that is none of ours.
pub(super) fn kind(key: &str) -> Option<&'static str> {
    let of = |name: &str| KEYS.iter().find(|key| key.name == name).map(|key| key.kind);
    let last = last_part(key);
    let first = key.split('.').next().unwrap_or(key).trim();
    match of(first) {
        _ if first.len() == key.len() => of(key),
        // `labels.zone`
        Some("table of strings") => Some("string"),
        // `plugins.hello`, which is the plugin's own.
        Some("table of tables") => None,
        _ => of(last),
    }
}

/// The key that the user probably meant, if any.
pub(super) fn did_you_mean(section: &str, written: &str) -> Option<&'static str> {
    let plain = written.to_ascii_lowercase().replace('-', "_");
    let meant = OTHER_WORDS.iter().find(|(other, _)| *other == plain).map_or(plain.as_str(), |word| word.1);
    keys_of(section)
        .filter(|key| key.name.len().abs_diff(meant.len()) <= 2)
        .map(|key| (distance(key.name, meant), key.name))
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// The table that does have the key, `network.cidr`, if one does.
pub(super) fn elsewhere(written: &str) -> Option<String> {
    KEYS.iter().find(|key| key.name == written).map(Key::path)
}

/// Words of other tools for our keys.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("address", "ip"),
    ("count", "count"),
    ("cpu", "vcpus"),
    ("cpus", "vcpus"),
    ("cores", "vcpus"),
    ("dhcp_range", "dhcp"),
    ("distribution", "suite"),
    ("hostname", "name"),
    ("ip_address", "ip"),
    ("kubernetes_version", "kubernetes"),
    ("lb", "load_balancer"),
    ("mac_address", "mac"),
    ("mem", "memory"),
    ("nodes", "node"),
    ("pod_cidr", "pods"),
    ("pod_subnet", "pods"),
    ("ram", "memory"),
    ("release", "suite"),
    ("replicas", "count"),
    ("service_cidr", "services"),
    ("service_subnet", "services"),
    ("size", "count"),
    ("storage", "disk"),
    ("subnet", "cidr"),
    ("version", "kubernetes"),
    ("worker_pools", "worker_pool"),
    ("workers", "worker_pool"),
];

/// Keys of clusters over several hosts; they are refused by name.
pub(super) const MULTI_HOST: &[&str] = &[
    "host",
    "hosts",
    "host_address",
    "hypervisor",
    "hypervisors",
    "libvirt",
    "libvirt_uri",
    "peers",
    "remote",
    "underlay",
    "uri",
    "vxlan",
];

/// Keys of a highly available control plane; they are refused by name.
pub(super) const HIGH_AVAILABILITY: &[&str] =
    &["api_endpoint", "control_plane_endpoint", "endpoint", "keepalived", "vip"];
