//! Manifests of the upstream project, which a plan names by URL and digest. The host agent fetches them.

use k8sctl_proto::plugin::v1 as wire;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::{Handling, is_default};

/// A manifest that the host agent fetches, checks and takes apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Remote {
    /// By https, below a prefix that `plugin.toml` declares.
    pub url: String,
    /// 64 hex digits.
    pub sha256: String,
    /// Number of objects in it; 0: any.
    #[serde(skip_serializing_if = "is_default")]
    pub objects: u32,
    /// Namespace of its objects that have one and name none; empty: none.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Objects that are left out; one that fits nothing is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub exclude: Vec<Selector>,
    /// Which objects, and a list of RFC 6902 operations; in order. One that fits nothing, or fails, is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub patches: Vec<(Selector, Value)>,
    /// Of all its objects.
    #[serde(skip_serializing_if = "is_default")]
    pub handling: Handling,
    /// At most 16 MiB; 0: 4 MiB.
    #[serde(skip_serializing_if = "is_default")]
    pub max_bytes: u64,
}

impl Remote {
    /// A manifest with its digest and the number of its objects.
    pub fn new(url: &str, sha256: &str, objects: u32) -> Self {
        Self { url: url.to_owned(), sha256: sha256.to_owned(), objects, ..Self::default() }
    }

    /// Leaves out the objects of this kind and name.
    pub fn without(mut self, kind: &str, name: &str) -> Self {
        self.exclude.push(Selector::named(kind, name));
        self
    }

    /// Changes the objects of this kind and name by a list of RFC 6902 operations.
    pub fn patch(mut self, kind: &str, name: &str, operations: Value) -> Self {
        self.patches.push((Selector::named(kind, name), operations));
        self
    }
}

/// Fits every object that has what is not empty here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// API group.
    #[serde(skip_serializing_if = "is_default")]
    pub group: String,
    /// Kind.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: String,
    /// Namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// Name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
}

impl Selector {
    /// Fits objects of this kind and name.
    pub fn named(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned(), ..Self::default() }
    }
}

impl From<Selector> for wire::ObjectSelector {
    fn from(selector: Selector) -> Self {
        let Selector { group, kind, namespace, name } = selector;
        Self { group, kind, namespace, name }
    }
}

impl From<Remote> for wire::RemoteManifest {
    fn from(remote: Remote) -> Self {
        let patch = |(target, operations): (Selector, Value)| wire::ManifestPatch {
            target: Some(target.into()),
            operations_json: operations.to_string(),
        };
        Self {
            url: remote.url,
            sha256: remote.sha256,
            max_bytes: remote.max_bytes,
            objects: remote.objects,
            namespace: remote.namespace,
            exclude: remote.exclude.into_iter().map(Into::into).collect(),
            patches: remote.patches.into_iter().map(patch).collect(),
            handling: Some(remote.handling.into()),
        }
    }
}
