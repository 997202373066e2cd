//! What agents cost a host agent, from ten to thousands: memory and processor for each, how soon all are back after its
//! restart and how many handshakes a second that takes at most, and how long `k8sctl status` is.
//!
//! Each size has a host agent of its own. It is measured behind a restart, when its test driver knows no VM any more:
//! looking at VMs is none of what agents cost.

use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench_figures::{Figure, median};
use fleet_tests::agents::Fleet;
use fleet_tests::cluster::{Cluster, MOST};
use fleet_tests::control::Control;
use fleet_tests::host::{Host, Programs};
use fleet_tests::{k8sctl, process, wait_for};
use node_agent::config::Simulation;

/// How many agents, and the names of their figures.
static SIZES: [Size; 4] = [
    Size {
        agents: 10,
        resident: "agent-resident-10",
        processor: "agents-cpu-10",
        back: "agents-back-10",
        handshakes: "handshakes-10",
        status: Some("status-10"),
    },
    Size {
        agents: 100,
        resident: "agent-resident-100",
        processor: "agents-cpu-100",
        back: "agents-back-100",
        handshakes: "handshakes-100",
        status: None,
    },
    Size {
        agents: 1_000,
        resident: "agent-resident-1000",
        processor: "agents-cpu-1000",
        back: "agents-back-1000",
        handshakes: "handshakes-1000",
        status: Some("status-1000"),
    },
    Size {
        agents: 5_000,
        resident: "agent-resident-5000",
        processor: "agents-cpu-5000",
        back: "agents-back-5000",
        handshakes: "handshakes-5000",
        status: None,
    },
];
/// The size that larger ones are measured against: what one agent costs must not grow.
const REFERENCE: usize = 1_000;

/// Between two changes of an agent's health.
const CHANGE: Duration = Duration::from_secs(10 * 60);
/// How long a cluster of the largest size may take to be ready, and its agents to come back.
const READY: Duration = Duration::from_secs(30 * 60);
const BACK: Duration = Duration::from_secs(10 * 60);
/// How long the processor is measured: six reports of each agent.
const WINDOW: Duration = Duration::from_secs(60);
/// A host agent whose processor time no more falls from one such time to the next has done what a restart makes it do.
const CALM: Duration = Duration::from_secs(10);
const CALMED: usize = 30;
/// Runs of `k8sctl status`.
const RUNS: usize = 20;
const MINUTE: Duration = Duration::from_secs(60);

struct Size {
    agents: usize,
    resident: &'static str,
    processor: &'static str,
    back: &'static str,
    handshakes: &'static str,
    status: Option<&'static str>,
}

/// What was measured of a size.
struct Measured {
    back: Duration,
    handshakes: usize,
    /// KiB of the host agent's memory for each agent.
    resident: f64,
    /// Percent of a processor for each thousand agents.
    processor: f64,
}

pub(super) fn bench(programs: &Programs, figures: &mut Vec<Figure>) -> Result<()> {
    let wanted = wanted()?;
    let mut reference: Option<(f64, f64)> = None;
    for size in SIZES.iter().filter(|size| wanted.contains(&size.agents)) {
        let measured = measure(programs, size, figures)?;
        println!(
            "  {} agents: back in {:.1} s, {} handshakes a second, {:.1} KiB each, {:.2} % for 1000",
            size.agents,
            measured.back.as_secs_f64(),
            measured.handshakes,
            measured.resident,
            measured.processor,
        );
        let (resident, processor) = reference.unzip();
        let figure = |name, value, unit, baseline| Figure { name, value, unit, baseline };
        figures.push(figure(size.resident, measured.resident, "KiB", resident));
        figures.push(figure(size.processor, measured.processor, "%", processor));
        figures.push(figure(size.back, measured.back.as_secs_f64(), "s", None));
        figures.push(figure(size.handshakes, measured.handshakes as f64, "/s", None));
        if size.agents == REFERENCE {
            reference = Some((measured.resident, measured.processor));
        }
    }
    Ok(())
}

/// Numbers of agents that are to be measured.
pub(super) fn wanted() -> Result<RangeInclusive<usize>> {
    Ok(setting("BENCH_AGENTS_LEAST", 0)?..=setting("BENCH_AGENTS", usize::MAX)?)
}

