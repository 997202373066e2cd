//! Exit codes. The table that people read is `exit_codes.md`, shown by `k8sctl help exit-codes`; a test holds both
//! together.

use std::process::ExitCode;

/// The table for people.
pub const TABLE: &str = include_str!("exit_codes.md");

/// How a run ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Something that was asked for did not happen.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The spec or a config holds mistakes, or cannot be read.
    InvalidSpec = 3,
    /// No host agent answers and none could be started.
    Unreachable = 4,
    /// The caller may not do this.
    Denied = 5,
    /// Consent is missing, or the answer was no.
    NoConsent = 6,
    /// `plan --exit-code` found changes.
    Changes = 7,
    /// `health` found something wrong.
    Unhealthy = 8,
    /// `health --wait` waited in vain.
    TimedOut = 9,
    /// Ctrl-C; a running operation goes on.
    Interrupted = 130,
    /// Whoever read the output went away.
    ReaderGone = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_every_code() {
        let all = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::InvalidSpec,
            Exit::Unreachable,
            Exit::Denied,
            Exit::NoConsent,
            Exit::Changes,
            Exit::Unhealthy,
            Exit::TimedOut,
            Exit::Interrupted,
            Exit::ReaderGone,
        ];
        let rows: Vec<u8> =
            TABLE.lines().filter_map(|line| line.split('|').nth(1)?.trim().parse().ok()).collect();
        assert_eq!(rows, all.map(|exit| exit as u8));
    }
}
