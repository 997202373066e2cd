//! A plugin's config: from a file, from single values on the command line, and where its parts stand in that file.

use std::path::Path;

use k8sctl_proto::control::v1 as control;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::{self, ConfigPlaces};
use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;

use crate::cli::ValueArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::spec_file;
use crate::terminal::Context;
use crate::view::DiagnosticView;

/// A config, and what is known of where it came from.
#[derive(Debug)]
pub(super) struct Values {
    config: Map<String, Value>,
    /// Of the file, for messages.
    name: String,
    /// The file, where it is one whose places are known: TOML.
    text: String,
    places: ConfigPlaces,
}

impl Values {
    /// From the file, and the single values over it.
    pub(super) fn of(args: &ValueArgs, plugin: &str) -> Result<Self, Ended> {
        Self::over(args, plugin, Map::new())
    }

    /// The same; where there is no file, the single values go over the config that is there.
    pub(super) fn over(args: &ValueArgs, plugin: &str, there: Map<String, Value>) -> Result<Self, Ended> {
        let mut values = match &args.config {
            None => Self { config: there, ..Self::none(plugin) },
            Some(path) => {
                let name = path.display().to_string();
                let read = read(path).map_err(|reason| mistake(format!("file {name}"), reason))?;
                Self { name, ..read }
            }
        };
        for pair in &args.set {
            set(&mut values.config, pair).map_err(|reason| mistake(format!("--set {pair}"), reason))?;
        }
        Ok(values)
    }

    /// Nothing is said of a config.
    pub(super) fn none(plugin: &str) -> Self {
        Self {
            config: Map::new(),
            name: format!("config of {plugin}"),
            text: String::new(),
            places: ConfigPlaces::default(),
        }
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> String {
        Value::Object(self.config.clone()).to_string()
    }

    /// Name of the file, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the plugin says of it, with the places in the file: warnings are shown; where there is more than those, all is
    /// shown and ends the run.
    pub(super) fn judge(&self, context: &Context, found: Vec<control::Diagnostic>) -> Result<(), Ended> {
        let found: Vec<_> = found.into_iter().map(|one| self.placed(one.into())).collect();
        if found.iter().all(|one| one.warning) {
            return Ok(spec_file::warn(context, &self.name, &self.text, &found)?);
        }
        spec_file::report(context, &self.name, &self.text, &found)?;
        Err(Ended::Reported(Exit::InvalidSpec))
    }

    fn placed(&self, found: DiagnosticView) -> DiagnosticView {
        match self.places.of(&found.field) {
            Some((line, column)) if found.line == 0 => DiagnosticView { line, column, ..found },
            _ => found,
        }
    }
}

fn mistake(object: String, reason: String) -> Ended {
    let next =
        "write TOML, YAML (.yaml) or JSON (.json) in the file, and --set KEY=VALUE, like --set replicas=2";
    Ended::with(Exit::InvalidSpec, Failure::new("PLUGIN-CONFIG", object, reason, next))
}

/// What a file holds.
fn read(path: &Path) -> Result<Values, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"))?;
    let value: Value = match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        Some("yaml" | "yml") => from_yaml(&text)?,
        _ => {
            let read = spec::plugin_config_places(&text);
            let (config, places) = read.map_err(|mistakes| mistakes.join("; "))?;
            return Ok(Values { config, text, places, ..Values::none("") });
        }
    };
    match value {
        Value::Object(config) => Ok(Values { config, ..Values::none("") }),
        _ => Err("it holds no table of keys and values".to_owned()),
    }
}

fn from_yaml(text: &str) -> Result<Value, String> {
    let value: Yaml = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    match not_finite(&value, "") {
        Some(told) => Err(told),
        None => serde_json::to_value(value).map_err(|error| error.to_string()),
    }
}

