//! The validator against the host agent's, and its own answers.

use serde_json::json;

use super::*;

fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-zä]+$"},
            "count": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10, "default": 3},
            "rate": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1.5},
            "level": {"enum": ["low", "high", 1, {"a": [1.0]}]},
            "only": {"const": 7},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2, "minItems": 1, "uniqueItems": true},
            "tree": {"$ref": "#/$defs/tree", "default": {}},
            "either": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]},
            "one": {"oneOf": [{"type": "integer"}, {"minimum": 5}]},
            "no": {"not": {"type": "string"}},
            "free": {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1},
            "all": {"allOf": [{"minimum": 2}, {"maximum": 3}]}
        },
        "$defs": {"tree": {
            "type": "object", "additionalProperties": false,
            "properties": {
                "size": {"type": "integer", "default": 1},
                "below": {"type": "array", "items": {"$ref": "#/$defs/tree"}}
            }
        }}
    })
}

fn read() -> Schema {
    Schema::read(schema()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

/// Values that fit somewhere, and that nobody thinks of.
fn values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(2.5),
        json!(7),
        json!(9),
        json!(10),
        json!(-1),
        json!(u64::MAX),
        json!(""),
        json!("ab"),
        json!("abcde"),
        json!("ää"),
        json!("AB"),
        json!("low"),
        json!([]),
        json!(["a"]),
        json!(["a", "a"]),
        json!(["a", "b", "c"]),
        json!([1, 2]),
        json!([1, 1.0]),
        json!({}),
        json!({"a": [1]}),
        json!({"a": true}),
        json!({"size": 2}),
        json!({"size": "2"}),
        json!({"below": [{"below": [{"size": 1}]}]}),
        json!({"below": [{"below": [{"other": 1}]}]}),
        json!({"a": 1}),
    ]
}

#[test]
fn it_refuses_what_the_host_agent_refuses_and_nothing_else() {
    let (ours, theirs) = (read(), jsonschema::draft202012::new(&schema()).expect("a schema"));
    let names = schema()["properties"].as_object().expect("properties").keys().cloned().collect::<Vec<_>>();
    let (mut taken, mut refused) = (0, 0);
    for name in names.iter().map(String::as_str).chain(["other"]) {
        for value in values() {
            let mut config = json!({"name": "ab"});
            config[name] = value;
            let is_valid = theirs.is_valid(&config);
            assert_eq!(ours.mistakes(&config).is_empty(), is_valid, "{config}");
            if is_valid { taken += 1 } else { refused += 1 }
        }
    }
    for config in values() {
        assert_eq!(ours.mistakes(&config).is_empty(), theirs.is_valid(&config), "{config}");
    }
    assert!(taken > 50 && refused > 150, "{taken} taken, {refused} refused");
}

#[test]
fn mistakes_have_places() {
    let config = json!({"tags": ["a", 1], "tree": {"below": [{"x/y": 1}]}, "count": 0});
    let mistakes = read().mistakes(&config);
    let places: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
    assert_eq!(places, ["", "/count", "/tags/1", "/tree/below/0/x~1y"]);
    assert_eq!(mistakes[0].message, "name is missing");
    assert_eq!(mistakes[1].message, "0 is less than 1");
    assert_eq!(mistakes[3].message, "there is no such setting");
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = json!({"name": "ab", "tree": {"below": [{}]}});
    let wanted = json!({"name": "ab", "count": 3, "tree": {"size": 1, "below": [{"size": 1}]}});
    assert_eq!(read().with_defaults(&config), wanted);
    let wanted = json!({"name": "ab", "count": 4, "tree": {"size": 1}});
    assert_eq!(read().with_defaults(&json!({"name": "ab", "count": 4})), wanted);
}

#[test]
fn a_schema_that_it_does_not_understand_is_refused_with_its_place() {
    for (name, property, place) in [
        ("a", json!({"patternProperties": {}}), "/properties/a/patternProperties"),
        ("a", json!({"pattern": "("}), "/properties/a/pattern"),
        ("a/b", json!({"items": {"type": "text"}}), "/properties/a~1b/items/type"),
        ("a", json!({"$ref": "#/$defs/none"}), "/properties/a/$ref"),
        ("a", json!({"$ref": "https://example.org/x"}), "/properties/a/$ref"),
        ("a", json!({"anyOf": []}), "/properties/a/anyOf"),
        ("a", json!({"anyOf": [7]}), "/properties/a/anyOf/0"),
        ("a", json!({"minLength": -1}), "/properties/a/minLength"),
    ] {
        let schema = json!({"type": "object", "additionalProperties": false, "properties": {name: property}});
        let mistakes = Schema::read(schema).err().expect("it is refused");
        assert!(
            mistakes.len() == 1 && mistakes[0].starts_with(&format!("schema.json#{place}: ")),
            "{mistakes:?}"
        );
    }
    for open in [json!({"type": "object"}), json!({"additionalProperties": false}), json!(true)] {
        let mistakes = Schema::read(open).err().expect("it is refused");
        assert!(mistakes[0].starts_with("a config is an object, and closed"), "{mistakes:?}");
    }
}

#[test]
fn a_schema_that_refers_to_itself_in_place_ends() {
    let circle = json!({
        "type": "object", "additionalProperties": false,
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}
    });
    let schema = Schema::read(circle).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let mistakes = schema.mistakes(&json!({"a": 1}));
    assert_eq!(mistakes.first().map(|mistake| mistake.message.as_str()), Some("nested more than 200 levels"));
    schema.with_defaults(&json!({"a": {}}));
}
