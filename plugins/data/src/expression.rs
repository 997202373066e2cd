//! `{{ … }}` in the strings of a data plugin, by minijinja: what is not defined is an error, and every expression has so
//! much fuel. A string that is one expression keeps the type of its value; nothing that is evaluated is parsed again.

use std::collections::BTreeSet;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, UndefinedBehavior};
use plugin_sdk::Context;
use serde_json::{Map, Value, json};

/// Steps of one expression, roughly.
const FUEL: u64 = 100_000;

/// What expressions see.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    given: [(&'static str, minijinja::Value); 4],
    all: minijinja::Value,
}

impl Names {
    /// Without any values yet.
    pub(crate) fn new(config: &Value, context: &Context) -> Self {
        let (major, minor) = context.kubernetes();
        let given = [
            ("config", minijinja::Value::from(Serde(config))),
            ("facts", minijinja::Value::from(Serde(&context.facts))),
            ("dependencies", minijinja::Value::from(Serde(&context.dependencies))),
            ("kubernetes", minijinja::Value::from(Serde(json!({"major": major, "minor": minor})))),
        ];
        let mut names = Self { given, all: minijinja::Value::UNDEFINED };
        names.set_values(&Map::new());
        names
    }

    /// With these values instead of those before.
    pub(crate) fn set_values(&mut self, values: &Map<String, Value>) {
        let values = ("values", minijinja::Value::from(Serde(values)));
        self.all = minijinja::Value::from_pairs(self.given.iter().cloned().chain([values]));
    }
}

/// Evaluates.
pub(crate) struct Expressions(Environment<'static>);

impl Expressions {
    pub(crate) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        // Files of a ConfigMap end with a new line.
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.expect("the usual brackets are different ones"));
        Self(environment)
    }

    /// The names that a condition looks up, if it can be read: `config.port`.
    pub(crate) fn names_of_condition(&self, condition: &str) -> Result<BTreeSet<String>, String> {
        let compiled = self.0.compile_expression(condition).map_err(|error| error.to_string())?;
        Ok(compiled.undeclared_variables(true).into_iter().collect())
    }

    /// The names that all strings in a value look up, if they can be read.
    pub(crate) fn names_of(&self, value: &Value) -> Result<BTreeSet<String>, String> {
        let mut names = BTreeSet::new();
        match value {
            Value::String(text) if is_template(text) => match self.single(text) {
                Some(expression) => names = self.names_of_condition(expression)?,
                None => {
                    let template = self.0.template_from_str(text).map_err(|error| error.to_string())?;
                    names.extend(template.undeclared_variables(true));
                }
            },
            Value::Array(items) => {
                for item in items {
                    names.extend(self.names_of(item)?);
                }
            }
            Value::Object(fields) => {
                for field in fields.values() {
                    names.extend(self.names_of(field)?);
                }
            }
            _ => {}
        }
        Ok(names)
    }

    /// Whether a condition holds; none always does.
    pub(crate) fn holds(&self, condition: Option<&str>, names: &Names) -> Result<bool, String> {
        let Some(condition) = condition else { return Ok(true) };
        match self.evaluated(condition, names)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(format!("the condition {condition:?} is {other}, expected true or false")),
        }
    }

    /// A value with all its strings evaluated. What is `none` is left out of its list or table.
    pub(crate) fn value(&self, value: &Value, names: &Names) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => self.string(text, names)?,
            Value::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for item in items {
                    list.extend(self.member(item, names)?);
                }
                Value::Array(list)
            }
            Value::Object(fields) => {
                let mut table = Map::new();
                for (key, field) in fields {
                    if let Some(field) = self.member(field, names)? {
                        table.insert(key.clone(), field);
                    }
                }
                Value::Object(table)
            }
            plain => plain.clone(),
        })
    }

    /// `None`: an expression that is `none`. What is written as null stays.
    fn member(&self, value: &Value, names: &Names) -> Result<Option<Value>, String> {
        let evaluated = self.value(value, names)?;
        Ok((value.is_null() || !evaluated.is_null()).then_some(evaluated))
    }

    /// A string as text.
    pub(crate) fn text(&self, text: &str, names: &Names) -> Result<String, String> {
        match self.string(text, names)? {
            Value::String(text) => Ok(text),
            other @ (Value::Bool(_) | Value::Number(_)) => Ok(other.to_string()),
            other => Err(format!("{text:?} is {other}, expected a text")),
        }
    }

    fn string(&self, text: &str, names: &Names) -> Result<Value, String> {
        if !is_template(text) {
            return Ok(Value::String(text.to_owned()));
        }
        if let Some(expression) = self.single(text) {
            return self.evaluated(expression, names);
        }
        let rendered = self.0.render_str(text, names.all.clone());
        rendered.map(Value::String).map_err(|error| format!("{text:?}: {error}"))
    }

    /// The expression of a string that is one, and nothing else.
    fn single<'a>(&self, text: &'a str) -> Option<&'a str> {
        let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
        // Those are brackets that trim.
        let trims = inner.starts_with(['-', '+']) || inner.ends_with(['-', '+']);
        (!trims && self.0.compile_expression(inner).is_ok()).then_some(inner)
    }

    fn evaluated(&self, expression: &str, names: &Names) -> Result<Value, String> {
        let compiled = self.0.compile_expression(expression);
        let value = compiled.and_then(|compiled| compiled.eval(names.all.clone()));
        let json = value.map_err(|error| error.to_string()).and_then(|value| to_json(&value));
        json.map_err(|why| format!("{:?}: {why}", expression.trim()))
    }
}

fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|bracket| text.contains(bracket))
}

/// As serde does it, but for what is not defined: it says null to that.
fn to_json(value: &minijinja::Value) -> Result<Value, String> {
    let wrong = |error: minijinja::Error| error.to_string();
    match value.kind() {
        ValueKind::Undefined => Err("it is not defined".to_owned()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(wrong)?.checked();
            items.map(|item| to_json(&item.map_err(wrong)?)).collect::<Result<_, _>>().map(Value::Array)
        }
        ValueKind::Map => {
            let mut table = Map::new();
            for key in value.try_iter().map_err(wrong)?.checked() {
                let key = key.map_err(wrong)?;
                let name = key.as_str().ok_or_else(|| format!("the key {key} is no text"))?;
                table.insert(name.to_owned(), to_json(&value.get_item(&key).map_err(wrong)?)?);
            }
            Ok(Value::Object(table))
        }
        _ => serde_json::to_value(value).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use plugin_sdk::Facts;

    use super::*;

    fn names() -> Names {
        let facts = Facts { pod_cidr: "10.244.0.0/16".to_owned(), ..Facts::default() };
        let facts = Facts { kubernetes_version: "v1.29.0".to_owned(), ..facts };
        let config = json!({"port": 80, "hosts": ["a", "b"], "evil": "a: b\n- {{ config.port }}", "tls": {"on": true}});
        Names::new(&config, &Context { facts, ..Context::default() })
    }

    fn value(value: Value) -> Result<Value, String> {
        Expressions::new().value(&value, &names())
    }

    #[test]
    fn one_expression_keeps_its_type() {
        for (text, wanted) in [
            ("{{ config.port }}", json!(80)),
            ("{{ config.port }}/tcp", json!("80/tcp")),
            ("{{ config.hosts }}", json!(["a", "b"])),
            ("{{ config.tls }}", json!({"on": true})),
            ("{{ config.hosts | join(',') }}", json!("a,b")),
            ("{{ config.port > 79 }}", json!(true)),
            ("{{ config.port }}{{ config.port }}", json!("8080")),
            ("{{- config.port -}}", json!("80")),
            ("{{ {\"a\": {\"b\": config.port}} }}", json!({"a": {"b": 80}})),
            ("{{ {\"Network\": facts.pod_cidr} | tojson }}", json!("{\"Network\": \"10.244.0.0/16\"}")),
            ("{{ kubernetes.minor }}", json!(29)),
            ("{% if config.tls.on %}https{% endif %}\n", json!("https\n")),
            ("plain {text}", json!("plain {text}")),
        ] {
            assert_eq!(value(json!(text)), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_evaluated_is_not_read_again() {
        let wanted = json!({"a": ["a: b\n- {{ config.port }}", "x a: b\n- {{ config.port }}"]});
        assert_eq!(value(json!({"a": ["{{ config.evil }}", "x {{ config.evil }}"]})), Ok(wanted));
    }

    #[test]
    fn none_is_left_out_and_null_stays() {
        let tree = json!({"a": "{{ none }}", "b": null, "c": ["{{ none }}", 1], "d": {"e": "{{ none }}"}});
        assert_eq!(value(tree), Ok(json!({"b": null, "c": [1], "d": {}})));
    }

    #[test]
    fn what_is_not_defined_is_an_error() {
        for text in [
            "{{ config.nope }}",
            "a {{ config.nope }}",
            "{{ nope }}",
            "{{ [config.nope] }}",
            "{{ env.HOME }}",
        ] {
            value(json!(text)).expect_err(text);
        }
        let expressions = Expressions::new();
        expressions.holds(Some("config.nope"), &names()).expect_err("it is not defined");
        expressions.holds(Some("config.port"), &names()).expect_err("a number is neither true nor false");
        assert_eq!(expressions.holds(Some("config.nope is defined"), &names()), Ok(false));
        assert_eq!(expressions.holds(None, &names()), Ok(true));
    }

    #[test]
    fn what_cannot_be_read_is_told_at_once() {
        let expressions = Expressions::new();
        for text in ["{{ config.", "{% if %}", "a {{ | }}"] {
            expressions.names_of(&json!([{"a": text}])).expect_err(text);
        }
        expressions.names_of_condition("config. ==").expect_err("half of a condition");
    }

    #[test]
    fn names_are_known_before_anything_is_evaluated() {
        let expressions = Expressions::new();
        let tree = json!({"a": ["{{ config.nope.x }}", "{% for b in facts.nodes %}{{ b.name }}{% endfor %}"], "c": "{{ [d] }}"});
        let names = expressions.names_of(&tree).expect("it can be read");
        assert_eq!(Vec::from_iter(names), ["config.nope.x", "d", "facts.nodes"]);
        let names =
            expressions.names_of_condition("'x' in dependencies and config.a > 1").expect("it can be read");
        assert_eq!(Vec::from_iter(names), ["config.a", "dependencies"]);
    }

    #[test]
    fn what_never_ends_runs_out_of_fuel() {
        let endless = "{% for a in range(1000) %}{% for b in range(1000) %}{{ a }}{% endfor %}{% endfor %}";
        let error = value(json!(endless)).expect_err("a million steps");
        assert!(error.contains("fuel"), "{error}");
    }

    #[test]
    fn tables_have_one_order() {
        let one = value(json!("{{ {\"b\": 1, \"a\": 2} | tojson }}"));
        assert_eq!(one, value(json!("{{ {\"a\": 2, \"b\": 1} | tojson }}")));
        assert_eq!(one, Ok(json!("{\"a\": 2, \"b\": 1}")));
    }
}
