//! The regular expression of `logs --grep`. It comes from a user and is bounded in size, so that it costs neither the
//! host agent nor a node's agent much; matching is linear in the length of a line, whatever the expression.

use regex::{Regex, RegexBuilder};

/// Longest expression, in bytes.
pub const PATTERN_LIMIT: usize = 4 * 1024;
/// Largest compiled form, and as much again for matching, in bytes.
const SIZE_LIMIT: usize = 2 * 1024 * 1024;
/// Deepest nesting.
const NEST_LIMIT: u32 = 64;

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
pub struct Grep(Option<Regex>);

/// No expression that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrepError {
    /// Longer than [`PATTERN_LIMIT`].
    #[error("it is {bytes} bytes long, {PATTERN_LIMIT} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is none.
    #[error("{reason}, at character {at}")]
    Syntax {
        /// Counted from 1.
        at: usize,
        /// In the words of the crate `regex`.
        reason: String,
    },
    /// It is right and takes too much memory.
    #[error("it becomes larger than {} MiB; repeat less in it", SIZE_LIMIT / (1024 * 1024))]
    TooBig,
}

impl Grep {
    /// Of an expression; an empty one selects every line.
    pub fn new(pattern: &str) -> Result<Self, GrepError> {
        if pattern.is_empty() {
            return Ok(Self(None));
        }
        if pattern.len() > PATTERN_LIMIT {
            return Err(GrepError::TooLong { bytes: pattern.len() });
        }
        check(pattern)?;
        RegexBuilder::new(pattern)
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(SIZE_LIMIT)
            .nest_limit(NEST_LIMIT)
            .build()
            .map(|regex| Self(Some(regex)))
            .map_err(|_| GrepError::TooBig)
    }

    /// Whether the line is wanted.
    pub fn is_match(&self, line: &str) -> bool {
        self.0.as_ref().is_none_or(|regex| regex.is_match(line))
    }
}

/// The crate `regex` says where a mistake is only within a text of several lines.
fn check(pattern: &str) -> Result<(), GrepError> {
    use regex_syntax::Error;
    let parsed = regex_syntax::ParserBuilder::new().nest_limit(NEST_LIMIT).build().parse(pattern);
    let (reason, offset) = match parsed {
        Ok(_) => return Ok(()),
        Err(Error::Parse(error)) => (error.kind().to_string(), error.span().start.offset),
        Err(Error::Translate(error)) => (error.kind().to_string(), error.span().start.offset),
        Err(other) => (other.to_string(), 0),
    };
    let at = pattern.get(..offset).map_or(0, |before| before.chars().count()) + 1;
    Err(GrepError::Syntax { at, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_one_takes_all_and_others_search_anywhere() {
        let is_match = |pattern: &str, line: &str| Grep::new(pattern).expect("it is one").is_match(line);
        assert!(is_match("", "anything"));
        assert!(is_match("fail(ed|ure)", "it failed") && !is_match("fail(ed|ure)", "FAILED"));
        assert!(
            is_match("(?i)failed", "FAILED") && is_match("^E\\d", "E1128 x") && !is_match("^E\\d", " E1")
        );
    }

    #[test]
    fn mistakes_have_their_place_in_characters() {
        let error = |pattern: &str| Grep::new(pattern).expect_err("it is none");
        for (pattern, place) in [("ä(b", 2), ("ab)", 3), ("[z-a]", 2), ("a{2,1}", 2), ("x*\\p{Nosuch}", 3)] {
            let GrepError::Syntax { at, reason } = error(pattern) else { panic!("{pattern}") };
            assert_eq!(at, place, "{pattern}: {reason}");
        }
        assert_eq!(error("ab)").to_string(), "unopened group, at character 3");
    }

    #[test]
    fn what_costs_too_much_is_refused() {
        let error = |pattern: &str| Grep::new(pattern).expect_err("it is too much");
        assert_eq!(error(&"a".repeat(5000)), GrepError::TooLong { bytes: 5000 });
        assert_eq!(error("(\\w{100}){100}"), GrepError::TooBig);
        assert!(matches!(error(&"(".repeat(2000)), GrepError::Syntax { .. }));
    }
}
