//! Which program has which benches, and which figures each gives.

/// A program with benches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// `tests/fleet`: simulated agents, no VM.
    Fleet,
    /// `host-agent/plugin-process`: plugins' processes in their sandbox.
    Spawn,
    /// `host-agent/plugins`: what plugins apply, against an API server without nodes.
    Plugins,
    /// `tests/lab`: real VMs, inside of a lab.
    Lab,
}

/// A bench and the figures that it gives.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// Who has it.
    pub suite: Suite,
    /// `up`.
    pub name: &'static str,
    /// Names of its figures.
    pub figures: &'static [&'static str],
}

static BENCHES: [Bench; 9] = [
    Bench { suite: Suite::Fleet, name: "follow", figures: &["follow-latency", "follow-latency-merged"] },
    Bench {
        suite: Suite::Fleet,
        name: "throughput",
        figures: &[
            "log-throughput",
            "log-lines",
            "log-host-agent-growth",
            "slow-readers-growth",
            "slow-readers-cost",
        ],
    },
    Bench { suite: Suite::Fleet, name: "journal", figures: &["log-journal", "log-journal-socat"] },
    Bench {
        suite: Suite::Fleet,
        name: "scale",
        figures: &[
            "agent-resident-10",
            "agent-resident-100",
            "agent-resident-1000",
            "agent-resident-5000",
            "agents-cpu-10",
            "agents-cpu-100",
            "agents-cpu-1000",
            "agents-cpu-5000",
            "agents-back-10",
            "agents-back-100",
            "agents-back-1000",
            "agents-back-5000",
            "handshakes-10",
            "handshakes-100",
            "handshakes-1000",
            "handshakes-5000",
            "status-10",
            "status-1000",
        ],
    },
    Bench { suite: Suite::Fleet, name: "list", figures: &["plugin-list-50"] },
    Bench { suite: Suite::Spawn, name: "spawn", figures: &["plugin-spawn", "plugin-resident"] },
    Bench { suite: Suite::Plugins, name: "apply", figures: &["plugin-apply", "plugin-apply-again"] },
    Bench { suite: Suite::Lab, name: "up", figures: &["up-to-all-ready"] },
    Bench {
        suite: Suite::Lab,
        name: "running",
        figures: &[
            "power-on-to-joined",
            "agent-start-to-joined",
            "status",
            "host-agent-resident",
            "node-agent-resident",
            "follow-latency-lab",
        ],
    },
];

impl Suite {
    /// All, in the order in which they run.
    pub const ALL: [Self; 4] = [Self::Fleet, Self::Spawn, Self::Plugins, Self::Lab];

    /// `fleet`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Spawn => "spawn",
            Self::Plugins => "plugins",
            Self::Lab => "lab",
        }
    }
}

/// Every bench of every program.
pub fn benches_of_all() -> impl Iterator<Item = &'static Bench> {
    BENCHES.iter()
}

/// Those of a program that give these benches or figures, in their order: all of them for none. A name that no program
/// knows is an error, which names what there is.
pub fn benches(suite: Suite, wanted: &[String]) -> Result<Vec<&'static str>, String> {
    let has = |bench: &Bench, name: &str| bench.name == name || bench.figures.contains(&name);
    if let Some(name) = wanted.iter().find(|name| !BENCHES.iter().any(|bench| has(bench, name))) {
        let known = BENCHES.map(|bench| format!("{} ({})", bench.name, bench.figures.join(", ")));
        return Err(format!("there is no bench {name:?}; there are: {}", known.join("; ")));
    }
    let is_wanted = |bench: &&Bench| {
        bench.suite == suite && (wanted.is_empty() || wanted.iter().any(|name| has(bench, name)))
    };
    Ok(BENCHES.iter().filter(is_wanted).map(|bench| bench.name).collect())
}

/// The programs that are needed for these benches or figures.
pub fn suites(wanted: &[String]) -> Result<Vec<Suite>, String> {
    let mut needed = Vec::new();
    for suite in Suite::ALL {
        if !benches(suite, wanted)?.is_empty() {
            needed.push(suite);
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_bench_is_found_by_its_name_and_by_that_of_each_of_its_figures() {
        let of = |suite, names: &[&str]| benches(suite, &wanted(names));
        assert_eq!(of(Suite::Lab, &[]), Ok(vec!["up", "running"]));
        assert_eq!(of(Suite::Fleet, &[]), Ok(vec!["follow", "throughput", "journal", "scale", "list"]));
        assert_eq!(of(Suite::Lab, &["up"]), Ok(vec!["up"]));
        assert_eq!(of(Suite::Lab, &["status"]), Ok(vec!["running"]));
        assert_eq!(
            of(Suite::Lab, &["node-agent-resident", "up-to-all-ready", "status"]),
            Ok(vec!["up", "running"])
        );
        assert_eq!(of(Suite::Fleet, &["plugin-list-50"]), Ok(vec!["list"]));
        assert_eq!(of(Suite::Spawn, &["plugin-resident"]), Ok(vec!["spawn"]));
        assert_eq!(of(Suite::Plugins, &["apply"]), Ok(vec!["apply"]));
        assert_eq!(of(Suite::Lab, &["scale"]), Ok(vec![]), "it is of another program");
        let unknown = of(Suite::Lab, &["status", "boot"]).expect_err("there is none");
        assert!(
            unknown.contains("\"boot\"") && unknown.contains("running (power-on-to-joined, "),
            "{unknown}"
        );
    }

    #[test]
    fn the_lab_is_needed_for_its_own_benches_only() {
        assert_eq!(suites(&[]), Ok(Suite::ALL.to_vec()));
        assert_eq!(suites(&wanted(&["status-1000", "follow"])), Ok(vec![Suite::Fleet]));
        assert_eq!(suites(&wanted(&["scale", "up"])), Ok(vec![Suite::Fleet, Suite::Lab]));
        assert!(suites(&wanted(&["boot"])).is_err());
    }

    #[test]
    fn a_name_means_one_thing() {
        let all = || BENCHES.iter().flat_map(|bench| bench.figures.iter().copied().chain([bench.name]));
        let mut names: Vec<_> = all().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
    }
}
