//! The data plugins of this tree: what they plan, and every mistake that they find. Their folders hold no code, so their
//! tests are here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plugin_data::DataPlugin;
use plugin_sdk::{Context, Facts, NodeFact, OpenPlugin, RawPlugin, golden};
use serde_json::{Value, json};

const PLUGINS: [&str; 2] = ["flannel", "local-path-storage"];

/// A plugin's folder. Asked for when the test runs: checkouts that share a target directory share its programs.
fn folder(name: &str) -> PathBuf {
    let ours = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests"));
    ours.parent().expect("the folder of all plugins").join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifest(name: &str) -> toml::Table {
    read(&folder(name).join("plugin.toml")).parse().expect("plugin.toml parses")
}

/// As the host agent tells them, with the one that `k8sctl plugin build` writes.
fn files(name: &str) -> BTreeMap<String, Vec<u8>> {
    let manifest = manifest(name);
    let package = json!({
        "name": manifest["name"].as_str(),
        "version": manifest["version"].as_str(),
        "summary": manifest["summary"].as_str(),
        "config_version": manifest["config_version"].as_integer(),
    });
    let mut files = BTreeMap::from([("package.json".to_owned(), package.to_string().into_bytes())]);
    for file in ["data.toml", "schema.json"] {
        files.insert(file.to_owned(), read(&folder(name).join(file)).into_bytes());
    }
    files
}

fn plugin(name: &str) -> Box<dyn OpenPlugin> {
    DataPlugin.open(&files(name)).unwrap_or_else(|mistakes| panic!("{name}: {mistakes}"))
}

fn context(kubernetes: &str) -> Context {
    let node = |name: &str, ip: &str| NodeFact {
        name: name.to_owned(),
        ip: ip.to_owned(),
        arch: "amd64".to_owned(),
        ..NodeFact::default()
    };
    let facts = Facts {
        cluster_name: "home".to_owned(),
        kubernetes_version: kubernetes.to_owned(),
        pod_cidr: "10.244.0.0/16".to_owned(),
        service_cidr: "10.96.0.0/12".to_owned(),
        node_cidr: "192.168.122.0/24".to_owned(),
        nodes: vec![node("k8s-control-plane-1", "192.168.122.10"), node("k8s-worker-1", "192.168.122.11")],
        ..Facts::default()
    };
    Context { facts, ..Context::default() }
}

fn assert_golden(name: &str, config: &Value, file: &str) {
    let path = folder(name).join(format!("tests/golden/{file}.json"));
    for kubernetes in ["v1.20.2", "v1.33.1"] {
        golden::assert_raw_plan(plugin(name).as_ref(), &config.to_string(), &context(kubernetes), &path);
    }
}

#[test]
fn flannel_plans_what_the_golden_files_hold() {
    assert_golden("flannel", &json!({}), "defaults");
    assert_golden("flannel", &json!({"mtu": 1400}), "mtu");
    assert_golden("flannel", &json!({"backend": "host-gw", "mtu": 1400}), "routes");
}

#[test]
fn local_path_storage_plans_what_the_golden_files_hold() {
    assert_golden("local-path-storage", &json!({}), "defaults");
    let everything = read(&folder("local-path-storage").join("tests/valid/everything.json"));
    assert_golden("local-path-storage", &serde_json::from_str(&everything).expect("JSON"), "everything");
}

/// Paths and codes of the mistakes.
fn mistakes(name: &str, config: &Value, context: &Context) -> Vec<(String, String)> {
    let mistakes = plugin(name).plan(config, context).expect_err("it is refused");
    mistakes.into_iter().map(|mistake| (mistake.path, mistake.code)).collect()
}

fn is(path: &str, code: &str) -> (String, String) {
    (path.to_owned(), code.to_owned())
}

#[test]
fn flannel_needs_a_network_for_pods() {
    let mistakes = mistakes("flannel", &json!({}), &Context::default());
    assert_eq!(mistakes, [is("", "FLANNEL-POD-CIDR")]);
}

#[test]
fn local_path_storage_keeps_away_from_the_system() {
    for (path, codes) in [
        ("srv/volumes", &["LOCAL-PATH-RELATIVE"][..]),
        ("/", &["LOCAL-PATH-ROOT"]),
        ("/srv//volumes", &["LOCAL-PATH-DOTS"]),
        ("/srv/./volumes", &["LOCAL-PATH-DOTS"]),
        ("/srv/..", &["LOCAL-PATH-DOTS"]),
        ("/srv/../etc/kubernetes", &["LOCAL-PATH-DOTS"]),
        ("/etc", &["LOCAL-PATH-SYSTEM"]),
        ("/proc/1", &["LOCAL-PATH-SYSTEM"]),
        ("/sys/", &["LOCAL-PATH-SYSTEM"]),
        ("/dev/shm", &["LOCAL-PATH-SYSTEM"]),
        ("/run/x", &["LOCAL-PATH-SYSTEM"]),
        ("/run/../x", &["LOCAL-PATH-DOTS", "LOCAL-PATH-SYSTEM"]),
    ] {
        let wanted: Vec<_> = codes.iter().map(|code| is("/path", code)).collect();
        let got = mistakes("local-path-storage", &json!({"path": path}), &context("v1.29.0"));
        assert_eq!(got, wanted, "{path}");
    }
    for path in ["/srv/volumes/", "/etcetera", "/opt/..volumes", "/a b/\"c\""] {
        let planned = plugin("local-path-storage").plan(&json!({"path": path}), &context("v1.29.0"));
        planned.unwrap_or_else(|mistakes| panic!("{path}: {mistakes:?}"));
    }
}

#[test]
fn they_are_what_their_plugin_toml_says() {
    for name in PLUGINS {
        let (manifest, description) = (manifest(name), plugin(name).describe());
        assert_eq!(manifest["name"].as_str(), Some(description.name.as_str()));
        assert_eq!(description.name, name);
        assert_eq!(manifest["program"]["name"].as_str(), Some("data-plugin"));
        // What is fetched in advance is what is planned.
        let (plan, _) = plugin(name).plan(&json!({}), &context("v1.29.0")).expect("a plan");
        let pinned = manifest["manifest"].as_array().expect("manifests");
        let pinned: Vec<_> = pinned.iter().map(|it| (it["url"].as_str(), it["sha256"].as_str())).collect();
        let planned: Vec<_> =
            plan.remotes.iter().map(|it| (Some(it.url.as_str()), Some(it.sha256.as_str()))).collect();
        assert_eq!(planned, pinned, "{name}");
    }
}

#[test]
fn what_dependents_are_told() {
    let told = |name: &str, config: Value| {
        let plugin = plugin(name);
        plugin.assess(&config, &context("v1.29.0"), &[]).expect("a judgement").outputs
    };
    let flannel = told("flannel", json!({}));
    assert_eq!(flannel["backend"], "vxlan");
    assert_eq!(flannel["pod_cidr"], "10.244.0.0/16");
    assert_eq!(told("local-path-storage", json!({"class_name": "local"}))["storage_class"], "local");
}

/// Configs of `tests/valid` and `tests/invalid`, as `k8sctl plugin test` takes them.
#[test]
fn their_examples_are_what_they_claim_to_be() {
    for name in PLUGINS {
        let plugin = plugin(name);
        let mut seen = 0;
        for kind in ["valid", "invalid"] {
            let folder = folder(name).join("tests").join(kind);
            for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
                let example: Value = serde_json::from_str(&read(&entry.path())).expect("JSON");
                seen += 1;
                if kind == "valid" {
                    plugin
                        .plan(&example, &context("v1.29.0"))
                        .unwrap_or_else(|it| panic!("{example}: {it:?}"));
                } else {
                    let mistakes =
                        plugin.plan(&example["config"], &context("v1.29.0")).expect_err("it is refused");
                    assert_eq!(Some(mistakes[0].path.as_str()), example["path"].as_str(), "{example}");
                }
            }
        }
        assert!(seen >= 5, "{name}: {seen} examples");
    }
}
