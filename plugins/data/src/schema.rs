//! Whether a config fits `schema.json`, and the defaults that it leaves out. The host agent has a whole validator and asks
//! it first; this one takes the keywords that schemas of data plugins are made of and refuses a schema with any other, so
//! that a plugin that is asked directly refuses what its schema refuses.

use std::collections::BTreeMap;

use plugin_sdk::Diagnostic;
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// Largest compiled pattern, in bytes: as of the host agent.
const PATTERN_BYTES: usize = 1 << 20;
/// Levels of schema and config together.
const DEPTH: usize = 200;
/// What a user can read.
const MISTAKES: usize = 100;

/// Keywords that say something about a schema, and nothing about a config.
const REMARKS: [&str; 8] =
    ["$schema", "$comment", "title", "description", "default", "examples", "deprecated", "format"];
const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "integer", "string"];

/// A schema whose every keyword is known.
pub(crate) struct Schema {
    root: Value,
    patterns: BTreeMap<String, Regex>,
}

impl Schema {
    /// The error has every mistake of the schema.
    pub(crate) fn read(root: Value) -> Result<Self, Vec<String>> {
        let mut schema = Self { patterns: BTreeMap::new(), root: Value::Null };
        let mut mistakes = Vec::new();
        schema.look(&root, &root, "", DEPTH, &mut mistakes);
        if root["type"] != "object" || root["additionalProperties"] != Value::Bool(false) {
            mistakes.push(
                "a config is an object, and closed: type \"object\", additionalProperties false".into(),
            );
        }
        schema.root = root;
        if mistakes.is_empty() { Ok(schema) } else { Err(mistakes) }
    }

    pub(crate) fn root(&self) -> &Value {
        &self.root
    }

    /// All mistakes of a config, with their places.
    pub(crate) fn mistakes(&self, config: &Value) -> Vec<Diagnostic> {
        let mut check = Check { schema: self, mistakes: Vec::new() };
        check.apply(&self.root, config, &mut String::new(), DEPTH);
        check.mistakes.truncate(MISTAKES);
        check.mistakes
    }

    /// The config with what it leaves out and the schema has a default for.
    pub(crate) fn with_defaults(&self, config: &Value) -> Value {
        let mut config = config.clone();
        self.fill(&self.root, &mut config, DEPTH);
        config
    }

    fn look(&mut self, root: &Value, schema: &Value, at: &str, depth: usize, mistakes: &mut Vec<String>) {
        let Value::Object(keywords) = schema else {
            if !schema.is_boolean() {
                mistakes.push(format!("schema.json#{at}: {schema} is no schema"));
            }
            return;
        };
        let Some(depth) = depth.checked_sub(1) else {
            mistakes.push(format!("schema.json: nested more than {DEPTH} levels"));
            return;
        };
        for (keyword, value) in keywords {
            let at = format!("{at}/{}", escaped(keyword));
            match (keyword.as_str(), value) {
                ("properties" | "$defs", Value::Object(parts)) => {
                    for (name, part) in parts {
                        self.look(root, part, &format!("{at}/{}", escaped(name)), depth, mistakes);
                    }
                }
                ("additionalProperties" | "items" | "not", part) => {
                    self.look(root, part, &at, depth, mistakes)
                }
                ("anyOf" | "oneOf" | "allOf", Value::Array(parts)) if !parts.is_empty() => {
                    for (index, part) in parts.iter().enumerate() {
                        self.look(root, part, &format!("{at}/{index}"), depth, mistakes);
                    }
                }
                ("pattern", Value::String(pattern)) => match compiled(pattern) {
                    Ok(regex) => {
                        self.patterns.insert(pattern.clone(), regex);
                    }
                    Err(why) => mistakes.push(format!("schema.json#{at}: {why}")),
                },
                (keyword, value) if is_well_formed(root, keyword, value) => {}
                _ => mistakes.push(format!("schema.json#{at}: a data plugin's schema may not have this")),
            }
        }
    }

