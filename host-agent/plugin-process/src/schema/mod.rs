//! What a plugin's schema says of its config: where a config breaks it, what it lacks itself, which of its places are
//! marked, and its defaults. The schema is hostile input, and the validator itself bounds nothing. So `walk` counts first
//! what it would do, and the validator works on a thread of its own, which nobody waits for after the deadline.
//!
//! - `walk`: counts
//! - `closed`: what a package's schema must be beside a schema
//! - `marks`: `x-k8sctl-secret`, `x-k8sctl-immutable`, `default`

mod closed;
mod marks;
mod walk;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Validator};
use plugin_plan::Diagnostic;
use plugin_plan::limits::DIAGNOSTICS;
use serde_json::Value;
use tokio::sync::oneshot;

pub use closed::complaints;
pub use marks::{immutable_changes, secrets_in, with_defaults};

/// The validator goes down with the schema and the config together: as deep as [`walk`] lets it, with room to spare.
const STACK: usize = 64 * 1024 * 1024;
/// Largest compiled pattern, in bytes.
const PATTERN_LIMIT: usize = 1024 * 1024;

/// Every mistake of a config, up to the limit; the error says what is wrong with the schema itself.
pub async fn mistakes(schema: &Value, config_json: &str) -> Result<Vec<Diagnostic>, String> {
    let (schema, config_json) = (schema.clone(), config_json.to_owned());
    let (answer, answered) = oneshot::channel();
    // No blocking task: those keep the host agent from ending, and have a stack for two hundred levels.
    std::thread::Builder::new()
        .name("plugin-schema".into())
        .stack_size(STACK)
        .spawn(move || {
            // Nobody waits after the deadline.
            let _ = answer.send(find(&schema, &config_json));
        })
        .map_err(|error| format!("its schema cannot be looked at: {error}"))?;
    answered.await.unwrap_or_else(|_| Err("its schema is more than the validator can take".to_owned()))
}

fn find(schema: &Value, config_json: &str) -> Result<Vec<Diagnostic>, String> {
    walk::check(schema)?;
    match serde_json::from_str(config_json) {
        Ok(config) => ConfigSchema::new(schema)?.mistakes(&config),
        Err(error) => Ok(vec![Diagnostic::mistake("", format!("not JSON: {error}"))]),
    }
}

/// A schema that is ready for many configs. For schemas that nobody hides anything in: works on the caller's own stack and
/// time.
pub struct ConfigSchema {
    schema: Value,
    validator: Validator,
}

impl ConfigSchema {
    /// The error says what is wrong with the schema.
    pub fn new(schema: &Value) -> Result<Self, String> {
        walk::check(schema)?;
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            // The other engine goes back and forth in a text: there are patterns for which it never ends.
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_LIMIT))
            .build(schema)
            .map_err(|error| format!("its schema is none: {error}"))?;
        Ok(Self { schema: schema.clone(), validator })
    }

    /// As [`mistakes`].
    pub fn mistakes(&self, config: &Value) -> Result<Vec<Diagnostic>, String> {
        walk::check_with(&self.schema, config)?;
        let mut mistakes = Vec::new();
        for error in self.validator.iter_errors(config).take(DIAGNOSTICS) {
            let path = error.instance_path().to_string();
            match error.kind() {
                ValidationErrorKind::AdditionalProperties { unexpected } => {
                    for key in unexpected {
                        let path = format!("{path}/{}", escaped(key));
                        mistakes.push(Diagnostic::mistake(path, "there is no such setting"));
                    }
                }
                _ => mistakes.push(Diagnostic::mistake(path, error.to_string())),
            }
        }
        mistakes.truncate(DIAGNOSTICS);
        Ok(mistakes.into_iter().map(Diagnostic::cut).collect())
    }
}

