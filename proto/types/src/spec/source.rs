//! The file with headers as they are meant, and blank where something runs on that is not closed: so one wrong bracket
//! hides nothing beside itself. What is wrong with it is kept for the report. Lines are those of the file; columns too,
//! but behind a header's first bracket.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::MAX_TEXT_BYTES;
use super::header::Header;
use super::keys::{self, Shape};
use super::layout::{self, Item, Kind, Line, Reader};
use super::lines::Lines;
use super::report::{MOST_KEPT, Place, Report};
use super::values::quoted;

/// Where the lines of a table begin.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) line: u32,
    /// The same number for a table that is written twice.
    pub(super) table: usize,
}

impl Block {
    /// The table of the top level.
    pub(super) const TOP: usize = 0;
}

/// The lines of an item, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) is_header: bool,
}

/// A file, ready to be parsed.
#[derive(Default)]
pub(super) struct Source<'t> {
    /// What is to be parsed.
    pub(super) text: Cow<'t, str>,
    /// Longer than it may be: nothing of it has been read.
    pub(super) is_too_long: bool,
    /// In the order of the file, without that of the top level.
    pub(super) blocks: Vec<Block>,
    /// Lines that were made blank, each with what it may have held.
    pub(super) hidden: Vec<(u32, String)>,
    /// Whether those may have been whole nodes.
    pub(super) is_incomplete: bool,
    items: Vec<Span>,
    /// The lines of headers.
    headers: Vec<u32>,
    /// The last line with an item.
    last: u32,
    mistakes: Vec<Mistake>,
}

/// A mistake that shows without parsing.
struct Mistake {
    id: &'static str,
    field: String,
    offset: usize,
    message: String,
    hint: String,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        if text.len() > MAX_TEXT_BYTES {
            return Self { is_too_long: true, ..Self::default() };
        }
        let items = layout::items(text);
        let mut mending = Mending::new(text);
        for item in &items {
            mending.item(item);
        }
        mending.entries_beside_headers(&items);
        let lines = &mending.lines;
        let span = |item: &Item| Span {
            first: lines.number(item.range.start),
            last: lines.number(item.range.end - 1),
            is_header: item.kind == Kind::Header,
        };
        let items: Vec<_> = items.iter().map(span).collect();
        let headers = items.iter().filter(|item| item.is_header).map(|item| item.first).collect();
        let last = items.last().map_or(0, |item| item.last);
        Self { items, headers, last, ..mending.finish() }
    }

    /// Reports what is no TOML.
    pub(super) fn report_unreadable(&self, report: &mut Report<'_>) {
        self.report(report, |id| id != WRONG_SHAPE);
    }

    /// Reports what is TOML, but stands elsewhere or otherwise than it should.
    pub(super) fn report_misplaced(&self, report: &mut Report<'_>) {
        self.report(report, |id| id == WRONG_SHAPE);
    }

    fn report(&self, report: &mut Report<'_>, is_told: impl Fn(&str) -> bool) {
        for mistake in self.mistakes.iter().filter(|mistake| is_told(mistake.id)) {
            let at = Place { field: mistake.field.clone(), offset: Some(mistake.offset) };
            report.error(mistake.id, &at, mistake.message.as_str(), mistake.hint.as_str());
        }
    }

    /// The item that a line is of; a line of its own where it is of none.
    pub(super) fn item(&self, line: u32) -> Span {
        let behind = self.items.partition_point(|item| item.first <= line);
        let item = behind.checked_sub(1).map(|index| self.items[index]);
        item.filter(|item| line <= item.last).unwrap_or(Span { first: line, last: line, is_header: false })
    }

    /// The last line below the header of this line: what stands behind it is another table's.
    pub(super) fn last_below(&self, header: u32) -> u32 {
        let behind = self.headers.partition_point(|other| *other <= header);
        self.headers.get(behind).map_or(self.last, |next| next - 1)
    }
}

/// The id of what is misplaced.
const WRONG_SHAPE: &str = "SPEC-TYPE";

