//! What `metallb` plans, what it refuses, and how it judges what is live.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plugin_metallb::{Config, LogLevel, MetalLb};
use plugin_sdk::{
    Context, Diagnostic, Facts, Health, NodeFact, OpenPlugin, Plugin, RawPlugin, Typed, golden,
};
use serde_json::{Value, json};

fn context(kubernetes: &str) -> Context {
    let node =
        |name: &str, ip: &str| NodeFact { name: name.to_owned(), ip: ip.to_owned(), ..NodeFact::default() };
    let range = |first: &str, last: &str| Some((first.to_owned(), last.to_owned()));
    let facts = Facts {
        cluster_name: "home".to_owned(),
        kubernetes_version: kubernetes.to_owned(),
        pod_cidr: "10.244.0.0/16".to_owned(),
        service_cidr: "10.96.0.0/12".to_owned(),
        node_cidr: "192.168.122.0/24".to_owned(),
        gateway: "192.168.122.1".to_owned(),
        nodes: vec![node("k8s-control-plane-1", "192.168.122.10"), node("k8s-worker-1", "192.168.122.11")],
        dhcp: range("192.168.122.200", "192.168.122.254"),
        load_balancer: range("192.168.122.100", "192.168.122.150"),
        ..Facts::default()
    };
    Context { facts, ..Context::default() }
}

/// Asked for when the test runs: checkouts that share a target directory share its programs.
fn tests_folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests")).join("tests")
}

fn golden_file(name: &str) -> PathBuf {
    tests_folder().join(format!("golden/{name}.json"))
}

fn config(config: Value) -> Config {
    serde_json::from_value(config).expect("a config")
}

#[test]
fn plans_are_what_the_golden_files_hold() {
    let everything = r#"{
        "addresses": ["192.168.122.96/30", "192.168.122.120-192.168.122.121"],
        "interface": "eth0", "auto_assign": false, "avoid_buggy_ips": false, "log_level": "debug"
    }"#;
    for (kubernetes, suffix) in [("v1.20.2", "1.20"), ("v1.33.1", "1.33")] {
        let context = context(kubernetes);
        golden::assert_plan(&MetalLb, "{}", &context, golden_file(&format!("defaults-{suffix}")));
        golden::assert_plan(&MetalLb, everything, &context, golden_file(&format!("everything-{suffix}")));
    }
}

#[test]
fn rules_of_definitions_go_where_the_server_does_not_know_them() {
    let patches = |kubernetes: &str| {
        let plan = MetalLb.plan(&config(json!({})), &context(kubernetes)).expect("a plan");
        plan.remotes[0].patches.len()
    };
    assert_eq!(["v1.20.2", "v1.24.9", "v1.25.0", "v1.33.1"].map(patches), [9, 9, 0, 0]);
}

/// Paths and codes.
fn told(diagnostics: &[Diagnostic]) -> Vec<(&str, &str)> {
    diagnostics.iter().map(|it| (it.path.as_str(), it.code.as_str())).collect()
}

fn mistakes(addresses: &[&str], context: &Context) -> Vec<Diagnostic> {
    MetalLb.plan(&config(json!({"addresses": addresses})), context).expect_err("it is refused")
}

#[test]
fn without_a_pool_there_is_nothing_to_give() {
    let mut context = context("v1.29.0");
    context.facts.load_balancer = None;
    let mistakes = MetalLb.plan(&config(json!({})), &context).expect_err("there is no pool");
    assert_eq!(told(&mistakes), [("/addresses", "METALLB-POOL-MISSING")]);
    assert!(mistakes[0].hint.contains("network.load_balancer"), "{mistakes:?}");
}

#[test]
fn what_is_no_range_is_told_for_each() {
    let mistakes = mistakes(
        &["192.168.122.1O0-192.168.122.150", "192.168.122.100/28", "10.0.0.9-10.0.0.1"],
        &context("v1.29.0"),
    );
    let format = |at| (at, "METALLB-POOL-FORMAT");
    assert_eq!(told(&mistakes), [format("/addresses/0"), format("/addresses/1"), format("/addresses/2")]);
    for addresses in [vec![], vec!["192.168.122.100/32"; 17]] {
        assert_eq!(told(&self::mistakes(&addresses, &context("v1.29.0"))), [format("/addresses")]);
    }
}