    fn fill(&self, schema: &Value, config: &mut Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        if let Some(referred) = referred(&self.root, schema) {
            self.fill(referred, config, depth);
        }
        match config {
            Value::Object(fields) => {
                for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                    if let Some(default) = default_of(&self.root, property) {
                        fields.entry(name.clone()).or_insert_with(|| default.clone());
                    }
                    if let Some(field) = fields.get_mut(name) {
                        self.fill(property, field, depth);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.fill(&schema["items"], item, depth)),
            _ => {}
        }
    }
}

/// JSON pointers have two signs of their own.
fn escaped(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build().map_err(|error| error.to_string())
}

/// What a schema's `$ref` leads to.
fn referred<'a>(root: &'a Value, schema: &Value) -> Option<&'a Value> {
    let place = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
    root.pointer(place)
}

fn default_of<'a>(root: &'a Value, schema: &'a Value) -> Option<&'a Value> {
    schema.get("default").or_else(|| referred(root, schema)?.get("default"))
}

/// Keywords without schemas in them.
fn is_well_formed(root: &Value, keyword: &str, value: &Value) -> bool {
    let is_type = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
    match keyword {
        "type" => is_type(value) || value.as_array().is_some_and(|names| names.iter().all(is_type)),
        "enum" => value.is_array(),
        "const" => true,
        "required" => value.as_array().is_some_and(|names| names.iter().all(Value::is_string)),
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
            value.is_u64()
        }
        "uniqueItems" => value.is_boolean(),
        "$ref" => value.as_str().and_then(|place| place.strip_prefix('#')).is_some_and(|place| {
            (place.is_empty() || place.starts_with('/')) && root.pointer(place).is_some()
        }),
        _ => REMARKS.contains(&keyword) || keyword.starts_with("x-"),
    }
}

/// Numbers are the same however they are written.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_in_other =
                |(key, value): (&String, &Value)| other.get(key).is_some_and(|it| same(value, it));
            one.len() == other.len() && one.iter().all(is_in_other)
        }
        _ => one == other,
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|it| it.fract() == 0.0),
        _ => false,
    }
}

/// One config on its way through a schema.
struct Check<'a> {
    schema: &'a Schema,
    mistakes: Vec<Diagnostic>,
}

