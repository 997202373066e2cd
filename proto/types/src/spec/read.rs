//! The file as a draft: every value that could be read by itself, with its place. What only shows between
//! values is for `check_network` and `check_nodes`; a draft without mistakes becomes the spec.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use toml::de::{DeTable, DeValue};

use super::mac::derived_mac;
use super::model::{
    AddressRange, ClusterSpec, ConfigPlaces, ImageSpec, KeyLines, NetworkSpec, NodeSpec, PluginSpec, Role,
};
use super::plugin_config::{Pointers, Room};
use super::report::{Located, Place, Report};
use super::table::{Table, bare_or_quoted, parse_at, wrong_type};
use super::values::{self, GIB, quoted};
use super::{node_values, plugin_config, values::Faults};
use crate::suite;
use crate::version::KubernetesVersion;

/// Longest cluster name: it is part of libvirt names and of certificates.
const CLUSTER_NAME: usize = 40;
/// Longest DNS label.
const DNS_LABEL: usize = 63;
/// Most nodes of a cluster: all of them are on one host.
const MOST_NODES: usize = 1000;
/// Most labels, and most taints, of a node: a kubelet is given them as one argument.
const MOST_MARKS: usize = 64;

/// The file, value by value. `None`: the value was refused, or left out and has no default.
pub(super) struct Draft {
    pub(super) name: Option<Located<String>>,
    kubernetes: Option<Located<KubernetesVersion>>,
    pub(super) network: NetworkDraft,
    /// In the order of the file, pools expanded behind the single nodes.
    pub(super) nodes: Vec<NodeDraft>,
    /// Whether `nodes` are all of them; what could not be read has been reported.
    pub(super) all_nodes: bool,
    suite: Option<Located<String>>,
    plugins: Vec<PluginDraft>,
}

/// `[plugins.NAME]`, and where what stands in it is.
struct PluginDraft {
    spec: PluginSpec,
    places: Pointers,
}

/// `[network]`.
pub(super) struct NetworkDraft {
    name: Option<Located<String>>,
    pub(super) cidr: Option<Located<Ipv4Net>>,
    pub(super) pods: Option<Located<Ipv4Net>>,
    pub(super) services: Option<Located<Ipv4Net>>,
    pub(super) load_balancer: Option<Located<AddressRange>>,
    pub(super) dhcp: Option<Located<AddressRange>>,
}

/// A node of `[[node]]` or of a pool.
pub(super) struct NodeDraft {
    pub(super) name: Option<Located<String>>,
    pub(super) role: Option<Located<Role>>,
    pub(super) vcpus: Option<Located<i64>>,
    pub(super) memory: Option<Located<u64>>,
    pub(super) disk: Option<Located<u64>>,
    pub(super) ip: Option<Located<Ipv4Addr>>,
    /// As written; `None` means derived, or refused.
    pub(super) mac: Option<Located<String>>,
    labels: Located<Vec<(String, String)>>,
    taints: Located<Vec<String>>,
    /// For a node of a pool: how far it is behind the pool's first address.
    pub(super) pool_index: Option<u32>,
}

/// Reads the cluster's name and nothing else.
pub(super) fn name(document: &DeTable<'_>, report: &mut Report<'_>) -> Option<Located<String>> {
    cluster_name(&Table::unchecked("", document, Place::file("")), report)
}

fn cluster_name(root: &Table<'_>, report: &mut Report<'_>) -> Option<Located<String>> {
    root.parse("name", |text, f| values::label(text, CLUSTER_NAME, "SPEC-NAME", f), report)
}

/// Reads every value of the file.
pub(super) fn draft(document: &DeTable<'_>, report: &mut Report<'_>) -> Draft {
    let root = Table::new("", document, Place::file(""), report);
    let name = cluster_name(&root, report);
    let kubernetes = root.parse("kubernetes", values::kubernetes, report);
    let network = network(&root.table("network", report), report);
    let (nodes, all_nodes) = nodes(&root, report);
    let suite =
        root.table("image", report).parse_or("suite", Some(suite::DEFAULT.to_owned()), values::suite, report);
    let plugins = plugins(&root, report);
    Draft { name, kubernetes, network, nodes, all_nodes, suite, plugins }
}

