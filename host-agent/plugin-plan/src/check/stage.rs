//! In which order objects are applied: what others stand on comes first.

use serde_json::Value;

use super::rbac::has;
use super::view::View;
use crate::checked::Stage;
use crate::object::ObjectKey;

pub(super) fn of(view: &View<'_>, key: &ObjectKey) -> Stage {
    match (key.group.as_str(), key.kind.as_str()) {
        ("apiextensions.k8s.io", _)
        | ("", "Namespace")
        | ("scheduling.k8s.io", "PriorityClass")
        | ("storage.k8s.io", "StorageClass")
        | ("networking.k8s.io", "IngressClass")
        | ("node.k8s.io", "RuntimeClass") => Stage::Definitions,
        ("", "ServiceAccount") | ("rbac.authorization.k8s.io", _) => Stage::Accounts,
        ("", "ResourceQuota" | "LimitRange" | "ConfigMap" | "Secret")
        | ("networking.k8s.io" | "extensions", "NetworkPolicy")
        | ("policy", "PodDisruptionBudget") => Stage::Settings,
        ("", "Service" | "PersistentVolume" | "PersistentVolumeClaim")
        | ("networking.k8s.io" | "extensions", "Ingress") => Stage::Network,
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Stage::Admission,
        _ if is_guarded(view, key) => Stage::Guarded,
        _ => Stage::Workloads,
    }
}

/// Whether a webhook of the plan is asked before the object is stored: for its admission, or to convert it.
fn is_guarded(view: &View<'_>, key: &ObjectKey) -> bool {
    let definition = view.definition(key);
    if !key.is_custom() && definition.is_none() {
        return false;
    }
    if definition.is_some_and(|definition| definition["spec"]["conversion"]["strategy"] == "Webhook") {
        return true;
    }
    let plural =
        definition.and_then(|definition| definition.pointer("/spec/names/plural")).and_then(Value::as_str);
    // Nobody in the plan says what it is called: as nearly every kind is.
    let plural = plural.map_or_else(|| format!("{}s", key.kind.to_ascii_lowercase()), str::to_owned);
    let configurations = view.webhooks().filter_map(|configuration| configuration["webhooks"].as_array());
    let mut rules = configurations.flatten().filter_map(|webhook| webhook["rules"].as_array()).flatten();
    rules.any(|rule| {
        let texts = |field: &str| super::rbac::texts(&rule[field]).unwrap_or_default();
        let resources = texts("resources");
        let whole = format!("{plural}/*");
        has(&texts("apiGroups"), &key.group)
            && (has(&resources, &plural)
                || resources.iter().any(|resource| *resource == whole || resource == "*/*"))
    })
}
