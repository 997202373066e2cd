//! `k8sctl logs` of three real nodes: in order, exact at its bounds, and without loss while one node is rebooted and
//! another one is cut off.
//!
//! Lines are written by the debug unit, whose own lines nobody else writes.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab_tests::pace::{Pace, within};
use lab_tests::vm::Shell;
use lab_tests::{Lab, Running, phase, wait_until};
use serde_json::Value;

use super::{MINUTE, NODES, k8sctl, told};

const UNIT: &str = "k8s-debug";
/// The one that is rebooted, and the one that is cut off.
const REBOOTED: &str = "k8s-worker-1";
const CUT_OFF: (&str, &str) = ("k8s-worker-2", "192.168.122.12");
/// Lines of the node that is rebooted: all, and those before it is.
const LINES: u64 = 100_000;
const BEFORE: u64 = 60_000;
/// Lines of the one that is cut off.
const FEW: u64 = 500;
/// How long that is: longer than a session that hears nothing is kept.
const CUT: Duration = Duration::from_secs(60);
/// As promised: until a line of several nodes is shown, window included, and until a link that is back is used.
const LATENCY: Duration = Duration::from_millis(250 + 400);
const BACK: Duration = Duration::from_secs(15);
/// Rounds of markers.
const ROUNDS: usize = 5;

/// A marker on each node in turn, seen in that order.
pub fn markers_come_in_order(lab: &Lab, pace: Pace) -> Result<()> {
    phase("logs -f over three nodes: a marker on each in turn");
    let mut shells = Vec::new();
    for (node, ..) in NODES {
        shells.push((node, Shell::open(lab, node)?));
    }
    let follow = ["logs", "-f", "--unit", UNIT, "--grep", "^marker ", "--since", "now", "-o", "json"];
    let mut following = lab.spawn("k8sctl", &follow, &[])?;
    wait_until("all nodes are followed", 5 * MINUTE, || {
        for (node, shell) in &mut shells {
            write(shell, &format!("marker begin-{node}"))?;
        }
        let seen = lines(&following)?;
        Ok(NODES.iter().all(|(node, ..)| seen.iter().any(|line| line["node"] == *node)))
    })?;

    let (mut expected, mut latencies) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for (node, shell) in &mut shells {
            let text = format!("marker {round}-{node}");
            let began = Instant::now();
            write(shell, &text)?;
            expected.push(text);
            // Their clocks may differ by as much as counts as the same time.
            sleep(Duration::from_millis(100).saturating_sub(began.elapsed()));
        }
        let last = expected.last().context("a marker")?;
        let end = Instant::now() + 5 * MINUTE;
        let line = loop {
            let found = lines(&following)?.into_iter().find(|line| line["text"] == *last);
            match found {
                Some(line) => break line,
                None => ensure!(Instant::now() < end, "{last:?} is not shown: {:?}", following.read()?),
            }
            sleep(Duration::from_millis(10));
        };
        let latency = jiff::Timestamp::now().duration_since(told::moment(&line["time"])?);
        latencies.push(Duration::try_from(latency).unwrap_or_default());
    }
    let seen = lines(&following)?;
    let texts: Vec<&str> = seen.iter().filter_map(|line| line["text"].as_str()).collect();
    let shown: Vec<&str> = texts.into_iter().filter(|text| !text.starts_with("marker begin-")).collect();
    ensure!(shown == expected, "shown as {shown:?}, written as {expected:?}");
    ensure!(!following.has_ended()?, "it has ended: {:?}", following.read()?);
    latencies.sort_unstable();
    println!("lab: from a line's time to its being shown: {latencies:?}");
    within("the median of that", latencies[ROUNDS / 2], pace.allow(LATENCY))
}

