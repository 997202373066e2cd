//! The files of a data plugin, read and checked as a whole: what is wrong with any of them is told when the plugin is
//! built, not when somebody installs it with a config that comes across it.

use std::collections::{BTreeMap, BTreeSet};

use plugin_sdk::{Diagnostic, Facts, OwnedDescription};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::description::{Data, ManifestTable, NodeTable, Operation, ReadinessTable};
use crate::expression::Expressions;
use crate::schema::Schema;

/// What `k8sctl plugin build` writes of `plugin.toml`, which is not among the files.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PackageFile {
    name: String,
    version: String,
    summary: String,
    config_version: u32,
}

/// A data plugin.
pub(crate) struct Package {
    pub(crate) description: OwnedDescription,
    pub(crate) data: Data,
    /// Of each `[[object]]`: what is in its file.
    pub(crate) objects: Vec<Vec<Value>>,
    pub(crate) expressions: Expressions,
    schema: Schema,
}

impl Package {
    /// The error names every mistake.
    pub(crate) fn read(files: &BTreeMap<String, Vec<u8>>) -> Result<Self, String> {
        let package: PackageFile = json(files, "package.json")?;
        let schema: Value = json(files, "schema.json")?;
        let data: Data =
            toml::from_str(text(files, "data.toml")?).map_err(|error| format!("data.toml: {error}"))?;
        let schema = Schema::read(schema).map_err(|mistakes| mistakes.join("\n"))?;
        let mut mistakes = Vec::new();
        let mut objects = Vec::new();
        for object in &data.objects {
            let read = text(files, &object.file).and_then(|text| documents(&object.file, text));
            objects.push(read.unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                Vec::new()
            }));
        }
        let expressions = Expressions::new();
        let known = known_names(&schema, &data);
        let mut look = Look { expressions: &expressions, known, mistakes };
        look.at_data(&data, package.config_version);
        for (table, objects) in data.objects.iter().zip(&objects) {
            objects.iter().for_each(|object| look.strings(&table.file, object));
        }
        if !look.mistakes.is_empty() {
            return Err(look.mistakes.join("\n"));
        }
        let description = OwnedDescription {
            name: package.name,
            version: package.version,
            summary: package.summary,
            config_version: package.config_version,
            schema: schema.root().clone(),
        };
        Ok(Self { description, data, objects, expressions, schema })
    }

    /// The config with its defaults, if it is one.
    pub(crate) fn config(&self, config: &Value) -> Result<Value, Vec<Diagnostic>> {
        let mistakes = self.schema.mistakes(config);
        if mistakes.is_empty() { Ok(self.schema.with_defaults(config)) } else { Err(mistakes) }
    }
}

fn text<'a>(files: &'a BTreeMap<String, Vec<u8>>, name: &str) -> Result<&'a str, String> {
    let content = files.get(name).ok_or_else(|| format!("{name}: there is no such file in the package"))?;
    std::str::from_utf8(content).map_err(|error| format!("{name}: not UTF-8: {error}"))
}

fn json<T: DeserializeOwned>(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Result<T, String> {
    serde_json::from_str(text(files, name)?).map_err(|error| format!("{name}: {error}"))
}

/// The objects of a YAML file, as kubectl reads it.
fn documents(name: &str, text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| format!("{name}: {error}"))?;
    if documents.is_empty() {
        return Err(format!("{name}: there is no object in it"));
    }
    match documents.iter().find(|document| !document.is_object()) {
        Some(other) => Err(format!("{name}: {other} is no object")),
        None => Ok(documents),
    }
}

/// What expressions may look up: one level below each of the tables that they see.
fn known_names(schema: &Schema, data: &Data) -> BTreeSet<String> {
    let facts = serde_json::to_value(Facts::default()).unwrap_or_default();
    let below = |table: &'static str, names: Vec<&String>| {
        names.into_iter().map(move |name| format!("{table}.{name}")).collect::<Vec<_>>()
    };
    let settings = schema.root()["properties"].as_object().into_iter().flat_map(Map::keys).collect();
    let facts = facts.as_object().into_iter().flat_map(Map::keys).collect();
    let alone = ["config", "facts", "values", "kubernetes", "dependencies", "range", "dict", "namespace"];
    let kubernetes = ["kubernetes.major", "kubernetes.minor"];
    let fixed = alone.iter().chain(&kubernetes).map(|name| (*name).to_owned());
    fixed
        .chain(below("config", settings))
        .chain(below("facts", facts))
        .chain(below("values", data.values.keys().collect()))
        .collect()
}

/// Collects what is wrong with `data.toml`.
struct Look<'a> {
    expressions: &'a Expressions,
    known: BTreeSet<String>,
    mistakes: Vec<String>,
}

