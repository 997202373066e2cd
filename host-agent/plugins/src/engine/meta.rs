//! What the engine reads of a live object's metadata: which one it is, whose it is, and which of its fields are ours.
//! Pure.

use plugin_plan::hash;
use serde_json::Value;

use super::OWNER_ANNOTATION;
use crate::inventory::Entry;

/// Whose a live object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// There is none.
    Absent,
    /// We applied it.
    Ours,
    /// Somebody else made it.
    Foreign,
}

/// Of one live object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) uid: String,
    pub(super) version: String,
    pub(super) generation: Option<i64>,
    /// It is being deleted.
    pub(super) dying: bool,
    /// Our annotation is on it.
    annotated: bool,
    /// Digest of the names of the fields that we own by apply; `None`: we never applied it. Whoever changes the value of
    /// one of them takes it from us, so that the digest is another one.
    pub(super) fields: Option<String>,
}

impl Meta {
    /// Of an object, or of its metadata alone.
    pub(super) fn of(object: &Value, owner: &str, manager: &str) -> Self {
        let metadata = &object["metadata"];
        let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        Self {
            uid: text("uid"),
            version: text("resourceVersion"),
            generation: metadata["generation"].as_i64(),
            dying: metadata["deletionTimestamp"].is_string(),
            annotated: metadata["annotations"][OWNER_ANNOTATION] == owner,
            fields: own_fields(metadata, manager)
                .map(|fields| hash::sha256_hex(hash::canonical(fields).as_bytes())),
        }
    }
}

/// The names of the fields that a manager owns by apply.
fn own_fields<'a>(metadata: &'a Value, manager: &str) -> Option<&'a Value> {
    let entries = metadata["managedFields"].as_array()?;
    let ours = |entry: &&Value| {
        entry["manager"] == manager && entry["operation"] == "Apply" && entry.get("subresource").is_none()
    };
    entries.iter().find(ours).map(|entry| &entry["fieldsV1"])
}

/// By the UID that we noted; where an interrupted operation left none, by our annotation and field manager.
pub(super) fn decide_ownership(entry: Option<&Entry>, live: Option<&Meta>) -> Ownership {
    let Some(live) = live else { return Ownership::Absent };
    if entry.is_some_and(|entry| entry.uid.as_ref() == Some(&live.uid)) {
        return Ownership::Ours;
    }
    if live.annotated && live.fields.is_some() { Ownership::Ours } else { Ownership::Foreign }
}

/// Who, but us, has a field of a live object: of several the one that came last. Names of list entries are not looked
/// into.
pub(super) fn other_manager(object: &Value, pointers: &[String], ours: &str) -> Option<String> {
    let mut others: Vec<&Value> = object["metadata"]["managedFields"].as_array()?.iter().collect();
    others.retain(|entry| entry["manager"] != ours);
    others.sort_by_key(|entry| std::cmp::Reverse(entry["time"].as_str().unwrap_or_default()));
    let owner =
        others.iter().find(|entry| pointers.iter().any(|pointer| has_field(&entry["fieldsV1"], pointer)));
    owner.or(others.first()).and_then(|entry| entry["manager"].as_str()).map(str::to_owned)
}

fn has_field(fields: &Value, pointer: &str) -> bool {
    let mut fields = fields;
    for name in pointer.split('/').skip(1) {
        let name = name.replace("~1", "/").replace("~0", "~");
        match fields.get(format!("f:{name}")) {
            Some(below) => fields = below,
            // Entries of lists are named by their keys and not by their places.
            None => {
                let in_list = |key: &String| key.starts_with("k:") || key.starts_with("v:");
                return fields.as_object().is_some_and(|fields| fields.keys().any(in_list));
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use plugin_plan::ObjectKey;
    use serde_json::json;

    use super::*;

    const OURS: &str = "k8sctl/hello";

    fn live(uid: &str, owner: &str, operation: &str) -> Value {
        json!({"metadata": {
            "uid": uid, "resourceVersion": "7", "generation": 2, "annotations": {OWNER_ANNOTATION: owner},
            "managedFields": [
                {"manager": OURS, "operation": operation, "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": OURS, "operation": "Apply", "subresource": "status", "fieldsV1": {}},
            ],
        }})
    }

    fn entry(uid: Option<&str>) -> Entry {
        let key = ObjectKey {
            group: String::new(),
            version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: "n".to_owned(),
            name: "o".to_owned(),
        };
        Entry {
            key,
            uid: uid.map(str::to_owned),
            applied_sha256: String::new(),
            seen_version: String::new(),
            generation: None,
            keep: false,
        }
    }

    fn whose(entry: Option<&Entry>, object: &Value) -> Ownership {
        decide_ownership(entry, Some(&Meta::of(object, "us", OURS)))
    }

    #[test]
    fn an_object_is_ours_by_uid_or_by_annotation_and_manager_together() {
        assert_eq!(decide_ownership(Some(&entry(Some("a"))), None), Ownership::Absent);
        assert_eq!(whose(Some(&entry(Some("a"))), &live("a", "they", "Update")), Ownership::Ours);
        assert_eq!(whose(Some(&entry(Some("a"))), &live("b", "they", "Apply")), Ownership::Foreign);
        assert_eq!(whose(Some(&entry(None)), &live("b", "us", "Apply")), Ownership::Ours);
        assert_eq!(whose(Some(&entry(None)), &live("b", "us", "Update")), Ownership::Foreign);
        assert_eq!(whose(None, &live("b", "they", "Apply")), Ownership::Foreign);
    }

    #[test]
    fn a_field_that_somebody_took_changes_what_is_ours() {
        let before = Meta::of(&live("a", "us", "Apply"), "us", OURS);
        let mut taken = live("a", "us", "Apply");
        taken["metadata"]["managedFields"][0]["fieldsV1"] = json!({"f:spec": {}});
        let after = Meta::of(&taken, "us", OURS);
        assert!(before.fields.is_some() && after.fields.is_some() && before.fields != after.fields);
        assert_eq!(Meta::of(&live("a", "us", "Update"), "us", OURS).fields, None);
    }

    #[test]
    fn the_other_manager_is_the_one_that_has_the_field() {
        let object = json!({"metadata": {"managedFields": [
            {"manager": OURS, "time": "2026-01-03T00:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "kubectl-scale", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "kubelet", "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:status": {}}},
        ]}});
        let of = |pointer: &str| other_manager(&object, &[pointer.to_owned()], OURS);
        assert_eq!(of("/spec/replicas").as_deref(), Some("kubectl-scale"));
        assert_eq!(
            of("/metadata/labels/a~1b").as_deref(),
            Some("kubelet"),
            "the last one, where none has it"
        );
        assert_eq!(other_manager(&json!({"metadata": {}}), &[], OURS), None);
        let listed = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}}}});
        assert!(has_field(&listed, "/spec/containers/0/image") && !has_field(&listed, "/spec/volumes/0"));
    }
}
