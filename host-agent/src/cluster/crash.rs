//! Points at which tests end the process, as a power cut would: no destructor runs, nothing is flushed.
//!
//! `K8SCTL_CRASH_AT=NAME` in the host agent's environment picks one point; without it a point costs one lookup
//! of a static. Only tests set it.

use std::sync::LazyLock;

static CRASH_AT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("K8SCTL_CRASH_AT").ok());

/// Ends the process with SIGKILL here if this point was picked.
pub fn point(name: &str) {
    if CRASH_AT.as_deref() == Some(name) {
        tracing::warn!(crash.point = name, "ending the process, as the test asked");
        // SIGKILL cannot fail on oneself, and nothing after it runs.
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    }
}