/// The first number that JSON cannot hold: it would silently become `null`.
fn not_finite(value: &Yaml, at: &str) -> Option<String> {
    match value {
        Yaml::Number(number) if number.as_f64().is_none_or(|number| !number.is_finite()) => {
            Some(format!("{at}: JSON cannot hold the number {number}; write it as a string, or leave it out"))
        }
        Yaml::Sequence(items) => {
            items.iter().enumerate().find_map(|(index, item)| not_finite(item, &format!("{at}[{index}]")))
        }
        Yaml::Mapping(entries) => entries.iter().find_map(|(key, value)| {
            let key = key.as_str().unwrap_or("?");
            not_finite(value, &if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") })
        }),
        Yaml::Tagged(tagged) => not_finite(&tagged.value, at),
        _ => None,
    }
}

/// `a.b=value`: the value is JSON where it can be, else text.
fn set(config: &mut Map<String, Value>, pair: &str) -> Result<(), String> {
    let (path, text) = pair.split_once('=').ok_or("it has no =")?;
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let (parents, last) = match path.rsplit_once('.') {
        Some((parents, last)) => (parents.split('.').collect(), last),
        None => (Vec::new(), path),
    };
    if last.is_empty() || parents.contains(&"") {
        return Err("a part of its key is empty".to_owned());
    }
    let mut table = config;
    for parent in parents {
        let slot = table.entry(parent).or_insert_with(|| Value::Object(Map::new()));
        table = slot.as_object_mut().ok_or_else(|| format!("{parent} is a value, not a table"))?;
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_cannot_hold_is_refused_and_dates_are_texts() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("writes");
            super::read(&path).map(|values| values.config)
        };
        let toml = read("c.toml", "since = 2026-01-01T00:00:00Z\n[node]\nday = 2026-01-01\n").expect("sound");
        let expected = serde_json::json!({"since": "2026-01-01T00:00:00Z", "node": {"day": "2026-01-01"}});
        assert_eq!(Value::Object(toml), expected);
        let yaml = read("c.yaml", "since: 2026-01-01\nlist: [1, 1.5, on]\n7: true\n").expect("sound");
        let expected = serde_json::json!({"since": "2026-01-01", "list": [1, 1.5, "on"], "7": true});
        assert_eq!(Value::Object(yaml), expected);
        for (name, text, told) in [
            ("c.toml", "a = 1\nb.c = [-inf]\nd = nan\n", "line 2: b.c[0]: JSON cannot hold the number -inf"),
            ("c.toml", "a = 1\nb.c = [-inf]\nd = nan\n", "; line 3: d: JSON cannot hold the number nan"),
            ("c.yaml", "a: 1\nb: {c: [1, -.inf]}\n", "b.c[1]: JSON cannot hold the number -.inf"),
            ("c.yml", "a: .nan\n", "a: JSON cannot hold the number .nan"),
            ("c.yaml", "- a\n", "it holds no table"),
            ("c.json", "[1]", "it holds no table"),
        ] {
            let refused = read(name, text).expect_err(text);
            assert!(refused.contains(told) && !refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn values_are_set_by_path() {
        let mut config = Map::new();
        for pair in ["replicas=2", "ingress.host=home.example", "on=true", "ingress.port=80"] {
            set(&mut config, pair).expect("a pair");
        }
        let expected =
            serde_json::json!({"replicas": 2, "on": true, "ingress": {"host": "home.example", "port": 80}});
        assert_eq!(Value::Object(config.clone()), expected);
        assert!(set(&mut config, "replicas.x=1").is_err());
        assert!(set(&mut config, "novalue").is_err());
        assert!(set(&mut config, "a..b=1").is_err());
    }

    #[test]
    fn what_a_plugin_says_is_placed_in_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "replicas = 3\n\n[page]\ntitle = \"\"\n").expect("writes");
        let args = ValueArgs { config: Some(file), set: Vec::new() };
        let values = Values::of(&args, "hello").expect("sound");
        let found =
            |field: &str, line| control::Diagnostic { field: field.to_owned(), line, ..Default::default() };
        let placed = values.placed(found("/page/title", 0).into());
        assert_eq!((placed.line, placed.column), (4, 1), "where its key stands");
        assert_eq!(values.placed(found("/page/title", 9).into()).line, 9, "the host agent knew it");
        assert_eq!(Values::none("hello").placed(found("/page/title", 0).into()).line, 0);
    }

    #[test]
    fn a_file_is_instead_of_what_is_there_and_values_are_over_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "a = 1\n").expect("writes");
        let there = || Map::from_iter([("b".to_owned(), Value::from(2))]);
        let args = |config: Option<&Path>| ValueArgs {
            config: config.map(Path::to_owned),
            set: vec!["c=3".to_owned()],
        };
        let over = |args: &ValueArgs| Values::over(args, "hello", there()).expect("sound").to_json();
        assert_eq!(over(&args(None)), r#"{"b":2,"c":3}"#);
        assert_eq!(over(&args(Some(file.as_path()))), r#"{"a":1,"c":3}"#);
        assert_eq!(Values::none("hello").to_json(), "{}");
    }
}