/// All nodes, pools expanded, and whether these are all: never more than may be, whatever the file says.
fn nodes(root: &Table<'_>, report: &mut Report<'_>) -> (Vec<NodeDraft>, bool) {
    let singles = root.tables("node", MOST_NODES, report);
    let mut nodes: Vec<_> = singles.tables.iter().map(|table| node(table, report)).collect();
    let mut first_too_many = root.table_behind("node", MOST_NODES);
    let pools = root.tables("worker_pool", MOST_NODES, report);
    let mut all = !singles.partly && !pools.partly;
    for table in pools.tables {
        let Some(pool) = Pool::read(&table, report) else {
            all = false;
            continue;
        };
        if nodes.len() + pool.count as usize > MOST_NODES {
            first_too_many.get_or_insert(pool.count_at);
        } else {
            nodes.extend(pool.nodes());
        }
    }
    let first_too_many = first_too_many.or_else(|| root.table_behind("worker_pool", MOST_NODES));
    if let Some(at) = first_too_many {
        let message = format!("with these there are more than {MOST_NODES} nodes");
        report.error("SPEC-NODES", &at, message, "a cluster is on one host: take fewer and larger nodes");
        report.set_incomplete();
    }
    (nodes, all)
}

fn network(table: &Table<'_>, report: &mut Report<'_>) -> NetworkDraft {
    let mut cidr = |key, default: [u8; 4], prefix, bounds| {
        let default = Ipv4Net::new_assert(Ipv4Addr::from(default), prefix);
        table.parse_or(key, Some(default), |text, f| values::cidr(text, bounds, f), report)
    };
    NetworkDraft {
        cidr: cidr("cidr", [192, 168, 122, 0], 24, (16, 28)),
        // kubeadm: the node mask (/24) may be at most 16 bits longer than the pod network's.
        pods: cidr("pods", [10, 244, 0, 0], 16, (8, 32)),
        // kubeadm: at most 20 bits of addresses, at least 10 addresses.
        services: cidr("services", [10, 96, 0, 0], 12, (12, 28)),
        name: table.parse_or("name", Some("default".to_owned()), values::network_name, report),
        load_balancer: table.parse("load_balancer", values::range, report),
        dhcp: table.parse("dhcp", values::range, report),
    }
}

fn node(table: &Table<'_>, report: &mut Report<'_>) -> NodeDraft {
    let role = table.parse("role", node_values::role, report);
    let (vcpus, memory, disk) = sizes(table, role.as_ref().map(|role| role.value), report);
    NodeDraft {
        name: table.parse("name", |text, f| values::label(text, DNS_LABEL, "SPEC-NAME", f), report),
        ip: table.parse("ip", values::ip, report),
        mac: table.parse("mac", node_values::mac, report),
        labels: labels(table, report),
        taints: taints(table, report),
        pool_index: None,
        role,
        vcpus,
        memory,
        disk,
    }
}

type Sizes = (Option<Located<i64>>, Option<Located<u64>>, Option<Located<u64>>);

/// vCPUs, memory and disk, each with its role's default. Without a role there is no default.
fn sizes(table: &Table<'_>, role: Option<Role>, report: &mut Report<'_>) -> Sizes {
    let (vcpus, memory, disk) = match role {
        Some(Role::ControlPlane) => (Some(4), Some(8 * GIB), Some(50 * GIB)),
        Some(Role::Worker) => (Some(2), Some(4 * GIB), Some(30 * GIB)),
        None => (None, None, None),
    };
    let vcpus = table.integer_or("vcpus", vcpus, report);
    let memory = table.parse_or("memory", memory, values::size, report);
    (vcpus, memory, table.parse_or("disk", disk, values::size, report))
}

/// A pool, before it becomes nodes.
struct Pool {
    name: Option<Located<String>>,
    count: u32,
    count_at: Place,
    first: Option<Located<Ipv4Addr>>,
    sizes: Sizes,
    role: Option<Located<Role>>,
    labels: Located<Vec<(String, String)>>,
    taints: Located<Vec<String>>,
}

