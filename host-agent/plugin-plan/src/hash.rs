//! Digests of what a plugin said and of what is planned: the same for the same contents, whatever the order of keys.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::unchecked::UncheckedPlan;

/// A value as JSON, keys sorted, without blanks.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            // Whether a map is sorted by itself is a feature that another crate could turn off.
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(b.0));
            text.push('{');
            for (index, (key, field)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(field, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// SHA-256 as 64 hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Digest of all that a plugin said, whatever the order of keys; of two calls it must be the same.
pub fn unchecked_digest(plan: &UncheckedPlan) -> String {
    let text = serde_json::to_value(plan).map_or_else(|error| error.to_string(), |plan| canonical(&plan));
    sha256_hex(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::unchecked::{Handling, UncheckedObject};

    #[test]
    fn keys_are_sorted_and_texts_are_those_of_json() {
        let value = json!({"b": [1, 1.5, null, true], "a": {"ü\"\n": "ü\"\n"}, "": {}});
        assert_eq!(canonical(&value), r#"{"":{},"a":{"ü\"\n":"ü\"\n"},"b":[1,1.5,null,true]}"#);
    }

    #[test]
    fn two_calls_that_say_the_same_have_one_digest() {
        let plan = |replicas: u32| UncheckedPlan {
            objects: vec![UncheckedObject {
                object: json!({"kind": "Deployment", "spec": {"replicas": replicas}}),
                handling: Handling::default(),
            }],
            ..UncheckedPlan::default()
        };
        assert_eq!(unchecked_digest(&plan(2)), unchecked_digest(&plan(2)));
        assert_ne!(unchecked_digest(&plan(2)), unchecked_digest(&plan(3)));
        let mut kept = plan(2);
        kept.objects[0].handling.keep = true;
        assert_ne!(unchecked_digest(&plan(2)), unchecked_digest(&kept), "handling counts");
        assert_ne!(unchecked_digest(&plan(2)), unchecked_digest(&UncheckedPlan::default()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_order_of_keys_does_not_count(pairs in prop::collection::btree_map(".{0,8}", any::<i64>(), 0..8)) {
            let forwards: Value = pairs.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
            let backwards: Value = pairs.iter().rev().map(|(key, value)| (key.clone(), json!(value))).collect();
            prop_assert_eq!(canonical(&forwards), canonical(&backwards));
            let again: Value = serde_json::from_str(&canonical(&forwards)).expect("it is JSON");
            prop_assert_eq!(again, forwards);
        }
    }
}