#[test]
fn a_pool_lies_in_the_nodes_network() {
    for addresses in ["192.168.123.100-192.168.123.150", "192.168.122.250-192.168.123.1", "192.168.0.0/16"] {
        let mistakes = mistakes(&[addresses], &context("v1.29.0"));
        assert!(told(&mistakes).contains(&("/addresses/0", "METALLB-POOL-OUTSIDE")), "{mistakes:?}");
        assert!(mistakes[0].message.contains("192.168.122.0/24"), "{mistakes:?}");
    }
    // Its first address is the network's own, and its last one everybody's.
    let mut context = context("v1.29.0");
    context.facts.dhcp = None;
    for addresses in ["192.168.122.0/32", "192.168.122.240-192.168.122.255"] {
        assert_eq!(told(&mistakes(&[addresses], &context)), [("/addresses/0", "METALLB-POOL-OUTSIDE")]);
    }
}

#[test]
fn a_pool_keeps_away_from_everybody_else_and_names_both() {
    for (addresses, whose) in [
        ("192.168.122.1-192.168.122.5", "the host's address 192.168.122.1"),
        ("192.168.122.10-192.168.122.10", "node k8s-control-plane-1 (192.168.122.10)"),
        ("192.168.122.11-192.168.122.20", "node k8s-worker-1 (192.168.122.11)"),
        ("192.168.122.190-192.168.122.200", "DHCP's 192.168.122.200-192.168.122.254"),
    ] {
        let mistakes = mistakes(&[addresses], &context("v1.29.0"));
        assert_eq!(told(&mistakes), [("/addresses/0", "METALLB-POOL-OVERLAP")]);
        assert_eq!(mistakes[0].message, format!("{addresses} overlaps with {whose}"));
    }
    for (network, whose) in [("pod", "the pods' network"), ("service", "the Services' network")] {
        let mut context = context("v1.29.0");
        let facts = &mut context.facts;
        let cidr = if network == "pod" { &mut facts.pod_cidr } else { &mut facts.service_cidr };
        *cidr = "192.168.122.96/27".to_owned();
        let mistakes = MetalLb.plan(&config(json!({})), &context).expect_err("they overlap");
        assert_eq!(told(&mistakes), [("", "METALLB-POOL-OVERLAP")], "of the cluster file");
        assert!(
            mistakes[0].message.contains(whose) && mistakes[0].hint.contains("network.load_balancer"),
            "{mistakes:?}"
        );
    }
    let mistakes = mistakes(
        &["192.168.122.100-192.168.122.110", "192.168.122.110-192.168.122.111"],
        &context("v1.29.0"),
    );
    assert_eq!(told(&mistakes), [("/addresses/1", "METALLB-POOL-OVERLAP")]);
    assert!(
        mistakes[0].message.ends_with("192.168.122.100-192.168.122.110 of the same pool"),
        "{mistakes:?}"
    );
}

#[test]
fn a_small_pool_is_a_remark() {
    let plan = MetalLb.plan(&config(json!({"addresses": ["192.168.122.100/32"]})), &context("v1.29.0"));
    let plan = plan.expect("one address is a pool");
    assert_eq!(told(&plan.warnings), [("/addresses/0", "METALLB-POOL-SMALL")]);
    assert!(plan.warnings[0].warning);
}

