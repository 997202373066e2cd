//! Every table of `data.toml`, and what is told of a package that is wrong.

use std::collections::BTreeMap;

use plugin_data::DataPlugin;
use plugin_sdk::{Context, Dependency, Facts, Health, OpenPlugin, Plan, RawPlugin};
use serde_json::{Value, json};

const DATA: &str = r#"
[values]
z_first = "{{ config.name }}-{{ facts.cluster_name }}"
a_second = { text = "{{ values.z_first }}!", ports = ["{{ config.port }}"] }

[[check]]
when = "config.name == 'root'"
path = "/name"
message = "{{ config.name }} is taken"
hint = "another one"
code = "ACME-NAME"

[[check]]
when = "config.port == 81"
path = "/port"
message = "an unusual port"
warning = true

[[object]]
file = "objects/own.yaml"

[[object]]
file = "objects/tls.yaml"
when = "config.tls is defined"
handling = { drift = "report", leave = ["/data/x"], keep = true }

[[manifest]]
url = "https://example.org/acme.yaml"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
objects = 2
namespace = "acme"
max_bytes = 1000
exclude = [{ kind = "ConfigMap", name = "sample" }]

[[manifest.patch]]
group = "apps"
kind = "Deployment"
namespace = "acme"
name = "acme"
op = "add"
path = "/spec/replicas"
value = "{{ config.port }}"

[[manifest.patch]]
kind = "Service"
name = "acme"
op = "remove"
path = "/spec/ports/0"
when = "config.port > 90"

[[manifest]]
url = "https://example.org/old.yaml"
sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
when = "kubernetes.minor < 25"

[[readiness]]
api_version = "acme/v1"
kind = "A"
condition = "Ready"

[[readiness]]
api_version = "acme/v1"
kind = "B"
field = { pointer = "/status/phase", value = "Up" }

[[readiness]]
api_version = "acme/v1"
kind = "C"
exists = true

[[node]]
sysctl = { key = "vm.max_map_count", value = "{{ config.port * 10 }}" }
why = "for {{ config.name }}"

[[node]]
registry = { host = "acme.example", mirrors = ["https://{{ facts.gateway }}"], plain_http = true }
why = "its images"
when = "config.port == 82"

[[secret]]
handle = "admin"
key = "password"
length = 24
alphabet = "hex"

[[output]]
name = "address"
value = "{{ config.name }}:{{ config.port }}"

[[output]]
name = "class"
value = "{{ dependencies.storage.outputs.storage_class }}"
when = "'storage' in dependencies"

[[migrate]]
from = 1
rename = { "/title" = "/name" }
"#;

const OWN: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: own, namespace: acme}
data:
  name: "{{ config.name }}"
  script: |
    echo {{ values.a_second.text }}
  mode: "0644"
---
# Nothing but a remark.
---
apiVersion: v1
kind: Secret
metadata: {name: own, namespace: acme}
defaultMode: 0644
optional: yes
data:
  password: {"$k8sctl.secret": {handle: admin, key: password}}
"#;

const TLS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tls}\ndata: {x: \"{{ config.tls }}\"}\n";

fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "default": "acme"},
            "port": {"type": "integer", "default": 80},
            "tls": {"type": "string"},
        },
    })
}

type Files = BTreeMap<String, Vec<u8>>;

fn files(data: &str) -> Files {
    let package = json!({"name": "acme", "version": "1.2.0", "summary": "An example", "config_version": 2});
    let files = [
        ("package.json", package.to_string()),
        ("schema.json", schema().to_string()),
        ("data.toml", data.to_owned()),
        ("objects/own.yaml", OWN.to_owned()),
        ("objects/tls.yaml", TLS.to_owned()),
    ];
    files.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect()
}

