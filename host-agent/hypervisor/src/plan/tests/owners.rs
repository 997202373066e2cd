//! VMs, disks and networks of which it is not plain whose they are: renamed, copied, left behind, of clusters that
//! nobody knows.

use k8sctl_types::failure::Failure;

use super::*;
use crate::change::HostOp;
use crate::desired::volume_name;
use crate::plan::plan_starts;

fn converged() -> (FakeHost, Adoption) {
    let (mut host, mut adoption) = (empty_host(), Adoption::default());
    converge(&mut host, &three(), &mut adoption);
    (host, adoption)
}

fn domain<'a>(host: &'a mut FakeHost, name: &str) -> &'a mut ObservedDomain {
    host.observed.domains.iter_mut().find(|it| it.name == name).expect("it is there")
}

fn refused(desired: &DesiredHost, host: &FakeHost) -> Failure {
    plan_host(desired, &host.observed, &Adoption::default()).expect_err("it is refused")
}

/// `virsh domrename`, after which the node's VM looks gone, and its disk like that of a VM that is left over.
#[test]
fn a_vm_that_was_renamed_by_hand_is_not_given_up() {
    let (mut host, mut adoption) = converged();
    let worker = domain(&mut host, "worker-1");
    worker.name = "old-worker".into();
    for (state, is_saved, before) in [
        (DomainState::Running, false, "shut it down (`virsh shutdown old-worker`), then "),
        (DomainState::Paused, false, "power it off (`virsh destroy old-worker`), then "),
        (DomainState::Off, true, "remove its saved state (`virsh managedsave-remove old-worker`), then "),
        (DomainState::Off, false, ""),
    ] {
        let worker = domain(&mut host, "old-worker");
        (worker.state, worker.has_managed_save) = (state, is_saved);
        let failure = refused(&three(), &host);
        assert_eq!(
            (failure.id.as_str(), failure.object.as_str()),
            ("LIBVIRT-DOMAIN-RENAMED", "domain old-worker")
        );
        assert!(failure.reason.contains("node worker-1"), "{failure:?}");
        let back = "rename it back: `virsh domrename old-worker worker-1`; then run the command again";
        assert_eq!(failure.next_step, format!("{before}{back}"));
    }
    // Others are started all the same.
    switch_off(domain(&mut host, "cp-1"));
    let plan = plan_starts(&three(), &host.observed, &adoption).expect("nothing stands in the way of all");
    let started: Vec<_> = plan.changes.iter().map(|it| (it.op.name(), it.name.as_str())).collect();
    assert_eq!(started, [("start-domain", "cp-1")]);
    assert_eq!(plan.refused.map(|it| it.id).as_deref(), Some("LIBVIRT-DOMAIN-RENAMED"));

    // Back under its name it is as it was.
    let worker = domain(&mut host, "old-worker");
    worker.name = "worker-1".into();
    switch_off(worker);
    let plan = converge(&mut host, &three(), &mut adoption);
    assert_eq!(ops(&plan), [("start-domain", false), ("start-domain", false)], "{}", lines(&plan));
    // Of a node that left the file it goes under any name.
    domain(&mut host, "worker-1").name = "old-worker".into();
    converge(&mut host, &desired(&[("cp-1", 10), ("worker-2", 12)]), &mut adoption);
    assert_eq!(host.observed.volume(&volume_name(CLUSTER, "worker-1")), None);
    assert_eq!(host.observed.domain("old-worker"), None);
}

#[test]
fn vms_whose_names_were_swapped_are_not_given_up() {
    let (mut host, _) = converged();
    domain(&mut host, "worker-1").name = "worker-3".into();
    domain(&mut host, "worker-2").name = "worker-1".into();
    domain(&mut host, "worker-3").name = "worker-2".into();
    let failure = refused(&three(), &host);
    assert_eq!(failure.id, "LIBVIRT-DOMAIN-RENAMED", "{failure:?}");
    let next = "give VM worker-1, which has its name by now, another one, then rename it back: `virsh domrename worker-2 \
                worker-1`";
    assert!(failure.next_step.contains(next), "{failure:?}");
}

/// Of a version whose marks did not say on what they were put.
#[test]
fn a_copy_goes_without_the_disk_that_it_shares_with_a_node() {
    let (mut host, mut adoption) = converged();
    let mut copy = domain(&mut host, "worker-1").clone();
    (copy.name, copy.uuid, copy.mac) = ("copy".into(), "c0".into(), "52:54:00:00:01:00".into());
    switch_off(&mut copy);
    host.observed.domains.push(copy);
    let plan = converge(&mut host, &three(), &mut adoption);
    assert_eq!(ops(&plan), [("delete-domain", true)], "{}", lines(&plan));
    assert_eq!(converge(&mut host, &three(), &mut adoption).changes, []);
}

