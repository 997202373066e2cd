//! What is promised of a host agent under malformed traffic, and whether it is so. Pure.
//!
//! The promise is of ten minutes of it: those who are well are answered at most twice as late, at the 99th percentile, as
//! right before and after by the same machine. A run of that length is judged by exactly this. A shorter one, as in
//! `make test`, has a few hundred calls to judge by, of which the slowest hundredth are one moment in which a shared
//! machine did something else; so it has a floor, and is wrong when it is wrong several times in a row. What it finds is
//! what is wrong by a lot.

use std::time::Duration;

use bench_figures::quantile;

use super::pulse::{APART, Beats};

/// A run of one target that is as long as this is judged by the promise itself.
const LONG: Duration = Duration::from_secs(600);
/// How much later those who are well are answered, at the 99th percentile.
const TIMES: f64 = 2.0;
/// Up to here a short run is not judged, in milliseconds: it is what a line may take on its way at any time. A debug build
/// takes longer for the same.
const FLOOR: f64 = if cfg!(debug_assertions) { 40.0 } else { 20.0 };
/// How often a short run of one target is tried before it counts.
const TRIES: usize = 3;
/// How much memory may be added, at its peak.
const GROWTH: u64 = 64 << 20;
/// Of the usual number of lines and calls these must have come: what is not answered at all is no quick answer.
const LEAST: f64 = 0.5;

/// By what a run is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    floor: f64,
    /// How often it is tried at most.
    pub tries: usize,
}

impl Line {
    /// Of a run that sends to each target for so long.
    pub fn of(length: Duration) -> Self {
        if length >= LONG { Self { floor: 0.0, tries: 1 } } else { Self { floor: FLOOR, tries: TRIES } }
    }
}

/// How soon answers come when nobody means harm.
#[derive(Clone, Copy, Debug)]
pub struct Usual {
    lines: Usually,
    calls: Usually,
}

#[derive(Clone, Copy, Debug)]
struct Usually {
    late: f64,
    a_second: f64,
}

impl Usual {
    /// As it was within so many seconds.
    pub fn of(beats: &Beats, seconds: f64) -> Self {
        let usually =
            |all: &[f64]| Usually { late: late(all), a_second: all.len() as f64 / seconds.max(f64::EPSILON) };
        Self { lines: usually(&beats.lines), calls: usually(&beats.calls) }
    }

    /// What is wrong with how it was then, within so many seconds; and how it was, in one line.
    pub fn judge(&self, line: Line, beats: &Beats, seconds: f64) -> (String, Vec<String>) {
        let (mut said, mut wrong) = (Vec::new(), Vec::new());
        let bound = |usual: Usually| (TIMES * usual.late).max(line.floor);
        // Who calls again when he has his answer calls less often where an answer may take longer.
        let most_calls = 1_000.0 / (APART.as_secs_f64() * 1_000.0 + bound(self.calls));
        let all = [
            ("lines", self.lines, &beats.lines, self.lines.a_second),
            ("calls", self.calls, &beats.calls, self.calls.a_second.min(most_calls)),
        ];
        for (what, usual, all, a_second) in all {
            let (now, bound) = (late(all), bound(usual));
            let least = a_second * seconds * LEAST;
            said.push(format!(
                "{} {what}, p99 {now:.1} ms, {:.1} times the usual {:.1}, at most {bound:.1}",
                all.len(),
                now / usual.late,
                usual.late
            ));
            // What was not measured is within no bound.
            if !matches!(now.partial_cmp(&bound), Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal))
            {
                wrong.push(format!(
                    "the 99th percentile of {what} is {now:.1} ms, {:.1} ms without malformed traffic: at most \
                     {bound:.1} ms are allowed",
                    usual.late
                ));
            }
            if (all.len() as f64) < least {
                wrong.push(format!("{} {what} came, and at least {least:.0} should have", all.len()));
            }
        }
        (said.join("; "), wrong)
    }
}

/// What is wrong with the memory that it had at most, given what it had before, both in bytes.
pub fn judge_memory(before: u64, peak: u64) -> Option<String> {
    let grown = peak.saturating_sub(before);
    (grown > GROWTH).then(|| {
        format!("the host agent had {} MiB more at its peak, {} are allowed", grown >> 20, GROWTH >> 20)
    })
}

/// The 99th percentile; NaN of none.
fn late(all: &[f64]) -> f64 {
    quantile(&mut all.to_vec(), 0.99)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(60);

    fn beats(late: f64, count: usize) -> Beats {
        Beats { lines: vec![late; count], calls: vec![late; count] }
    }

    fn wrong(length: Duration, usual: f64, now: f64, count: usize) -> usize {
        let usual = Usual::of(&beats(usual, 1_000), 10.0);
        usual.judge(Line::of(length), &beats(now, count), 10.0).1.len()
    }

    #[test]
    fn ten_minutes_are_judged_by_the_promise_and_nothing_else() {
        assert_eq!(Line::of(LONG), Line { floor: 0.0, tries: 1 });
        assert_eq!(wrong(LONG, 2.0, 4.0, 1_000), 0);
        assert_eq!(wrong(LONG, 2.0, 4.1, 1_000), 2);
        assert_eq!(wrong(LONG, 30.0, 60.0, 1_000), 0);
        assert_eq!(wrong(LONG, 30.0, 60.1, 1_000), 2);
    }

    #[test]
    fn in_a_short_run_a_moment_is_not_judged() {
        assert_eq!(wrong(SHORT, 2.0, FLOOR, 1_000), 0);
        assert_eq!(wrong(SHORT, 2.0, FLOOR + 0.1, 1_000), 2);
        assert_eq!(wrong(SHORT, FLOOR, 2.0 * FLOOR, 1_000), 0);
        assert_eq!(wrong(SHORT, FLOOR, 2.0 * FLOOR + 0.1, 1_000), 2);
    }

    #[test]
    fn what_does_not_come_is_not_early() {
        assert_eq!(wrong(SHORT, 2.0, 2.0, 500), 0);
        assert_eq!(wrong(SHORT, 2.0, 2.0, 499), 1, "lines come by themselves");
        // A call a time, with its answer as late as it may be.
        let calls = LEAST * 10_000.0 / (10.0 + FLOOR);
        assert_eq!(wrong(SHORT, 2.0, 2.0, calls as usize + 1), 1);
        assert_eq!(wrong(SHORT, 2.0, 2.0, calls as usize - 1), 2);
        assert_eq!(wrong(SHORT, 2.0, 2.0, 0), 4, "neither in time nor enough");
    }

    #[test]
    fn memory_may_grow_by_so_much() {
        assert_eq!(judge_memory(100 << 20, 164 << 20), None);
        assert!(judge_memory(100 << 20, (164 << 20) + 1).is_some());
        assert_eq!(judge_memory(100, 50), None);
    }
}
