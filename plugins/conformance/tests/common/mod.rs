//! What the tests of this crate share: programs built as real plugins are, and packages of them.
#![allow(dead_code)] // Each test binary uses its part.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_command::Program;
use plugin_package::{PLATFORM, Package, Parts, assemble};
use plugin_process::{Ceilings, Deadlines, Runner};
use serde_json::{Value, json};

/// The workspace, asked for when the test runs: checkouts that share a target directory share its programs.
pub fn workspace() -> PathBuf {
    let ours = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests"));
    ours.ancestors().nth(2).expect("two levels below the workspace").to_owned()
}

/// The folder of all programs for release, by the script that `make build` calls: nothing to do after that.
pub async fn programs() -> PathBuf {
    build(&[]).await
}

/// The bad plugin's program.
pub async fn bad_program() -> PathBuf {
    // First what `make build` makes, of which this is no part.
    programs().await;
    let only =
        ["-p", "plugin-conformance", "--features", "plugin-conformance/bad-plugin", "--bin", "bad-plugin"];
    build(&only).await.join("bad-plugin")
}

async fn build(arguments: &[&str]) -> PathBuf {
    // Among the test programs of cargo lies the folder that it builds into.
    let test = std::env::current_exe().expect("this test has a path");
    let target = test.ancestors().nth(3).expect("TARGET/PROFILE/deps/TEST").to_owned();
    Program::new(workspace().join("tests/lab/cargo-build"), Duration::from_secs(1800))
        .arg("--locked")
        .args(arguments.iter().copied())
        .env("CARGO_TARGET_DIR", &target)
        .run()
        .await
        .expect("the programs build");
    target.join("release")
}

/// A package of a source folder and a program, with the schema that lies in the source or that the program gives.
pub async fn package(source: &Path, program: &Path, out: &Path) -> Package {
    let programs = [(PLATFORM.to_owned(), program.to_owned())];
    let make = |schema: &Value| {
        assemble(&Parts { source, out, programs: &programs, schema })
            .unwrap_or_else(|error| panic!("{error:?}"))
    };
    if let Ok(text) = std::fs::read_to_string(source.join("schema.json")) {
        return make(&serde_json::from_str(&text).expect("schema.json is JSON"));
    }
    let mut asked = make(&json!({}));
    asked.manifest.files.retain(|file| file.path != "schema.json");
    let described = Runner::new(Deadlines::default(), Ceilings::default()).describe(&asked).await;
    let described = described.unwrap_or_else(|error| panic!("{error}\n{}", error.stderr));
    make(&described.answer.config_schema)
}
