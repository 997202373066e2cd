//! The version of what host agent and node agents say to each other, and which versions understand each other.
//!
//! A minor number is raised with every addition to `node.proto`. Nothing in it is taken away or changed within a major
//! number, so that what one side does not know, it does not see; `proto/tests/versions.rs` holds that against the
//! files of the version before.

use std::fmt;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protocol {
    /// Raised when the two sides can no longer talk.
    pub major: u32,
    /// Raised with every addition.
    pub minor: u32,
}

/// The version of this release.
pub const NODE: Protocol = Protocol { major: 1, minor: 2 };
/// Agents of this minor number and later can replace themselves.
const REPLACEABLE: u32 = 1;
/// Agents of this minor number and later do what plugins need of their node.
const TAKES_REQUIREMENTS: u32 = 2;

/// Whether a host agent can work with a node agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// They understand each other: the same version, or one minor number apart.
    Speaks,
    /// The node agent is too old.
    TooOld {
        /// It can be told to replace itself all the same.
        can_be_replaced: bool,
    },
    /// The node agent is too new: the host agent is the old one.
    TooNew,
}

impl Protocol {
    /// Whether a host agent of this version can work with this node agent.
    pub fn judge(self, agent: Self) -> Fit {
        let is_same = self.major == agent.major;
        if is_same && self.minor.abs_diff(agent.minor) <= 1 {
            return Fit::Speaks;
        }
        if agent > self {
            return Fit::TooNew;
        }
        Fit::TooOld { can_be_replaced: is_same && agent.can_be_replaced() }
    }

    /// Whether an agent of this version can replace itself.
    pub fn can_be_replaced(self) -> bool {
        self.minor >= REPLACEABLE
    }

    /// Whether an agent of this version sees what plugins need of its node; an older one passes it over.
    pub fn takes_requirements(self) -> bool {
        self.minor >= TAKES_REQUIREMENTS
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(major: u32, minor: u32) -> Protocol {
        Protocol { major, minor }
    }

    #[test]
    fn one_minor_number_apart_works_both_ways() {
        let host = protocol(1, 3);
        for minor in 2..=4 {
            assert_eq!(host.judge(protocol(1, minor)), Fit::Speaks, "1.{minor}");
        }
        assert_eq!(host.judge(protocol(1, 5)), Fit::TooNew);
        assert_eq!(host.judge(protocol(2, 3)), Fit::TooNew);
    }

    #[test]
    fn of_those_that_are_too_old_some_can_be_replaced() {
        let host = protocol(1, 3);
        assert_eq!(host.judge(protocol(1, 1)), Fit::TooOld { can_be_replaced: true });
        assert_eq!(host.judge(protocol(1, 0)), Fit::TooOld { can_be_replaced: false });
        assert_eq!(host.judge(protocol(0, 9)), Fit::TooOld { can_be_replaced: false });
        assert_eq!(NODE.judge(protocol(1, 1)), Fit::Speaks, "the version before this one");
        assert_eq!(NODE.judge(protocol(1, 0)), Fit::TooOld { can_be_replaced: false }, "the one before that");
    }

    #[test]
    fn what_plugins_need_is_seen_from_1_2_on() {
        assert!(NODE.takes_requirements());
        assert!(!protocol(1, 1).takes_requirements());
    }
}
