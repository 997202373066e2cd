//! What the tests of this crate share: programs built as real plugins are, and packages of them.
#![allow(dead_code)] // Each test binary uses its part.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_command::Program;
use plugin_package::{PLATFORM, Package, Parts, assemble};
use plugin_process::{Ceilings, ClusterFacts, Deadlines, PlanAsk, Runner};
use serde_json::{Value, json};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// This crate's directory, asked for when the test runs: checkouts that share a target directory share its programs.
fn crate_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests").into()
}

pub fn workspace() -> PathBuf {
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

/// A package of `hello` in `folder`, its manifest changed by `edit`.
pub async fn hello(folder: &Path, edit: impl FnOnce(String) -> String) -> Package {
    let program = hello_program().await;
    let text =
        std::fs::read_to_string(workspace().join("plugins/hello/plugin.toml")).expect("hello's manifest");
    let source = source(folder, &edit(text));
    let without_schema = package(&source, folder, &program, &json!({}));
    let schema = match runner().describe(&without_schema).await {
        Ok(run) => run.answer.config_schema,
        // Of one that does not fit its program.
        Err(_) => json!({}),
    };
    assemble(&Parts {
        source: &source,
        out: &folder.join("package"),
        programs: &[(PLATFORM.to_owned(), program)],
        schema: &schema,
    })
    .expect("a package")
}

/// A package of a hostile program.
pub fn hostile(folder: &Path, program: &Path) -> Package {
    let source = source(folder, HOSTILE);
    package(&source, folder, program, &json!({}))
}

const HOSTILE: &str = r#"
format = 1
name = "hostile"
version = "0.1.0"
summary = "Misbehaves"
protocol = [1]

[program]
name = "probe"

[[permission]]
group = ""
kind = "Namespace"
names = ["hostile"]
verbs = ["get", "create", "patch", "delete"]
why = "a namespace of its own"
"#;

fn source(folder: &Path, manifest: &str) -> PathBuf {
    let source = folder.join("source");
    std::fs::create_dir_all(&source).expect("the folder is made");
    std::fs::write(source.join("plugin.toml"), manifest).expect("the manifest is written");
    source
}

/// A package whose schema nobody has to give.
fn package(source: &Path, folder: &Path, program: &Path, schema: &Value) -> Package {
    let programs = [(PLATFORM.to_owned(), program.to_owned())];
    let parts = Parts { source, out: &folder.join("package"), programs: &programs, schema };
    let mut package = assemble(&parts).expect("a package");
    package.manifest.files.clear();
    package
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

/// A runner with bounds that suit tests.
pub fn runner() -> Runner {
    let deadlines = Deadlines {
        conversation: Duration::from_secs(20),
        goodbye: Duration::from_secs(2),
        handshake: Duration::from_secs(20),
    };
    Runner::new(deadlines, Ceilings::default())
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

pub fn ask(config: &Value) -> PlanAsk {
    PlanAsk { config_json: config.to_string(), facts: facts(), ..PlanAsk::default() }
}