/// The node is another one than the VM's, of records of an earlier time.
#[test]
fn a_disk_that_goes_with_one_vm_is_made_anew_for_another() {
    let (mut host, mut adoption) = converged();
    let worker = domain(&mut host, "worker-1");
    worker.name = "old-worker".into();
    switch_off(worker);
    let mut restored = three();
    restored.nodes[1].node_id = "id-of-earlier".into();
    let plan = converge(&mut host, &restored, &mut adoption);
    let expected = [
        ("delete-volume", true),
        ("delete-domain", true),
        ("check-addresses", false),
        ("create-volume", false),
        ("define-domain", false),
        ("start-domain", false),
    ];
    assert_eq!(ops(&plan), expected, "{}", lines(&plan));
}

/// A stranger's VM had a node's disk when the node left; by the time it comes back the VM is gone.
#[test]
fn a_disk_that_was_left_behind_is_not_a_new_nodes() {
    let (mut host, mut adoption) = converged();
    let (name, node) = (volume_name(CLUSTER, "worker-1"), domain(&mut host, "worker-1").clone());
    let mut stranger = ObservedDomain { name: "kept".into(), uuid: "f1".into(), ours: None, ..node };
    stranger.mac = "52:54:00:12:34:56".into();
    switch_off(&mut stranger);
    host.observed.domains.push(stranger);
    converge(&mut host, &desired(&[("cp-1", 10), ("worker-2", 12)]), &mut adoption);
    assert!(host.observed.volume(&name).is_some(), "it is not ours to take");

    let mut again = three();
    (again.nodes[1].node_id, again.nodes[1].is_new) = ("id-of-later".into(), true);
    assert_eq!(refused(&again, &host).id, "LIBVIRT-FOREIGN-DOMAIN");
    host.observed.domains.retain(|it| it.name != "kept");
    let failure = refused(&again, &host);
    assert_eq!(failure.id, "LIBVIRT-DISK-LEFT");
    let path = pool().path.join(&name).display().to_string();
    assert!(failure.object.contains(&path) && failure.reason.contains("worker-1"), "{failure:?}");
    assert!(failure.next_step.contains(&format!("`rm {path}`")), "{failure:?}");

    // Nor is one on another image, whatever was planned.
    let [base, ..] = three().image.pool_names();
    let backing = pool().path.join(base.replace("base-0", "base-f"));
    host.observed.volumes.push(ObservedVolume {
        name: base.replace("base-0", "base-f"),
        capacity: 1,
        backing: None,
    });
    let op = HostOp::CreateVolume { pool: pool().name, name: name.clone(), capacity: 30 << 30, backing };
    assert_eq!(host.execute(&op).expect_err("it is another one").id, "LIBVIRT-DISK-LEFT");

    host.observed.volumes.retain(|it| it.name != name);
    let made = lines(&converge(&mut host, &again, &mut adoption));
    assert!(made.contains("[create-volume]"), "{made}");
    // Of a node that is known it is its own.
    again.nodes[1].is_new = false;
    host.observed.domains.retain(|it| it.name != "worker-1");
    let made = lines(&converge(&mut host, &again, &mut adoption));
    assert!(!made.contains("-volume]") && made.contains("[define-domain]"), "{made}");
}

/// A cluster that the records know is taken down; of one that they do not know nobody can say more than where it is.
#[test]
fn what_another_cluster_has_goes_with_that_one() {
    let own = |name: &str| {
        let mut host = empty_host();
        let mut other = desired(&[("worker-1", 11), ("other-2", 12)]);
        (other.cluster_id, other.network.name) = (OTHER.into(), name.into());
        converge(&mut host, &other, &mut Adoption::default());
        host
    };
    let mut vms = own("elsewhere");
    vms.observed.networks[0].cidr = Some("10.1.0.0/24".parse().expect("it is one"));
    let network = own("default");
    let disk = pool().path.join("DISK").display().to_string();
    for (id, host) in [("LIBVIRT-FOREIGN-DOMAIN", vms), ("LIBVIRT-NETWORK-TAKEN", network)] {
        let known = refused(&three(), &host);
        assert_eq!(known.id, id);
        assert!(known.reason.contains("it belongs to cluster other"), "{known:?}");
        assert!(known.next_step.contains("`k8sctl down other`"), "{known:?}");
        assert!(!known.next_step.contains("backup") && !known.reason.contains(OTHER), "{known:?}");

        let lost = refused(&DesiredHost { others: BTreeMap::new(), ..three() }, &host);
        assert_eq!(lost.id, id);
        assert!(lost.reason.contains(&format!("in no record of this host agent (id {OTHER})")), "{lost:?}");
        let name = &host.observed.networks[0].name;
        for said in [
            "restore the host agent's database from a backup",
            "`virsh destroy VM`, `virsh undefine VM --managed-save` for VM worker-1, other-2",
            &format!("`virsh net-destroy NETWORK`, `virsh net-undefine NETWORK` for NETWORK {name}"),
            &format!("`rm {disk}` for DISK {}, ", volume_name(OTHER, "worker-1")),
        ] {
            assert!(lost.next_step.contains(said), "{said}: {lost:?}");
        }
        assert!(!lost.next_step.contains("k8sctl down"), "{lost:?}");
    }
}
