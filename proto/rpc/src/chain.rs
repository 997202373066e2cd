//! Prints an error with its causes, "a: b: c". Used wherever an error is logged or shown; errors themselves do
//! not repeat their source.

use std::error::Error;
use std::fmt;

/// An error and all its causes, separated by `: `.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

/// See [`chain`].
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed = self.0.to_string();
        f.write_str(&printed)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Strangers' errors often repeat their source in their own text.
            if !printed.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            printed = text;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open a.toml")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_in_order() {
        let error = Outer(std::io::Error::other("permission denied"));
        assert_eq!(chain(&error).to_string(), "cannot open a.toml: permission denied");
    }
}