impl Pool {
    /// `None` when there is no sensible count.
    fn read(table: &Table<'_>, report: &mut Report<'_>) -> Option<Self> {
        let name = table.parse("name", |text, f| values::label(text, DNS_LABEL, "SPEC-NAME", f), report);
        let count = table.integer("count", report);
        let first = table.parse("first_ip", values::ip, report);
        let sizes = sizes(table, Some(Role::Worker), report);
        let (labels, taints) = (labels(table, report), taints(table, report));
        let Located { value: count, at: count_at, .. } = count?;
        let Some(fitting) =
            u32::try_from(count).ok().filter(|count| (1..=MOST_NODES).contains(&(*count as usize)))
        else {
            let message = format!("got {count}, expected 1 to {MOST_NODES}");
            let hint =
                if count < 1 { "remove the pool to have none of it" } else { "take fewer and larger nodes" };
            report.error("SPEC-COUNT", &count_at, message, hint);
            return None;
        };
        if let Some(name) = name.as_ref().filter(|name| format!("{}-{count}", name.value).len() > DNS_LABEL) {
            let message = format!("\"{}-{count}\" is longer than {DNS_LABEL} characters", name.value);
            report.error("SPEC-NAME", &name.at, message, "take a shorter name for the pool");
        }
        let role = Some(Located { value: Role::Worker, at: table.at.clone(), written: false });
        Some(Self { name, count: fitting, count_at, first, sizes, role, labels, taints })
    }

    fn nodes(&self) -> impl Iterator<Item = NodeDraft> {
        let (vcpus, memory, disk) = &self.sizes;
        (0..self.count).map(move |index| NodeDraft {
            name: self.name.as_ref().map(|name| with(name, format!("{}-{}", name.value, index + 1))),
            role: self.role.clone(),
            vcpus: vcpus.clone(),
            memory: memory.clone(),
            disk: disk.clone(),
            ip: self.first.as_ref().and_then(|first| {
                let address = u32::from(first.value).checked_add(index)?;
                Some(with(first, Ipv4Addr::from(address)))
            }),
            mac: None,
            labels: self.labels.clone(),
            taints: self.taints.clone(),
            pool_index: Some(index),
        })
    }
}

/// Reports more labels or taints than a node can have.
fn too_many(id: &'static str, at: &Place, count: usize, report: &mut Report<'_>) -> bool {
    if count > MOST_MARKS {
        let hint = "keep those that select nodes; others are annotations";
        report.error(id, at, format!("got {count}, expected at most {MOST_MARKS}"), hint);
    }
    count > MOST_MARKS
}

fn with<T, U>(located: &Located<T>, value: U) -> Located<U> {
    Located { value, at: located.at.clone(), written: located.written }
}

fn labels(table: &Table<'_>, report: &mut Report<'_>) -> Located<Vec<(String, String)>> {
    marks("labels", table, label_list, report)
}

fn taints(table: &Table<'_>, report: &mut Report<'_>) -> Located<Vec<String>> {
    marks("taints", table, taint_list, report)
}

/// Labels or taints with their place; without any, that of their table.
fn marks<T>(
    key: &str,
    table: &Table<'_>,
    read: fn(&Place, &DeValue<'_>, &mut Report<'_>) -> Vec<T>,
    report: &mut Report<'_>,
) -> Located<Vec<T>> {
    match table.get(key, report) {
        Some((at, value)) => Located { value: read(&at, value, report), at, written: true },
        None => Located { value: Vec::new(), at: table.at.clone(), written: false },
    }
}

