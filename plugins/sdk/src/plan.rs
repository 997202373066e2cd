//! A [`Plan`]: what a plugin wants on the cluster, built object by object, and how it goes over the wire.

use k8sctl_proto::plugin::v1 as wire;
use k8sctl_proto::plugin::v1::plan_response::Item;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::remote::Remote;
use crate::secret::GeneratedSecret;

/// Left out of golden files.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The objects of a plugin, and what belongs to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// Kubernetes objects, in the order in which people should read them.
    pub objects: Vec<PlannedObject>,
    /// Manifests that the host agent fetches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remotes: Vec<Remote>,
    /// One rule for each kind without a built-in one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub readiness: Vec<ReadinessRule>,
    /// What it needs of all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node: Vec<NodeRequirement>,
    /// Secrets that the host agent makes, once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<GeneratedSecret>,
    /// Remarks on the config, which do not stop the installation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Diagnostic>,
}

impl Plan {
    /// Adds an object: a typed one of `k8s-openapi`, or a JSON value.
    pub fn object(self, object: impl Serialize) -> Self {
        self.object_with(object, Handling::default())
    }

    /// Adds an object that the host agent treats in a way of its own.
    pub fn object_with(mut self, object: impl Serialize, handling: Handling) -> Self {
        let object =
            serde_json::to_value(object).expect("Kubernetes objects have string keys, so they are JSON");
        self.objects.push(PlannedObject { object, handling });
        self
    }

    /// Adds the objects of a manifest of the upstream project.
    pub fn remote(mut self, remote: Remote) -> Self {
        self.remotes.push(remote);
        self
    }

    /// Objects of this kind are ready when this condition is True for their current generation.
    pub fn ready_when(self, api_version: &str, kind: &str, condition: &str) -> Self {
        self.ready(api_version, kind, ReadyWhen::Condition(condition.to_owned()))
    }

    /// Objects of this kind are ready when the field at this JSON pointer has this value.
    pub fn ready_field(self, api_version: &str, kind: &str, pointer: &str, value: Value) -> Self {
        self.ready(api_version, kind, ReadyWhen::Field { pointer: pointer.to_owned(), value })
    }

    /// Objects of this kind are ready as soon as they are there.
    pub fn ready_when_there(self, api_version: &str, kind: &str) -> Self {
        self.ready(api_version, kind, ReadyWhen::Exists)
    }

    fn ready(mut self, api_version: &str, kind: &str, is: ReadyWhen) -> Self {
        let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
        self.readiness.push(ReadinessRule { api_version, kind, is });
        self
    }

    /// Needs something of every node; `why` is for the admin who approves it.
    pub fn node(mut self, requirement: Node, why: &str) -> Self {
        self.node.push(NodeRequirement { what: requirement, why: why.to_owned() });
        self
    }

    /// Has the host agent make a secret of letters and digits, once; [`crate::SecretRef::placeholder`] names it.
    pub fn generate(self, handle: &str, key: &str, length: u32) -> Self {
        let (handle, key) = (handle.to_owned(), key.to_owned());
        self.secret(GeneratedSecret { handle, key, length, alphabet: Default::default() })
    }

    /// Has the host agent make a secret, once.
    pub fn secret(mut self, secret: GeneratedSecret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Tells the user something; does not stop the installation.
    pub fn warn(mut self, diagnostic: Diagnostic) -> Self {
        self.warnings.push(Diagnostic { warning: true, ..diagnostic });
        self
    }

    /// Capabilities of the host that this plan makes use of.
    pub(crate) fn needs(&self) -> Vec<&'static str> {
        let uses = [
            ("remote", self.remotes.is_empty()),
            ("node", self.node.is_empty()),
            ("secret", self.secrets.is_empty()),
        ];
        uses.into_iter().filter(|(_, unused)| !unused).map(|(name, _)| name).collect()
    }

