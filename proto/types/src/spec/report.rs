//! The report that collects every mistake, and what is known of lines that could not be read: what they may hold is
//! not missed.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::diagnostic::Diagnostic;
use super::keys::{self, Shape};
use super::lines::Lines;
use super::source::{Block, Source};
use super::table::bare_or_quoted;

/// A key path and where its value stands in the text.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Empty: the top level, or the file as a whole.
    pub(super) field: String,
    /// `None`: nowhere. What is not there is told in the first line.
    pub(super) offset: Option<usize>,
}

impl Place {
    pub(super) fn file(field: &str) -> Self {
        Self { field: field.to_owned(), offset: None }
    }

    /// The path of a key in the table at this place.
    pub(super) fn path(&self, key: &str) -> String {
        let key = bare_or_quoted(key);
        if self.field.is_empty() { key } else { format!("{}.{key}", self.field) }
    }

    /// The place of that key.
    pub(super) fn below(&self, key: &str, offset: usize) -> Self {
        Self { field: self.path(key), offset: Some(offset) }
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: Place,
    /// Whether the user wrote it; else it is a default.
    pub(super) written: bool,
}

/// Most mistakes that are told, the first ones in the file; behind them it is said how many more there are.
const MOST_TOLD: usize = 100;
/// Most mistakes that are kept to choose those from; further ones are counted.
pub(super) const MOST_KEPT: usize = 1000;

/// Every mistake found so far; one for each id, key, line and message.
pub(super) struct Report<'s> {
    lines: Lines<'s>,
    blocks: &'s [Block],
    /// With the offset of each; its column is not known yet.
    found: Vec<(Option<usize>, Diagnostic)>,
    seen: HashSet<(&'static str, String, u32, String)>,
    failed: bool,
    /// How many are not among those found.
    more: usize,
    /// Tables with a line that could not be read, and its key where that is one of ours.
    hidden: HashSet<(usize, Option<String>)>,
    incomplete: bool,
    again: bool,
}

impl<'s> Report<'s> {
    pub(super) fn new(source: &'s Source<'_>) -> Self {
        let mut report = Self {
            lines: Lines::new(&source.text),
            blocks: &source.blocks,
            found: Vec::new(),
            seen: HashSet::new(),
            failed: false,
            more: 0,
            hidden: HashSet::new(),
            incomplete: source.is_incomplete,
            again: false,
        };
        for (line, text) in &source.hidden {
            report.hide(*line, text);
        }
        report
    }

    /// Further mistakes are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MOST_KEPT
    }

    /// Whether whole tables may be missing because they were not read.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// From now on whole tables may be missing because they were not read: that one is missing is no news.
    pub(super) fn set_incomplete(&mut self) {
        self.incomplete = true;
    }

    /// Whether these are values of keys that stand there twice: known already, and not all of their table.
    pub(super) fn is_again(&self) -> bool {
        self.again
    }

    pub(super) fn set_again(&mut self) {
        self.again = true;
    }

    /// From now on this line is one that could not be read; `text` says what it may have held.
    pub(super) fn hide(&mut self, line: u32, text: &str) {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let text = text.trim_start();
        let (word, rest) = text.split_at(text.find(|c| !is_bare(c)).unwrap_or(text.len()));
        let is_dotted = rest.trim_start().starts_with('.');
        let key = (keys::elsewhere(word).is_some() && !is_dotted).then(|| word.to_owned());
        let block = self.block(line);
        let meant = keys::did_you_mean("", word).and_then(keys::shape);
        self.incomplete |= match block {
            Block::TOP if meant == Some(Shape::Many) => true,
            _ => key.is_none() && !text.contains('='),
        };
        self.hidden.insert((block, key));
    }

    /// Whether a key that the table at a place lacks may stand in a line that could not be read.
    pub(super) fn may_hold(&self, table: &Place, key: &str) -> bool {
        let block = table.offset.map_or(Block::TOP, |offset| self.block(self.lines.number(offset)));
        let block = if table.field.is_empty() { Block::TOP } else { block };
        !self.hidden.is_empty()
            && (self.hidden.contains(&(block, None)) || self.hidden.contains(&(block, Some(key.to_owned()))))
    }

    /// The table that a line belongs to.
    fn block(&self, line: u32) -> usize {
        let behind = self.blocks.partition_point(|block| block.line <= line);
        behind.checked_sub(1).map_or(Block::TOP, |index| self.blocks[index].table)
    }

    pub(super) fn error(
        &mut self,
        id: &'static str,
        at: &Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(id, at, message.into(), hint.into(), false);
    }

    pub(super) fn warning(
        &mut self,
        id: &'static str,
        at: &Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(id, at, message.into(), hint.into(), true);
    }

    /// 1-based line and column of each of these offsets.
    pub(super) fn places(&self, offsets: Vec<usize>) -> HashMap<usize, (u32, u32)> {
        self.lines.places(offsets)
    }

    /// 1-based line of a place, for messages that name another one; 0 for the file as a whole.
    pub(super) fn line(&self, at: &Place) -> u32 {
        match at.offset {
            Some(offset) => self.lines.number(offset),
            None => u32::from(!at.field.is_empty()),
        }
    }

    pub(super) fn push(
        &mut self,
        id: &'static str,
        at: &Place,
        message: String,
        hint: String,
        warning: bool,
    ) {
        self.failed |= !warning;
        let line = self.line(at);
        if !self.seen.insert((id, at.field.clone(), line, message.clone())) {
            return;
        }
        if self.is_full() {
            self.more += 1;
            return;
        }
        let field = at.field.clone();
        let id = Cow::Borrowed(id);
        self.found.push((at.offset, Diagnostic { id, field, line, column: 0, message, hint, warning }));
    }

    /// Whether there were errors, and everything in the order of the file.
    pub(super) fn finish(mut self) -> (bool, Vec<Diagnostic>) {
        if self.found.len() > MOST_TOLD {
            // No warning takes the place of an error.
            self.found.sort_by_key(|(offset, one)| (one.warning, *offset, one.line, one.id.clone()));
            self.more += self.found.len() - MOST_TOLD;
            self.found.truncate(MOST_TOLD);
        }
        self.found.sort_by_key(|(offset, one)| (*offset, one.line, one.id.clone()));
        let lines = &self.lines;
        let mut told: Vec<_> = self
            .found
            .into_iter()
            .map(|(offset, mut one)| {
                // Reads the line, which may be the whole file: not for mistakes that nobody sees.
                one.column = offset.map_or(0, |offset| lines.column(offset));
                one
            })
            .collect();
        if self.more > 0 {
            told.push(Diagnostic {
                id: Cow::Borrowed("SPEC-MORE"),
                field: String::new(),
                line: 0,
                column: 0,
                message: format!("and {} more", self.more),
                hint: "mend these first; the others are told then".to_owned(),
                warning: !self.failed,
            });
        }
        (self.failed, told)
    }
}
