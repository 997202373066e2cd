//! One header of the file: what it says and what it should say. Pure.

use toml_parser::lexer::TokenKind;

use super::keys::{self, Shape};
use super::layout::{Word, key};

/// A header whose key can be read, well-formed or not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The parts of its key.
    pub(super) path: Vec<String>,
    /// The key as it should stand between the brackets.
    key: String,
    /// What its brackets say.
    written: Shape,
    /// What its key wants; `None` where both will do.
    wanted: Option<Shape>,
    /// Whether it is TOML.
    pub(super) is_sound: bool,
    /// Whether something stands behind it.
    pub(super) is_followed: bool,
}

impl Header {
    /// Reads the words of a line; `guess` costs a look at every key. `None`: it is no TOML, and what it means is not
    /// known.
    pub(super) fn read(text: &str, words: &[Word], guess: bool) -> Option<Self> {
        let count = |words: &[Word], kind| words.iter().take_while(|word| word.kind == kind).count();
        let opened = count(words, TokenKind::LeftSquareBracket);
        let (names, taken) = key(text, &words[opened..]);
        let inner = &words[opened..opened + taken];
        let behind = &words[opened + taken..];
        let closed = count(behind, TokenKind::RightSquareBracket);
        let together = |pair: &[Word]| pair.len() < 2 || pair[0].range.end == pair[1].range.start;
        let is_followed = behind.len() > closed;
        let is_sound = !names.is_empty()
            && matches!((opened, closed), (1, 1) | (2, 2))
            && together(&words[..opened])
            && together(&behind[..closed])
            && !is_followed;
        let path: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = match inner {
            [first, .., last] => text[first.range.start..last.range.end].to_owned(),
            [only] => text[only.range.clone()].to_owned(),
            [] => String::new(),
        };
        let written = if opened.max(closed) > 1 { Shape::Many } else { Shape::One };
        let wanted = wanted(&path, is_sound, guess);
        let this = Self { path, key, written, wanted, is_sound, is_followed };
        if is_sound || this.path.first().is_some_and(|name| keys::shape(name).is_some()) {
            return Some(this);
        }
        if !guess {
            return None;
        }
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let all = &text[words[0].range.start..words[words.len() - 1].range.end];
        let all: String = all.chars().filter(plain).collect();
        let meant = |name: &str| keys::did_you_mean("", name).filter(|name| keys::shape(name).is_some());
        if let Some(name) = meant(&all) {
            let (path, key) = (vec![name.to_owned()], name.to_owned());
            return Some(Self { path, key, wanted: keys::shape(name), is_followed: false, ..this });
        }
        let is_near = this.path.first().is_some_and(|name| meant(name).is_some());
        is_near.then_some(this)
    }

    /// Whether it is part of a node or pool.
    pub(super) fn is_in_list(&self) -> bool {
        self.path.len() > 1 && keys::shape(&self.path[0]) == Some(Shape::Many)
    }

    /// What it should say.
    pub(super) fn shape(&self) -> Shape {
        self.wanted.unwrap_or(self.written)
    }

    /// What it should be.
    pub(super) fn right(&self) -> String {
        self.shape().header(&self.key)
    }

    /// Whether it is a header, and the wrong one.
    pub(super) fn is_wrong_shape(&self) -> bool {
        self.is_sound && self.shape() != self.written
    }
}

/// The shape that the table of a key has; `None` where both will do.
fn wanted(path: &[String], is_sound: bool, guess: bool) -> Option<Shape> {
    let meant = |name: &str| keys::shape(guess.then(|| keys::did_you_mean("", name))??);
    match path {
        [name] => keys::shape(name).or_else(|| meant(name)),
        // What stands in a node is no list; in a plugin's config, it may be.
        [name, rest @ ..] if rest.len() == 1 || keys::shape(name) == Some(Shape::Many) => {
            (!is_sound).then_some(Shape::One)
        }
        _ => None,
    }
}
