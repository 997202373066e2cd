//! A plugin without code: `data.toml` says which manifests of the upstream project it applies, with which patches, which
//! objects of its own, and what is wrong with a config. The program is the same for all of them and is told the files of
//! its package by the host agent.
//!
//! ```text
//! package.json  data.toml  schema.json  objects/*.yaml
//!      └─────────────┴──────────┴───────────┴─► Package::read ── once
//!                                                   │
//! config ─► schema ─► defaults ─► values ─► checks ─┴─► evaluate ─► Plan
//! ```
//!
//! - `package`: the files, read and checked as a whole: what is wrong with them is told when the plugin is built
//! - `description`: `data.toml` as it is written
//! - `schema`: whether a config is one, and its defaults
//! - `expression`: `{{ … }}`, by minijinja
//! - `evaluate`: a plan of a config
//! - `migrate`: an older config
//!
//! `docs/plugins/writing.md` describes `data.toml` key by key.

mod description;
mod evaluate;
mod expression;
mod migrate;
mod package;
mod schema;

use std::collections::BTreeMap;

use plugin_sdk::{
    Assessment, Context, Diagnostic, OpenPlugin, OwnedDescription, Plan, RawPlugin, assess_workloads,
};
use serde_json::Value;

use crate::package::Package;

/// The program, before it knows which plugin it is.
#[derive(Clone, Copy, Debug)]
pub struct DataPlugin;

impl RawPlugin for DataPlugin {
    fn open(&self, files: &BTreeMap<String, Vec<u8>>) -> Result<Box<dyn OpenPlugin>, String> {
        Ok(Box::new(OpenData(Package::read(files)?)))
    }

    fn name(&self) -> &str {
        "data-plugin"
    }
}

struct OpenData(Package);

impl OpenPlugin for OpenData {
    fn describe(&self) -> OwnedDescription {
        self.0.description.clone()
    }

    fn plan(&self, config: &Value, context: &Context) -> Result<(Plan, Option<Value>), Vec<Diagnostic>> {
        let config = self.0.config(config)?;
        let plan = evaluate::plan(&self.0, &config, context)?;
        Ok((plan, Some(config)))
    }

    fn assess(
        &self,
        config: &Value,
        context: &Context,
        objects: &[Value],
    ) -> Result<Assessment, Vec<Diagnostic>> {
        let config = self.0.config(config)?;
        let outputs = evaluate::outputs(&self.0, &config, context)?;
        Ok(Assessment { outputs, ..assess_workloads(objects) })
    }

    fn migrate(&self, from: u32, config: Value) -> Result<Value, Vec<Diagnostic>> {
        migrate::migrate(&self.0.data.migrations, from, self.0.description.config_version, config)
    }
}
