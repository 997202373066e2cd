//! What people and crashes do to a host in between, and how the next plan takes it.

use super::*;
use crate::accelerator::Accelerator;
use crate::change::{HostChange, HostOp};
use crate::desired::{part_name, volume_name};
use crate::observed::{ObservedPool, ObservedTap};
use crate::xml::domain::{DomainPlan, read_domain};
use crate::xml::network::{NetworkPlan, read_network};

fn file(name: &str) -> ObservedVolume {
    ObservedVolume { name: name.to_owned(), capacity: 1 << 20, backing: None }
}

fn masters(host: &FakeHost) -> Vec<Option<String>> {
    let domains = host.observed.domains.iter().filter(|it| it.ours.is_some());
    domains.flat_map(|it| &it.taps).map(|tap| tap.master.clone()).collect()
}

fn plan(host: &FakeHost, adoption: &Adoption) -> HostPlan {
    plan_host(&three(), &host.observed, adoption).expect("nothing stands in the way")
}

fn names(host: &FakeHost) -> Vec<String> {
    host.observed.volumes.iter().map(|it| it.name.clone()).collect()
}

fn domain_made(plan: &HostPlan, name: &str) -> DomainPlan {
    let made = plan.changes.iter().find_map(|it| match &it.op {
        HostOp::DefineDomain { domain } if domain.name == name => Some(domain.clone()),
        _ => None,
    });
    made.expect("it is made")
}

fn network_made(plan: &HostPlan) -> NetworkPlan {
    let made = plan.changes.iter().find_map(|it| match &it.op {
        HostOp::DefineNetwork { network } => Some(network.clone()),
        _ => None,
    });
    made.expect("it is made")
}

/// `virt-clone`, a network made of another one's document, and a disk that was copied beside.
#[test]
fn a_copy_of_a_node_and_a_backup_of_its_disk_stay() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    let made = converge(&mut host, &three(), &mut adoption);
    let (disk, cloned) = (volume_name(CLUSTER, "worker-1"), volume_name(CLUSTER, "worker-1-clone"));
    let xml = domain_made(&made, "worker-1").to_xml("/log/worker-1.log".as_ref()).expect("it has a form");
    let uuid = |last: u8| format!("<uuid>00000000-0000-4000-8000-0000000000{last:02x}</uuid>");
    let xml = xml
        .replace("<name>worker-1</name>", "<name>worker-1-clone</name>")
        .replace(&uuid(11), &uuid(99))
        .replace("52:54:00:00:00:0b", "52:54:00:00:00:63")
        .replace(&disk, &cloned);
    host.observed.domains.push(read_domain(&xml, None, DomainState::Off, false).expect("it is a document"));
    let xml = network_made(&made).to_xml().expect("it has a form");
    let xml = xml
        .replace("<name>default</name>", "<name>copy</name><uuid>c0</uuid>")
        .replace("virbr-k8s0", "virbr-copy")
        .replace("192.168.122.1\"", "192.168.77.1\"");
    host.observed.networks.push(read_network(&xml, None, false).expect("it is a document"));
    let [base, kernel, initrd] = three().image.pool_names();
    let (backup, before) = (format!("{disk}.bak"), disk.replace(".qcow2", ".before.qcow2"));
    for name in [&cloned, &backup, &before] {
        let backing = Some(pool().path.join(&base));
        host.observed.volumes.push(ObservedVolume { backing, ..file(name) });
    }
    assert_eq!(lines(&converge(&mut host, &three(), &mut adoption)), "");
    tear_down(&mut host, CLUSTER, &mut adoption);
    let domains: Vec<_> = host.observed.domains.iter().map(|it| it.name.as_str()).collect();
    let networks: Vec<_> = host.observed.networks.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((domains, networks), (vec!["worker-1-clone"], vec!["copy"]));
    // The clone boots from the image.
    assert_eq!(names(&host), [base, kernel, initrd, cloned, backup, before]);
}

/// A clone's disk may be in another pool, on top of the image in ours.
#[test]
fn an_image_that_a_strangers_vm_boots_from_stays() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    let [base, kernel, initrd] = three().image.pool_names();
    host.observed.domains.push(ObservedDomain {
        name: "clone".into(),
        uuid: "f1".into(),
        kernel: Some(pool().path.join(&kernel)),
        disks: vec!["/elsewhere/clone.qcow2".into()],
        ..ObservedDomain::default()
    });
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!(names(&host), [base, kernel, initrd]);
}

