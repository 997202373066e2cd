//! Configs from a plugin's own schema: most of them such as it takes, some mistyped. The same seed and number give the same
//! config with every release. Pure.

use serde_json::{Map, Value, json};

/// Deepest value that is made up.
const DEPTH: usize = 8;
/// One config of so many is mistyped.
const MISTYPED: u64 = 6;
/// What people write, what parsers look for, and what no evaluator may run.
const WORDS: [&str; 28] = [
    "",
    "a",
    "main",
    "default",
    "true",
    "null",
    "0644",
    "1e3",
    "~",
    "10.0.0.1",
    "10.0.0.0/24",
    "192.168.122.100-192.168.122.150",
    "192.168.122.150-192.168.122.100",
    "::1",
    "https://example.org/a?b=c#d",
    "/opt/data",
    "../../etc",
    "registry.example:5000/a/b:1",
    "a: b\n- c",
    "\"quoted\" 'twice'",
    "{{ config }}",
    "{% for x in range(100000) %}{{ x }}{% endfor %}",
    "{{ [1] * 100000 }}",
    "${HOME} $(id) `id`",
    "ümläut \u{1f600}",
    "\u{0}\u{7}\u{1b}[31m",
    "line\r\nline",
    " padded ",
];

/// SplitMix64: whatever is built from it stays the same with every release of every library.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        let mut random = Self(seed);
        random.0 = random.draw() ^ number;
        random.draw();
        random
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one; 0 of 0.
    fn below(&mut self, count: usize) -> usize {
        if count == 0 { 0 } else { (self.draw() % count as u64) as usize }
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}

/// Makes configs of one schema.
pub(crate) struct Generator<'a> {
    schema: &'a Value,
    seed: u64,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(schema: &'a Value, seed: u64) -> Self {
        Self { schema, seed }
    }

    /// The n-th one.
    pub(crate) fn config(&self, number: u64) -> Value {
        let mut random = Random::of(self.seed, number);
        let mut make = Make { root: self.schema, random: &mut random };
        let mut config = make.value(self.schema, 0);
        if number % MISTYPED == MISTYPED - 1 {
            for _ in 0..=random.below(3) {
                mistype(&mut random, &mut config, 0);
            }
        }
        config
    }
}

struct Make<'a, 'b> {
    root: &'a Value,
    random: &'b mut Random,
}

impl<'a> Make<'a, '_> {
    fn value(&mut self, schema: &'a Value, depth: usize) -> Value {
        let Value::Object(keywords) = schema else { return self.anything(depth) };
        if depth > DEPTH {
            return Value::Null;
        }
        if let Some(constant) = keywords.get("const") {
            return constant.clone();
        }
        let known = ["enum", "examples"].into_iter().filter_map(|name| keywords.get(name)?.as_array());
        for values in known {
            // Examples are a hint, and an enumeration is all there is.
            if keywords.contains_key("enum") || self.random.once_in(3) {
                return self.random.pick(values).cloned().unwrap_or_default();
            }
        }
        if let Some(default) = keywords.get("default").filter(|_| self.random.once_in(6)) {
            return default.clone();
        }
        if let Some(target) = self.target(keywords) {
            return self.value(target, depth + 1);
        }
        for choice in ["oneOf", "anyOf"] {
            if let Some(one) =
                keywords.get(choice).and_then(Value::as_array).and_then(|all| self.random.pick(all))
            {
                return self.value(one, depth + 1);
            }
        }
        let mut value = self.of_type(keywords, depth);
        for part in keywords.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            merge(&mut value, self.value(part, depth + 1));
        }
        value
    }

    fn target(&self, keywords: &Map<String, Value>) -> Option<&'a Value> {
        self.root.pointer(keywords.get("$ref")?.as_str()?.strip_prefix('#')?)
    }

    fn of_type(&mut self, keywords: &'a Map<String, Value>, depth: usize) -> Value {
        let kind = match keywords.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) => self.random.pick(kinds).and_then(Value::as_str).unwrap_or_default(),
            _ if keywords.contains_key("properties") || keywords.contains_key("allOf") => "object",
            _ => return self.anything(depth),
        };
        match kind {
            "object" => self.object(keywords, depth),
            "array" => self.array(keywords, depth),
            "string" => self.string(keywords),
            "integer" => self.integer(keywords),
            "number" if self.random.once_in(2) => json!(self.random.below(1_000_000) as f64 / 128.0),
            "number" => self.integer(keywords),
            "boolean" => Value::Bool(self.random.once_in(2)),
            _ => Value::Null,
        }
    }

    fn object(&mut self, keywords: &'a Map<String, Value>, depth: usize) -> Value {
        let mut members = Map::new();
        let required = keywords.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|it| it == name));
        for (name, schema) in keywords.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if is_required(name) || self.random.once_in(2) {
                members.insert(name.clone(), self.value(schema, depth + 1));
            }
        }
        if let Some(schema @ Value::Object(_)) = keywords.get("additionalProperties") {
            for _ in 0..self.random.below(4) {
                let name = self.word();
                members.insert(name, self.value(schema, depth + 1));
            }
        }
        Value::Object(members)
    }

    fn array(&mut self, keywords: &'a Map<String, Value>, depth: usize) -> Value {
        let bound =
            |name: &str| keywords.get(name).and_then(Value::as_u64).map(|bound| bound.min(20) as usize);
        let least = bound("minItems").unwrap_or(0);
        let most = bound("maxItems").unwrap_or(least + 4).max(least);
        let count = least + self.random.below(most - least + 1);
        let items = keywords.get("items");
        let mut made = Vec::new();
        for _ in 0..count {
            made.push(match items {
                Some(schema) => self.value(schema, depth + 1),
                None => self.anything(depth + 1),
            });
        }
        Value::Array(made)
    }

    fn string(&mut self, keywords: &Map<String, Value>) -> Value {
        let mut text = self.word();
        while self.random.once_in(8) {
            text = format!("{text}{}", self.word().repeat(1 + self.random.below(50)));
        }
        let most = keywords.get("maxLength").and_then(Value::as_u64);
        match most.filter(|_| !self.random.once_in(10)) {
            Some(most) => text.chars().take(most.min(10_000) as usize).collect::<String>().into(),
            None => text.into(),
        }
    }

    fn word(&mut self) -> String {
        match self.random.pick(&WORDS) {
            Some(word) if !self.random.once_in(4) => (*word).to_owned(),
            _ => (0..self.random.below(12)).map(|_| char::from(b'a' + self.random.below(26) as u8)).collect(),
        }
    }

    fn integer(&mut self, keywords: &Map<String, Value>) -> Value {
        let bound = |name: &str| keywords.get(name).and_then(Value::as_i64);
        let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|it| it.saturating_add(1)));
        let most = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|it| it.saturating_sub(1)));
        let (from, to) = (least.unwrap_or(-100), most.unwrap_or(10_000));
        let span = to.saturating_sub(from).clamp(0, 1_000_000) as usize;
        match self.random.below(12) {
            0 => json!(from),
            1 => json!(to),
            2 => json!(from.saturating_sub(1)),
            3 => json!(to.saturating_add(1)),
            4 => json!(i64::MAX),
            5 => json!(u64::MAX),
            6 => json!(0),
            _ => json!(from.saturating_add(self.random.below(span + 1) as i64)),
        }
    }

    fn anything(&mut self, depth: usize) -> Value {
        match self.random.below(if depth > DEPTH { 4 } else { 6 }) {
            0 => Value::Null,
            1 => Value::Bool(true),
            2 => json!(self.random.below(1000)),
            3 => self.word().into(),
            4 => (0..self.random.below(3)).map(|_| self.anything(depth + 3)).collect::<Vec<_>>().into(),
            _ => {
                let name = self.word();
                json!({name: self.anything(depth + 3)})
            }
        }
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => into.extend(from),
        (into, from) if into.is_null() => *into = from,
        _ => {}
    }
}

