//! Counts what a validator would do with a schema, references followed, before it does anything: a few hundred bytes
//! can ask for more steps than anybody waits for, or nest deeper than a stack.
//!
//! Two kinds of keywords lead on. Those that apply to the same value (`allOf`, `$ref`, …) must come to an end by
//! themselves; those that lead into the value (`properties`, `items`, …) may come back to where they began, as in a
//! tree: there the config decides how far it goes.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Most subschemas, one that is referred to counted each time.
const SUBSCHEMAS: usize = 10_000;
/// Most steps with one config: about one for each keyword or choice at each value.
pub(super) const STEPS: usize = 1_000_000;
/// Most steps down without one into the value.
const DEPTH: usize = 64;
/// Most steps down with one config.
pub(super) const DEPTH_WITH: usize = 1024;
/// Most patterns, which are compiled one by one.
const PATTERNS: usize = 100;
/// Longest pattern, in bytes.
const PATTERN_LIMIT: usize = 1024;
/// How often `unevaluatedProperties` and `unevaluatedItems` have their neighbours looked at: as such, again to know
/// which of them hold, and for what those have looked at.
const AGAIN: usize = 3;

pub(super) type Keywords = Map<String, Value>;

/// Whether the schema by itself stays within all limits.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    check_names(schema)?;
    let mut walk = Walk { root: schema, left: SUBSCHEMAS, patterns: HashSet::new(), next: vec![schema] };
    let mut begun: HashSet<*const Value> = HashSet::new();
    while let Some(schema) = walk.next.pop() {
        if begun.insert(schema) {
            walk.visit(schema, 0)?;
        }
    }
    Ok(())
}

/// Whether this config keeps a checked schema within the limits.
pub(super) fn check_with(schema: &Value, config: &Value) -> Result<(), String> {
    Visits { root: schema, left: STEPS }.apply(schema, config, 0)
}

/// What lies below another `$id` or `$schema` refers to other things than it seems to.
fn check_names(schema: &Value) -> Result<(), String> {
    let mut values: Vec<&Value> = children(schema).collect();
    while let Some(value) = values.pop() {
        for name in ["$id", "$schema"] {
            if value.get(name).is_some_and(Value::is_string) {
                return Err(format!("its schema has {name} in a part of it; only the whole may have one"));
            }
        }
        values.extend(children(value));
    }
    Ok(())
}

pub(super) fn children(value: &Value) -> impl Iterator<Item = &Value> {
    let members = value.as_object().into_iter().flat_map(Map::values);
    members.chain(value.as_array().into_iter().flatten())
}

struct Walk<'a> {
    root: &'a Value,
    left: usize,
    patterns: HashSet<&'a str>,
    /// Where the next value is looked at.
    next: Vec<&'a Value>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, schema: &'a Value, depth: usize) -> Result<(), String> {
        let too_many = || format!("its schema has more than {SUBSCHEMAS} subschemas, references followed");
        self.left = self.left.checked_sub(1).ok_or_else(too_many)?;
        if depth > DEPTH {
            return Err(format!(
                "its schema goes down more than {DEPTH} levels without a step into the config, or for ever"
            ));
        }
        let Value::Object(keywords) = schema else { return Ok(()) };
        self.look_at_patterns(keywords)?;
        for child in in_place(self.root, keywords)? {
            for _ in 0..times(keywords) {
                self.visit(child, depth + 1)?;
            }
        }
        self.next.extend(into_the_value(keywords));
        Ok(())
    }

    fn look_at_patterns(&mut self, keywords: &'a Keywords) -> Result<(), String> {
        let names = keywords.get("patternProperties").and_then(Value::as_object);
        let names = names.into_iter().flat_map(Map::keys).map(String::as_str);
        for pattern in names.chain(keywords.get("pattern").and_then(Value::as_str)) {
            if pattern.len() > PATTERN_LIMIT {
                return Err(format!("its schema has a pattern of more than {PATTERN_LIMIT} bytes"));
            }
            self.patterns.insert(pattern);
        }
        if self.patterns.len() > PATTERNS {
            return Err(format!("its schema has more than {PATTERNS} patterns"));
        }
        Ok(())
    }
}

struct Visits<'a> {
    root: &'a Value,
    left: usize,
}

