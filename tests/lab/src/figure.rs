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

/// Most that a figure may be.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// In its unit.
    Value(f64),
    /// Of its baseline.
    Ratio(f64),
}

/// Of each figure of which something is promised.
const LIMITS: [(&str, Limit); 4] = [
    ("up-to-all-ready", Limit::Ratio(0.90)),
    ("status", Limit::Value(50.0)),
    ("host-agent-resident", Limit::Value(64.0)),
    ("node-agent-resident", Limit::Value(15.0)),
];

/// Each bench and the figures that it gives.
const BENCHES: [(&str, &[&str]); 2] = [
    ("up", &["up-to-all-ready"]),
    (
        "running",
        &[
            "power-on-to-joined",
            "agent-start-to-joined",
            "status",
            "host-agent-resident",
            "node-agent-resident",
        ],
    ),
];

/// The benches to run for these names of benches or figures, in their order: all of them for none. The error names what
/// there is.
pub fn benches(wanted: &[String]) -> Result<Vec<&'static str>, String> {
    let has = |(bench, figures): &(&str, &[&str]), name: &str| *bench == name || figures.contains(&name);
    if let Some(name) = wanted.iter().find(|name| !BENCHES.iter().any(|bench| has(bench, name))) {
        let known = BENCHES.map(|(name, figures)| format!("{name} ({})", figures.join(", ")));
        return Err(format!("there is no bench {name:?}; there are: {}", known.join("; ")));
    }
    let is_wanted =
        |bench: &&(&str, &[&str])| wanted.is_empty() || wanted.iter().any(|name| has(bench, name));
    Ok(BENCHES.iter().filter(is_wanted).map(|(name, _)| *name).collect())
}

impl Figure {
    /// The value in terms of the baseline.
    pub fn ratio(&self) -> Option<f64> {
        self.baseline.map(|baseline| self.value / baseline)
    }

    /// A line that says whether it is within its limit, and whether it is; `None` where it has none.
    pub fn verdict(&self) -> Option<(String, bool)> {
        let (_, limit) = LIMITS.iter().find(|(name, _)| *name == self.name)?;
        let (measured, most, unit) = match limit {
            Limit::Value(most) => (self.value, *most, format!(" {}", self.unit)),
            Limit::Ratio(most) => (self.ratio().unwrap_or(f64::NAN), *most, " of its baseline".to_owned()),
        };
        // What was not measured is within no limit.
        let is_within = measured <= most;
        let word = if is_within { "within the limit" } else { "OVER THE LIMIT" };
        Some((format!("{:<26} {word}: {measured:.2}, at most {most:.2}{unit}", self.name), is_within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &'static str, value: f64, baseline: Option<f64>) -> Figure {
        Figure { name, value, unit: "ms", baseline }
    }

    #[test]
    fn what_is_promised_is_judged() {
        let is_within =
            |name, value, baseline| figure(name, value, baseline).verdict().map(|verdict| verdict.1);
        assert_eq!(is_within("status", 50.0, Some(1.0)), Some(true));
        assert_eq!(is_within("status", 50.1, None), Some(false));
        assert_eq!(is_within("status", f64::NAN, None), Some(false));
        assert_eq!(is_within("up-to-all-ready", 180.0, Some(200.0)), Some(true));
        assert_eq!(is_within("up-to-all-ready", 181.0, Some(200.0)), Some(false));
        assert_eq!(is_within("up-to-all-ready", 1.0, None), Some(false));
        assert_eq!(is_within("power-on-to-joined", 1000.0, None), None);
    }

    #[test]
    fn a_verdict_names_what_was_measured_and_its_limit() {
        let (line, _) = figure("status", 61.25, None).verdict().expect("it has a limit");
        assert!(
            line.starts_with("status ") && line.contains("OVER THE LIMIT: 61.25, at most 50.00 ms"),
            "{line}"
        );
    }

    #[test]
    fn a_bench_is_found_by_its_name_and_by_that_of_each_of_its_figures() {
        let of = |names: &[&str]| benches(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]), Ok(vec!["up", "running"]));
        assert_eq!(of(&["up"]), Ok(vec!["up"]));
        assert_eq!(of(&["status"]), Ok(vec!["running"]));
        assert_eq!(of(&["node-agent-resident", "up-to-all-ready", "status"]), Ok(vec!["up", "running"]));
        let unknown = of(&["status", "boot"]).expect_err("there is none");
        assert!(
            unknown.contains("\"boot\"") && unknown.contains("running (power-on-to-joined, "),
            "{unknown}"
        );
        for (name, _) in LIMITS {
            assert!(of(&[name]).is_ok(), "{name} has a limit and no bench");
        }
    }
}
