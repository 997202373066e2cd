//! Malformed traffic on every socket of a host agent, one after the other, beside a fleet that is well: no crash, nobody
//! is cut off, answers stay prompt, and memory stays where it is. `FUZZ_SECONDS` is how long each is sent to, `FUZZ_SEED`
//! what comes.

#![expect(clippy::disallowed_methods, reason = "tests start whole programs as root, and end them themselves")]

#[path = "../../integration/tests/integration/root.rs"]
mod root;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fleet_tests::agents::Fleet;
use fleet_tests::cluster::Cluster;
use fleet_tests::control::{Control, machine_uuids};
use fleet_tests::host::{Host, Programs, Setup};
use fleet_tests::malformed::attack;
use fleet_tests::malformed::pulse::Pulse;
use fleet_tests::malformed::targets::{self, READER_GROUP};
use fleet_tests::malformed::verdict::{Usual, judge_memory};
use fleet_tests::{process, wait_for};
use node_agent::config::{SimulatedLog, Simulation};

/// Agents that are well, and stay so.
const AGENTS: usize = 8;
/// Between two lines of each.
const LINES_APART: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(180);
/// How long all goes on without malformed traffic before that is measured, and how long it is measured.
const WARM: Duration = Duration::from_secs(4);
const USUAL: Duration = Duration::from_secs(8);
/// How long each socket is sent to, unless `FUZZ_SECONDS` says otherwise: all of them take most of a minute.
const SECONDS: u64 = 4;
const SEED: u64 = 1;
/// How long the host agent may take to be rid of the connections. Those without certificate may stay for a minute, had
/// their ends not been seen.
const RID: Duration = Duration::from_secs(30);
/// Files that it may have open then, besides those before: of connections that are well and come and go.
const FILES: usize = 16;

#[test]
fn malformed_traffic_harms_nobody() -> Result<()> {
    if !root::is_root("malformed_traffic_harms_nobody")? {
        return Ok(());
    }
    let programs = Programs {
        host_agent: env!("CARGO_BIN_EXE_fleet-host-agent").into(),
        k8sctl: env!("CARGO_BIN_EXE_fleet-k8sctl").into(),
    };
    let setup = Setup {
        // No agent to give to nodes: none of them is to be replaced.
        config: &format!(
            "reader_group = {READER_GROUP:?}\nmetrics_listen = \"127.0.0.1:0\"\nnode_agent = \"/there/is/none\"\n"
        ),
        log_filter: "warn,host_agent::metrics=info",
    };
    let mut host = Host::start_with(&programs, &setup)?;
    let went = run(&mut host);
    went.with_context(|| format!("the end of the host agent's log:\n{}", host.log()))
}

fn run(host: &mut Host) -> Result<()> {
    let (seed, length) =
        (setting("FUZZ_SEED", SEED)?, Duration::from_secs(setting("FUZZ_SECONDS", SECONDS)?));
    println!("malformed: FUZZ_SEED={seed} FUZZ_SECONDS={}", length.as_secs());
    let (control, cluster) = (Control::new()?, Cluster::new(0, AGENTS + 1));
    let nodes = cluster.nodes();
    let (misused, well) = nodes.split_last().context("nodes")?;
    let logs = SimulatedLog { before: 10, pause: LINES_APART, bytes: 0 };
    let simulation = Simulation { logs, in_memory: true, ..Simulation::default() };
    control.apply(host, &cluster)?;
    let mut fleet = Fleet::new(AGENTS)?;
    fleet.start(host, well, &simulation)?;
    let identity = {
        let mut other = Fleet::new(1)?;
        other.start(host, std::slice::from_ref(misused), &simulation)?;
        control.wait_ready(host, &cluster, DEADLINE)?;
        // Its agent ends here.
        other.identity(misused)?
    };
    let uuids = machine_uuids(host)?;
    let targets = targets::all(host, &identity, misused, uuids.get(misused).context("its UUID")?)?;

    let pulse = Pulse::of(host, &cluster, well)?;
    pulse.during(WARM)?;
    let usual = Usual::of(&pulse.during(USUAL)?, USUAL.as_secs_f64());
    println!("malformed: usually {usual:?}");
    let (pid, dialled) = (host.pid(), fleet.tally().count());
    let (memory, files) = (process::resident(pid)?, process::descriptors(pid)?);
    let mut wrong = Vec::new();
    for target in &targets {
        process::forget_peak(pid)?;
        pulse.forget();
        let began = Instant::now();
        let told = attack::run(target, seed, length)?;
        let took = began.elapsed().as_secs_f64();
        host.is_sound().with_context(|| format!("{}, FUZZ_SEED={seed}", target.name))?;
        let beats = pulse.take().with_context(|| format!("{}, FUZZ_SEED={seed}", target.name))?;
        let peak = process::peak(pid)?;
        let (said, mut bad) = usual.judge(&beats, took);
        bad.extend(judge_memory(memory, peak));
        println!(
            "malformed: {}: {} exchanges in {took:.1} s; {said}; {} MiB before, {} at the peak\n{told}",
            target.name,
            told.exchanges(),
            memory >> 20,
            peak >> 20
        );
        wrong.extend(bad.into_iter().map(|it| format!("{}: {it}", target.name)));
    }
    ensure!(wrong.is_empty(), "FUZZ_SEED={seed}:\n{}", wrong.join("\n"));

    wait_for("the connections are gone", RID, || {
        let now = process::descriptors(pid)?;
        ensure!(now <= files + FILES, "{now} files are open, {files} were before");
        Ok(Some(()))
    })?;
    let status = control.status(host, &cluster)?;
    let lost: Vec<&str> = status
        .nodes
        .iter()
        .filter(|node| node.name != *misused && (!node.connected || node.phase != "Ready"))
        .map(|node| node.name.as_str())
        .collect();
    ensure!(lost.is_empty() && status.nodes.len() == nodes.len(), "these are not well: {lost:?}");
    ensure!(fleet.tally().count() == dialled, "somebody who was well had to dial again");
    pulse.during(Duration::from_secs(1)).map(drop).context("afterwards")
}

fn setting(name: &str, usual: u64) -> Result<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(Ok(usual), |text| text.parse().with_context(|| format!("{name}={text}")))
}
