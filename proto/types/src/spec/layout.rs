//! The file as items: headers, entries (`key = value`, over as many lines as the value takes) and what is neither.
//! They are told apart by TOML's tokens alone, so that what is never closed ends where the next item begins and hides
//! no more than itself. Called by `source`; reports nothing.

use std::ops::Range;

use toml_parser::Source;
use toml_parser::lexer::{Lexer, TokenKind};

use super::keys;

/// How many times the length of a text may be read again behind something that is not closed.
const MOST_AGAIN: usize = 4;

/// What an item is meant as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `[table]` or `[[table]]`, well-formed or not.
    Header,
    /// `key = value`, well-formed or not.
    Entry,
    /// Anything else.
    Other,
}

/// Whole lines that belong together. Blank lines and comments between items are in none.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) kind: Kind,
    /// In bytes, with the end of its last line.
    pub(super) range: Range<usize>,
    /// Where something opens in it that is not closed.
    pub(super) unclosed: Option<usize>,
}

/// A token that means something.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) kind: TokenKind,
    /// In bytes.
    pub(super) range: Range<usize>,
}

/// A line with what it says; several lines, where a string goes over them.
pub(super) struct Line {
    pub(super) range: Range<usize>,
    pub(super) words: Vec<Word>,
}

/// The lines of a text from an offset on.
pub(super) struct Reader<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    from: usize,
    next: usize,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str, from: usize) -> Self {
        Self { text, lexer: Source::new(&text[from..]).lex(), from, next: from }
    }
}

impl Iterator for Reader<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let start = self.next;
        if start >= self.text.len() {
            return None;
        }
        let mut words = Vec::new();
        self.next = loop {
            let Some(token) = self.lexer.next() else { break self.text.len() };
            let range = self.from + token.span().start()..self.from + token.span().end();
            match token.kind() {
                TokenKind::Newline if self.text[range.clone()].ends_with('\n') => break range.end,
                TokenKind::Newline | TokenKind::Whitespace | TokenKind::Comment | TokenKind::Eof => {}
                kind => words.push(Word { kind, range }),
            }
        };
        Some(Line { range: start..self.next, words })
    }
}

/// The key at the beginning of words, one name for each of its parts, and how many words it takes. No name where the
/// words begin with no key.
pub(super) fn key<'t>(text: &'t str, words: &[Word]) -> (Vec<&'t str>, usize) {
    let mut names = Vec::new();
    let mut taken = 0;
    while let Some(name) = words.get(taken).and_then(|word| name(text, word)) {
        names.push(name);
        taken += 1;
        match words.get(taken) {
            Some(dot) if dot.kind == TokenKind::Dot => taken += 1,
            _ => return (names, taken),
        }
    }
    (Vec::new(), 0)
}

/// A part of a key, without its quotes.
fn name<'t>(text: &'t str, word: &Word) -> Option<&'t str> {
    let text = &text[word.range.clone()];
    let quoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    match word.kind {
        TokenKind::Atom => {
            let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            text.chars().all(bare).then_some(text)
        }
        TokenKind::BasicString => quoted('"'),
        TokenKind::LiteralString => quoted('\''),
        _ => None,
    }
}

fn kind(text: &str, words: &[Word]) -> Kind {
    let closing = words.iter().rev().take_while(|word| word.kind == TokenKind::RightSquareBracket).count();
    if words.first().is_some_and(|word| word.kind == TokenKind::LeftSquareBracket) {
        Kind::Header
    } else if words.iter().any(|word| word.kind == TokenKind::Equals) {
        Kind::Entry
    } else if closing > 0 && closing < words.len() && key(text, words).1 == words.len() - closing {
        Kind::Header
    } else {
        Kind::Other
    }
}

/// Whether a line can only be a header, and no value in an array.
fn is_surely_header(text: &str, words: &[Word]) -> bool {
    let brackets = words.iter().take_while(|word| word.kind == TokenKind::LeftSquareBracket).count();
    let rest = &words[brackets..];
    let Some(first) = rest.first().filter(|first| first.kind == TokenKind::Atom) else { return false };
    let first = &text[first.range.clone()];
    let behind = rest.get(key(text, rest).1).map(|word| word.kind);
    (1..=2).contains(&brackets)
        && first.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !matches!(first, "true" | "false" | "inf" | "nan")
        && matches!(behind, None | Some(TokenKind::RightSquareBracket))
}

/// The first name of `key =` at the beginning of a line.
fn entry<'t>(text: &'t str, words: &[Word]) -> Option<&'t str> {
    let (names, taken) = key(text, words);
    let equals = words.get(taken).is_some_and(|word| word.kind == TokenKind::Equals);
    names.first().copied().filter(|_| equals)
}

