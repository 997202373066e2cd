//! As whom do the pods of a plan run? As their own service accounts: with another one they would have rights that nobody
//! granted to this plugin.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod::is_pod_spec;
use super::view::View;
use crate::object::ObjectKey;

pub(super) fn refusals(view: &View<'_>, key: &ObjectKey, object: &Value) -> Vec<String> {
    let mut names = BTreeSet::new();
    collect(object, &mut names);
    // Every namespace has one that is called so, and it may do nothing.
    let foreign = names.into_iter().filter(|name| {
        let is_own = if key.namespace.is_empty() {
            view.has_account_somewhere(name)
        } else {
            view.has_account(&key.namespace, name)
        };
        !is_own && *name != "default" && !view.is_partial
    });
    foreign
        .map(|name| format!("its pods run as the service account {name:?}, which is not of this plan"))
        .collect()
}

fn collect<'a>(value: &'a Value, names: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            if is_pod_spec(value) {
                let both = ["serviceAccountName", "serviceAccount"]
                    .into_iter()
                    .filter_map(|field| value[field].as_str());
                names.extend(both.filter(|name| !name.is_empty()));
            }
            for field in fields.values() {
                collect(field, names);
            }
        }
        Value::Array(items) => {
            for item in items {
                collect(item, names);
            }
        }
        _ => {}
    }
}
