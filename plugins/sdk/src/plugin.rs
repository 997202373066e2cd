//! What a plugin author writes: the [`Plugin`] trait and the values that go in and out of it. Wire types stop
//! here; nothing in this file does I/O.

use std::collections::BTreeMap;

use k8sctl_proto::plugin::v1 as wire;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A platform service as data. All methods are pure: the same arguments give the same answer.
pub trait Plugin: Send + Sync + 'static {
    /// The user's config. `#[serde(deny_unknown_fields)]` makes its schema closed.
    type Config: DeserializeOwned + JsonSchema;

    /// Name, version and one line about it; equal to `plugin.toml`.
    fn describe(&self) -> Description;

    /// The objects that this config needs. Mistakes in the config are diagnostics with a JSON pointer.
    fn plan(&self, config: &Self::Config, facts: &Facts) -> Result<Plan, Vec<Diagnostic>>;

    /// Judges the live objects of an installed plugin.
    fn assess(&self, config: &Self::Config, facts: &Facts, objects: &[serde_json::Value]) -> Assessment;
}

/// What a plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Name, as in `plugin.toml`.
    pub name: &'static str,
    /// Semantic version.
    pub version: &'static str,
    /// One line.
    pub summary: &'static str,
}

/// What the host agent says about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The cluster's name.
    pub cluster_name: String,
    /// `v1.29.0`
    pub kubernetes_version: String,
    /// Network of the pods.
    pub pod_cidr: String,
    /// Network of the services.
    pub service_cidr: String,
    /// Network of the nodes.
    pub node_cidr: String,
    /// Names of the nodes.
    pub node_names: Vec<String>,
    /// First and last address of the load balancer pool; `None`: the spec has none.
    pub load_balancer: Option<(String, String)>,
    /// Images that every node has already, by role.
    pub images: BTreeMap<String, String>,
}

impl From<wire::ClusterFacts> for Facts {
    fn from(facts: wire::ClusterFacts) -> Self {
        let load_balancer = (!facts.load_balancer_first.is_empty())
            .then_some((facts.load_balancer_first, facts.load_balancer_last));
        Self {
            cluster_name: facts.cluster_name,
            kubernetes_version: facts.kubernetes_version,
            pod_cidr: facts.pod_cidr,
            service_cidr: facts.service_cidr,
            node_cidr: facts.node_cidr,
            node_names: facts.node_names,
            load_balancer,
            images: facts.images.into_iter().collect(),
        }
    }
}

/// A mistake in the config, or a remark on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// JSON pointer into the config, `/replicas`; empty: the whole config.
    pub path: String,
    /// What is wrong, got and expected.
    pub message: String,
    /// What to write instead; may be empty.
    pub hint: String,
    /// Does not stop the installation.
    pub warning: bool,
}

impl Diagnostic {
    /// A mistake that stops the installation.
    pub fn error(path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: hint.into(), warning: false }
    }
}

impl From<Diagnostic> for wire::Diagnostic {
    fn from(diagnostic: Diagnostic) -> Self {
        let Diagnostic { path, message, hint, warning } = diagnostic;
        Self { path, message, hint, warning }
    }
}

/// The objects of a plugin and when those of kinds unknown to the host agent count as ready.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Plan {
    /// Kubernetes objects as JSON, in the order in which people should read them.
    pub objects: Vec<serde_json::Value>,
    /// One rule for each kind without a built-in one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub readiness: Vec<ReadinessRule>,
}

impl Plan {
    /// Adds an object: a typed one of `k8s-openapi`, or a JSON value.
    pub fn object(mut self, object: impl Serialize) -> Self {
        let value =
            serde_json::to_value(object).expect("Kubernetes objects have string keys, so they are JSON");
        self.objects.push(value);
        self
    }

    /// Objects of this kind are ready when this condition is True for their current generation.
    pub fn ready_when(mut self, api_version: &str, kind: &str, condition: &str) -> Self {
        self.readiness.push(ReadinessRule {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            condition: condition.to_owned(),
        });
        self
    }
}

/// When an object of a kind counts as ready.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReadinessRule {
    /// `cert-manager.io/v1`
    pub api_version: String,
    /// `ClusterIssuer`
    pub kind: String,
    /// The condition that must be True.
    pub condition: String,
}

/// How an installed plugin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Serves.
    Ready,
    /// On its way.
    Progressing,
    /// Needs attention.
    Degraded,
}

/// A plugin's judgement of its live objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The verdict.
    pub health: Health,
    /// Why, one line.
    pub message: String,
}

/// The JSON Schema of a plugin's config.
pub fn schema<P: Plugin>() -> serde_json::Value {
    schemars::schema_for!(P::Config).to_value()
}
