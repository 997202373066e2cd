//! A program's own configuration as TOML: all mistakes at once, each with its line.
//!
//! Called by the host agent for its whole file and by `k8sctl` for the few keys of it that it needs; a plugin's config
//! in a file of its own is read here, too. Opens no file.

use std::path::PathBuf;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use toml::Spanned;
use toml::de::DeTable;

/// Looks at every key by itself. `Err` holds a sentence for each mistake, in the order of the text: `line 3: …`.
pub fn check<T: DeserializeOwned>(text: &str) -> Result<(), Vec<String>> {
    let (document, mut mistakes) = parse(text);
    let broken: Vec<usize> = mistakes.found.iter().map(|(line, _)| *line).collect();
    for (key, value) in &document {
        let at = key.span().start;
        let alone = DeTable::from_iter([(key.clone(), value.clone())]);
        let taken = T::deserialize(toml::Deserializer::from(Spanned::new(0..0, alone)));
        // Of a line that is no TOML, only that is told.
        if let Some(error) = taken.err().filter(|_| !broken.contains(&mistakes.line(at))) {
            mistakes.tell(at, format!("{}: {}", key.get_ref(), error.message()));
        }
    }
    mistakes.finish()
}

/// A path that means the same wherever the program that reads it was started.
pub fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.is_absolute() {
        return Ok(path);
    }
    Err(D::Error::custom(format!("got {path:?}, expected an absolute path, which begins with /")))
}

/// The same for a key that has no default.
pub fn absolute_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    absolute(from).map(Some)
}

/// What is wrong with a text so far.
pub(crate) struct Mistakes<'t> {
    text: &'t str,
    /// Line and sentence.
    found: Vec<(usize, String)>,
}

/// What of a text can be read, and what is no TOML in it.
pub(crate) fn parse(text: &str) -> (DeTable<'_>, Mistakes<'_>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut mistakes = Mistakes { text, found: Vec::new() };
    for error in &errors {
        mistakes.tell(error.span().map_or(0, |span| span.start), error.message().to_owned());
    }
    (document.into_inner(), mistakes)
}

impl Mistakes<'_> {
    /// The 1-based line of a byte offset.
    fn line(&self, offset: usize) -> usize {
        self.text.get(..offset).map_or(0, |before| before.matches('\n').count()) + 1
    }

    pub(crate) fn tell(&mut self, offset: usize, sentence: String) {
        self.found.push((self.line(offset), sentence));
    }

    /// `Err` where there are any.
    pub(crate) fn finish(mut self) -> Result<(), Vec<String>> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort();
        Err(self.found.into_iter().map(|(line, sentence)| format!("line {line}: {sentence}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(default)]
    struct Keys {
        #[serde(deserialize_with = "absolute")]
        dir: PathBuf,
        #[serde(deserialize_with = "absolute_if_any")]
        other: Option<PathBuf>,
        count: u8,
    }

    impl Default for Keys {
        fn default() -> Self {
            Self { dir: "/dir".into(), other: None, count: 0 }
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let told = check::<Keys>("dir = 'run'\nother = ''\n\ncount = 256\nmore =\n").expect_err("mistakes");
        let beginnings = [
            "line 1: dir: got \"run\", expected an absolute path",
            "line 2: other: got \"\", expected an absolute path",
            "line 4: count: ",
            "line 5: ",
        ];
        assert_eq!(told.len(), beginnings.len(), "{told:#?}");
        for (mistake, beginning) in told.iter().zip(beginnings) {
            assert!(mistake.starts_with(beginning), "{mistake}");
        }
        assert_eq!(check::<Keys>("dir = '/run'\nother = '/a/../b'\nelse = 1\n"), Ok(()));
        assert_eq!(check::<Keys>(""), Ok(()));
    }

    #[test]
    fn a_key_that_is_left_out_has_its_default() {
        let keys: Keys = toml::from_str("other = '/a'").expect("sound");
        assert_eq!((keys.dir, keys.count), (PathBuf::from("/dir"), 0));
        assert_eq!(keys.other, Some(PathBuf::from("/a")));
    }
}
