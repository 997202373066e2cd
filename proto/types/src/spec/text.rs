//! The file as text: positions, and TOML with recovery so that a syntax error does not hide the other mistakes.

use std::ops::Range;

use toml::de::DeTable;

use super::MAX_TEXT_BYTES;
use super::table::{Place, Report};
use super::values::quoted;

/// Where the lines of a text begin.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Line and column of a byte offset, both 1-based, the column in characters.
    pub(super) fn position(&self, offset: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let before = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0)..offset;
        let column = self.text.get(before).map_or(0, |text| text.chars().count()) + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }

    /// The text of a 1-based line.
    fn line(&self, line: u32) -> &'t str {
        self.text.split('\n').nth(line.saturating_sub(1) as usize).unwrap_or("")
    }
}

/// Reports what is no TOML and hands on what is; `None` when nothing sensible is left.
///
/// Lines with a syntax error are blanked out (every offset stays what it is) and the rest is read again.
pub(super) fn with_document<T>(
    text: &str,
    report: &mut Report<'_>,
    read: impl FnOnce(&DeTable<'_>, &mut Report<'_>) -> T,
) -> Option<T> {
    if text.len() > MAX_TEXT_BYTES {
        report.error(
            "SPEC-FILE-SIZE",
            &Place::file(""),
            format!("got {} bytes, expected at most {MAX_TEXT_BYTES}", text.len()),
            "give the cluster file itself",
        );
        return None;
    }
    let lines = Lines::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let broken = report_errors(&errors, &lines, text, report);
    if broken.is_empty() {
        return Some(read(document.get_ref(), report));
    }
    report.set_incomplete();
    let readable = |line: &u32| *line != 0 && !lines.line(*line).trim_start().starts_with('[');
    if !broken.iter().all(readable) {
        return None;
    }
    let blanked = blank(text, &broken);
    let (document, errors) = DeTable::parse_recoverable(&blanked);
    if errors.iter().any(|error| !is_duplicate(error)) {
        return None;
    }
    report_errors(&errors, &lines, text, report);
    Some(read(document.get_ref(), report))
}

fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message().starts_with("duplicate key")
}

/// Reports each error, one a line, and returns the lines that are no TOML.
fn report_errors(
    errors: &[toml::de::Error],
    lines: &Lines<'_>,
    text: &str,
    report: &mut Report<'_>,
) -> Vec<u32> {
    let mut broken = Vec::new();
    for error in errors {
        let span = error.span();
        if is_duplicate(error) {
            report_duplicate(span, text, report);
            continue;
        }
        let offset = span.as_ref().map(|span| content_before(text, span.start));
        let line = offset.map_or(0, |offset| lines.position(offset).0);
        if !broken.contains(&line) {
            broken.push(line);
            let place = Place { field: String::new(), offset };
            report.error("SPEC-TOML", &place, error.message(), syntax_hint(lines.line(line)));
        }
    }
    broken
}

/// Errors about something missing point at the line's end or behind it: the line that they are about.
fn content_before(text: &str, offset: usize) -> usize {
    match text.get(..offset.min(text.len())) {
        Some(before) if offset >= text.len() => before.trim_end().len().saturating_sub(1).min(offset),
        Some(before) if before.ends_with('\n') && text[offset..].starts_with(['\n', '\r']) => {
            before.trim_end().len().saturating_sub(1)
        }
        _ => offset,
    }
    .min(offset)
}

fn report_duplicate(span: Option<Range<usize>>, text: &str, report: &mut Report<'_>) {
    let key = span.clone().and_then(|span| text.get(span)).unwrap_or("");
    let place = Place { field: key.to_owned(), offset: span.map(|span| span.start) };
    report.error(
        "SPEC-DUPLICATE-KEY",
        &place,
        format!("{} is written twice; a table has each key once", quoted(key)),
        "remove one of the two; further nodes begin with [[node]], pools with [[worker_pool]]",
    );
}

fn syntax_hint(line: &str) -> String {
    let value = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
    match value {
        Some((key, "")) => format!("write a value: {} = …", key.escape_debug()),
        Some((key, value)) if value.starts_with(|c: char| c.is_ascii_alphanumeric()) => {
            let value = value.split('#').next().unwrap_or(value).trim();
            format!("text stands in double quotes: {} = {}", key.escape_debug(), quoted(value))
        }
        None if line.trim_start().starts_with('[') => {
            "a table begins with [name], one of many with [[name]]".to_owned()
        }
        None => "a line is key = value, [table], [[table]] or # comment".to_owned(),
        _ => "check the quotes and brackets of this line".to_owned(),
    }
}

/// The text with these lines turned into spaces, byte for byte.
fn blank(text: &str, lines: &[u32]) -> String {
    let mut number = 0;
    text.split_inclusive('\n')
        .map(|line| {
            number += 1;
            if lines.contains(&number) {
                let content = line.trim_end_matches(['\n', '\r']);
                format!("{}{}", " ".repeat(content.len()), &line[content.len()..])
            } else {
                line.to_owned()
            }
        })
        .collect()
}
