//! Tests of the cluster spec from the outside: what `spec::parse` makes of files, good, bad and random.

mod brackets;
mod documentation;
mod examples;
mod host;
mod hostile;
mod mistakes;
mod plugin_config;
mod properties;
mod recovery;
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

/// A diagnostic's id, which is one of those of a cluster file.
fn id_of(diagnostic: &Diagnostic) -> &'static str {
    let known = spec::IDS.iter().find(|(id, _)| *id == diagnostic.id);
    known.unwrap_or_else(|| panic!("not listed: {diagnostic}")).0
}

/// Id and line of every diagnostic of a text, having checked each one's place.
fn told(text: &str) -> Vec<(&'static str, u32)> {
    let found = diagnostics(text);
    found.iter().for_each(|diagnostic| assert_points_home(text, diagnostic));
    found.iter().map(|diagnostic| (id_of(diagnostic), diagnostic.line)).collect()
}

/// 1-based line of the first line that holds this.
fn line_of(text: &str, needle: &str) -> u32 {
    text.lines().position(|line| line.contains(needle)).unwrap_or_else(|| panic!("no {needle:?}")) as u32 + 1
}

/// A text with a part replaced, which it must have.
fn edit(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

/// The last key of a key path, without index.
fn last_key(field: &str) -> &str {
    let key = field.rsplit(['.', '"']).find(|part| !part.is_empty()).unwrap_or("");
    key.split('[').next().unwrap_or(key)
}

/// The diagnostic is complete and its line holds the key that it is about.
fn assert_points_home(text: &str, diagnostic: &Diagnostic) {
    let id = id_of(diagnostic);
    assert!(!diagnostic.message.is_empty() && !diagnostic.hint.is_empty(), "{diagnostic:?}");
    if diagnostic.line == 0 {
        assert!(matches!(id, "SPEC-FILE-SIZE" | "SPEC-MORE"), "{diagnostic}");
        return;
    }
    if diagnostic.column == 0 {
        // What is not there at all.
        assert_eq!(diagnostic.line, 1, "{diagnostic}");
        return;
    }
    let line = text.split('\n').nth(diagnostic.line as usize - 1);
    let line = line.unwrap_or_else(|| panic!("no such line: {diagnostic}"));
    let key = match id {
        "SPEC-TOML" => return,
        "SPEC-MISSING" => diagnostic.field.split(['[', '.']).next().unwrap_or(""),
        _ => last_key(&diagnostic.field),
    };
    // Of a line that is no TOML, what is meant is taken, as `node` of `[[n?ode]]`.
    let is_meant = || diagnostics(text).iter().any(|it| it.id == "SPEC-TOML" && it.line == diagnostic.line);
    assert!(line.contains(key) || is_meant(), "line {line:?} does not hold {key:?}: {diagnostic}");
}