    /// The items of the stream, without the last one.
    pub(crate) fn into_items(self) -> impl Iterator<Item = Item> + Send {
        let Self { objects, remotes, readiness, node, secrets, warnings } = self;
        let warnings = warnings.into_iter().map(|it| Item::Diagnostic(it.into()));
        let objects = objects.into_iter().map(|it| Item::Object(it.into()));
        let remotes = remotes.into_iter().map(|it| Item::Remote(it.into()));
        let readiness = readiness.into_iter().map(|it| Item::Readiness(it.into()));
        let node = node.into_iter().map(|it| Item::Node(it.into()));
        let secrets = secrets.into_iter().map(|it| Item::Secret(it.into()));
        warnings.chain(objects).chain(remotes).chain(readiness).chain(node).chain(secrets)
    }
}

/// An object, and how the host agent treats it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedObject {
    /// The object as JSON.
    pub object: Value,
    /// Its treatment.
    pub handling: Handling,
}

/// In golden files an object that is treated as usual stands alone.
impl Serialize for PlannedObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if is_default(&self.handling) {
            return self.object.serialize(serializer);
        }
        let mut both = serializer.serialize_struct("PlannedObject", 2)?;
        both.serialize_field("handling", &self.handling)?;
        both.serialize_field("object", &self.object)?;
        both.end()
    }
}

/// How the host agent treats an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Handling {
    /// What becomes of other people's changes of our fields.
    #[serde(skip_serializing_if = "is_default")]
    pub drift: Drift,
    /// JSON pointers of fields that are set when the object is made, and others' from then on.
    #[serde(skip_serializing_if = "is_default")]
    pub leave: Vec<String>,
    /// Delete and make anew where the server refuses to change a field that is on the host agent's list of such fields.
    #[serde(skip_serializing_if = "is_default")]
    pub replace: bool,
    /// Never pruned or removed.
    #[serde(skip_serializing_if = "is_default")]
    pub keep: bool,
    /// A DaemonSet that no node is to run is ready.
    #[serde(skip_serializing_if = "is_default")]
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
    /// Once made, the object is only looked at for readiness.
    Ignore,
}

/// When an object of a kind counts as ready.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReadinessRule {
    /// `cert-manager.io/v1`
    pub api_version: String,
    /// `ClusterIssuer`
    pub kind: String,
    /// What must be so.
    pub is: ReadyWhen,
}

/// What must be so for an object to be ready.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyWhen {
    /// This condition is True for the current generation.
    Condition(String),
    /// The field has this value.
    Field {
        /// JSON pointer.
        pointer: String,
        /// The value.
        value: Value,
    },
    /// Being there is enough.
    Exists,
}

/// Something that every node is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeRequirement {
    /// What.
    #[serde(flatten)]
    pub what: Node,
    /// Why, for the admin who approves it.
    pub why: String,
}

/// What a node can be asked for. The host agent has a closed list of the values that it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// Another pod network instead of the built-in one.
    Cni {
        /// Name of the file that its pods write into `/etc/cni/net.d`.
        config_file: String,
    },
    /// A kernel parameter.
    Sysctl {
        /// `vm.max_map_count`
        key: String,
        /// `262144`
        value: String,
    },
    /// A kernel module, by name.
    KernelModule(String),
    /// How containerd reaches a registry.
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

impl From<Handling> for wire::Handling {
    fn from(handling: Handling) -> Self {
        let drift = match handling.drift {
            Drift::Correct => wire::Drift::Correct,
            Drift::Report => wire::Drift::Report,
            Drift::Ignore => wire::Drift::Ignore,
        };
        let Handling { leave, replace, keep, may_be_empty, .. } = handling;
        Self { drift: drift.into(), leave, replace, keep, may_be_empty }
    }
}

impl From<PlannedObject> for wire::PlannedObject {
    fn from(planned: PlannedObject) -> Self {
        Self { json: planned.object.to_string(), handling: Some(planned.handling.into()) }
    }
}

impl From<ReadinessRule> for wire::ReadinessRule {
    fn from(rule: ReadinessRule) -> Self {
        let mut wire =
            Self { api_version: rule.api_version, kind: rule.kind, ..wire::ReadinessRule::default() };
        match rule.is {
            ReadyWhen::Condition(condition) => wire.condition = condition,
            ReadyWhen::Field { pointer, value } => {
                wire.field = Some(wire::FieldIs { pointer, value_json: value.to_string() });
            }
            ReadyWhen::Exists => wire.exists = true,
        }
        wire
    }
}

