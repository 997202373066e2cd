use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use host_store::Store;
use plugin_package::{PLATFORM, Parts, TrustPolicy, assemble};
use plugin_process::{Ceilings, Deadlines, Runner};
use serde_json::json;
use tokio::sync::mpsc;

use super::super::HostSetup;
use super::*;
use crate::SCHEMA;
use crate::library::Library;
use crate::records::{NewOperation, OperationKind, Origin};
use crate::remote::{FetchSetup, Manifests};
use crate::vault::Vault;

const ALL: usize = 50;
const INSTALLED: usize = 25;

fn host(folder: &Path) -> PluginHost {
    let at = |name: &str| folder.join(name);
    PluginHost::new(HostSetup {
        store: Store::in_memory(&[SCHEMA]).expect("a database in memory"),
        library: Library::new(vec![at("path")], at("store"), TrustPolicy::default()),
        runner: Runner::new(Deadlines::default(), Ceilings::default()),
        manifests: Manifests::new(FetchSetup::new(at("manifests"))).expect("a store of manifests"),
        vault: Vault::new(at("secrets")),
        limits: Limits::default(),
        points: |_| {},
        events: mpsc::channel(1).0,
        drift_interval: Duration::from_secs(60),
    })
}

/// A package in the plugin path. Its program is none: to start it would fail.
fn package(folder: &Path, name: &str) -> Package {
    let source = tempfile::tempdir().expect("a source folder");
    let manifest = format!(
        "format = 1\nname = \"{name}\"\nversion = \"1.0.0\"\nsummary = \"Nothing\"\nprotocol = [1]\n\
         [program]\nname = \"nothing\"\n"
    );
    fs::write(source.path().join("plugin.toml"), manifest).expect("written");
    let program = source.path().join("target");
    fs::write(&program, "a program").expect("written");
    let path = folder.join("path");
    fs::create_dir_all(&path).expect("made");
    let (out, schema) = (path.join(name), json!({"type": "object", "additionalProperties": false}));
    let programs = [(PLATFORM.to_owned(), program)];
    let parts = Parts { source: source.path(), out: &out, programs: &programs, schema: &schema };
    assemble(&parts).unwrap_or_else(|error| panic!("{}", error.failure(name)))
}

async fn install(host: &PluginHost, package: &Package) {
    host.inner.library.take_in(package).expect("it comes into the store");
    let place = Place::new("c", &package.manifest.name);
    let new = NewOperation {
        kind: OperationKind::Install,
        origin: Origin::Command,
        attempt: "command 1".to_owned(),
        deadline_ms: 1000,
        adopt: false,
        prune_many: false,
        approved: None,
        version: package.manifest.version.to_string(),
        package_sha256: package.sha256.clone(),
        binary_sha256: String::new(),
        config_version: 1,
        config_json: "{}".to_owned(),
        plan_sha256: String::new(),
        ask_sha256: String::new(),
        plan: Vec::new(),
        node_json: "[]".to_owned(),
        keys: Vec::new(),
    };
    host.inner.records.begin(&place, new).await.expect("begun");
    host.inner.records.applied(&place, PluginState::Ready, "ready").await.expect("written");
}

#[tokio::test]
async fn fifty_plugins_are_listed_in_a_moment_and_none_is_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = host(folder.path());
    for number in 0..ALL {
        let package = package(folder.path(), &format!("p{number}"));
        if number < INSTALLED {
            install(&host, &package).await;
        }
    }
    // The fastest of a few: others may have the processor.
    let mut took = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let all = host.list("c", true).await.expect("it lists");
        took = took.min(begun.elapsed());
        let count = |state: PluginState| all.iter().filter(|plugin| plugin.state == state).count();
        let counted = (count(PluginState::Ready), count(PluginState::Available));
        assert_eq!(counted, (INSTALLED, ALL - INSTALLED), "{all:?}");
        assert!(all.iter().all(|plugin| plugin.trust == "dev"), "{all:?}");
    }
    assert!(took < Duration::from_millis(100), "{took:?}");
    for number in 0..ALL {
        let runs = host.runs(&format!("p{number}")).await.expect("readable");
        assert!(runs.is_empty(), "{runs:?}");
    }
}
