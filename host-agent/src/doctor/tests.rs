//! Every check, with what a host would say in its own words.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use k8sctl_proto::control::v1::CheckState::{Failed, Ok as Fine, Warning};

use super::firewall::{Firewall, decide};
use super::*;

/// A host made of files and of programs that are shell scripts.
fn host(files: &[(&str, &str)], programs: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().expect("a directory");
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).expect("a directory");
    for (name, script) in programs {
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).expect("writes");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let host = Host { root: dir.path().to_owned(), path: bin.into() };
    for (path, text) in files {
        let path = host.file(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
        fs::write(path, text).expect("writes");
    }
    (dir, host)
}

/// A check that is not well must say what to do.
fn state(check: &Check) -> CheckState {
    assert_eq!(check.hint.is_empty(), check.state() == Fine, "{check:?}");
    check.state()
}

#[test]
fn a_missing_program_names_its_package() {
    let (_dir, host) = host(&[], &[("qemu-img", "")]);
    let missing = program(&host, "mmdebstrap", "some-package");
    assert_eq!((state(&missing), missing.hint.as_str()), (Failed, "apt-get install some-package"));
    assert_eq!(state(&program(&host, "qemu-img", "qemu-utils")), Fine);
}

#[test]
fn kvm_needs_its_device_and_the_flag() {
    use processor::decide_kvm;
    let (with, without) = ("vendor_id : AuthenticAMD\nflags : fpu svm\n", "flags : fpu\n");
    let error = |kind: io::ErrorKind| Err(io::Error::from(kind));
    assert_eq!(state(&decide_kvm(Ok(()), with)), Fine);
    assert_eq!(decide_kvm(error(io::ErrorKind::NotFound), with).hint, "modprobe kvm_amd");
    assert!(decide_kvm(error(io::ErrorKind::PermissionDenied), with).message.contains("cannot be opened"));
    assert!(decide_kvm(Ok(()), without).message.contains("cannot boot a stock kernel"));
    assert!(decide_kvm(error(io::ErrorKind::NotFound), without).hint.contains("firmware"));
    assert_eq!(state(&decide_kvm(Ok(()), without)), Warning);
}

#[test]
fn a_vm_needs_nesting_and_a_machine_does_not() {
    let nested = |flags: &str| state(&processor::decide_nested(&format!("flags : {flags}\n")));
    assert_eq!([nested("fpu"), nested("fpu hypervisor vmx"), nested("hypervisor")], [Fine, Fine, Warning]);
}

#[test]
fn control_groups_are_of_version_2_and_have_what_libvirt_needs() {
    let cgroups = |text| state(&processor::decide_cgroups(text));
    assert_eq!(cgroups(Some("cpuset cpu io memory pids\n")), Fine);
    assert_eq!(cgroups(Some("pids\n")), Warning);
    assert_eq!(cgroups(None), Warning);
}

#[test]
fn the_processor_is_read_from_the_hosts_files() {
    let files = [
        ("/proc/cpuinfo", "flags : fpu vmx\n"),
        ("/dev/kvm", ""),
        ("/sys/fs/cgroup/cgroup.controllers", "cpu memory"),
    ];
    let (_dir, host) = host(&files, &[]);
    assert!(processor::examine(&host).iter().all(|check| state(check) == Fine));
}

#[test]
fn plugins_need_landlock_and_seccomp_and_have_control_groups() {
    const ACTIONS: &str = "kill_process kill_thread trap errno user_notif trace log allow\n";
    let layers = |modules, actions| sandbox::decide_layers(modules, actions);
    let modules = "lockdown,capability,landlock,yama,apparmor\n";
    assert_eq!(state(&layers(Some(modules), Some(ACTIONS))), Fine);
    for actions in [None, Some(""), Some("kill trap errno trace allow")] {
        assert_eq!(state(&layers(Some(modules), actions)), Failed, "{actions:?}");
    }
    let off = layers(Some("capability,yama\n"), Some(ACTIONS));
    assert!(state(&off) == Failed && off.hint.contains("lsm=landlock,capability,yama "), "{off:?}");
    let unseen = layers(None, Some(ACTIONS));
    assert!(state(&unseen) == Warning && unseen.hint.starts_with("mount "), "{unseen:?}");
    let files = [("/sys/kernel/security/lsm", modules), ("/proc/sys/kernel/seccomp/actions_avail", ACTIONS)];
    let (_dir, host) = host(&files, &[]);
    let states = |has_cgroups| sandbox::examine(&host, has_cgroups).iter().map(state).collect::<Vec<_>>();
    assert_eq!([states(true), states(false)], [[Fine, Fine], [Fine, Warning]]);
}

