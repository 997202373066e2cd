//! Hostile programs in the real sandbox: what they try is refused, and what they do ends with them, within seconds.

mod common;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{ask, hostile, hostile_program};
use futures::StreamExt as _;
use k8sctl_command::Program;
use plugin_package::{Package, TrustPolicy};
use plugin_process::{Ceilings, ConversationError, Deadlines, RunError, RunErrorKind, Runner};
use serde_json::json;

/// Longest that a process may live beyond what ends it.
const CLEAN: Duration = Duration::from_secs(5);
const DEADLINES: Deadlines = Deadlines {
    conversation: Duration::from_secs(4),
    goodbye: Duration::from_secs(1),
    handshake: Duration::from_secs(2),
};
const CEILINGS: Ceilings = Ceilings { memory_bytes: 64 << 20, stderr_bytes: 1 << 20 };

/// Where a process that is to be killed finds its package.
const DOOMED: &str = "PLUGIN_PROCESS_DOOMED";

/// The processes of this test binary are counted: one test at a time has some.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn compiled(behaviour: &str) -> (tempfile::TempDir, Package) {
    let folder = tempfile::tempdir().expect("a folder");
    let program = hostile_program(behaviour, folder.path()).await;
    let package = hostile(folder.path(), &program);
    (folder, package)
}

/// Asks it for a plan, and looks for what is left behind.
async fn run(package: &Package) -> RunError {
    let _alone = ALONE.lock().await;
    let runner = Runner::new(DEADLINES, CEILINGS);
    let error = runner.plan(package, &ask(&json!({}))).await.expect_err("it is no plugin");
    let left = processes();
    assert!(left.is_empty(), "{error}: these are left: {left:?}");
    error
}

/// Plugin processes of this one.
fn processes() -> Vec<String> {
    let us = std::process::id().to_string();
    let is_ours = |pid: &String| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let stat = read("stat");
        // The parent stands behind the name, which may hold anything, and the state.
        let parent = stat.rsplit_once(')').and_then(|(_, behind)| behind.split_whitespace().nth(1));
        parent == Some(us.as_str()) && read("cmdline").starts_with("k8sctl-plugin")
    };
    let names = std::fs::read_dir("/proc").expect("/proc").flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(is_ours).collect()
}

#[tokio::test]
async fn it_reaches_nothing_but_its_socket() {
    let (folder, package) = compiled("probe_and_fail").await;
    // Nothing but the sandbox keeps anybody from this file.
    let file = folder.path().join("world-writable");
    std::fs::write(&file, "whole").expect("written");
    for (path, mode) in [(folder.path(), 0o755), (file.as_path(), 0o666)] {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("opened to all");
    }
    let error = run(&package).await;
    assert_eq!(
        (error.kind, error.failure.id.as_str()),
        (RunErrorKind::Crashed, "PLUGIN-CRASHED"),
        "{error:?}"
    );
    assert!(error.failure.reason.contains("exit status 7"), "{error}");
    let said = error.failure.evidence;
    let mut wrong = Vec::new();
    for (how, tries) in TRIES {
        let expected = tries.iter().map(|what| format!("{what}: {how}"));
        wrong.extend(expected.filter(|line| !said.lines().any(|it| it == line)));
    }
    assert!(wrong.is_empty(), "not so: {wrong:#?}\nin:\n{said}");
    assert!(said.contains("descriptors: 0 1 2 3\n"), "{said}");
    assert!(
        said.contains("environment: K8SCTL_PLUGIN_FD K8SCTL_PROTOCOLS LC_ALL RUST_BACKTRACE TZ"),
        "{said}"
    );
    assert!(said.contains("arguments: k8sctl-plugin"), "{said}");
    assert!(!Path::new("/tmp/k8sctl-probe").exists());
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "whole");
}

