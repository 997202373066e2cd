//! What a schema says of places in a config beside what may stand there: which hold a reference to a secret, which may not
//! be changed later, and what stands where nothing was written. Pure; called by whoever keeps configs.

use std::collections::BTreeSet;

use plugin_plan::SecretRef;
use serde_json::{Map, Value};

use super::escaped;
use super::walk::{DEPTH_WITH, Keywords, STEPS, in_place, target};

const SECRET: &str = "x-k8sctl-secret";
const IMMUTABLE: &str = "x-k8sctl-immutable";
/// How deep defaults are filled in: one of a tree may ask for itself again.
const DEFAULTS_DEPTH: usize = 128;
/// Most bytes of defaults that are filled in, and what each value counts beside its text: a tree asks for itself many times.
const DEFAULTS_BYTES: usize = 4 << 20;
const VALUE_BYTES: usize = 64;

/// Secrets that a config names at places marked `x-k8sctl-secret`.
pub fn secrets_in(schema: &Value, config: &Value) -> BTreeSet<SecretRef> {
    let mut secrets = BTreeSet::new();
    visit(schema, config, &mut |keywords, _, value| {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        if is_marked(keywords, SECRET)
            && let (Some(handle), Some(key)) = (text("handle"), text("key"))
        {
            secrets.insert(SecretRef { handle, key });
        }
    });
    secrets
}

/// Pointers of places marked `x-k8sctl-immutable` at which two configs differ. Where a default stands for what is not
/// written, give both [`with_defaults`].
pub fn immutable_changes(schema: &Value, before: &Value, after: &Value) -> Vec<String> {
    let mut places = BTreeSet::new();
    for config in [before, after] {
        visit(schema, config, &mut |keywords, at, _| {
            if is_marked(keywords, IMMUTABLE) {
                places.insert(at.to_owned());
            }
        });
    }
    places.retain(|at| before.pointer(at) != after.pointer(at));
    places.into_iter().collect()
}

/// The config with the schema's defaults filled in at the top level and below, as long as they are not too many. A default of
/// null is none.
pub fn with_defaults(schema: &Value, config: &Value) -> Value {
    let mut filled = config.clone();
    Defaults { root: schema, left: STEPS, bytes: DEFAULTS_BYTES }.fill(schema, &mut filled, 0);
    filled
}

fn is_marked(keywords: &Keywords, mark: &str) -> bool {
    keywords.get(mark) == Some(&Value::Bool(true))
}

/// Shows every schema that applies to a place of the config, with that place and what stands there.
fn visit<'a>(schema: &'a Value, config: &Value, show: &mut dyn FnMut(&'a Keywords, &str, &Value)) {
    Visit { root: schema, left: STEPS, show }.apply(schema, "", config, 0);
}

struct Visit<'a, 'b> {
    root: &'a Value,
    left: usize,
    show: &'b mut dyn FnMut(&'a Keywords, &str, &Value),
}

impl<'a> Visit<'a, '_> {
    fn apply(&mut self, schema: &'a Value, at: &str, value: &Value, depth: usize) {
        let Value::Object(keywords) = schema else { return };
        if self.left == 0 || depth > DEPTH_WITH {
            return;
        }
        self.left -= 1;
        (self.show)(keywords, at, value);
        // One that leads nowhere is no schema, and has been refused.
        for child in in_place(self.root, keywords).unwrap_or_default() {
            self.apply(child, at, value, depth + 1);
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let place = format!("{at}/{}", escaped(name));
                    for schema in of_member(keywords, name) {
                        self.apply(schema, &place, member, depth + 1);
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let first = keywords.get("prefixItems").and_then(|schemas| schemas.get(index));
                    if let Some(schema) = first.or_else(|| keywords.get("items")) {
                        self.apply(schema, &format!("{at}/{index}"), item, depth + 1);
                    }
                }
            }
            _ => {}
        }
    }
}

fn of_member<'a>(keywords: &'a Keywords, name: &str) -> Vec<&'a Value> {
    if let Some(known) = keywords.get("properties").and_then(|properties| properties.get(name)) {
        return vec![known];
    }
    let patterns = keywords.get("patternProperties").and_then(Value::as_object);
    let others = ["additionalProperties", "unevaluatedProperties"].into_iter();
    patterns.into_iter().flat_map(Map::values).chain(others.filter_map(|name| keywords.get(name))).collect()
}

struct Defaults<'a> {
    root: &'a Value,
    left: usize,
    bytes: usize,
}

