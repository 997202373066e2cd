use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use host_store::Store;
use plugin_package::{LockFile, LockedPlugin, PLATFORM, Parts, TrustPolicy, assemble};
use plugin_process::{Ceilings, Deadlines, Runner};
use serde_json::json;
use tokio::sync::mpsc;

use super::super::HostSetup;
use super::*;
use crate::SCHEMA;
use crate::library::Library;
use crate::records::{NewOperation, OperationKind, Origin};
use crate::remote::{FetchSetup, Manifests};
use crate::status::{Found, Verified};
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

/// Name, where it was found, and the failure's id.
fn told(verified: &[Verified]) -> Vec<(&str, Found, &str)> {
    let mut all = Vec::new();
    for Verified { name, found, problem, .. } in verified {
        let id = problem.as_ref().map_or("", |problem| problem.id.as_str());
        all.push((name.as_str(), *found, id));
    }
    all
}

#[tokio::test]
async fn what_lies_in_the_store_alone_is_verified_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = host(folder.path());
    let (both, gone) = (package(folder.path(), "both"), package(folder.path(), "gone"));
    install(&host, &both).await;
    install(&host, &gone).await;
    fs::remove_dir_all(&gone.folder).expect("removed");
    let stored = |package: &Package| folder.path().join("store").join(&package.sha256);
    let all = host.verify(None, None).await.expect("verified");
    assert_eq!(told(&all), [("both", Found::PluginPath, ""), ("gone", Found::Store, "")]);
    assert_eq!((&all[0].path, &all[1].path), (&both.folder, &stored(&gone)));
    assert_eq!((all[1].version.as_str(), all[1].trust.as_str()), ("1.0.0", "dev"));
    let one = host.verify(Some("gone"), None).await.expect("verified");
    assert_eq!(told(&one), [("gone", Found::Store, "")]);
    let none = host.verify(Some("never"), None).await.expect("verified");
    assert_eq!(told(&none), [("never", Found::PluginPath, "PLUGIN-UNKNOWN")]);

    // By its path; and by one that a lock file names.
    let path = both.folder.display().to_string();
    let given = host.verify(Some(&path), None).await.expect("verified");
    assert_eq!(told(&given), [("both", Found::Given, "")]);
    let lock = LockFile { plugins: vec![LockedPlugin::of_package(&both, &path)] };
    let locked = host.verify(None, Some(&lock)).await.expect("verified");
    assert_eq!(told(&locked), [("both", Found::LockFile, ""), ("gone", Found::Store, "")]);

    // What runs is what lies in the store, however sound the rest is.
    fs::write(stored(&both).join("schema.json"), "{}").expect("written");
    fs::remove_dir_all(stored(&gone)).expect("removed");
    let all = host.verify(None, None).await.expect("verified");
    let expected = [
        ("both", Found::PluginPath, ""),
        ("both", Found::Store, "PLUGIN-DIGEST"),
        ("gone", Found::Store, "PLUGIN-UNKNOWN"),
    ];
    assert_eq!(told(&all), expected);
}