/// What comes of each thing that the probes try.
const TRIES: [(&str, &[&str]); 3] = [
    (
        "PermissionDenied",
        &[
            "read-file",
            "read-agent",
            "read-parent",
            "list-folder",
            "create-file",
            "chmod",
            "truncate",
            "utime",
            "utimes",
            "futimesat",
            "removexattr",
            "lremovexattr",
            "fchmodat2",
            "setxattrat",
            "removexattrat",
            "file_setattr",
            "tcp-connect",
            "tcp-listen",
            "udp",
            "unix-connect",
            "unix-listen",
            "netlink",
            "packet",
            "vsock",
            "datagram-pair",
            "seqpacket-pair",
            "raw-pair",
            "tipc-pair",
            "run-program",
            "exec-descriptor",
            "memory-file",
            "fork",
            "clone-process",
            "keyctl",
            "add-key",
            "user-namespace",
            "perf-event",
            "userfaultfd",
            "set-clock",
            "shared-segment",
            "semaphores",
            "message-queue",
            "named-queue",
            "watch-files",
            "kernel-log",
            "signal-parent",
            "signal-parents-thread",
            "queue-signal",
            "limit-parent",
            "renice-parent",
            "schedule-parent",
            "own-by-parent",
            "own-by-parents-thread",
            "own-by-ioctl",
            "outlive-parent",
        ],
    ),
    // The kernel seems to have no such call: libraries go on without it.
    ("Unsupported", &["clone3", "io-uring"]),
    ("allowed", &["socket-pair", "thread", "own-thread", "own-limit"]),
];

/// What a program does, how that ends, and what is said of it.
struct Hostile {
    behaviour: &'static str,
    kind: RunErrorKind,
    id: &'static str,
    reason: &'static str,
    stderr: &'static str,
    /// How long it may live before it is too much.
    until: Duration,
}

const AT_ONCE: Duration = Duration::ZERO;
const HOSTILE: [Hostile; 10] = [
    Hostile {
        behaviour: "hang",
        kind: RunErrorKind::Deadline,
        id: "PLUGIN-DEADLINE",
        reason: "after 2s",
        stderr: "hanging",
        until: DEADLINES.handshake,
    },
    Hostile {
        behaviour: "flood",
        kind: RunErrorKind::Output,
        id: "PLUGIN-OUTPUT",
        reason: "expected at most 1048576",
        stderr: "\u{fffd}[31mred",
        until: AT_ONCE,
    },
    Hostile {
        behaviour: "memory",
        kind: RunErrorKind::Memory,
        id: "PLUGIN-MEMORY",
        reason: "expected at most 64 MiB",
        stderr: "memory allocation of",
        until: AT_ONCE,
    },
    Hostile {
        behaviour: "shared_memory",
        kind: RunErrorKind::Memory,
        id: "PLUGIN-MEMORY",
        reason: "expected at most 64 MiB",
        stderr: "",
        until: AT_ONCE,
    },
    Hostile {
        behaviour: "fork_bomb",
        kind: RunErrorKind::Crashed,
        id: "PLUGIN-CRASHED",
        reason: "exit status 9",
        stderr: "threads: 100",
        until: AT_ONCE,
    },
    Hostile {
        behaviour: "ptrace",
        kind: RunErrorKind::Breach,
        id: "PLUGIN-BREACH",
        reason: "system call",
        stderr: "",
        until: AT_ONCE,
    },
    Hostile {
        behaviour: "x32",
        kind: RunErrorKind::Breach,
        id: "PLUGIN-BREACH",
        reason: "system call",
        stderr: "",
        until: AT_ONCE,
    },
    Hostile {
        behaviour: "crash",
        kind: RunErrorKind::Crashed,
        id: "PLUGIN-CRASHED",
        reason: "signal 6",
        stderr: "about to crash",
        until: AT_ONCE,
    },
    Hostile {
        behaviour: "babble",
        kind: RunErrorKind::Contract,
        id: "PLUGIN-PROTOCOL",
        reason: "",
        stderr: "",
        until: DEADLINES.goodbye,
    },
    Hostile {
        behaviour: "schema",
        kind: RunErrorKind::Contract,
        id: "PLUGIN-PROTOCOL",
        reason: "10000 subschemas",
        stderr: "",
        until: DEADLINES.goodbye,
    },
];