#[test]
fn apparmor_is_asked_for_the_pool() {
    let profile = "profile virt-aa-helper /usr/lib/libvirt/virt-aa-helper {\n  /var/lib/libvirt/images/** r,\n  /{media,mnt,srv}/** r,\n  /dev/** w,\n}\n";
    let found = |pool: &str| storage::decide_apparmor(true, Some(profile), Path::new(pool));
    assert_eq!(state(&found("/var/lib/libvirt/images/k8s-myhome")), Fine);
    assert_eq!(state(&found("/srv/vms")), Fine);
    assert_eq!(state(&found("/dev/vms")), Warning);
    let data = found("/data/vms");
    assert!(state(&data) == Warning && data.hint.contains("/data/vms/** r,"), "{data:?}");
    // Newer profiles know disks by their suffix, but never hidden ones in a home.
    let newer = "  /**.qcow{,2} r,\n";
    let found = |pool: &str| state(&storage::decide_apparmor(true, Some(newer), Path::new(pool)));
    assert_eq!(
        [
            found("/data/vms"),
            found("/root/.cache/pool"),
            found("/home/me/.cache/pool"),
            found("/home/me/pool")
        ],
        [Fine, Warning, Warning, Fine]
    );
    assert_eq!(state(&storage::decide_apparmor(false, Some(""), Path::new("/data"))), Fine);
    assert_eq!(state(&storage::decide_apparmor(true, None, Path::new("/data"))), Fine);
}

#[test]
fn a_local_rule_counts() {
    let files = [
        ("/sys/module/apparmor/parameters/enabled", "Y\n"),
        ("/etc/apparmor.d/usr.lib.libvirt.virt-aa-helper", "profile {\n}\n"),
        ("/etc/apparmor.d/local/usr.lib.libvirt.virt-aa-helper", "/data/** r,\n"),
    ];
    let (_dir, host) = host(&files, &[]);
    assert_eq!(state(&storage::examine_apparmor(&host, Path::new("/data/vms"))), Fine);
    assert_eq!(state(&storage::examine_apparmor(&host, Path::new("/other"))), Warning);
}

#[test]
fn memory_is_measured_against_the_clusters() {
    let meminfo = "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n";
    let memory = |gib: u64, meminfo| state(&room::decide_memory(gib << 30, meminfo));
    assert_eq!([memory(0, meminfo), memory(12, meminfo)], [Fine, Fine]);
    assert_eq!([16, 17, 32, 33].map(|gib| memory(gib, meminfo)), [Warning, Warning, Warning, Failed]);
    assert_eq!(memory(0, "MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n"), Warning);
    assert!(
        room::decide_memory(12 << 30, meminfo).message.contains("want 12.0 GiB, the host has 16.0 GiB, 8.0")
    );
}

#[test]
fn disks_that_can_outgrow_the_host_are_a_warning() {
    let disk = |wanted, free| room::decide_disk(wanted, free).map(|check| state(&check));
    assert_eq!(
        [disk(0, 0), disk(110 << 30, 200 << 30), disk(110 << 30, 50 << 30)],
        [None, Some(Fine), Some(Warning)]
    );
}

#[test]
fn what_is_not_installed_names_the_command() {
    let checks = decide_artifacts(Ok((Vec::new(), Vec::new())), Ok(0));
    let hints: Vec<&str> = checks.iter().map(|check| check.hint.as_str()).collect();
    assert_eq!(hints, ["k8sctl bundle fetch", "k8sctl image build"]);
    let broken = Failure::new("BUNDLE-CORRUPT", "bundle x", "cut short", "fetch it again");
    let checks = decide_artifacts(Ok((vec!["kubernetes-v1.34.1".to_owned()], vec![broken])), Ok(2));
    assert_eq!(checks.iter().map(state).collect::<Vec<_>>(), [Fine, Warning, Fine]);
    assert!(checks[1].message.contains("bundle x: cut short"));
}

