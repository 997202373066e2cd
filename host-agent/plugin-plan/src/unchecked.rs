//! What a plugin said, as it said it. Made by the reader of its answers and by tests; [`crate::check_plan`] is the only way
//! from here to a cluster.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The key of a placeholder: `{"$k8sctl.secret": {"handle": "…", "key": "…"}}`.
pub const PLACEHOLDER: &str = "$k8sctl.secret";

/// A plan that nobody has looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UncheckedPlan {
    /// Objects, in the plugin's order.
    pub objects: Vec<UncheckedObject>,
    /// Manifests whose objects belong to it.
    pub remotes: Vec<RemoteManifest>,
    /// When objects of its own kinds are ready.
    pub readiness: Vec<ReadinessRule>,
    /// What nodes must be.
    pub node: Vec<NodeRequirement>,
    /// Secrets that the host makes where it has none.
    pub secrets: Vec<GeneratedSecret>,
}

/// An object and what is to be done with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UncheckedObject {
    /// The whole object.
    pub object: Value,
    /// How it is treated.
    pub handling: Handling,
}

/// How the engine treats an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// What becomes of other people's changes.
    #[serde(default)]
    pub drift: Drift,
    /// JSON pointers of fields that are set when it is made and are others' from then on.
    #[serde(default)]
    pub leave: Vec<String>,
    /// Made anew where the server refuses to change a field that is on the list of [`crate::immutable`].
    #[serde(default)]
    pub replace: bool,
    /// Never pruned or removed.
    #[serde(default)]
    pub keep: bool,
    /// A DaemonSet that no node is to run is ready.
    #[serde(default)]
    pub may_be_empty: bool,
}

/// What becomes of other people's changes of our fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    /// They are undone.
    #[default]
    Correct,
    /// They are told, and stop the next change.
    Report,
    /// Nothing: once made, the object is only looked at for readiness.
    Ignore,
}

/// A manifest that the host fetches.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RemoteManifest {
    /// https, below a declared prefix.
    pub url: String,
    /// 64 hex digits.
    pub sha256: String,
    /// 0: as many as most have.
    pub max_bytes: u64,
    /// Objects in it, Lists taken apart; 0: any number.
    pub objects: u32,
    /// Namespace of its objects that have one and name none; empty: they name theirs.
    pub namespace: String,
    /// Objects that are left out.
    pub exclude: Vec<ObjectSelector>,
    /// In order.
    pub patches: Vec<ManifestPatch>,
    /// Of all its objects.
    pub handling: Handling,
}

/// Objects of a manifest; an empty text stands for any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ObjectSelector {
    /// API group; empty: any, the core group too.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace, after the manifest's own was filled in.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A change of a manifest's objects.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ManifestPatch {
    /// Which.
    pub target: ObjectSelector,
    /// Operations of RFC 6902.
    pub operations: Value,
}

/// When objects of a kind without a built-in rule count as ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadinessRule {
    /// `cert-manager.io/v1`
    pub api_version: String,
    /// `ClusterIssuer`
    pub kind: String,
    /// What must be so.
    pub is: ReadyWhen,
}

/// What must be so for an object to be ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyWhen {
    /// This condition is True for the current generation.
    Condition(String),
    /// This field has this value.
    Field {
        /// JSON pointer.
        pointer: String,
        /// What is expected there.
        value: Value,
    },
    /// It is there.
    Exists,
}

/// What a node must be, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRequirement {
    /// What.
    pub what: NodeWant,
    /// Why, for the admin.
    pub why: String,
}

/// What a node must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeWant {
    /// Without the built-in pod network.
    Cni {
        /// File that the other one's pods write into `/etc/cni/net.d`.
        config_file: String,
    },
    /// With this kernel setting.
    Sysctl {
        /// `vm.max_map_count`
        key: String,
        /// As text.
        value: String,
    },
    /// With this kernel module.
    Module(String),
    /// Trusting this registry of images.
    Registry {
        /// `harbor.home.example:443`
        host: String,
        /// PEM; empty: the node's own trust.
        ca_pem: String,
        /// Asked first, in order.
        mirrors: Vec<String>,
        /// Reached without TLS.
        plain_http: bool,
    },
}

/// A secret that the host makes where it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedSecret {
    /// Its handle.
    pub handle: String,
    /// The key within.
    pub key: String,
    /// Characters.
    pub length: u32,
    /// Of which.
    pub alphabet: Alphabet,
}

/// What a generated secret is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alphabet {
    /// Letters and digits.
    #[default]
    Alphanumeric,
    /// Hex digits.
    Hex,
    /// Base64 of random bytes.
    Base64,
}

/// A value that the host keeps, by name. The value itself is never here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretRef {
    /// Its handle.
    pub handle: String,
    /// The key within.
    pub key: String,
}

impl SecretRef {
    /// What stands for the value in a Secret's data.
    pub fn placeholder(&self) -> Value {
        json!({PLACEHOLDER: {"handle": self.handle, "key": self.key}})
    }

    /// The secret that this value stands for; `None`: it is no placeholder, or not one as it should be.
    pub fn of_placeholder(value: &Value) -> Option<Self> {
        let fields = value.as_object().filter(|fields| fields.len() == 1)?;
        let named = fields.get(PLACEHOLDER)?.as_object().filter(|named| named.len() == 2)?;
        let text = |key: &str| named.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self { handle: text("handle")?, key: text("key")? })
    }
}
