//! The example files parse to exactly what they say, and what is left out has its documented default.

use std::net::Ipv4Addr;

use k8sctl_types::spec::{self, AddressRange, ClusterSpec, NodeSpec, Role, derived_mac};

use crate::HOME;

const SIDE_BY_SIDE: &str = include_str!("../../../../examples/side-by-side.toml");
const GIB: u64 = 1 << 30;

fn clean(text: &str) -> ClusterSpec {
    let parsed = spec::parse(text).unwrap_or_else(|found| panic!("{found:#?}"));
    assert_eq!(parsed.warnings, []);
    parsed.spec
}

fn node(cluster: &str, name: &str, role: Role, size: (u32, u64, u64), ip: [u8; 4]) -> NodeSpec {
    let (vcpus, memory, disk) = size;
    NodeSpec {
        name: name.to_owned(),
        role,
        vcpus,
        memory_bytes: memory * GIB,
        disk_bytes: disk * GIB,
        ip: Ipv4Addr::from(ip),
        mac: derived_mac(cluster, Ipv4Addr::from(ip)),
        labels: Vec::new(),
        taints: Vec::new(),
    }
}

fn range(first: [u8; 4], last: [u8; 4]) -> Option<AddressRange> {
    Some(AddressRange { first: first.into(), last: last.into() })
}

#[test]
fn home_has_the_users_values() {
    let spec = clean(HOME);
    assert_eq!(spec.name, "home");
    assert_eq!(spec.kubernetes, None);
    assert_eq!(spec.network.name, "default");
    assert_eq!(spec.network.cidr.to_string(), "192.168.122.0/24");
    assert_eq!(spec.network.gateway(), Ipv4Addr::new(192, 168, 122, 1));
    assert_eq!(spec.network.pods.to_string(), "10.244.0.0/16");
    assert_eq!(spec.network.services.to_string(), "10.96.0.0/12");
    assert_eq!(spec.network.load_balancer, range([192, 168, 122, 100], [192, 168, 122, 150]));
    assert_eq!(spec.network.dhcp, range([192, 168, 122, 200], [192, 168, 122, 254]));
    assert_eq!(
        spec.nodes,
        [
            node("home", "k8s-control-plane-1", Role::ControlPlane, (4, 8, 50), [192, 168, 122, 10]),
            node("home", "k8s-worker-1", Role::Worker, (2, 4, 30), [192, 168, 122, 11]),
            node("home", "k8s-worker-2", Role::Worker, (2, 4, 30), [192, 168, 122, 12]),
        ]
    );
    assert_eq!(spec.image.suite, "bookworm");
    assert_eq!(spec.plugins, []);
}

#[test]
fn side_by_side_shares_nothing_with_home() {
    let (home, other) = (clean(HOME), clean(SIDE_BY_SIDE));
    assert_eq!(other.network.name, "k8s-lab2");
    assert_eq!(other.network.cidr.to_string(), "192.168.150.0/24");
    assert_ne!(home.name, other.name);
    for ours in &home.nodes {
        assert!(other.nodes.iter().all(|theirs| theirs.name != ours.name && theirs.mac != ours.mac));
    }
    let names: Vec<_> = other.nodes.iter().map(|node| (node.name.as_str(), node.ip.octets()[3])).collect();
    assert_eq!(names, [("lab2-control-plane-1", 10), ("lab2-worker-1", 11), ("lab2-worker-2", 12)]);
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let spec = clean(
        r#"
        name = "home"
        [[node]]
        name = "k8s-worker-1"
        role = "worker"
        ip = "192.168.122.11"
        [[node]]
        name = "k8s-control-plane-1"
        role = "control-plane"
        ip = "192.168.122.10"
        "#,
    );
    let home = clean(HOME);
    assert_eq!(spec.nodes, home.nodes[..2], "control planes come first, sizes are the defaults");
    assert_eq!(spec.network.cidr, home.network.cidr);
    assert_eq!((spec.network.pods, spec.network.services), (home.network.pods, home.network.services));
    assert_eq!((spec.network.load_balancer, spec.network.dhcp), (None, None));
    assert_eq!((spec.network.name.as_str(), spec.image.suite.as_str()), ("default", "bookworm"));
}

