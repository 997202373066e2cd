//! Starting a host agent where none runs: `k8sctl` finds the program beside itself.

#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test looks at the exit status and the output of the program itself"
)]

mod fake;
mod harness;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fake::{FakeHostAgent, story};
use harness::finish;
use tokio::process::Command;

/// A directory with `k8sctl`, a host agent that is this script, and its config.
fn install(dir: &Path, script: &str) -> Command {
    let program = dir.join("k8sctl");
    std::fs::copy(env!("CARGO_BIN_EXE_k8sctl"), &program).unwrap();
    let agent = dir.join("k8s-host-agent");
    std::fs::write(&agent, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = dir.join("host-agent.toml");
    let (run, state) = (dir.join("run"), dir.join("var/state"));
    std::fs::create_dir(&run).unwrap();
    std::fs::write(&config, format!("run_dir = '{}'\nstate_dir = '{}'\n", run.display(), state.display()))
        .unwrap();
    // With few files, as a shell of a user has them.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""]).arg(program);
    for name in ["K8SCTL_SOCKET", "K8SCTL_LOG"] {
        command.env_remove(name);
    }
    command.env("K8SCTL_CONFIG", config).env("HOME", dir).stdin(std::process::Stdio::null());
    command
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_host_agent_that_cannot_start_is_shown_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = install(dir.path(), "echo \"no libvirt here: $*\"; exit 1");
    command.arg("status");
    let run = finish(command).await.fails(4, &["error HOST-AGENT-START: host agent", "it ended at once"]);
    assert!(
        run.err.contains("  | no libvirt here: --config ") && run.err.contains("host-agent.log"),
        "{}",
        run.err
    );
    // What is the host agent's is nobody else's; the directory above may be of the socket, too.
    let modes = ["var", "var/state", "var/state/host-agent.log"].map(|name| mode(dir.path().join(name)));
    assert_eq!(modes, [0o755, 0o700, 0o600]);
}

#[tokio::test]
async fn a_host_agent_finds_daemons_whatever_the_path_of_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = install(dir.path(), "echo \"PATH is $PATH\"; exit 1");
    // Root's by `su`.
    command.arg("status").env("PATH", "/usr/bin:/bin");
    let run = finish(command).await.fails(4, &["error HOST-AGENT-START: host agent"]);
    assert!(run.err.contains("PATH is /usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin\n"), "{}", run.err);
}

#[tokio::test]
async fn a_host_agent_is_started_and_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    // The script stands for a host agent: it says that it runs, and this test serves the socket for it until the
    // script is told to end.
    let (begun, end) = (dir.path().join("begun"), dir.path().join("end"));
    let made = Command::new("mkfifo").args([&begun, &end]).status().await.unwrap();
    assert!(made.success());
    let told = dir.path().join("told");
    let script = format!(
        "echo \"$(ulimit -Sn) $https_proxy $*\" >'{}'; echo begun >'{}'; read -r _ <'{}'",
        told.display(),
        begun.display(),
        end.display()
    );
    let mut command = install(dir.path(), &script);
    command.args(["image", "list"]).env("https_proxy", "http://somebody:it's \"$secret\"@proxy:3128");
    let socket: PathBuf = dir.path().join("run/api.sock");
    let serve = async {
        let text =
            tokio::task::spawn_blocking(move || std::fs::read_to_string(begun)).await.unwrap().unwrap();
        assert_eq!(text, "begun\n");
        FakeHostAgent::new(story::answers()).serve(&socket).await;
    };
    let run = tokio::select! {
        run = finish(command) => run,
        () = serve => panic!("the fake ended"),
    };
    tokio::task::spawn_blocking(move || std::fs::write(end, "end\n")).await.unwrap().unwrap();
    assert!(run.err.contains("starting the host agent"), "{}", run.err);
    // The downloads are the host agent's; it gets the proxy by its environment, not by argument.
    let told = std::fs::read_to_string(told).unwrap();
    let (files, proxy) = told.split_once(' ').unwrap();
    assert!(proxy.starts_with("http://somebody:it's \"$secret\"@proxy:3128 --config "), "{proxy}");
    // A connection is a file, and whoever may not do anything may connect.
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let most = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = most.split_whitespace().nth(4).unwrap();
    assert!(files == "65536" || files == hard, "{files} of {most}");
    assert!(run.expect(0).contains("abababababab"));
}
