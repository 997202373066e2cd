//! What is promised of a host agent under malformed traffic, and whether it is so. Pure.

use bench_figures::quantile;

use super::pulse::Beats;

/// How much later those who are well are answered, at the 99th percentile.
const TIMES: f64 = 2.0;
/// Up to here nothing is judged, in milliseconds: it is what a line may take on its way at any time. On a machine that is
/// shared, twice of the two milliseconds that are usual is one moment in which a processor did something else; the
/// slowest of a hundred is such a moment with and without malformed traffic.
const FLOOR: f64 = 20.0;
/// How much memory may be added, at its peak.
const GROWTH: u64 = 64 << 20;
/// Of the usual number of lines and calls these must have come: what is not answered at all is no quick answer.
const LEAST: f64 = 0.5;

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
    pub fn judge(&self, beats: &Beats, seconds: f64) -> (String, Vec<String>) {
        let (mut said, mut wrong) = (Vec::new(), Vec::new());
        for (what, usual, all) in [("lines", self.lines, &beats.lines), ("calls", self.calls, &beats.calls)] {
            let (now, bound) = (late(all), (TIMES * usual.late).max(FLOOR));
            let least = usual.a_second * seconds * LEAST;
            said.push(format!("{} {what}, p99 {now:.1} ms, at most {bound:.1}", all.len()));
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

    fn beats(late: f64, count: usize) -> Beats {
        Beats { lines: vec![late; count], calls: vec![late; count] }
    }

    fn wrong(usual: f64, now: f64, count: usize) -> usize {
        Usual::of(&beats(usual, 1_000), 10.0).judge(&beats(now, count), 10.0).1.len()
    }

    #[test]
    fn twice_as_late_is_allowed_and_a_moment_is_not_judged() {
        assert_eq!(wrong(30.0, 60.0, 1_000), 0);
        assert_eq!(wrong(30.0, 60.1, 1_000), 2);
        assert_eq!(wrong(2.0, FLOOR, 1_000), 0);
        assert_eq!(wrong(2.0, FLOOR + 0.1, 1_000), 2);
    }

    #[test]
    fn what_does_not_come_is_not_early() {
        assert_eq!(wrong(2.0, 2.0, 500), 0);
        assert_eq!(wrong(2.0, 2.0, 499), 2);
        assert_eq!(wrong(2.0, 2.0, 0), 4, "neither in time nor enough");
    }

    #[test]
    fn memory_may_grow_by_so_much() {
        assert_eq!(judge_memory(100 << 20, 164 << 20), None);
        assert!(judge_memory(100 << 20, (164 << 20) + 1).is_some());
        assert_eq!(judge_memory(100, 50), None);
    }
}
