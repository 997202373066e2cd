//! What a plan wants of nodes: kinds and values of closed lists, each of them asked for in `plugin.toml`. The node agent has
//! the same lists and looks once more.

use std::collections::BTreeSet;

use plugin_package::NodeAsks;

use crate::unchecked::{NodeRequirement, NodeWant};

/// Begins of kernel settings that a plugin may ask for.
pub const SYSCTL_PREFIXES: [&str; 4] = ["net.core.", "net.ipv4.", "net.ipv6.", "net.netfilter."];

/// Others, exactly.
pub const SYSCTLS: [&str; 11] = [
    "fs.aio-max-nr",
    "fs.file-max",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.pid_max",
    "kernel.threads-max",
    "vm.max_map_count",
    "vm.overcommit_memory",
    "vm.swappiness",
];

/// Those that the cluster itself stands on. They are one and the same in the kernel.
pub const SYSCTLS_OURS: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"];

/// File of the built-in pod network, which another one does not write into.
const BUILT_IN_CNI: &str = "10-k8s-myhome.conflist";

/// Kernel modules that a plugin may ask for.
pub const MODULES: [&str; 29] = [
    "ceph",
    "dm_crypt",
    "dm_snapshot",
    "dm_thin_pool",
    "dummy",
    "fuse",
    "geneve",
    "ip6_tables",
    "ip_set",
    "ip_tables",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_sh",
    "ip_vs_wrr",
    "ipip",
    "iptable_nat",
    "ipvlan",
    "iscsi_tcp",
    "macvlan",
    "nbd",
    "nf_conntrack",
    "nf_tables",
    "nfs",
    "nfsd",
    "rbd",
    "sit",
    "tun",
    "vxlan",
    "wireguard",
];

/// And begins of others.
pub const MODULE_PREFIXES: [&str; 1] = ["xt_"];

/// Largest text with certificates, in bytes.
const CA_BYTES: usize = 64 << 10;
const MIRRORS: usize = 16;

/// Whether a plugin may ask for this kernel setting.
pub fn is_sysctl(key: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_part = |part: &str| !part.is_empty() && part.chars().all(plain);
    let is_listed = SYSCTLS.contains(&key) || SYSCTL_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    is_listed && key.len() <= 128 && key.split('.').all(is_part) && !SYSCTLS_OURS.contains(&key)
}

/// Whether this may be the value of one: numbers.
pub fn is_sysctl_value(value: &str) -> bool {
    (1..=40).contains(&value.len()) && value.chars().all(|c| c.is_ascii_digit() || c == ' ' || c == '-')
}

/// Whether a plugin may ask for this kernel module.
pub fn is_module(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = |prefix: &&str| name.len() > prefix.len() && name.starts_with(prefix);
    let is_listed = MODULES.contains(&name) || MODULE_PREFIXES.iter().any(begins);
    is_listed && name.len() <= 64 && name.chars().all(plain)
}

/// Whether this names a registry: a DNS name or an IPv4 address, with or without a port.
pub fn is_registry_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let is_part = |part: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let at_its_ends = part.starts_with('-') || part.ends_with('-');
        (1..=63).contains(&part.len()) && part.chars().all(plain) && !at_its_ends
    };
    let is_port = port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    host.len() <= 253 && name.split('.').all(is_part) && is_port
}

