//! The Debian and Ubuntu suites that node images can be made of. What the cluster file accepts and what the image
//! builder builds is this one list.

/// Whose packages a suite has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

/// A suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// `bookworm`.
    pub name: &'static str,
    /// Whose it is.
    pub distribution: Distribution,
}

/// The one that is taken when none is named.
pub const DEFAULT: &str = "bookworm";

/// Every suite.
pub const SUITES: [Suite; 6] = [
    Suite { name: "bookworm", distribution: Distribution::Debian },
    Suite { name: "trixie", distribution: Distribution::Debian },
    Suite { name: "bullseye", distribution: Distribution::Debian },
    Suite { name: "jammy", distribution: Distribution::Ubuntu },
    Suite { name: "noble", distribution: Distribution::Ubuntu },
    Suite { name: "questing", distribution: Distribution::Ubuntu },
];

impl Suite {
    /// The suite of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        SUITES.iter().find(|suite| suite.name == name)
    }
}

/// All names in one line: `bookworm, trixie, …`.
pub fn names() -> String {
    SUITES.map(|suite| suite.name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_one_of_them() {
        assert!(Suite::find(DEFAULT).is_some() && Suite::find("potato").is_none());
        assert!(names().starts_with("bookworm, trixie, "));
    }
}
