//! A plugin as it is served: with its config as JSON. [`Typed`] makes one of every [`Plugin`]; plugins whose schema is data
//! write one themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::context::Context;
use crate::diagnostic::Diagnostic;
use crate::plan::Plan;
use crate::plugin::{Assessment, Description, Plugin, schema};

/// A program that becomes a plugin when it is told the files of its package.
pub trait RawPlugin: Send + Sync + 'static {
    /// The plugin that these files make, by their paths. The error says what is wrong with which one.
    fn open(&self, files: &BTreeMap<String, Vec<u8>>) -> Result<Box<dyn OpenPlugin>, String>;

    /// What the program calls itself when it is started by hand.
    fn name(&self) -> &str;
}

/// A plugin. All methods are pure, and none is called with a config that is no JSON.
pub trait OpenPlugin: Send + Sync {
    /// What it is.
    fn describe(&self) -> OwnedDescription;

    /// The plan, and the config with all defaults filled in; `None`: as it was given.
    fn plan(&self, config: &Value, context: &Context) -> Result<(Plan, Option<Value>), Vec<Diagnostic>>;

    /// The judgement of its live objects. The error says why this is no config that it could have planned with.
    fn assess(
        &self,
        config: &Value,
        context: &Context,
        objects: &[Value],
    ) -> Result<Assessment, Vec<Diagnostic>>;

    /// A config of an older version as one of this version.
    fn migrate(&self, from: u32, config: Value) -> Result<Value, Vec<Diagnostic>>;
}

/// What a plugin is, with its schema.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedDescription {
    /// Name, as in `plugin.toml`.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// Begins at 1.
    pub config_version: u32,
    /// JSON Schema of the config.
    pub schema: Value,
}

/// A [`Plugin`] as it is served.
#[derive(Debug)]
pub struct Typed<P>(Arc<P>);

impl<P: Plugin> Typed<P> {
    /// Serves this one.
    pub fn new(plugin: P) -> Self {
        Self(Arc::new(plugin))
    }
}

impl<P: Plugin> RawPlugin for Typed<P> {
    fn open(&self, _: &BTreeMap<String, Vec<u8>>) -> Result<Box<dyn OpenPlugin>, String> {
        Ok(Box::new(OpenTyped(Arc::clone(&self.0))))
    }

    fn name(&self) -> &str {
        self.0.describe().name
    }
}

struct OpenTyped<P>(Arc<P>);

impl<P: Plugin> OpenTyped<P> {
    /// The config, or why it is none.
    fn read(config: &Value) -> Result<P::Config, Vec<Diagnostic>> {
        let hint = "a table of settings as the plugin's schema describes it";
        // serde would take a list as the fields of a struct, one after the other.
        if !config.is_object() {
            return Err(vec![Diagnostic::error("", "no table of settings", hint)]);
        }
        serde_json::from_value(config.clone())
            .map_err(|error| vec![Diagnostic::error("", error.to_string(), hint)])
    }
}

impl<P: Plugin> OpenPlugin for OpenTyped<P> {
    fn describe(&self) -> OwnedDescription {
        let Description { name, version, summary, config_version } = self.0.describe();
        OwnedDescription {
            name: name.to_owned(),
            version: version.to_owned(),
            summary: summary.to_owned(),
            config_version,
            schema: schema::<P>(),
        }
    }

    fn plan(&self, config: &Value, context: &Context) -> Result<(Plan, Option<Value>), Vec<Diagnostic>> {
        let config = Self::read(config)?;
        let plan = self.0.plan(&config, context)?;
        let effective = serde_json::to_value(&config).expect("what was read from JSON is JSON");
        Ok((plan, Some(effective)))
    }

    fn assess(
        &self,
        config: &Value,
        context: &Context,
        objects: &[Value],
    ) -> Result<Assessment, Vec<Diagnostic>> {
        Ok(self.0.assess(&Self::read(config)?, context, objects))
    }

    fn migrate(&self, from: u32, config: Value) -> Result<Value, Vec<Diagnostic>> {
        self.0.migrate(from, config)
    }
}
