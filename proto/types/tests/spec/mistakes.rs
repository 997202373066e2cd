//! One file with many different mistakes: each is reported, in one run, where it stands.

use std::collections::BTreeSet;

use k8sctl_types::spec;

use crate::{assert_points_home, id_of};

const MISTAKES: &str = include_str!("../fixtures/mistakes.toml");

/// Line, id, key path; in the order of the report.
const EXPECTED: &[(u32, &str, &str)] = &[
    (1, "SPEC-NAME", "name"),
    (2, "SPEC-VERSION", "kubernetes"),
    (3, "SPEC-MULTI-HOST-UNSUPPORTED", "hosts"),
    (4, "SPEC-UNKNOWN-KEY", "colour"),
    (7, "SPEC-NAME", "network.name"),
    (8, "SPEC-CIDR-HOST-BITS", "network.cidr"),
    (9, "SPEC-CIDR-OVERLAP", "network.pods"),
    (10, "SPEC-CIDR-SIZE", "network.services"),
    (11, "SPEC-LB-CONFLICT", "network.load_balancer"),
    (12, "SPEC-DHCP-CONFLICT", "network.dhcp"),
    (12, "SPEC-DHCP-LB-OVERLAP", "network.dhcp"),
    (12, "SPEC-RANGE-OUTSIDE", "network.dhcp"),
    (13, "SPEC-HA-UNSUPPORTED", "network.vip"),
    (14, "SPEC-UNKNOWN-KEY", "network.subnet"),
    (19, "SPEC-VCPUS-SMALL", "node[0].vcpus"),
    (20, "SPEC-MEMORY-SMALL", "node[0].memory"),
    (21, "SPEC-DISK-SMALL", "node[0].disk"),
    (22, "SPEC-IP-RESERVED", "node[0].ip"),
    (23, "SPEC-MAC-MULTICAST", "node[0].mac"),
    (27, "SPEC-CONTROL-PLANE-EVEN", "node[1].role"),
    (27, "SPEC-HA-UNSUPPORTED", "node[1].role"),
    (28, "SPEC-VCPUS", "node[1].vcpus"),
    (29, "SPEC-SIZE-UNIT", "node[1].memory"),
    (30, "SPEC-SIZE-UNIT", "node[1].disk"),
    (32, "SPEC-MAC", "node[1].mac"),
    (35, "SPEC-DUPLICATE-NAME", "node[2].name"),
    (36, "SPEC-ROLE", "node[2].role"),
    (37, "SPEC-TYPE", "node[2].vcpus"),
    (38, "SPEC-TYPE", "node[2].memory"),
    (39, "SPEC-SIZE", "node[2].disk"),
    (40, "SPEC-DUPLICATE-IP", "node[2].ip"),
    (43, "SPEC-MISSING", "node[3].name"),
    (45, "SPEC-UNKNOWN-KEY", "node[3].cpus"),
    (46, "SPEC-SIZE-WHOLE", "node[3].memory"),
    (47, "SPEC-SIZE", "node[3].disk"),
    (48, "SPEC-IP", "node[3].ip"),
    (49, "SPEC-DUPLICATE-MAC", "node[3].mac"),
    (50, "SPEC-MULTI-HOST-UNSUPPORTED", "node[3].host"),
    (53, "SPEC-NAME", "node[4].name"),
    (55, "SPEC-VCPUS", "node[4].vcpus"),
    (56, "SPEC-MEMORY-SMALL", "node[4].memory"),
    (57, "SPEC-DISK-LARGE", "node[4].disk"),
    (58, "SPEC-IP-OUTSIDE", "node[4].ip"),
    (59, "SPEC-LABEL", "node[4].labels.-zone"),
    (59, "SPEC-LABEL", "node[4].labels.tier"),
    (59, "SPEC-LABEL-RESERVED", "node[4].labels.\"kubernetes.io/hostname\""),
    (59, "SPEC-TYPE", "node[4].labels.rack"),
    (60, "SPEC-TAINT", "node[4].taints[0]"),
    (60, "SPEC-DUPLICATE-LABEL", "node[4].taints[2]"),
    (60, "SPEC-TYPE", "node[4].taints[3]"),
    (65, "SPEC-MEMORY-LARGE", "node[5].memory"),
    (66, "SPEC-IP-RESERVED", "node[5].ip"),
    (67, "SPEC-TYPE", "node[5].labels"),
    (71, "SPEC-COUNT", "worker_pool[0].count"),
    (77, "SPEC-DUPLICATE-IP", "worker_pool[1].first_ip"),
    (77, "SPEC-POOL-OVERFLOW", "worker_pool[1].first_ip"),
    (78, "SPEC-MEMORY-TIGHT", "worker_pool[1].memory"),
    (83, "SPEC-DUPLICATE-IP", "worker_pool[2].first_ip"),
    (84, "SPEC-UNKNOWN-KEY", "worker_pool[2].role"),
    (87, "SPEC-SUITE", "image.suite"),
    (90, "SPEC-TYPE", "plugins.hello"),
    (92, "SPEC-PLUGIN-NAME", "plugins.Bad_Name"),
    (93, "SPEC-PLUGIN-VALUE", "plugins.Bad_Name.limit"),
];

