//! How fast logs go from a node agent through the host agent to `k8sctl >/dev/null`, against TLS alone on the same
//! loopback; how much memory that takes of the host agent; and what readers who are slow cost it and a fast one.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bench_figures::{Figure, median, pairs};
use fleet_tests::host::{Host, Programs};
use fleet_tests::k8sctl::SlowReader;
use fleet_tests::{k8sctl, pipe, process};
use node_agent::config::SimulatedLog;

/// Length of a long line, and how many of them there are: 2 GiB.
const LONG: usize = 4_096;
const LONG_LINES: u64 = 512 * 1024;
/// The same of a line as programs write them: 240 MB.
const USUAL: usize = 120;
const USUAL_LINES: u64 = 2_000_000;
/// So far apart that hardly any comes while all are read.
const PAUSE: Duration = Duration::from_secs(1);
/// Slow readers of the same node.
const SLOW: usize = 20;
/// How long slow readers read before what they cost is measured: all that is on its way to them is there then.
const FILLED: Duration = Duration::from_secs(20);
/// Between two looks at the host agent's memory.
const LOOK: Duration = Duration::from_millis(500);
/// Longest that one reading may take.
const DEADLINE: Duration = Duration::from_secs(10 * 60);
const MB: f64 = 1e6;
const MIB: f64 = 1_048_576.0;

pub(super) fn bench(programs: &Programs, figures: &mut Vec<Figure>) -> Result<()> {
    let log = |before, bytes| SimulatedLog { before, pause: PAUSE, bytes };
    let logs = [log(10, 0), log(LONG_LINES, LONG), log(USUAL_LINES, USUAL)];
    let (host, _fleet, cluster) = super::small(programs, &logs)?;
    let nodes = cluster.nodes();
    let (long, usual) = (["logs", nodes[1].as_str()], ["logs", nodes[2].as_str()]);

    // The first time everything is fetched from the disk, and memory that is kept is taken.
    k8sctl::time(&host, &usual, DEADLINE)?;
    let bytes = LONG_LINES * LONG as u64;
    let (mut pipes, mut streams, mut growths, mut lines) = (vec![], vec![], vec![], vec![]);
    for pair in 1..=pairs()? {
        let bare = pipe::bytes_a_second(bytes)? / MB;
        let before = process::resident(host.pid())?;
        process::forget_peak(host.pid())?;
        let took = k8sctl::time(&host, &long, DEADLINE)?.as_secs_f64();
        let grown = process::peak(host.pid())?.saturating_sub(before) as f64 / MIB;
        let stream = bytes as f64 / took / MB;
        println!("  pair {pair}: bare TLS {bare:.0} MB/s, logs {stream:.0} MB/s, host agent +{grown:.1} MiB");
        pipes.push(bare);
        streams.push(stream);
        growths.push(grown);
        lines.push(USUAL_LINES as f64 / k8sctl::time(&host, &usual, DEADLINE)?.as_secs_f64() / 1_000.0);
    }
    let baseline = Some(median(&mut pipes));
    figures.push(Figure { name: "log-throughput", value: median(&mut streams), unit: "MB/s", baseline });
    figures.push(Figure { name: "log-lines", value: median(&mut lines), unit: "k/s", baseline: None });
    let grown = growths.into_iter().fold(0.0, f64::max);
    figures.push(Figure { name: "log-host-agent-growth", value: grown, unit: "MiB", baseline: None });
    slow_readers(&host, &long, figures)
}

fn slow_readers(host: &Host, log: &[&str], figures: &mut Vec<Figure>) -> Result<()> {
    let (mut alone, mut beside, mut growths) = (vec![], vec![], vec![]);
    for pair in 1..=pairs()? {
        let free = k8sctl::time(host, log, DEADLINE)?.as_secs_f64();
        let before = process::resident(host.pid())?;
        let slow: Vec<SlowReader> = (0..SLOW).map(|_| SlowReader::of(host, log)).collect::<Result<_>>()?;
        let end = Instant::now() + FILLED;
        let mut most = before;
        while Instant::now() < end {
            most = most.max(process::resident(host.pid())?);
            thread::sleep(LOOK);
        }
        let grown = most.saturating_sub(before) as f64 / MIB;
        let had: Vec<u64> = slow.iter().map(SlowReader::kibibytes).collect();
        let held = k8sctl::time(host, log, DEADLINE)?.as_secs_f64();
        // Of a kibibyte each second, half: a second that has begun is none, and a busy machine is late.
        let due = (held / 2.0) as u64;
        let stuck = slow.iter().zip(had).filter(|(reader, had)| reader.kibibytes() < had + due).count();
        ensure!(stuck == 0, "{stuck} of {SLOW} slow readers did not read on");
        println!(
            "  pair {pair}: alone {free:.2} s, beside {SLOW} slow ones {held:.2} s, host agent +{grown:.1} MiB"
        );
        alone.push(free);
        beside.push(held);
        growths.push(grown);
    }
    let baseline = Some(median(&mut alone));
    figures.push(Figure { name: "slow-readers-cost", value: median(&mut beside), unit: "s", baseline });
    let grown = growths.into_iter().fold(0.0, f64::max);
    figures.push(Figure { name: "slow-readers-growth", value: grown, unit: "MiB", baseline: None });
    Ok(())
}
