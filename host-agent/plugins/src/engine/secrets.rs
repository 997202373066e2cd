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
    /// The object with the values in it. A value may be no text, so that all of them go below `data`.
    pub(super) fn with_secrets(&self, object: &Value) -> Result<Value, Failure> {
        let mut filled = object.clone();
        for (part, key, secret) in placeholders(object) {
            let value = self.secrets.value(&secret)?;
            if let Some(part) = filled[part].as_object_mut() {
                part.remove(&key);
            }
            if !filled["data"].is_object() {
                filled["data"] = json!({});
            }
            filled["data"][key.as_str()] = Value::String(STANDARD.encode(value.as_slice()));
            if filled["stringData"].as_object().is_some_and(serde_json::Map::is_empty)
                && let Some(fields) = filled.as_object_mut()
            {
                fields.remove("stringData");
            }
        }
        Ok(filled)
    }
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
    fn a_refusal_of_a_secret_repeats_no_value() {
        let trouble =
            Trouble::refused(422, "Invalid", "Secret \"s\" is invalid: data: Invalid value: \"hunter2\"");
        assert!(!told(&secret(), &trouble).contains("hunter2"));
        let mut plain = secret();
        plain["stringData"] = json!({});
        assert!(told(&plain, &trouble).contains("hunter2"), "what the plan itself holds may be shown");
    }
}