#[test]
fn everything_that_can_be_written_arrives() {
    let text = HOME
        .replace("# kubernetes", "kubernetes")
        .replace(
            "# labels = { zone = \"a\" }",
            "mac = \"02:AB:00:00:00:01\"\nlabels = { zone = \"a\", \"example.com/x\" = \"\" }",
        )
        .replace("# taints", "taints")
        .replace("# [[worker_pool]]", "[[worker_pool]]\nlabels.pool = \"yes\"")
        .replace("# name = \"pool\"", "name = \"pool\"")
        .replace("# count", "count")
        .replace("# first_ip", "first_ip")
        .replace("# [image]", "[image]")
        .replace("# suite = \"bookworm\"", "suite = \"trixie\"")
        .replace(
            "# [plugins.hello]",
            "[plugins.zeta]\n[plugins.hello]\nwhen = 2026-01-02\nlist = [1, { a = 0.5 }]",
        )
        .replace("# replicas", "replicas");
    let spec = clean(&text);
    assert_eq!(spec.kubernetes.map(|version| version.to_string()).as_deref(), Some("v1.29.0"));
    let worker = &spec.nodes[1];
    assert_eq!(worker.mac, "02:ab:00:00:00:01");
    assert_eq!(worker.labels, [("example.com/x".into(), "".into()), ("zone".into(), "a".into())]);
    assert_eq!(worker.taints, ["dedicated=db:NoSchedule"]);
    let pool: Vec<_> = spec.nodes[3..].iter().map(|node| (node.name.as_str(), node.ip.octets()[3])).collect();
    assert_eq!(pool, [("pool-1", 20), ("pool-2", 21)]);
    assert_eq!(spec.nodes[4].labels, [("pool".into(), "yes".into())]);
    assert_eq!(spec.image.suite, "trixie");
    let plugins: Vec<_> =
        spec.plugins.iter().map(|plugin| (plugin.name.as_str(), plugin.config.to_string())).collect();
    assert_eq!(
        plugins,
        [
            ("zeta", "{}".to_owned()),
            ("hello", r#"{"list":[1,{"a":0.5}],"replicas":2,"when":"2026-01-02"}"#.to_owned()),
        ]
    );
}

#[test]
fn derived_macs_depend_on_cluster_and_address_only() {
    let ip = Ipv4Addr::new(192, 168, 122, 10);
    assert_eq!(derived_mac("home", ip), derived_mac("home", ip));
    assert!(derived_mac("home", ip).starts_with("52:54:00:"));
    assert_ne!(derived_mac("home", ip), derived_mac("lab2", ip));
    let all: std::collections::HashSet<_> =
        (0..=u16::MAX).map(|low| derived_mac("home", Ipv4Addr::from(0x0a00_0000 | u32::from(low)))).collect();
    assert_eq!(all.len(), 65536, "unique over the largest network");
}

#[test]
fn the_lines_of_keys_are_known() {
    let text = HOME
        .replace("# labels", "labels")
        .replace("# [[worker_pool]]", "[[worker_pool]]")
        .replace("# name = \"pool\"", "name = \"pool\"")
        .replace("# count", "count")
        .replace("# first_ip", "first_ip");
    let lines = spec::parse(&text).expect("a sound file").lines;
    let line =
        |needle: &str| text.lines().position(|line| line.starts_with(needle)).map(|index| index as u32 + 1);
    assert_eq!(lines.of("network.pods"), line("pods = "));
    assert_eq!(lines.of("node k8s-worker-1.labels"), line("labels = "));
    assert_eq!(lines.of("node k8s-worker-1.name"), line("name = \"k8s-worker-1\""));
    assert_eq!(lines.of("node k8s-control-plane-1.taints"), line("[[node]]"), "its node");
    assert_eq!(lines.of("node pool-2.name"), line("name = \"pool\""));
    assert_eq!((lines.of("kubernetes"), lines.of("node none.name")), (None, None));
}