/// A key as it stands in a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// Asks on another thread: a schema that the validator never ends with fails the test, and does not hold it up.
    fn ask(schema: Value, config: &Value) -> Result<Vec<Diagnostic>, String> {
        let (answer, answered) = mpsc::channel();
        let config_json = config.to_string();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            answer.send(runtime.block_on(mistakes(&schema, &config_json)))
        });
        answered.recv_timeout(Duration::from_secs(60)).expect("it ends")
    }

    fn refusal(schema: Value, config: &Value) -> String {
        ask(schema, config).expect_err("it is refused")
    }

    fn paths(schema: Value, config: &Value) -> Vec<String> {
        ask(schema, config).expect("the schema is one").into_iter().map(|mistake| mistake.path).collect()
    }

    /// Definitions that each apply the next one twice, the last of which lets everything through.
    fn doubled(keyword: &str, steps: usize) -> Value {
        let mut definitions = serde_json::Map::new();
        for step in 0..steps {
            let next = json!({"$ref": format!("#/$defs/d{}", step + 1)});
            definitions.insert(format!("d{step}"), json!({keyword: [next, next]}));
        }
        definitions.insert(format!("d{steps}"), json!({}));
        json!({"$ref": "#/$defs/d0", "$defs": definitions})
    }

    #[test]
    fn a_schema_that_doubles_itself_is_refused() {
        for keyword in ["allOf", "oneOf"] {
            assert!(refusal(doubled(keyword, 30), &json!({})).contains("10000 subschemas"), "{keyword}");
            assert!(refusal(doubled(keyword, 40), &json!({})).contains("64 levels"), "{keyword}");
            assert_eq!(paths(doubled(keyword, 3), &json!({})).len(), usize::from(keyword == "oneOf"));
        }
    }

    #[test]
    fn a_chain_of_references_and_one_without_an_end_are_refused() {
        let link = |step: usize| json!({"$ref": format!("#/$defs/d{}", step + 1)});
        let mut chain: serde_json::Map<_, _> =
            (0..5000).map(|step| (format!("d{step}"), link(step))).collect();
        chain.insert("d5000".to_owned(), json!({}));
        let schema = json!({"$ref": "#/$defs/d0", "$defs": chain});
        assert!(refusal(schema, &json!({})).contains("64 levels"));
        let circle = json!({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"});
        assert!(refusal(circle, &json!({})).contains("64 levels"));
    }

    #[test]
    fn a_tree_may_refer_to_itself() {
        let schema = json!({
            "$ref": "#/$defs/node",
            "$defs": {"node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "left": {"$ref": "#/$defs/node"},
                    "right": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "more": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "additionalProperties": false,
            }},
        });
        let mut config = json!({"name": 7});
        for _ in 0..20 {
            config = json!({"left": config, "right": null, "more": [{"name": "x"}]});
        }
        assert_eq!(paths(schema, &config), [format!("{}/name", "/left".repeat(20))]);
    }

    /// A config as plugins of the SDK have them.
    #[derive(schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Config {
        image: Option<String>,
        replicas: std::num::NonZeroU8,
        labels: std::collections::BTreeMap<String, String>,
        routes: Vec<Route>,
        #[serde(flatten)]
        common: Common,
    }

    #[derive(schemars::JsonSchema)]
    #[serde(tag = "kind")]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Route {
        To { host: String, or: Box<Route> },
        Nowhere,
    }

    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Common {
        #[schemars(regex(pattern = "^[a-z]+$"))]
        class: String,
    }

    #[test]
    fn a_schema_of_the_sdk_is_taken() {
        let schema = schemars::schema_for!(Config).to_value();
        let route =
            json!({"kind": "To", "host": "a", "or": {"kind": "To", "host": "b", "or": {"kind": "Nowhere"}}});
        let mut config = json!({"replicas": 2, "labels": {"a": "b"}, "routes": [route], "class": "fast"});
        assert_eq!(ask(schema.clone(), &config), Ok(Vec::new()));
        config["class"] = json!("Fast");
        assert_eq!(paths(schema.clone(), &config), ["/class"]);
        config["colour"] = json!("red");
        config["routes"][0]["or"]["or"]["kind"] = json!("Anywhere");
        assert_eq!(paths(schema, &config).len(), 3);
    }

    #[test]
    fn a_tree_that_multiplies_itself_at_each_step_into_the_config_is_refused() {
        let again = json!({"properties": {"a": {"$ref": "#"}}});
        let schema = json!({"allOf": vec![again; 50]});
        let mut config = json!(1);
        for step in 0..6 {
            assert_eq!(ask(schema.clone(), &config).is_ok(), step < 3, "step {step}");
            config = json!({"a": config});
        }
    }

    #[test]
    fn what_looks_at_its_neighbours_again_counts_more_than_once() {
        let mut schema = json!({"properties": {"a": true}});
        for _ in 0..40 {
            schema = json!({"unevaluatedProperties": false, "allOf": [schema]});
        }
        assert!(refusal(schema, &json!({"a": 1})).contains("10000 subschemas"));
        let flat = json!({"allOf": [{"properties": {"a": true}}], "unevaluatedProperties": false});
        assert_eq!(ask(flat, &json!({"a": 1})), Ok(Vec::new()));
    }

    #[test]
    fn the_deepest_that_may_be_fits_onto_the_stack() {
        let mut definition = json!({"additionalProperties": {"$ref": "#"}});
        for _ in 0..58 {
            definition = json!({"allOf": [definition]});
        }
        let mut config = json!({});
        for _ in 0..15 {
            config = json!({"a": config});
        }
        assert_eq!(ask(definition.clone(), &config), Ok(Vec::new()));
        for _ in 0..15 {
            config = json!({"a": config});
        }
        assert!(refusal(definition, &config).contains("1024 levels"));
    }

    #[test]
    fn references_go_nowhere_but_into_the_schema() {
        for (schema, says) in [
            (json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}), "https://json-schema.org"),
            (json!({"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}}), "#name"),
            (json!({"$ref": "#/$defs/b", "$defs": {"a": true}}), "#/$defs/b"),
            (json!({"$ref": "#/$defs/%61", "$defs": {"a": true}}), "#/$defs/%61"),
            (json!({"$defs": {"a": {"$id": "https://a.invalid/"}}}), "$id"),
            (json!({"properties": {"a": {"$schema": "http://json-schema.org/draft-04/schema#"}}}), "$schema"),
            (json!({"properties": {"a": {"$dynamicRef": "#a"}}}), "$dynamicRef"),
        ] {
            let said = refusal(schema.clone(), &json!({}));
            assert!(said.contains(says), "{schema}: {said}");
        }
        let plain =
            json!({"$id": "https://a.invalid/", "properties": {"$ref": {"type": "string"}, "$id": true}});
        assert_eq!(paths(plain, &json!({"$ref": 7, "$id": "x"})), ["/$ref"]);
    }

    #[test]
    fn patterns_are_few_short_and_never_go_back() {
        let with = |patterns: Vec<String>| {
            let all: Vec<_> = patterns.into_iter().map(|pattern| json!({"pattern": pattern})).collect();
            json!({"properties": {"a": {"allOf": all}}})
        };
        let many = (0..101).map(|number| format!("^{number}$")).collect();
        assert!(refusal(with(many), &json!({})).contains("100 patterns"));
        assert!(refusal(with(vec!["x".repeat(1025)]), &json!({})).contains("1024 bytes"));
        let names = json!({"patternProperties": {"x".repeat(1025): true}});
        assert!(refusal(names, &json!({})).contains("1024 bytes"));
        assert!(refusal(with(vec!["(?=a)b".to_owned()]), &json!({})).contains("none"));
        let name_of_kubernetes = "^[a-z0-9]([-a-z0-9]{0,251}[a-z0-9])?$".to_owned();
        assert_eq!(paths(with(vec![name_of_kubernetes]), &json!({"a": "-"})), ["/a"]);
    }

    #[test]
    fn every_mistake_has_its_place_and_there_are_a_hundred_at_most() {
        let schema = json!({"additionalProperties": false, "properties": {"n": {"minimum": 1}}});
        assert_eq!(paths(schema.clone(), &json!({"n": 0})), ["/n"]);
        assert_eq!(paths(schema.clone(), &json!({"a/b~": 0})), ["/a~1b~0"]);
        let many: serde_json::Map<_, _> = (0..1000).map(|number| (format!("a{number}"), json!(1))).collect();
        assert_eq!(paths(schema, &many.into()).len(), DIAGNOSTICS);
    }
}
