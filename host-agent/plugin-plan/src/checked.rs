//! A plan that was checked: what the engine applies, in which order. Stored as JSON with each revision, so that an operation
//! which was interrupted goes on without the plugin.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object::ObjectKey;
use crate::unchecked::{GeneratedSecret, Handling, NodeRequirement, ReadinessRule, SecretRef};

/// What later objects need comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Kinds, namespaces and classes.
    Definitions,
    /// Service accounts, roles and bindings.
    Accounts,
    /// Quotas, settings, secrets and policies.
    Settings,
    /// Services, volumes and what leads to them.
    Network,
    /// Everything that runs, and everything else.
    Workloads,
    /// Who judges what others write.
    Admission,
    /// What these judge, or have to convert.
    Guarded,
}

/// An object that passed the check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Which one.
    pub key: ObjectKey,
    /// The whole object.
    pub object: Value,
    /// When it is applied.
    pub stage: Stage,
    /// How it is treated.
    pub handling: Handling,
    /// Digest of object and handling.
    pub sha256: String,
}

/// A plan that may be applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckedPlan {
    /// Whose it is.
    pub plugin: String,
    /// Of which version.
    pub version: String,
    /// In the order of application.
    pub objects: Vec<Planned>,
    /// When objects of its own kinds are ready.
    pub readiness: Vec<ReadinessRule>,
    /// What nodes must be.
    pub node: Vec<NodeRequirement>,
    /// Secrets that the host makes where it has none.
    pub secrets: Vec<GeneratedSecret>,
    /// Digest of all that but the version: the same plan of another version is the same.
    pub sha256: String,
}

impl CheckedPlan {
    /// The planned object of this key, whatever version of the API it is written in.
    pub fn object(&self, key: &ObjectKey) -> Option<&Planned> {
        self.objects.iter().find(|planned| planned.key.same_object(key))
    }

    /// Keys of all objects, in their order.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.objects.iter().map(|planned| planned.key.clone()).collect()
    }

    /// Secrets that stand in its objects by name.
    pub fn secret_refs(&self) -> BTreeSet<SecretRef> {
        let secrets = self.objects.iter().filter(|planned| is_secret(&planned.key));
        let maps = secrets.flat_map(|planned| [&planned.object["data"], &planned.object["stringData"]]);
        maps.filter_map(Value::as_object)
            .flat_map(|map| map.values())
            .filter_map(SecretRef::of_placeholder)
            .collect()
    }
}

pub(crate) fn is_secret(key: &ObjectKey) -> bool {
    key.group.is_empty() && key.version == "v1" && key.kind == "Secret"
}
