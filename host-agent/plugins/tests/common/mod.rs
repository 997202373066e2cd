//! What the tests of this crate share: programs built as real plugins are, plugin folders, and (in [`cluster`]) a
//! real API server.
#![allow(dead_code)] // Each test binary uses its part.

pub mod cluster;

use std::path::{Path, PathBuf};
use std::time::Duration;

use host_plugins::{ClusterFacts, Deadlines, Limits, PluginDir, PluginHost, SCHEMA};
use host_store::Store;
use k8sctl_command::Program;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// This crate's directory, asked for when the test runs: checkouts that share a target directory share its programs.
fn crate_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests").into()
}

fn workspace() -> PathBuf {
    crate_dir().ancestors().nth(2).expect("two levels below the workspace").to_owned()
}

/// The program `hello`, static, by the script that `make build` calls: nothing to do after that.
pub async fn hello_program() -> PathBuf {
    // Among the test programs of cargo lies the folder that it builds into.
    let test = std::env::current_exe().expect("this test has a path");
    let target = test.ancestors().nth(3).expect("TARGET/PROFILE/deps/TEST").to_owned();
    Program::new(workspace().join("tests/lab/cargo-build"), Duration::from_secs(1800))
        .arg("--locked")
        .env("CARGO_TARGET_DIR", &target)
        .run()
        .await
        .expect("hello builds");
    target.join("release/hello")
}

/// A program of `tests/programs`, static, with one behaviour.
pub async fn hostile_program(behaviour: &str, folder: &Path) -> PathBuf {
    let source = crate_dir().join("tests/programs");
    let program = folder.join("probe");
    Program::new("rustc", Duration::from_secs(300))
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "--target", TARGET, "-o"])
        .arg(&program)
        .arg(source.join("probe.rs"))
        .env("PROBE_BEHAVIOUR", behaviour)
        .env("PROBE_FOLDER", folder)
        .run()
        .await
        .expect("the hostile program compiles");
    program
}

/// A plugin folder with a program and the manifest of `hello`, changed by `edit`.
pub fn plugin_folder(path: &Path, program: &Path, edit: impl FnOnce(String) -> String) {
    let manifest =
        std::fs::read_to_string(workspace().join("plugins/hello/plugin.toml")).expect("hello's manifest");
    std::fs::create_dir_all(path).expect("the folder is made");
    std::fs::write(path.join("plugin.toml"), edit(manifest)).expect("the manifest is written");
    std::fs::copy(program, path.join("hello")).expect("the program is copied");
}

/// A host over one folder of plugins, with limits that suit tests.
pub fn host(folder: &Path) -> PluginHost {
    let store = Store::in_memory(&[SCHEMA]).expect("a database in memory");
    host_with(folder, store, Duration::from_secs(60))
}

/// The same, with objects that may take so long to be ready, and to be gone.
pub fn host_with(folder: &Path, store: Store, patience: Duration) -> PluginHost {
    let deadlines = Deadlines { conversation: Duration::from_secs(20), goodbye: Duration::from_secs(2) };
    let limits = Limits { ready: patience, gone: patience, kind: Duration::from_secs(30) };
    PluginHost::new(PluginDir::new([folder.to_owned()]), store).with_limits(deadlines, limits)
}

/// The same, impatient with programs: for those that never answer.
pub fn impatient_host(folder: &Path) -> PluginHost {
    let deadlines = Deadlines { conversation: Duration::from_secs(4), goodbye: Duration::from_secs(2) };
    host(folder).with_limits(deadlines, Limits::default())
}

pub fn facts() -> ClusterFacts {
    ClusterFacts {
        cluster_name: "home".to_owned(),
        kubernetes_version: "v1.20.2".to_owned(),
        node_names: vec!["k8s-worker-1".to_owned(), "k8s-worker-2".to_owned()],
        images: [("workload".to_owned(), "lab.k8s-myhome/busybox:1".to_owned())].into(),
        ..ClusterFacts::default()
    }
}
