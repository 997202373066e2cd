//! Pools and disks with libvirt's real storage driver, which sees files where the test driver sees none: a libvirtd
//! of this test alone, of the kind that every user has, with nothing of the system's.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use host_hypervisor::adoption::Adoption;
use host_hypervisor::change::{DomainRef, HostOp, Outcome};
use host_hypervisor::desired::DesiredPool;
use host_hypervisor::observed::ObservedHost;
use host_hypervisor::plan::plan_teardown;
use host_hypervisor::real::HypervisorConfig;
use host_hypervisor::{Hypervisor, RealHypervisor};
use k8sctl_command::Program;

const MINUTE: Duration = Duration::from_secs(60);
const CLUSTER: &str = "0192f0c1-0000-7000-8000-000000000001";
const DISK: &str = "0192f0c1000070008000000000000001-cp-1.qcow2";
/// Root's libvirtd would be the system's, so it is nobody's then.
const NOBODY: u32 = 65534;

fn libvirtd(home: &Path) -> Program {
    let is_root = fs::metadata(home).unwrap().uid() == 0;
    if is_root {
        chown(home, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let setpriv = ["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/sbin/libvirtd"];
    let program = if is_root {
        Program::new("setpriv", MINUTE).args(setpriv)
    } else {
        Program::new("/usr/sbin/libvirtd", MINUTE)
    };
    ["HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"]
        .into_iter()
        .fold(program, |program, key| program.env(key, home))
}

/// The first look that libvirtd, which is just starting, answers.
async fn first_look(host: &RealHypervisor, pool: &DesiredPool) -> ObservedHost {
    let mut changes = host.changes();
    loop {
        changes.mark_unchanged();
        match host.observe(pool).await {
            Ok(observed) => return observed,
            Err(failure) if failure.id == "LIBVIRT-UNREACHABLE" => changes.changed().await.unwrap(),
            Err(failure) => panic!("{failure:?}"),
        }
    }
}

async fn meddle(host: &RealHypervisor, home: &Path, uri: &str) {
    let pool = DesiredPool { name: "k8s-myhome".into(), path: home.join("pool") };
    let name = || pool.name.clone();
    assert_eq!(first_look(host, &pool).await.pool, None);
    let image = home.join("disk.qcow2");
    let made = Program::new("qemu-img", MINUTE).args(["create", "-f", "qcow2"]).arg(&image).arg("1M");
    made.run().await.unwrap();
    fs::set_permissions(&image, Permissions::from_mode(0o644)).unwrap();
    let base = pool.path.join("base-0123456789abcdef.qcow2");
    let create =
        HostOp::CreateVolume { pool: name(), name: DISK.into(), capacity: 2 << 20, backing: base.clone() };
    for op in [
        HostOp::DefinePool { name: name(), path: pool.path.clone() },
        HostOp::StartPool { name: name() },
        HostOp::InstallFile { pool: name(), source: image, target: base.clone() },
        create.clone(),
    ] {
        assert_eq!(host.execute(&op).await.unwrap(), Outcome::Done, "{op:?}");
    }
    let disk = pool.path.join(DISK);
    let seen = host.observe(&pool).await.unwrap();
    assert_eq!(seen.volume(DISK).unwrap().backing.as_ref(), Some(&base));
    assert_eq!(host.execute(&create).await.unwrap(), Outcome::AlreadySo);
    // One on another image is not the one that is to be made.
    let backing = pool.path.join("base-fedcba9876543210.qcow2");
    let other = HostOp::CreateVolume { pool: name(), name: DISK.into(), capacity: 2 << 20, backing };
    let failure = host.execute(&other).await.unwrap_err();
    assert_eq!(
        (failure.id.as_str(), failure.object),
        ("LIBVIRT-DISK-LEFT", format!("disk {}", disk.display()))
    );

    // A disk removed with rm, which libvirt still lists, is made again.
    fs::remove_file(&disk).unwrap();
    assert_eq!(host.observe(&pool).await.unwrap().volume(DISK), None);
    assert_eq!(host.execute(&create).await.unwrap(), Outcome::Done);
    assert!(disk.exists());
    assert_eq!(host.execute(&create).await.unwrap(), Outcome::AlreadySo);

    // A disk that was away, and is back without libvirt's knowledge, grows.
    let hand = virt::connect::Connect::open(Some(uri)).unwrap();
    let by_hand = hand.lookup_storage_pool_by_name(&pool.name).unwrap();
    let away = home.join("away.qcow2");
    fs::rename(&disk, &away).unwrap();
    by_hand.refresh(0).unwrap();
    fs::rename(&away, &disk).unwrap();
    let domain = DomainRef { name: "cp-1".into(), uuid: "u".into(), cluster_id: CLUSTER.into() };
    let grow = HostOp::GrowVolume { pool: name(), name: DISK.into(), capacity: 3 << 20, domain };
    assert_eq!(host.execute(&grow).await.unwrap(), Outcome::Done);
    assert_eq!(host.execute(&grow).await.unwrap(), Outcome::AlreadySo);

    // A disk is seen as it is whether the pool runs, is stopped or undefined by hand.
    let seen = host.observe(&pool).await.unwrap().volume(DISK).cloned();
    assert_eq!(seen.as_ref().unwrap().capacity, 3 << 20);
    by_hand.destroy().unwrap();
    assert_eq!(host.observe(&pool).await.unwrap().volume(DISK), seen.as_ref());
    by_hand.undefine().unwrap();
    assert_eq!(host.observe(&pool).await.unwrap().volume(DISK), seen.as_ref());

    // What is in a pool that was undefined goes with the cluster nevertheless.
    fs::write(pool.path.join(".base-fedcba9876543210.qcow2.part"), "half").unwrap();
    let observed = host.observe(&pool).await.unwrap();
    let plan = plan_teardown(CLUSTER, &pool, &observed, &Adoption::default()).unwrap();
    for change in &plan.changes {
        host.execute(&change.op).await.unwrap_or_else(|failure| panic!("{change:?}: {failure:?}"));
    }
    assert_eq!(fs::read_dir(&pool.path).unwrap().count(), 0, "{plan:?}");
    assert_eq!(host.observe(&pool).await.unwrap().pool, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_that_were_removed_and_pools_that_were_undefined_by_hand() {
    // Short, for a socket, and open to nobody, as a home's .cache is not.
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let uri = format!("qemu+unix:///session?socket={}", home.path().join("libvirt/libvirt-sock").display());
    let config =
        HypervisorConfig { uri: uri.clone(), console_dir: home.path().join("console"), start_daemons: false };
    let daemon = libvirtd(home.path());
    let host = RealHypervisor::start(config).unwrap();
    tokio::select! {
        // Either ends the test: the daemon is ended with its future.
        ended = daemon.run() => panic!("libvirtd ended: {ended:?}"),
        () = meddle(&host, home.path(), &uri) => {}
    }
}
