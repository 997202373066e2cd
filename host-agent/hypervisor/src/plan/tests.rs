//! Plans as tables, and as properties on a host in memory.
//!
//! - `lives`: whatever a cluster goes through
//! - `mishaps`: what people and crashes do to a host in between
//! - `networks`: what of that they do to networks
//! - `next_steps`: that they can be done
//! - `owners`: VMs and disks of which it is not plain whose they are
//! - `starts`: without an operation

mod lives;
mod mishaps;
mod networks;
mod next_steps;
mod owners;
mod starts;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use k8sctl_types::spec::{AddressRange, NetworkSpec, NodeSpec, Role};

use super::{plan_host, plan_teardown};
use crate::adoption::{Adoption, DhcpHost, DhcpRange};
use crate::change::{Action, HostPlan, Kind};
use crate::desired::{DesiredHost, DesiredImage, DesiredNode, DesiredPool};
use crate::fake::FakeHost;
use crate::observed::{
    DomainState, HostInterface, ObservedDomain, ObservedHost, ObservedNetwork, ObservedVolume,
};
use crate::xml::owner::Owner;

const CLUSTER: &str = "0192f0c1-0000-7000-8000-000000000001";
const OTHER: &str = "0192f0c1-0000-7000-8000-000000000002";

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 122, last)
}

fn pool() -> DesiredPool {
    DesiredPool { name: "k8s-myhome".into(), path: "/var/lib/k8s-myhome/pool".into() }
}

fn node(name: &str, last: u8) -> DesiredNode {
    DesiredNode {
        node_id: format!("id-{name}"),
        spec: NodeSpec {
            name: name.into(),
            role: Role::Worker,
            vcpus: 2,
            memory_bytes: 4 << 30,
            disk_bytes: 30 << 30,
            ip: at(last),
            mac: format!("52:54:00:00:00:{last:02x}"),
            labels: Vec::new(),
            taints: Vec::new(),
        },
        machine_uuid: format!("00000000-0000-4000-8000-0000000000{last:02x}"),
        powered: true,
        cmdline: String::new(),
        is_new: false,
    }
}

fn desired(nodes: &[(&str, u8)]) -> DesiredHost {
    DesiredHost {
        cluster_id: CLUSTER.into(),
        cluster_name: "home".into(),
        generation: 1,
        network: NetworkSpec {
            name: "default".into(),
            cidr: "192.168.122.0/24".parse().expect("it is one"),
            pods: "10.244.0.0/16".parse().expect("it is one"),
            services: "10.96.0.0/12".parse().expect("it is one"),
            load_balancer: Some(AddressRange { first: at(100), last: at(150) }),
            dhcp: None,
        },
        nodes: nodes.iter().map(|(name, last)| node(name, *last)).collect(),
        leaving: Vec::new(),
        image: DesiredImage {
            id: "0123456789abcdef0123".into(),
            disk: "/images/root.qcow2".into(),
            kernel: "/images/vmlinuz".into(),
            initrd: "/images/initrd".into(),
            cmdline: "root=/dev/vda".into(),
            size_bytes: 500 << 20,
        },
        pool: pool(),
        others: BTreeMap::from([(OTHER.into(), "other".into())]),
    }
}

fn three() -> DesiredHost {
    desired(&[("cp-1", 10), ("worker-1", 11), ("worker-2", 12)])
}

fn empty_host() -> FakeHost {
    let observed = ObservedHost { pool_free_bytes: 100 << 30, ..ObservedHost::default() };
    FakeHost { observed, ..FakeHost::default() }
}

fn foreign_network() -> ObservedNetwork {
    ObservedNetwork {
        name: "default".into(),
        uuid: "4f0c".into(),
        ours: None,
        cidr: Some("192.168.122.0/24".parse().expect("it is one")),
        gateway: Some(at(1)),
        forward: "nat".into(),
        bridge: Some("virbr0".into()),
        active: true,
        autostart: true,
        persistent: true,
        ranges: vec![DhcpRange { start: at(2), end: at(254), lease: None }],
        hosts: Vec::new(),
        live_ranges: Some(vec![DhcpRange { start: at(2), end: at(254), lease: None }]),
        live_hosts: Some(Vec::new()),
    }
}

