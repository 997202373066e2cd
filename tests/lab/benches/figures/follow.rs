//! How late a line is that is followed, of real nodes: from its being written inside of a VM until `k8sctl logs -f`, which
//! merges three of them, has printed it.
//!
//! A VM's clock is not the host's. So the way has two parts, each by one clock: up to journald's stamp by the VM's, and
//! from there, the stamp corrected as `k8sctl` prints it, by the host's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use bench_figures::{Figure, quantile};
use lab_tests::lines::Lines;
use lab_tests::vm::Shell;
use lab_tests::{Lab, wait_until};
use serde_json::Value;

/// Its lines are the shell's of the lab, and nobody else's.
const UNIT: &str = "k8s-debug";
/// What marks the journal's entries.
const MARK: &str = "follow-bench";
/// Lines of each node, and seconds between two of them.
const LINES: usize = 200;
const PAUSE: &str = "0.1";
/// How long nothing may come, and how long all may take.
const PATIENCE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// A line by its node and its number.
type Id = (String, usize);

/// Measured on a running cluster, of all these nodes.
pub(super) fn latency(lab: &Lab, nodes: &[&str]) -> Result<Figure> {
    let mut shells = Vec::new();
    for node in nodes {
        shells.push((*node, Shell::open(lab, node)?));
    }
    let follow = ["logs", "-f", "--unit", UNIT, "--grep", "^latency ", "--since", "now", "-o", "json"];
    let following = Lines::of("k8sctl", &follow)?;
    let mut seen = BTreeSet::new();
    wait_until("all nodes are followed", DEADLINE, || {
        for (_, shell) in &mut shells {
            shell.run("echo latency begins | systemd-cat")?;
        }
        while let Ok((_, line)) = following.next(Duration::from_millis(500)) {
            seen.insert(parsed(&line)?.0);
        }
        ensure!(seen.len() == nodes.len(), "only {seen:?} are");
        Ok(true)
    })?;

    for (_, shell) in &mut shells {
        // Its output is the journal's own stream, and nobody waits for its end.
        let script = format!(
            "for ((n = 0; n < {LINES}; n++)); do echo latency $n $EPOCHREALTIME; sleep {PAUSE}; done"
        );
        shell.run(&format!("LC_ALL=C systemd-cat -t {MARK} bash -c '{script}' >/dev/null 2>&1 &"))?;
    }
    let printed = printed(&following, LINES * nodes.len())?;
    let mut stamped: BTreeMap<Id, f64> = BTreeMap::new();
    for (node, shell) in &mut shells {
        let lag = stamped_after(&shell.run(&format!(
            "journalctl --sync; journalctl --quiet --no-pager --output=short-unix --identifier={MARK}"
        ))?)?;
        stamped.extend(lag.into_iter().map(|(number, lag)| (((*node).to_owned(), number), lag)));
    }
    let (mut late, mut lags) = (Vec::new(), Vec::new());
    for (id, shown) in &printed {
        let lag =
            stamped.get(id).with_context(|| format!("line {id:?} is not in the journal of its node"))?;
        late.push(shown + lag);
        lags.push(*lag);
    }
    println!(
        "  follow-latency-lab: median {:.0} ms, {:.0} ms of that until journald's stamp; the worst {:.0} ms",
        quantile(&mut late, 0.5),
        quantile(&mut lags, 0.5),
        quantile(&mut late, 1.0),
    );
    let value = quantile(&mut late, 0.99);
    Ok(Figure { name: "follow-latency-lab", value, unit: "ms", baseline: None })
}

/// How long after its stamp each line was printed, in milliseconds; of so many lines.
fn printed(following: &Lines, all: usize) -> Result<BTreeMap<Id, f64>> {
    let end = Instant::now() + DEADLINE;
    let mut printed: BTreeMap<Id, f64> = BTreeMap::new();
    while printed.len() < all {
        ensure!(Instant::now() < end, "{} of {all} lines within {DEADLINE:?}", printed.len());
        let (there, line) =
            following.next(PATIENCE).with_context(|| format!("behind {} of {all} lines", printed.len()))?;
        let (node, stamp, text) = parsed(&line)?;
        // The others are of the time before.
        let number = text.split(' ').nth(1).and_then(|number| number.parse().ok());
        let Some(number) = number else { continue };
        let late = there.duration_since(stamp).unwrap_or_default().as_secs_f64() * 1_000.0;
        let before = printed.insert((node, number), late);
        ensure!(before.is_none(), "printed twice: {line}");
    }
    Ok(printed)
}

/// Node, time and text of a line of JSON.
fn parsed(line: &str) -> Result<(String, SystemTime, String)> {
    let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let field = |key: &str| value[key].as_str().with_context(|| format!("{key} of {line}"));
    let stamp: jiff::Timestamp = field("time")?.parse()?;
    Ok((field("node")?.to_owned(), SystemTime::from(stamp), field("text")?.to_owned()))
}

/// How long after it was written each line of a journal was stamped, in milliseconds, by its number:
/// `1795514400.123456 NODE follow-bench[7]: latency 0 1795514400.123400`.
fn stamped_after(journal: &str) -> Result<Vec<(usize, f64)>> {
    let lag = |line: &str| -> Option<(usize, f64)> {
        let (stamp, rest) = line.split_once(' ')?;
        let mut words = rest.split_once(": latency ")?.1.split(' ');
        let number = words.next()?.parse().ok()?;
        let written = micros(words.next()?)?;
        // Microseconds of one run: far below 2^52.
        Some((number, (micros(stamp)? - written) as f64 / 1_000.0))
    };
    journal.lines().map(|line| lag(line).with_context(|| line.to_owned())).collect()
}

/// Of seconds with six places.
fn micros(seconds: &str) -> Option<i64> {
    let (whole, part) = seconds.split_once('.')?;
    if part.len() != 6 {
        return None;
    }
    Some(whole.parse::<i64>().ok()? * 1_000_000 + part.parse::<i64>().ok()?)
}
