//! The validated cluster spec. Values of these types only come from [`parse`], so whoever holds one
//! need not check again. [`cluster_name`] reads no more than the name.
//!
//! - `model`: the validated types; `diagnostic`: what a mistake looks like and every id there is
//! - `keys`: the table of every key, which the reader obeys and `docs/configuration.md` is tested against
//! - `layout`, `header`, `source`: the file as lines, so that one wrong bracket hides nothing
//! - `text`, `table`: TOML with positions; `report`, `lines`: what is told, and where; `values`, `node_values`: one value at a time
//! - `plugin_config`: a plugin's config as JSON, and where each value of it stands
//! - `read`: the file as a draft; `check_network`, `check_nodes`: what only shows between values
//! - `host`: what only shows on a given host
//!
//! Nothing here reads a file or knows of libvirt.

mod check_network;
mod check_nodes;
mod diagnostic;
mod header;
mod host;
mod keys;
mod layout;
mod lines;
mod mac;
mod model;
mod node_values;
mod plugin_config;
mod read;
mod report;
mod source;
mod table;
mod text;
mod values;

pub use diagnostic::{Diagnostic, IDS, InFile};
pub use host::{HostRoom, most_memory};
pub use keys::{KEYS, Key};
pub use mac::derived_mac;
pub use model::{
    AddressRange, ClusterSpec, ConfigPlaces, ImageSpec, KeyLines, NetworkSpec, NodeSpec, Parsed, PluginSpec,
    Role,
};
pub use plugin_config::{plugin_config, plugin_config_places};

use toml::de::DeTable;

use report::Report;
use source::Source;

/// The longest text that is read, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// Reads a `cluster.toml`. `Err` holds every mistake at once, in the order of the file, with the
/// warnings among them; at least one of them is an error.
pub fn parse(text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    read(text, None)
}

/// The same for a known host: what does not fit onto it is told beside all else.
pub fn parse_on(text: &str, host: &HostRoom) -> Result<Parsed, Vec<Diagnostic>> {
    read(text, Some(host))
}

/// The cluster's name alone. `Err` holds what is wrong with it, and whatever is no TOML; nothing else is judged.
pub fn cluster_name(text: &str) -> Result<String, Vec<Diagnostic>> {
    let source = Source::new(text);
    let mut report = Report::new(&source);
    let name = text::with_document(&source, &mut report, read::name, |_, _| {});
    let (failed, diagnostics) = report.finish();
    match name.flatten() {
        Some(name) if !failed => Ok(name.value),
        _ => Err(diagnostics),
    }
}

fn read(text: &str, host: Option<&HostRoom>) -> Result<Parsed, Vec<Diagnostic>> {
    let source = Source::new(text);
    let mut report = Report::new(&source);
    source.report_misplaced(&mut report);
    let judge = |document: &DeTable<'_>, report: &mut Report<'_>| {
        let draft = read::draft(document, report);
        check_network::check(&draft, report);
        check_nodes::check(&draft, report);
        if let Some(host) = host {
            host::check(&draft, host, report);
        }
        let lines = draft.lines(report);
        draft.finish().map(|spec| (spec, lines))
    };
    let again = |document: &DeTable<'_>, report: &mut Report<'_>| drop(read::draft(document, report));
    let spec = text::with_document(&source, &mut report, judge, again);
    let (failed, diagnostics) = report.finish();
    match spec.flatten() {
        Some((spec, lines)) if !failed => Ok(Parsed { spec, lines, warnings: diagnostics }),
        _ => Err(diagnostics),
    }
}