impl<'a> Defaults<'a> {
    fn fill(&mut self, schema: &'a Value, value: &mut Value, depth: usize) {
        let Value::Object(keywords) = schema else { return };
        if self.left == 0 || depth > DEFAULTS_DEPTH {
            return;
        }
        self.left -= 1;
        for child in self.certain(keywords) {
            self.fill(child, value, depth + 1);
        }
        match value {
            Value::Object(members) => {
                let properties = keywords.get("properties").and_then(Value::as_object);
                for (name, property) in properties.into_iter().flatten() {
                    if self.bytes > 0
                        && !members.contains_key(name)
                        && let Some(default) = self.default_of(property, 0)
                    {
                        self.bytes = self.bytes.saturating_sub(name.len() + size(default));
                        if self.bytes > 0 {
                            members.insert(name.clone(), default.clone());
                        }
                    }
                    if let Some(member) = members.get_mut(name) {
                        self.fill(property, member, depth + 1);
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    if let Some(schema) = keywords.get("items") {
                        self.fill(schema, item, depth + 1);
                    }
                }
            }
            _ => {}
        }
    }

    /// What applies to the same value in any case: where there is a choice, only the one that is not null.
    fn certain(&self, keywords: &'a Keywords) -> Vec<&'a Value> {
        let mut certain: Vec<&Value> = Vec::new();
        if let Some(reference) = keywords.get("$ref").and_then(Value::as_str) {
            certain.extend(target(self.root, reference).ok());
        }
        certain.extend(keywords.get("allOf").and_then(Value::as_array).into_iter().flatten());
        for choice in ["anyOf", "oneOf"] {
            let all = keywords.get(choice).and_then(Value::as_array).into_iter().flatten();
            let mut others = all.filter(|schema| schema.get("type") != Some(&Value::from("null")));
            if let (Some(only), None) = (others.next(), others.next()) {
                certain.push(only);
            }
        }
        certain
    }

    fn default_of(&self, schema: &'a Value, depth: usize) -> Option<&'a Value> {
        let keywords = schema.as_object()?;
        if let Some(default) = keywords.get("default") {
            return Some(default).filter(|default| !default.is_null());
        }
        let reference = keywords.get("$ref")?.as_str()?;
        let target = target(self.root, reference).ok().filter(|_| depth < DEFAULTS_DEPTH)?;
        self.default_of(target, depth + 1)
    }
}

/// About what it takes in memory.
fn size(value: &Value) -> usize {
    let inside: usize = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(members) => members.iter().map(|(name, member)| name.len() + size(member)).sum(),
        _ => 0,
    };
    VALUE_BYTES + inside
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "x-k8sctl-immutable": true, "default": "main"},
                "size": {"type": "integer", "default": 3},
                "note": {"type": ["string", "null"], "default": null},
                "admin": {"$ref": "#/$defs/secret"},
                "store": {"anyOf": [{"$ref": "#/$defs/store"}, {"type": "null"}]},
                "more": {"type": "array", "items": {"$ref": "#/$defs/store"}},
                "by/name": {"type": "object", "additionalProperties": {"$ref": "#/$defs/secret"}},
            },
            "$defs": {
                "secret": {"type": "object", "x-k8sctl-secret": true},
                "store": {
                    "type": "object",
                    "properties": {
                        "class": {"type": "string", "default": "fast", "x-k8sctl-immutable": true},
                        "key": {"$ref": "#/$defs/secret"},
                    },
                },
            },
        })
    }

    fn secret(handle: &str) -> Value {
        json!({"handle": handle, "key": "k"})
    }

    #[test]
    fn secrets_are_found_wherever_they_are_marked_and_nowhere_else() {
        let config = json!({
            "name": secret("none"),
            "admin": secret("a"),
            "store": {"key": secret("b")},
            "more": [{"key": secret("c")}, {"key": "none"}],
            "by/name": {"x": secret("d"), "y": {"handle": "half"}},
        });
        let handles: Vec<_> =
            secrets_in(&schema(), &config).into_iter().map(|secret| secret.handle).collect();
        assert_eq!(handles, ["a", "b", "c", "d"]);
    }

    #[test]
    fn changes_of_what_may_not_change_are_named_by_their_places() {
        let before = json!({"name": "a", "size": 1, "more": [{"class": "fast"}, {"class": "slow"}]});
        assert_eq!(immutable_changes(&schema(), &before, &before), Vec::<String>::new());
        let after = json!({"name": "b", "size": 2, "more": [{"class": "fast"}, {"class": "fast"}]});
        assert_eq!(immutable_changes(&schema(), &before, &after), ["/more/1/class", "/name"]);
        let without = json!({"more": [{"class": "fast"}]});
        assert_eq!(immutable_changes(&schema(), &before, &without), ["/more/1/class", "/name"]);
        assert_eq!(immutable_changes(&schema(), &without, &before), ["/more/1/class", "/name"]);
    }

    #[test]
    fn defaults_are_filled_in_where_nothing_stands() {
        let filled =
            with_defaults(&schema(), &json!({"size": 7, "store": {}, "more": [{}, {"class": "slow"}]}));
        assert_eq!(
            filled,
            json!({
                "name": "main", "size": 7, "store": {"class": "fast"},
                "more": [{"class": "fast"}, {"class": "slow"}],
            })
        );
        assert_eq!(with_defaults(&schema(), &json!({"store": null}))["store"], Value::Null);
        assert_eq!(with_defaults(&schema(), &json!(7)), 7);
    }

    #[test]
    fn defaults_that_ask_for_themselves_come_to_an_end() {
        let tree = json!({"properties": {"a": {"$ref": "#", "default": {}}}});
        let mut filled = &with_defaults(&tree, &json!({}));
        let mut depth = 0;
        while let Some(next) = filled.get("a") {
            (filled, depth) = (next, depth + 1);
        }
        assert!(depth > 10 && depth <= DEFAULTS_DEPTH, "{depth}");
        let again = json!({"$ref": "#", "default": {"text": "x".repeat(100_000)}});
        let filled = with_defaults(&json!({"properties": {"a": again, "b": again}}), &json!({}));
        assert!(size(&filled) <= DEFAULTS_BYTES + VALUE_BYTES, "{}", size(&filled));
        let circle = json!({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"});
        assert_eq!(with_defaults(&circle, &json!({})), json!({}));
        assert_eq!(secrets_in(&circle, &json!({})), BTreeSet::new());
    }
}