fn open(data: &str) -> Box<dyn OpenPlugin> {
    DataPlugin.open(&files(data)).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn context() -> Context {
    let facts = Facts {
        cluster_name: "home".to_owned(),
        kubernetes_version: "v1.24.0".to_owned(),
        gateway: "192.168.122.1".to_owned(),
        ..Facts::default()
    };
    Context { facts, ..Context::default() }
}

fn plan(config: &Value, context: &Context) -> Value {
    let (plan, _) = open(DATA).plan(config, context).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    serde_json::to_value(plan).expect("JSON")
}

#[test]
fn own_objects_are_parsed_first_and_then_evaluated() {
    let plan = plan(&json!({"name": "a: b\n- c"}), &context());
    let objects = plan["objects"].as_array().expect("objects");
    assert_eq!(objects.len(), 2, "{plan:#}");
    assert_eq!(objects[0]["data"]["name"], "a: b\n- c", "a value never becomes YAML");
    assert_eq!(objects[0]["data"]["script"], "echo a: b\n- c-home!\n");
    assert_eq!(objects[0]["data"]["mode"], "0644", "what is quoted is text");
    assert_eq!(objects[1]["defaultMode"], 0o644, "as kubectl reads it");
    assert_eq!(objects[1]["optional"], true);
    let placeholder = json!({"$k8sctl.secret": {"handle": "admin", "key": "password"}});
    assert_eq!(objects[1]["data"]["password"], placeholder);
}

#[test]
fn conditions_and_handling_are_those_of_the_table() {
    let plan = plan(&json!({"tls": "on"}), &context());
    let handling = json!({"drift": "report", "leave": ["/data/x"], "keep": true});
    let tls = &plan["objects"][2];
    assert_eq!((&tls["handling"], &tls["object"]["data"]["x"]), (&handling, &json!("on")), "{plan:#}");
}

#[test]
fn manifests_are_patched() {
    let plan = |port: u32, kubernetes: &str| {
        let mut context = context();
        context.facts.kubernetes_version = kubernetes.to_owned();
        plan(&json!({"port": port}), &context)["remotes"].clone()
    };
    let target = json!({"group": "apps", "kind": "Deployment", "namespace": "acme", "name": "acme"});
    let wanted = json!([{
        "url": "https://example.org/acme.yaml",
        "sha256": "0".repeat(64),
        "objects": 2,
        "namespace": "acme",
        "exclude": [{"kind": "ConfigMap", "name": "sample"}],
        "patches": [[target, [{"op": "add", "path": "/spec/replicas", "value": 90}]]],
        "max_bytes": 1000,
    }]);
    assert_eq!(plan(90, "v1.25.0"), wanted);
    let both = plan(91, "v1.24.9");
    assert_eq!(
        both[0]["patches"][1],
        json!([{"kind": "Service", "name": "acme"}, [{"op": "remove", "path": "/spec/ports/0"}]])
    );
    assert_eq!(both[1]["url"], "https://example.org/old.yaml");
}

#[test]
fn rules_requirements_and_secrets_are_planned() {
    let usual = plan(&json!({}), &context());
    assert_eq!(
        usual["readiness"],
        json!([
            {"api_version": "acme/v1", "kind": "A", "is": {"condition": "Ready"}},
            {"api_version": "acme/v1", "kind": "B", "is": {"field": {"pointer": "/status/phase", "value": "Up"}}},
            {"api_version": "acme/v1", "kind": "C", "is": "exists"},
        ])
    );
    let sysctl = json!({"sysctl": {"key": "vm.max_map_count", "value": "800"}, "why": "for acme"});
    assert_eq!(usual["node"], json!([sysctl]));
    assert_eq!(
        usual["secrets"],
        json!([{"handle": "admin", "key": "password", "length": 24, "alphabet": "hex"}])
    );
    let with_registry = plan(&json!({"port": 82}), &context());
    let registry = json!({"host": "acme.example", "ca_pem": "", "mirrors": ["https://192.168.122.1"], "plain_http": true});
    assert_eq!(with_registry["node"][1], json!({"registry": registry, "why": "its images"}));
}

#[test]
fn mistakes_and_warnings_have_places() {
    let plugin = open(DATA);
    let mistakes = plugin.plan(&json!({"name": "root", "port": 81}), &context()).expect_err("it is refused");
    let told: Vec<_> = mistakes.iter().map(|it| (it.path.as_str(), it.code.as_str(), it.warning)).collect();
    assert_eq!(told, [("/name", "ACME-NAME", false), ("/port", "", true)]);
    assert_eq!((mistakes[0].message.as_str(), mistakes[0].hint.as_str()), ("root is taken", "another one"));
    let (plan, effective) = plugin.plan(&json!({"port": 81}), &context()).expect("a warning stops nothing");
    assert_eq!(plan.warnings.len(), 1);
    assert_eq!(effective, Some(json!({"name": "acme", "port": 81})), "defaults are filled in");
    for config in [json!({"port": "80"}), json!({"nope": 1}), json!(7)] {
        plugin.plan(&config, &context()).expect_err("it does not fit the schema");
        plugin.assess(&config, &context(), &[]).expect_err("nor was anything planned with it");
    }
}

#[test]
fn dependents_are_told_what_the_outputs_say() {
    let plugin = open(DATA);
    let assessment = plugin.assess(&json!({}), &context(), &[]).expect("a judgement");
    assert_eq!(assessment.health, Health::Ready);
    assert_eq!(assessment.outputs, BTreeMap::from([("address".to_owned(), "acme:80".to_owned())]));
    let outputs = BTreeMap::from([("storage_class".to_owned(), "fast".to_owned())]);
    let storage = Dependency { version: "1.0.0".to_owned(), outputs };
    let dependencies = BTreeMap::from([("storage".to_owned(), storage)]);
    let context = Context { dependencies, ..context() };
    let assessment = plugin.assess(&json!({}), &context, &[]).expect("a judgement");
    assert_eq!(assessment.outputs["class"], "fast");
}

#[test]
fn older_configs_are_migrated() {
    assert_eq!(open(DATA).migrate(1, json!({"title": "x"})), Ok(json!({"name": "x"})));
}

#[test]
fn the_same_config_in_another_order_is_the_same_plan() {
    let one = serde_json::from_str(r#"{"name": "x", "port": 85}"#).expect("JSON");
    let other = serde_json::from_str(r#"{"port": 85, "name": "x"}"#).expect("JSON");
    let mut context = context();
    context.facts.images =
        [("b", "1"), ("a", "2")].map(|(role, image)| (role.to_owned(), image.to_owned())).into();
    assert_eq!(plan(&one, &context).to_string(), plan(&other, &context).to_string());
}

#[test]
fn an_expression_that_fails_is_the_plugins_mistake() {
    for (from, to) in [
        ("{{ config.name }}-{{ facts", "{{ config.tls }}-{{ facts"),
        ("config.name == 'root'", "config.tls"),
        ("{{ config.port * 10 }}", "{{ config.name * config.name }}"),
        ("kubernetes.minor < 25", "config.port"),
    ] {
        assert!(DATA.contains(from), "{from}");
        let broken = open(&DATA.replace(from, to));
        let result: Result<(Plan, _), _> = broken.plan(&json!({}), &context());
        let mistakes = result.expect_err(to);
        assert_eq!((mistakes.len(), mistakes[0].code.as_str()), (1, "DATA-EXPRESSION"), "{mistakes:?}");
        assert!(mistakes[0].message.starts_with("data.toml, ["), "{mistakes:?}");
    }
}

#[test]
fn what_is_wrong_with_a_package_is_told_when_it_is_opened() {
    for (from, to, told) in [
        ("[values]", "[valeus]", "valeus"),
        ("{{ config.name }}-", "{{ config. }}-", "data.toml, [values] z_first: "),
        ("config.name == 'root'", "config.name ==", "data.toml, [[check]] 1: when = \"config.name ==\": "),
        (
            "config.name == 'root'",
            "config.nope == 'root'",
            "data.toml, [[check]] 1: config.nope is nothing that",
        ),
        ("facts.cluster_name", "facts.cluster", "data.toml, [values] z_first: facts.cluster is nothing that"),
        ("values.z_first", "values.b", "data.toml, [values] a_second: values.b is nothing that"),
        ("in dependencies", "in others", "data.toml, [[output]] class: others is nothing that"),
        ("path = \"/name\"", "path = \"name\"", "data.toml, [[check]] 1: \"name\" is no JSON pointer"),
        ("objects/tls.yaml", "objects/none.yaml", "objects/none.yaml: there is no such file"),
        ("https://example.org/acme", "http://example.org/acme", "data.toml, [[manifest]] 1: url"),
        ("0000000000", "000000000x", "data.toml, [[manifest]] 1: sha256"),
        ("value = \"{{ config.port }}\"", "", "[[manifest.patch]] 1: add needs a value"),
        (
            "op = \"remove\"",
            "op = \"remove\"\nvalue = 1",
            "[[manifest.patch]] 2: what is removed has no value",
        ),
        ("op = \"remove\"", "op = \"move\"", "unknown variant `move`"),
        ("exists = true", "", "data.toml, [[readiness]] acme/v1 C: expected one of"),
        (
            "exists = true",
            "exists = true\ncondition = \"x\"",
            "data.toml, [[readiness]] acme/v1 C: expected one of",
        ),
        ("why = \"its images\"", "module = \"vxlan\"", "data.toml, [[node]] 2: expected one of"),
        ("from = 1", "from = 2", "data.toml, [[migrate]] from = 2: config_version is 2"),
        ("\"/title\"", "\"title\"", "\"title\" is no place in a config"),
    ] {
        assert!(DATA.contains(from), "{from}");
        let mistakes = DataPlugin.open(&files(&DATA.replacen(from, to, 1))).err().expect(to);
        assert!(mistakes.contains(told), "{told}: {mistakes}");
    }
}

#[test]
fn each_file_that_is_wrong_is_named() {
    for (name, content, told) in [
        ("package.json", "{", "package.json: "),
        ("package.json", r#"{"name": "acme"}"#, "package.json: missing field"),
        ("schema.json", "{}", "a config is an object, and closed"),
        ("schema.json", "no", "schema.json: "),
        ("objects/own.yaml", "- 1\n", "objects/own.yaml: [1] is no object"),
        ("objects/own.yaml", "a: [", "objects/own.yaml: "),
        ("objects/own.yaml", "# nothing\n", "objects/own.yaml: there is no object in it"),
        ("objects/own.yaml", "a: \"{{ | }}\"\n", "objects/own.yaml: "),
        ("objects/own.yaml", "a: 1\na: 2\n", "objects/own.yaml: "),
    ] {
        let mut files = files(DATA);
        files.insert(name.to_owned(), content.as_bytes().to_vec());
        let mistakes = DataPlugin.open(&files).err().expect(content);
        assert!(mistakes.contains(told), "{content}: {mistakes}");
        files.remove(name);
        let mistakes = DataPlugin.open(&files).err().expect(name);
        assert!(mistakes.contains(&format!("{name}: there is no such file in the package")), "{mistakes}");
    }
}