fn label_list(at: &Place, value: &DeValue<'_>, report: &mut Report<'_>) -> Vec<(String, String)> {
    let DeValue::Table(entries) = value else {
        wrong_type(at, value, "a table of strings", "{ zone = \"a\" }", report);
        return Vec::new();
    };
    let mut labels = Vec::new();
    if too_many("SPEC-LABEL", at, entries.len(), report) {
        return labels;
    }
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        let at = at.below(name, key.span().start);
        let Some(text) = value.get_ref().as_str() else {
            let example = format!("{} = \"text\"; a key with dots stands in quotes", bare_or_quoted(name));
            wrong_type(&at, value.get_ref(), "a string", example, report);
            continue;
        };
        let checked = |text: &str, faults: &mut Faults| {
            node_values::check_label(name, text, faults);
            faults.is_empty().then(|| (name.to_owned(), text.to_owned()))
        };
        labels.extend(parse_at(text, at, checked, report).map(|label| label.value));
    }
    labels
}

fn taint_list(at: &Place, value: &DeValue<'_>, report: &mut Report<'_>) -> Vec<String> {
    let DeValue::Array(items) = value else {
        wrong_type(at, value, "an array of strings", "[\"key=value:NoSchedule\"]", report);
        return Vec::new();
    };
    let mut taints: Vec<String> = Vec::new();
    if too_many("SPEC-TAINT", at, items.len(), report) {
        return taints;
    }
    for (index, item) in items.iter().enumerate() {
        let at = Place { field: format!("{}[{index}]", at.field), offset: Some(item.span().start) };
        let Some(text) = item.get_ref().as_str() else {
            wrong_type(&at, item.get_ref(), "a string", "\"key=value:NoSchedule\"", report);
            continue;
        };
        let Some(taint) = parse_at(text, at, node_values::taint, report) else { continue };
        let identity = node_values::taint_identity(&taint.value);
        if taints.iter().any(|other| node_values::taint_identity(other) == identity) {
            let message = format!("the taint {} has the key and effect of another", quoted(&taint.value));
            report.error("SPEC-DUPLICATE-LABEL", &taint.at, message, "keep one of the two");
        }
        taints.push(taint.value);
    }
    taints
}

fn plugins(root: &Table<'_>, report: &mut Report<'_>) -> Vec<PluginDraft> {
    let mut packages = packages(root, report);
    let Some((at, value)) = root.get("plugins", report) else { return Vec::new() };
    let DeValue::Table(entries) = value else {
        wrong_type(&at, value, "a table of tables", "[plugins.hello]", report);
        return Vec::new();
    };
    let (mut plugins, mut room) = (Vec::new(), Room::default());
    for (key, value) in entries {
        let (name, start) = (key.get_ref().as_ref(), key.span().start);
        let at = at.below(name, start);
        let label = |text: &str, f: &mut Faults| values::label(text, DNS_LABEL, "SPEC-PLUGIN-NAME", f);
        let known = parse_at(name, at.clone(), label, report);
        let DeValue::Table(_) = value.get_ref() else {
            wrong_type(&at, value.get_ref(), "a table", "[plugins.NAME]", report);
            continue;
        };
        let mut refuse = |at: &Place, message: String| {
            report.error("SPEC-PLUGIN-VALUE", at, message, plugin_config::HINT);
        };
        let (config, places) = plugin_config::json(value.get_ref(), &at, &mut room, &mut refuse);
        if let (Some(known), Some(config)) = (known, config) {
            let source = packages.remove(&known.value);
            plugins.push((
                start,
                PluginDraft { spec: PluginSpec { name: known.value, config, source }, places },
            ));
        }
    }
    plugins.sort_by_key(|(start, _)| *start);
    plugins.into_iter().map(|(_, plugin)| plugin).collect()
}

