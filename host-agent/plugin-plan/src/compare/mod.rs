//! What differs between what was wanted, what a server would store, and what is there. All pure, on whole objects as JSON.
//!
//! - [`same`], [`differing`]: two states of an object on the server
//! - [`dropped`]: what was written and would not be stored
//! - [`copy_through`]: what is others' is taken from what is there
//! - [`text`]: a difference as people read it

pub mod text;

use serde_json::{Map, Value};

pub use text::diff_text;

/// What the server counts, or writes beside what was asked for.
const SERVERS: [&str; 6] =
    ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink"];

/// The object without that.
pub(crate) fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !SERVERS.contains(&field.as_str()));
        }
    }
    object
}

/// Do both say the same, apart from what the server counts?
pub fn same(live: &Value, would_be: &Value) -> bool {
    differing(live, would_be, 1).is_empty()
}

/// JSON pointers that differ, at most `most`, apart from what the server counts.
pub fn differing(live: &Value, would_be: &Value, most: usize) -> Vec<String> {
    let mut found = Vec::new();
    differ(&bare(live), &bare(would_be), &mut String::new(), most, &mut found);
    found
}

fn differ(a: &Value, b: &Value, place: &mut String, most: usize, found: &mut Vec<String>) {
    if found.len() >= most {
        return;
    }
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                let there = b.get(key).unwrap_or(&Value::Null);
                within(place, key, |place| differ(value, there, place, most, found));
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                within(place, key, |place| differ(&Value::Null, value, place, most, found));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                within(place, &index.to_string(), |place| differ(a, b, place, most, found));
            }
        }
        (a, b) if a == b => {}
        _ => found.push(place.clone()),
    }
}

/// JSON pointers of what we set and the server would not store. Values are not compared: servers write them in their own way.
/// What says nothing is not missed, and lists only where both are as long.
pub fn dropped(wanted: &Value, would_be: &Value) -> Vec<String> {
    let mut found = Vec::new();
    miss(wanted, would_be, &mut String::new(), &mut found);
    found
}

fn miss(wanted: &Value, stored: &Value, place: &mut String, found: &mut Vec<String>) {
    match (wanted, stored) {
        (Value::Object(wanted), Value::Object(stored)) => {
            for (key, value) in wanted {
                within(place, key, |place| {
                    if is_passed_over(place) || says_nothing(value) {
                        return;
                    }
                    match stored.get(key) {
                        // Some servers keep the name of a field that they do not know, and forget what was in it.
                        None | Some(Value::Null) => found.push(place.clone()),
                        Some(stored) => miss(value, stored, place, found),
                    }
                });
            }
        }
        (Value::Array(wanted), Value::Array(stored)) if wanted.len() == stored.len() => {
            for (index, value) in wanted.iter().enumerate() {
                let stored = counterpart(value, index, stored);
                within(place, &index.to_string(), |place| miss(value, stored, place, found));
            }
        }
        _ => {}
    }
}

/// Written by us and stored in another way, or counted by the server.
fn is_passed_over(place: &str) -> bool {
    matches!(place, "/stringData" | "/status") || place.ends_with("/metadata/creationTimestamp")
}

/// What a server writes by leaving it out.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(says_nothing),
    }
}

/// Items of a list may have been put into another order: most kinds know theirs by a name.
fn counterpart<'a>(value: &Value, index: usize, list: &'a [Value]) -> &'a Value {
    const NAMES: [&str; 5] = ["name", "containerPort", "port", "mountPath", "key"];
    for name in NAMES.iter().filter(|name| !value[**name].is_null()) {
        let mut fitting = list.iter().filter(|item| item[*name] == value[*name]);
        if let (Some(only), None) = (fitting.next(), fitting.next()) {
            return only;
        }
    }
    &list[index]
}

/// The planned object with live's values at `leave`, and with CA bundles that others fill in.
pub fn copy_through(wanted: &mut Value, live: &Value, leave: &[String]) {
    for pointer in leave {
        match live.pointer(pointer) {
            Some(value) => set(wanted, pointer, value.clone()),
            None => unset(wanted, pointer),
        }
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let group =
        text(&wanted["apiVersion"]).rsplit_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default();
    let kind = text(&wanted["kind"]);
    match (group.as_str(), kind.as_str()) {
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
        ) => {
            webhook_bundles(wanted, live);
        }
        ("apiregistration.k8s.io", "APIService") => bundle(wanted.get_mut("spec"), &live["spec"]),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            for config in ["/spec/conversion/webhook/clientConfig", "/spec/conversion/webhookClientConfig"] {
                bundle(wanted.pointer_mut(config), live.pointer(config).unwrap_or(&Value::Null));
            }
        }
        _ => {}
    }
}

fn webhook_bundles(wanted: &mut Value, live: &Value) {
    let live = live["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    for webhook in wanted.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(live) = live.iter().find(|live| live["name"] == webhook["name"]) {
            bundle(webhook.get_mut("clientConfig"), &live["clientConfig"]);
        }
    }
}

/// Who sets one of its own keeps it.
fn bundle(wanted: Option<&mut Value>, live: &Value) {
    let said = |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(|bundle| !bundle.is_empty());
    if let Some(wanted) = wanted.and_then(Value::as_object_mut)
        && !said(wanted.get("caBundle"))
        && said(live.get("caBundle"))
    {
        wanted.insert("caBundle".to_owned(), live["caBundle"].clone());
    }
}

/// Sets a field, with the maps on the way to it. Where something else is on the way, nothing is set.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    let mut at = object;
    for part in parent.split('/').skip(1) {
        let part = unescaped(part);
        if at.is_object() && at.get(&part).is_none() {
            at[part.as_str()] = Value::Object(Map::new());
        }
        let next = match at {
            Value::Object(fields) => fields.get_mut(&part),
            Value::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
            _ => None,
        };
        let Some(next) = next else { return };
        at = next;
    }
    let last = unescaped(last);
    match at {
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        Value::Array(items) => {
            if let Some(item) = last.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                *item = value;
            }
        }
        _ => {}
    }
}

fn unset(object: &mut Value, pointer: &str) {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    if let Some(fields) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        fields.remove(&unescaped(last));
    }
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// Does something with the place of a part.
fn within(place: &mut String, part: &str, mut act: impl FnMut(&mut String)) {
    let length = place.len();
    place.push('/');
    place.push_str(&part.replace('~', "~0").replace('/', "~1"));
    act(place);
    place.truncate(length);
}

#[cfg(test)]
mod tests;
