//! `-o table|wide|json|yaml`, and the printing of documents.

use std::io;

use k8sctl_types::failure::Failure;
use serde::Serialize;

use crate::terminal::Context;
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
        _ => context.out.line(serde_json::to_string_pretty(value)?),
    }
}

/// Prints one of many results.
pub fn item(context: &Context, value: &impl Serialize) -> io::Result<()> {
    context.has_printed.set(true);
    match context.format {
        Format::Yaml => context.out.raw(format!("---\n{}", as_yaml(value)?)),
        _ => context.out.line(serde_json::to_string(value)?),
    }
}

/// Several of many results as text, to be printed at once.
pub fn items<T: Serialize>(context: &Context, values: impl IntoIterator<Item = T>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for value in values {
        match context.format {
            Format::Yaml => text.extend_from_slice(format!("---\n{}", as_yaml(&value)?).as_bytes()),
            _ => {
                serde_json::to_writer(&mut text, &value)?;
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
