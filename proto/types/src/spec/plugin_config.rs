//! A plugin's config as JSON: what stands below `[plugins.NAME]`, or in a file of its own, and where each value of it
//! stands. Dates become strings; what JSON cannot hold is refused. Pure.

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::lines::Lines;
use super::model::ConfigPlaces;
use super::report::Place;
use crate::config_file;

/// Deepest nesting.
const DEPTH: usize = 32;
/// Longest pointer whose place is kept: what is below has the place of what is above it.
const POINTER_BYTES: usize = 512;
/// What all kept pointers of a file may take together.
const POINTERS_BYTES: usize = 4 << 20;
/// What to do about a value that is refused.
pub(super) const HINT: &str = "write it as a string, or leave it out";

/// JSON pointers of values, each with the offset of the value in the text.
pub(super) type Pointers = Vec<(String, usize)>;

/// Reads a file that is one plugin's config and nothing else. `Err` holds a sentence for each mistake, in the order of
/// the file: `line 3: …`.
pub fn plugin_config(text: &str) -> Result<Map<String, Value>, Vec<String>> {
    plugin_config_places(text).map(|(config, _)| config)
}

/// The same, and where its values stand, for whoever finds out later that one does not fit.
pub fn plugin_config_places(text: &str) -> Result<(Map<String, Value>, ConfigPlaces), Vec<String>> {
    let (document, mut mistakes) = config_file::parse(text);
    let mut refuse = |at: &Place, message: String| {
        mistakes.tell(at.offset.unwrap_or(0), format!("{}: {message}; {HINT}", at.field));
    };
    let mut room = Room::default();
    let mut reader = Reader { refuse: &mut refuse, room: &mut room, pointers: Vec::new() };
    let config = reader.object(&document, &Place::file(""), Some(""), 0);
    let pointers = reader.pointers;
    mistakes.finish()?;
    let places = Lines::new(text).places(pointers.iter().map(|(_, offset)| *offset).collect());
    Ok((config.unwrap_or_default(), ConfigPlaces::new(&pointers, &places)))
}

/// What is left for pointers of one file.
#[derive(Debug)]
pub(super) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(POINTERS_BYTES)
    }
}

/// A value as JSON, and where its parts stand; `refuse` is told of each that is refused, with its place.
pub(super) fn json(
    value: &DeValue<'_>,
    at: &Place,
    room: &mut Room,
    refuse: &mut dyn FnMut(&Place, String),
) -> (Option<Value>, Pointers) {
    let mut reader = Reader { refuse, room, pointers: Vec::new() };
    let value = reader.value(value, at, Some(""), 0);
    (value, reader.pointers)
}

struct Reader<'r> {
    refuse: &'r mut dyn FnMut(&Place, String),
    room: &'r mut Room,
    pointers: Pointers,
}

impl Reader<'_> {
    fn refused(&mut self, at: &Place, what: &str) -> Option<Value> {
        (self.refuse)(at, format!("JSON cannot hold {what}"));
        None
    }

    /// `pointer` is `None` below what has no place of its own any more.
    fn value(
        &mut self,
        value: &DeValue<'_>,
        at: &Place,
        pointer: Option<&str>,
        depth: usize,
    ) -> Option<Value> {
        if depth > DEPTH {
            return self.refused(at, &format!("more than {DEPTH} tables in each other"));
        }
        if let (Some(pointer), Some(offset)) = (pointer, at.offset) {
            self.pointers.push((pointer.to_owned(), offset));
        }
        match value {
            DeValue::String(text) => Some(Value::from(text.as_ref())),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Some(Value::from(number)),
                Err(_) => self.refused(at, &format!("the number {number}")),
            },
            DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
                Some(number) => Some(Value::Number(number)),
                None => self.refused(at, &format!("the number {}", number.as_str())),
            },
            DeValue::Boolean(value) => Some(Value::from(*value)),
            DeValue::Datetime(value) => Some(Value::from(value.to_string())),
            DeValue::Array(items) => {
                let mut array = Some(Vec::new());
                for (index, item) in items.iter().enumerate() {
                    let at =
                        Place { field: format!("{}[{index}]", at.field), offset: Some(item.span().start) };
                    let below = self.below(pointer, &index.to_string());
                    let item = self.value(item.get_ref(), &at, below.as_deref(), depth + 1);
                    array = array.zip(item).map(|(mut array, item)| {
                        array.push(item);
                        array
                    });
                }
                array.map(Value::Array)
            }
            DeValue::Table(entries) => self.object(entries, at, pointer, depth).map(Value::Object),
        }
    }

    fn object(
        &mut self,
        entries: &DeTable<'_>,
        at: &Place,
        pointer: Option<&str>,
        depth: usize,
    ) -> Option<Map<String, Value>> {
        let mut object = Some(Map::new());
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            let key_at = at.below(name, key.span().start);
            let below = self.below(pointer, name);
            let value = self.value(value.get_ref(), &key_at, below.as_deref(), depth + 1);
            object = object.zip(value).map(|(mut object, value)| {
                object.insert(name.to_owned(), value);
                object
            });
        }
        object
    }

    /// The pointer of what is right below, where there is room for it.
    fn below(&mut self, pointer: Option<&str>, part: &str) -> Option<String> {
        let pointer = pointer?;
        let bytes = pointer.len() + part.len() + 1;
        if bytes > POINTER_BYTES || bytes > self.room.0 {
            return None;
        }
        self.room.0 -= bytes;
        Some(format!("{pointer}/{}", part.replace('~', "~0").replace('/', "~1")))
    }
}
