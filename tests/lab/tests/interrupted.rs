//! An `up` that is interrupted ends as one that is not: the host agent dies at each kind of side effect, once before
//! and once after it; the next one finishes, and nothing is there twice.
//!
//! The same for what takes a node or a whole cluster away.
//!
//! On libvirt's test driver with real node agents whose steps are simulated, so that the whole matrix takes a minute.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab_tests::simulated::SimulatedHost;
use lab_tests::{Lab, phase};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);

/// Each point is passed at least once on the way up. Those around what is written into Kubernetes need one, and are
/// passed by the test of `cluster`.
const POINTS: [&str; 16] = [
    "after-begin-up",
    "before-define-network",
    "after-define-network",
    "before-start-network",
    "after-start-network",
    "before-define-pool",
    "after-define-pool",
    "before-start-pool",
    "after-start-pool",
    "before-create-volume",
    "after-create-volume",
    "before-define-domain",
    "after-define-domain",
    "before-start-domain",
    "after-start-domain",
    "after-install-file",
];

/// Likewise, while a node gets its certificate.
const JOIN_POINTS: [&str; 3] = ["after-burn-token", "after-sign-certificate", "after-store-certificate"];

/// On the way of a worker out of its cluster.
const REMOVAL_POINTS: [&str; 6] = [
    "after-begin-up",
    "before-power-off-domain",
    "before-delete-domain",
    "after-delete-domain",
    "after-delete-volume",
    "before-forget-node",
];

/// On the way of a cluster off the host.
const DOWN_POINTS: [&str; 8] = [
    "after-begin-down",
    "after-delete-domain",
    "before-delete-volume",
    "after-remove-file",
    "after-delete-pool",
    "before-delete-network",
    "before-forget-cluster",
    "after-forget-cluster",
];

fn wait_for_end(host: &mut SimulatedHost, agent: &mut lab_tests::Running) -> Result<()> {
    host.run_until("the host agent dies at its point", 2 * MINUTE, |_| agent.has_ended())
}

fn wait_ready(host: &mut SimulatedHost, nodes: usize) -> Result<()> {
    host.run_until("all nodes are Ready", 3 * MINUTE, |host| {
        let status: Value = serde_json::from_str(&host.k8sctl(&["status", "-o", "json"])?)?;
        let found = status["nodes"].as_array().context("nodes")?;
        let running = status["operation_id"].as_str().is_some_and(|id| !id.is_empty());
        Ok(found.len() == nodes && found.iter().all(|node| node["phase"] == "Ready") && !running)
    })
}

/// Neither a VM, nor a volume, nor a certificate. Nodes in Kubernetes are counted on real VMs (`cluster`).
fn nothing_is_there_twice(host: &SimulatedHost, point: &str) -> Result<()> {
    ensure!(host.domains()? == ["sim-control", "sim-worker-1", "sim-worker-2"], "{:?}", host.domains()?);
    let volumes = host.virsh(&["vol-list", "k8s-myhome"])?;
    for node in ["sim-control", "sim-worker-1", "sim-worker-2"] {
        let count = volumes.lines().filter(|line| line.contains(&format!("{node}.qcow2 "))).count();
        ensure!(count == 1, "{node} has {count} volumes:\n{volumes}");
    }
    let events = host.k8sctl(&["events", "-o", "json"])?;
    let mut refused = events.lines().filter(|line| line.contains("JoinRefused"));
    // A restart voids the secrets on their way; who uses one all the same is told so, and gets another.
    let is_voided = |line: &str| JOIN_POINTS.contains(&point) && line.contains("a current join secret");
    ensure!(refused.all(is_voided), "an honest node was refused:\n{events}");
    for node in ["sim-control", "sim-worker-1", "sim-worker-2"] {
        // Its agent lives through all of it, so it needs one certificate.
        let of = |line: &&str| line.contains("NodeJoined") && line.contains(&format!("node {node}\""));
        let joins = events.lines().filter(of).count();
        ensure!(joins == 1, "{node} got {joins} certificates:\n{events}");
    }
    // A certificate that was signed and told nobody would be a second one that opens the door: each node has the one
    // that it uses, and no other is good.
    let store = rusqlite::Connection::open(host.file("state/k8s-myhome.db"))?;
    let count = |rows: &str| -> Result<i64> {
        Ok(store.query_row(&format!("SELECT count(*) FROM node_serial{rows}"), [], |row| row.get(0))?)
    };
    let (all, used) = (count("")?, count(" WHERE current IS NOT NULL AND next IS NULL")?);
    ensure!((all, used) == (3, 3), "of {all} nodes with certificates, {used} have one");
    Ok(())
}

