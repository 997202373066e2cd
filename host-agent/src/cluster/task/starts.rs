//! How often VMs are started: one that stops at once is not started at once, again and again. One that stands, since the
//! host's disk is full, only waits for room: it is tried again soon.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The first starts in a row follow each other at once.
const FREE: u32 = 2;
/// Pause before the next one; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The same where it is only to go on. A try that comes too early costs nothing.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(15);
/// A VM that has run for so long has been started well.
const GOOD_RUN: Duration = Duration::from_secs(600);

/// By VM.
#[derive(Debug, Default)]
pub(super) struct Starts(BTreeMap<String, Row>);

#[derive(Debug)]
struct Row {
    last: Instant,
    count: u32,
    /// The last start was to let it go on.
    stood: bool,
}

impl Row {
    fn pause(&self) -> Duration {
        match self.count.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE),
        }
    }
}

impl Starts {
    /// Whether it may be started now; `stands` means: an I/O error has stopped it, and it is to go on.
    pub(super) fn may(&self, name: &str, stands: bool, now: Instant) -> bool {
        let longest = if stands { LONGEST_STANDSTILL } else { LONGEST_PAUSE };
        self.0.get(name).is_none_or(|row| now.duration_since(row.last) >= row.pause().min(longest))
    }

    /// It is started now. Says whether that is worth telling: of one that stands again and again, only the first time is.
    pub(super) fn note(&mut self, name: &str, stands: bool, now: Instant) -> bool {
        let row = self.0.entry(name.to_owned()).or_insert(Row { last: now, count: 0, stood: false });
        if now.duration_since(row.last) >= GOOD_RUN {
            (row.count, row.stood) = (0, false);
        }
        let is_news = !(stands && row.stood);
        *row = Row { last: now, count: row.count + 1, stood: stands };
        is_news
    }

    /// How often in a row it was started.
    pub(super) fn in_a_row(&self, name: &str) -> u32 {
        self.0.get(name).map_or(0, |row| row.count)
    }

    /// It is gone, or a person has asked for another try.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_that_stops_at_once_is_started_ever_more_rarely() {
        let (mut starts, mut now) = (Starts::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let mut waited = 0;
            while !starts.may("vm", false, now) {
                now += Duration::from_secs(1);
                waited += 1;
            }
            pauses.push(waited);
            assert!(starts.note("vm", false, now));
        }
        assert_eq!(pauses, [0, 0, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(starts.may("another", false, now));
    }

    #[test]
    fn one_that_waits_for_room_goes_on_soon_however_long_it_has_waited() {
        let (mut starts, now) = (Starts::default(), Instant::now());
        let told = (0..20).filter(|_| starts.note("vm", true, now)).count();
        assert_eq!(told, 1);
        assert!(!starts.may("vm", true, now + Duration::from_secs(14)));
        assert!(starts.may("vm", true, now + Duration::from_secs(15)));
        assert!(!starts.may("vm", false, now + Duration::from_secs(15)));
    }

    #[test]
    fn a_good_run_ends_the_row() {
        let (mut starts, now) = (Starts::default(), Instant::now());
        let told = (0..5).filter(|_| starts.note("vm", false, now)).count();
        assert_eq!(told, 5);
        assert!(!starts.may("vm", false, now));
        assert!(starts.note("vm", true, now + GOOD_RUN));
        assert!(!starts.note("vm", true, now + GOOD_RUN));
        assert!(starts.note("vm", true, now + 2 * GOOD_RUN));
        assert_eq!(starts.in_a_row("vm"), 1);
        starts.forget("vm");
        assert_eq!(starts.in_a_row("vm"), 0);
    }
}