impl Look<'_> {
    fn mistake(&mut self, place: &str, what: impl std::fmt::Display) {
        self.mistakes.push(format!("data.toml, {place}: {what}"));
    }

    /// Nobody would notice a name that is not there: it is equal to nothing.
    fn names(&mut self, place: &str, names: Result<BTreeSet<String>, String>) {
        match names {
            Ok(names) => {
                for name in names {
                    let mut parts = name.splitn(3, '.');
                    let (table, field) = (parts.next().unwrap_or_default(), parts.next());
                    let known = match field {
                        Some(field) if table != "dependencies" => format!("{table}.{field}"),
                        _ => table.to_owned(),
                    };
                    if !self.known.contains(&known) {
                        self.mistake(place, format!("{name} is nothing that an expression sees"));
                    }
                }
            }
            Err(why) => self.mistake(place, why),
        }
    }

    fn strings(&mut self, place: &str, value: &Value) {
        self.names(place, self.expressions.names_of(value));
    }

    fn string(&mut self, place: &str, text: &str) {
        self.strings(place, &Value::from(text));
    }

    fn when(&mut self, place: &str, condition: Option<&str>) {
        if let Some(condition) = condition {
            let names = self.expressions.names_of_condition(condition);
            self.names(place, names.map_err(|why| format!("when = {condition:?}: {why}")));
        }
    }

    fn pointer(&mut self, place: &str, pointer: &str) {
        if !pointer.is_empty() && !pointer.starts_with('/') {
            self.mistake(place, format!("{pointer:?} is no JSON pointer: those begin with /"));
        }
    }

    fn at_data(&mut self, data: &Data, config_version: u32) {
        for (number, manifest) in data.manifests.iter().enumerate() {
            self.at_manifest(&format!("[[manifest]] {}", number + 1), manifest);
        }
        for (name, value) in data.values_in_order() {
            self.strings(&format!("[values] {name}"), value);
        }
        for object in &data.objects {
            self.when(&format!("[[object]] {}", object.file), object.when.as_deref());
        }
        for (number, check) in data.checks.iter().enumerate() {
            let place = format!("[[check]] {}", number + 1);
            self.when(&place, Some(&check.when));
            self.pointer(&place, &check.path);
            self.string(&place, &check.message);
            self.string(&place, &check.hint);
        }
        for rule in &data.readiness {
            self.at_readiness(&format!("[[readiness]] {} {}", rule.api_version, rule.kind), rule);
        }
        for (number, node) in data.nodes.iter().enumerate() {
            self.at_node(&format!("[[node]] {}", number + 1), node);
        }
        for secret in &data.secrets {
            self.when(&format!("[[secret]] {}", secret.handle), secret.when.as_deref());
        }
        for output in &data.outputs {
            let place = format!("[[output]] {}", output.name);
            self.when(&place, output.when.as_deref());
            self.string(&place, &output.value);
        }
        for step in &data.migrations {
            let place = format!("[[migrate]] from = {}", step.from);
            if step.from == 0 || step.from >= config_version {
                self.mistake(&place, format!("config_version is {config_version}: expected one before that"));
            }
            let pointers = step.rename.iter().flat_map(|(from, to)| [from, to]);
            for pointer in pointers.chain(step.set.keys()).chain(&step.remove) {
                if !pointer.starts_with('/') {
                    self.mistake(&place, format!("{pointer:?} is no place in a config: those begin with /"));
                }
            }
        }
    }

    fn at_manifest(&mut self, place: &str, manifest: &ManifestTable) {
        self.when(place, manifest.when.as_deref());
        if !manifest.url.starts_with("https://") {
            self.mistake(place, format!("url = {:?}: only https is fetched", manifest.url));
        }
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if manifest.sha256.len() != 64 || !manifest.sha256.bytes().all(is_digit) {
            self.mistake(place, format!("sha256 = {:?}: expected 64 hex digits", manifest.sha256));
        }
        for (number, patch) in manifest.patches.iter().enumerate() {
            let place = format!("{place}, [[manifest.patch]] {}", number + 1);
            self.when(&place, patch.when.as_deref());
            self.pointer(&place, &patch.path);
            let names = [&patch.group, &patch.kind, &patch.namespace, &patch.name, &patch.path];
            names.into_iter().for_each(|text| self.string(&place, text));
            match (&patch.value, patch.op == Operation::Remove) {
                (Some(value), false) => self.strings(&place, value),
                (None, true) => {}
                (Some(_), true) => self.mistake(&place, "what is removed has no value"),
                (None, false) => self.mistake(&place, format!("{} needs a value", patch.op.name())),
            }
        }
    }

    fn at_readiness(&mut self, place: &str, rule: &ReadinessTable) {
        let given = [rule.condition.is_some(), rule.field.is_some(), rule.exists];
        if given.iter().filter(|given| **given).count() != 1 {
            self.mistake(place, "expected one of condition, field and exists = true");
        }
    }

    fn at_node(&mut self, place: &str, node: &NodeTable) {
        self.when(place, node.when.as_deref());
        let given =
            [node.cni.is_some(), node.sysctl.is_some(), node.module.is_some(), node.registry.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            self.mistake(place, "expected one of cni, sysctl, module and registry");
        }
        let mut texts: Vec<&String> = node.module.iter().chain([&node.why]).collect();
        texts.extend(node.cni.iter().map(|cni| &cni.config_file));
        texts.extend(node.sysctl.iter().flat_map(|sysctl| [&sysctl.key, &sysctl.value]));
        if let Some(registry) = &node.registry {
            texts.extend([&registry.host, &registry.ca_pem]);
            texts.extend(&registry.mirrors);
        }
        texts.into_iter().for_each(|text| self.string(place, text));
    }
}