fn is_known_entry(text: &str, words: &[Word]) -> bool {
    entry(text, words).is_some_and(|name| keys::elsewhere(name).is_some())
}

/// The items of a text, in order.
pub(super) fn items(text: &str) -> Vec<Item> {
    let mut scan = Scan {
        text,
        reader: Reader::new(text, 0),
        items: Vec::new(),
        again: MOST_AGAIN.saturating_mul(text.len()),
        suspects: Vec::new(),
    };
    while let Some(line) = scan.reader.next() {
        if !line.words.is_empty() {
            scan.item(&line);
        }
    }
    scan.items
}

struct Scan<'t> {
    text: &'t str,
    reader: Reader<'t>,
    items: Vec<Item>,
    /// How many bytes may be read again.
    again: usize,
    /// The first string of each delimiter that goes over a header of ours.
    suspects: Vec<Suspect>,
}

/// A string over several lines that may end where another was meant to begin.
#[derive(Clone)]
struct Suspect {
    /// How many items stand before its own.
    before: usize,
    kind: Kind,
    start: usize,
    opened: usize,
    resume: usize,
}

impl Scan<'_> {
    /// The item that begins with this line.
    fn item(&mut self, first: &Line) {
        let (kind, start) = (kind(self.text, &first.words), first.range.start);
        let mut value = Value::default();
        if self.is_cut_by_string(first, kind, start) {
            return;
        }
        if kind == Kind::Entry {
            value.begin(self.text, &first.words);
        }
        let mut end = first.range.end;
        while let Some(opened) = value.opened() {
            let line = self.reader.next();
            let reached = match &line {
                Some(line) if !value.is_over(self.text, line) => None,
                line => Some(line.as_ref().map_or(self.text.len(), |line| line.range.start)),
            };
            if let Some(reached) = reached {
                let resume = value.suspicion.map_or(reached, |(_, start)| start);
                return self.cut(kind, start, opened, resume, reached);
            }
            let Some(line) = line else { return };
            if self.is_cut_by_string(&line, kind, start) {
                return;
            }
            value.go_on(self.text, &line.words);
            end = line.range.end;
        }
        self.items.push(Item { kind, range: start..end, unclosed: value.unclosed });
    }

    /// Ends an item at `resume`, since what opens in it is not closed up to `reached`, and reads on from there.
    fn cut(&mut self, kind: Kind, start: usize, opened: usize, resume: usize, reached: usize) {
        let back = reached.saturating_sub(resume);
        let resume = if back <= self.again { resume } else { reached };
        self.again = self.again.saturating_sub(back);
        self.items.push(Item { kind, range: start..resume, unclosed: Some(opened) });
        self.reader = Reader::new(self.text, resume);
    }

    /// Cuts the item, or an earlier one, when a string of this line goes to the end of the text without being closed.
    fn is_cut_by_string(&mut self, line: &Line, kind: Kind, start: usize) -> bool {
        let long = |word: &&Word| matches!(word.kind, TokenKind::MlBasicString | TokenKind::MlLiteralString);
        for word in line.words.iter().filter(long) {
            let string = &self.text[word.range.clone()];
            let same = |other: &Suspect| self.text[other.opened..].starts_with(&string[..3]);
            let suspect = self.suspects.iter().find(|other| same(other)).cloned();
            if word.range.end == self.text.len() && !is_closed(string) {
                let begins =
                    |words: &[Word]| is_surely_header(self.text, words) || is_known_entry(self.text, words);
                let resume = line_within(self.text, &word.range, begins).unwrap_or(self.text.len());
                let here =
                    Suspect { before: self.items.len(), kind, start, opened: word.range.start, resume };
                // With one delimiter too few, the strings behind it begin where they should end.
                let culprit = suspect.unwrap_or(here);
                self.items.truncate(culprit.before);
                self.suspects.clear();
                self.cut(culprit.kind, culprit.start, culprit.opened, culprit.resume, self.text.len());
                return true;
            }
            let ours = |words: &[Word]| {
                let names = words.iter().position(|word| word.kind != TokenKind::LeftSquareBracket);
                let names = names.map_or(Vec::new(), |at| key(self.text, &words[at..]).0);
                is_surely_header(self.text, words)
                    && names.first().is_some_and(|name| keys::shape(name).is_some())
            };
            if suspect.is_none()
                && let Some(resume) = line_within(self.text, &word.range, ours)
            {
                let begins = |words: &[Word]| is_known_entry(self.text, words);
                let resume = line_within(self.text, &(word.range.start..resume), begins).unwrap_or(resume);
                let (before, opened) = (self.items.len(), word.range.start);
                self.suspects.push(Suspect { before, kind, start, opened, resume });
            }
        }
        false
    }
}