/// A VM defined out of a node's document, with another name and nothing else changed by hand.
#[test]
fn a_disk_that_a_strangers_vm_has_is_not_taken_from_it() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    let disk = volume_name(CLUSTER, "worker-1");
    host.observed.domains.push(ObservedDomain {
        name: "mine".into(),
        uuid: "f1".into(),
        disks: vec!["/elsewhere/root.img".into(), pool().path.join(&disk)],
        state: DomainState::Running,
        ..ObservedDomain::default()
    });
    let failure = plan_host(&three(), &host.observed, &adoption).expect_err("two VMs have the disk");
    assert_eq!(
        (failure.id.as_str(), failure.object.as_str()),
        ("LIBVIRT-FOREIGN-DOMAIN", "domain mine"),
        "{failure:?}"
    );
    assert!(failure.reason.contains(&disk) && failure.reason.contains("worker-1"), "{failure:?}");
    let left = desired(&[("cp-1", 10)]);
    converge(&mut host, &left, &mut adoption);
    assert!(names(&host).contains(&disk) && !names(&host).contains(&volume_name(CLUSTER, "worker-2")));
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert!(names(&host).contains(&disk), "{:?}", names(&host));
}

/// `virsh snapshot-create-as --disk-only`, whose new file is beside the disk.
#[test]
fn what_a_snapshot_put_in_a_disks_place_goes_with_the_vm() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    let snapshot = volume_name(CLUSTER, "worker-1").replace(".qcow2", ".s1");
    let worker = host.observed.domains.iter_mut().find(|it| it.name == "worker-1").expect("it was made");
    worker.disks = vec![pool().path.join(&snapshot)];
    host.observed.volumes.push(file(&snapshot));
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!(host.observed, empty_host().observed);
}

/// What somebody does to the network while VMs run on it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meddling {
    /// `virsh net-destroy`
    Stopped,
    /// `virsh net-destroy` and `net-undefine`
    Undefined,
    /// `virsh net-edit` of its addresses
    Renumbered,
    /// `virsh net-edit` of the host's own
    Moved,
}

#[test]
fn vms_come_back_onto_a_network_that_was_stopped_under_them() {
    use Meddling::{Moved, Renumbered, Stopped, Undefined};
    for (adopted, meddling) in
        [(false, Stopped), (false, Undefined), (true, Stopped), (false, Renumbered), (false, Moved)]
    {
        let case = format!("adopted: {adopted}, {meddling:?}");
        let mut host = if adopted { host_with_foreign_things() } else { empty_host() };
        let mut adoption = Adoption::default();
        converge(&mut host, &three(), &mut adoption);
        let before = host.observed.clone();
        let name = || "default".to_owned();
        let op = match meddling {
            Stopped => Some(HostOp::StopNetwork { name: name() }),
            Undefined => Some(HostOp::DeleteNetwork { name: name(), cluster_id: CLUSTER.into() }),
            Renumbered | Moved => None,
        };
        if let Some(op) = op {
            host.execute(&op).expect("anybody can");
            assert_eq!(masters(&host), [None, None, None], "{case}");
        } else if meddling == Renumbered {
            host.observed.networks[0].cidr = Some("192.168.77.0/24".parse().expect("it is one"));
        } else {
            host.observed.networks[0].gateway = Some(at(254));
        }
        let strangers: Vec<_> =
            host.observed.domains.iter().filter(|it| it.ours.is_none()).cloned().collect();

        // The agent dies when the network runs and no VM is on it yet.
        let planned = plan(&host, &adoption);
        let is_start = |it: &HostChange| matches!(it.op, HostOp::StartNetwork { .. });
        let started = planned.changes.iter().position(is_start).expect("it is to run");
        let (done, rest) = planned.changes.split_at(started + 1);
        done.iter().for_each(|it| assert_eq!(host.execute(&it.op).err(), None, "{case}"));
        let attaches = |changes: &[HostChange]| -> Vec<String> {
            let line = |it: &HostChange| format!("{} {} {}: {}", it.action, it.kind, it.name, it.reason);
            changes.iter().filter(|it| it.op.name() == "attach-tap").map(line).collect()
        };
        let bridge = host.observed.networks[0].bridge.clone().expect("it has one");
        let expected: Vec<String> = ["cp-1", "worker-1", "worker-2"]
            .iter()
            .map(|node| format!("update domain {node}: its interface is not on bridge {bridge}"))
            .collect();
        assert_eq!(attaches(rest), expected, "{case}");
        let destroyed: Vec<_> =
            planned.changes.iter().filter(|it| it.destructive).map(|it| it.op.name()).collect();
        let network: &[&str] = match meddling {
            Renumbered | Moved => &["delete-network"],
            Stopped | Undefined => &[],
        };
        assert_eq!(destroyed, network, "{case}");

        let again = converge(&mut host, &three(), &mut adoption);
        assert_eq!(attaches(&again.changes), expected, "{case}");
        assert_eq!(masters(&host), [Some(bridge.clone()), Some(bridge.clone()), Some(bridge)], "{case}");
        assert_eq!(plan(&host, &adoption).changes, [], "{case}");
        let runs = |host: &ObservedHost| -> Vec<_> { host.domains.iter().map(|it| it.run).collect() };
        assert_eq!(runs(&host.observed), runs(&before), "no VM was restarted; {case}");
        let after: Vec<_> = host.observed.domains.iter().filter(|it| it.ours.is_none()).cloned().collect();
        assert_eq!(after, strangers, "{case}");
    }
}