/// Whether a figure is of a number of agents that is not wanted.
pub(super) fn is_left_out(figure: &str, wanted: &RangeInclusive<usize>) -> bool {
    let size = SIZES.iter().find(|size| {
        let all = [size.resident, size.processor, size.back, size.handshakes];
        all.into_iter().chain(size.status).any(|name| name == figure)
    });
    size.is_some_and(|size| !wanted.contains(&size.agents))
}

fn setting(name: &str, usual: usize) -> Result<usize> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(Ok(usual), |text| text.parse()).context(name.to_owned())
}

fn measure(programs: &Programs, size: &Size, figures: &mut Vec<Figure>) -> Result<Measured> {
    let mut fleet = Fleet::new(size.agents)?;
    let (mut host, control) = (Host::start(programs)?, Control::new()?);
    calm(&host)?;
    let empty = process::resident(host.pid())?;
    let simulation = Simulation { change_every: Some(CHANGE), in_memory: true, ..Simulation::default() };
    let mut clusters: Vec<Cluster> = Vec::new();
    while fleet.count() < size.agents {
        if !clusters.is_empty() {
            // Without the VMs of those before.
            restart(&mut host, &fleet, &control, &clusters)?;
        }
        let cluster = Cluster::new(clusters.len() as u8, MOST.min(size.agents - fleet.count()));
        let began = Instant::now();
        control.apply(&host, &cluster)?;
        fleet.start(&host, &cluster.nodes(), &simulation).with_context(|| host.log())?;
        control.wait_ready(&host, &cluster, READY).with_context(|| host.log())?;
        println!("  {} agents are there, the last of them after {:.0?}", fleet.count(), began.elapsed());
        clusters.push(cluster);
    }
    let (back, handshakes) = restart(&mut host, &fleet, &control, &clusters)?;
    calm(&host)?;

    let (before, began) = (process::processor(host.pid())?, Instant::now());
    // What is measured is time that passes.
    thread::sleep(WINDOW);
    let spent = process::processor(host.pid())?.saturating_sub(before).as_secs_f64();
    let share = spent / began.elapsed().as_secs_f64();
    let grown = process::resident(host.pid())?.saturating_sub(empty) as f64;
    control
        .wait_connected(&host, &clusters, MINUTE)
        .context("some agents were lost while it was measured")?;
    if let (Some(name), Some(cluster)) = (size.status, clusters.first()) {
        figures.push(status(&host, cluster, name)?);
    }
    let agents = size.agents as f64;
    Ok(Measured {
        back,
        handshakes,
        resident: grown / 1_024.0 / agents,
        processor: share * 100.0 * 1_000.0 / agents,
    })
}

/// Kills the host agent and starts it again; how long after its death all agents had sessions, and how many handshakes
/// there were within a second at most.
fn restart(
    host: &mut Host,
    fleet: &Fleet,
    control: &Control,
    clusters: &[Cluster],
) -> Result<(Duration, usize)> {
    fleet.tally().reset();
    let began = Instant::now();
    host.restart()?;
    let all = fleet.count();
    // Not asked while they come: each answer has the status of a thousand nodes in it.
    wait_for("all agents have dialled again", BACK, || {
        let count = fleet.tally().count();
        ensure!(count >= all, "{count} of {all} have");
        Ok(Some(()))
    })?;
    control.wait_connected(host, clusters, BACK)?;
    Ok((began.elapsed(), fleet.tally().most_a_second()))
}

/// Waits until the host agent has nothing left to do but what it always does.
fn calm(host: &Host) -> Result<()> {
    let mut last = f64::INFINITY;
    for _ in 0..CALMED {
        let before = process::processor(host.pid())?;
        thread::sleep(CALM);
        let spent = process::processor(host.pid())?.saturating_sub(before).as_secs_f64();
        if spent >= last * 0.9 || spent < 0.01 * CALM.as_secs_f64() {
            return Ok(());
        }
        last = spent;
    }
    println!("  the host agent's work falls still, after {:?}", CALM * CALMED as u32);
    Ok(())
}

/// `k8sctl status` as a whole process, against one that asks nobody.
fn status(host: &Host, cluster: &Cluster, name: &'static str) -> Result<Figure> {
    let (mut times, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let took = k8sctl::time(host, &["status", &cluster.name()], MINUTE)?;
        times.push(took.as_secs_f64() * 1_000.0);
        let took = k8sctl::time(host, &["version", "--client"], MINUTE)?;
        floor.push(took.as_secs_f64() * 1_000.0);
    }
    Ok(Figure { name, value: median(&mut times), unit: "ms", baseline: Some(median(&mut floor)) })
}
