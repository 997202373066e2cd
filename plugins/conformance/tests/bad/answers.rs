//! What the bad plugin answers: its schema, its rules, its objects, each with the one thing wrong that is asked for.

use k8sctl_proto::plugin::v1::Diagnostic;
use serde_json::{Value, json};

/// `size`, and a secret.
pub fn schema(mode: &str) -> Value {
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "size": {"title": "How many pods", "type": "integer", "minimum": 1, "maximum": 9, "default": 2},
            "password": {
                "title": "Its password",
                "type": "object",
                "additionalProperties": false,
                "x-k8sctl-secret": true,
                "required": ["handle", "key"],
                "properties": {
                    "handle": {"title": "Of which secret", "type": "string"},
                    "key": {"title": "Which part of it", "type": "string"},
                },
            },
        },
    });
    match mode {
        "open-schema" => schema["additionalProperties"] = json!(true),
        "bad-default" => schema["properties"]["size"]["default"] = json!(12),
        "takes-all" => schema["properties"]["size"]["maximum"] = json!(1_000_000),
        _ => {}
    }
    schema
}

/// The same rules as in the schema, and none beside them.
pub fn diagnostics(mode: &str, config: &Value) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut say = |path: &str, message: &str| {
        found.push(Diagnostic {
            path: path.to_owned(),
            message: message.to_owned(),
            ..Diagnostic::default()
        });
    };
    let Some(members) = config.as_object() else {
        say("", "it is no object");
        return found;
    };
    for (name, value) in members {
        match name.as_str() {
            "size" => {
                // In JSON 2.0 is an integer.
                let size = value.as_f64().filter(|size| size.fract() == 0.0);
                let most = if mode == "takes-all" { 1_000_000.0 } else { 9.0 };
                if !size.is_some_and(|size| (1.0..=most).contains(&size)) {
                    say("/size", "expected 1 and a few more");
                }
            }
            "password" => {
                let is_text = |key: &str| value.get(key).is_some_and(Value::is_string);
                let count = value.as_object().map_or(0, |members| members.len());
                if count != 2 || !is_text("handle") || !is_text("key") {
                    say("/password", "expected handle and key");
                }
            }
            _ if mode == "lenient" => {}
            _ => say(&format!("/{name}"), "there is no such setting"),
        }
    }
    found
}

/// A namespace, a Deployment, a Secret where the config has one, and what is wrong.
pub fn objects(mode: &str, config: &Value) -> Vec<Value> {
    let named = |api: &str, kind: &str, name: &str, field: &str, value: Value| {
        let mut object =
            json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "bad"}});
        object[field] = value;
        object
    };
    let image = if mode == "latest" { "registry.invalid/bad:latest" } else { "registry.invalid/bad:1" };
    let labels = json!({"app": "bad"});
    let deployment = json!({
        "replicas": config["size"],
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "bad", "image": image}]}},
    });
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bad"}}),
        named("apps/v1", "Deployment", "bad", "spec", deployment),
    ];
    let placeholder = json!({"$k8sctl.secret": config["password"]});
    if config["password"].is_object() {
        let data = json!({"password": placeholder});
        let (kind, field) = if mode == "leaks" { ("ConfigMap", "data") } else { ("Secret", "stringData") };
        objects.push(named("v1", kind, "password", field, data));
    }
    match mode {
        "unstable" => {
            let data = json!({"process": std::process::id().to_string()});
            objects.push(named("v1", "ConfigMap", "process", "data", data));
        }
        "greedy" => {
            let mut foreign = named("v1", "ConfigMap", "foreign", "data", json!({}));
            foreign["metadata"]["namespace"] = json!("kube-system");
            objects.push(foreign);
        }
        "unready" => objects.push(named("bad.invalid/v1", "Thing", "thing", "spec", json!({"a": 1}))),
        _ => {}
    }
    objects
}