/// Changes one place of a config to something that hardly anybody means.
fn mistype(random: &mut Random, value: &mut Value, depth: usize) {
    let count = match &*value {
        Value::Object(members) => members.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if count == 0 || depth == DEPTH || random.once_in(3) {
        return change(random, value);
    }
    let number = random.below(count);
    let below = match value {
        Value::Object(members) => members.values_mut().nth(number),
        Value::Array(items) => items.get_mut(number),
        _ => None,
    };
    if let Some(below) = below {
        mistype(random, below, depth + 1);
    }
}

fn change(random: &mut Random, value: &mut Value) {
    match (random.below(8), value) {
        (0, value) => *value = Value::Null,
        (1, value) => *value = json!(["x"]),
        (2, value) => *value = json!({"x": 1}),
        (3, value) => *value = json!(-1),
        (4, value) => *value = "x".repeat(5000).into(),
        (5, Value::Object(members)) => {
            members.insert("no-such-setting".to_owned(), json!(1));
        }
        (6, Value::Object(members)) => {
            if let Some(name) = members.keys().next().cloned() {
                members.remove(&name);
            }
        }
        (_, value) => *value = json!([value.take()]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["mode"],
            "properties": {
                "mode": {"enum": ["a", "b"]},
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
                "names": {"type": "array", "items": {"type": "string", "maxLength": 5}},
                "store": {"anyOf": [{"$ref": "#/$defs/store"}, {"type": "null"}]},
            },
            "$defs": {"store": {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/store"}, "on": {"type": "boolean"}},
            }},
        })
    }

    #[test]
    fn a_config_is_the_same_again_and_most_are_others() {
        let schema = schema();
        let text = |seed, number| Generator::new(&schema, seed).config(number).to_string();
        assert_eq!(text(7, 3), text(7, 3));
        let all: BTreeSet<String> = (0..500).map(|number| text(7, number)).collect();
        assert!(all.len() > 200, "{}", all.len());
        assert!((0..100).any(|number| text(7, number) != text(8, number)));
    }

    #[test]
    fn they_are_such_as_the_schema_takes_and_some_are_not() {
        let schema = schema();
        let make = Generator::new(&schema, 1);
        let (mut modes, mut sizes, mut strange) = (BTreeSet::new(), BTreeSet::new(), 0);
        for number in 0..1000 {
            let config = make.config(number);
            modes.extend(config["mode"].as_str().map(str::to_owned));
            sizes.extend(config["size"].as_i64());
            let is_as_meant = config.is_object() && ["a", "b"].iter().any(|mode| config["mode"] == *mode);
            if number % MISTYPED != MISTYPED - 1 {
                assert!(is_as_meant, "{config}");
            }
            strange += u64::from(!is_as_meant);
        }
        assert!(modes.contains("a") && modes.contains("b"), "{modes:?}");
        assert!(sizes.contains(&1) && sizes.contains(&9) && sizes.contains(&10), "{sizes:?}");
        assert!(strange > 20, "{strange}");
    }

    #[test]
    fn a_schema_that_refers_to_itself_and_one_that_says_nothing_come_to_an_end() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"anyOf": [{"$ref": "#"}]}),
            json!(true),
            json!({"type": "object", "additionalProperties": {"$ref": "#"}}),
            json!({"type": "array", "items": {"$ref": "#"}, "minItems": 2}),
        ] {
            let make = Generator::new(&schema, 1);
            for number in 0..50 {
                make.config(number);
            }
        }
    }
}
