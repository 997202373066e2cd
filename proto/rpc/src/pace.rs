//! When TLS handshakes may begin: one after the other, so far apart that agents who all come back at once leave the
//! host its processors. Whoever would wait longer than it has patience for is told so at once, and dials again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::limits::{HANDSHAKE_PATIENCE, HANDSHAKES_APART};

/// Turns, in the order in which they are asked for. One for all listeners of a program.
#[derive(Debug)]
pub struct Pace {
    apart: Duration,
    patience: Duration,
    /// Turns that were given out and have not begun.
    waiting: Mutex<u32>,
    /// When the last one began; whoever holds it is the next.
    last: tokio::sync::Mutex<Option<Instant>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(HANDSHAKES_APART, HANDSHAKE_PATIENCE)
    }
}

impl Pace {
    /// Turns so far apart, none further ahead than `patience`.
    pub fn new(apart: Duration, patience: Duration) -> Self {
        Self { apart, patience, waiting: Mutex::default(), last: tokio::sync::Mutex::default() }
    }

    /// Takes the next turn. `None` means that it is too far ahead, and that none was taken.
    pub fn turn(self: &Arc<Self>) -> Option<Turn> {
        let mut waiting = self.waiting();
        if self.apart * *waiting > self.patience {
            return None;
        }
        *waiting += 1;
        Some(Turn(Arc::clone(self)))
    }

    fn waiting(&self) -> MutexGuard<'_, u32> {
        // Whole values are written, so what a panic leaves behind is sound.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, which is given back when it is dropped.
#[derive(Debug)]
pub struct Turn(Arc<Pace>);

impl Turn {
    /// Waits until it has come. The time since the last one's real beginning counts: where this program got no processor
    /// for a while, those who should have begun meanwhile do not begin all at once.
    pub async fn begin(self) {
        let mut last = self.0.last.lock().await;
        if let Some(last) = *last {
            sleep_until(last + self.0.apart).await;
        }
        *last = Some(Instant::now());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.waiting() -= 1;
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    const APART: Duration = Duration::from_millis(20);

    /// So many turns that are waited for beside each other: when they began, in order.
    async fn begun(pace: &Arc<Pace>, turns: usize, meanwhile: fn()) -> Vec<Instant> {
        let begin = |turn: Turn| async {
            turn.begin().await;
            Instant::now()
        };
        let turns: Vec<_> = std::iter::from_fn(|| pace.turn()).take(turns).collect();
        let mut tasks: JoinSet<_> = turns.into_iter().map(begin).collect();
        tokio::task::yield_now().await;
        meanwhile();
        let mut began = Vec::new();
        while let Some(at) = tasks.join_next().await {
            began.push(at.expect("it does not panic"));
        }
        began.sort_unstable();
        began
    }

    #[tokio::test]
    async fn a_crowd_comes_one_after_the_other() {
        let pace = Arc::new(Pace::new(APART, Duration::from_secs(1)));
        let began = begun(&pace, 4, || {}).await;
        assert_eq!(began.len(), 4);
        assert!(began.is_sorted_by(|one, next| *next >= *one + APART), "{began:?}");
    }

    #[tokio::test]
    async fn what_a_pause_held_up_is_not_made_up_for() {
        let pace = Arc::new(Pace::new(APART, Duration::from_secs(1)));
        // The only thread of this runtime.
        let began = begun(&pace, 5, || std::thread::sleep(5 * APART)).await;
        assert_eq!(began.len(), 5);
        assert!(began.is_sorted_by(|one, next| *next >= *one + APART), "{began:?}");
    }

    #[tokio::test]
    async fn a_turn_that_is_too_far_ahead_is_not_taken() {
        let pace = Arc::new(Pace::new(APART, 10 * APART));
        let mut turns: Vec<_> = std::iter::from_fn(|| pace.turn()).take(1_000).collect();
        assert_eq!(turns.len(), 11);
        turns.pop().expect("a turn").begin().await;
        drop(pace.turn().expect("in the place of the one that began"));
        turns.push(pace.turn().expect("in the place of the one that was given back"));
        assert!(pace.turn().is_none());
    }

    #[test]
    fn no_second_has_more_handshakes_than_are_promised() {
        let most = Duration::from_secs(1).as_nanos().div_ceil(HANDSHAKES_APART.as_nanos());
        assert!((40..50).contains(&most), "{most}");
    }
}