#[test]
fn an_interrupted_up_is_finished_by_the_next_host_agent() -> Result<()> {
    let lab = Lab::here()?;
    let spec = lab.repo("tests/lab/simulated.toml").to_string_lossy().into_owned();
    for point in POINTS.into_iter().chain(JOIN_POINTS) {
        phase(&format!("killed at {point}"));
        let mut host = SimulatedHost::new(&lab, &format!("interrupted-{point}"))?;
        let mut agent = host.host_agent(Some(point))?;
        // Ends with an error where the host agent dies before it could answer.
        let _ = host.try_k8sctl(&["up", "-f", &spec, "--yes", "--no-wait"])?;
        wait_for_end(&mut host, &mut agent)?;
        let agent = host.host_agent(None)?;
        wait_ready(&mut host, 3).with_context(|| format!("killed at {point}"))?;
        nothing_is_there_twice(&host, point).with_context(|| format!("killed at {point}"))?;
        host.k8sctl(&["down", "--yes"])?;
        ensure!(host.domains()?.is_empty(), "killed at {point}, down left {:?}", host.domains()?);
        drop(agent);
    }
    Ok(())
}

#[test]
fn a_killed_node_agent_goes_on() -> Result<()> {
    let lab = Lab::here()?;
    let spec = lab.repo("tests/lab/simulated.toml").to_string_lossy().into_owned();
    let mut host = SimulatedHost::new(&lab, "killed-node-agent")?;
    let _agent = host.host_agent(None)?;
    host.k8sctl(&["up", "-f", &spec, "--yes", "--no-wait"])?;
    host.run_until("the worker's agent is connected", MINUTE, |host| {
        Ok(host.k8sctl(&["events", "-o", "json"])?.contains("NodeConnected"))
    })?;
    host.kill_node_agent("sim-control")?;
    wait_ready(&mut host, 3)?;
    host.k8sctl(&["down", "--yes"])?;
    Ok(())
}

#[test]
fn two_clusters_live_side_by_side() -> Result<()> {
    let lab = Lab::here()?;
    let first = lab.repo("tests/lab/simulated.toml").to_string_lossy().into_owned();
    let second = lab.repo("tests/lab/simulated-second.toml").to_string_lossy().into_owned();
    let mut host = SimulatedHost::new(&lab, "side-by-side")?;
    let _agent = host.host_agent(None)?;
    for spec in [&first, &second] {
        host.k8sctl(&["up", "-f", spec, "--yes", "--no-wait"])?;
    }
    host.run_until("both clusters are Ready", 3 * MINUTE, |host| {
        let first = host.k8sctl(&["plan", "-f", &first])?.to_lowercase();
        let second = host.k8sctl(&["plan", "-f", &second])?.to_lowercase();
        Ok(first.contains("no changes") && second.contains("no changes"))
    })?;
    let before = host.domains()?;
    host.k8sctl(&["down", "sim", "--yes"])?;
    let left: Vec<_> = before.iter().filter(|name| !name.starts_with("sim-")).cloned().collect();
    ensure!(host.domains()? == left && !left.is_empty(), "left: {:?} of {before:?}", host.domains()?);
    Ok(())
}

