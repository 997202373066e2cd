//! A plan of a config: values, checks, then everything else, each in the order of the file.

use std::collections::BTreeMap;

use plugin_sdk::{
    Context, Diagnostic, GeneratedSecret, Node, Plan, ReadinessRule, ReadyWhen, Remote, Selector,
};
use serde_json::{Map, Value, json};

use crate::description::{ManifestTable, NodeTable, PatchTable};
use crate::expression::Names;
use crate::package::Package;

/// The plan for a config with its defaults.
pub(crate) fn plan(package: &Package, config: &Value, context: &Context) -> Result<Plan, Vec<Diagnostic>> {
    let evaluation = Evaluation::new(package, config, context).map_err(broken)?;
    let told = evaluation.checks().map_err(broken)?;
    if told.iter().any(|diagnostic| !diagnostic.warning) {
        return Err(told);
    }
    let plan = evaluation.plan().map_err(broken)?;
    Ok(told.into_iter().fold(plan, Plan::warn))
}

/// What dependents are told.
pub(crate) fn outputs(
    package: &Package,
    config: &Value,
    context: &Context,
) -> Result<BTreeMap<String, String>, Vec<Diagnostic>> {
    let evaluation = Evaluation::new(package, config, context).map_err(broken)?;
    evaluation.outputs().map_err(broken)
}

/// An expression that cannot be evaluated: no mistake of the user's.
fn broken(why: String) -> Vec<Diagnostic> {
    let hint = "this is a mistake in the plugin: its author must mend it";
    vec![Diagnostic::error("", format!("data.toml, {why}"), hint).code("DATA-EXPRESSION")]
}

/// A package with what its expressions see.
struct Evaluation<'a> {
    package: &'a Package,
    names: Names,
}

impl<'a> Evaluation<'a> {
    fn new(package: &'a Package, config: &Value, context: &Context) -> Result<Self, String> {
        let mut evaluation = Self { package, names: Names::new(config, context) };
        let mut values = Map::new();
        for (name, value) in package.data.values_in_order() {
            let value = evaluation.value(value).map_err(|why| format!("[values] {name}: {why}"))?;
            values.insert(name.to_owned(), value);
            evaluation.names.set_values(&values);
        }
        Ok(evaluation)
    }

    fn value(&self, value: &Value) -> Result<Value, String> {
        self.package.expressions.value(value, &self.names)
    }

    fn text(&self, text: &str) -> Result<String, String> {
        self.package.expressions.text(text, &self.names)
    }

    fn holds(&self, condition: Option<&str>) -> Result<bool, String> {
        self.package.expressions.holds(condition, &self.names)
    }

    fn checks(&self) -> Result<Vec<Diagnostic>, String> {
        let mut told = Vec::new();
        for (number, check) in self.package.data.checks.iter().enumerate() {
            let at = |why: String| format!("[[check]] {}: {why}", number + 1);
            if self.holds(Some(&check.when)).map_err(at)? {
                let message = self.text(&check.message).map_err(at)?;
                let hint = self.text(&check.hint).map_err(at)?;
                let diagnostic = Diagnostic::error(check.path.clone(), message, hint).code(&check.code);
                told.push(Diagnostic { warning: check.warning, ..diagnostic });
            }
        }
        Ok(told)
    }

