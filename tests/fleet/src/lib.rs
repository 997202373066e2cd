//! Thousands of node agents against one host agent: real sessions over real TLS by the node agent's own code, whose
//! steps, health and logs are simulated, and a host agent as users run it, on libvirt's test driver. No VM, and nothing
//! but loopback.
//!
//! - [`host`]: the host agent, a process of its own that can be ended and started again
//! - [`cluster`]: files of clusters of any size
//! - [`agents`]: all node agents, in this process; [`dialer`]: each from an address of its own, and how often they dial
//! - [`control`]: what is asked of the host agent; [`k8sctl`]: the command itself
//! - [`process`]: what a process costs; [`descriptors`]: how many files it may have open
//! - [`pipe`]: TLS with nothing around it, to measure against
//! - [`journal`]: a journal for an agent to read, and how fast that is read without us
//! - [`root`]: the host agent's socket is root's
//! - [`malformed`]: what others send to the host agent meanwhile
//!
//! `tests/fleet.rs` is the small fleet of `make test`, `tests/malformed.rs` one among malformed traffic, `benches/figures`
//! the large ones of `make bench`.

#![expect(
    clippy::disallowed_methods,
    reason = "whole programs are started as users start them, and ended in the middle"
)]

pub mod agents;
pub mod cluster;
pub mod control;
pub mod descriptors;
pub mod dialer;
pub mod host;
pub mod journal;
pub mod k8sctl;
pub mod malformed;
pub mod pipe;
pub mod process;
mod program;
pub mod root;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Between two looks at a condition: only how often, never whether.
const LOOK: Duration = Duration::from_millis(250);

/// Looks until there is something; an error of the look itself counts as "not yet" until the deadline.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let looked = look();
        if let Ok(Some(found)) = looked {
            return Ok(found);
        }
        if Instant::now() >= end {
            looked.with_context(|| format!("{what}: not within {deadline:?}"))?;
            bail!("{what}: not within {deadline:?}");
        }
        thread::sleep(LOOK);
    }
}
