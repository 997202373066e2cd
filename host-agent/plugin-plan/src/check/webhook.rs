//! Who would judge or change what others write: admission webhooks and policies, conversion of stored objects, and servers
//! that stand in for a part of the API. They are called at Services of the plan, about what `plugin.toml` names.

use plugin_package::WebhookKind;
use serde_json::Value;

use super::rbac::{has, texts};
use super::view::View;
use crate::object::ObjectKey;
use crate::scope::is_kubernetes_group;

/// Parts of the API that are made to be served by others, in groups that look like Kubernetes' own.
const METRICS: [&str; 3] = ["metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"];
/// Most combinations of groups and resources in one rule.
const COMBINATIONS: usize = 1000;

pub(super) fn refusals(view: &View<'_>, key: &ObjectKey, object: &Value) -> Vec<String> {
    let mut why = Vec::new();
    match (key.group.as_str(), key.kind.as_str()) {
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            configuration(view, object, WebhookKind::Validating, &mut why);
        }
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
            configuration(view, object, WebhookKind::Mutating, &mut why);
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            policy(view, object, WebhookKind::Validating, &mut why);
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => {
            policy(view, object, WebhookKind::Mutating, &mut why);
        }
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => {
            let policy = object["spec"]["policyName"].as_str().unwrap_or_default();
            let kind = key.kind.trim_end_matches("Binding");
            if !view.has(&key.group, kind, "", policy) && !view.is_partial {
                why.push(format!("it puts the policy {policy:?} into force, which is not of this plan"));
            }
        }
        ("admissionregistration.k8s.io", kind) => {
            why.push(format!("a plugin may not have a {kind}"));
        }
        ("apiextensions.k8s.io", _) => definition(view, object, &mut why),
        ("apiregistration.k8s.io", _) => api_service(view, object, &mut why),
        _ => {}
    }
    why
}

fn configuration(view: &View<'_>, object: &Value, kind: WebhookKind, why: &mut Vec<String>) {
    let webhooks = match &object["webhooks"] {
        Value::Null => return,
        Value::Array(webhooks) => webhooks,
        _ => return why.push("its webhooks are no list".to_owned()),
    };
    for (index, webhook) in webhooks.iter().enumerate() {
        let place = format!("webhooks[{index}]");
        client(view, &webhook["clientConfig"], &place, why);
        rules(view, &webhook["rules"], kind, &place, why);
        // Ignore is what the first version of the API means where nothing is said.
        let ignores = match webhook["failurePolicy"].as_str() {
            Some(policy) => policy == "Ignore",
            None => object["apiVersion"] == "admissionregistration.k8s.io/v1beta1",
        };
        if !ignores && reaches_all(&webhook["rules"]) && !is_selective(webhook) {
            why.push(format!(
                "{place}: while it is down nothing of Kubernetes could be written: expected failurePolicy Ignore, or a \
                 namespaceSelector or objectSelector"
            ));
        }
    }
}

fn policy(view: &View<'_>, object: &Value, kind: WebhookKind, why: &mut Vec<String>) {
    let constraints = &object["spec"]["matchConstraints"];
    let resources = &constraints["resourceRules"];
    rules(view, resources, kind, "spec.matchConstraints.resourceRules", why);
    let ignores = object["spec"]["failurePolicy"] == "Ignore";
    if !ignores && reaches_all(resources) && !is_selective(constraints) {
        why.push("where it fails nothing of Kubernetes could be written: expected failurePolicy Ignore, or a selector".to_owned());
    }
}

/// Whether rules are about the core group or about all of them.
fn reaches_all(rules: &Value) -> bool {
    let mut groups =
        rules.as_array().into_iter().flatten().filter_map(|rule| rule["apiGroups"].as_array()).flatten();
    groups.any(|group| group == "" || group == "*")
}

fn is_selective(webhook: &Value) -> bool {
    let is_given = |selector: &Value| selector.as_object().is_some_and(|selector| !selector.is_empty());
    is_given(&webhook["namespaceSelector"]) || is_given(&webhook["objectSelector"])
}

/// Each group and resource of the rules is one of a `[[webhook]]`.
fn rules(view: &View<'_>, rules: &Value, kind: WebhookKind, place: &str, why: &mut Vec<String>) {
    let allowed: Vec<_> = view.manifest.webhooks.iter().filter(|webhook| webhook.kind == kind).collect();
    for (index, rule) in rules.as_array().into_iter().flatten().enumerate() {
        let (Some(groups), Some(resources)) = (texts(&rule["apiGroups"]), texts(&rule["resources"])) else {
            why.push(format!("{place}: rule {index}: groups and resources are lists of texts"));
            continue;
        };
        if groups.len().saturating_mul(resources.len()) > COMBINATIONS {
            why.push(format!("{place}: rule {index}: it has more than {COMBINATIONS} kinds of objects"));
            continue;
        }
        for (group, resource) in groups.iter().flat_map(|group| resources.iter().map(move |one| (group, one)))
        {
            if !allowed.iter().any(|webhook| has(&webhook.groups, group) && has(&webhook.resources, resource))
            {
                let verb = match kind {
                    WebhookKind::Validating => "judge",
                    WebhookKind::Mutating => "change",
                };
                let group = if group.is_empty() { "core" } else { group };
                why.push(format!(
                    "{place}: it would {verb} {resource} of {group}, and no [[webhook]] says so"
                ));
            }
        }
    }
}

/// It is called at a Service of the plan, or at one that the plugin may have.
fn client(view: &View<'_>, client: &Value, place: &str, why: &mut Vec<String>) {
    if !client["url"].is_null() {
        why.push(format!("{place}: it is called at a URL, expected a Service of the plan"));
    }
    service(view, &client["service"], place, why);
}

fn service(view: &View<'_>, service: &Value, place: &str, why: &mut Vec<String>) {
    let (Some(namespace), Some(name)) = (service["namespace"].as_str(), service["name"].as_str()) else {
        return why.push(format!("{place}: it names no Service"));
    };
    let is_own = view.has("", "Service", namespace, name)
        || view.manifest.permits(&["create"], "", "Service", namespace, name);
    if !is_own && !view.is_partial {
        why.push(format!("{place}: the Service {namespace}/{name} is not of this plan"));
    }
}

fn definition(view: &View<'_>, object: &Value, why: &mut Vec<String>) {
    let group = object["spec"]["group"].as_str().unwrap_or_default();
    if is_kubernetes_group(group) {
        why.push(format!("it defines a kind in the group {group:?}, which is Kubernetes' own"));
    }
    let conversion = &object["spec"]["conversion"];
    if conversion["strategy"] == "Webhook" {
        // Where it stands differs between the versions of the API.
        let of_old = &conversion["webhookClientConfig"];
        let config = if of_old.is_null() { &conversion["webhook"]["clientConfig"] } else { of_old };
        client(view, config, "spec.conversion", why);
    }
}

fn api_service(view: &View<'_>, object: &Value, why: &mut Vec<String>) {
    let group = object["spec"]["group"].as_str().unwrap_or_default();
    let is_kubernetes = !group.contains('.') || group.ends_with(".k8s.io");
    if is_kubernetes && !METRICS.contains(&group) {
        why.push(format!("it would serve the group {group:?}, which is Kubernetes' own"));
    }
    service(view, &object["spec"]["service"], "spec.service", why);
}
