//! The agents of running nodes are replaced: by one that works, by one that never has a session, and by such a one while
//! the power is lost. And the support bundle of a cluster that lives.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use lab_tests::vm::Shell;
use lab_tests::{Lab, phase, wait_until};
use serde_json::Value;

use super::{MINUTE, NODES, k8sctl, nodes_are_ready};

const PROGRAM: &str = "/usr/lib/k8s-myhome/k8s-node-agent";
/// It says its version, and never dials.
const DEAF: &str = "#!/bin/sh\n[ \"$1\" = --version ] && echo deaf && exit 0\nexec sleep 1000000\n";

/// What is in `name` of the lab's directory from now on; whoever reads it sees the old or the new one.
fn put(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(&new, path)?)
}

/// The last word on each node, in the order in which they came.
fn last_words(out: &str) -> Result<Vec<Value>> {
    let mut words: Vec<Value> = Vec::new();
    for line in out.lines() {
        let word: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        words.retain(|known| known["node"] != word["node"]);
        words.push(word);
    }
    Ok(words)
}

fn program_of(lab: &Lab, node: &str) -> Result<String> {
    let sum = Shell::open(lab, node)?.run(&format!("sha256sum {PROGRAM}"))?;
    Ok(sum.split_whitespace().next().unwrap_or_default().to_owned())
}

pub fn agents_are_replaced_and_bad_ones_go_back(lab: &Lab) -> Result<()> {
    let path = lab.file("k8s-node-agent");
    let ours = fs::read(&path)?;
    let link = fs::read_link(&path)?;
    let ended = replace(lab, &path, &ours);
    // The image and the nodes to come are of the one before.
    fs::remove_file(&path)?;
    std::os::unix::fs::symlink(link, &path)?;
    ended
}

fn replace(lab: &Lab, path: &Path, ours: &[u8]) -> Result<()> {
    phase("agents: replaced by one that works");
    // Another file that is the same program: nobody reads behind its end.
    put(path, &[ours, b"\n"].concat())?;
    let words = last_words(&k8sctl(lab, &["upgrade", "agents", "-o", "json"])?)?;
    let nodes: Vec<_> = words.iter().filter_map(|word| word["node"].as_str()).collect();
    ensure!(nodes == [NODES[1].0, NODES[2].0, NODES[0].0], "workers first: {words:#?}");
    ensure!(words.iter().all(|word| word["state"] == "done"), "{words:#?}");
    let sum = program_of(lab, NODES[1].0)?;
    for (node, ..) in NODES {
        ensure!(program_of(lab, node)? == sum, "{node} runs another one");
    }
    let again = last_words(&k8sctl(lab, &["upgrade", "agents", "-o", "json"])?)?;
    let is_left = |word: &Value| word["message"].as_str().is_some_and(|it| it.contains("already"));
    ensure!(again.iter().all(is_left), "{again:#?}");
    nodes_are_ready(lab, &NODES.map(|node| node.0))?;

    phase("agents: one without a session goes back");
    put(path, DEAF.as_bytes())?;
    let upgrade = ["upgrade", "agents", "--session-deadline", "30s", "-o", "json"];
    let printed = lab.try_run("k8sctl", &upgrade, 20 * MINUTE)?;
    let words = last_words(&printed.out)?;
    ensure!(!printed.status.success(), "it failed: {words:#?}");
    ensure!(words[0]["failure"]["id"] == "NODE-AGENT-ROLLED-BACK", "{words:#?}");
    ensure!(words[1]["state"] == "skipped" && words[2]["state"] == "skipped", "{words:#?}");
    ensure!(program_of(lab, NODES[1].0)? == sum, "the one before is back");

    phase("agents: the power is lost during a trial");
    let (node, ..) = NODES[2];
    let args = ["upgrade", "agents", node, "--session-deadline", "60s", "-o", "json"];
    let mut running = lab.spawn("k8sctl", &args, &[])?;
    wait_until("the new agent is on trial", 10 * MINUTE, || Ok(running.read()?.0.contains("on trial")))?;
    lab.run("virsh", &["destroy", node], MINUTE)?;
    let status = running.wait(30 * MINUTE)?;
    let words = last_words(&running.read()?.0)?;
    ensure!(!status.success() && words[0]["failure"]["id"] == "NODE-AGENT-ROLLED-BACK", "{words:#?}");
    ensure!(program_of(lab, node)? == sum, "the one before is back");
    let left = Shell::open(lab, node)?.run("ls /var/lib/k8s-myhome/agent")?;
    ensure!(!left.contains("trial.json"), "the trial is over: {left}");
    wait_until("all nodes are Ready again", 10 * MINUTE, || {
        nodes_are_ready(lab, &NODES.map(|node| node.0)).map(|()| true)
    })
}

/// A bundle while one node's agent is away.
pub fn a_bundle_tells_of_all_of_it(lab: &Lab) -> Result<()> {
    phase("support bundle, while a node's agent is away");
    let path = lab.file("support.tar.zst").to_string_lossy().into_owned();
    let mut shell = Shell::open(lab, NODES[2].0)?;
    shell.run("systemctl stop k8s-node-agent")?;
    // On a slow machine each part may take as long as it is given.
    let args = ["support-bundle", "--deadline", "5m", "-f", &path, "-o", "json"];
    let made = lab.run("k8sctl", &args, 7 * MINUTE);
    shell.run("systemctl start k8s-node-agent")?;
    let made: Value = serde_json::from_str(&made?)?;
    let parts = made["parts"].as_array().context("parts")?;
    let is_there = |path: &str| {
        parts
            .iter()
            .any(|part| part["path"] == path && part["size_bytes"].as_u64().is_some_and(|size| size > 0))
    };
    for part in [
        "host/doctor.json",
        "host/operations.json",
        "events.jsonl",
        "libvirt/domain-k8s-worker-1.xml",
        "clusters/home/spec.json",
        "clusters/home/kubernetes/pods.json",
        "clusters/home/nodes/k8s-worker-1/agent.log",
        "clusters/home/nodes/k8s-control-plane-1/services.log",
    ] {
        ensure!(is_there(part), "{part}: {parts:#?}");
    }
    fs::remove_file(&path)?;
    wait_until("all nodes are Ready again", 10 * MINUTE, || {
        nodes_are_ready(lab, &NODES.map(|node| node.0)).map(|()| true)
    })
}
