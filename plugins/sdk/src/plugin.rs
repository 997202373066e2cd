//! What a plugin author writes: the [`Plugin`] trait, and what it says of itself and of its live objects. Nothing in this
//! file does I/O.

use std::collections::BTreeMap;

use k8sctl_proto::plugin::v1 as wire;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::Context;
use crate::diagnostic::Diagnostic;
use crate::plan::Plan;

/// A platform service as data. All methods are pure: the same arguments give the same answer.
pub trait Plugin: Send + Sync + 'static {
    /// The user's config. `#[serde(deny_unknown_fields)]` makes its schema closed; what is `None` is not serialized.
    type Config: DeserializeOwned + Serialize + JsonSchema;

    /// Name, version and one line about it; equal to `plugin.toml`.
    fn describe(&self) -> Description;

    /// The objects that this config needs. Mistakes in the config are diagnostics with a JSON pointer.
    fn plan(&self, config: &Self::Config, context: &Context) -> Result<Plan, Vec<Diagnostic>>;

    /// Judges the live objects of an installed plugin.
    fn assess(&self, config: &Self::Config, context: &Context, objects: &[Value]) -> Assessment;

    /// Turns a config of an older `config_version` into one of this one. Where there is none yet: [`nothing_older`].
    fn migrate(&self, from: u32, config: Value) -> Result<Value, Vec<Diagnostic>>;
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
    /// Counts up with every change of the config that old ones do not survive; begins at 1.
    pub config_version: u32,
}

/// How an installed plugin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Serves.
    Ready,
    /// On its way.
    Progressing,
    /// Serves, and somebody should look.
    Degraded,
    /// Does not serve, and will not by itself.
    Failed,
}

impl From<Health> for wire::Health {
    fn from(health: Health) -> Self {
        match health {
            Health::Ready => Self::Ready,
            Health::Progressing => Self::Progressing,
            Health::Degraded => Self::Degraded,
            Health::Failed => Self::Failed,
        }
    }
}

/// A plugin's judgement of its live objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The verdict.
    pub health: Health,
    /// Why, one line.
    pub message: String,
    /// What dependents are told: at most 64, keys of `[a-z0-9_]`, values of at most 1 KiB.
    pub outputs: BTreeMap<String, String>,
}

impl Assessment {
    /// Without anything to tell dependents.
    pub fn new(health: Health, message: impl Into<String>) -> Self {
        Self { health, message: message.into(), outputs: BTreeMap::new() }
    }

    /// The same, with something that dependents are told.
    pub fn output(mut self, key: &str, value: impl Into<String>) -> Self {
        self.outputs.insert(key.to_owned(), value.into());
        self
    }
}

/// The JSON Schema of a plugin's config.
pub fn schema<P: Plugin>() -> Value {
    schemars::schema_for!(P::Config).to_value()
}

/// What [`Plugin::migrate`] of a plugin in its first `config_version` answers with.
pub fn nothing_older(from: u32) -> Vec<Diagnostic> {
    let message = format!("a config of version {from} is not known");
    vec![Diagnostic::error("", message, "write it anew, as the plugin's schema describes it")]
}
