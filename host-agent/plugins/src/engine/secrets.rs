//! Puts the values of secrets where a plan names them by handle: directly below `data` or `stringData` of a Secret. That
//! they stand nowhere else was checked with the plan. The values go to the API and into nothing that is kept or told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8sctl_types::failure::Failure;
use plugin_plan::SecretRef;
use serde_json::{Value, json};

use super::Engine;
use super::failures::fields_of;
use super::request::Trouble;

/// Every place of a Secret that stands for one: `data` or `stringData`, the key there, the secret.
fn placeholders(object: &Value) -> Vec<(&'static str, String, SecretRef)> {
    let mut found = Vec::new();
    if object["kind"] != "Secret" || object["apiVersion"] != "v1" {
        return found;
    }
    for part in ["data", "stringData"] {
        for (key, value) in object[part].as_object().into_iter().flatten() {
            if let Some(secret) = SecretRef::of_placeholder(value) {
                found.push((part, key.clone(), secret));
            }
        }
    }
    found
}

/// Whether an object stands for values that its digest does not cover, and that nobody is to see.
pub(super) fn holds_secrets(object: &Value) -> bool {
    !placeholders(object).is_empty()
}

impl Engine {
    /// The object with the values in it. All texts of a Secret go below `data` as well: what stands in `stringData` belongs
    /// to nobody on the server, and would stay there when a later plan does without it.
    pub(super) fn with_secrets(&self, object: &Value) -> Result<Value, Failure> {
        let mut filled = object.clone();
        for (part, key, secret) in placeholders(object) {
            let value = self.secrets.value(&secret)?;
            put(&mut filled, part, &key, value.as_slice());
        }
        for (key, text) in texts(object) {
            put(&mut filled, "stringData", &key, text.as_bytes());
        }
        Ok(filled)
    }
}

/// The plain texts of a Secret's `stringData`.
fn texts(object: &Value) -> Vec<(String, String)> {
    if object["kind"] != "Secret" || object["apiVersion"] != "v1" {
        return Vec::new();
    }
    let all = object["stringData"].as_object().into_iter().flatten();
    all.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Takes a key out of a part of a Secret, and puts its value below `data`.
fn put(secret: &mut Value, part: &str, key: &str, value: &[u8]) {
    let Some(fields) = secret.as_object_mut() else { return };
    let from = fields.get_mut(part).and_then(Value::as_object_mut);
    let is_empty = from.is_some_and(|from| {
        from.remove(key);
        from.is_empty()
    });
    if is_empty {
        fields.remove(part);
    }
    let data = fields.entry("data").or_insert(Value::Null);
    if !data.is_object() {
        *data = json!({});
    }
    data[key] = Value::String(STANDARD.encode(value));
}

/// What the server says of an object; where the object holds secrets only the fields, for the server repeats values.
pub(super) fn told(object: &Value, trouble: &Trouble) -> String {
    match trouble.status() {
        Some(status) if holds_secrets(object) => {
            let fields = fields_of(status).join(", ");
            let fields = if fields.is_empty() { "no field is named".to_owned() } else { fields };
            format!(
                "{} ({fields}); the server's words are not shown, for they may hold its values",
                status.reason
            )
        }
        _ => trouble.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Value {
        let placeholder = json!({"$k8sctl.secret": {"handle": "admin", "key": "password"}});
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "data": {"plain": "cGxhaW4="}, "stringData": {"password": placeholder},
        })
    }

    #[test]
    fn placeholders_are_found_where_they_may_stand_and_nowhere_else() {
        let found = placeholders(&secret());
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].0, found[0].1.as_str(), found[0].2.handle.as_str()),
            ("stringData", "password", "admin")
        );
        let mut other = secret();
        other["kind"] = json!("ConfigMap");
        assert!(!holds_secrets(&other));
        let mut deeper = secret();
        deeper["stringData"]["password"]["more"] = json!(1);
        assert!(!holds_secrets(&deeper), "a placeholder is the whole value");
    }

    #[test]
    fn texts_go_where_the_server_keeps_them() {
        let mut filled = secret();
        filled["stringData"] = json!({"user": "admin", "plain": "wins"});
        for (key, text) in texts(&filled) {
            put(&mut filled, "stringData", &key, text.as_bytes());
        }
        assert_eq!(
            filled["data"],
            json!({"plain": STANDARD.encode("wins"), "user": STANDARD.encode("admin")})
        );
        assert!(filled.get("stringData").is_none(), "{filled}");
        filled["kind"] = json!("ConfigMap");
        assert!(texts(&filled).is_empty());
        let mut without = json!({"kind": "Secret"});
        put(&mut without, "data", "a", b"b");
        assert_eq!(without["data"], json!({"a": STANDARD.encode("b")}));
    }

    #[test]
    fn a_refusal_of_a_secret_repeats_no_value() {
        let trouble =
            Trouble::refused(422, "Invalid", "Secret \"s\" is invalid: data: Invalid value: \"hunter2\"");
        assert!(!told(&secret(), &trouble).contains("hunter2"));
        let mut plain = secret();
        plain["stringData"] = json!({});
        assert!(told(&plain, &trouble).contains("hunter2"), "what the plan itself holds may be shown");
    }
}