/// `--since` and `--until`, both included, to the microsecond; and what cannot be meant is told.
pub fn bounds_are_exact(lab: &Lab) -> Result<()> {
    phase("logs: exact at the bounds, and clear about mistakes");
    let all = ["logs", "k8s-control-plane-1", "--unit", UNIT, "--grep", "^marker ", "-o", "json"];
    let read = |more: &[&str]| -> Result<Vec<(jiff::Timestamp, String)>> {
        let printed = k8sctl(lab, &[&all[..], more].concat())?;
        let line = |line: &str| -> Result<(jiff::Timestamp, String)> {
            let line: Value = serde_json::from_str(line)?;
            Ok((told::moment(&line["time"])?, line["text"].to_string()))
        };
        printed.lines().map(line).collect()
    };
    let micro = jiff::SignedDuration::from_micros(1);
    // The times of lines are corrected by what the node's clock is off, which may become another one in between.
    wait_until("both bounds are exact", 5 * MINUTE, || {
        let whole = read(&[])?;
        ensure!(whole.len() > ROUNDS, "{whole:?}");
        let bound = whole[whole.len() / 2].0;
        let since = [bound, bound + micro].map(|at| ("--since", at));
        let until = [bound, bound - micro].map(|at| ("--until", at));
        for (flag, at) in since.into_iter().chain(until) {
            let found = read(&[flag, &at.to_string()])?;
            let fits = |time: &jiff::Timestamp| if flag == "--since" { *time >= at } else { *time <= at };
            let expected: Vec<_> = whole.iter().filter(|(time, _)| fits(time)).cloned().collect();
            ensure!(found == expected, "{flag} {at}: {found:?}, expected {expected:?}");
        }
        Ok(true)
    })?;
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let mistakes: [(&[&str], &[&str]); 4] = [
        (&["--grep", "error(s"], &["NODE-LOGS-REQUEST", "at character 6"]),
        (&["k8s-worker-7"], &["NODE-UNKNOWN", "k8s-worker-1"]),
        (&["--unit", "nosuch"], &["NODE-UNIT-UNKNOWN", "nosuch.service"]),
        (&["--since", &later], &["NODE-LOGS-REQUEST", "is in the future"]),
    ];
    for (args, said) in mistakes {
        let refused = lab.try_run("k8sctl", &[&["logs"][..], args].concat(), 2 * MINUTE)?;
        ensure!(!refused.status.success(), "{args:?}: {refused:?}");
        let is_said = said.iter().all(|words| refused.err.contains(words));
        ensure!(is_said && refused.out.is_empty(), "{args:?}: {refused:?}");
    }
    Ok(())
}

