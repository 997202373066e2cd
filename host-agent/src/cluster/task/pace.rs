//! Whether the host stood still: the clock on the wall goes on while it is suspended, the steady one does not. Neither VMs
//! nor their agents did anything in that time, and no deadline is to count it. A clock that is set forward looks the same,
//! and is no reason to end anything either.

use std::time::{Duration, Instant};

/// Less is an error of clocks that are set little by little.
const LEAST: Duration = Duration::from_secs(5);

/// Both clocks at the last look.
#[derive(Debug)]
pub(super) struct Pace {
    wall: jiff::Timestamp,
    steady: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { wall: jiff::Timestamp::now(), steady: Instant::now() }
    }

    /// How long the host stood still since the last look, where it did.
    pub(super) fn stood_still(&mut self, wall: jiff::Timestamp, steady: Instant) -> Option<Duration> {
        let before = std::mem::replace(self, Self { wall, steady });
        let by_wall = Duration::try_from(wall.duration_since(before.wall)).unwrap_or_default();
        let by_steady = steady.saturating_duration_since(before.steady);
        by_wall.checked_sub(by_steady).filter(|lost| *lost >= LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_steady_clock_has_not_seen_was_a_standstill() {
        let (mut pace, wall, steady) = (Pace::new(), jiff::Timestamp::now(), Instant::now());
        let seconds = Duration::from_secs;
        assert_eq!(pace.stood_still(wall, steady), None);
        // A long look, a clock that is corrected, and one that is set back are none.
        assert_eq!(pace.stood_still(wall + seconds(100), steady + seconds(100)), None);
        assert_eq!(pace.stood_still(wall + seconds(114), steady + seconds(110)), None);
        assert_eq!(pace.stood_still(wall - seconds(5000), steady + seconds(120)), None);
        assert_eq!(pace.stood_still(wall + seconds(1000), steady + seconds(130)), Some(seconds(5990)));
        assert_eq!(pace.stood_still(wall + seconds(1010), steady + seconds(140)), None);
    }
}
