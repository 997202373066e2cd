//! Where a reader is in the log of one node: behind a frame, and behind so many lines of the next. Opaque to the reader,
//! who gives it back to go on.
//!
//! A node only tells where to go on behind a frame, and a merged stream ends anywhere in one. So the lines that were
//! given out of a frame are counted, by source: what is of one source comes in the same order each time it is read, what
//! is of several may not.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;

use k8sctl_rpc::limits::LOG_CURSOR_BYTES;
use serde::{Deserialize, Serialize};

const VERSION: char = '1';
/// Sources whose lines are counted; between two cursors an agent has a few. Of what one makes up, no more is kept.
const SOURCES: usize = 1024;
/// Of a node's cursor, and as much again for the counts.
const LIMIT: usize = 4 * LOG_CURSOR_BYTES;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The node's own.
    pub behind: String,
    /// Lines behind it that were given out, by source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given: BTreeMap<String, u64>,
}

/// No position.
#[derive(Debug, thiserror::Error)]
#[error("it is none that this host agent gave out")]
pub struct PositionError;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{VERSION}{json}")
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let json = text.strip_prefix(VERSION).filter(|_| text.len() <= LIMIT).ok_or(PositionError)?;
        let position: Self = serde_json::from_str(json).map_err(|_| PositionError)?;
        if position.behind.is_empty() { Err(PositionError) } else { Ok(position) }
    }
}

/// Follows the position through the frames of a node while their lines are given out.
#[derive(Debug, Default)]
pub struct Tracker {
    position: Option<Position>,
    /// Lines that come again and were given out before.
    again: BTreeMap<String, u64>,
    /// Of every frame that came: lines of it that are still to be given out, and the node's cursor behind it.
    frames: VecDeque<(usize, String)>,
}

impl Tracker {
    /// Goes on at a position of before.
    pub fn at(position: Option<Position>) -> Self {
        let again = position.as_ref().map(|position| position.given.clone()).unwrap_or_default();
        Self { position, again, frames: VecDeque::new() }
    }

    /// Notes a frame that came.
    pub fn frame(&mut self, lines: usize, cursor: &str) {
        self.frames.push_back((lines, cursor.to_owned()));
        self.pass();
    }

    /// Notes that the next line is given out. `false` means: it was given out before.
    pub fn line(&mut self, source: &str) -> bool {
        let is_new = match self.again.get_mut(source).filter(|again| **again > 0) {
            Some(again) => {
                *again -= 1;
                false
            }
            None => {
                if let Some(position) = &mut self.position {
                    match position.given.get_mut(source) {
                        Some(given) => *given += 1,
                        None => {
                            if position.given.len() < SOURCES {
                                position.given.insert(source.to_owned(), 1);
                            }
                        }
                    }
                }
                true
            }
        };
        if let Some((lines, _)) = self.frames.front_mut() {
            *lines = lines.saturating_sub(1);
        }
        self.pass();
        is_new
    }

    /// Where to go on. `None` means: not a single frame has been given out whole, so begin as before.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Moves behind all frames that have been given out whole.
    fn pass(&mut self) {
        while self.frames.front().is_some_and(|(lines, _)| *lines == 0) {
            let Some((_, behind)) = self.frames.pop_front() else { return };
            // Without a cursor it stays where it is, and the lines are counted on.
            if !behind.is_empty() {
                self.again.retain(|_, again| *again > 0);
                self.position = Some(Position { behind, given: self.again.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let given = [("kubelet".to_owned(), 3)].into();
        for position in [
            Position { behind: "1{\"x\":1}".to_owned(), ..Position::default() },
            Position { behind: "c".to_owned(), given },
        ] {
            assert_eq!(position.to_string().parse::<Position>().expect("it is one"), position);
        }
        let long = format!("1{{\"behind\":\"{}\"}}", "x".repeat(LIMIT));
        for text in ["", "1", "1{}", "1{\"behind\":\"\"}", "2{\"behind\":\"c\"}", "1{\"behind\":1}", &long] {
            assert!(text.parse::<Position>().is_err(), "{}", &text[..text.len().min(20)]);
        }
    }

    #[test]
    fn of_sources_that_are_made_up_not_all_are_kept() {
        let mut tracker = Tracker::default();
        tracker.frame(0, "c");
        tracker.frame(2 * SOURCES, "");
        assert!((0..2 * SOURCES).all(|number| tracker.line(&number.to_string())));
        assert_eq!(tracker.position().expect("it has begun").given.len(), SOURCES);
    }

    /// Lines of two sources as a node has them, in the order of their numbers.
    fn source(number: usize) -> &'static str {
        if number.is_multiple_of(3) { "a" } else { "b" }
    }

    /// What a reader sees who goes on at a position: frames of so many lines, of which the sources may be in another
    /// order than before.
    fn read(
        total: usize,
        size: usize,
        from: Option<Position>,
        most: usize,
        swapped: bool,
    ) -> (Vec<usize>, Position) {
        let start: usize = from.as_ref().map_or(0, |it| it.behind.parse().expect("a number"));
        let mut tracker = Tracker::at(from);
        tracker.frame(0, &start.to_string());
        let mut lines: Vec<usize> = (start..total).collect();
        if swapped {
            for pair in lines.chunks_exact_mut(2).filter(|pair| source(pair[0]) != source(pair[1])) {
                pair.swap(0, 1);
            }
        }
        let mut given = Vec::new();
        'all: for frame in lines.chunks(size) {
            // A frame ends where nothing before it is missing.
            let behind = frame.iter().max().map_or(0, |last| last + 1);
            tracker.frame(frame.len(), &behind.to_string());
            for number in frame {
                if given.len() == most {
                    break 'all;
                }
                if tracker.line(source(*number)) {
                    given.push(*number);
                }
            }
        }
        (given, tracker.position().expect("it begins somewhere").clone())
    }

    #[test]
    fn nothing_is_lost_or_doubled_wherever_reading_breaks_off() {
        for (size, again) in [(4, 4), (4, 6), (6, 2), (2, 8)] {
            for first in 0..24 {
                for second in 0..8 {
                    let (mut all, position) = read(24, size, None, first, false);
                    let (more, position) = read(24, again, Some(position), second, true);
                    all.extend(more);
                    let (rest, _) = read(24, size, Some(position), usize::MAX, false);
                    all.extend(rest);
                    all.sort_unstable();
                    assert_eq!(all, (0..24).collect::<Vec<_>>(), "{size} {again} {first} {second}");
                }
            }
        }
    }
}
