//! Tests of the cluster spec from the outside: what `spec::parse` makes of files, good, bad and random.

mod documentation;
mod examples;
mod host;
mod hostile;
mod mistakes;
mod properties;
mod single;

use k8sctl_types::spec::{self, Diagnostic};

/// `examples/home.toml`.
const HOME: &str = include_str!("../../../../examples/home.toml");

/// Every diagnostic of a text, warnings of a good one too.
fn diagnostics(text: &str) -> Vec<Diagnostic> {
    match spec::parse(text) {
        Ok(parsed) => parsed.warnings,
        Err(diagnostics) => diagnostics,
    }
}

/// The last key of a key path, without index.
fn last_key(field: &str) -> &str {
    let key = field.rsplit(['.', '"']).find(|part| !part.is_empty()).unwrap_or("");
    key.split('[').next().unwrap_or(key)
}

/// The diagnostic is complete and its line holds the key that it is about.
fn assert_points_home(text: &str, diagnostic: &Diagnostic) {
    assert!(spec::IDS.iter().any(|(id, _)| *id == diagnostic.id), "not listed: {diagnostic}");
    assert!(!diagnostic.message.is_empty() && !diagnostic.hint.is_empty(), "{diagnostic:?}");
    if diagnostic.line == 0 {
        return;
    }
    let line = text.split('\n').nth(diagnostic.line as usize - 1);
    let line = line.unwrap_or_else(|| panic!("no such line: {diagnostic}"));
    assert!(diagnostic.column >= 1, "{diagnostic}");
    let key = match diagnostic.id {
        "SPEC-TOML" => return,
        "SPEC-MISSING" => diagnostic.field.split(['[', '.']).next().unwrap_or(""),
        _ => last_key(&diagnostic.field),
    };
    assert!(line.contains(key), "line {line:?} does not hold {key:?}: {diagnostic}");
}
