//! How many files a process may have open: each session is one, in both of its ends. Programs that are started inherit
//! it.

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process needs besides those of its agents.
const BASE: u64 = 1_024;
/// Of one agent at most, in either process: its session, the listener of its join channel, and one who is served there
/// or what it writes just then. Few have more than the first at a time, and many machines allow 20,000 files.
const PER_AGENT: u64 = 3;

/// Allows this process, and those that it starts, as many open files as so many agents need.
pub fn allow(agents: usize) -> Result<()> {
    let needed = BASE + PER_AGENT * agents as u64;
    let before = getrlimit(Resource::Nofile);
    // Unset means: as many as there are.
    if before.current.is_none_or(|now| now >= needed) {
        return Ok(());
    }
    let maximum = before.maximum.map(|most| most.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).with_context(|| {
        let most = before.maximum.map_or_else(|| "any number".to_owned(), |most| most.to_string());
        format!(
            "{agents} agents need {needed} open files, and this process may have {most} at most: run it as root or raise \
             the limit (`ulimit -Hn {needed}`), and see that `sysctl fs.nr_open` allows so many"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_and_never_lowered_and_what_cannot_be_is_told() {
        allow(10).expect("so many are always allowed");
        let before = getrlimit(Resource::Nofile);
        allow(0).expect("fewer are needed");
        assert_eq!(getrlimit(Resource::Nofile).current, before.current);
        if before.current.is_some() {
            // More than any kernel has.
            let error = format!("{:#}", allow(usize::MAX >> 8).expect_err("cannot be"));
            assert!(error.contains("ulimit -Hn") && error.contains("fs.nr_open"), "{error}");
        }
    }
}
