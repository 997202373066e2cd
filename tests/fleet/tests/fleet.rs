//! A small fleet: fifty agents of one cluster against a host agent that is killed.

#![expect(clippy::disallowed_methods, reason = "tests start whole programs as root, and end them themselves")]

#[path = "../../integration/tests/integration/root.rs"]
mod root;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_tests::agents::Fleet;
use fleet_tests::cluster::Cluster;
use fleet_tests::control::Control;
use fleet_tests::host::{Host, Programs};
use fleet_tests::k8sctl;
use node_agent::config::Simulation;
use serde_json::Value;

const AGENTS: usize = 50;
/// What is promised of handshakes, a second.
const HANDSHAKES: usize = 50;
const DEADLINE: Duration = Duration::from_secs(180);

#[test]
fn fifty_agents_join_log_and_come_back_at_a_pace() -> Result<()> {
    if !root::is_root("fifty_agents_join_log_and_come_back_at_a_pace")? {
        return Ok(());
    }
    let programs = Programs {
        host_agent: env!("CARGO_BIN_EXE_fleet-host-agent").into(),
        k8sctl: env!("CARGO_BIN_EXE_fleet-k8sctl").into(),
    };
    let mut fleet = Fleet::new(AGENTS)?;
    let (mut host, control) = (Host::start(&programs)?, Control::new()?);
    let went = run(&mut host, &control, &mut fleet);
    went.with_context(|| format!("the end of the host agent's log:\n{}", host.log()))
}

fn run(host: &mut Host, control: &Control, fleet: &mut Fleet) -> Result<()> {
    let cluster = Cluster::new(0, AGENTS);
    control.apply(host, &cluster)?;
    let simulation =
        Simulation { change_every: Some(Duration::from_secs(5)), in_memory: true, ..Simulation::default() };
    fleet.start(host, &cluster.nodes(), &simulation)?;
    control.wait_ready(host, &cluster, DEADLINE)?;
    at_a_pace(fleet, 2 * AGENTS).context("each has joined, and opened a session")?;

    let status: Value = serde_json::from_str(&k8sctl::run(host, &["status", "-o", "json"])?)?;
    let nodes = status["nodes"].as_array().context("nodes")?;
    let ready = nodes.iter().filter(|node| node["phase"] == "Ready").count();
    ensure!((nodes.len(), ready) == (AGENTS, AGENTS), "{ready} of {} are Ready", nodes.len());

    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for line in k8sctl::run(host, &["logs", "--tail", "2", "-o", "json"])?.lines() {
        let line: Value = serde_json::from_str(line)?;
        *lines.entry(line["node"].as_str().context("a node")?.to_owned()).or_default() += 1;
    }
    // A line may have been written since each stream began.
    let has_all = lines.len() == AGENTS && lines.values().all(|count| *count >= 2);
    ensure!(has_all, "{lines:?}");

    fleet.tally().reset();
    host.restart()?;
    control.wait_connected(host, std::slice::from_ref(&cluster), DEADLINE)?;
    at_a_pace(fleet, AGENTS).context("each has opened a session again")
}

fn at_a_pace(fleet: &Fleet, least: usize) -> Result<()> {
    let (count, most) = (fleet.tally().count(), fleet.tally().most_a_second());
    ensure!(count >= least, "{count} handshakes, at least {least} were needed");
    ensure!(most <= HANDSHAKES, "{most} handshakes within a second");
    Ok(())
}