/// Only interfaces of this cluster's VMs on this network, and only of VMs that stay.
#[test]
fn no_other_interface_is_moved() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    let elsewhere =
        ObservedTap { device: "vnet9".into(), network: "other".into(), master: Some("br0".into()) };
    host.observed.domains[0].taps.push(elsewhere);
    host.observed.domains[1].ours = Some(Owner { cluster_id: OTHER.into(), ..Owner::default() });
    host.observed.domains[1].name = "other-1".into();
    host.observed.domains[1].uuid = "o1".into();
    host.observed.domains[1].mac = "52:54:00:00:01:01".into();
    host.observed.domains[1].taps[0].master = None;
    host.observed.domains[2].taps[0].master = None;
    let smaller = desired(&[("cp-1", 10)]);
    let plan = plan_host(&smaller, &host.observed, &adoption).expect("nothing stands in the way");
    assert!(plan.changes.iter().all(|it| it.op.name() != "attach-tap"), "{}", lines(&plan));
}

#[test]
fn disks_in_a_pool_that_was_undefined_go_with_the_cluster() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    host.observed.pool = None;
    // Nor does a disk's header tell.
    host.observed.volumes.iter_mut().for_each(|it| it.backing = None);
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!(host.observed, empty_host().observed);
}

/// What is destroyed is in the plan that was agreed to, not only in the one after it.
#[test]
fn a_paused_vm_with_new_sizes_is_restarted_at_once() {
    for state in [DomainState::Paused, DomainState::IoError] {
        let mut host = empty_host();
        let mut adoption = Adoption::default();
        converge(&mut host, &three(), &mut adoption);
        let run = |host: &FakeHost| host.observed.domain("cp-1").and_then(|it| it.run);
        let before = run(&host);
        let pause = |host: &mut FakeHost| {
            let domain = host.observed.domains.iter_mut().find(|it| it.name == "cp-1");
            domain.expect("it was made").state = state;
        };
        // With its sizes as they shall be it only goes on.
        pause(&mut host);
        assert_eq!(ops(&converge(&mut host, &three(), &mut adoption)), [("start-domain", false)]);
        assert_eq!(run(&host), before, "{state:?}");

        pause(&mut host);
        let mut changed = three();
        changed.nodes[0].spec.memory_bytes = 8 << 30;
        let planned = converge(&mut host, &changed, &mut adoption);
        assert_eq!(ops(&planned), [("define-domain", false), ("restart-domain", true)], "{state:?}");
        assert_ne!(run(&host), before, "{state:?}");
        assert_eq!(converge(&mut host, &changed, &mut adoption).changes, [], "{state:?}");
    }
}

