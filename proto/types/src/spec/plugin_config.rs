//! A plugin's config as JSON: what stands below `[plugins.NAME]`, or in a file of its own. Dates become strings; what
//! JSON cannot hold is refused. Pure.

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::report::Place;
use crate::config_file;

/// Deepest nesting.
const DEPTH: usize = 32;
/// What to do about a value that is refused.
pub(super) const HINT: &str = "write it as a string, or leave it out";

/// Reads a file that is one plugin's config and nothing else. `Err` holds a sentence for each mistake, in the order of
/// the file: `line 3: …`.
pub fn plugin_config(text: &str) -> Result<Map<String, Value>, Vec<String>> {
    let (document, mut mistakes) = config_file::parse(text);
    let config = object(&document, &Place::file(""), 0, &mut |at: &Place, message: String| {
        mistakes.tell(at.offset.unwrap_or(0), format!("{}: {message}; {HINT}", at.field));
    });
    mistakes.finish()?;
    Ok(config.unwrap_or_default())
}

/// A value as JSON; `refuse` is told of each that is refused, with its place.
pub(super) fn json(
    value: &DeValue<'_>,
    at: &Place,
    depth: usize,
    refuse: &mut dyn FnMut(&Place, String),
) -> Option<Value> {
    let mut refused = |what: String| {
        refuse(at, format!("JSON cannot hold {what}"));
        None
    };
    if depth > DEPTH {
        return refused(format!("more than {DEPTH} tables in each other"));
    }
    match value {
        DeValue::String(text) => Some(Value::from(text.as_ref())),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Some(Value::from(number)),
            Err(_) => refused(format!("the number {number}")),
        },
        DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
            Some(number) => Some(Value::Number(number)),
            None => refused(format!("the number {}", number.as_str())),
        },
        DeValue::Boolean(value) => Some(Value::from(*value)),
        DeValue::Datetime(value) => Some(Value::from(value.to_string())),
        DeValue::Array(items) => {
            let mut array = Some(Vec::new());
            for (index, item) in items.iter().enumerate() {
                let at = Place { field: format!("{}[{index}]", at.field), offset: Some(item.span().start) };
                let item = json(item.get_ref(), &at, depth + 1, refuse);
                array = array.zip(item).map(|(mut array, item)| {
                    array.push(item);
                    array
                });
            }
            array.map(Value::Array)
        }
        DeValue::Table(entries) => object(entries, at, depth, refuse).map(Value::Object),
    }
}

fn object(
    entries: &DeTable<'_>,
    at: &Place,
    depth: usize,
    refuse: &mut dyn FnMut(&Place, String),
) -> Option<Map<String, Value>> {
    let mut object = Some(Map::new());
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        let key_at = at.below(name, key.span().start);
        let value = json(value.get_ref(), &key_at, depth + 1, refuse);
        object = object.zip(value).map(|(mut object, value)| {
            object.insert(name.to_owned(), value);
            object
        });
    }
    object
}
