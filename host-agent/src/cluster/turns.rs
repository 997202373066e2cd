//! Whose turn it is on the host. An operation plans and changes the host alone: two plans at once could undo each other.
//!
//! What only reads, and what only starts VMs that shall run, needs no turn. Nobody has a turn for long where others wait:
//! between two changes it goes to them, and the rest is planned anew at the next turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A turn for which others wait ends with the change in which this has passed: most changes take milliseconds, so that
/// a whole plan fits, and some take minutes.
const LENGTH: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct HostTurns {
    lock: tokio::sync::Mutex<()>,
    length: Duration,
    /// Name of the cluster whose turn it is.
    holder: Mutex<Option<String>>,
    waiting: AtomicUsize,
}

impl Default for HostTurns {
    fn default() -> Self {
        Self::new(LENGTH)
    }
}

impl HostTurns {
    /// Turns of this length where others wait.
    pub fn new(length: Duration) -> Self {
        let (lock, holder) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { lock, length, holder, waiting: AtomicUsize::new(0) }
    }

    /// A turn for this cluster, if nobody has one or waits for one.
    pub fn try_take(&self, cluster: &str) -> Option<Turn<'_>> {
        self.lock.try_lock().ok().map(|guard| self.begin(cluster, guard))
    }

    /// The next turn for this cluster; first come, first served.
    pub async fn take(&self, cluster: &str) -> Turn<'_> {
        let waits = Waits::new(&self.waiting);
        let guard = self.lock.lock().await;
        drop(waits);
        self.begin(cluster, guard)
    }

    /// The cluster whose turn it is.
    pub fn holder(&self) -> Option<String> {
        self.lock_holder().clone()
    }

    fn begin<'a>(&'a self, cluster: &str, guard: tokio::sync::MutexGuard<'a, ()>) -> Turn<'a> {
        *self.lock_holder() = Some(cluster.to_owned());
        Turn { turns: self, since: Instant::now(), _guard: guard }
    }

    fn lock_holder(&self) -> MutexGuard<'_, Option<String>> {
        // It is only ever replaced as a whole.
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cluster's turn, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a HostTurns,
    since: Instant,
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Others wait, and it has been long enough.
    pub fn is_over(&self) -> bool {
        self.turns.waiting.load(Ordering::Relaxed) > 0 && self.since.elapsed() >= self.turns.length
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Before the lock itself, which is dropped after this.
        *self.turns.lock_holder() = None;
    }
}

/// Counts one who waits, until it is dropped: also one that gave up.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_turn_is_over_when_others_wait() {
        let turns = HostTurns::new(Duration::ZERO);
        let first = turns.try_take("first").expect("nobody has it");
        assert!(!first.is_over());
        let gave_up = turns.take("second").now_or_never();
        assert!(gave_up.is_none() && !first.is_over(), "nobody waits any more");
        let mut second = std::pin::pin!(turns.take("second"));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(first.is_over());
        assert_eq!(turns.holder().as_deref(), Some("first"));
        drop(first);
        // Nobody comes between.
        assert!(turns.try_take("first").is_none());
        let second = second.await;
        assert!(!second.is_over());
        assert_eq!(turns.holder().as_deref(), Some("second"));
        drop(second);
        assert_eq!(turns.holder(), None);

        let patient = HostTurns::default();
        let first = patient.try_take("first").expect("nobody has it");
        let mut second = std::pin::pin!(patient.take("second"));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(!first.is_over(), "it has just begun");
    }
}
