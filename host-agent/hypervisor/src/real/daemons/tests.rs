//! Starting libvirt's daemons, with programs that only write down how they were called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::*;

/// A host with the programs that a test gives it and no others.
struct Host {
    dir: tempfile::TempDir,
    daemons: Daemons,
}

impl Host {
    fn new(with_systemd: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["bin", "run"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        if with_systemd {
            fs::create_dir(dir.path().join("systemd")).expect("a directory");
        }
        let daemons = Daemons {
            path: dir.path().join("bin").into(),
            systemd_dir: dir.path().join("systemd"),
            run_dir: dir.path().join("run"),
        };
        Self { dir, daemons }
    }

    /// A program that notes its call, then does as `script` says.
    fn program(self, name: &str, script: &str) -> Self {
        let file = self.dir.path().join("bin").join(name);
        let calls = self.dir.path().join("calls");
        let text = format!("#!/bin/sh\necho \"{name} $*\" >>'{}'\n{script}\n", calls.display());
        fs::write(&file, text).expect("writes");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
        self
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn without_systemd_the_daemons_are_started_in_order() {
    let host = Host::new(false).program("libvirtd", "").program("virtlogd", "");
    host.daemons.execute_start().await.expect("both start");
    assert_eq!(host.calls(), ["virtlogd -d", "libvirtd -d"]);
}

#[tokio::test]
async fn daemons_do_not_get_the_umask_of_the_host_agent() {
    let masks = r#"umask >"$0.umask""#;
    let host = Host::new(false).program("libvirtd", masks).program("virtlogd", masks);
    // The unit's own.
    let before = rustix::process::umask(rustix::fs::Mode::from(0o077));
    let started = host.daemons.execute_start().await;
    rustix::process::umask(before);
    started.expect("both start");
    for name in ["libvirtd", "virtlogd"] {
        let mask = fs::read_to_string(host.dir.path().join(format!("bin/{name}.umask"))).expect("it ran");
        assert_eq!(mask.trim(), "0022", "{name}");
    }
}

#[tokio::test]
async fn a_daemon_that_answers_is_left_alone() {
    let host = Host::new(false).program("libvirtd", "").program("virtlogd", "");
    let _virtlogd = UnixListener::bind(host.daemons.run_dir.join("virtlogd-sock")).expect("binds");
    host.daemons.execute_start().await.expect("one starts");
    assert_eq!(host.calls(), ["libvirtd -d"]);
}

#[tokio::test]
async fn where_all_answer_nothing_is_done() {
    let host = Host::new(true).program("systemctl", "exit 1");
    let bind = |name: &str| UnixListener::bind(host.daemons.run_dir.join(name)).expect("binds");
    let _sockets = [bind("virtlogd-sock"), bind("virtqemud-sock")];
    host.daemons.execute_start().await.expect("nothing to do");
    assert_eq!(host.calls(), [""; 0]);
}

#[tokio::test]
async fn a_missing_daemon_names_its_package_and_starts_nothing() {
    let host = Host::new(false).program("virtlogd", "");
    let failure = host.daemons.execute_start().await.expect_err("libvirtd is missing");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("LIBVIRT-MISSING", "program libvirtd"));
    assert!(failure.next_step.contains("apt-get install libvirt-daemon-system"), "{failure:?}");
    assert_eq!(host.calls(), [""; 0]);
}

#[tokio::test]
async fn a_daemon_that_fails_leaves_its_output() {
    let host =
        Host::new(false).program("virtlogd", "").program("libvirtd", "echo 'no such group' >&2; exit 6");
    let failure = host.daemons.execute_start().await.expect_err("libvirtd fails");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("LIBVIRT-UNREACHABLE", "daemon libvirtd"));
    assert!(failure.reason.contains("exit status 6: no such group"), "{failure:?}");
    assert!(failure.evidence.contains("no such group") && failure.next_step.contains("k8sctl doctor"));
}

#[tokio::test]
async fn with_systemd_the_sockets_are_started() {
    let units = r#"case "$*" in "cat libvirtd.socket"|*start*) exit 0;; esac; exit 1"#;
    // A libvirtd on the PATH is systemd's to start, not ours.
    let host = Host::new(true).program("systemctl", units).program("libvirtd", "");
    host.daemons.execute_start().await.expect("they start");
    let calls = host.calls();
    assert_eq!(
        calls.last().expect("calls"),
        "systemctl --no-ask-password start virtlogd.socket libvirtd.socket"
    );
    assert!(!calls.iter().any(|call| call.starts_with("libvirtd")), "{calls:?}");
}

#[tokio::test]
async fn with_systemd_the_drivers_daemons_come_first_where_they_are_enabled() {
    let host = Host::new(true).program("systemctl", "exit 0");
    host.daemons.execute_start().await.expect("they start");
    let calls = host.calls();
    assert!(calls.last().expect("calls").ends_with("virtstoraged.socket virtqemud.socket"), "{calls:?}");
}

#[tokio::test]
async fn systemds_refusal_and_a_missing_unit_are_told_apart() {
    let refuses = r#"case "$*" in *start*) echo 'Unit is masked.' >&2; exit 1;; is-enabled*) exit 1;; esac"#;
    let host = Host::new(true).program("systemctl", refuses);
    let failure = host.daemons.execute_start().await.expect_err("masked");
    assert!(failure.id == "LIBVIRT-UNREACHABLE" && failure.reason.contains("Unit is masked."), "{failure:?}");

    let host = Host::new(true).program("systemctl", "exit 1");
    let failure = host.daemons.execute_start().await.expect_err("no unit");
    assert_eq!(failure.id, "LIBVIRT-MISSING");
}

#[test]
fn only_the_hosts_own_libvirt_is_started() {
    assert!(is_local_system("qemu:///system") && is_local_system("qemu+unix:///system"));
    for other in [
        "test:///default",
        "test+unix:///default",
        "qemu:///session",
        "qemu+tls://other/system",
        "qemu+ssh://other/system",
        "qemu:///system?socket=/tmp/other",
    ] {
        assert!(!is_local_system(other), "{other}");
    }
}

#[test]
fn attempts_are_not_made_in_a_row() {
    let host = Host::new(false).program("virtlogd", "").program("libvirtd", "exit 1");
    let mut starter = Starter::new(host.daemons.clone());
    assert!(matches!(starter.start(), Some(Err(_))));
    assert!(starter.start().is_none());
    assert_eq!(host.calls().len(), 2);
    // The connection stood in between: a new loss, a new attempt.
    starter.reset();
    assert!(starter.start().is_some());
}
