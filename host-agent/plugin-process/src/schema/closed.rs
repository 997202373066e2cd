//! What a package's schema must be beside a schema, so that a mistyped setting is a mistake and every setting is explained:
//! closed, described, with defaults that it takes itself. Asked by authors' tools and by conformance, not when a plugin
//! runs.

use std::collections::HashSet;
use std::thread;

use serde_json::{Map, Value};

use super::walk::{Keywords, children, target};
use super::{ConfigSchema, STACK, escaped};

/// Defaults that are tried; more are passed over.
const DEFAULTS: usize = 200;

/// Everything that a package's schema lacks, sorted; empty: nothing. Each names its place in the schema.
pub fn complaints(schema: &Value) -> Vec<String> {
    thread::scope(|scope| {
        let work = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || look(schema));
        let found = work.map(thread::ScopedJoinHandle::join);
        match found {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => vec!["the schema is more than the validator can take".to_owned()],
            Err(error) => vec![format!("the schema cannot be looked at: {error}")],
        }
    })
}

fn look(schema: &Value) -> Vec<String> {
    // Also bounds what comes here.
    if let Err(why) = ConfigSchema::new(schema) {
        return vec![why];
    }
    let mut look = Look { root: schema, found: Vec::new(), next: Vec::new(), defaults: 0 };
    look.next.push(Place { at: "#".to_owned(), schema, closed: false, whole: true });
    let mut seen: HashSet<(*const Value, bool, bool)> = HashSet::new();
    while let Some(place) = look.next.pop() {
        if seen.insert((std::ptr::from_ref(place.schema), place.closed, place.whole)) {
            look.visit(&place);
        }
    }
    look.found.sort();
    look.found.dedup();
    look.found
}

struct Place<'a> {
    at: String,
    schema: &'a Value,
    /// Another schema for the same value lets nothing unknown through.
    closed: bool,
    /// It is all that is said of a value, and no part of something else.
    whole: bool,
}

struct Look<'a> {
    root: &'a Value,
    found: Vec<String>,
    next: Vec<Place<'a>>,
    defaults: usize,
}

impl<'a> Look<'a> {
    fn visit(&mut self, place: &Place<'a>) {
        let at = &place.at;
        let keywords = match place.schema {
            Value::Object(keywords) => keywords,
            Value::Bool(true) if place.whole => {
                self.found.push(format!("{at} takes anything: expected a type"));
                return;
            }
            _ => return,
        };
        if place.whole && !says_what_it_takes(keywords) {
            self.found.push(format!("{at} takes anything: expected a type"));
        }
        let closed = place.closed || closes(keywords);
        if is_object(keywords) && !closed {
            self.found
                .push(format!("{at} takes settings that nobody reads: expected additionalProperties: false"));
        }
        self.check_default(at, keywords);
        self.go_on(at, keywords, closed);
    }

    fn go_on(&mut self, at: &str, keywords: &'a Keywords, closed: bool) {
        for (name, schema) in members(keywords, "properties") {
            let at = format!("{at}/properties/{}", escaped(name));
            if !self.is_described(schema, 0) {
                self.found.push(format!("{at} has neither title nor description"));
            }
            self.next.push(Place { at, schema, closed: false, whole: true });
        }
        for keyword in ["items", "additionalProperties", "unevaluatedProperties"] {
            if let Some(schema @ Value::Object(_)) = keywords.get(keyword) {
                self.next.push(Place { at: format!("{at}/{keyword}"), schema, closed: false, whole: true });
            }
        }
        for keyword in ["prefixItems", "patternProperties"] {
            for schema in keywords.get(keyword).into_iter().flat_map(children) {
                self.next.push(Place { at: format!("{at}/{keyword}"), schema, closed: false, whole: true });
            }
        }
        for keyword in ["allOf", "anyOf", "oneOf", "dependentSchemas"] {
            for schema in keywords.get(keyword).into_iter().flat_map(children) {
                self.next.push(Place { at: format!("{at}/{keyword}"), schema, closed, whole: false });
            }
        }
        for keyword in ["then", "else"] {
            if let Some(schema) = keywords.get(keyword) {
                self.next.push(Place { at: format!("{at}/{keyword}"), schema, closed, whole: false });
            }
        }
        if let Some(reference) = keywords.get("$ref").and_then(Value::as_str)
            && let Ok(schema) = target(self.root, reference)
        {
            self.next.push(Place { at: reference.to_owned(), schema, closed, whole: false });
        }
    }