/// A source in the making.
struct Mending<'t> {
    text: &'t str,
    lines: Lines<'t>,
    /// What stands in the place of a part of the text; `None`: blanks.
    edits: Vec<(Range<usize>, Option<String>)>,
    source: Source<'t>,
    /// The number of each table that stands once.
    tables: HashMap<String, usize>,
    /// Names of the headers so far that begin a table of many.
    lists: HashSet<String>,
    /// Names of the headers so far that begin a table in a table.
    parents: HashSet<String>,
    /// What stands below belongs to no table that is known, not even by name.
    is_adrift: bool,
    /// What stands below belongs to a table that does not exist.
    is_orphaned: bool,
}

impl<'t> Mending<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            lines: Lines::new(text),
            edits: Vec::new(),
            source: Source::default(),
            tables: HashMap::new(),
            lists: HashSet::new(),
            parents: HashSet::new(),
            is_adrift: false,
            is_orphaned: false,
        }
    }

    fn item(&mut self, item: &Item) {
        if item.kind == Kind::Header && item.unclosed.is_none() {
            return self.header(item);
        }
        if item.kind == Kind::Header {
            self.source.is_incomplete = true;
            self.is_adrift = true;
        } else if self.is_adrift || self.is_orphaned {
            return self.blank(item);
        }
        let Some(opened) = item.unclosed else { return };
        const PAIRS: [(&str, &str); 6] =
            [("[", "]"), ("{", "}"), ("\"\"\"", "\"\"\""), ("'''", "'''"), ("\"", "\""), ("'", "'")];
        let pair = PAIRS.iter().find(|(opening, _)| self.text[opened..].starts_with(opening));
        let (opening, closing) = pair.copied().unwrap_or_default();
        self.tell("SPEC-TOML", "", opened, || {
            let hint = format!("write {closing} where it ends, before the next key or table");
            (format!("{opening} is not closed"), hint)
        });
        self.hide(item);
        self.blank(item);
    }

    fn header(&mut self, item: &Item) {
        let Some(Line { words, .. }) = Reader::new(self.text, item.range.start).next() else { return };
        let (start, end) = (words[0].range.start, words[words.len() - 1].range.end);
        let written = &self.text[start..end];
        let header = Header::read(self.text, &words, !self.is_full()).filter(|_| !written.contains('\n'));
        let Some(header) = header else {
            self.tell("SPEC-TOML", "", start, || {
                let hint = "a table begins with [name], one of many with [[name]]".to_owned();
                (format!("got {}, expected a table's name in brackets", quoted(written)), hint)
            });
            self.source.is_incomplete = true;
            self.is_adrift = true;
            self.source.hidden.push((self.lines.number(start), String::new()));
            return self.blank(item);
        };
        let right = header.right();
        if header.is_in_list() {
            if self.is_adrift {
                return self.blank(item);
            }
            let list = Shape::Many.header(&header.path[0]);
            if !self.lists.contains(&header.path[0]) {
                self.tell(WRONG_SHAPE, &header.path.join("."), start, || {
                    let hint = format!("write it below the {list} that it belongs to");
                    (format!("{right} is a part of {list}, and none stands above it"), hint)
                });
                self.is_orphaned = true;
                return self.blank(item);
            }
        }
        (self.is_adrift, self.is_orphaned) = (false, false);
        let is_alone = !header.is_followed;
        if !header.is_sound {
            self.tell("SPEC-TOML", "", start, || {
                let rest = if is_alone { "" } else { ", and what stands behind it in a line of its own" };
                (format!("got {}, expected {right}", quoted(written)), format!("write {right}{rest}"))
            });
            if let Some((_, behind)) = written.rsplit_once(']').filter(|_| header.is_followed) {
                self.source.hidden.push((self.lines.number(start), behind.to_owned()));
            }
        } else if header.is_wrong_shape() && keys::shape(&header.path[0]).is_some() {
            let expected = match header.shape() {
                Shape::One => "one table",
                Shape::Many => "an array of tables",
            };
            self.tell(WRONG_SHAPE, &header.path[0], start, || {
                (format!("got {written}, expected {expected}"), format!("write {right}"))
            });
        }
        if !header.is_sound || header.is_wrong_shape() {
            let width = end - start;
            self.edits.push((start..end, Some(format!("{right:<width$}"))));
        }
        self.begin_block(&header, start);
    }

    fn begin_block(&mut self, header: &Header, start: usize) {
        let new = self.source.blocks.len() + 1;
        let is_list = header.shape() == Shape::Many;
        let table = if is_list || header.is_in_list() {
            new
        } else {
            *self.tables.entry(header.path.join(".")).or_insert(new)
        };
        self.source.blocks.push(Block { line: self.lines.number(start), table });
        match header.path.as_slice() {
            [name] if is_list => drop(self.lists.insert(name.clone())),
            [name, _, ..] if !header.is_in_list() => drop(self.parents.insert(name.clone())),
            _ => {}
        }
    }

    /// A key above all headers that is the name of some of them, `node = []`: the headers' tables are the ones meant.
    fn entries_beside_headers(&mut self, items: &[Item]) {
        let above = items.iter().take_while(|item| item.kind != Kind::Header);
        for item in above.filter(|item| item.kind == Kind::Entry && item.unclosed.is_none()) {
            let Some(Line { words, .. }) = Reader::new(self.text, item.range.start).next() else { continue };
            let (path, _) = layout::key(self.text, &words);
            let is_beside = match path.as_slice() {
                [] => false,
                [name] => self.lists.contains(*name) || self.parents.contains(*name),
                [name, ..] => self.lists.contains(*name),
            };
            if !is_beside {
                continue;
            }
            let name = path[0].to_owned();
            self.tell("SPEC-DUPLICATE-KEY", &name, words[0].range.start, || {
                let message = format!("{} is a key here and a table below", quoted(&name));
                (message, "remove the key, and write what it holds as tables below".to_owned())
            });
            let value = self.text[item.range.clone()].split_once('=').map_or("", |(_, value)| value.trim());
            if !value.starts_with("[]") {
                self.hide(item);
            }
            self.blank(item);
        }
    }

    /// Further mistakes are only counted, and nothing else is read.
    fn is_full(&self) -> bool {
        self.source.mistakes.len() >= MOST_KEPT
    }

    /// Keeps a mistake; of many, only that there is one.
    fn tell(
        &mut self,
        id: &'static str,
        field: &str,
        offset: usize,
        words: impl FnOnce() -> (String, String),
    ) {
        let (message, hint) = if self.is_full() { Default::default() } else { words() };
        self.source.mistakes.push(Mistake { id, field: field.to_owned(), offset, message, hint });
    }

    /// Keeps what an item may have held.
    fn hide(&mut self, item: &Item) {
        let line = self.lines.number(item.range.start);
        self.source.hidden.push((line, self.lines.line(line).to_owned()));
    }

    fn blank(&mut self, item: &Item) {
        self.edits.push((item.range.clone(), None));
    }

    /// The text with every edit, and the mistakes where they stand in it.
    fn finish(mut self) -> Source<'t> {
        self.source.mistakes.sort_by_key(|mistake| mistake.offset);
        self.edits.sort_by_key(|(range, _)| range.start);
        if self.edits.is_empty() {
            return Source { text: Cow::Borrowed(self.text), ..self.source };
        }
        let (mut text, mut end) = (String::with_capacity(self.text.len()), 0);
        let mut mistakes = self.source.mistakes.iter_mut().peekable();
        for (range, edit) in &self.edits {
            let grown = text.len() - end;
            while let Some(mistake) = mistakes.next_if(|mistake| mistake.offset <= range.start) {
                mistake.offset += grown;
            }
            text.push_str(&self.text[end..range.start]);
            match edit {
                Some(edit) => text.push_str(edit),
                None => push_blank(&mut text, &self.text[range.clone()]),
            }
            end = range.end;
        }
        let grown = text.len() - end;
        mistakes.for_each(|mistake| mistake.offset += grown);
        text.push_str(&self.text[end..]);
        Source { text: Cow::Owned(text), ..self.source }
    }
}

/// Adds a text as comments: its lines and columns stay.
pub(super) fn push_blank(to: &mut String, text: &str) {
    let mut is_first = true;
    for c in text.chars() {
        match c {
            '\n' => to.push('\n'),
            // In a comment, too, these are mistakes.
            c if c.is_ascii_control() => to.push(' '),
            c if is_first => to.extend(std::iter::repeat_n('#', c.len_utf8())),
            c => to.push(c),
        }
        is_first = c == '\n' || (is_first && c.is_ascii_control());
    }
}
