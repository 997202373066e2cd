//! When a plugin's program is not started any more: three bad ends in ten minutes, or one of a kind that no honest program
//! has. Pure; whoever keeps the records of runs asks, and what is installed stays as it is in any case.

use std::time::Duration;

use crate::run::RunErrorKind;

/// So many bad ends …
pub const CRASHES: usize = 3;
/// … in this time.
pub const WINDOW: Duration = Duration::from_secs(600);

/// What a bad end means for the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the n-th within [`WINDOW`], and may be started again.
    Counts(u32),
    /// It is not started any more; why.
    Quarantine(String),
}

/// `reason` is the failure's; `earlier_ms` are the times of earlier bad ends of this package, in milliseconds since the
/// epoch like `now_ms`. `None`: it says nothing of the program.
pub fn judge(kind: RunErrorKind, reason: &str, earlier_ms: &[i64], now_ms: i64) -> Option<Verdict> {
    match kind {
        RunErrorKind::Launch => return None,
        RunErrorKind::Breach | RunErrorKind::Unstable => return Some(Verdict::Quarantine(reason.to_owned())),
        RunErrorKind::Crashed
        | RunErrorKind::Deadline
        | RunErrorKind::Memory
        | RunErrorKind::Output
        | RunErrorKind::Contract => {}
    }
    let window = i64::try_from(WINDOW.as_millis()).unwrap_or(i64::MAX);
    // One that seems to come later is of a clock that was set back, and counts.
    let counts = |at: &&i64| now_ms.saturating_sub(**at) < window;
    let times = earlier_ms.iter().filter(counts).count() + 1;
    if times < CRASHES {
        return Some(Verdict::Counts(u32::try_from(times).unwrap_or(u32::MAX)));
    }
    let minutes = WINDOW.as_secs() / 60;
    Some(Verdict::Quarantine(format!(
        "it ended badly {times} times in {minutes} minutes, the last time so: {reason}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const NOW: i64 = 1_700_000_000_000;

    /// Bad ends so many minutes ago.
    fn after(kind: RunErrorKind, minutes_ago: &[i64]) -> Option<Verdict> {
        let earlier: Vec<i64> = minutes_ago.iter().map(|minutes| NOW - minutes * MINUTE).collect();
        judge(kind, "signal 11", &earlier, NOW)
    }

    #[test]
    fn the_third_within_ten_minutes_is_the_last() {
        for kind in [
            RunErrorKind::Crashed,
            RunErrorKind::Deadline,
            RunErrorKind::Memory,
            RunErrorKind::Output,
            RunErrorKind::Contract,
        ] {
            for (minutes_ago, counts) in [
                (&[][..], Some(1)),
                (&[9], Some(2)),
                (&[10], Some(1)),
                (&[9, 1], None),
                (&[10, 1], Some(2)),
                (&[30, 25, 20, 15, 10], Some(1)),
                (&[30, 25, 9, 0], None),
                // A clock that was set back.
                (&[-60, -30], None),
            ] {
                let verdict = after(kind, minutes_ago);
                match counts {
                    Some(times) => {
                        assert_eq!(verdict, Some(Verdict::Counts(times)), "{kind:?} {minutes_ago:?}")
                    }
                    None => {
                        let Some(Verdict::Quarantine(why)) = verdict else {
                            panic!("{kind:?} {minutes_ago:?}")
                        };
                        assert!(why.contains("3 times in 10 minutes") && why.contains("signal 11"), "{why}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_no_honest_program_does_is_enough_once() {
        for kind in [RunErrorKind::Breach, RunErrorKind::Unstable] {
            assert_eq!(after(kind, &[]), Some(Verdict::Quarantine("signal 11".to_owned())));
        }
    }

    #[test]
    fn what_the_host_could_not_do_does_not_count() {
        assert_eq!(after(RunErrorKind::Launch, &[1, 1, 1]), None);
    }
}
