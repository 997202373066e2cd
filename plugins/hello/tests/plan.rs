//! What `hello` plans, and what it refuses.

use std::collections::BTreeMap;

use plugin_hello::{Config, Hello};
use plugin_sdk::{Facts, Plugin, golden};

fn facts() -> Facts {
    Facts {
        cluster_name: "home".to_owned(),
        kubernetes_version: "v1.20.2".to_owned(),
        images: BTreeMap::from([("workload".to_owned(), "lab.k8s-myhome/busybox:1".to_owned())]),
        ..Facts::default()
    }
}

fn golden_file(name: &str) -> String {
    // Asked for when the test runs: checkouts that share a target directory share its programs.
    let dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
    format!("{dir}/tests/golden/{name}.json")
}

#[test]
fn the_defaults_plan_what_the_golden_file_holds() {
    golden::assert_plan(&Hello, "{}", &facts(), golden_file("defaults"));
}

#[test]
fn a_message_never_becomes_shell_or_a_variable() {
    let config = r#"{"replicas": 1, "message": "$(rm -rf /) `id` $HOME 'quoted'"}"#;
    golden::assert_plan(&Hello, config, &facts(), golden_file("hostile-message"));
}

#[test]
fn every_mistake_is_named_with_its_place() {
    for image in [None, Some(String::new()), Some("no image".to_owned())] {
        let config = Config { replicas: 11, message: String::new(), image };
        let mistakes = Hello.plan(&config, &Facts::default()).expect_err("nothing in it is right");
        let places: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(places, ["/replicas", "/message", "/image"]);
    }
}

#[test]
fn without_an_image_in_the_bundle_the_hint_is_a_way_on() {
    let mut config = Config { replicas: 2, message: "hello".to_owned(), image: None };
    let mistakes = Hello.plan(&config, &Facts::default()).expect_err("there is no image");
    let hint = &mistakes[0].hint;
    let image = hint.rsplit_once("--set image=").expect("names a setting").1;
    config.image = Some(image.to_owned());
    // Also where the bundle has one: what is set counts.
    for facts in [Facts::default(), facts()] {
        let plan = Hello.plan(&config, &facts).expect("planned");
        let text = serde_json::to_string(&plan.objects).expect("JSON");
        assert!(text.contains(image) && !text.contains("lab.k8s-myhome"), "{text}");
    }
}

#[test]
fn the_schema_is_closed_and_bounded() {
    let schema = plugin_sdk::schema::<Hello>();
    assert_eq!(schema["additionalProperties"], false, "{schema}");
    assert_eq!(schema["properties"]["replicas"]["minimum"], 1, "{schema}");
    assert_eq!(schema["properties"]["replicas"]["maximum"], 10, "{schema}");
    assert_eq!(schema["properties"]["replicas"]["default"], 2, "{schema}");
}

#[test]
fn the_description_is_that_of_plugin_toml() {
    let text = include_str!("../plugin.toml");
    let manifest: toml::Table = text.parse().expect("plugin.toml parses");
    let description = Hello.describe();
    assert_eq!(manifest["name"].as_str(), Some(description.name));
    assert_eq!(manifest["version"].as_str(), Some(description.version));
    assert_eq!(manifest["summary"].as_str(), Some(description.summary));
}
