//! Without an operation: what is started, whatever stands in the way of one node, or of an `up`.

use super::*;
use crate::change::{HostChange, HostOp};
use crate::desired::volume_name;
use crate::observed::ObservedPool;
use crate::plan::plan_starts;

/// A cluster whose VMs have all ended, on a network of its own or on one that it has adopted.
fn powerless(adopted: bool) -> (FakeHost, Adoption) {
    let mut host = if adopted { host_with_foreign_things() } else { empty_host() };
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    host.observed.domains.iter_mut().filter(|it| it.ours.is_some()).for_each(switch_off);
    (host, adoption)
}

/// Which VMs are started, and nothing else is; id of what is told.
fn starts(host: &FakeHost, adoption: &Adoption) -> (Vec<String>, Option<String>) {
    let plan = plan_starts(&three(), &host.observed, adoption).expect("nothing stands in the way of all");
    let started = |it: &HostChange| {
        assert_eq!(it.op.name(), "start-domain", "{it:?}");
        it.name.clone()
    };
    (plan.changes.iter().map(started).collect(), plan.refused.map(|it| it.id))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn the_control_plane_starts_first_and_alone_with_libvirt() {
    let mut desired = three();
    desired.nodes[0].spec.role = Role::ControlPlane;
    let (mut host, mut adoption) = (empty_host(), Adoption::default());
    converge(&mut host, &desired, &mut adoption);
    let with_libvirt = |host: &FakeHost| -> Vec<String> {
        host.observed.domains.iter().filter(|it| it.autostart).map(|it| it.name.clone()).collect()
    };
    assert_eq!(with_libvirt(&host), names(&["cp-1"]));
    let mut off = host.observed.clone();
    off.domains.iter_mut().for_each(switch_off);
    let mut others_first = desired.clone();
    others_first.nodes.reverse();
    let plan = plan_starts(&others_first, &off, &adoption).expect("nothing stands in the way");
    let started: Vec<&str> = plan.changes.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(started, ["cp-1", "worker-2", "worker-1"]);

    // As an older release left it, and `virsh autostart --disable`.
    for domain in &mut host.observed.domains {
        domain.autostart = !domain.autostart;
    }
    let plan = lines(&converge(&mut host, &desired, &mut adoption));
    for (name, why) in [("cp-1", "with the host"), ("worker-1", "behind the control plane")] {
        let line = format!("update domain {name} [define-domain]: it shall start {why}\n");
        assert!(plan.contains(&line), "{plan}");
    }
    assert_eq!(with_libvirt(&host), names(&["cp-1"]));
}

#[test]
fn what_stands_in_the_way_of_one_node_keeps_no_other_from_being_started() {
    let stranger = || ObservedDomain {
        name: "mine".into(),
        uuid: "f1".into(),
        mac: "52:54:00:ff:00:02".into(),
        state: DomainState::Running,
        ..ObservedDomain::default()
    };
    let disk = volume_name(CLUSTER, "worker-1");
    let cases: [(&str, Meddle<'_>); 7] = [
        // The node's own was undefined.
        ("LIBVIRT-FOREIGN-DOMAIN", &|host, _| host.domains[1].ours = None),
        ("LIBVIRT-FOREIGN-DOMAIN", &|host, desired| {
            host.domains.push(ObservedDomain { mac: desired.nodes[1].spec.mac.clone(), ..stranger() });
        }),
        ("LIBVIRT-FOREIGN-DOMAIN", &|host, desired| {
            host.domains.push(ObservedDomain { disks: vec![desired.pool.path.join(&disk)], ..stranger() });
        }),
        ("LIBVIRT-DOMAIN-RENAMED", &|host, _| host.domains[1].name = "old-worker".into()),
        // `virsh vol-resize`
        ("HOST-DISK-SHRINK", &|host, _| {
            host.volumes.iter_mut().filter(|it| it.name == disk).for_each(|it| it.capacity = 1 << 40);
        }),
        ("NODE-IP-IN-USE", &|host, _| {
            let address = "192.168.122.11/24".parse().expect("it is one");
            let name = host.networks[0].bridge.clone().expect("it has one");
            host.interfaces.push(HostInterface { name, address });
        }),
        // Of two nodes the first one is told.
        ("LIBVIRT-DOMAIN-RENAMED", &|host, _| {
            host.domains[1].name = "old-worker".into();
            host.domains[2].ours = None;
        }),
    ];
    for (number, (id, meddle)) in cases.into_iter().enumerate() {
        let (mut host, adoption) = powerless(false);
        meddle(&mut host.observed, &mut three());
        let refused = plan_host(&three(), &host.observed, &adoption).expect_err("it stands in the way");
        assert_eq!(refused.id, id, "case {number}");
        let (started, told) = starts(&host, &adoption);
        let expected = if number == 6 { names(&["cp-1"]) } else { names(&["cp-1", "worker-2"]) };
        assert_eq!((started, told.as_deref()), (expected, Some(id)), "case {number}");
    }

    // `virsh net-edit` of an entry of ours.
    let (mut host, adoption) = powerless(true);
    let network = &mut host.observed.networks[0];
    for entry in network.hosts.iter_mut().chain(network.live_hosts.iter_mut().flatten()) {
        if entry.name.as_deref() == Some("worker-1") {
            entry.mac = Some("52:54:00:aa:aa:aa".into());
        }
    }
    let told = Some("LIBVIRT-HOST-ENTRY-TAKEN".to_owned());
    assert_eq!(starts(&host, &adoption), (names(&["cp-1", "worker-2"]), told));
}

/// A VPN that is dialled, or another network with the same addresses.
#[test]
fn who_comes_to_the_addresses_of_a_network_that_is_there_keeps_no_vm_from_being_started() {
    let tunnel =
        HostInterface { name: "tun0".into(), address: "192.168.122.200/16".parse().expect("it is one") };
    let network =
        ObservedNetwork { name: "another".into(), bridge: Some("virbr9".into()), ..foreign_network() };
    let cases: [Meddle<'_>; 2] =
        [&|host, _| host.interfaces.push(tunnel.clone()), &|host, _| host.networks.push(network.clone())];
    for adopted in [false, true] {
        for meddle in cases {
            let (mut host, adoption) = powerless(adopted);
            meddle(&mut host.observed, &mut three());
            let refused = plan_host(&three(), &host.observed, &adoption).expect_err("it is on them");
            assert_eq!(refused.id, "LIBVIRT-NETWORK-CONFLICT", "adopted: {adopted}");
            let all = names(&["cp-1", "worker-1", "worker-2"]);
            assert_eq!(starts(&host, &adoption), (all, None), "adopted: {adopted}");
            // Nor is anything started on a network that would have to be made.
            host.observed.networks.retain(|it| it.name != "default");
            let refused = plan_starts(&three(), &host.observed, &adoption).expect_err("it is on them");
            assert_eq!(refused.id, "LIBVIRT-NETWORK-CONFLICT", "adopted: {adopted}");
        }
    }
}

/// A VM and its disk are gone; an `up` would make them, and has no room for that.
#[test]
fn what_is_not_made_needs_no_room() {
    let (mut host, adoption) = powerless(false);
    host.observed.domains.retain(|it| it.name != "worker-1");
    host.observed.volumes.retain(|it| it.name != volume_name(CLUSTER, "worker-1"));
    host.observed.pool_free_bytes = 0;
    let refused = plan_host(&three(), &host.observed, &adoption).expect_err("there is no room");
    assert_eq!(refused.id, "HOST-DISK-FULL");
    assert_eq!(starts(&host, &adoption), (names(&["cp-1", "worker-2"]), None));
}

#[test]
fn what_stands_in_the_way_of_all_is_a_failure() {
    let (mut host, adoption) = powerless(false);
    host.observed.pool = Some(ObservedPool { path: Some("/x".into()), active: true, autostart: true });
    let refused = plan_starts(&three(), &host.observed, &adoption).expect_err("disks are elsewhere");
    assert_eq!(refused.id, "LIBVIRT-FOREIGN-POOL");
}

/// A network that was undefined comes back with an `up` only; until then there is no bridge.
#[test]
fn running_vms_go_back_onto_a_bridge_that_there_is() {
    let (mut host, mut adoption) = (empty_host(), Adoption::default());
    converge(&mut host, &three(), &mut adoption);
    let planned = |host: &FakeHost| {
        let plan = plan_starts(&three(), &host.observed, &adoption).expect("nothing stands in the way");
        plan.changes.iter().map(|it| it.op.name()).collect::<Vec<_>>()
    };
    assert_eq!(planned(&host), [""; 0]);
    host.execute(&HostOp::StopNetwork { name: "default".into() }).expect("anybody can");
    host.observed.pool.as_mut().expect("it was made").active = false;
    let attached = ["attach-tap"; 3];
    assert_eq!(planned(&host), [&["start-pool", "start-network"][..], &attached[..]].concat());
    let undefine = HostOp::DeleteNetwork { name: "default".into(), cluster_id: CLUSTER.into() };
    host.execute(&undefine).expect("anybody can");
    assert_eq!(planned(&host), ["start-pool"]);
}