/// Whether this is a place that is asked instead of a registry: `https://192.168.122.100/v2/cache`.
pub fn is_mirror(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some((host, path)) = rest.map(|rest| rest.split_once('/').unwrap_or((rest, ""))) else {
        return false;
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let is_path = path.chars().all(plain) && !path.split('/').any(|part| part == "..");
    url.len() <= 1024 && is_registry_host(host) && is_path
}

/// What is wrong with requirements; each refusal names the requirement.
pub(super) fn refusals(requirements: &[NodeRequirement], asks: &NodeAsks) -> Vec<String> {
    let mut why = Vec::new();
    let mut seen = BTreeSet::new();
    for NodeRequirement { what, why: reason } in requirements {
        let name = name(what);
        if !seen.insert(name.clone()) {
            why.push(format!("{name}: there are two of them"));
        }
        if reason.len() > crate::limits::TEXT_BYTES || reason.chars().any(char::is_control) {
            why.push(format!("{name}: its reason is no line of text"));
        }
        let (is_asked, refusal) = match what {
            NodeWant::Cni { config_file } => (asks.external_cni, cni_refusal(config_file)),
            NodeWant::Sysctl { key, value } => (asks.sysctls.contains(key), sysctl_refusal(key, value)),
            NodeWant::Module(module) => (
                asks.modules.contains(module),
                (!is_module(module)).then(|| "no plugin may ask for this one".to_owned()),
            ),
            NodeWant::Registry { host, ca_pem, mirrors, .. } => {
                (asks.registries.contains(host), registry_refusal(host, ca_pem, mirrors))
            }
        };
        if !is_asked {
            why.push(format!("{name}: [node] of plugin.toml does not ask for it"));
        }
        if let Some(refusal) = refusal {
            why.push(format!("{name}: {refusal}"));
        }
    }
    why
}

/// There is one pod network; the others have names.
fn name(what: &NodeWant) -> String {
    let name = match what {
        NodeWant::Cni { .. } => "another pod network".to_owned(),
        NodeWant::Sysctl { key, .. } => format!("sysctl {key:?}"),
        NodeWant::Module(module) => format!("kernel module {module:?}"),
        NodeWant::Registry { host, .. } => format!("registry {host:?}"),
    };
    crate::diagnostic::cut(name, 300)
}

fn cni_refusal(config_file: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_file = config_file.len() <= 100 && config_file.chars().all(plain) && !config_file.starts_with('.');
    let ends = [".conflist", ".conf", ".json"].iter().any(|end| config_file.ends_with(end));
    if config_file == BUILT_IN_CNI {
        return Some(format!("its file is {config_file:?}, which is the built-in network's"));
    }
    (!is_file || !ends)
        .then(|| format!("its file is {config_file:?}, expected a name like 10-flannel.conflist"))
}

fn sysctl_refusal(key: &str, value: &str) -> Option<String> {
    if !is_sysctl(key) {
        return Some("no plugin may ask for this one".to_owned());
    }
    (!is_sysctl_value(value)).then(|| format!("its value is {value:?}, expected numbers"))
}

fn registry_refusal(host: &str, ca_pem: &str, mirrors: &[String]) -> Option<String> {
    if !is_registry_host(host) {
        return Some("expected a name or an address, with a port or without".to_owned());
    }
    // What a node could not read would keep its containerd from ever being as it should.
    if !ca_pem.is_empty() && (ca_pem.len() > CA_BYTES || !is_certificates(ca_pem)) {
        return Some(format!("its ca_pem is not certificates of at most {CA_BYTES} bytes"));
    }
    match mirrors.iter().find(|mirror| !is_mirror(mirror)) {
        Some(mirror) => Some(format!("its mirror {mirror:?} is no URL of a host")),
        None if mirrors.len() > MIRRORS => Some(format!("it has more than {MIRRORS} mirrors")),
        None => None,
    }
}

/// One certificate at least, and nothing else: a private key has no business here.
fn is_certificates(pem: &str) -> bool {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    // Of the certificate that has begun.
    let mut inside: Option<String> = None;
    let mut count = 0;
    for line in pem.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let is_right = match line {
            BEGIN => inside.replace(String::new()).is_none(),
            END => {
                count += 1;
                inside.take().is_some_and(|text| is_base64(&text))
            }
            _ => inside.as_mut().map(|text| text.push_str(line)).is_some(),
        };
        if !is_right {
            return false;
        }
    }
    count > 0 && inside.is_none()
}

/// Whole groups of four, the last one filled up.
fn is_base64(text: &str) -> bool {
    let bare = text.trim_end_matches('=');
    let plain = |c: char| c.is_ascii_alphanumeric() || "+/".contains(c);
    !bare.is_empty()
        && text.len().is_multiple_of(4)
        && text.len() - bare.len() <= 2
        && bare.chars().all(plain)
}
