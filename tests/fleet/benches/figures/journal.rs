//! How fast a node's journal goes through its node agent and the host agent to `k8sctl logs >/dev/null`, against what
//! there is without us: `journalctl` alone, which is as fast as its source can be, and `journalctl` through TLS by two
//! `socat`.
//!
//! Speeds are of the journal's own bytes, on the disk: all three read the same.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bench_figures::{Figure, median, pairs};
use fleet_tests::host::Programs;
use fleet_tests::journal::Journal;
use fleet_tests::k8sctl;
use node_agent::config::Simulation;

/// Size of the journal, unless it is told.
const SIZE_MIB: u64 = 1_024;
/// Longest that one reading may take.
const DEADLINE: Duration = Duration::from_secs(15 * 60);
const MB: f64 = 1e6;

pub(super) fn bench(programs: &Programs, figures: &mut Vec<Figure>) -> Result<()> {
    let size = std::env::var("BENCH_JOURNAL_MIB").ok().filter(|text| !text.is_empty());
    let size: u64 = size.map_or(Ok(SIZE_MIB), |text| text.parse()).context("BENCH_JOURNAL_MIB")?;
    let journal = Journal::new(size << 20)?;
    println!("  a journal of {} MiB with {} entries", journal.bytes() >> 20, journal.entries());
    let logged = Simulation { journal: Some(journal.files()), ..Simulation::default() };
    let (host, _fleet, cluster) = super::small_of(programs, &[Simulation::default(), logged])?;
    let worker = cluster.nodes().pop().context("a worker")?;
    let logs = ["logs", worker.as_str()];

    // All of it comes; and the first time everything is fetched from the disk.
    let (lines, entries) = (k8sctl::count_lines(&host, &logs, DEADLINE)?, journal.entries());
    ensure!(lines == entries, "k8sctl printed {lines} lines of {entries} entries");
    let speed = |took: Duration| journal.bytes() as f64 / MB / took.as_secs_f64();
    let (mut streams, mut exports, mut socats) = (vec![], vec![], vec![]);
    for pair in 1..=pairs()? {
        let export = speed(journal.time_export(DEADLINE)?);
        let stream = speed(k8sctl::time(&host, &logs, DEADLINE)?);
        let socat = speed(journal.time_socat(DEADLINE)?);
        println!(
            "  pair {pair}: journalctl {export:.0} MB/s, k8sctl logs {stream:.0} MB/s, socat {socat:.0} MB/s"
        );
        exports.push(export);
        streams.push(stream);
        socats.push(socat);
    }
    let value = median(&mut streams);
    for (name, mut baselines) in [("log-journal", exports), ("log-journal-socat", socats)] {
        figures.push(Figure { name, value, unit: "MB/s", baseline: Some(median(&mut baselines)) });
    }
    Ok(())
}
