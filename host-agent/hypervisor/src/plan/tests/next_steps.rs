//! What a refusal says to do can be done: SPEC-FIXED refuses another name or address of the control plane.

use super::*;
use crate::desired::volume_name;

#[test]
fn an_address_of_the_host_can_be_changed_in_the_file_of_a_worker_only() {
    let mut host = host_with_foreign_things();
    let address = "192.168.122.11/24".parse().expect("it is one");
    host.observed.interfaces.push(HostInterface { name: "virbr0".into(), address });
    let mut ours = three();
    let failure = plan_host(&ours, &host.observed, &Adoption::default()).expect_err("the host has it");
    assert!(failure.next_step.starts_with("give the node another ip"), "{failure:?}");
    ours.nodes[1].spec.role = Role::ControlPlane;
    let failure = plan_host(&ours, &host.observed, &Adoption::default()).expect_err("the host has it");
    let down = "take the cluster down with `k8sctl down home` and give the node another ip";
    assert!(failure.next_step.starts_with(down), "{failure:?}");
    ours.nodes[1].is_new = true;
    let failure = plan_host(&ours, &host.observed, &Adoption::default()).expect_err("the host has it");
    assert!(failure.next_step.starts_with("give the node another ip"), "{failure:?}");
}

#[test]
fn a_disk_that_would_get_smaller_is_told_with_a_way_that_works() {
    let mut host = host_with_foreign_things();
    let name = volume_name(CLUSTER, "worker-1");
    host.observed.volumes.push(ObservedVolume { name, capacity: (61 << 30) / 2, backing: None });
    let mut ours = three();
    let failure = plan_host(&ours, &host.observed, &Adoption::default()).expect_err("it would get smaller");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("HOST-DISK-SHRINK", "disk of node worker-1"));
    assert!(failure.reason.starts_with("it has 30.5 GiB, the cluster file says 30 GiB;"), "{failure:?}");
    assert!(failure.next_step.ends_with("or remove the node and add it again"), "{failure:?}");
    ours.nodes[1].spec.role = Role::ControlPlane;
    let failure = plan_host(&ours, &host.observed, &Adoption::default()).expect_err("it would get smaller");
    assert!(
        failure.next_step.contains("`k8sctl down home`") && !failure.next_step.contains("remove"),
        "{failure:?}"
    );
}

#[test]
fn a_control_plane_that_is_there_is_not_to_be_renamed() {
    let mut host = host_with_foreign_things();
    host.observed.domains[0].name = "worker-1".into();
    let mut ours = three();
    let failure = plan_host(&ours, &host.observed, &Adoption::default()).expect_err("it has the name");
    assert!(failure.next_step.contains("rename the node"), "{failure:?}");
    ours.nodes[1].spec.role = Role::ControlPlane;
    let failure = plan_host(&ours, &host.observed, &Adoption::default()).expect_err("it has the name");
    assert_eq!(failure.id, "LIBVIRT-FOREIGN-DOMAIN");
    assert!(!failure.next_step.contains("rename the node"), "{failure:?}");
}