#[tokio::test]
async fn whoever_misbehaves_is_ended_and_the_cause_is_told() {
    // Four compile at a time.
    let compiled =
        futures::stream::iter(&HOSTILE).map(|it| async move { (it, compiled(it.behaviour).await) });
    let compiled: Vec<_> = compiled.buffered(4).collect().await;
    let mut wrong = Vec::new();
    for (expected, (_folder, package)) in &compiled {
        let error = run(package).await;
        let failure = &error.failure;
        let is_told = error.kind == expected.kind
            && failure.id == expected.id
            && failure.reason.contains(expected.reason)
            && failure.evidence.contains(expected.stderr);
        let tells_less = failure.evidence.len() <= 10 * 1024 && !failure.evidence.contains('\u{1b}');
        if !is_told || !tells_less || error.took > expected.until + CLEAN {
            wrong.push(format!("{}: {error:?}", expected.behaviour));
        }
        if error.stderr.contains("one more process") {
            wrong.push(format!("{}: it made a process", expected.behaviour));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_program_with_shared_libraries_is_refused_before_it_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = hostile(folder.path(), Path::new("/bin/true"));
    let error = run(&package).await;
    assert_eq!(
        (error.kind, error.failure.id.as_str()),
        (RunErrorKind::Launch, "PLUGIN-DYNAMIC"),
        "{error:?}"
    );
}

#[tokio::test]
async fn who_plans_something_else_each_time_is_found_out() {
    let (_folder, package) = compiled("unstable").await;
    let _alone = ALONE.lock().await;
    let (runner, question) = (Runner::new(DEADLINES, CEILINGS), ask(&json!({})));
    runner.plan(&package, &question).await.expect("by itself it is a plan");
    let error = runner.plan_twice(&package, &question).await.expect_err("the two differ");
    assert_eq!(
        (error.kind, error.failure.id.as_str()),
        (RunErrorKind::Unstable, "PLUGIN-UNSTABLE"),
        "{error:?}"
    );
    assert!(error.failure.reason.contains("v1 ConfigMap hostile/p"), "{error}");
    let left = processes();
    assert!(left.is_empty(), "these are left: {left:?}");
}

/// What the next test runs in a process of its own: starts what hangs, says its number, and waits to be killed.
#[tokio::test]
async fn a_host_agent_to_be_killed() {
    let Some(folder) = std::env::var_os(DOOMED).map(PathBuf::from) else { return };
    let package = Package::open(&folder.join("package"), &TrustPolicy::default(), true).expect("a package");
    let runner = Runner::new(Deadlines::default(), CEILINGS);
    let started = runner.bare(&package, |started| async move {
        std::fs::write(folder.join("pid.new"), started.pid.to_string()).expect("written");
        std::fs::rename(folder.join("pid.new"), folder.join("pid")).expect("renamed");
        std::future::pending::<Result<(), ConversationError>>().await
    });
    started.await.expect_err("it hangs");
}

#[tokio::test]
async fn nothing_outlives_a_host_agent_that_is_killed() {
    let (folder, _package) = compiled("hang").await;
    let host = Program::new(std::env::current_exe().expect("this test has a path"), Duration::from_secs(60))
        .args(["--exact", "a_host_agent_to_be_killed"])
        .env(DOOMED, folder.path())
        .run();
    let pid = async {
        loop {
            match std::fs::read_to_string(folder.path().join("pid")) {
                Ok(pid) => break pid,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    // Whichever is first; then the host agent is dropped, and killed by that.
    let pid = tokio::select! {
        ended = host => panic!("it ended by itself: {ended:?}"),
        pid = pid => pid,
    };
    let cmdline = || std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let gone = async {
        while cmdline().starts_with("k8sctl-plugin") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(CLEAN, gone).await.expect("its plugin's process is gone");
}

#[tokio::test]
async fn who_is_not_waited_for_any_more_is_ended() {
    let (_folder, package) = compiled("hang").await;
    let _alone = ALONE.lock().await;
    let runner = Runner::new(Deadlines::default(), CEILINGS);
    let question = ask(&json!({}));
    let asked = runner.plan(&package, &question);
    assert!(tokio::time::timeout(Duration::from_secs(1), asked).await.is_err(), "it never answers");
    let gone = async {
        while !processes().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(CLEAN, gone).await.expect("its process is gone");
}