#[test]
fn every_mistake_is_reported_in_one_run() {
    let found = spec::parse(MISTAKES).expect_err("the file is full of mistakes");
    let got: Vec<_> = found.iter().map(|d| (d.line, id_of(d), d.field.as_str())).collect();
    assert_eq!(got, EXPECTED);
    for diagnostic in &found {
        assert_points_home(MISTAKES, diagnostic);
        assert_eq!(diagnostic.warning, diagnostic.id == "SPEC-MEMORY-TIGHT", "{diagnostic}");
    }
}

#[test]
fn at_least_thirty_are_of_different_kinds() {
    let kinds: BTreeSet<_> = EXPECTED.iter().map(|(_, id, _)| id).collect();
    assert!(kinds.len() >= 30, "{}", kinds.len());
}

#[test]
fn hints_name_what_to_write() {
    let found = spec::parse(MISTAKES).expect_err("the file is full of mistakes");
    let hint = |field: &str, id: &str| {
        let diagnostic = found.iter().find(|d| d.field == field && d.id == id);
        diagnostic.unwrap_or_else(|| panic!("no {id} at {field}")).hint.as_str()
    };
    assert_eq!(hint("name", "SPEC-NAME"), "\"my-home\" would do");
    assert_eq!(hint("kubernetes", "SPEC-VERSION"), "with a leading v: \"v1.29.0\"");
    assert_eq!(hint("network.subnet", "SPEC-UNKNOWN-KEY"), "did you mean \"cidr\"?");
    assert_eq!(hint("network.cidr", "SPEC-CIDR-HOST-BITS"), "write \"192.168.122.0/24\"");
    assert_eq!(hint("node[1].memory", "SPEC-SIZE-UNIT"), "write \"8192MiB\" or \"8192GiB\"");
    assert_eq!(hint("node[1].disk", "SPEC-SIZE-UNIT"), "write \"50GiB\"");
    assert_eq!(hint("node[2].role", "SPEC-ROLE"), "write \"control-plane\"");
    assert_eq!(hint("node[3].cpus", "SPEC-UNKNOWN-KEY"), "did you mean \"vcpus\"?");
    assert_eq!(hint("node[3].memory", "SPEC-SIZE-WHOLE"), "write \"7813MiB\"");
    assert_eq!(hint("node[4].taints[0]", "SPEC-TAINT"), "write \"key=value:NoSchedule\"");
    let suites = "bookworm, trixie, bullseye, jammy, noble, questing";
    assert_eq!(hint("image.suite", "SPEC-SUITE"), format!("did you mean \"bookworm\"? There are {suites}"));
    assert_eq!(hint("node[0].ip", "SPEC-IP-RESERVED"), "take one of 192.168.122.2-192.168.122.254");
}

#[test]
fn messages_name_the_other_place() {
    let found = spec::parse(MISTAKES).expect_err("the file is full of mistakes");
    let message = |field: &str, id: &str| {
        let diagnostic = found.iter().find(|d| d.field == field && d.id == id);
        diagnostic.unwrap_or_else(|| panic!("no {id} at {field}")).message.as_str()
    };
    assert_eq!(
        message("node[2].ip", "SPEC-DUPLICATE-IP"),
        "the address 192.168.122.10 is taken by node[1].ip in line 31"
    );
    assert_eq!(
        message("network.load_balancer", "SPEC-LB-CONFLICT"),
        "the load balancer range 192.168.122.10-192.168.122.20 covers \
         node k8s-control-plane-2 192.168.122.10 (line 31), node k8s-control-plane-2 192.168.122.10 (line 40)"
    );
}
