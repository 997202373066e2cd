//! TOML with recovery, so that a syntax error does not hide the other mistakes.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::MAX_TEXT_BYTES;
use super::keys;
use super::layout::{Line, Reader};
use super::lines::Lines;
use super::report::{Place, Report};
use super::source::{Source, push_blank};
use super::table::example;
use super::values::quoted;

/// Most times that a text is read again without the lines found broken.
const MOST_PASSES: usize = 64;
/// Most times that values of keys that stand there twice are read.
const MOST_AGAIN: usize = 4;
/// As many parts of a key are more than the parser takes.
const DEEP: usize = 80;

/// Reports what is no TOML and hands on what is; `None` when nothing sensible is left. `again` is given the values that
/// a key has where it stands for the second time, of which only that they are sound can be said.
///
/// Lines with a syntax error are made comments (every offset stays what it is) and the rest is read again.
pub(super) fn with_document<T>(
    source: &Source<'_>,
    report: &mut Report<'_>,
    read: impl FnOnce(&DeTable<'_>, &mut Report<'_>) -> T,
    again: impl Fn(&DeTable<'_>, &mut Report<'_>),
) -> Option<T> {
    if source.is_too_long {
        report.error(
            "SPEC-FILE-SIZE",
            &Place::file(""),
            // How much longer is not known: whoever read it stopped there.
            format!("got more than {MAX_TEXT_BYTES} bytes, expected at most those"),
            "give the cluster file itself",
        );
        return None;
    }
    source.report_unreadable(report);
    let mut reading =
        Reading { source, lines: Lines::new(&source.text), broken: BTreeSet::new(), told: HashSet::new() };
    for _ in 0..MOST_PASSES {
        if report.is_full() {
            return None;
        }
        let readable = blank(&source.text, |line| reading.broken.contains(&line));
        let (document, errors) = DeTable::parse_recoverable(&readable);
        let repeated = reading.report_repeated(&errors, report);
        if !reading.find_broken(&errors, report)? {
            let result = read(document.get_ref(), report);
            report.set_again();
            reading.read_again(&readable, repeated, again, report);
            return Some(result);
        }
    }
    None
}

/// What has been found out about a text so far.
struct Reading<'s> {
    source: &'s Source<'s>,
    lines: Lines<'s>,
    /// Lines that are not read.
    broken: BTreeSet<u32>,
    /// First lines of the items with a line that was reported.
    told: HashSet<u32>,
}

impl Reading<'_> {
    /// Reports each broken line and counts it as one; whether there are any. `None` when one has no place.
    fn find_broken(&mut self, errors: &[toml::de::Error], report: &mut Report<'_>) -> Option<bool> {
        let mut known = HashSet::new();
        let mut any = false;
        let earlier = self.told.clone();
        for error in errors.iter().filter(|error| !is_duplicate(error)) {
            any = true;
            let offset = match error.span() {
                Some(span) => Some(content_before(&self.source.text, span.start)),
                None => self.deep_line(),
            };
            let Some(offset) = offset else {
                let hint = "put fewer brackets and dotted keys in each other; no line is known";
                report.error("SPEC-TOML", &Place::file(""), error.message(), hint);
                return None;
            };
            let line = self.lines.number(offset);
            if !known.insert(line) {
                continue;
            }
            let item = self.source.item(line);
            let first = self.lines.line(item.first);
            // What only shows without the lines that were broken before comes from that.
            let is_news = !earlier.contains(&item.first);
            if is_news && report.is_full() {
                report.error("SPEC-TOML", &Place { field: String::new(), offset: Some(offset) }, "", "");
                continue;
            }
            if is_news {
                let hint = match error.span() {
                    Some(_) => syntax_hint(self.lines.line(line)),
                    None => "put fewer brackets and dotted keys in each other".to_owned(),
                };
                let place = Place { field: String::new(), offset: Some(offset) };
                report.error("SPEC-TOML", &place, error.message(), hint);
                self.told.insert(item.first);
            }
            report.hide(line, first);
            if item.is_header {
                // What stands below belongs to no table that is known.
                self.broken.extend(item.first..=self.source.last_below(item.first));
            } else if is_news && line > item.first {
                self.broken.insert(line);
            } else {
                self.broken.extend(item.first..=item.last);
            }
        }
        Some(any)
    }

    /// Where a line begins that has a key of more parts than the parser takes.
    fn deep_line(&self) -> Option<usize> {
        let is_deep = |line: &Line| {
            let mut dots = 0;
            line.words.iter().any(|word| {
                dots = match word.kind {
                    TokenKind::Dot => dots + 1,
                    TokenKind::Atom | TokenKind::BasicString | TokenKind::LiteralString => dots,
                    _ => 0,
                };
                dots >= DEEP
            })
        };
        let unread = |line: &Line| !self.broken.contains(&self.lines.number(line.range.start));
        Reader::new(&self.source.text, 0)
            .find(|line| unread(line) && is_deep(line))
            .map(|line| line.range.start)
    }

    /// Reports each key that is there twice, but for those of a table that is; the lines of all of them.
    fn report_repeated(&self, errors: &[toml::de::Error], report: &mut Report<'_>) -> BTreeSet<u32> {
        let spans: Vec<_> =
            errors.iter().filter(|error| is_duplicate(error)).filter_map(toml::de::Error::span).collect();
        let headers = |span: &&Range<usize>| self.source.item(self.lines.number(span.start)).is_header;
        let tables: BTreeSet<_> =
            spans.iter().filter(headers).map(|span| self.lines.number(span.start)).collect();
        let mut known = HashSet::new();
        let mut repeated = BTreeSet::new();
        for span in spans {
            let line = self.lines.number(span.start);
            let item = self.source.item(line);
            let key = self.source.text.get(span.clone()).unwrap_or("");
            let table =
                tables.range(..line).next_back().filter(|table| line <= self.source.last_below(**table));
            // Every key of such a table may stand in the first one, too.
            if table.is_none_or(|table| !known.insert((*table, key))) {
                report_duplicate(key, span.start, report);
            }
            if !item.is_header {
                repeated.extend(item.first..=item.last);
            }
        }
        repeated
    }

    /// Reads the second values of keys that are there twice, the third, and so on.
    fn read_again(
        &self,
        text: &str,
        mut repeated: BTreeSet<u32>,
        read: impl Fn(&DeTable<'_>, &mut Report<'_>),
        report: &mut Report<'_>,
    ) {
        for _ in 0..MOST_AGAIN {
            if repeated.is_empty() || report.is_full() {
                return;
            }
            let readable = blank(text, |line| !repeated.contains(&line) && !self.source.item(line).is_header);
            let (document, errors) = DeTable::parse_recoverable(&readable);
            read(document.get_ref(), report);
            let before = repeated.len();
            repeated = self.report_repeated(&errors, report);
            if repeated.len() == before {
                return;
            }
        }
    }
}

fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message().starts_with("duplicate key")
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

fn report_duplicate(key: &str, offset: usize, report: &mut Report<'_>) {
    let place = Place { field: key.to_owned(), offset: Some(offset) };
    report.error(
        "SPEC-DUPLICATE-KEY",
        &place,
        format!("{} is written twice; a table has each key once", quoted(key)),
        "remove one of the two; further nodes begin with [[node]], pools with [[worker_pool]]",
    );
}

/// What to write in a line that is no TOML: its key, where it is one of ours, says in which form.
fn syntax_hint(line: &str) -> String {
    let Some((key, value)) = line.split_once('=') else {
        let is_header = line.trim_start().starts_with('[');
        let header = "a table begins with [name], one of many with [[name]]";
        return if is_header { header } else { "a line is key = value, [table], [[table]] or # comment" }
            .to_owned();
    };
    let (key, value) = (key.trim(), value.split('#').next().unwrap_or(value).trim());
    let shown = key.escape_debug();
    if value.is_empty() {
        return format!("write a value: {shown} = …");
    }
    if let Some(shape) = keys::shape(key) {
        return format!("its keys stand below a header: {}", shape.header(key));
    }
    let example = example(keys::last_part(key));
    // What ends an entry in other languages is no part of its text.
    let text = value.trim_end_matches([',', ';']).trim_end();
    let is_text =
        |known: bool| text.starts_with(|c: char| c.is_ascii_alphabetic() || (known && c.is_ascii_digit()));
    match keys::kind(key) {
        Some("integer") => {
            let number = first_number(value).map_or_else(|| example.to_owned(), |number| number.to_string());
            format!("a whole number stands alone: {shown} = {number}")
        }
        Some("table of strings") => format!("a table stands in braces: {shown} = {example}"),
        Some("array of strings") => format!("an array stands in brackets: {shown} = {example}"),
        kind if is_text(kind.is_some()) => {
            format!("text stands in double quotes: {shown} = {}", quoted(text))
        }
        None if value.starts_with(|c: char| c.is_ascii_digit()) => {
            "a number stands alone, all other text in double quotes".to_owned()
        }
        _ => "check the quotes and brackets of this line".to_owned(),
    }
}

/// The number that a value begins with, as `03` or `2 cores`.
fn first_number(value: &str) -> Option<u32> {
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(value.len());
    value[..end].replace('_', "").parse::<u32>().ok().filter(|number| *number > 0)
}

/// The text with such lines turned into comments, byte for byte.
fn blank(text: &str, is_blank: impl Fn(u32) -> bool) -> String {
    let mut readable = String::with_capacity(text.len());
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        if is_blank(number) {
            push_blank(&mut readable, line);
        } else {
            readable.push_str(line);
        }
    }
    readable
}