/// Somebody keeps a VM's document under another name, and never starts it.
#[test]
fn a_vm_that_is_off_and_has_a_nodes_disk_keeps_no_node_from_being_started() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    let node = host.observed.domains.iter_mut().find(|it| it.name == "cp-1").expect("it was made");
    switch_off(node);
    let stranger = ObservedDomain {
        name: "kept".into(),
        uuid: "11111111-2222-3333-4444-555555555555".into(),
        mac: "52:54:00:12:34:56".into(),
        ours: None,
        ..node.clone()
    };
    host.observed.domains.push(stranger);
    let plan = plan_host(&three(), &host.observed, &adoption).expect("it is in nobody's way");
    assert_eq!(ops(&plan), [("start-domain", false)]);
    host.observed.domains.last_mut().expect("the stranger's").state = DomainState::Running;
    let refused = plan_host(&three(), &host.observed, &adoption).expect_err("both would write to it");
    assert_eq!(refused.id, "LIBVIRT-FOREIGN-DOMAIN");
    // Made anew it would boot what is on the disk, which stays while somebody else has it.
    switch_off(host.observed.domains.last_mut().expect("the stranger's"));
    let mut moved = three();
    moved.nodes[0].spec.ip = at(20);
    let refused = plan_host(&moved, &host.observed, &adoption).expect_err("the disk stays");
    assert_eq!((refused.id.as_str(), refused.object.as_str()), ("LIBVIRT-FOREIGN-DOMAIN", "domain kept"));
    host.observed.domains.pop();
    let made = lines(&converge(&mut host, &moved, &mut adoption));
    assert!(made.contains("[delete-volume]") && made.contains("[create-volume]"), "{made}");
}

/// `virsh managedsave`, or the host's shutdown: it would go on with its old sizes, and be restarted then.
#[test]
fn a_saved_vm_with_new_sizes_starts_without_its_saved_state() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    let save = |host: &mut FakeHost| {
        let domain = host.observed.domains.iter_mut().find(|it| it.name == "cp-1").expect("it was made");
        switch_off(domain);
        domain.has_managed_save = true;
    };
    save(&mut host);
    assert_eq!(ops(&converge(&mut host, &three(), &mut adoption)), [("start-domain", false)]);

    save(&mut host);
    let mut changed = three();
    changed.nodes[0].spec.memory_bytes = 8 << 30;
    let planned = converge(&mut host, &changed, &mut adoption);
    assert_eq!(ops(&planned), [("define-domain", false), ("restart-domain", true)]);
    let domain = host.observed.domain("cp-1").expect("it was made");
    assert_eq!((domain.has_managed_save, domain.live_memory_bytes), (false, Some(8 << 30)));
    assert_eq!(converge(&mut host, &changed, &mut adoption).changes, []);
}

/// KVM is switched off in the firmware, or its device closed, and comes back later.
#[test]
fn nodes_of_any_image_go_from_kvm_to_emulation_and_back() {
    let mut host = empty_host();
    host.observed.accelerator = Accelerator::Kvm;
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    let mut newer = three();
    newer.image.id = "ffffffffffffffff".into();
    newer.image.cmdline = "root=/dev/vda quiet".into();
    for wanted in [three(), newer] {
        for (accelerator, words) in
            [(Accelerator::Tcg, " mitigations=off tsc=reliable no_timer_check"), (Accelerator::Kvm, "")]
        {
            host.observed.accelerator = accelerator;
            let mut wanted = wanted.clone();
            wanted.nodes.iter_mut().for_each(|node| node.cmdline = accelerator.cmdline().to_owned());
            let plan = converge(&mut host, &wanted, &mut adoption);
            assert_eq!(ops(&plan), [("define-domain", false); 3], "{}", lines(&plan));
            assert!(plan.changes[0].reason.contains("from the next boot on"), "{}", lines(&plan));
            for domain in &host.observed.domains {
                assert_eq!(domain.accelerator, Some(accelerator));
                assert_eq!(domain.cmdline, format!("root=/dev/vda{words}"), "{}", wanted.image.id);
            }
            assert_eq!(lines(&converge(&mut host, &wanted, &mut adoption)), "");
        }
    }
}

