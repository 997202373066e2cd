//! A remark on a config with the place that it is about. Made by plugins and by the schema; shown at the line of the user's
//! own file.

use crate::limits::TEXT_BYTES;

/// Longest code, in bytes.
const CODE_BYTES: usize = 60;
const MARK: &str = " …(cut)";

/// A remark on a config: a mistake, or a warning that stops nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable, documented; `PLUGIN-CONFIG`: the plugin has no better one.
    pub code: String,
    /// JSON pointer into the config; empty: the whole of it.
    pub path: String,
    /// What is wrong, got and expected.
    pub message: String,
    /// What to write instead; may be empty.
    pub hint: String,
    /// Stops nothing.
    pub warning: bool,
}

impl Diagnostic {
    /// A mistake without a code of its own.
    pub fn mistake(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: "PLUGIN-CONFIG".to_owned(),
            path: path.into(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// The same with long texts cut and marked, and with a code that is one.
    pub fn cut(mut self) -> Self {
        let is_code = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
        if self.code.is_empty() || self.code.len() > CODE_BYTES || !self.code.chars().all(is_code) {
            self.code = "PLUGIN-CONFIG".to_owned();
        }
        for text in [&mut self.path, &mut self.message, &mut self.hint] {
            *text = cut(std::mem::take(text), TEXT_BYTES);
        }
        self
    }
}

/// A text of at most that many bytes, marked where it was cut.
pub(crate) fn cut(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let end = most.saturating_sub(MARK.len());
    let end = (0..=end).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}{MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_and_marked() {
        let long = || "ä".repeat(1 << 19);
        let cut = Diagnostic { path: long(), hint: long(), ..Diagnostic::mistake("", long()) }.cut();
        for text in [&cut.path, &cut.message, &cut.hint] {
            assert!(text.len() <= TEXT_BYTES && text.len() > TEXT_BYTES - 10, "{}", text.len());
            assert!(text.ends_with("ä …(cut)"), "{text}");
        }
        let short = Diagnostic::mistake("/a", "b");
        assert_eq!(short.clone().cut(), short);
    }

    #[test]
    fn a_code_that_is_none_is_not_shown() {
        for (code, shown) in [
            ("METALLB-POOL-OVERLAP", "METALLB-POOL-OVERLAP"),
            ("", "PLUGIN-CONFIG"),
            ("\u{1b}[2J", "PLUGIN-CONFIG"),
            ("metallb", "PLUGIN-CONFIG"),
        ] {
            let diagnostic = Diagnostic { code: code.to_owned(), ..Diagnostic::mistake("", "m") };
            assert_eq!(diagnostic.cut().code, shown);
        }
    }
}
