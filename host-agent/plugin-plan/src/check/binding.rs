//! To whom a plan gives rights: a binding is of a role of this plan to service accounts of this plan, or it stands in a
//! `[[bind]]` of `plugin.toml`, role and subject both.

use serde_json::Value;

use super::view::View;
use crate::object::ObjectKey;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn refusals(view: &View<'_>, key: &ObjectKey, object: &Value) -> Vec<String> {
    if key.group != GROUP || !matches!(key.kind.as_str(), "RoleBinding" | "ClusterRoleBinding") {
        return Vec::new();
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let role = &object["roleRef"];
    let (kind, name) = (text(&role["kind"]), text(&role["name"]));
    if !matches!(kind.as_str(), "Role" | "ClusterRole")
        || name.is_empty()
        || !matches!(text(&role["apiGroup"]).as_str(), "" | GROUP)
    {
        return vec!["its roleRef names no role".to_owned()];
    }
    let namespace = if kind == "Role" { key.namespace.as_str() } else { "" };
    let is_own_role = view.has(GROUP, &kind, namespace, &name) || view.is_partial;
    let role = format!("{kind} {name}");
    let subjects = match &object["subjects"] {
        Value::Null => return Vec::new(),
        Value::Array(subjects) => subjects,
        _ => return vec!["its subjects are no list".to_owned()],
    };
    let mut why = Vec::new();
    for subject in subjects {
        let (kind, name) = (text(&subject["kind"]), text(&subject["name"]));
        let mut place = text(&subject["namespace"]);
        if place.is_empty() {
            // As the server reads it.
            place.clone_from(&key.namespace);
        }
        let is_account = kind == "ServiceAccount";
        let is_own = is_account && (view.has_account(&place, &name) || view.is_partial);
        let subject =
            if is_account { format!("ServiceAccount {place}/{name}") } else { format!("{kind} {name}") };
        let is_bound = view
            .manifest
            .binds
            .iter()
            .any(|bind| bind.role == role && bind.subject.as_ref().map_or(is_own, |has| *has == subject));
        let is_all_own = is_own_role && is_own;
        if !is_all_own && !is_bound {
            why.push(format!("it binds {role} to {subject}, and no [[bind]] of plugin.toml says so"));
        }
    }
    why
}
