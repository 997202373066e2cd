//! Secrets: a token of an account is the account, and a name of a secret becomes its value where it stands. So the first is
//! for own accounts only, and the second stands in the data of a Secret and nowhere else.

use std::collections::BTreeSet;

use serde_json::Value;

use super::view::View;
use crate::checked::is_secret;
use crate::object::ObjectKey;
use crate::unchecked::{GeneratedSecret, PLACEHOLDER, SecretRef};

const ACCOUNT: &str = "kubernetes.io/service-account.name";

pub(super) fn refusals(view: &View<'_>, key: &ObjectKey, object: &Value) -> Vec<String> {
    let mut why = Vec::new();
    if key.group.is_empty() && key.kind == "Secret" {
        why.extend(token_refusal(view, key, object));
    }
    let mut places = Vec::new();
    placeholders(object, &mut Vec::new(), &mut places);
    for (place, value) in places {
        let is_in_data =
            is_secret(key) && matches!(place.as_slice(), [map, _] if map == "data" || map == "stringData");
        let shown = place.join("/");
        match SecretRef::of_placeholder(value) {
            _ if !is_in_data => {
                why.push(format!(
                    "the secret that /{shown} names may stand directly below data of a Secret only"
                ));
            }
            None => why.push(format!(
                "/{shown}: expected {{\"{PLACEHOLDER}\": {{\"handle\": …, \"key\": …}}}} alone"
            )),
            Some(secret) if !view.may_use(&secret) => {
                let SecretRef { handle, key } = &secret;
                why.push(format!(
                    "/{shown} names the secret {handle:?}, key {key:?}: neither its config names it nor does the plan \
                     have it made"
                ));
            }
            Some(_) => {}
        }
    }
    why
}

fn token_refusal(view: &View<'_>, key: &ObjectKey, object: &Value) -> Option<String> {
    match object["type"].as_str()? {
        "bootstrap.kubernetes.io/token" => {
            Some("a bootstrap token makes nodes of strangers: no plugin has one".to_owned())
        }
        "kubernetes.io/service-account-token" => {
            let account = object["metadata"]["annotations"][ACCOUNT].as_str().unwrap_or_default();
            let is_own = view.has_account(&key.namespace, account) || view.is_partial;
            (!is_own).then(|| {
                format!("it asks for the token of the service account {account:?}, which is not of this plan")
            })
        }
        _ => None,
    }
}

/// Every place in which the key of a placeholder is, with the value that has it.
fn placeholders<'a>(value: &'a Value, place: &mut Vec<String>, found: &mut Vec<(Vec<String>, &'a Value)>) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key(PLACEHOLDER) {
                found.push((place.clone(), value));
            }
            for (key, field) in fields {
                place.push(key.clone());
                placeholders(field, place, found);
                place.pop();
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                place.push(index.to_string());
                placeholders(item, place, found);
                place.pop();
            }
        }
        _ => {}
    }
}

/// What is wrong with the secrets that a plan has generated: their names become names of files.
pub(super) fn generated_refusals(secrets: &[GeneratedSecret]) -> Vec<String> {
    let mut why = Vec::new();
    let mut seen = BTreeSet::new();
    for GeneratedSecret { handle, key, length, .. } in secrets {
        let is_name = |text: &str, more: &str, most: usize| {
            !text.is_empty()
                && text.len() <= most
                && !text.starts_with(['.', '-'])
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
        };
        if !is_name(handle, "-", 63) {
            why.push(format!("handle {handle:?}: expected at most 63 lower case letters, digits and dashes"));
        }
        if !is_name(key, "-._ABCDEFGHIJKLMNOPQRSTUVWXYZ", 253) {
            why.push(format!("key {key:?}: expected one as in the data of a Secret"));
        }
        if !(8..=1024).contains(length) {
            why.push(format!("{handle} {key}: its length is {length}, expected 8 to 1024"));
        }
        if !seen.insert((handle, key)) {
            why.push(format!("{handle} {key}: there are two of them"));
        }
    }
    why
}
