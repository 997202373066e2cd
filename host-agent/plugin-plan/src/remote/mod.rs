//! The objects of a manifest that was fetched for a plan: read, Lists taken apart, counted, namespaces filled in, some left
//! out, patched. Fetching is the host agent's; the digest was compared before.

mod patch;
pub mod yaml;

use serde_json::{Value, json};

use crate::limits;
use crate::scope::Scopes;
use crate::unchecked::{ObjectSelector, RemoteManifest};

pub(crate) use patch::is_within;

/// A body that was fetched, digest checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// 64 hex digits.
    pub sha256: String,
    /// What the upstream project wrote.
    pub body: Vec<u8>,
}

/// Its objects: Lists taken apart, excluded ones left out, namespaces filled in, patched, counted. `definitions` are those of
/// the rest of the plan, for kinds that the manifest does not define itself. The error is a reason.
pub fn objects_of(remote: &RemoteManifest, body: &[u8], definitions: &[Value]) -> Result<Vec<Value>, String> {
    let documents = objects_in(body)?;
    let scopes = Scopes::of(documents.iter().chain(definitions));
    let mut patched = limits::PATCHED;
    expand(remote, documents, &scopes, &mut patched)
}

/// All objects of a body, as they are.
pub(crate) fn objects_in(body: &[u8]) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for document in yaml::documents(body)? {
        take_apart(document, &mut objects)?;
    }
    Ok(objects)
}

/// `kubectl get -o yaml` writes Lists; a List within a List is nobody's.
fn take_apart(document: Value, objects: &mut Vec<Value>) -> Result<(), String> {
    if !document.is_object() {
        return Err(format!("a document of it is no object: {}", shortly(&document)));
    }
    let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    let Some(items) = document.get("items").and_then(Value::as_array).filter(|_| is_list) else {
        objects.push(document);
        return Ok(());
    };
    for item in items {
        if !item.is_object() {
            return Err(format!("an item of a List in it is no object: {}", shortly(item)));
        }
        objects.push(item.clone());
    }
    if objects.len() > limits::OBJECTS {
        return Err(format!("it has more than {} objects", limits::OBJECTS));
    }
    Ok(())
}

fn shortly(value: &Value) -> String {
    crate::diagnostic::cut(value.to_string(), 80)
}

/// What the plan makes of a manifest's objects. `patched` counts down with each object that a patch changes.
pub(crate) fn expand(
    remote: &RemoteManifest,
    mut objects: Vec<Value>,
    scopes: &Scopes,
    patched: &mut usize,
) -> Result<Vec<Value>, String> {
    let count = objects.len();
    if remote.objects != 0 && remote.objects as usize != count {
        return Err(format!("it has {count} objects, expected {}", remote.objects));
    }
    if !remote.namespace.is_empty() {
        for object in &mut objects {
            place(object, &remote.namespace, scopes);
        }
    }
    for selector in &remote.exclude {
        let before = objects.len();
        objects.retain(|object| !fits(selector, object));
        if objects.len() == before {
            return Err(format!("nothing in it is {}, which is to be left out", describe(selector)));
        }
    }
    for (index, patch) in remote.patches.iter().enumerate() {
        let operations =
            patch::operations(&patch.operations).map_err(|why| format!("patch {index}: {why}"))?;
        let targets: Vec<_> = objects.iter_mut().filter(|object| fits(&patch.target, object)).collect();
        if targets.is_empty() {
            return Err(format!("patch {index}: nothing in it is {}", describe(&patch.target)));
        }
        *patched = patched.checked_sub(targets.len() * operations.len()).ok_or_else(|| {
            format!("patch {index}: its patches together change more than {} objects", limits::PATCHED)
        })?;
        for object in targets {
            patch::apply(object, &operations)
                .map_err(|why| format!("patch {index} of {}: {why}", describe(&patch.target)))?;
        }
    }
    Ok(objects)
}

