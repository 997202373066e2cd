//! Whether the host stood still: the clock on the wall goes on while it is suspended, the steady one does not. Neither VMs
//! nor their agents did anything in that time, and no deadline is to count it. A clock that is set forward looks the same,
//! and is no reason to end anything either; one that is set back gives nobody more time.

use std::time::Instant;

use jiff::SignedDuration;

/// Less is an error of clocks that are set little by little.
const LEAST: SignedDuration = SignedDuration::from_secs(5);

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

    /// As if the last look had been at that time.
    #[cfg(test)]
    pub(super) fn of(wall: jiff::Timestamp) -> Self {
        Self { wall, steady: Instant::now() }
    }

    /// How long the host stood still since the last look, where it did; less than nothing where its clock was set back.
    pub(super) fn stood_still(&mut self, wall: jiff::Timestamp, steady: Instant) -> Option<SignedDuration> {
        let lost = wall.duration_since(self.at(steady));
        *self = Self { wall, steady };
        (lost.abs() >= LEAST).then_some(lost)
    }

    /// The time now, as if neither had happened since the last look: deadlines of then are of that time.
    pub(super) fn now(&self) -> jiff::Timestamp {
        self.at(Instant::now())
    }

    fn at(&self, steady: Instant) -> jiff::Timestamp {
        let passed = steady.saturating_duration_since(self.steady);
        self.wall.checked_add(passed).unwrap_or(jiff::Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_the_steady_clock_has_not_seen_was_a_standstill() {
        let (mut pace, wall, steady) = (Pace::new(), jiff::Timestamp::now(), Instant::now());
        let (seconds, lost) = (Duration::from_secs, SignedDuration::from_secs);
        assert_eq!(pace.stood_still(wall, steady), None);
        // A long look and a clock that is corrected are none.
        assert_eq!(pace.stood_still(wall + seconds(100), steady + seconds(100)), None);
        assert_eq!(pace.stood_still(wall + seconds(114), steady + seconds(110)), None);
        assert_eq!(pace.stood_still(wall - seconds(5000), steady + seconds(120)), Some(lost(-5124)));
        assert_eq!(pace.at(steady + seconds(125)), wall - seconds(4995));
        assert_eq!(pace.stood_still(wall + seconds(1000), steady + seconds(130)), Some(lost(5990)));
        assert_eq!(pace.stood_still(wall + seconds(1010), steady + seconds(140)), None);
    }
}