/// Its kernel would guess, and believe its guess for ever.
#[test]
fn an_emulated_vm_is_told_how_fast_its_counter_counts() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    let words = |host: &FakeHost| {
        let domain = host.observed.domain("cp-1").expect("it was made");
        let words = domain.cmdline.split_whitespace().filter(|word| word.starts_with("tsc_early_khz="));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    host.observed.counter_khz = Some(2_596_134);
    converge(&mut host, &three(), &mut adoption);
    assert_eq!(words(&host), ["tsc_early_khz=2596134"]);
    // Measured anew, and a little otherwise.
    host.observed.counter_khz = Some(2_595_990);
    assert_eq!(converge(&mut host, &three(), &mut adoption).changes, []);
    // Another processor.
    host.observed.counter_khz = Some(3_000_000);
    assert_eq!(ops(&converge(&mut host, &three(), &mut adoption)), [("define-domain", false); 3]);
    assert_eq!(words(&host), ["tsc_early_khz=3000000"]);
    host.observed.accelerator = Accelerator::Kvm;
    converge(&mut host, &three(), &mut adoption);
    assert!(words(&host).is_empty());
}

/// What was saved under KVM goes on nowhere else.
#[test]
fn a_saved_vm_does_not_go_on_with_another_accelerator() {
    let mut host = empty_host();
    host.observed.accelerator = Accelerator::Kvm;
    let mut adoption = Adoption::default();
    converge(&mut host, &desired(&[("cp-1", 10)]), &mut adoption);
    let domain = &mut host.observed.domains[0];
    (domain.state, domain.run, domain.has_managed_save) = (DomainState::Off, None, true);
    (domain.live_vcpus, domain.live_memory_bytes) = (None, None);
    host.observed.accelerator = Accelerator::Tcg;
    let plan = converge(&mut host, &desired(&[("cp-1", 10)]), &mut adoption);
    assert_eq!(ops(&plan), [("define-domain", false), ("restart-domain", true)], "{}", lines(&plan));
}

/// The pool is stopped or undefined by hand; then a node is replaced, another one removed.
#[test]
fn nodes_whose_pool_does_not_run_are_replaced_with_their_disks() {
    for undefined in [false, true] {
        let mut host = empty_host();
        let mut adoption = Adoption::default();
        converge(&mut host, &three(), &mut adoption);
        host.observed.pool.as_mut().expect("it was made").active = false;
        if undefined {
            host.observed.pool = None;
        }
        host.observed.volumes.iter_mut().for_each(|it| it.backing = None);
        host.effects.clear();
        let mut changed = desired(&[("cp-1", 10), ("worker-1", 11)]);
        changed.nodes[1].node_id = "id-another".into();
        converge(&mut host, &changed, &mut adoption);
        let made = |op| host.effects.get(op).copied();
        let disks = (made("delete-volume"), made("create-volume"));
        assert_eq!(disks, (Some(2), Some(1)), "undefined: {undefined}");
        let disk = |node| host.observed.volume(&volume_name(CLUSTER, node));
        assert!(disk("worker-1").is_some_and(|it| it.backing.is_some()), "it is a new one");
        assert_eq!(disk("worker-2"), None);
    }
}

/// Nobody sees on which image the other cluster's disk is.
#[test]
fn images_stay_while_a_pool_that_was_undefined_has_disks_of_others() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    host.observed.pool = None;
    host.observed.volumes.iter_mut().for_each(|it| it.backing = None);
    host.observed.volumes.push(file(&volume_name(OTHER, "cp")));
    let mut seen = host.observed.clone();
    tear_down(&mut host, CLUSTER, &mut adoption);
    let left = names(&host);
    let [base, kernel, initrd] = three().image.pool_names();
    assert_eq!(left, [base, kernel, initrd, volume_name(OTHER, "cp")]);
    assert!(host.observed.pool.is_some_and(|it| it.active), "it has disks");

    // Where its header tells, an image that it is not on goes.
    seen.volumes.last_mut().expect("it is there").backing = Some("base-fedcba9876543210.qcow2".into());
    let mut host = FakeHost { observed: seen, ..FakeHost::default() };
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!(names(&host), [volume_name(OTHER, "cp")]);
}

