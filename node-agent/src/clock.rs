//! The machine's clock against the host's: how far off, and stepping it.
//!
//! Called by bootstrap (before certificates are judged), by session (host time messages) and by logs, whose times are
//! the host's.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// Differences up to this are left alone: a message under way for a moment looks like one.
pub const TOLERANCE: Duration = Duration::from_secs(2);

/// So many host time messages are looked at together: the one that was least under way tells most.
const SAMPLES: usize = 4;
/// Offsets up to this cannot be told from the time that a message is under way, and count as none, in microseconds.
const DEADBAND: i64 = 50_000;
/// One that has changed by less stays what it is, so that a line has the same time each time it is read.
const HYSTERESIS: i64 = 20_000;

/// What the host's time says of the machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is right.
    InStep,
    /// It looks ahead, and the message may only have been under way for long.
    Unsure,
    /// It is off by so many milliseconds: positive when it is ahead.
    Off(i64),
}

/// The clock could not be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot set the clock to the host's time")]
pub struct ClockError(#[source] rustix::io::Errno);

/// Now, as the wire has it.
pub fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

/// A time as the wire has it.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

/// A time from the wire; before 1970 counts as 1970.
pub fn system_time(stamp: &Timestamp) -> SystemTime {
    let seconds = u64::try_from(stamp.seconds).unwrap_or_default();
    let nanos = u32::try_from(stamp.nanos).unwrap_or_default().min(999_999_999);
    UNIX_EPOCH + Duration::new(seconds, nanos)
}

/// How far `here` is from `host`: positive when the node is ahead.
pub fn offset_millis(here: SystemTime, host: SystemTime) -> i64 {
    match here.duration_since(host) {
        Ok(ahead) => i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX),
        Err(behind) => -i64::try_from(behind.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// How far this machine's clock is off, as far as messages from the host tell: kept by the session, read by logs.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Offset(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    last: VecDeque<i64>,
    used: i64,
}

impl Offset {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Numbers only: what a panic leaves behind is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the host's time, as it was when the message was sent, at this time here.
    pub fn observe(&self, here: SystemTime, host: SystemTime) {
        let off = match here.duration_since(host) {
            Ok(ahead) => i64::try_from(ahead.as_micros()).unwrap_or(i64::MAX),
            Err(behind) => -i64::try_from(behind.duration().as_micros()).unwrap_or(i64::MAX),
        };
        let mut known = self.lock();
        known.last.push_back(off);
        if known.last.len() > SAMPLES {
            known.last.pop_front();
        }
        // What a message is under way makes this clock seem ahead, never behind.
        let least = known.last.iter().copied().min().unwrap_or_default();
        let seen = if least.abs() < DEADBAND { 0 } else { least };
        if seen == 0 || seen.abs_diff(known.used) > HYSTERESIS as u64 {
            known.used = seen;
        }
    }

    /// The clock was set: it is off no more.
    pub fn reset(&self) {
        *self.lock() = Known::default();
    }

    /// In microseconds; positive when this clock is ahead.
    pub fn micros(&self) -> i64 {
        self.lock().used
    }
}

/// Whether such an offset calls for a step.
pub fn needs_step(offset_millis: i64) -> bool {
    offset_millis.unsigned_abs() > TOLERANCE.as_millis() as u64
}

/// Judges the clock by its offset from the time in a message, and from that in the message before it, of the same session.
///
/// Being under way makes a message old, so that the clock looks ahead by as much, and never behind: what looks behind is
/// so, at least by that. That it is ahead takes two messages in a row that agree, and the smaller offset of them is the
/// nearer one. Messages that waited together, for a machine that was paused, do not agree.
pub fn judge(before: Option<i64>, offset_millis: i64) -> Verdict {
    if !needs_step(offset_millis) {
        return Verdict::InStep;
    }
    if offset_millis < 0 {
        return Verdict::Off(offset_millis);
    }
    let agrees = |before: &i64| {
        *before > 0 && needs_step(*before) && !needs_step(before.saturating_sub(offset_millis))
    };
    before.filter(agrees).map_or(Verdict::Unsure, |before| Verdict::Off(before.min(offset_millis)))
}

/// Sets the clock back by so much, or forward where that is negative.
pub fn step_back(offset_millis: i64) -> Result<(), ClockError> {
    let (now, by) = (SystemTime::now(), Duration::from_millis(offset_millis.unsigned_abs()));
    let right = if offset_millis < 0 { now.checked_add(by) } else { now.checked_sub(by) };
    step_to(right.unwrap_or(now))
}

/// Sets the clock.
pub fn step_to(host: SystemTime) -> Result<(), ClockError> {
    let since = host.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time =
        rustix::time::Timespec { tv_sec: since.as_secs() as i64, tv_nsec: i64::from(since.subsec_nanos()) };
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, time).map_err(ClockError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_than_two_seconds_call_for_a_step() {
        let host = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(offset_millis(host + Duration::from_secs(2), host), 2_000);
        assert_eq!(offset_millis(host - Duration::from_secs(3), host), -3_000);
        assert!(!needs_step(2_000));
        assert!(needs_step(-2_001));
    }

    /// What a session makes of messages, one after the other.
    fn judged(offsets: &[i64]) -> Vec<Verdict> {
        let before = std::iter::once(None).chain(offsets.iter().copied().map(Some));
        before.zip(offsets).map(|(before, offset)| judge(before, *offset)).collect()
    }

    #[test]
    fn a_clock_that_is_behind_is_so_at_once_and_one_that_is_ahead_after_two_messages() {
        use Verdict::{InStep, Off, Unsure};
        assert_eq!(judged(&[-2_001, 0]), [Off(-2_001), InStep]);
        assert_eq!(judged(&[5_100, 5_000]), [Unsure, Off(5_000)]);
        assert_eq!(judged(&[5_000, 5_100]), [Unsure, Off(5_000)]);
        let hour = 3_600_000;
        assert_eq!(judged(&[hour, hour + 40, hour]), [Unsure, Off(hour), Off(hour)]);
    }

    #[test]
    fn a_message_that_came_late_sets_no_clock_back() {
        use Verdict::{InStep, Unsure};
        assert_eq!(judged(&[0, 9_000, 20]), [InStep, Unsure, InStep]);
        // The one before it did not say that the clock is off.
        assert_eq!(judged(&[1_900, 2_100, 1_900]), [InStep, Unsure, InStep]);
        assert_eq!(judged(&[-2_100, 2_100])[1], Unsure);
        // All that waited while the VM was paused.
        assert_eq!(judged(&[90_000, 60_000, 30_000, 5]), [Unsure, Unsure, Unsure, InStep]);
    }

    #[test]
    fn the_offset_is_that_of_the_message_that_was_least_under_way() {
        let offset = Offset::default();
        let host = UNIX_EPOCH + Duration::from_secs(1_000);
        let mut seen = |micros: u64| {
            offset.observe(host + Duration::from_micros(micros), host);
            offset.micros()
        };
        assert_eq!(seen(900_000), 900_000);
        assert_eq!(seen(700_000), 700_000);
        assert_eq!(seen(690_000), 700_000, "as good as the same");
        assert_eq!(seen(2_000_000), 700_000);
        // The host's clock was set, or this one drifts: in the end that counts.
        assert_eq!([800_000; 4].map(&mut seen), [700_000, 700_000, 800_000, 800_000]);
        assert_eq!(seen(49_000), 0, "no more than a message takes");
        offset.observe(host - Duration::from_millis(300), host);
        assert_eq!(offset.micros(), -300_000);
        offset.reset();
        assert_eq!(offset.micros(), 0);
    }
}