impl<'a> Visits<'a> {
    fn apply(&mut self, schema: &'a Value, value: &Value, depth: usize) -> Result<(), String> {
        let Value::Object(keywords) = schema else { return self.spend(1) };
        self.spend(1 + keywords.values().map(length).sum::<usize>())?;
        if depth > DEPTH_WITH {
            return Err(format!("its schema goes down more than {DEPTH_WITH} levels with this config"));
        }
        for _ in 0..times(keywords) {
            for child in in_place(self.root, keywords)? {
                self.apply(child, value, depth + 1)?;
            }
            match value {
                Value::Object(members) => {
                    for (name, value) in members {
                        self.apply_to_member(keywords, name, value, depth + 1)?;
                    }
                }
                Value::Array(items) => {
                    for (index, value) in items.iter().enumerate() {
                        self.apply_to_item(keywords, index, value, depth + 1)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn apply_to_member(
        &mut self,
        keywords: &'a Keywords,
        name: &str,
        value: &Value,
        depth: usize,
    ) -> Result<(), String> {
        let known = keywords.get("properties").and_then(|properties| properties.get(name));
        let patterns = keywords.get("patternProperties").and_then(Value::as_object);
        let others = ["additionalProperties", "unevaluatedProperties"].map(|keyword| keywords.get(keyword));
        let others = others.into_iter().flatten().filter(|_| known.is_none());
        for schema in known.into_iter().chain(patterns.into_iter().flat_map(Map::values)).chain(others) {
            self.apply(schema, value, depth)?;
        }
        // Nothing leads on from a name.
        keywords.get("propertyNames").map_or(Ok(()), |schema| self.apply(schema, &Value::Null, depth))
    }

    fn apply_to_item(
        &mut self,
        keywords: &'a Keywords,
        index: usize,
        value: &Value,
        depth: usize,
    ) -> Result<(), String> {
        let first = keywords.get("prefixItems").and_then(|items| items.get(index));
        let others =
            ["items", "additionalItems", "contains", "unevaluatedItems"].map(|keyword| keywords.get(keyword));
        for schema in first.into_iter().chain(others.into_iter().flatten()) {
            self.apply(schema, value, depth)?;
        }
        Ok(())
    }

    fn spend(&mut self, steps: usize) -> Result<(), String> {
        let too_many = || format!("its schema takes more than {STEPS} steps with this config");
        self.left = self.left.checked_sub(steps).ok_or_else(too_many)?;
        Ok(())
    }
}

/// What applies to the same value.
pub(super) fn in_place<'a>(root: &'a Value, keywords: &'a Keywords) -> Result<Vec<&'a Value>, String> {
    let one = ["not", "if", "then", "else"].into_iter().filter_map(|keyword| keywords.get(keyword));
    let many = ["allOf", "anyOf", "oneOf", "dependentSchemas", "dependencies"];
    let many = many.into_iter().filter_map(|keyword| keywords.get(keyword)).flat_map(children);
    let mut all: Vec<&Value> = one.chain(many).collect();
    if let Some(reference) = keywords.get("$ref").and_then(Value::as_str) {
        all.push(target(root, reference)?);
    }
    if let Some(keyword) = ["$dynamicRef", "$recursiveRef"].iter().find(|name| keywords.contains_key(**name))
    {
        return Err(format!("its schema has {keyword}; only $ref is followed"));
    }
    Ok(all)
}

/// What applies to the members or items of the value.
fn into_the_value(keywords: &Keywords) -> impl Iterator<Item = &Value> {
    let one = [
        "items",
        "additionalItems",
        "contains",
        "propertyNames",
        "additionalProperties",
        "unevaluatedItems",
        "unevaluatedProperties",
    ];
    let many = ["properties", "patternProperties", "prefixItems"];
    let one = one.into_iter().filter_map(|keyword| keywords.get(keyword));
    one.chain(many.into_iter().filter_map(|keyword| keywords.get(keyword)).flat_map(children))
}

/// Where a reference leads. Exactly as written: what stands for something else could lead the validator elsewhere.
pub(super) fn target<'a>(root: &'a Value, reference: &str) -> Result<&'a Value, String> {
    let pointer = reference.strip_prefix('#').filter(|pointer| !pointer.contains('%'));
    pointer.and_then(|pointer| root.pointer(pointer)).ok_or_else(|| {
        format!("its schema refers to {reference:?}; expected # or #/… to a place in it, without %")
    })
}

fn times(keywords: &Keywords) -> usize {
    let looks_again =
        ["unevaluatedProperties", "unevaluatedItems"].iter().any(|it| keywords.contains_key(*it));
    if looks_again { AGAIN } else { 1 }
}

fn length(value: &Value) -> usize {
    value.as_array().map(Vec::len).or_else(|| value.as_object().map(Map::len)).unwrap_or_default()
}