fn host_with_foreign_things() -> FakeHost {
    let mut host = empty_host();
    host.observed.networks.push(foreign_network());
    host.observed.interfaces.push(HostInterface {
        name: "virbr0".into(),
        address: "192.168.122.1/24".parse().expect("it is one"),
    });
    host.observed.domains.push(ObservedDomain {
        name: "k8s-worker-9".into(),
        uuid: "f0".into(),
        state: DomainState::Running,
        mac: "52:54:00:ff:00:01".into(),
        networks: vec!["default".into()],
        ..ObservedDomain::default()
    });
    host
}

/// Plans and executes; gives the plan and the record.
fn converge(host: &mut FakeHost, desired: &DesiredHost, adoption: &mut Adoption) -> HostPlan {
    let plan = plan_host(desired, &host.observed, adoption).expect("nothing stands in the way");
    adoption.clone_from(&plan.adoption);
    for change in &plan.changes {
        host.execute(&change.op).unwrap_or_else(|failure| panic!("{change:?}: {failure}"));
    }
    plan
}

fn tear_down(host: &mut FakeHost, cluster: &str, adoption: &mut Adoption) {
    let plan = plan_teardown(cluster, &pool(), &host.observed, adoption).expect("nothing stands in the way");
    for change in &plan.changes {
        host.execute(&change.op).unwrap_or_else(|failure| panic!("{change:?}: {failure}"));
    }
    adoption.clone_from(&plan.adoption);
}

fn switch_off(domain: &mut ObservedDomain) {
    (domain.state, domain.run) = (DomainState::Off, None);
    (domain.live_vcpus, domain.live_memory_bytes) = (None, None);
    domain.taps.clear();
}

fn lines(plan: &HostPlan) -> String {
    let line = |it: &crate::change::HostChange| {
        let mark = if it.destructive { "! " } else { "  " };
        format!("{mark}{} {} {} [{}]: {}\n", it.action, it.kind, it.name, it.op.name(), it.reason)
    };
    plan.changes.iter().map(line).collect()
}

fn ops(plan: &HostPlan) -> Vec<(&'static str, bool)> {
    plan.changes.iter().map(|it| (it.op.name(), it.destructive)).collect()
}

#[test]
fn an_empty_host_gets_everything_in_order() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    insta::assert_snapshot!(lines(&converge(&mut host, &three(), &mut adoption)));
    assert_eq!(adoption, Adoption::default(), "an own network is not adopted");
    assert_eq!(converge(&mut host, &three(), &mut adoption).changes, []);
}

#[test]
fn a_foreign_network_is_adopted_and_given_back() {
    let mut host = host_with_foreign_things();
    let before = host.observed.clone();
    let mut adoption = Adoption::default();
    insta::assert_snapshot!(lines(&converge(&mut host, &three(), &mut adoption)));
    assert_eq!(converge(&mut host, &three(), &mut adoption).changes, []);
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!((host.observed, adoption), (before, Adoption::default()));
}

#[test]
fn a_network_that_did_not_run_is_stopped_again() {
    let mut host = empty_host();
    let resting = ObservedNetwork { active: false, live_hosts: None, live_ranges: None, ..foreign_network() };
    host.observed.networks.push(resting);
    let before = host.observed.clone();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    assert!(host.observed.networks[0].active);
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!(host.observed, before);
}

#[test]
fn an_identical_entry_of_somebody_else_stays() {
    let mut host = host_with_foreign_things();
    let entry = DhcpHost {
        mac: Some("52:54:00:00:00:0a".into()),
        name: Some("cp-1".into()),
        ip: Some(at(10).to_string()),
    };
    host.observed.networks[0].hosts.push(entry.clone());
    host.observed.networks[0].live_hosts = Some(vec![entry]);
    let before = host.observed.clone();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!(host.observed, before);
}