#[test]
fn a_pool_that_is_elsewhere_is_no_reason_to_leave_disks_behind() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    for path in [Some(PathBuf::from("/srv/old-pool")), None] {
        host.observed.pool = Some(ObservedPool { path: path.clone(), active: true, autostart: true });
        let failure =
            plan_teardown(CLUSTER, &pool(), &host.observed, &adoption).expect_err("it is elsewhere");
        assert_eq!(failure.id, "LIBVIRT-FOREIGN-POOL");
        assert!(failure.reason.contains("/var/lib/k8s-myhome/pool"), "{failure:?}");
        if path.is_some() {
            assert!(failure.reason.contains("/srv/old-pool"), "{failure:?}");
            assert!(failure.next_step.contains("pool_dir to /srv/old-pool"), "{failure:?}");
        }
    }
}

/// `pool_dir` was changed, and the old pool is not defined any more.
#[test]
fn disks_where_pool_dir_was_are_not_given_up() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    host.observed.pool = None;
    let volumes = std::mem::take(&mut host.observed.volumes);
    let mut moved = three();
    moved.pool.path = "/srv/new-pool".into();
    let up = plan_host(&moved, &host.observed, &adoption).expect_err("its disks are elsewhere");
    let down = plan_teardown(CLUSTER, &moved.pool, &host.observed, &adoption);
    for failure in [up, down.expect_err("its disks are elsewhere")] {
        assert_eq!(failure.id, "LIBVIRT-FOREIGN-POOL");
        for said in ["/var/lib/k8s-myhome/pool", "/srv/new-pool", "node cp-1"] {
            assert!(failure.reason.contains(said), "{failure:?}");
        }
        assert!(failure.next_step.contains("pool_dir to /var/lib/k8s-myhome/pool "), "{failure:?}");
    }
    // With the old one again.
    host.observed.volumes = volumes;
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!(host.observed, empty_host().observed);
}

#[test]
fn only_names_of_images_go_with_the_images() {
    let short = "0123456789abcdef";
    let foreign = [
        "kernel-mine".to_owned(),
        "initrd-x".to_owned(),
        "base-foreign.qcow2".to_owned(),
        format!("kernel-{short}0"),
        format!("initrd-{}", &short[1..]),
        format!("base-{}.qcow2", short.to_uppercase()),
        format!("base-{short}.img"),
        format!("Kernel-{short}"),
        ".kernel-mine.part".to_owned(),
        format!("kernel-{short}.part"),
    ];
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    host.observed.volumes.extend(foreign.iter().map(|name| file(name)));
    tear_down(&mut host, CLUSTER, &mut adoption);
    let left = names(&host);
    assert_eq!(left, foreign);
    assert!(host.observed.pool.is_some(), "a pool with files in it stays");
}

/// Killed in the middle of the first file's copy: no image is there, only its part.
#[test]
fn the_part_of_an_image_goes_with_the_cluster() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &desired(&[]), &mut adoption);
    let [base, ..] = three().image.pool_names();
    host.observed.volumes.push(file(&part_name(&base)));
    tear_down(&mut host, CLUSTER, &mut adoption);
    assert_eq!(host.observed, empty_host().observed);
}

#[test]
fn a_bridge_to_elsewhere_is_not_offered() {
    let mut host = host_with_foreign_things();
    let refused = |host: &FakeHost| {
        let mut other = three();
        other.network.cidr = "10.1.0.0/24".parse().expect("it is one");
        plan_host(&other, &host.observed, &Adoption::default()).expect_err("it is not the spec's")
    };
    assert!(refused(&host).next_step.contains("network.cidr to 192.168.122.0/24"), "{:?}", refused(&host));
    host.observed.networks[0].cidr = None;
    let failure = refused(&host);
    assert_eq!(failure.id, "LIBVIRT-NETWORK-OTHER-CIDR");
    assert_eq!(failure.next_step, "give the cluster another network.name");
}

