//! When TLS handshakes may begin: one after the other, so far apart that agents who all come back at once leave the
//! host its processors. Whoever would wait longer than it has patience for is told so at once, and dials again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{HANDSHAKE_PATIENCE, HANDSHAKES_APART};

/// Turns, in the order in which they are asked for. One for all listeners of a program.
#[derive(Debug)]
pub struct Pace {
    apart: Duration,
    patience: Duration,
    /// When the next turn is at the earliest.
    next: Mutex<Option<Instant>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(HANDSHAKES_APART, HANDSHAKE_PATIENCE)
    }
}

impl Pace {
    /// Turns so far apart, none further ahead than `patience`.
    pub fn new(apart: Duration, patience: Duration) -> Self {
        Self { apart, patience, next: Mutex::default() }
    }

    /// Takes the next turn: when it is. `None` means that it is too far ahead, and that none was taken.
    pub fn turn(&self, now: Instant) -> Option<Instant> {
        // Whole values are written, so what a panic leaves behind is sound.
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(now, |next| next.max(now));
        if turn.duration_since(now) > self.patience {
            return None;
        }
        *next = Some(turn + self.apart);
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APART: Duration = Duration::from_millis(20);

    #[test]
    fn who_comes_alone_waits_for_nothing_and_a_crowd_comes_one_after_the_other() {
        let pace = Pace::new(APART, Duration::from_secs(1));
        let now = Instant::now();
        let turns: Vec<_> = (0..3).map(|_| pace.turn(now)).collect();
        assert_eq!(turns, [Some(now), Some(now + APART), Some(now + 2 * APART)]);
        let later = now + Duration::from_secs(10);
        assert_eq!(pace.turn(later), Some(later), "time that nobody used is not saved up");
        assert_eq!(pace.turn(later), Some(later + APART));
    }

    #[test]
    fn a_turn_that_is_too_far_ahead_is_not_taken() {
        let pace = Pace::new(APART, 10 * APART);
        let now = Instant::now();
        assert_eq!((0..1_000).filter_map(|_| pace.turn(now)).count(), 11);
        let later = now + APART;
        assert_eq!(pace.turn(later), Some(now + 11 * APART), "those that were refused hold nobody up");
        assert_eq!(pace.turn(later), None);
    }

    #[test]
    fn no_second_has_more_handshakes_than_are_promised() {
        let pace = Pace::default();
        let now = Instant::now();
        let turns: Vec<_> = (0..1_000).filter_map(|_| pace.turn(now)).collect();
        let within = |begin: Instant| {
            turns.iter().filter(|turn| (begin..begin + Duration::from_secs(1)).contains(*turn)).count()
        };
        let most = turns.iter().map(|turn| within(*turn)).max().unwrap_or_default();
        assert!((40..50).contains(&most), "{most}");
    }
}
