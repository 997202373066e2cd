//! The real hypervisor on libvirt's test driver, which keeps a host in the memory of this process.
//!
//! One connection is held open: with the last one the driver forgets everything. What it lacks
//! (files, console, channels) is proven in the lab.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use host_hypervisor::adoption::Adoption;
use host_hypervisor::change::{HostOp, Outcome};
use host_hypervisor::desired::{DesiredHost, DesiredImage, DesiredNode, DesiredPool};
use host_hypervisor::documents::{Documents as _, Wanted};
use host_hypervisor::observed::{DomainState, ObservedHost};
use host_hypervisor::plan::{plan_host, plan_teardown};
use host_hypervisor::real::HypervisorConfig;
use host_hypervisor::{Hypervisor, RealHypervisor};
use k8sctl_types::spec::{AddressRange, NetworkSpec, NodeSpec, Role};
use tokio::time::timeout;
use virt::connect::Connect;
use virt::domain::{DomainShutoffReason, DomainStateReason};

/// All connections of a process to libvirt's test driver see the same host.
static DRIVER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn desired(directory: &Path, network: &str, cidr: &str) -> DesiredHost {
    let file = |name: &str| {
        let path = directory.join(name);
        std::fs::write(&path, name).unwrap();
        path
    };
    let cidr: ipnet::Ipv4Net = cidr.parse().unwrap();
    let at = |last: u32| std::net::Ipv4Addr::from(u32::from(cidr.network()) + last);
    let node = |name: &str, last: u32| DesiredNode {
        node_id: format!("id-{name}"),
        spec: NodeSpec {
            name: name.into(),
            role: Role::Worker,
            vcpus: 2,
            memory_bytes: 1 << 30,
            disk_bytes: 10 << 30,
            ip: at(last),
            mac: format!("52:54:00:00:01:{last:02x}"),
            labels: Vec::new(),
            taints: Vec::new(),
        },
        machine_uuid: format!("00000000-0000-4000-8000-0000000000{last:02x}"),
        powered: true,
        cmdline: String::new(),
        is_new: false,
    };
    std::fs::create_dir_all(directory.join("pool")).unwrap();
    DesiredHost {
        cluster_id: "0192f0c1-0000-7000-8000-000000000001".into(),
        cluster_name: "home".into(),
        generation: 1,
        network: NetworkSpec {
            name: network.into(),
            cidr,
            pods: "10.244.0.0/16".parse().unwrap(),
            services: "10.96.0.0/12".parse().unwrap(),
            load_balancer: Some(AddressRange { first: at(100), last: at(150) }),
            dhcp: None,
        },
        nodes: vec![node("cp-1", 10), node("worker-1", 11)],
        leaving: Vec::new(),
        image: DesiredImage {
            id: "0123456789abcdef0123".into(),
            disk: file("root.qcow2"),
            kernel: file("vmlinuz"),
            initrd: file("initrd"),
            cmdline: "root=/dev/vda console=ttyS0".into(),
            size_bytes: 30,
        },
        pool: DesiredPool { name: "k8s-myhome".into(), path: directory.join("pool") },
        others: BTreeMap::new(),
    }
}

/// A directory beside what cargo builds: /tmp may be in memory, and has no room for disks then.
fn roomy() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn converge(host: &RealHypervisor, desired: &DesiredHost, adoption: &mut Adoption) -> usize {
    let observed = host.observe(&desired.pool).await.unwrap();
    let plan = plan_host(desired, &observed, adoption).unwrap();
    adoption.clone_from(&plan.adoption);
    for change in &plan.changes {
        host.execute(&change.op).await.unwrap_or_else(|failure| panic!("{change:?}: {failure:?}"));
        // Executing again is a success, too.
        host.execute(&change.op).await.unwrap_or_else(|failure| panic!("again: {change:?}: {failure:?}"));
    }
    plan.changes.len()
}

async fn tear_down(host: &RealHypervisor, desired: &DesiredHost, adoption: &mut Adoption) {
    let observed = host.observe(&desired.pool).await.unwrap();
    let plan = plan_teardown(&desired.cluster_id, &desired.pool, &observed, adoption).unwrap();
    for change in &plan.changes {
        host.execute(&change.op).await.unwrap_or_else(|failure| panic!("{change:?}: {failure:?}"));
        host.execute(&change.op).await.unwrap_or_else(|failure| panic!("again: {change:?}: {failure:?}"));
    }
    adoption.clone_from(&plan.adoption);
}

fn comparable(observed: ObservedHost) -> ObservedHost {
    ObservedHost { pool_free_bytes: 0, ..observed }
}