#[test]
fn changes_of_the_spec_are_in_place_where_they_can_be() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    let mut changed = three();
    changed.generation = 2;
    changed.nodes[0].spec.vcpus = 4;
    changed.nodes[0].spec.disk_bytes = 50 << 30;
    changed.nodes[1].spec.ip = at(21);
    changed.nodes.pop();
    changed.nodes.push(node("worker-3", 13));
    insta::assert_snapshot!(lines(&converge(&mut host, &changed, &mut adoption)));
    assert_eq!(converge(&mut host, &changed, &mut adoption).changes, []);
}

#[test]
fn another_image_is_for_new_nodes_only() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    let mut changed = three();
    changed.image.id = "ffffffffffffffff".into();
    changed.image.cmdline = "root=/dev/vda quiet".into();
    assert_eq!(converge(&mut host, &changed, &mut adoption).changes, []);
    changed.nodes.push(node("worker-3", 13));
    let plan = converge(&mut host, &changed, &mut adoption);
    assert!(
        plan.changes.iter().all(|it| it.kind != Kind::Domain || it.name == "worker-3"),
        "{}",
        lines(&plan)
    );
    assert_eq!(
        host.observed.domain("worker-3").and_then(|it| it.kernel.clone()),
        Some(PathBuf::from("/var/lib/k8s-myhome/pool/kernel-ffffffffffffffff"))
    );
    assert_eq!(converge(&mut host, &changed, &mut adoption).changes, []);
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!(host.observed, empty_host().observed);
}

type Meddle<'a> = &'a dyn Fn(&mut ObservedHost, &mut DesiredHost);

#[test]
fn what_stands_in_the_way_is_named() {
    let refused = |meddle: Meddle<'_>| {
        let (mut host, mut desired) = (host_with_foreign_things(), three());
        meddle(&mut host.observed, &mut desired);
        plan_host(&desired, &host.observed, &Adoption::default()).expect_err("it stands in the way").id
    };
    let owner = |cluster: &str| Owner { cluster_id: cluster.into(), ..Owner::default() };
    let cases: [(&str, Meddle<'_>); 15] = [
        ("LIBVIRT-FOREIGN-DOMAIN", &|host, _| host.domains[0].name = "worker-1".into()),
        ("LIBVIRT-FOREIGN-DOMAIN", &|host, _| host.domains[0].mac = "52:54:00:00:00:0B".into()),
        ("LIBVIRT-FOREIGN-DOMAIN", &|host, _| {
            host.domains[0].ours = Some(owner(OTHER));
            host.domains[0].name = "worker-1".into();
        }),
        ("LIBVIRT-NETWORK-TAKEN", &|host, _| host.networks[0].ours = Some(owner(OTHER))),
        ("LIBVIRT-NETWORK-OTHER-CIDR", &|_, desired| {
            desired.network.cidr = "10.1.0.0/24".parse().expect("it is one");
        }),
        ("LIBVIRT-NETWORK-OTHER-ADDRESS", &|host, _| host.networks[0].gateway = Some(at(254))),
        ("LIBVIRT-NETWORK-CONFLICT", &|_, desired| desired.network.name = "k8s".into()),
        ("LIBVIRT-NETWORK-CONFLICT", &|host, _| host.interfaces[0].name = "br0".into()),
        ("NODE-IP-IN-USE", &|host, _| {
            let address = "192.168.122.11/24".parse().expect("it is one");
            host.interfaces.push(HostInterface { name: "virbr0".into(), address });
        }),
        ("LIBVIRT-HOST-ENTRY-TAKEN", &|host, _| {
            host.networks[0].hosts.push(DhcpHost {
                mac: None,
                name: Some("nas".into()),
                ip: Some(at(11).to_string()),
            });
        }),
        ("LIBVIRT-FOREIGN-POOL", &|host, _| {
            host.pool = Some(crate::observed::ObservedPool {
                path: Some("/x".into()),
                active: true,
                autostart: true,
            });
        }),
        ("HOST-DISK-FULL", &|host, _| host.pool_free_bytes = 1 << 30),
        ("HOST-DISK-SHRINK", &|host, _| {
            let name = crate::desired::volume_name(CLUSTER, "worker-1");
            host.volumes.push(ObservedVolume { name, capacity: 1 << 40, backing: None });
        }),
        ("LIBVIRT-FOREIGN-DOMAIN", &|host, desired| {
            host.domains[0].uuid = desired.nodes[0].machine_uuid.clone()
        }),
        ("LIBVIRT-FOREIGN-DOMAIN", &|host, desired| {
            let disk = crate::desired::volume_name(CLUSTER, "worker-1");
            host.domains[0].disks = vec![desired.pool.path.join(disk)];
        }),
    ];
    for (number, (id, meddle)) in cases.into_iter().enumerate() {
        assert_eq!(refused(meddle), id, "case {number}");
    }
}

