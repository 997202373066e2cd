//! What a plugin would ask for that plans exactly these objects: a permission for each kind, a grant for each rule, and all
//! bindings, aggregations and webhooks that are not its own.

use plugin_package::{Aggregate, Bind, Grant, Manifest, Permission, Webhook, WebhookKind};
use plugin_plan::ObjectKey;
use serde_json::Value;

const BASE: &str = "format = 1\nname = \"upstream\"\nversion = \"1.0.0\"\nsummary = \"What a project ships\"\n\
                    protocol = [1]\nprivileged_pods = true\n[program]\nname = \"upstream\"\n\
                    [[remote]]\nprefix = \"https://upstream.example/\"\n";

/// A manifest with these needs and no others. It reads as one, too.
pub fn manifest_for(objects: &[Value]) -> Manifest {
    let mut manifest = Manifest::parse(BASE).expect("a manifest");
    let keys: Vec<_> = objects.iter().map(|object| ObjectKey::of(object).expect("a key")).collect();
    for (key, object) in keys.iter().zip(objects) {
        permit(&mut manifest, key);
        for rule in object["rules"].as_array().into_iter().flatten().filter(|_| key.kind.ends_with("Role")) {
            push(&mut manifest.grants, grant(key, rule));
        }
        for label in object["metadata"]["labels"].as_object().into_iter().flat_map(|labels| labels.keys()) {
            if let Some(to) = label.strip_prefix("rbac.authorization.k8s.io/aggregate-to-") {
                let aggregate = Aggregate { to: vec![to.to_owned()], why: String::new() };
                push(&mut manifest.aggregates, aggregate);
            }
        }
        if key.kind.ends_with("RoleBinding") {
            bind(&mut manifest, &keys, key, object);
        }
        for webhook in object["webhooks"].as_array().into_iter().flatten() {
            for rule in webhook["rules"].as_array().into_iter().flatten() {
                let webhook = Webhook {
                    kind: WebhookKind::Validating,
                    groups: texts(&rule["apiGroups"]),
                    resources: texts(&rule["resources"]),
                    why: String::new(),
                };
                push(&mut manifest.webhooks, webhook);
            }
        }
    }
    let text = toml::to_string(&manifest).expect("TOML");
    Manifest::parse(&text).unwrap_or_else(|mistakes| panic!("{text}\n{}", mistakes.join("\n")))
}

/// Its reason is its kind.
fn permit(manifest: &mut Manifest, key: &ObjectKey) {
    let namespaces: Vec<_> =
        Some(key.namespace.clone()).into_iter().filter(|name| !name.is_empty()).collect();
    let same = |permission: &&mut Permission| {
        permission.group == key.group && permission.kind == key.kind && permission.namespaces == namespaces
    };
    if let Some(permission) = manifest.permissions.iter_mut().find(same) {
        permission.names.push(key.name.clone());
        return;
    }
    manifest.permissions.push(Permission {
        group: key.group.clone(),
        kind: key.kind.clone(),
        verbs: ["get", "create", "patch", "delete"].map(str::to_owned).to_vec(),
        namespaces,
        names: vec![key.name.clone()],
        why: key.kind.clone(),
    });
}

fn grant(key: &ObjectKey, rule: &Value) -> Grant {
    Grant {
        groups: texts(&rule["apiGroups"]),
        resources: texts(&rule["resources"]),
        verbs: texts(&rule["verbs"]),
        resource_names: texts(&rule["resourceNames"]),
        namespaces: Some(key.namespace.clone()).into_iter().filter(|name| !name.is_empty()).collect(),
        urls: texts(&rule["nonResourceURLs"]),
        why: String::new(),
    }
}

fn bind(manifest: &mut Manifest, keys: &[ObjectKey], key: &ObjectKey, object: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["roleRef"]["kind"]), text(&object["roleRef"]["name"]));
    let namespace = if kind == "Role" { key.namespace.as_str() } else { "" };
    if !keys.iter().any(|own| own.kind == kind && own.namespace == namespace && own.name == name) {
        push(&mut manifest.binds, Bind { role: format!("{kind} {name}"), subject: None, why: String::new() });
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn push<T: PartialEq>(list: &mut Vec<T>, one: T) {
    if !list.contains(&one) {
        list.push(one);
    }
}

/// Whether the first one alone says at least as much.
pub fn wider(grant: &Grant, than: &Grant) -> bool {
    let all = |has: &[String], asked: &[String]| {
        asked.iter().all(|one| has.iter().any(|granted| granted == "*" || granted == one))
    };
    let names = grant.resource_names.is_empty()
        || !than.resource_names.is_empty() && all(&grant.resource_names, &than.resource_names);
    let place = grant.namespaces.is_empty() || grant.namespaces == than.namespaces;
    place
        && names
        && all(&grant.groups, &than.groups)
        && all(&grant.resources, &than.resources)
        && all(&grant.verbs, &than.verbs)
        && all(&grant.urls, &than.urls)
}
