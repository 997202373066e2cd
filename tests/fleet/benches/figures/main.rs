//! The measured figures of simulated fleets: `make bench`, or one of them by `make bench BENCH=name`, the name of a bench
//! or of a figure. Needs root and no lab. What is done with figures is in [`bench_figures`].
//!
//! - `scale`: what agents cost, from ten to thousands; `BENCH_AGENTS` in the environment sets another most,
//!   `BENCH_AGENTS_LEAST` another least; figures of sizes that are left out stay
//! - `throughput`: how fast logs are, and what slow readers of them cost others
//! - `journal`: how fast a node's journal is; `BENCH_JOURNAL_MIB` in the environment sets its size
//! - `follow`: how late a followed line is
//! - `list`: how long `k8sctl plugin list` is with 50 plugins

mod follow;
mod journal;
mod list;
mod scale;
mod throughput;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench_figures::{Suite, results};
use fleet_tests::agents::Fleet;
use fleet_tests::cluster::Cluster;
use fleet_tests::control::Control;
use fleet_tests::host::{Host, Programs};
use fleet_tests::root::is_root;
use node_agent::config::{SimulatedLog, Simulation};

/// How long a small cluster may take to be ready.
const READY: Duration = Duration::from_secs(5 * 60);

fn main() -> Result<()> {
    // Not the directory at build time: clones share cargo's target directory.
    let ours = std::env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR for benches")?;
    let repo = PathBuf::from(ours).join("../..");
    if !is_root(&[&results()?, &repo.join("target")])? {
        return Ok(());
    }
    let programs = Programs {
        host_agent: env!("CARGO_BIN_EXE_fleet-host-agent").into(),
        k8sctl: env!("CARGO_BIN_EXE_fleet-k8sctl").into(),
    };
    let bench = |name: &str| match name {
        "scale" => scale::bench,
        "throughput" => throughput::bench,
        "journal" => journal::bench,
        "list" => list::bench,
        _ => follow::bench,
    };
    let sizes = scale::wanted()?;
    bench_figures::run(Suite::Fleet, &repo, &programs, bench, |figure| scale::is_left_out(figure, &sizes))
}

/// A host agent with one small cluster whose agents log like this, each its own way.
fn small(programs: &Programs, logs: &[SimulatedLog]) -> Result<(Host, Fleet, Cluster)> {
    let simulation = |logs: &SimulatedLog| Simulation { logs: *logs, ..Simulation::default() };
    small_of(programs, &logs.iter().map(simulation).collect::<Vec<_>>())
}

/// The same of agents that are simulated like this.
fn small_of(programs: &Programs, simulations: &[Simulation]) -> Result<(Host, Fleet, Cluster)> {
    let (host, control) = (Host::start(programs)?, Control::new()?);
    let cluster = Cluster::new(0, simulations.len());
    control.apply(&host, &cluster)?;
    let mut fleet = Fleet::new(simulations.len())?;
    for (node, simulation) in cluster.nodes().iter().zip(simulations) {
        let simulation = Simulation { in_memory: true, ..simulation.clone() };
        fleet.start(&host, std::slice::from_ref(node), &simulation)?;
    }
    control.wait_ready(&host, &cluster, READY).with_context(|| host.log())?;
    Ok((host, fleet, cluster))
}