#[test]
fn a_taken_address_stops_before_the_domain() {
    let mut host = host_with_foreign_things();
    host.answering.insert(at(11), "52:54:00:aa:aa:aa".into());
    let plan =
        plan_host(&three(), &host.observed, &Adoption::default()).expect("nothing else stands in the way");
    let failure =
        plan.changes.iter().find_map(|it| host.execute(&it.op).err()).expect("the address is taken");
    assert_eq!(failure.id, "NODE-IP-IN-USE");
    assert_eq!(host.observed.domains.len(), 1, "no domain was made");
}

#[test]
fn two_clusters_share_an_adopted_network_and_an_image() {
    let mut host = host_with_foreign_things();
    let before = host.observed.clone();
    let mut adoption = Adoption::default();
    let mut second = desired(&[("other-cp", 20)]);
    second.cluster_id = OTHER.into();
    second.network.load_balancer = Some(AddressRange { first: at(160), last: at(170) });
    converge(&mut host, &three(), &mut adoption);
    converge(&mut host, &second, &mut adoption);
    assert_eq!(converge(&mut host, &three(), &mut adoption).changes, [], "they do not undo each other");
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!(converge(&mut host, &second, &mut adoption).changes, [], "the other one is untouched");
    tear_down(&mut host, OTHER, &mut adoption);
    assert_eq!((host.observed, adoption), (before, Adoption::default()));
}

/// A node that is drained keeps what it has, and gets nothing that it has not.
#[test]
fn a_node_on_its_way_out_is_left_alone() {
    for adopted in [false, true] {
        let mut host = if adopted { host_with_foreign_things() } else { empty_host() };
        let mut adoption = Adoption::default();
        converge(&mut host, &three(), &mut adoption);
        let mut smaller = desired(&[("cp-1", 10), ("worker-1", 11)]);
        smaller.leaving = vec![node("worker-2", 12).spec];
        assert_eq!(converge(&mut host, &smaller, &mut adoption).changes, [], "adopted: {adopted}");
        // One that waits for its address keeps what it has under its old one.
        let mut renumbered = desired(&[("cp-1", 10)]);
        renumbered.leaving = vec![node("worker-1", 11).spec, node("worker-2", 11).spec];
        assert_eq!(converge(&mut host, &renumbered, &mut adoption).changes, [], "adopted: {adopted}");
        converge(&mut host, &smaller, &mut adoption);
        // It died, and somebody undefined it: nothing of it is made again.
        host.observed.domains.retain(|domain| domain.name != "worker-2");
        assert_eq!(converge(&mut host, &smaller, &mut adoption).changes, [], "adopted: {adopted}");
        // Gone for good: its disk and its entry go too.
        smaller.leaving.clear();
        let left = lines(&converge(&mut host, &smaller, &mut adoption));
        assert!(
            left.contains("worker-2.qcow2 [delete-volume]") && left.contains("remove-dhcp-host"),
            "{left}"
        );
        assert!(!left.contains("define-domain"), "{left}");
    }
}
