//! The file as text: positions, and TOML with recovery so that a syntax error does not hide the other mistakes.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use toml::de::DeTable;

use super::MAX_TEXT_BYTES;
use super::table::{Place, Report};
use super::values::quoted;

/// Most times that a text is read again without the lines found broken.
const MOST_PASSES: usize = 64;

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

    /// 1-based line of a byte offset. Does not read the line.
    pub(super) fn number(&self, offset: usize) -> u32 {
        let line = self.starts.partition_point(|start| *start <= offset);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    /// 1-based column of a byte offset, in characters. Reads the line up to it.
    pub(super) fn column(&self, offset: usize) -> u32 {
        let line = self.number(offset);
        let before = self.starts.get(line.saturating_sub(1) as usize).copied().unwrap_or(0)..offset;
        let column = self.text.get(before).map_or(0, |text| text.chars().count()) + 1;
        u32::try_from(column).unwrap_or(u32::MAX)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.starts.len()).unwrap_or(u32::MAX)
    }

    /// Whether a line begins a table, well-formed or not.
    fn is_header(&self, line: u32) -> bool {
        self.line(line).trim_start().starts_with('[')
    }

    /// The text of a 1-based line.
    fn line(&self, line: u32) -> &'t str {
        let index = line.saturating_sub(1) as usize;
        let Some(start) = self.starts.get(index) else { return "" };
        let end = self.starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
        &self.text[*start..end]
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
            // How much longer is not known: whoever read it stopped there.
            format!("got more than {MAX_TEXT_BYTES} bytes, expected at most those"),
            "give the cluster file itself",
        );
        return None;
    }
    let lines = Lines::new(text);
    let mut readable = Cow::Borrowed(text);
    let mut broken = BTreeSet::new();
    for pass in 0..MOST_PASSES {
        let (document, errors) = DeTable::parse_recoverable(&readable);
        let found = broken_lines(&errors, &lines, text);
        // What only shows after blanking counts where it is a mistake of its own for sure: key = value.
        let own = |line: &u32| pass == 0 || is_key_value(lines.line(*line));
        if !found.iter().map(|(line, ..)| line).all(own) {
            return None;
        }
        report_errors(&errors, &found, &lines, text, report);
        if found.is_empty() {
            return Some(read(document.get_ref(), report));
        }
        if report.is_full() {
            return None;
        }
        report.set_incomplete();
        for (line, ..) in &found {
            if *line == 0 {
                return None;
            }
            broken.insert(*line);
            // What stands below a header that cannot be read belongs to no table that is known.
            if lines.is_header(*line) {
                broken.extend((*line + 1..=lines.count()).take_while(|below| !lines.is_header(*below)));
            }
        }
        readable = Cow::Owned(blank(text, &broken));
    }
    None
}

/// Whether a line by itself is meant as `key = value`.
fn is_key_value(line: &str) -> bool {
    line.trim_start().starts_with(|c: char| c.is_ascii_alphabetic()) && line.contains('=')
}

fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message().starts_with("duplicate key")
}

/// Line, offset and message of each line that is no TOML; line 0 when the error has no place.
fn broken_lines<'e>(
    errors: &'e [toml::de::Error],
    lines: &Lines<'_>,
    text: &str,
) -> Vec<(u32, Option<usize>, &'e str)> {
    let mut broken = Vec::new();
    let mut known = HashSet::new();
    for error in errors.iter().filter(|error| !is_duplicate(error)) {
        let offset = error.span().map(|span| content_before(text, span.start));
        let line = offset.map_or(0, |offset| lines.number(offset));
        if known.insert(line) {
            broken.push((line, offset, error.message()));
        }
    }
    broken
}

/// Reports each key that is twice, and each broken line.
fn report_errors(
    errors: &[toml::de::Error],
    broken: &[(u32, Option<usize>, &str)],
    lines: &Lines<'_>,
    text: &str,
    report: &mut Report<'_>,
) {
    for error in errors.iter().filter(|error| is_duplicate(error)) {
        report_duplicate(error.span(), text, report);
    }
    for (line, offset, message) in broken {
        let place = Place { field: String::new(), offset: *offset };
        let hint = match offset {
            Some(_) => syntax_hint(lines.line(*line)),
            None => "put fewer brackets and dotted keys in each other; no line is known".to_owned(),
        };
        report.error("SPEC-TOML", &place, *message, hint);
    }
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
fn blank(text: &str, lines: &BTreeSet<u32>) -> String {
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