#[test]
fn ufw_is_asked_for_the_port_and_the_bridge() {
    let ufw = |rules: &str| {
        state(&decide(
            &Firewall::Ufw { rules: format!("### tuple ### {rules}\n-A ufw-user-input\n") },
            "virbr0",
            7443,
        ))
    };
    assert_eq!(ufw("allow tcp 7443 0.0.0.0/0 any 0.0.0.0/0 in_virbr0"), Fine);
    assert_eq!(ufw("allow any any 0.0.0.0/0 any 0.0.0.0/0 in_virbr0"), Fine);
    assert_eq!(ufw("allow tcp 7443 0.0.0.0/0 any 0.0.0.0/0 in"), Fine);
    assert_eq!(ufw("allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"), Warning);
    assert_eq!(ufw("allow tcp 7443 0.0.0.0/0 any 0.0.0.0/0 in_eth0"), Warning);
    assert_eq!(ufw("deny tcp 7443 0.0.0.0/0 any 0.0.0.0/0 in_virbr0"), Warning);
    let closed = decide(&Firewall::Ufw { rules: String::new() }, "virbr7", 9000);
    assert_eq!(closed.hint, "ufw allow in on virbr7 to any port 9000 proto tcp");
}

/// An input chain with this policy and a rule of these expressions in it.
fn ruleset(policy: &str, rule: &str) -> Firewall {
    let chain = format!(
        r#"{{"chain": {{"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": "{policy}"}}}}"#
    );
    let rule =
        format!(r#"{{"rule": {{"family": "inet", "table": "filter", "chain": "input", "expr": [{rule}]}}}}"#);
    Firewall::Nftables { ruleset: format!(r#"{{"nftables": [{{"metainfo": {{}}}}, {chain}, {rule}]}}"#) }
}

#[test]
fn a_chain_of_nftables_that_drops_is_named() {
    let port =
        r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": "#;
    let bridge = r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "virbr0"}}"#;
    let found = |policy: &str, rule: &str| state(&decide(&ruleset(policy, rule), "virbr0", 7443));
    assert_eq!(found("accept", ""), Fine);
    assert_eq!(found("drop", ""), Warning);
    assert_eq!(found("drop", &format!(r#"{port} 7443}}}}, {{"accept": null}}"#)), Fine);
    assert_eq!(found("drop", &format!(r#"{port} {{"set": [22, 7443]}}}}}}, {{"accept": null}}"#)), Fine);
    assert_eq!(found("drop", &format!(r#"{port} 22}}}}, {{"accept": null}}"#)), Warning);
    assert_eq!(found("drop", &format!(r#"{port} 7443}}}}, {{"drop": null}}"#)), Warning);
    assert_eq!(found("drop", &format!(r#"{bridge}, {{"accept": null}}"#)), Fine);
    let hint = decide(&ruleset("drop", ""), "virbr0", 7443).hint;
    assert_eq!(hint, "nft insert rule inet filter input iifname virbr0 tcp dport 7443 accept");
    // What cannot be read says nothing.
    assert_eq!(state(&decide(&Firewall::Nftables { ruleset: "?".to_owned() }, "virbr0", 7443)), Fine);
}

#[tokio::test]
async fn the_firewall_that_runs_is_the_one_that_is_asked() {
    let off = ("/etc/ufw/ufw.conf", "ENABLED=no\n");
    let firewalld =
        r#"case "$*" in --state) exit 0;; --get-zone*) echo home;; *zone=home*7443*) exit 1;; esac"#;
    let (_dir, with_ufw) =
        host(&[("/etc/ufw/ufw.conf", "# ufw\nENABLED=yes\n")], &[("firewall-cmd", "exit 0")]);
    assert!(firewall::examine(&with_ufw, "virbr0", 7443).await.message.starts_with("ufw"));
    let (_dir, with_firewalld) = host(&[off], &[("firewall-cmd", firewalld)]);
    let found = firewall::examine(&with_firewalld, "virbr0", 7443).await;
    assert!(state(&found) == Warning && found.hint.contains("--zone=home --add-port=7443/tcp"), "{found:?}");
    let chain = r#"{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}}"#;
    let nft = format!("echo '{{\"nftables\": [{chain}]}}'");
    let (_dir, with_nft) = host(&[off], &[("firewall-cmd", "exit 252"), ("nft", &nft)]);
    let found = firewall::examine(&with_nft, "virbr0", 7443).await;
    assert!(found.message.contains("chain ip filter INPUT"), "{found:?}");
    let (_dir, without) = host(&[], &[]);
    assert_eq!(state(&firewall::examine(&without, "virbr0", 7443).await), Fine);
}
