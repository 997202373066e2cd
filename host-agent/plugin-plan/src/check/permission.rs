//! Is an object one that `plugin.toml` names? And does it lie where its kind lies, so that the permission is about it?

use plugin_package::SYSTEM_NAMESPACES;

use super::view::View;
use crate::object::ObjectKey;

/// What the engine does with every object.
const VERBS: [&str; 3] = ["get", "create", "patch"];

pub(super) fn refusals(view: &View<'_>, key: &ObjectKey) -> Vec<String> {
    let mut why = Vec::new();
    if !view.manifest.permits(&VERBS, &key.group, &key.kind, &key.namespace, &key.name) {
        why.push("no permission in plugin.toml covers it".to_owned());
    }
    if key.is_namespace() && SYSTEM_NAMESPACES.contains(&key.name.as_str()) {
        why.push("this namespace belongs to Kubernetes".to_owned());
    }
    // The server goes by the kind: a namespace more or less would make the permission one for something else.
    match (view.scopes.is_namespaced(&key.group, &key.kind), key.namespace.is_empty()) {
        (Some(true), true) => why.push("it names no namespace, and its kind has one".to_owned()),
        (Some(false), false) => why.push("it names a namespace, and its kind has none".to_owned()),
        _ => {}
    }
    why
}