/// Gives an object the namespace, where its kind has one and it names none.
fn place(object: &mut Value, namespace: &str, scopes: &Scopes) {
    let (group, kind) = (group_of(object).to_owned(), object["kind"].as_str().unwrap_or_default().to_owned());
    if scopes.is_namespaced(&group, &kind) != Some(true) {
        return;
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get("namespace").and_then(Value::as_str).is_none_or(str::is_empty)
    {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
}

fn group_of(object: &Value) -> &str {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    api_version.rsplit_once('/').map_or("", |(group, _)| group)
}

fn fits(selector: &ObjectSelector, object: &Value) -> bool {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let pairs = [
        (&selector.group, group_of(object)),
        (&selector.kind, text("/kind")),
        (&selector.namespace, text("/metadata/namespace")),
        (&selector.name, text("/metadata/name")),
    ];
    pairs.into_iter().all(|(wanted, has)| wanted.is_empty() || wanted == has)
}

fn describe(selector: &ObjectSelector) -> String {
    let ObjectSelector { group, kind, namespace, name } = selector;
    let kind = if kind.is_empty() { "an object" } else { kind };
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    let place = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
    let name = if name.is_empty() { String::new() } else { format!(" {name}") };
    crate::diagnostic::cut(format!("{kind}{group}{name}{place}"), 300)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unchecked::ManifestPatch;

    const BODY: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {mode: fast}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: other}, data: {mode: fast}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: shop}
---
apiVersion: shop.example/v1
kind: Till
metadata: {name: first}
";

    fn remote() -> RemoteManifest {
        RemoteManifest { namespace: "shop".to_owned(), objects: 5, ..RemoteManifest::default() }
    }

    fn selector(kind: &str, name: &str) -> ObjectSelector {
        ObjectSelector { kind: kind.to_owned(), name: name.to_owned(), ..ObjectSelector::default() }
    }

    fn namespaces(objects: &[Value]) -> Vec<&str> {
        objects.iter().map(|object| object["metadata"]["namespace"].as_str().unwrap_or("-")).collect()
    }

    fn why(remote: &RemoteManifest) -> String {
        objects_of(remote, BODY.as_bytes(), &[]).expect_err("it is refused")
    }

    #[test]
    fn lists_are_taken_apart_and_namespaces_filled_in_where_a_kind_has_one() {
        let objects = objects_of(&remote(), BODY.as_bytes(), &[]).expect("objects");
        assert_eq!(namespaces(&objects), ["-", "shop", "other", "-", "-"], "nobody knows what a Till is");
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "spec": {"group": "shop.example", "names": {"kind": "Till"}, "scope": "Namespaced"},
        });
        let objects = objects_of(&remote(), BODY.as_bytes(), &[definition]).expect("objects");
        assert_eq!(namespaces(&objects), ["-", "shop", "other", "-", "shop"]);
    }

    #[test]
    fn what_is_excluded_is_left_out_and_must_be_there() {
        let mut remote = remote();
        remote.exclude = vec![selector("Namespace", ""), selector("ConfigMap", "a")];
        assert_eq!(objects_of(&remote, BODY.as_bytes(), &[]).expect("objects").len(), 3);
        remote.exclude.push(selector("Deployment", "shop"));
        assert_eq!(why(&remote), "nothing in it is Deployment shop, which is to be left out");
    }

    #[test]
    fn a_manifest_with_another_number_of_objects_is_another_one() {
        let why = why(&RemoteManifest { objects: 4, ..remote() });
        assert_eq!(why, "it has 5 objects, expected 4");
        let any = RemoteManifest { objects: 0, ..remote() };
        assert!(objects_of(&any, BODY.as_bytes(), &[]).is_ok());
    }

    #[test]
    fn patches_change_what_they_fit_and_must_fit_something() {
        let patch = |kind: &str, name: &str, operations: Value| RemoteManifest {
            patches: vec![ManifestPatch { target: selector(kind, name), operations }],
            ..remote()
        };
        let slow = json!([{"op": "test", "path": "/data/mode", "value": "fast"},
                          {"op": "replace", "path": "/data/mode", "value": "slow"}]);
        let objects =
            objects_of(&patch("ConfigMap", "", slow.clone()), BODY.as_bytes(), &[]).expect("objects");
        let modes: Vec<_> = objects.iter().filter_map(|object| object["data"]["mode"].as_str()).collect();
        assert_eq!(modes, ["slow", "slow"]);
        assert_eq!(why(&patch("ConfigMap", "c", slow.clone())), "patch 0: nothing in it is ConfigMap c");
        let said = why(&patch("ClusterRole", "shop", slow));
        assert!(said.starts_with("patch 0 of ClusterRole shop: operation 0 at /data/mode:"), "{said}");
        let said = why(&patch("ConfigMap", "a", json!([{"op": "launch", "path": "/data"}])));
        assert!(said.starts_with("patch 0: no operations of RFC 6902"), "{said}");
        let said = why(&patch("ConfigMap", "a", json!({"op": "remove"})));
        assert!(said.starts_with("patch 0: no operations of RFC 6902"), "{said}");
    }

    #[test]
    fn a_body_that_is_none_says_why() {
        for (body, said) in [("just text", "is no object: \"just text\""), ("- 1", "is no object: [1]")] {
            let why = objects_of(&RemoteManifest::default(), body.as_bytes(), &[]).expect_err(body);
            assert!(why.contains(said), "{why}");
        }
        let list = "kind: List\napiVersion: v1\nitems: [1]\n";
        let why = objects_of(&RemoteManifest::default(), list.as_bytes(), &[]).expect_err("an item is none");
        assert!(why.contains("an item of a List"), "{why}");
    }
}