/// Own and adopted network in one test: the driver's host is one per process.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_changes_and_goes() {
    let _driver = DRIVER.lock().await;
    let directory = roomy();
    let config = HypervisorConfig {
        uri: "test:///default".into(),
        console_dir: directory.path().join("console"),
        start_daemons: true,
    };
    let host = RealHypervisor::start(config).unwrap();
    let own = desired(directory.path(), "k8s-own", "192.168.130.0/24");
    let before = host.observe(&own.pool).await.unwrap();
    let mut events = host.changes();
    events.mark_unchanged();

    let default = before.network("default").expect("the driver brings one");
    let adopted = desired(directory.path(), "default", &default.cidr.unwrap().to_string());
    for wanted in [own, adopted] {
        let mut adoption = Adoption::default();
        assert_ne!(converge(&host, &wanted, &mut adoption).await, 0);
        assert_eq!(converge(&host, &wanted, &mut adoption).await, 0, "there is nothing left to do");
        events.changed().await.unwrap();

        let of = Wanted {
            clusters: vec![wanted.cluster_id.clone()],
            networks: vec![wanted.network.name.clone()],
            pool: wanted.pool.name.clone(),
        };
        let documents = host.documents(&of).await.unwrap();
        let mut documents: Vec<_> = documents.iter().map(|it| format!("{} {}", it.kind, it.name)).collect();
        documents.sort();
        let network = format!("network {}", wanted.network.name);
        assert_eq!(documents, ["domain cp-1", "domain worker-1", &network, "pool k8s-myhome"]);

        let observed = host.observe(&wanted.pool).await.unwrap();
        let domain = observed.domain("worker-1").unwrap();
        assert_eq!((domain.state, domain.vcpus, domain.memory_bytes), (DomainState::Running, 2, 1 << 30));
        assert_eq!(domain.ours.as_ref().unwrap().node_id, "id-worker-1");
        assert!(observed.domain("test").unwrap().ours.is_none(), "the driver's own domain is not ours");

        let mut changed = wanted.clone();
        changed.generation = 2;
        changed.nodes[1].spec.vcpus = 1;
        changed.nodes[0].powered = false;
        assert_ne!(converge(&host, &changed, &mut adoption).await, 0);
        assert_eq!(converge(&host, &changed, &mut adoption).await, 0);
        let observed = host.observe(&wanted.pool).await.unwrap();
        assert_eq!(observed.domain("cp-1").unwrap().state, DomainState::Off);
        assert_eq!(observed.domain("worker-1").unwrap().live_vcpus, Some(1));

        // One that was saved starts with new sizes, not from what was saved.
        let hand = Connect::open(Some("test:///default")).unwrap();
        hand.lookup_domain_by_name("worker-1").unwrap().managed_save(0).unwrap();
        assert!(host.observe(&wanted.pool).await.unwrap().domain("worker-1").unwrap().has_managed_save);
        changed.nodes[1].spec.vcpus = 2;
        // It may end behind the definition: what is left then starts without the saved state too.
        let observed = host.observe(&wanted.pool).await.unwrap();
        let plan = plan_host(&changed, &observed, &adoption).unwrap();
        let define = plan.changes.iter().find(|it| matches!(it.op, HostOp::DefineDomain { .. })).unwrap();
        host.execute(&define.op).await.unwrap();
        assert!(!host.observe(&wanted.pool).await.unwrap().domain("worker-1").unwrap().has_managed_save);
        assert_ne!(converge(&host, &changed, &mut adoption).await, 0);
        let observed = host.observe(&wanted.pool).await.unwrap();
        let domain = observed.domain("worker-1").unwrap();
        assert_eq!((domain.live_vcpus, domain.has_managed_save), (Some(2), false));

        // A VM that is paused hears no request: it is ended, not asked and waited for.
        let paused = hand.lookup_domain_by_name("worker-1").unwrap();
        paused.suspend().unwrap();
        changed.nodes[1].powered = false;
        let ended = timeout(Duration::from_secs(60), converge(&host, &changed, &mut adoption)).await;
        assert_ne!(ended.expect("nobody waits for it"), 0);
        let destroyed = DomainStateReason::Shutoff(DomainShutoffReason::Destroyed.into());
        assert_eq!(paused.state().unwrap().1, destroyed.into());

        tear_down(&host, &wanted, &mut adoption).await;
        let after = host.observe(&wanted.pool).await.unwrap();
        assert_eq!(comparable(after), comparable(before.clone()), "all that is ours is gone, nothing else");
        assert_eq!(adoption, Adoption::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libvirt_that_is_away_is_a_failure_with_a_next_step() {
    let directory = roomy();
    let socket = directory.path().join("no-such-socket");
    let uri = format!("test+unix:///default?socket={}", socket.display());
    let config = HypervisorConfig { uri, console_dir: directory.path().join("console"), start_daemons: true };
    let host = RealHypervisor::start(config).unwrap();
    let pool = DesiredPool { name: "k8s-myhome".into(), path: directory.path().join("pool") };
    let failure = host.observe(&pool).await.unwrap_err();
    assert_eq!(failure.id, "LIBVIRT-UNREACHABLE");
    assert!(failure.next_step.contains("libvirtd"), "{failure:?}");
}

/// libvirt's view of a pool and what is in its directory come apart: by hand, or by a kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_was_meddled_with_is_mended_and_goes() {
    let _driver = DRIVER.lock().await;
    let directory = roomy();
    let uri = "test:///default";
    let config = HypervisorConfig {
        uri: uri.into(),
        console_dir: directory.path().join("console"),
        start_daemons: true,
    };
    let host = RealHypervisor::start(config).unwrap();
    let wanted = desired(directory.path(), "k8s-own", "192.168.131.0/24");
    let pool = &wanted.pool.path;
    let files = || -> Vec<String> {
        let entries = std::fs::read_dir(pool).unwrap();
        let mut names: Vec<_> =
            entries.map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let mut adoption = Adoption::default();
    converge(&host, &wanted, &mut adoption).await;
    let images = files();
    assert_eq!(images, ["base-0123456789abcdef.qcow2", "initrd-0123456789abcdef", "kernel-0123456789abcdef"]);

    // The directory is removed under the running pool.
    std::fs::remove_dir_all(pool).unwrap();
    converge(&host, &wanted, &mut adoption).await;
    assert_eq!(files(), images);
    assert_eq!(std::fs::metadata(pool).unwrap().permissions().mode() & 0o7777, 0o711, "as libvirt makes it");

    // A copy of another image is killed; the next copy, of whichever image, clears it away.
    std::fs::write(pool.join(".base-fedcba9876543210.qcow2.part"), "half").unwrap();
    std::fs::write(pool.join(".mine.part"), "not ours").unwrap();
    std::fs::remove_file(pool.join(&images[0])).unwrap();
    converge(&host, &wanted, &mut adoption).await;
    assert_eq!(files(), [&[".mine.part".to_owned()], &images[..]].concat());

    // Killed in the middle of a copy, and the pool is undefined by hand; its disks stay as files.
    std::fs::remove_file(pool.join(".mine.part")).unwrap();
    std::fs::write(pool.join(".base-fedcba9876543210.qcow2.part"), "half").unwrap();
    let prefix = wanted.cluster_id.replace('-', "");
    for node in ["cp-1", "worker-1"] {
        std::fs::write(pool.join(format!("{prefix}-{node}.qcow2")), "disk").unwrap();
    }
    let hand = Connect::open(Some(uri)).unwrap();
    let by_hand = hand.lookup_storage_pool_by_name(&wanted.pool.name).unwrap();
    by_hand.destroy().unwrap();
    by_hand.undefine().unwrap();
    tear_down(&host, &wanted, &mut adoption).await;
    assert_eq!(files(), [""; 0], "nothing of it is left");
    assert!(host.observe(&wanted.pool).await.unwrap().pool.is_none());
}

/// By hand, or by a kill between its definition and the mark that it starts with the host.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_would_not_start_with_the_host_is_mended() {
    let _driver = DRIVER.lock().await;
    let directory = roomy();
    let uri = "test:///default";
    let config = HypervisorConfig {
        uri: uri.into(),
        console_dir: directory.path().join("console"),
        start_daemons: true,
    };
    let host = RealHypervisor::start(config).unwrap();
    let wanted = desired(directory.path(), "k8s-own", "192.168.132.0/24");
    let mut adoption = Adoption::default();
    converge(&host, &wanted, &mut adoption).await;
    let seen = async || host.observe(&wanted.pool).await.unwrap().network("k8s-own").unwrap().clone();
    let before = seen().await;
    assert!(before.autostart && before.persistent, "{before:?}");

    let hand = Connect::open(Some(uri)).unwrap();
    let network = hand.lookup_network_by_name("k8s-own").unwrap();
    for is_transient in [false, true] {
        if is_transient {
            // The driver undefines none that runs: it is made anew as it ran, and not defined.
            let xml = network.xml_desc(0).unwrap();
            network.destroy().unwrap();
            network.undefine().unwrap();
            hand.create_network_xml(&xml).unwrap();
        } else {
            network.set_autostart(false).unwrap();
        }
        let meddled = seen().await;
        assert_eq!((meddled.autostart, meddled.persistent), (false, !is_transient));
        let observed = host.observe(&wanted.pool).await.unwrap();
        let plan = plan_host(&wanted, &observed, &adoption).unwrap();
        let [define] = plan.changes.as_slice() else { panic!("{:?}", plan.changes) };
        // Done, and told, once.
        for outcome in [Outcome::Done, Outcome::AlreadySo] {
            assert_eq!(host.execute(&define.op).await.unwrap(), outcome, "{define:?}");
        }
        assert_eq!(seen().await, before);
        assert_eq!(converge(&host, &wanted, &mut adoption).await, 0, "there is nothing left to do");
    }
    tear_down(&host, &wanted, &mut adoption).await;
    let observed = host.observe(&wanted.pool).await.unwrap();
    assert!(observed.network("k8s-own").is_none(), "{observed:?}");
}
