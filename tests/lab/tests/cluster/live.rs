//! What changes inside of a VM is seen outside by itself: in a status that is watched, in the events, in a log that is
//! followed.

use anyhow::{Context as _, Result, ensure};
use lab_tests::vm::Shell;
use lab_tests::{Lab, Running, phase, wait_until};
use serde_json::Value;

use super::{MINUTE, NODES, k8sctl, nodes_are_ready};

const NODE: &str = "k8s-worker-2";
/// What containerd writes when it is up.
const BOOTED: &str = "containerd successfully booted";

/// containerd stops on a worker, and is started again; its agent may be quicker with that.
pub fn conditions_and_logs_are_live(lab: &Lab) -> Result<()> {
    phase("containerd stops on a worker, and everybody hears of it");
    let before = last_event(lab)?;
    let mut watching = lab.spawn("k8sctl", &["status", "-w", "-o", "json"], &[])?;
    let follow = ["logs", NODE, "--source", "containerd", "--tail", "1", "-f"];
    let mut following = lab.spawn("k8sctl", &follow, &[])?;
    let booted = |following: &Running| -> Result<usize> { Ok(following.read()?.0.matches(BOOTED).count()) };
    wait_until("its log and the status are followed", 2 * MINUTE, || {
        Ok(!following.read()?.0.is_empty() && containerd(&watching)?.last().is_some_and(|it| it == "True"))
    })?;
    let booted_before = booted(&following)?;

    let mut shell = Shell::open(lab, NODE)?;
    shell.run("systemctl stop containerd")?;
    wait_until("the status that is watched has ContainerdReady=False", 2 * MINUTE, || {
        Ok(containerd(&watching)?.iter().any(|status| status == "False"))
    })?;
    let told = |status: &str| told(lab, before, "ContainerdReady", status);
    wait_until("the events have ContainerdReady=False", 2 * MINUTE, || Ok(told("False")?.is_some()))?;

    shell.run("systemctl start containerd")?;
    wait_until("the status that is watched has ContainerdReady=True again", 5 * MINUTE, || {
        Ok(containerd(&watching)?.last().is_some_and(|status| status == "True"))
    })?;
    wait_until("the events have ContainerdReady=True, last", 2 * MINUTE, || {
        Ok(told("True")? > told("False")?)
    })?;
    wait_until("the log that is followed goes on", 2 * MINUTE, || Ok(booted(&following)? > booted_before))?;
    for (command, what) in [(&mut watching, "status -w"), (&mut following, "logs -f")] {
        ensure!(!command.has_ended()?, "{what} has ended: {:?}", command.read()?);
        command.kill()?;
    }
    // Kubernetes may have missed its runtime for a moment.
    wait_until("all nodes are Ready again", 10 * MINUTE, || {
        nodes_are_ready(lab, &NODES.map(|node| node.0)).map(|()| true)
    })
}

/// A cluster that is well is told as such, and of a node its own things only.
pub fn it_is_well(lab: &Lab) -> Result<()> {
    phase("health, a node, its events");
    let health = k8sctl(lab, &["health", "--wait", "--timeout", "10m"])?;
    ensure!(health.contains("3 of 3 nodes Ready"), "{health}");
    let described = lab.json("k8sctl", &["node", "describe", NODE, "-o", "json"])?;
    ensure!(described["node"]["phase"] == "Ready", "{described}");
    ensure!(described["events"].as_array().is_some_and(|events| events.len() == 10), "{described}");
    let started = ["events", "--node", NODE, "--type", "VMStarted,VolumeCreated", "-o", "json"];
    let started = k8sctl(lab, &started)?;
    let has = |text: &str| started.contains(text);
    ensure!(has("\"domain k8s-worker-2\"") && has("-k8s-worker-2.qcow2"), "{started}");
    ensure!(!has("k8s-worker-1") && !has("NodeJoined"), "{started}");
    let unknown = lab.try_run("k8sctl", &["events", "--node", "k8s-worker-7"], MINUTE)?;
    ensure!(!unknown.status.success() && unknown.err.contains("NODE-UNKNOWN"), "{unknown:?}");
    Ok(())
}

fn last_event(lab: &Lab) -> Result<u64> {
    events(lab)?.last().and_then(|event| event["number"].as_u64()).context("events")
}

/// The number of the last event after that one which says so of a condition of the node.
fn told(lab: &Lab, before: u64, kind: &str, status: &str) -> Result<Option<u64>> {
    let message = format!("{kind}={status} ");
    let is_it = |event: &&Value| {
        event["number"].as_u64() > Some(before)
            && event["object"].as_str().is_some_and(|object| object == format!("node {NODE}"))
            && event["message"].as_str().is_some_and(|text| text.starts_with(&message))
    };
    Ok(events(lab)?.iter().rev().find(is_it).and_then(|event| event["number"].as_u64()))
}

fn events(lab: &Lab) -> Result<Vec<Value>> {
    let printed = k8sctl(lab, &["events", "-o", "json"])?;
    printed.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// What each status that was shown says of the node's containerd.
fn containerd(watching: &Running) -> Result<Vec<String>> {
    let shown = watching.read()?.0;
    // The last line may not be whole yet.
    let documents = shown.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(documents.filter_map(|document| condition(&document, "ContainerdReady")).collect())
}

/// The status of a condition of the node.
fn condition(status: &Value, kind: &str) -> Option<String> {
    let node = status["nodes"].as_array()?.iter().find(|node| node["name"] == NODE)?;
    let conditions = node["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str().map(str::to_owned)
}
