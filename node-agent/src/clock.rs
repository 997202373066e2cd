//! The machine's clock against the host's: how far off, and stepping it.
//!
//! Called by bootstrap (before certificates are judged) and by session (host time messages).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// Differences up to this are left alone: a message under way for a moment looks like one.
pub const TOLERANCE: Duration = Duration::from_secs(2);

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

/// Whether such an offset calls for a step.
pub fn needs_step(offset_millis: i64) -> bool {
    offset_millis.unsigned_abs() > TOLERANCE.as_millis() as u64
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
}
