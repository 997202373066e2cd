//! Hostile programs in the real sandbox: what they try is refused, and what they do ends with them.

mod common;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use common::{host, hostile_program, impatient_host, plugin_folder};
use k8sctl_types::failure::Failure;

async fn run(behaviour: &str) -> Failure {
    let folder = tempfile::tempdir().expect("a folder");
    run_in(folder.path(), behaviour).await
}

async fn run_in(folder: &Path, behaviour: &str) -> Failure {
    let program = hostile_program(behaviour, folder).await;
    plugin_folder(&folder.join("hello"), &program, |manifest| manifest);
    impatient_host(folder).describe("hello").await.expect_err("it is no plugin")
}

#[tokio::test]
async fn it_reaches_nothing_but_its_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    // Nothing but the sandbox keeps anybody from this file.
    let file = folder.path().join("world-writable");
    std::fs::write(&file, "whole").expect("written");
    for (path, mode) in [(folder.path(), 0o755), (file.as_path(), 0o666)] {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("opened to all");
    }
    let failure = run_in(folder.path(), "probe_and_fail").await;
    assert_eq!(failure.id, "PLUGIN-CRASHED", "{failure:?}");
    assert!(failure.reason.contains("exit status 7"), "{failure}");
    let said = failure.evidence;
    for denied in [
        "read-file",
        "read-agent",
        "list-folder",
        "create-file",
        "tcp-connect",
        "tcp-listen",
        "udp",
        "unix-connect",
        "unix-listen",
        "run-program",
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
    ] {
        assert!(said.contains(&format!("{denied}: PermissionDenied")), "{denied} in:\n{said}");
    }
    for allowed in ["socket-pair", "thread"] {
        assert!(said.contains(&format!("{allowed}: allowed")), "{allowed} in:\n{said}");
    }
    assert!(
        said.contains("environment: K8SCTL_PLUGIN_FD K8SCTL_PROTOCOLS LC_ALL RUST_BACKTRACE TZ"),
        "{said}"
    );
    assert!(said.contains("arguments: k8sctl-plugin"), "{said}");
    assert!(!Path::new("/tmp/k8sctl-probe").exists());
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "whole");
}

#[tokio::test]
async fn one_that_never_answers_is_ended_at_the_deadline() {
    let failure = run("hang").await;
    assert_eq!((failure.id.as_str(), failure.evidence.as_str()), ("PLUGIN-DEADLINE", "hanging"));
}

#[tokio::test]
async fn a_flood_is_bounded_and_made_visible() {
    let failure = run("flood").await;
    assert_eq!(failure.id, "PLUGIN-CRASHED", "{failure:?}");
    assert!(failure.reason.contains("signal 6"), "{failure}");
    assert!(failure.evidence.len() <= 10 * 1024, "{}", failure.evidence.len());
    assert!(!failure.evidence.contains('\u{1b}'));
}

#[tokio::test]
async fn memory_without_end_ends_the_process() {
    let failure = run("memory").await;
    assert_eq!(failure.id, "PLUGIN-CRASHED", "{failure:?}");
}

#[tokio::test]
async fn noise_on_the_socket_is_a_broken_protocol() {
    let failure = run("babble").await;
    assert_eq!(failure.id, "PLUGIN-PROTOCOL", "{failure:?}");
}

#[test]
fn a_schema_that_nobody_comes_to_the_end_of_is_a_broken_protocol() {
    let (answer, answered) = mpsc::channel();
    // A check without an end holds up this thread, and not the test.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        answer.send(runtime.block_on(run("schema")))
    });
    let failure = answered.recv_timeout(Duration::from_secs(120)).expect("it ends");
    assert_eq!(failure.id, "PLUGIN-PROTOCOL", "{failure:?}");
    assert!(failure.reason.contains("10000 subschemas"), "{failure}");
}

#[tokio::test]
async fn a_program_with_shared_libraries_is_refused_before_it_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    plugin_folder(&folder.path().join("hello"), Path::new("/bin/true"), |manifest| manifest);
    let failure = host(folder.path()).describe("hello").await.expect_err("it is dynamic");
    assert_eq!(failure.id, "PLUGIN-DYNAMIC", "{failure:?}");
}