impl From<NodeRequirement> for wire::NodeRequirement {
    fn from(requirement: NodeRequirement) -> Self {
        use wire::node_requirement::What;
        let what = match requirement.what {
            Node::Cni { config_file } => What::Cni(wire::ExternalCni { config_file }),
            Node::Sysctl { key, value } => What::Sysctl(wire::Sysctl { key, value }),
            Node::KernelModule(name) => What::KernelModule(name),
            Node::Registry { host, ca_pem, mirrors, plain_http } => {
                What::Registry(wire::Registry { host, ca_pem, mirrors, plain_http })
            }
        };
        Self { why: requirement.why, what: Some(what) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::SecretRef;

    #[test]
    fn a_golden_file_shows_what_is_not_as_usual() {
        let handling = Handling { leave: vec!["/spec/replicas".to_owned()], ..Handling::default() };
        let plan = Plan::default()
            .object(json!({"kind": "A"}))
            .object_with(json!({"kind": "B"}), handling)
            .ready_when_there("x/v1", "Y")
            .ready_field("x/v1", "Z", "/status/phase", json!("Ready"))
            .node(Node::KernelModule("vxlan".to_owned()), "tunnels")
            .generate("admin", "password", 24);
        let wanted = json!({
            "objects": [
                {"kind": "A"},
                {"object": {"kind": "B"}, "handling": {"leave": ["/spec/replicas"]}},
            ],
            "readiness": [
                {"api_version": "x/v1", "kind": "Y", "is": "exists"},
                {"api_version": "x/v1", "kind": "Z", "is": {"field": {"pointer": "/status/phase", "value": "Ready"}}},
            ],
            "node": [{"kernel_module": "vxlan", "why": "tunnels"}],
            "secrets": [{"handle": "admin", "key": "password", "length": 24, "alphabet": "alphanumeric"}],
        });
        assert_eq!(serde_json::to_value(&plan).expect("JSON"), wanted);
        assert_eq!(plan.needs(), ["node", "secret"]);
    }

    #[test]
    fn all_of_a_plan_goes_over_the_wire() {
        let remote = Remote::new("https://example.org/x.yaml", &"0".repeat(64), 3)
            .without("Namespace", "x")
            .patch("ConfigMap", "c", json!([{"op": "remove", "path": "/data/a"}]));
        let secret = SecretRef { handle: "admin".to_owned(), key: "password".to_owned() };
        let plan = Plan::default()
            .object(json!({"kind": "Secret", "data": {"p": secret.placeholder()}}))
            .remote(remote)
            .ready_when("x/v1", "Y", "Ready")
            .node(Node::Cni { config_file: "10-x.conflist".to_owned() }, "pods")
            .secret(GeneratedSecret {
                handle: "admin".to_owned(),
                key: "password".to_owned(),
                length: 32,
                alphabet: crate::Alphabet::Hex,
            })
            .warn(Diagnostic::error("/a", "b", "c").code("D-E"));
        let items: Vec<Item> = plan.into_items().collect();
        let [
            Item::Diagnostic(warning),
            Item::Object(object),
            Item::Remote(remote),
            Item::Readiness(rule),
            Item::Node(node),
            Item::Secret(secret),
        ] = &items[..]
        else {
            panic!("{items:?}");
        };
        assert!(warning.warning && warning.code == "D-E", "{warning:?}");
        assert!(
            object.json.contains(r#""$k8sctl.secret":{"handle":"admin","key":"password"}"#),
            "{object:?}"
        );
        assert_eq!(object.handling.as_ref().map(wire::Handling::drift), Some(wire::Drift::Correct));
        assert_eq!((remote.exclude.len(), remote.objects), (1, 3));
        let patch = &remote.patches[0];
        assert_eq!(patch.target.as_ref().map(|target| target.kind.as_str()), Some("ConfigMap"));
        assert_eq!(patch.operations_json, r#"[{"op":"remove","path":"/data/a"}]"#);
        assert_eq!((rule.condition.as_str(), rule.exists, &rule.field), ("Ready", false, &None));
        assert!(matches!(node.what, Some(wire::node_requirement::What::Cni(_))), "{node:?}");
        assert_eq!(secret.alphabet, "hex");
    }
}
