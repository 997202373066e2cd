//! What no plugin writes: fields that the server or its controllers keep, objects that are too large, and handling that
//! would hand over what the check is about.

use serde_json::Value;

use crate::limits::OBJECT_BYTES;
use crate::object::ObjectKey;
use crate::unchecked::Handling;

/// Fields of metadata that are the server's, or that make objects live and die with others.
const SERVERS: [&str; 9] = [
    "uid",
    "resourceVersion",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "selfLink",
];
/// Most pointers that are left to others, and bytes of each.
const LEFT: usize = 50;
const POINTER_BYTES: usize = 1024;

pub(super) fn refusals(key: &ObjectKey, object: &Value) -> Vec<String> {
    let mut why = Vec::new();
    if object.to_string().len() > OBJECT_BYTES {
        why.push(format!("larger than {OBJECT_BYTES} bytes"));
    }
    let metadata = &object["metadata"];
    for field in SERVERS.iter().filter(|field| metadata.get(**field).is_some_and(|value| !value.is_null())) {
        why.push(format!("a plugin may not set metadata.{field}"));
    }
    if object.get("status").is_some_and(|status| !status.is_null()) {
        why.push("a plugin may not set status".to_owned());
    }
    if key.kind.ends_with("List") && object.get("items").is_some_and(Value::is_array) {
        why.push("a List is taken apart in manifests only; plan what is in it".to_owned());
    }
    for map in ["labels", "annotations"] {
        let is_map = |map: &Value| {
            map.is_null() || map.as_object().is_some_and(|map| map.values().all(Value::is_string))
        };
        if !metadata.get(map).is_none_or(is_map) {
            why.push(format!("its metadata.{map} has something else than texts"));
        }
    }
    why
}

pub(super) fn handling_refusals(key: &ObjectKey, handling: &Handling) -> Vec<String> {
    let mut why = Vec::new();
    if handling.leave.len() > LEFT {
        why.push(format!("it leaves {} fields to others, expected at most {LEFT}", handling.leave.len()));
    }
    for pointer in handling.leave.iter().take(LEFT) {
        let is_pointer = pointer.len() > 1 && pointer.starts_with('/') && pointer.len() <= POINTER_BYTES;
        let first = pointer.split('/').nth(1).unwrap_or_default();
        if !is_pointer || ["apiVersion", "kind", "metadata", "status"].contains(&first) {
            why.push(format!(
                "leave {pointer:?}: expected a JSON pointer to a field of its own, like /spec/replicas"
            ));
        }
    }
    // What others write there would be applied in the plugin's name, unchecked.
    if key.group == "rbac.authorization.k8s.io" && !handling.leave.is_empty() {
        why.push("nothing of a role or a binding is left to others".to_owned());
    }
    why
}
