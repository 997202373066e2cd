//! A measured figure, and whether it keeps to what the project promises of it.

/// One line of the benches' result.
#[derive(Clone, Debug)]
pub struct Figure {
    /// `status`.
    pub name: &'static str,
    /// The median of what was measured.
    pub value: f64,
    /// `ms`.
    pub unit: &'static str,
    /// The median of what it is measured against, where there is such.
    pub baseline: Option<f64>,
}

/// What a figure may be.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// At most so much, in its unit.
    Most(f64),
    /// At most so much of its baseline.
    MostRatio(f64),
    /// At least so much of its baseline.
    LeastRatio(f64),
}

/// Of each figure of which something is promised.
static LIMITS: [(&str, Limit); 32] = [
    ("up-to-all-ready", Limit::MostRatio(0.90)),
    ("status", Limit::Most(50.0)),
    ("host-agent-resident", Limit::Most(64.0)),
    ("node-agent-resident", Limit::Most(15.0)),
    ("agent-resident-1000", Limit::Most(64.0)),
    ("agent-resident-5000", Limit::Most(64.0)),
    ("agent-resident-5000", Limit::MostRatio(1.1)),
    ("agents-cpu-1000", Limit::Most(5.0)),
    ("agents-cpu-5000", Limit::Most(5.0)),
    ("agents-cpu-5000", Limit::MostRatio(1.25)),
    ("agents-back-10", Limit::Most(30.0)),
    ("agents-back-100", Limit::Most(30.0)),
    ("agents-back-1000", Limit::Most(30.0)),
    ("handshakes-10", Limit::Most(50.0)),
    ("handshakes-100", Limit::Most(50.0)),
    ("handshakes-1000", Limit::Most(50.0)),
    ("handshakes-5000", Limit::Most(50.0)),
    ("status-1000", Limit::Most(100.0)),
    ("log-throughput", Limit::LeastRatio(0.15)),
    ("log-host-agent-growth", Limit::Most(32.0)),
    ("log-journal", Limit::LeastRatio(0.6)),
    ("log-journal-socat", Limit::LeastRatio(1.0)),
    ("slow-readers-growth", Limit::Most(100.0)),
    ("slow-readers-cost", Limit::MostRatio(1.10)),
    ("follow-latency", Limit::Most(20.0)),
    // The window and 50 ms.
    ("follow-latency-merged", Limit::Most(300.0)),
    ("plugin-list-50", Limit::Most(100.0)),
    ("plugin-spawn", Limit::Most(25.0)),
    ("plugin-resident", Limit::Most(12.0)),
    // Of kubectl, with the same file in the same run.
    ("plugin-apply", Limit::MostRatio(1.5)),
    ("plugin-apply-again", Limit::MostRatio(0.5)),
    // The window and 400 ms.
    ("follow-latency-lab", Limit::Most(650.0)),
];

/// The most that a figure of this name may be, in its unit, where that is promised.
pub fn most(name: &str) -> Option<f64> {
    LIMITS.iter().find_map(|(of, limit)| match limit {
        Limit::Most(most) if *of == name => Some(*most),
        _ => None,
    })
}

impl Figure {
    /// The value in terms of the baseline.
    pub fn ratio(&self) -> Option<f64> {
        self.baseline.map(|baseline| self.value / baseline)
    }

    /// For each of its limits a line that says whether it keeps to it, and whether it does; none where it has none.
    pub fn verdicts(&self) -> impl Iterator<Item = (String, bool)> {
        let of_it = LIMITS.iter().filter(move |(name, _)| *name == self.name);
        of_it.map(move |(_, limit)| self.verdict(*limit))
    }

    fn verdict(&self, limit: Limit) -> (String, bool) {
        let ratio = self.ratio().unwrap_or(f64::NAN);
        let of_baseline = || " of its baseline".to_owned();
        let (measured, bound, word, unit) = match limit {
            Limit::Most(most) => (self.value, most, "at most", format!(" {}", self.unit)),
            Limit::MostRatio(most) => (ratio, most, "at most", of_baseline()),
            Limit::LeastRatio(least) => (ratio, least, "at least", of_baseline()),
        };
        // What was not measured is within no limit.
        let (is_within, is_not) = match limit {
            Limit::Most(_) | Limit::MostRatio(_) => (measured <= bound, "OVER THE LIMIT"),
            Limit::LeastRatio(_) => (measured >= bound, "BELOW THE LIMIT"),
        };
        let says = if is_within { "within the limit" } else { is_not };
        (format!("{:<26} {says}: {measured:.2}, {word} {bound:.2}{unit}", self.name), is_within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::benches_of_all;

    fn figure(name: &'static str, value: f64, baseline: Option<f64>) -> Figure {
        Figure { name, value, unit: "ms", baseline }
    }

    #[test]
    fn what_is_promised_is_judged() {
        let is_within = |name, value, baseline| {
            figure(name, value, baseline).verdicts().map(|verdict| verdict.1).collect::<Vec<_>>()
        };
        assert_eq!(is_within("status", 50.0, Some(1.0)), [true]);
        assert_eq!(is_within("status", 50.1, None), [false]);
        assert_eq!(is_within("status", f64::NAN, None), [false]);
        assert_eq!(is_within("up-to-all-ready", 180.0, Some(200.0)), [true]);
        assert_eq!(is_within("up-to-all-ready", 181.0, Some(200.0)), [false]);
        assert_eq!(is_within("up-to-all-ready", 1.0, None), [false]);
        assert_eq!(is_within("log-throughput", 300.0, Some(2_000.0)), [true]);
        assert_eq!(is_within("log-throughput", 299.0, Some(2_000.0)), [false]);
        assert_eq!(is_within("log-throughput", f64::NAN, Some(2_000.0)), [false]);
        assert_eq!(is_within("agent-resident-5000", 60.0, Some(50.0)), [true, false], "both its limits");
        assert_eq!(is_within("power-on-to-joined", 1000.0, None), [false; 0]);
    }

    #[test]
    fn a_verdict_names_what_was_measured_and_its_limit() {
        let (line, _) = figure("status", 61.25, None).verdicts().next().expect("it has a limit");
        assert!(
            line.starts_with("status ") && line.contains("OVER THE LIMIT: 61.25, at most 50.00 ms"),
            "{line}"
        );
    }

    #[test]
    fn what_has_a_limit_is_given_by_a_bench() {
        for (name, _) in LIMITS {
            let gives = |figures: &[&str]| figures.contains(&name);
            assert!(benches_of_all().any(|bench| gives(bench.figures)), "{name} has a limit and no bench");
        }
    }
}
