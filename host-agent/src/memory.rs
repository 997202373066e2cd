//! Gives back to the system what the allocator keeps. A status of a thousand nodes takes dozens of megabytes while it is
//! made and sent, and as many handshakes at once do too: glibc's allocator keeps what was freed between things that
//! stay, until it is told to look.
#![allow(unsafe_code)] // The allocator has no safe interface.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// How often. It takes some milliseconds for each hundred megabytes, and nobody waits for it.
const EVERY: Duration = Duration::from_secs(60);

/// Does so for ever.
pub async fn give_back() {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = tokio::task::spawn_blocking(trim).await {
            tracing::error!(%error, "what the allocator keeps is not given back");
            return;
        }
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it may be called at any time, by any thread, and changes nothing that is allocated.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
