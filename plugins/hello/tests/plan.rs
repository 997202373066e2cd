//! What `hello` plans, and what it refuses; and its next version.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plugin_hello::{Colour, Config, Hello, Next, NextConfig, Pull};
use plugin_sdk::{Context, Facts, OpenPlugin, Plugin, RawPlugin, Typed, golden};
use serde_json::{Value, json};

fn context() -> Context {
    let facts = Facts {
        cluster_name: "home".to_owned(),
        kubernetes_version: "v1.20.2".to_owned(),
        images: BTreeMap::from([("workload".to_owned(), "lab.k8s-myhome/busybox:1".to_owned())]),
        ..Facts::default()
    };
    Context { facts, ..Context::default() }
}

fn config() -> Config {
    Config { replicas: 2, message: "hello".to_owned(), image: None, pull: Pull::IfNotPresent }
}

/// Asked for when the test runs: checkouts that share a target directory share its programs.
fn tests_folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests")).join("tests")
}

fn golden_file(name: &str) -> PathBuf {
    tests_folder().join(format!("golden/{name}.json"))
}

#[test]
fn the_defaults_plan_what_the_golden_file_holds() {
    golden::assert_plan(&Hello, "{}", &context(), golden_file("defaults"));
    // Nothing in it depends on the version of Kubernetes.
    let mut newer = context();
    newer.facts.kubernetes_version = "v1.33.1".to_owned();
    golden::assert_plan(&Hello, "{}", &newer, golden_file("defaults"));
}

#[test]
fn a_message_never_becomes_shell_or_a_variable() {
    let config = r#"{"replicas": 1, "message": "$(rm -rf /) `id` $HOME 'quoted'"}"#;
    golden::assert_plan(&Hello, config, &context(), golden_file("hostile-message"));
}

#[test]
fn the_next_version_plans_what_the_golden_file_holds() {
    let config = r#"{"text": "$(reboot)", "colour": "green", "pull": "Never"}"#;
    golden::assert_plan(&Next, config, &context(), golden_file("next"));
}

#[test]
fn every_mistake_is_named_with_its_place() {
    for image in [None, Some(String::new()), Some("no image".to_owned())] {
        let config = Config { replicas: 11, message: String::new(), image, ..config() };
        let mistakes = Hello.plan(&config, &Context::default()).expect_err("nothing in it is right");
        let places: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(places, ["/replicas", "/message", "/image"]);
    }
    let config = NextConfig {
        replicas: 2,
        text: "x".repeat(201),
        colour: Colour::Blue,
        image: None,
        pull: Pull::IfNotPresent,
    };
    let mistakes = Next.plan(&config, &context()).expect_err("it is too long");
    assert_eq!((mistakes.len(), mistakes[0].path.as_str()), (1, "/text"));
}

#[test]
fn without_an_image_in_the_bundle_the_hint_is_a_way_on() {
    let mut config = config();
    let mistakes = Hello.plan(&config, &Context::default()).expect_err("there is no image");
    let hint = &mistakes[0].hint;
    let image = hint.rsplit_once("--set image=").expect("names a setting").1;
    config.image = Some(image.to_owned());
    // Also where the bundle has one: what is set counts.
    for context in [Context::default(), context()] {
        let plan = Hello.plan(&config, &context).expect("planned");
        let text = serde_json::to_string(&plan.objects).expect("JSON");
        assert!(text.contains(image) && !text.contains("lab.k8s-myhome"), "{text}");
    }
}

#[test]
fn the_next_version_takes_over_the_config() {
    let old = json!({"message": "hi", "replicas": 3});
    assert_eq!(Next.migrate(1, old), Ok(json!({"text": "hi", "replicas": 3})));
    assert_eq!(Next.migrate(1, json!({})), Ok(json!({})));
    Next.migrate(7, json!({})).expect_err("there is no such version");
    Next.migrate(1, json!("hi")).expect_err("that is no config");
    Hello.migrate(1, json!({})).expect_err("it is the first version");
}

#[test]
fn the_effective_config_is_one_again() {
    let plugin = Typed::new(Hello).open(&BTreeMap::new()).unwrap_or_else(|why| panic!("{why}"));
    let (plan, effective) = plugin.plan(&json!({}), &context()).expect("planned");
    let effective = effective.expect("defaults are filled in");
    let wanted = json!({"replicas": 2, "message": "hello from k8sctl", "pull": "IfNotPresent"});
    assert_eq!(effective, wanted, "what is left out stays so");
    assert_eq!(plugin.plan(&effective, &context()), Ok((plan, Some(wanted))));
}

#[test]
fn the_schema_is_closed_and_bounded() {
    for schema in [plugin_sdk::schema::<Hello>(), plugin_sdk::schema::<Next>()] {
        assert_eq!(schema["additionalProperties"], false, "{schema}");
        assert_eq!(schema["properties"]["replicas"]["minimum"], 1, "{schema}");
        assert_eq!(schema["properties"]["replicas"]["maximum"], 10, "{schema}");
        assert_eq!(schema["properties"]["replicas"]["default"], 2, "{schema}");
        assert_eq!(schema["properties"]["pull"]["default"], "IfNotPresent", "{schema}");
    }
}

fn assert_described(plugin: &impl Plugin, plugin_toml: &str) {
    let manifest: toml::Table = plugin_toml.parse().expect("plugin.toml parses");
    let description = plugin.describe();
    assert_eq!(manifest["name"].as_str(), Some(description.name));
    assert_eq!(manifest["version"].as_str(), Some(description.version));
    assert_eq!(manifest["summary"].as_str(), Some(description.summary));
    assert_eq!(manifest["config_version"].as_integer(), Some(i64::from(description.config_version)));
}

#[test]
fn the_descriptions_are_those_of_their_plugin_toml() {
    assert_described(&Hello, include_str!("../plugin.toml"));
    assert_described(&Next, include_str!("next/plugin.toml"));
}

/// Configs of `tests/valid` and `tests/invalid`, as `k8sctl plugin test` takes them.
#[test]
fn the_examples_are_what_they_claim_to_be() {
    let plugin: Box<dyn OpenPlugin> =
        Typed::new(Hello).open(&BTreeMap::new()).unwrap_or_else(|why| panic!("{why}"));
    let read = |kind: &str| -> Vec<Value> {
        let files = std::fs::read_dir(tests_folder().join(kind)).expect("a folder").flatten();
        let texts = files.map(|file| std::fs::read_to_string(file.path()).expect("a file"));
        texts.map(|text| serde_json::from_str(&text).expect("JSON")).collect()
    };
    for config in read("valid") {
        plugin.plan(&config, &Context::default()).unwrap_or_else(|mistakes| panic!("{config}: {mistakes:?}"));
    }
    for example in read("invalid") {
        let mistakes = plugin.plan(&example["config"], &Context::default()).expect_err("it is refused");
        // What is of no type of the config's is told by the schema, with its place.
        let is_read = serde_json::from_value::<Config>(example["config"].clone()).is_ok();
        assert!(!is_read || Some(mistakes[0].path.as_str()) == example["path"].as_str(), "{example}");
    }
}