/// Whether a string over several lines ends before the text that it is the end of.
fn is_closed(string: &str) -> bool {
    let longer = format!("{string}\n");
    Source::new(&longer).lex().next().is_some_and(|token| token.span().end() <= string.len())
}

/// Where the first line behind the range's own first one begins that is such a line.
fn line_within(text: &str, range: &Range<usize>, is_such: impl Fn(&[Word]) -> bool) -> Option<usize> {
    let mut start = range.start;
    loop {
        start += text[start..range.end].find('\n')? + 1;
        let end = text[start..range.end].find('\n').map_or(range.end, |length| start + length);
        let line = Reader::new(&text[..end], start).next();
        if line.is_some_and(|line| is_such(&line.words)) {
            return Some(start);
        }
    }
}

/// What is open in a value so far.
#[derive(Default)]
struct Value {
    /// Brackets and braces, the outermost first.
    open: Vec<(TokenKind, usize)>,
    /// How many of these are brackets.
    brackets: usize,
    last: Option<TokenKind>,
    /// The first string that its line ends before.
    string: Option<usize>,
    /// The first line that looks as if the value had ended before it, and how deep it stands.
    suspicion: Option<(usize, usize)>,
    /// What was passed over by the end of something around it.
    unclosed: Option<usize>,
}

impl Value {
    /// Reads an entry's first line.
    fn begin(&mut self, text: &str, words: &[Word]) {
        let equals = words.iter().position(|word| word.kind == TokenKind::Equals).unwrap_or(words.len());
        let value = &words[equals..];
        let value = &value[value.iter().take_while(|word| word.kind == TokenKind::Equals).count()..];
        if let [first, rest @ ..] = value
            && matches!(first.kind, TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket)
        {
            self.open(first);
            self.go_on(text, rest);
        }
    }

    fn open(&mut self, word: &Word) {
        self.brackets += usize::from(word.kind == TokenKind::LeftSquareBracket);
        self.open.push((word.kind, word.range.start));
    }

    /// Where that opens which keeps the value from its end; `None` when it has ended.
    fn opened(&self) -> Option<usize> {
        self.open.first().map(|(_, at)| self.string.unwrap_or(*at))
    }

    /// Reads on until the value ends.
    fn go_on(&mut self, text: &str, words: &[Word]) {
        for word in words {
            if self.open.is_empty() {
                return;
            }
            match word.kind {
                TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => self.open(word),
                TokenKind::RightSquareBracket => self.close(TokenKind::LeftSquareBracket, self.brackets),
                TokenKind::RightCurlyBracket => {
                    self.close(TokenKind::LeftCurlyBracket, self.open.len() - self.brackets);
                }
                TokenKind::BasicString | TokenKind::LiteralString if name(text, word).is_none() => {
                    self.string.get_or_insert(word.range.start);
                }
                _ => {}
            }
            self.last = Some(word.kind);
        }
    }

    /// Closes the innermost of these, of which so many are open, with all in it.
    fn close(&mut self, wanted: TokenKind, count: usize) {
        while count > 0
            && let Some((kind, at)) = self.open.pop()
        {
            self.brackets -= usize::from(kind == TokenKind::LeftSquareBracket);
            if kind == wanted {
                break;
            }
            self.unclosed.get_or_insert(at);
        }
        self.suspicion = self.suspicion.filter(|(depth, _)| *depth <= self.open.len());
    }

    /// Whether this line cannot be the value's.
    fn is_over(&mut self, text: &str, line: &Line) -> bool {
        let words = &line.words;
        if is_surely_header(text, words) {
            return true;
        }
        if entry(text, words).is_none() {
            return false;
        }
        let (known, depth) = (is_known_entry(text, words), self.open.len());
        let may_follow = matches!(self.last, None | Some(TokenKind::Comma | TokenKind::LeftCurlyBracket));
        let goes_on = words.last().is_some_and(|word| word.kind == TokenKind::Comma);
        match self.open.last() {
            Some((TokenKind::LeftSquareBracket, _)) if known => return true,
            Some((TokenKind::LeftCurlyBracket, _)) if may_follow && (!known || goes_on) => {}
            _ => {
                self.suspicion.get_or_insert((depth, line.range.start));
            }
        }
        false
    }
}