#[test]
fn interfaces_are_names() {
    for interface in ["", "eth 0", "a/b", "sixteen-letters-"] {
        let config = Config { interface: Some(interface.to_owned()), ..config(json!({})) };
        let mistakes = MetalLb.plan(&config, &context("v1.29.0")).expect_err("it is refused");
        assert_eq!(told(&mistakes), [("/interface", "")], "{interface:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let config = config(json!({"interface": "", "addresses": ["x", "192.168.122.1-192.168.122.9"]}));
    let mistakes = MetalLb.plan(&config, &context("v1.29.0")).expect_err("it is refused");
    assert_eq!(told(&mistakes), [("/interface", ""), ("/addresses/0", "METALLB-POOL-FORMAT")]);
}

fn live(available: u64, scheduled: u64) -> Vec<Value> {
    let controller =
        json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": available});
    let speakers = json!({
        "observedGeneration": 1, "desiredNumberScheduled": scheduled,
        "updatedNumberScheduled": scheduled, "numberAvailable": scheduled,
    });
    let workload = |kind: &str, name: &str, status: Value| {
        let metadata = json!({"name": name, "namespace": "metallb-system", "generation": 1});
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": {"replicas": 1}, "status": status})
    };
    vec![workload("Deployment", "controller", controller), workload("DaemonSet", "speaker", speakers)]
}

#[test]
fn it_serves_with_a_controller_and_a_speaker_on_each_node() {
    let assess = |objects: &[Value]| MetalLb.assess(&config(json!({})), &context("v1.29.0"), objects);
    let ready = assess(&live(1, 2));
    assert_eq!(ready.health, Health::Ready, "{ready:?}");
    let outputs = [("addresses", "192.168.122.100-192.168.122.150"), ("pool", "default")];
    let outputs = BTreeMap::from(outputs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(ready.outputs, outputs);
    assert_eq!(assess(&live(0, 2)).health, Health::Progressing);
    assert_eq!(assess(&live(1, 1)).health, Health::Degraded, "one node announces nothing");
    assert_eq!(assess(&live(1, 2)[..1]).health, Health::Progressing);
    assert_eq!(assess(&[]).health, Health::Progressing);
}

#[test]
fn the_effective_config_is_one_again() {
    let plugin = Typed::new(MetalLb).open(&BTreeMap::new()).unwrap_or_else(|why| panic!("{why}"));
    let (plan, effective) = plugin.plan(&json!({}), &context("v1.29.0")).expect("planned");
    let effective = effective.expect("defaults are filled in");
    assert_eq!(effective, json!({"auto_assign": true, "avoid_buggy_ips": true, "log_level": "info"}));
    assert_eq!(plugin.plan(&effective, &context("v1.29.0")), Ok((plan, Some(effective.clone()))));
}

#[test]
fn the_schema_is_closed_and_bounded() {
    let schema = plugin_sdk::schema::<MetalLb>();
    assert_eq!(schema["additionalProperties"], false, "{schema}");
    assert_eq!(schema["properties"]["addresses"]["maxItems"], 16, "{schema}");
    assert_eq!(schema["properties"]["addresses"]["items"]["maxLength"], 31, "{schema}");
    assert_eq!(schema["properties"]["log_level"]["default"], "info", "{schema}");
    assert_eq!(config(json!({"log_level": "warn"})).log_level, LogLevel::Warn);
}

#[test]
fn it_is_what_its_plugin_toml_says() {
    let manifest: toml::Table = include_str!("../plugin.toml").parse().expect("plugin.toml parses");
    let description = MetalLb.describe();
    assert_eq!(manifest["name"].as_str(), Some(description.name));
    assert_eq!(manifest["version"].as_str(), Some(description.version));
    assert_eq!(manifest["summary"].as_str(), Some(description.summary));
    assert_eq!(manifest["config_version"].as_integer(), Some(i64::from(description.config_version)));
    // What is fetched in advance is what is planned.
    let plan = MetalLb.plan(&config(json!({})), &context("v1.29.0")).expect("a plan");
    let pinned = &manifest["manifest"].as_array().expect("manifests")[0];
    assert_eq!(pinned["url"].as_str(), Some(plan.remotes[0].url.as_str()));
    assert_eq!(pinned["sha256"].as_str(), Some(plan.remotes[0].sha256.as_str()));
}

/// Configs of `tests/valid` and `tests/invalid`, as `k8sctl plugin test` takes them.
#[test]
fn the_examples_are_what_they_claim_to_be() {
    let plugin: Box<dyn OpenPlugin> =
        Typed::new(MetalLb).open(&BTreeMap::new()).unwrap_or_else(|why| panic!("{why}"));
    let read = |kind: &str| -> Vec<Value> {
        let files = std::fs::read_dir(tests_folder().join(kind)).expect("a folder").flatten();
        let texts = files.map(|file| std::fs::read_to_string(file.path()).expect("a file"));
        texts.map(|text| serde_json::from_str(&text).expect("JSON")).collect()
    };
    for config in read("valid") {
        plugin.plan(&config, &context("v1.29.0")).unwrap_or_else(|mistakes| panic!("{config}: {mistakes:?}"));
    }
    for example in read("invalid") {
        let mistakes = plugin.plan(&example["config"], &context("v1.29.0")).expect_err("it is refused");
        assert_eq!(Some(mistakes[0].path.as_str()), example["path"].as_str(), "{example}");
    }
}
