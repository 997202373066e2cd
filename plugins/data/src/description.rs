//! `data.toml` as it is written. What it means is [`crate::evaluate`]'s.

use std::collections::BTreeMap;

use plugin_sdk::{Alphabet, Handling, Selector};
use serde::Deserialize;
use serde_json::Value;

/// The whole file. Nothing in it is required.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Data {
    #[serde(rename = "manifest")]
    pub(crate) manifests: Vec<ManifestTable>,
    /// With their places: they are computed in the order of the file.
    pub(crate) values: BTreeMap<String, toml::Spanned<Value>>,
    #[serde(rename = "object")]
    pub(crate) objects: Vec<ObjectTable>,
    #[serde(rename = "check")]
    pub(crate) checks: Vec<CheckTable>,
    #[serde(rename = "readiness")]
    pub(crate) readiness: Vec<ReadinessTable>,
    #[serde(rename = "node")]
    pub(crate) nodes: Vec<NodeTable>,
    #[serde(rename = "secret")]
    pub(crate) secrets: Vec<SecretTable>,
    #[serde(rename = "output")]
    pub(crate) outputs: Vec<OutputTable>,
    #[serde(rename = "migrate")]
    pub(crate) migrations: Vec<MigrationTable>,
}

impl Data {
    /// The values in the order of the file.
    pub(crate) fn values_in_order(&self) -> Vec<(&str, &Value)> {
        let mut values: Vec<_> = self.values.iter().collect();
        values.sort_by_key(|(_, value)| value.span().start);
        values.into_iter().map(|(name, value)| (name.as_str(), value.get_ref())).collect()
    }
}

/// A manifest of the upstream project.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManifestTable {
    pub(crate) url: String,
    pub(crate) sha256: String,
    #[serde(default)]
    pub(crate) objects: u32,
    #[serde(default)]
    pub(crate) namespace: String,
    #[serde(default)]
    pub(crate) max_bytes: u64,
    #[serde(default)]
    pub(crate) exclude: Vec<Selector>,
    #[serde(default)]
    pub(crate) handling: Handling,
    #[serde(default)]
    pub(crate) when: Option<String>,
    #[serde(default, rename = "patch")]
    pub(crate) patches: Vec<PatchTable>,
}

/// A change of objects of a manifest: one operation of RFC 6902.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchTable {
    #[serde(default)]
    pub(crate) group: String,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) op: Operation,
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) value: Option<Value>,
    #[serde(default)]
    pub(crate) when: Option<String>,
}

/// What a patch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    Add,
    Replace,
    Remove,
    /// Changes nothing, and fails where the value is another.
    Test,
}

impl Operation {
    /// As RFC 6902 names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Replace => "replace",
            Self::Remove => "remove",
            Self::Test => "test",
        }
    }
}

/// Objects of the plugin's own, in a file of the package.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObjectTable {
    pub(crate) file: String,
    #[serde(default)]
    pub(crate) when: Option<String>,
    #[serde(default)]
    pub(crate) handling: Handling,
}

/// A mistake that a config may have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckTable {
    pub(crate) when: String,
    #[serde(default)]
    pub(crate) path: String,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) hint: String,
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) warning: bool,
}

/// When objects of a kind are ready: exactly one of condition, field and exists.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadinessTable {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) condition: Option<String>,
    #[serde(default)]
    pub(crate) field: Option<FieldTable>,
    #[serde(default)]
    pub(crate) exists: bool,
}

/// A field and its value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FieldTable {
    pub(crate) pointer: String,
    pub(crate) value: Value,
}

/// Something that all nodes are to have: exactly one of cni, sysctl, module and registry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeTable {
    #[serde(default)]
    pub(crate) cni: Option<CniTable>,
    #[serde(default)]
    pub(crate) sysctl: Option<SysctlTable>,
    #[serde(default)]
    pub(crate) module: Option<String>,
    #[serde(default)]
    pub(crate) registry: Option<RegistryTable>,
    #[serde(default)]
    pub(crate) why: String,
    #[serde(default)]
    pub(crate) when: Option<String>,
}

/// Another pod network.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CniTable {
    pub(crate) config_file: String,
}

/// A kernel parameter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SysctlTable {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// How containerd reaches a registry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistryTable {
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) ca_pem: String,
    #[serde(default)]
    pub(crate) mirrors: Vec<String>,
    #[serde(default)]
    pub(crate) plain_http: bool,
}

/// A secret that the host agent makes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretTable {
    pub(crate) handle: String,
    pub(crate) key: String,
    pub(crate) length: u32,
    #[serde(default)]
    pub(crate) alphabet: Alphabet,
    #[serde(default)]
    pub(crate) when: Option<String>,
}

/// What dependents are told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputTable {
    pub(crate) name: String,
    pub(crate) value: String,
    #[serde(default)]
    pub(crate) when: Option<String>,
}

/// How a config of one version becomes one of the next: moved, then set, then removed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MigrationTable {
    pub(crate) from: u32,
    /// JSON pointers, from where to where.
    #[serde(default)]
    pub(crate) rename: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) set: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) remove: Vec<String>,
}