/// The spec of the same cluster without its second worker.
fn smaller_spec(lab: &Lab, host: &SimulatedHost) -> Result<String> {
    let whole = std::fs::read_to_string(lab.repo("tests/lab/simulated.toml"))?;
    let (kept, _) = whole.rsplit_once("[[node]]").context("simulated.toml has nodes")?;
    let path = host.file("smaller.toml");
    std::fs::write(&path, kept)?;
    Ok(path.to_string_lossy().into_owned())
}

/// The worker's agent never came up, so nothing answers for it on its way out either.
#[test]
fn a_worker_that_leaves_goes_whatever_is_killed_meanwhile() -> Result<()> {
    let lab = Lab::here()?;
    let whole = lab.repo("tests/lab/simulated.toml").to_string_lossy().into_owned();
    let mut host = SimulatedHost::new(&lab, "leaving")?;
    let smaller = smaller_spec(&lab, &host)?;
    host.silence("sim-worker-2", true);
    for point in REMOVAL_POINTS {
        phase(&format!("killed at {point}"));
        let agent = host.host_agent(None)?;
        host.k8sctl(&["up", "-f", &whole, "--yes", "--no-wait"])?;
        host.run_until("the VMs are there", MINUTE, |host| {
            Ok(host.virsh(&["list", "--name"])?.contains("sim-worker-2"))
        })?;
        drop(agent);
        let mut agent = host.host_agent(Some(point))?;
        let _ = host.try_k8sctl(&["up", "-f", &smaller, "--yes", "--no-wait"])?;
        wait_for_end(&mut host, &mut agent)?;
        let agent = host.host_agent(None)?;
        wait_ready(&mut host, 2).with_context(|| format!("killed at {point}"))?;
        ensure!(host.domains()? == ["sim-control", "sim-worker-1"], "{point}: {:?}", host.domains()?);
        let volumes = host.virsh(&["vol-list", "k8s-myhome"])?;
        ensure!(!volumes.contains("sim-worker-2"), "{point}:\n{volumes}");
        drop(agent);
    }
    Ok(())
}

/// A pool that somebody stopped is no reason to leave half of a cluster behind.
#[test]
fn an_interrupted_down_leaves_nothing() -> Result<()> {
    let lab = Lab::here()?;
    let spec = lab.repo("tests/lab/simulated.toml").to_string_lossy().into_owned();
    for point in DOWN_POINTS {
        phase(&format!("killed at {point}"));
        let mut host = SimulatedHost::new(&lab, &format!("down-{point}"))?;
        let agent = host.host_agent(None)?;
        host.k8sctl(&["up", "-f", &spec, "--yes", "--no-wait"])?;
        host.run_until("the VMs are there", MINUTE, |host| Ok(host.domains()?.len() == 3))?;
        drop(agent);
        let mut agent = host.host_agent(Some(point))?;
        // The test driver's volumes are no files, so nobody sees them in a pool that is stopped.
        if !point.contains("volume") {
            host.virsh(&["pool-destroy", "k8s-myhome"])?;
        }
        let _ = host.try_k8sctl(&["down", "--yes", "--no-wait"])?;
        wait_for_end(&mut host, &mut agent)?;
        let _agent = host.host_agent(None)?;
        host.run_until("the cluster is gone", 2 * MINUTE, |host| {
            Ok(host.try_k8sctl(&["status"])?.err.contains("CLUSTER-NONE"))
        })?;
        let left = [
            host.virsh(&["list", "--all", "--name"])?,
            host.virsh(&["net-list", "--all", "--name"])?,
            host.virsh(&["pool-list", "--all", "--name"])?,
        ];
        let ours = |name: &str| name.starts_with("sim") || name == "k8s-myhome";
        ensure!(!left.iter().flat_map(|list| list.split_whitespace()).any(ours), "{point}: {left:?}");
    }
    Ok(())
}