/// Numbered lines of a node that is rebooted, and of one that is cut off from the host meanwhile.
pub fn nothing_is_lost_or_doubled(lab: &Lab, pace: Pace) -> Result<()> {
    phase("logs -f through a reboot of one node and a cut of another's link: numbered lines");
    let before = told::last_event(lab)?;
    // The journal may have those of another run of this phase.
    let tag = format!("numbered-{before}");
    let grep = format!("^{tag} ");
    let follow = ["logs", "-f", "--unit", UNIT, "--grep", &grep, "--timestamps=false"];
    let mut following = lab.spawn("k8sctl", &follow, &[])?;
    let mut shell = Shell::open(lab, REBOOTED)?;
    let mut far = Shell::open(lab, CUT_OFF.0)?;
    write_numbers(&mut far, &tag, 1, FEW)?;
    write_numbers(&mut shell, &tag, 1, BEFORE)?;
    wait_until("a part of them is shown", 10 * MINUTE, || {
        let seen = numbers(&following)?;
        let count = |node: &str| seen.get(node).map_or(0, Vec::len);
        Ok(count(REBOOTED) > 1000 && count(CUT_OFF.0) as u64 == FEW)
    })?;

    let boot = boot_id(&mut shell)?;
    shell.run("systemctl --no-block reboot")?;
    drop(shell);
    let cut = lab.cut_link(CUT_OFF.1)?;
    let began = Instant::now();
    write_numbers(&mut far, &tag, FEW + 1, 2 * FEW)?;
    wait_until("the host agent has missed the node that is cut off", 5 * MINUTE, || {
        told::has_told(lab, before, CUT_OFF.0, "NodeDisconnected", "")
    })?;
    wait_until("it is cut off for a while", 5 * MINUTE, || Ok(began.elapsed() >= CUT))?;
    cut.mend()?;
    let mended = Instant::now();
    wait_until("it is back", 10 * MINUTE, || {
        Ok(told::condition(&told::node(lab, CUT_OFF.0)?, "AgentReady") == Some("True"))
    })?;
    within("until a link that is back is used", mended.elapsed(), pace.allow(BACK))?;

    let mut shell = None;
    wait_until("the node has booted anew", 20 * MINUTE, || {
        let mut new = Shell::open(lab, REBOOTED)?;
        let is_new = boot_id(&mut new)? != boot;
        shell = is_new.then_some(new);
        Ok(is_new)
    })?;
    let is_told = told::has_told(lab, before, REBOOTED, "VMRebooted", "")?;
    ensure!(is_told, "no event tells that {REBOOTED} was rebooted");
    write_numbers(shell.as_mut().context("its shell")?, &tag, BEFORE + 1, LINES)?;
    let all = BTreeMap::from([(REBOOTED, LINES), (CUT_OFF.0, 2 * FEW)]);
    wait_until("all of them are shown", 20 * MINUTE, || {
        let seen = numbers(&following)?;
        let of = |node: &str| seen.get(node).map(Vec::as_slice).unwrap_or_default();
        let missing: Vec<_> = all.iter().filter(|(node, most)| !of(node).contains(*most)).collect();
        ensure!(missing.is_empty(), "of {missing:?} the last is not shown");
        Ok(true)
    })?;
    for (node, most) in all {
        let mut seen = numbers(&following)?.remove(node).unwrap_or_default();
        let turned = seen.windows(2).filter(|pair| pair[0] > pair[1]).count();
        seen.sort_unstable();
        let is_whole = seen.iter().copied().eq(1..=most);
        ensure!(is_whole, "{node}: {} lines, {}", seen.len(), first_wrong(&seen));
        ensure!(turned == 0, "{node}: {turned} lines stand before older ones");
    }
    let notices = following.read()?.1;
    for node in [REBOOTED, CUT_OFF.0] {
        ensure!(notices.contains(&format!("{node}: it is read again")), "{notices}");
    }
    ensure!(!following.has_ended()?, "it has ended: {notices}");
    following.kill()?;
    wait_until("all is well again", 20 * MINUTE, || told::is_well(lab))
}

/// What is wrong with numbers that should be all from 1 on.
fn first_wrong(sorted: &[u64]) -> String {
    let wrong = (1..).zip(sorted).find(|(expected, found)| expected != *found);
    wrong.map_or_else(|| "too few".to_owned(), |(expected, found)| format!("{found} instead of {expected}"))
}

/// One line in the journal, of the debug unit: by its own stream, since of a process that is gone before journald looks it
/// has no unit.
fn write(shell: &mut Shell, text: &str) -> Result<()> {
    shell.run(&format!("echo '{text}' >&4")).map(drop)
}

/// Numbered lines, which journald has when it returns. The shell's own answer is waited for a few minutes at most.
fn write_numbers(shell: &mut Shell, tag: &str, from: u64, to: u64) -> Result<()> {
    const AT_ONCE: u64 = 10_000;
    let mut next = from;
    while next <= to {
        let last = to.min(next + AT_ONCE - 1);
        shell.run(&format!("seq -f '{tag} %.0f' {next} {last} >&4"))?;
        next = last + 1;
    }
    let is_last = format!("journalctl -q -u {UNIT} -n 1 -o cat | grep -qx '{tag} {to}'");
    wait_until("journald has all of them", 10 * MINUTE, || Ok(shell.try_run(&is_last)?.0 == 0))
}

fn boot_id(shell: &mut Shell) -> Result<String> {
    Ok(shell.run("cat /proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Lines of JSON that are whole.
fn lines(following: &Running) -> Result<Vec<Value>> {
    let shown = following.read()?.0;
    Ok(shown.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The numbers that were shown, by node and in that order. The last line may not be whole yet.
fn numbers(following: &Running) -> Result<BTreeMap<String, Vec<u64>>> {
    let shown = following.read()?.0;
    let whole = shown.rfind('\n').map_or("", |end| &shown[..=end]);
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in whole.lines() {
        let (before, number) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        let node = before.split_whitespace().next().with_context(|| line.to_owned())?;
        seen.entry(node.to_owned()).or_default().push(number.parse().with_context(|| line.to_owned())?);
    }
    Ok(seen)
}