    /// By itself, or by what it refers to.
    fn is_described(&self, schema: &'a Value, depth: usize) -> bool {
        const DEPTH: usize = 64;
        let Value::Object(keywords) = schema else { return false };
        let says = |name: &str| {
            keywords.get(name).and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty())
        };
        if says("title") || says("description") {
            return true;
        }
        let mut parts: Vec<&Value> = Vec::new();
        parts.extend(keywords.get("$ref").and_then(Value::as_str).and_then(|it| target(self.root, it).ok()));
        for choice in ["allOf", "anyOf"] {
            parts.extend(keywords.get(choice).and_then(Value::as_array).into_iter().flatten());
        }
        depth < DEPTH && parts.into_iter().any(|part| self.is_described(part, depth + 1))
    }

    fn check_default(&mut self, at: &str, keywords: &Keywords) {
        let Some(default) = keywords.get("default") else { return };
        self.defaults += 1;
        if self.defaults > DEFAULTS {
            return;
        }
        // Alone, with what it may refer to. References to other places would lead elsewhere in it.
        let mut alone = keywords.clone();
        for definitions in ["$defs", "definitions"] {
            if let Some(schemas) = self.root.get(definitions) {
                alone.insert(definitions.to_owned(), schemas.clone());
            }
        }
        let alone = Value::Object(alone);
        if !refers_to_definitions_only(&alone) {
            return;
        }
        let mistakes = ConfigSchema::new(&alone).and_then(|schema| schema.mistakes(default));
        match mistakes {
            Ok(mistakes) => {
                let found = mistakes.into_iter().map(|mistake| {
                    format!("{at} has a default that it does not take: {}: {}", mistake.path, mistake.message)
                });
                self.found.extend(found);
            }
            Err(why) => self.found.push(format!("{at} has a default that cannot be checked: {why}")),
        }
    }
}

fn members<'a>(keywords: &'a Keywords, keyword: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    keywords.get(keyword).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn is_object(keywords: &Keywords) -> bool {
    let says = match keywords.get("type") {
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        _ => false,
    };
    says || keywords.contains_key("properties")
}

/// Nothing unknown gets through, or the keys are the user's own, and what they stand for is said.
fn closes(keywords: &Keywords) -> bool {
    ["additionalProperties", "unevaluatedProperties"].into_iter().any(|name| match keywords.get(name) {
        Some(Value::Bool(open)) => !open,
        Some(Value::Object(schema)) => !schema.is_empty(),
        _ => false,
    })
}

fn says_what_it_takes(keywords: &Keywords) -> bool {
    ["type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf", "properties"]
        .into_iter()
        .any(|name| keywords.contains_key(name))
}

fn refers_to_definitions_only(schema: &Value) -> bool {
    let mut values = vec![schema];
    while let Some(value) = values.pop() {
        let reference = value.get("$ref").and_then(Value::as_str);
        if reference.is_some_and(|it| !it.starts_with("#/$defs/") && !it.starts_with("#/definitions/")) {
            return false;
        }
        values.extend(children(value));
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A schema with one property, closed.
    fn with(property: Value) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {"a": property}})
    }

    #[test]
    fn a_closed_and_described_schema_has_no_complaints() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "size": {"title": "How many", "type": "integer", "minimum": 1, "default": 3},
                "labels": {"description": "any", "type": "object", "additionalProperties": {"type": "string"}},
                "store": {"anyOf": [{"$ref": "#/$defs/store"}, {"type": "null"}], "default": {"class": "x"}},
                "mode": {"description": "how", "oneOf": [{"type": "string", "const": "a"}]},
            },
            "$defs": {"store": {
                "description": "where",
                "type": "object",
                "properties": {"class": {"title": "Which", "type": "string"}},
                "additionalProperties": false,
            }},
        });
        assert_eq!(complaints(&schema), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_missing_is_named_with_its_place() {
        for (schema, says) in [
            (json!({"type": "object"}), "# takes settings that nobody reads"),
            (json!({"properties": {}}), "# takes settings that nobody reads"),
            (json!({"type": "object", "additionalProperties": {}}), "# takes settings that nobody reads"),
            (with(json!({"type": "string"})), "#/properties/a has neither title nor description"),
            (with(json!({"type": "string", "title": " "})), "#/properties/a has neither"),
            (with(json!(true)), "#/properties/a takes anything"),
            (with(json!({"title": "A"})), "#/properties/a takes anything"),
            (with(json!({"title": "A", "type": "object"})), "#/properties/a takes settings"),
            (with(json!({"title": "A", "type": ["object", "null"]})), "#/properties/a takes settings"),
            (
                with(json!({"title": "A", "type": "array", "items": {"type": "object"}})),
                "#/properties/a/items takes settings",
            ),
            (
                with(json!({"title": "A", "anyOf": [{"type": "object"}]})),
                "#/properties/a/anyOf takes settings",
            ),
            (with(json!({"title": "A", "type": "integer", "default": "x"})), "#/properties/a has a default"),
            (json!({"type": 7}), "its schema is none"),
            (json!({"$ref": "https://a.invalid/"}), "https://a.invalid/"),
        ] {
            let found = complaints(&schema).join("\n");
            assert!(found.contains(says), "{schema}: {found}");
        }
    }

    #[test]
    fn parts_of_a_closed_whole_need_not_be_closed_themselves() {
        let part = json!({"type": "object", "properties": {"b": {"title": "B", "type": "string"}}});
        let mut schema =
            json!({"type": "object", "allOf": [{"$ref": "#/$defs/part"}], "unevaluatedProperties": false});
        schema["$defs"] = json!({"part": part});
        assert_eq!(complaints(&schema), Vec::<String>::new());
        let open = json!({"allOf": [{"$ref": "#/$defs/part"}], "$defs": {"part": part}});
        assert_eq!(complaints(&open).len(), 1);
    }

    #[test]
    fn a_tree_that_refers_to_itself_comes_to_an_end() {
        let tree = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {"left": {"title": "Left", "$ref": "#"}, "right": {"$ref": "#"}},
        });
        assert_eq!(complaints(&tree), ["#/properties/right has neither title nor description"]);
    }
}
