//! How late a line is that is followed: from the moment that an agent writes it until `k8sctl` has printed it. Of one
//! node, and of three whose lines are merged.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use bench_figures::{Figure, quantile};
use fleet_tests::host::{Host, Programs};
use fleet_tests::k8sctl::Lines;
use node_agent::config::SimulatedLog;
use serde_json::Value;

/// Between two lines of one node.
const PAUSE: Duration = Duration::from_millis(10);
/// Lines that come before it is measured: those of the time in which the stream begins.
const FIRST: usize = 200;
/// Lines that are measured.
const LINES: usize = 3_000;
/// Longest that a line is waited for, and all of them.
const PATIENCE: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(5 * 60);

pub(super) fn bench(programs: &Programs, figures: &mut Vec<Figure>) -> Result<()> {
    let log = SimulatedLog { before: 10, pause: PAUSE, bytes: 0 };
    let (host, _fleet, cluster) = super::small(programs, &[log; 3])?;
    let worker = cluster.nodes().pop().context("a worker")?;
    for (name, nodes) in [("follow-latency", Some(worker.as_str())), ("follow-latency-merged", None)] {
        let mut late = latencies(&host, nodes)?;
        println!("  {name}: median {:.1} ms", quantile(&mut late, 0.5));
        figures.push(Figure { name, value: quantile(&mut late, 0.99), unit: "ms", baseline: None });
    }
    Ok(())
}

/// Of each line, in milliseconds.
fn latencies(host: &Host, node: Option<&str>) -> Result<Vec<f64>> {
    let args: Vec<&str> = ["logs", "-f", "--tail", "0", "-o", "json"].into_iter().chain(node).collect();
    let lines = Lines::of(host, &args)?;
    let end = Instant::now() + DEADLINE;
    let mut late = Vec::with_capacity(LINES);
    for number in 0..FIRST + LINES {
        anyhow::ensure!(Instant::now() < end, "{number} lines within {DEADLINE:?}");
        let (there, line) = lines.next(PATIENCE)?;
        if number < FIRST {
            continue;
        }
        let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let written: jiff::Timestamp = line["time"].as_str().context("a time")?.parse()?;
        // By the same clock, unless that was set meanwhile.
        let written = SystemTime::from(written);
        late.push(there.duration_since(written).unwrap_or_default().as_secs_f64() * 1_000.0);
    }
    Ok(late)
}