/// `[plugin_packages]`: paths by the names of their plugins.
fn packages(root: &Table<'_>, report: &mut Report<'_>) -> BTreeMap<String, PathBuf> {
    const EXAMPLE: &str = "acme = \"/srv/plugins/acme-1.2.0.tar.zst\"";
    let mut packages = BTreeMap::new();
    let Some((at, value)) = root.get("plugin_packages", report) else { return packages };
    let DeValue::Table(entries) = value else {
        wrong_type(&at, value, "a table of strings", "[plugin_packages]", report);
        return packages;
    };
    let plugins = match root.get("plugins", report) {
        Some((_, DeValue::Table(plugins))) => Some(plugins),
        _ => None,
    };
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        let at = at.below(name, key.span().start);
        let Some(path) = value.get_ref().as_str() else {
            wrong_type(&at, value.get_ref(), "a string", EXAMPLE, report);
            continue;
        };
        if !path.starts_with('/') || path.contains('\0') {
            let message =
                format!("got {}, expected the absolute path of a folder or an archive", quoted(path));
            report.error("SPEC-PLUGIN-PACKAGE", &at, message, format!("write it like {EXAMPLE}"));
            continue;
        }
        let may_be_there =
            report.is_incomplete() || report.is_again() || report.may_hold(&root.at, "plugins");
        if !may_be_there && plugins.is_none_or(|plugins| !plugins.contains_key(name)) {
            let shown = bare_or_quoted(name);
            let message = format!("the file has no plugin {}", quoted(name));
            report.error(
                "SPEC-PLUGIN-PACKAGE",
                &at,
                message,
                format!("write [plugins.{shown}] too, or remove it"),
            );
        }
        packages.insert(name.to_owned(), PathBuf::from(path));
    }
    packages
}

impl Draft {
    /// Where the keys stand that may not change while a cluster lives.
    pub(super) fn lines(&self, report: &Report<'_>) -> KeyLines {
        let mut lines = BTreeMap::new();
        let plugins = self.plugins.iter();
        let offsets = plugins.clone().flat_map(|plugin| &plugin.places).map(|(_, offset)| *offset).collect();
        let offsets = report.places(offsets);
        let plugins = plugins
            .map(|plugin| (plugin.spec.name.clone(), ConfigPlaces::new(&plugin.places, &offsets)))
            .collect();
        let mut add = |key: String, at: &Place| {
            if at.offset.is_some() {
                lines.insert(key, report.line(at));
            }
        };
        if let Some(version) = &self.kubernetes {
            add("kubernetes".to_owned(), &version.at);
        }
        if let Some(suite) = &self.suite {
            add("image.suite".to_owned(), &suite.at);
        }
        let network = &self.network;
        for (key, net) in [("cidr", &network.cidr), ("pods", &network.pods), ("services", &network.services)]
        {
            if let Some(net) = net {
                add(format!("network.{key}"), &net.at);
            }
        }
        for node in &self.nodes {
            let Some(name) = &node.name else { continue };
            add(format!("node {}.name", name.value), &name.at);
            add(format!("node {}.labels", name.value), &node.labels.at);
            add(format!("node {}.taints", name.value), &node.taints.at);
        }
        KeyLines { lines, plugins }
    }

    /// The spec; `None` when something was refused, which has been reported then.
    pub(super) fn finish(self) -> Option<ClusterSpec> {
        let name = self.name?.value;
        let network = NetworkSpec {
            name: self.network.name?.value,
            cidr: self.network.cidr?.value,
            pods: self.network.pods?.value,
            services: self.network.services?.value,
            load_balancer: self.network.load_balancer.map(|range| range.value),
            dhcp: self.network.dhcp.map(|range| range.value),
        };
        let nodes: Option<Vec<_>> = self.nodes.into_iter().map(|node| node.finish(&name)).collect();
        let mut nodes = nodes?;
        nodes.sort_by_key(|node| node.role);
        Some(ClusterSpec {
            name,
            kubernetes: self.kubernetes.map(|version| version.value),
            network,
            nodes,
            image: ImageSpec { suite: self.suite?.value },
            plugins: self.plugins.into_iter().map(|plugin| plugin.spec).collect(),
        })
    }
}

impl NodeDraft {
    fn finish(self, cluster: &str) -> Option<NodeSpec> {
        let ip = self.ip?.value;
        Some(NodeSpec {
            name: self.name?.value,
            role: self.role?.value,
            vcpus: u32::try_from(self.vcpus?.value).ok()?,
            memory_bytes: self.memory?.value,
            disk_bytes: self.disk?.value,
            ip,
            mac: self.mac.map_or_else(|| derived_mac(cluster, ip), |mac| mac.value),
            labels: self.labels.value,
            taints: self.taints.value,
        })
    }
}
