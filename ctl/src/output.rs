//! `-o table|wide|json|yaml`, and the printing of documents.

use std::io;

use serde::Serialize;

use crate::terminal::Printer;

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
pub fn document(out: &Printer, format: Format, value: &impl Serialize) -> io::Result<()> {
    match format {
        Format::Yaml => out.raw(yaml(value)?),
        _ => out.line(serde_json::to_string_pretty(value)?),
    }
}

/// Prints one of many results.
pub fn item(out: &Printer, format: Format, value: &impl Serialize) -> io::Result<()> {
    match format {
        Format::Yaml => out.raw(format!("---\n{}", yaml(value)?)),
        _ => out.line(serde_json::to_string(value)?),
    }
}

fn yaml(value: &impl Serialize) -> io::Result<String> {
    serde_yaml_ng::to_string(value).map_err(io::Error::other)
}