/// The node port is at the first address, where no host would be.
#[test]
fn a_network_with_the_host_at_another_address_is_not_adopted() {
    let mut host = host_with_foreign_things();
    host.observed.networks[0].gateway = Some(at(254));
    let failure =
        plan_host(&three(), &host.observed, &Adoption::default()).expect_err("nodes would not find it");
    assert_eq!(failure.id, "LIBVIRT-NETWORK-OTHER-ADDRESS");
    for said in ["is 192.168.122.254", "at 192.168.122.1"] {
        assert!(failure.reason.contains(said), "{failure:?}");
    }
}

#[test]
fn the_ways_out_fit_the_vm_that_stands_in_the_way() {
    let next = |owner: Option<&str>, meddle: &dyn Fn(&mut ObservedDomain)| {
        let mut host = host_with_foreign_things();
        let vm = &mut host.observed.domains[0];
        vm.ours = owner.map(|id| Owner { cluster_id: id.to_owned(), ..Owner::default() });
        meddle(vm);
        let failure =
            plan_host(&three(), &host.observed, &Adoption::default()).expect_err("it is in the way");
        assert_eq!(failure.id, "LIBVIRT-FOREIGN-DOMAIN");
        failure.next_step
    };
    let disk = pool().path.join(volume_name(CLUSTER, "worker-1"));
    let name = |vm: &mut ObservedDomain| vm.name = "worker-1".into();
    let mac = |vm: &mut ObservedDomain| vm.mac = "52:54:00:00:00:0B".into();
    let uuid = |vm: &mut ObservedDomain| vm.uuid = three().nodes[1].machine_uuid.clone();
    let shared = |vm: &mut ObservedDomain| vm.disks = vec![disk.clone()];
    for (next, said) in [
        (next(None, &name), ["rename the node in the cluster file", "`virsh domrename worker-1 NEW-NAME`"]),
        (next(None, &mac), ["another mac in the cluster file", "`virsh edit k8s-worker-9`"]),
        (next(None, &uuid), ["`virsh undefine k8s-worker-9`", "without a UUID"]),
        (next(None, &shared), ["a disk of its own", "`virsh edit k8s-worker-9`"]),
        (next(Some(OTHER), &name), ["rename the node in the cluster file", "take that cluster down"]),
        (next(Some(OTHER), &mac), ["another mac in the cluster file", "take that cluster down"]),
    ] {
        assert!(said.iter().all(|said| next.contains(said)), "{next}");
        assert_eq!(next.contains("domrename"), said[1].contains("domrename"), "{next}");
        assert!(next.ends_with("; then run the command again"), "{next}");
    }
}

#[test]
fn what_may_be_no_loss_is_told_before_a_node_is_given_up() {
    let mut host = empty_host();
    let mut adoption = Adoption::default();
    converge(&mut host, &three(), &mut adoption);
    let disk = pool().path.join(volume_name(CLUSTER, "cp-1")).display().to_string();
    let snapshot = disk.replace(".qcow2", ".s1");
    let mut snapped = host.observed.clone();
    snapped.domains[0].disks = vec![snapshot.clone().into()];
    host.observed.volumes.clear();
    for (observed, said) in [
        (snapped, [disk.as_str(), snapshot.as_str(), "`virsh blockcommit cp-1 vda --active --pivot`"]),
        (host.observed, ["its disk is gone", "/var/lib/k8s-myhome/pool mounted?", ""]),
    ] {
        let plan = plan_host(&three(), &observed, &adoption).expect("nothing stands in the way");
        let first = plan.changes.iter().find(|it| it.destructive).expect("it is replaced");
        assert_eq!(first.name, "cp-1");
        assert!(said.iter().all(|said| first.reason.contains(said)), "{}", first.reason);
    }
}

#[test]
fn an_address_of_the_host_is_named_with_its_interface() {
    let mut host = host_with_foreign_things();
    host.observed.interfaces.push(HostInterface {
        name: "virbr0".into(),
        address: "192.168.122.11/24".parse().expect("it is one"),
    });
    let failure = plan_host(&three(), &host.observed, &Adoption::default()).expect_err("the host has it");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("NODE-IP-IN-USE", "address 192.168.122.11"));
    assert!(failure.reason.contains("virbr0") && failure.reason.contains("worker-1"), "{failure:?}");
    assert!(failure.next_step.contains("ip addr del 192.168.122.11/24 dev virbr0"), "{failure:?}");
}