    fn plan(&self) -> Result<Plan, String> {
        let data = &self.package.data;
        let mut plan = Plan::default();
        for (table, objects) in data.objects.iter().zip(&self.package.objects) {
            let at = |why: String| format!("[[object]] {}: {why}", table.file);
            if !self.holds(table.when.as_deref()).map_err(at)? {
                continue;
            }
            for object in objects {
                plan = plan.object_with(self.value(object).map_err(at)?, table.handling.clone());
            }
        }
        for (number, table) in data.manifests.iter().enumerate() {
            let at = |why: String| format!("[[manifest]] {}{why}", number + 1);
            if self.holds(table.when.as_deref()).map_err(|why| at(format!(": {why}")))? {
                plan = plan.remote(self.remote(table).map_err(at)?);
            }
        }
        for rule in &data.readiness {
            let is = match (&rule.condition, &rule.field) {
                (Some(condition), _) => ReadyWhen::Condition(condition.clone()),
                (None, Some(field)) => {
                    ReadyWhen::Field { pointer: field.pointer.clone(), value: field.value.clone() }
                }
                (None, None) => ReadyWhen::Exists,
            };
            let (api_version, kind) = (rule.api_version.clone(), rule.kind.clone());
            plan.readiness.push(ReadinessRule { api_version, kind, is });
        }
        for (number, table) in data.nodes.iter().enumerate() {
            let at = |why: String| format!("[[node]] {}: {why}", number + 1);
            if self.holds(table.when.as_deref()).map_err(at)?
                && let Some(node) = self.node(table).map_err(at)?
            {
                plan = plan.node(node, &self.text(&table.why).map_err(at)?);
            }
        }
        for table in &data.secrets {
            let at = |why: String| format!("[[secret]] {}: {why}", table.handle);
            if self.holds(table.when.as_deref()).map_err(at)? {
                let (handle, key) = (table.handle.clone(), table.key.clone());
                let (length, alphabet) = (table.length, table.alphabet);
                plan = plan.secret(GeneratedSecret { handle, key, length, alphabet });
            }
        }
        Ok(plan)
    }

    fn outputs(&self) -> Result<BTreeMap<String, String>, String> {
        let mut outputs = BTreeMap::new();
        for table in &self.package.data.outputs {
            let at = |why: String| format!("[[output]] {}: {why}", table.name);
            if self.holds(table.when.as_deref()).map_err(at)? {
                outputs.insert(table.name.clone(), self.text(&table.value).map_err(at)?);
            }
        }
        Ok(outputs)
    }

    /// The error begins behind the number of the manifest.
    fn remote(&self, table: &ManifestTable) -> Result<Remote, String> {
        let mut patches = Vec::new();
        for (number, patch) in table.patches.iter().enumerate() {
            let at = |why: String| format!(", [[manifest.patch]] {}: {why}", number + 1);
            if self.holds(patch.when.as_deref()).map_err(at)? {
                patches.push(self.patch(patch).map_err(at)?);
            }
        }
        Ok(Remote {
            url: table.url.clone(),
            sha256: table.sha256.clone(),
            objects: table.objects,
            namespace: table.namespace.clone(),
            exclude: table.exclude.clone(),
            patches,
            handling: table.handling.clone(),
            max_bytes: table.max_bytes,
        })
    }

    fn patch(&self, patch: &PatchTable) -> Result<(Selector, Value), String> {
        let target = Selector {
            group: self.text(&patch.group)?,
            kind: self.text(&patch.kind)?,
            namespace: self.text(&patch.namespace)?,
            name: self.text(&patch.name)?,
        };
        let mut operation = json!({"op": patch.op.name(), "path": self.text(&patch.path)?});
        if let Some(value) = &patch.value {
            operation["value"] = self.value(value)?;
        }
        Ok((target, json!([operation])))
    }

    /// `None`: none of the four, which no package has that was read.
    fn node(&self, table: &NodeTable) -> Result<Option<Node>, String> {
        if let Some(cni) = &table.cni {
            return Ok(Some(Node::Cni { config_file: self.text(&cni.config_file)? }));
        }
        if let Some(sysctl) = &table.sysctl {
            let (key, value) = (self.text(&sysctl.key)?, self.text(&sysctl.value)?);
            return Ok(Some(Node::Sysctl { key, value }));
        }
        if let Some(module) = &table.module {
            return Ok(Some(Node::KernelModule(self.text(module)?)));
        }
        let Some(registry) = &table.registry else { return Ok(None) };
        let mirrors = registry.mirrors.iter().map(|mirror| self.text(mirror)).collect::<Result<_, _>>()?;
        Ok(Some(Node::Registry {
            host: self.text(&registry.host)?,
            ca_pem: self.text(&registry.ca_pem)?,
            mirrors,
            plain_http: registry.plain_http,
        }))
    }
}