impl Check<'_> {
    fn mistake(&mut self, path: &str, message: String) {
        self.mistakes.push(Diagnostic::error(path, message, ""));
    }

    /// Whether a value fits, without telling why not.
    fn fits(&self, schema: &Value, value: &Value, depth: usize) -> bool {
        let mut check = Check { schema: self.schema, mistakes: Vec::new() };
        check.apply(schema, value, &mut String::new(), depth);
        check.mistakes.is_empty()
    }

    fn apply(&mut self, schema: &Value, value: &Value, path: &mut String, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else {
            self.mistake(path, format!("nested more than {DEPTH} levels"));
            return;
        };
        if *schema == Value::Bool(false) {
            self.mistake(path, "there is no such setting".to_owned());
        }
        let Value::Object(keywords) = schema else { return };
        if let Some(referred) = referred(&self.schema.root, schema) {
            self.apply(referred, value, path, depth);
        }
        self.plain(keywords, value, path);
        self.choices(keywords, value, path, depth);
        match value {
            Value::Object(fields) => self.fields(keywords, fields, path, depth),
            Value::Array(items) => self.items(keywords, items, path, depth),
            _ => {}
        }
    }

    /// Keywords of a value by itself.
    fn plain(&mut self, keywords: &Map<String, Value>, value: &Value, path: &str) {
        if let Some(wanted) = keywords.get("type") {
            let fits = match wanted {
                Value::String(name) => is_of_type(value, name),
                _ => wanted
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .any(|it| is_of_type(value, it)),
            };
            if !fits {
                self.mistake(path, format!("{value} is not of type {wanted}"));
            }
        }
        if let Some(choice) = keywords.get("enum").and_then(Value::as_array)
            && !choice.iter().any(|it| same(it, value))
        {
            self.mistake(path, format!("{value} is none of {}", Value::from(choice.clone())));
        }
        if let Some(only) = keywords.get("const")
            && !same(only, value)
        {
            self.mistake(path, format!("{value} is not {only}"));
        }
        if let Some(number) = value.as_f64() {
            let limit = |name: &str| keywords.get(name).and_then(Value::as_f64);
            for (is_out, how, limit) in [
                (limit("minimum").is_some_and(|it| number < it), "less than", limit("minimum")),
                (limit("maximum").is_some_and(|it| number > it), "more than", limit("maximum")),
                (
                    limit("exclusiveMinimum").is_some_and(|it| number <= it),
                    "not more than",
                    limit("exclusiveMinimum"),
                ),
                (
                    limit("exclusiveMaximum").is_some_and(|it| number >= it),
                    "not less than",
                    limit("exclusiveMaximum"),
                ),
            ] {
                if is_out {
                    self.mistake(path, format!("{value} is {how} {}", limit.unwrap_or_default()));
                }
            }
        }
        if let Some(text) = value.as_str() {
            self.length(keywords, ["minLength", "maxLength"], text.chars().count(), path);
            if let Some(pattern) = keywords.get("pattern").and_then(Value::as_str)
                && !self.schema.patterns.get(pattern).is_some_and(|regex| regex.is_match(text))
            {
                self.mistake(path, format!("{value} does not fit the pattern {pattern}"));
            }
        }
    }

    fn length(&mut self, keywords: &Map<String, Value>, names: [&str; 2], length: usize, path: &str) {
        let limit = |name: &str| keywords.get(name).and_then(Value::as_u64);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        if let Some(least) = limit(names[0]).filter(|least| length < *least) {
            self.mistake(path, format!("{length} long, expected at least {least}"));
        }
        if let Some(most) = limit(names[1]).filter(|most| length > *most) {
            self.mistake(path, format!("{length} long, expected at most {most}"));
        }
    }

    /// How many schemas of a keyword a value fits; `None`: the keyword is not there.
    fn fitting(
        &self,
        keywords: &Map<String, Value>,
        name: &str,
        value: &Value,
        depth: usize,
    ) -> Option<usize> {
        let parts = keywords.get(name)?.as_array()?;
        Some(parts.iter().filter(|part| self.fits(part, value, depth)).count())
    }

    fn choices(&mut self, keywords: &Map<String, Value>, value: &Value, path: &mut String, depth: usize) {
        for part in keywords.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.apply(part, value, path, depth);
        }
        if self.fitting(keywords, "anyOf", value, depth) == Some(0) {
            self.mistake(path, format!("{value} fits none of the choices"));
        }
        if let Some(fit) = self.fitting(keywords, "oneOf", value, depth).filter(|fit| *fit != 1) {
            self.mistake(path, format!("{value} fits {fit} of the choices, expected one"));
        }
        if keywords.get("not").is_some_and(|part| self.fits(part, value, depth)) {
            self.mistake(path, format!("{value} is excluded"));
        }
    }

    fn fields(
        &mut self,
        keywords: &Map<String, Value>,
        fields: &Map<String, Value>,
        path: &mut String,
        depth: usize,
    ) {
        self.length(keywords, ["minProperties", "maxProperties"], fields.len(), path);
        for name in
            keywords.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !fields.contains_key(name) {
                self.mistake(path, format!("{name} is missing"));
            }
        }
        let properties = keywords.get("properties").and_then(Value::as_object);
        for (name, field) in fields {
            let part =
                properties.and_then(|it| it.get(name)).or_else(|| keywords.get("additionalProperties"));
            let Some(part) = part else { continue };
            let end = path.len();
            path.push('/');
            path.push_str(&escaped(name));
            self.apply(part, field, path, depth);
            path.truncate(end);
        }
    }

    fn items(&mut self, keywords: &Map<String, Value>, items: &[Value], path: &mut String, depth: usize) {
        self.length(keywords, ["minItems", "maxItems"], items.len(), path);
        let repeats = |(at, item): (usize, &Value)| items[..at].iter().any(|before| same(before, item));
        if keywords.get("uniqueItems") == Some(&Value::Bool(true)) && items.iter().enumerate().any(repeats) {
            self.mistake(path, "the same item twice".to_owned());
        }
        let Some(part) = keywords.get("items") else { return };
        for (index, item) in items.iter().enumerate() {
            let end = path.len();
            path.push_str(&format!("/{index}"));
            self.apply(part, item, path, depth);
            path.truncate(end);
        }
    }
}

#[cfg(test)]
mod tests;
