//! `-o table|wide|json|yaml`, and the printing of documents.

use std::io;

use k8sctl_types::failure::Failure;
use serde::Serialize;

use crate::terminal::{Context, hides};
use crate::view::FailureView;
use crate::yaml;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide screens.
    Wide,
    /// One JSON document; in streams one a line.
    Json,
    /// One YAML document; in streams separated by `---`.
    Yaml,
}

impl Format {
    /// For programs.
    pub fn is_structured(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }
}

/// Prints a result that stands alone. `Format::Table` and `Format::Wide` are the caller's.
pub fn document(context: &Context, value: &impl Serialize) -> io::Result<()> {
    context.has_printed.set(true);
    match context.format {
        Format::Yaml => context.out.raw(as_yaml(value)?),
        _ => context.out.line(shown(context.out.terminal, serde_json::to_string_pretty(value)?)),
    }
}

/// Some of many results as text, to be printed at once.
pub fn items<T: Serialize>(context: &Context, values: impl IntoIterator<Item = T>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for value in values {
        match context.format {
            Format::Yaml => text.extend_from_slice(format!("---\n{}", as_yaml(&value)?).as_bytes()),
            _ => {
                let json = shown(context.out.terminal, serde_json::to_string(&value)?);
                text.extend_from_slice(json.as_bytes());
                text.push(b'\n');
            }
        }
    }
    if !text.is_empty() {
        context.has_printed.set(true);
    }
    Ok(text)
}

/// The document of a run that failed before it printed one: programs read standard output only.
pub fn error(context: &Context, failure: &Failure) -> io::Result<()> {
    #[derive(Serialize)]
    struct Document {
        error: FailureView,
    }
    if !context.format.is_structured() || context.has_printed.get() {
        return Ok(());
    }
    document(context, &Document { error: failure.into() })
}

fn as_yaml(value: &impl Serialize) -> io::Result<String> {
    yaml::to_string(value).map_err(io::Error::other)
}

/// JSON as a terminal may have it. Of what would move its cursor JSON leaves some as it is, which is then written as an
/// escape: whoever parses it reads the same text.
fn shown(terminal: bool, json: String) -> String {
    let is_left = |c: char| c > '~' && hides(c);
    if !terminal || !json.contains(is_left) {
        return json;
    }
    let mut seen = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_left(c) {
            seen.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            seen.push(c);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_moves_no_cursor_and_says_the_same() {
        let value = serde_json::json!({ "text": "a\u{9b}2J\u{7f}\u{202e}\x1b[2J ä\tb" });
        for json in [serde_json::to_string(&value), serde_json::to_string_pretty(&value)] {
            let json = json.expect("JSON");
            assert_eq!(shown(false, json.clone()), json, "programs get it as it is");
            let seen = shown(true, json);
            assert!(!seen.contains(|c: char| c != '\n' && hides(c)) && seen.contains('ä'), "{seen:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&seen).expect("JSON"), value);
        }
    }
}
