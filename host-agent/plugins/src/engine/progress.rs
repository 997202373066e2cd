//! What an operation tells while it runs: lines, and what blocks it now. Shared by the engine, the operation and whoever
//! follows it; nobody who listens slowly, or not at all, holds it up.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

/// Lines that a slow follower may be behind before it misses some.
const LINES: usize = 256;

/// What keeps an operation from going on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blocking {
    /// `apps/v1 Deployment hello/hello`
    pub object: String,
    /// Why it is not ready.
    pub reason: String,
    /// What a pod of it says; `None`: no pod is known.
    pub pod: Option<String>,
    /// Since when this object blocks.
    pub since: SystemTime,
}

/// Lines and what blocks, for any number of followers.
#[derive(Clone, Debug)]
pub struct Progress {
    lines: broadcast::Sender<String>,
    blocking: watch::Sender<Option<Blocking>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Nothing said, nothing blocked.
    pub fn new() -> Self {
        Self { lines: broadcast::Sender::new(LINES), blocking: watch::Sender::new(None) }
    }

    /// Tells whoever listens.
    pub(crate) fn say(&self, line: impl Into<String>) {
        // Nobody listens: nobody misses it.
        let _ = self.lines.send(line.into());
    }

    /// What blocks from now on; `None`: nothing. The time stays that of the first word about this object.
    pub(crate) fn blocked(&self, blocking: Option<Blocking>) {
        self.blocking.send_if_modified(|now| {
            let mut next = blocking;
            if let (Some(next), Some(now)) = (&mut next, now.as_ref())
                && next.object == now.object
            {
                next.since = now.since;
            }
            let changed = *now != next;
            *now = next;
            changed
        });
    }

    /// Lines from now on (a slow reader misses some), and what blocks.
    pub fn follow(&self) -> (broadcast::Receiver<String>, watch::Receiver<Option<Blocking>>) {
        (self.lines.subscribe(), self.blocking.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn blocking(object: &str, reason: &str, seconds: u64) -> Blocking {
        let since = UNIX_EPOCH + Duration::from_secs(seconds);
        Blocking { object: object.to_owned(), reason: reason.to_owned(), pod: None, since }
    }

    #[test]
    fn an_object_blocks_since_it_was_first_said() {
        let progress = Progress::new();
        let (_, mut seen) = progress.follow();
        progress.blocked(Some(blocking("a", "one", 1)));
        progress.blocked(Some(blocking("a", "two", 2)));
        assert_eq!(*seen.borrow_and_update(), Some(blocking("a", "two", 1)));
        progress.blocked(Some(blocking("a", "two", 3)));
        assert!(!seen.has_changed().expect("the sender is there"), "nothing is new");
        progress.blocked(Some(blocking("b", "two", 4)));
        assert_eq!(*seen.borrow_and_update(), Some(blocking("b", "two", 4)));
        progress.blocked(None);
        assert_eq!(*seen.borrow_and_update(), None);
    }

    #[test]
    fn lines_reach_those_who_follow_and_nobody_is_needed() {
        let progress = Progress::new();
        progress.say("unheard");
        let (mut lines, _) = progress.follow();
        progress.clone().say("created v1 Namespace hello");
        assert_eq!(lines.try_recv().ok().as_deref(), Some("created v1 Namespace hello"));
    }
}
