//! What changes inside of a VM is seen outside by itself: in a status that is watched, in the events, in a log that is
//! followed. What stopped is started again by its agent.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab_tests::pace::{Pace, within};
use lab_tests::vm::Shell;
use lab_tests::{Lab, Running, phase, wait_until};
use serde_json::Value;

use super::{MINUTE, NODES, k8sctl, nodes_are_ready, told};

const NODE: &str = "k8s-worker-2";
/// What containerd writes when it is up.
const BOOTED: &str = "containerd successfully booted";
/// As promised: systemd's signal becomes a condition, and containerd runs again.
const NOTICED: Duration = Duration::from_secs(3);
const HEALED: Duration = Duration::from_secs(15);

/// containerd stops on a worker.
pub fn conditions_and_logs_are_live(lab: &Lab, pace: Pace) -> Result<()> {
    phase("containerd stops on a worker: everybody hears of it, and its agent starts it again");
    let before = told::last_event(lab)?;
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
    wait_until("the status that is watched has ContainerdReady=True again", 5 * MINUTE, || {
        Ok(containerd(&watching)?.last().is_some_and(|status| status == "True"))
    })?;
    wait_until("the events have ContainerdReady=False, then True, and the repair", 2 * MINUTE, || {
        let events = told::events_since(lab, before)?;
        let last = |status: &str| {
            let begins = format!("ContainerdReady={status} ");
            told::last_of(&events, NODE, "ConditionChanged", &begins)
        };
        let repaired = told::last_of(&events, NODE, "RepairSucceeded", "containerd: ");
        Ok(last("False").is_some() && last("True") > last("False") && repaired.is_some())
    })?;
    wait_until("the log that is followed goes on", 2 * MINUTE, || Ok(booted(&following)? > booted_before))?;
    for (command, what) in [(&mut watching, "status -w"), (&mut following, "logs -f")] {
        ensure!(!command.has_ended()?, "{what} has ended: {:?}", command.read()?);
        command.kill()?;
    }

    let left = shell.number("systemctl show -p ActiveExitTimestampMonotonic --value containerd")?;
    let left = Duration::from_micros(left);
    let judged = told::judgements(&mut shell, "ContainerdReady")?;
    let noticed = told::judged_after(&judged, left, false)?;
    within("from systemd's signal to the condition", noticed, NOTICED)?;
    let healed = told::judged_after(&judged, left + noticed, true)? + noticed;
    within("until containerd runs and answers again", healed, pace.allow(HEALED))?;
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

/// What each status that was shown says of the node's containerd.
fn containerd(watching: &Running) -> Result<Vec<String>> {
    let shown = watching.read()?.0;
    // The last line may not be whole yet.
    let documents = shown.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_node = |document: Value| -> Option<String> {
        let node = document["nodes"].as_array()?.iter().find(|node| node["name"] == NODE)?;
        told::condition(node, "ContainerdReady").map(str::to_owned)
    };
    Ok(documents.filter_map(of_node).collect())
}
