//! Which object: its kind and its name, without its identity in time.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::scope;

/// Longest name, in bytes: what Kubernetes takes. Kinds and versions are shorter.
const NAME_BYTES: usize = 253;

/// Which object: its kind and its name, without its identity in time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// API group; empty: core.
    pub group: String,
    /// Version of the group.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty: none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object. The error is a reason: what leads a request to another path of the API is no name.
    pub fn of(object: &Value) -> Result<Self, String> {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let namespace = text("/metadata/namespace");
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        for (what, value, is_right) in [
            (
                "apiVersion",
                &api_version,
                !version.is_empty()
                    && version.chars().all(small)
                    && group.chars().all(|c| small(c) || "-.".contains(c))
                    && !api_version.starts_with('/'),
            ),
            ("kind", &kind, !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric())),
            ("metadata.name", &name, is_name(&name)),
            ("metadata.namespace", &namespace, namespace.chars().all(|c| small(c) || c == '-')),
        ] {
            if value.len() > NAME_BYTES {
                let length = value.len();
                return Err(format!("its {what} has {length} bytes, expected at most {NAME_BYTES}"));
            }
            if !is_right || value.contains("..") {
                return Err(format!("its {what} is {value:?}"));
            }
        }
        Ok(Self { group: group.to_owned(), version: version.to_owned(), kind, namespace, name })
    }

    /// `apps/v1` or `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The same object whatever version of the API it was written in.
    pub fn same_object(&self, other: &Self) -> bool {
        (&self.group, &self.kind, &self.namespace, &self.name)
            == (&other.group, &other.kind, &other.namespace, &other.name)
    }

    /// A namespace.
    pub fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.kind == "Namespace"
    }

    /// A definition of a kind.
    pub fn is_definition(&self) -> bool {
        self.group == "apiextensions.k8s.io" && self.kind == "CustomResourceDefinition"
    }

    /// Of a kind that no Kubernetes brings by itself.
    pub fn is_custom(&self) -> bool {
        self.group.contains('.') && !scope::is_kubernetes_group(&self.group)
    }
}

/// Roles have names with colons. A slash, or what stands for one, would lead a request elsewhere.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name.chars().all(|c| c.is_ascii_graphic() && !"/\\%?#\"'`<>".contains(c))
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.api_version(), self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hello", "namespace": "web"}})
    }

    #[test]
    fn a_key_reads_as_people_would_write_it() {
        let key = ObjectKey::of(&deployment()).expect("a key");
        assert_eq!(key.to_string(), "apps/v1 Deployment web/hello");
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "a:b"}});
        let key = ObjectKey::of(&role).expect("a key");
        assert_eq!(key.to_string(), "rbac.authorization.k8s.io/v1 ClusterRole a:b");
        assert!(!key.is_custom());
        let text = serde_json::to_string(&key).expect("JSON");
        assert_eq!(serde_json::from_str::<ObjectKey>(&text).expect("a key"), key);
    }

    #[test]
    fn another_version_of_the_api_has_the_same_objects() {
        let key = ObjectKey::of(&deployment()).expect("a key");
        let older = ObjectKey { version: "v1beta1".to_owned(), ..key.clone() };
        assert!(key.same_object(&older) && key != older);
        assert!(!key.same_object(&ObjectKey { namespace: "other".to_owned(), ..key.clone() }));
    }

    #[test]
    fn names_are_as_long_as_those_of_kubernetes_at_most() {
        for pointer in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
            let mut object = deployment();
            *object.pointer_mut(pointer).expect("it is there") = json!("x".repeat(254));
            let why = ObjectKey::of(&object).expect_err(pointer);
            assert!(why.contains("has 254 bytes, expected at most 253") && why.len() < 200, "{why}");
        }
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for (pointer, value) in [
            ("/metadata/name", "../../../api/v1/nodes/n"),
            ("/metadata/name", "a/b"),
            ("/metadata/name", "a%2fb"),
            ("/metadata/name", "a?dryRun=All"),
            ("/metadata/name", "a#b"),
            ("/metadata/name", "."),
            ("/metadata/name", ".."),
            ("/metadata/name", "a b"),
            ("/metadata/name", "a\nb"),
            ("/metadata/name", ""),
            ("/metadata/namespace", "a/b"),
            ("/metadata/namespace", "Web"),
            ("/kind", "Deployment/status"),
            ("/kind", ""),
            ("/apiVersion", "apps/v1/x"),
            ("/apiVersion", "/v1"),
            ("/apiVersion", "apps/"),
            ("/apiVersion", ""),
        ] {
            let mut object = deployment();
            *object.pointer_mut(pointer).expect("it is there") = json!(value);
            assert!(ObjectKey::of(&object).is_err(), "{pointer} {value:?}");
        }
        for object in [json!(null), json!([]), json!({"apiVersion": 1, "kind": {}, "metadata": "x"})] {
            assert!(ObjectKey::of(&object).is_err(), "{object}");
        }
    }

    #[test]
    fn a_custom_kind_is_one_that_no_kubernetes_brings() {
        let key = |group: &str| ObjectKey {
            group: group.to_owned(),
            ..ObjectKey::of(&deployment()).expect("a key")
        };
        assert!(key("metallb.io").is_custom() && key("gateway.networking.k8s.io").is_custom());
        assert!(!key("").is_custom() && !key("apps").is_custom() && !key("networking.k8s.io").is_custom());
    }
}
