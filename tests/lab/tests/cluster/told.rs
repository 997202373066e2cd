//! What the cluster tells of itself, as tests ask for it: events since a moment, a node, whether all is well; and what an
//! agent's own journal says of when it noticed something.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab_tests::Lab;
use lab_tests::vm::Shell;
use serde_json::Value;

use super::{MINUTE, k8sctl};

/// The number of the newest event.
pub fn last_event(lab: &Lab) -> Result<u64> {
    let newest = parsed(&k8sctl(lab, &["events", "--tail", "1", "-o", "json"])?)?;
    newest.last().and_then(number).context("events")
}

/// All events behind that one.
pub fn events_since(lab: &Lab, number: u64) -> Result<Vec<Value>> {
    parsed(&k8sctl(lab, &["events", "--from", &(number + 1).to_string(), "-o", "json"])?)
}

/// The numbers of all events behind that one follow each other.
pub fn has_no_gap(lab: &Lab, after: u64) -> Result<()> {
    let numbers: Vec<u64> = events_since(lab, after)?.iter().filter_map(number).collect();
    let expected = (after + 1..).take(numbers.len());
    ensure!(numbers.iter().copied().eq(expected), "events are missing behind {after}: {numbers:?}");
    Ok(())
}

fn parsed(printed: &str) -> Result<Vec<Value>> {
    printed.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn number(event: &Value) -> Option<u64> {
    event["number"].as_u64()
}

/// The number of the last of these events of a type that is of the node, or its VM, and begins so.
pub fn last_of(events: &[Value], node: &str, kind: &str, begins: &str) -> Option<u64> {
    let is_of = |event: &Value| {
        let object = event["object"].as_str().unwrap_or_default();
        object.split_once(' ').is_some_and(|(_, name)| name == node)
    };
    let is_it = |event: &&Value| {
        event["type"] == kind
            && is_of(event)
            && event["message"].as_str().is_some_and(|message| message.starts_with(begins))
    };
    events.iter().rev().find(is_it).and_then(number)
}

/// Whether such an event has come behind that one.
pub fn has_told(lab: &Lab, after: u64, node: &str, kind: &str, begins: &str) -> Result<bool> {
    Ok(last_of(&events_since(lab, after)?, node, kind, begins).is_some())
}

/// Whether the host agent has told of the host itself behind such an event.
pub fn has_told_of_host(lab: &Lab, after: u64, kind: &str) -> Result<bool> {
    let events = events_since(lab, after)?;
    Ok(events.iter().any(|event| event["object"] == "host" && event["type"] == kind))
}

/// What `status` has of a node.
pub fn node(lab: &Lab, name: &str) -> Result<Value> {
    let status = lab.json("k8sctl", &["status", "-o", "json"])?;
    let nodes = status["nodes"].as_array().context("nodes")?;
    nodes.iter().find(|node| node["name"] == name).cloned().with_context(|| format!("node {name}"))
}

/// The status of a condition of such a node.
pub fn condition<'a>(node: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = node["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

/// Since when it has that status.
pub fn condition_since(node: &Value, kind: &str) -> Result<jiff::Timestamp> {
    let conditions = node["conditions"].as_array().context("conditions")?;
    let condition = conditions.iter().find(|condition| condition["type"] == kind);
    moment(&condition.with_context(|| kind.to_owned())?["since"])
}

/// The times of an object's repairs that worked, oldest first.
pub fn repaired(node: &Value, object: &str) -> Result<Vec<jiff::Timestamp>> {
    let repairs = node["repairs"].as_array().context("repairs")?;
    let worked = repairs.iter().filter(|it| it["object"] == object && it["outcome"] == "repaired");
    worked.map(|it| moment(&it["time"])).collect()
}

/// A time of JSON.
pub fn moment(value: &Value) -> Result<jiff::Timestamp> {
    Ok(value.as_str().with_context(|| format!("a time, not {value}"))?.parse()?)
}

/// Whether all conditions of the cluster and its nodes are good.
pub fn is_well(lab: &Lab) -> Result<bool> {
    let health = lab.try_run("k8sctl", &["health"], 2 * MINUTE)?;
    ensure!(health.status.success(), "{}{}", health.out, health.err);
    Ok(true)
}

/// Whether a node whose VM was started since that moment is well.
pub fn is_back(lab: &Lab, name: &str, since: jiff::Timestamp) -> Result<bool> {
    let node = node(lab, name)?;
    let joined = moment(&node["joined"])?;
    ensure!(joined >= since, "{name} has joined at {joined}, before {since}");
    ensure!(condition(&node, "NodeReady").is_some() && condition(&node, "KubeletReady").is_some(), "{node}");
    let conditions = node["conditions"].as_array().context("conditions")?;
    let bad: Vec<&Value> = conditions.iter().filter(|condition| condition["status"] != "True").collect();
    ensure!(bad.is_empty(), "{name}: {bad:?}");
    Ok(true)
}

/// When the agent of this boot has judged a condition, and as what, by the clock that runs since boot. journald stamps a
/// line when it comes there, so that each was at most so late.
pub fn judgements(shell: &mut Shell, kind: &str) -> Result<Vec<(Duration, bool)>> {
    let read = "journalctl -b -u k8s-node-agent -o short-monotonic --no-pager --quiet";
    let (_, lines) = shell.try_run(&format!("{read} | grep -F 'condition=\"{kind}\"'"))?;
    lines.lines().filter(|line| line.contains("CONDITION_STATUS_")).map(judgement).collect()
}

/// `[   12.345678] NODE k8s-node-agent[1]: … condition.status="CONDITION_STATUS_TRUE" …`
fn judgement(line: &str) -> Result<(Duration, bool)> {
    let (stamp, _) = line.trim_start_matches('[').split_once(']').with_context(|| line.to_owned())?;
    let seconds: f64 = stamp.trim().parse().with_context(|| line.to_owned())?;
    Ok((Duration::from_secs_f64(seconds), line.contains("CONDITION_STATUS_TRUE")))
}

/// How long after that moment it was judged so for the first time.
pub fn judged_after(judgements: &[(Duration, bool)], moment: Duration, good: bool) -> Result<Duration> {
    let first = judgements.iter().find(|(at, is_good)| *at >= moment && *is_good == good);
    let (at, _) = first.with_context(|| format!("not judged {good} behind {moment:?}: {judgements:?}"))?;
    Ok(*at - moment)
}

/// The clock of a VM that runs since its boot.
pub fn uptime(shell: &mut Shell) -> Result<Duration> {
    let text = shell.run("cut -d ' ' -f 1 /proc/uptime")?;
    Ok(Duration::from_secs_f64(text.trim().parse()?))
}
