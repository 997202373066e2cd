//! Malformed traffic on every socket of a host agent, one after the other, beside a fleet that is well: no crash, nobody
//! is cut off, answers stay prompt, and memory stays where it is. `FUZZ_SECONDS` is how long each is sent to, `FUZZ_SEED`
//! what comes; `FUZZ_TARGET` is part of the names of the sockets that are wanted.
//!
//! How prompt answers are without it is measured before and after each round of it, by the same machine in the same
//! minutes: what else that machine does concerns both. By what they are compared stands in `malformed::verdict`.

#![expect(clippy::disallowed_methods, reason = "tests start whole programs as root, and end them themselves")]

#[path = "../../integration/tests/integration/root.rs"]
mod root;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fleet_tests::agents::Fleet;
use fleet_tests::cluster::Cluster;
use fleet_tests::control::{Control, machine_uuids};
use fleet_tests::host::{Host, Programs, Setup};
use fleet_tests::malformed::attack::{self, Target, Told};
use fleet_tests::malformed::pulse::{Beats, Pulse};
use fleet_tests::malformed::targets::{self, READER_GROUP};
use fleet_tests::malformed::verdict::{Line, Usual, judge_memory};
use fleet_tests::{process, wait_for};
use node_agent::config::{SimulatedLog, Simulation};

/// Agents that are well, and stay so.
const AGENTS: usize = 8;
/// Between two lines of each.
const LINES_APART: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(180);
/// How long all goes on without malformed traffic before anything is measured.
const WARM: Duration = Duration::from_secs(4);
/// How long one target is sent to without a pause, at most.
const ROUND: Duration = Duration::from_secs(60);
/// How long it is measured before and after each round, which is as long if it is short.
const QUIET: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];
/// How long the host agent has after the connections are gone for what they have asked for.
const SETTLED: Duration = Duration::from_secs(1);
/// How long each socket is sent to, unless `FUZZ_SECONDS` says otherwise: all of them are sent to for most of a minute.
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
    let targets = wanted(targets, &std::env::var("FUZZ_TARGET").unwrap_or_default())?;

    let pulse = Pulse::of(host, &cluster, well)?;
    pulse.during(WARM)?;
    let (pid, dialled) = (host.pid(), fleet.tally().count());
    let memory = process::resident(pid)?;
    let line = Line::of(length);
    let mut bench = Bench::new(host, &pulse, seed, length)?;
    let mut wrong = Vec::new();
    for target in &targets {
        for tries_left in (0..line.tries).rev() {
            process::forget_peak(pid)?;
            let sent = bench.send(target).with_context(|| format!("{}, FUZZ_SEED={seed}", target.name))?;
            let peak = process::peak(pid)?;
            let (said, mut late) = sent.usual.judge(line, &sent.beats, sent.seconds);
            late.extend(sent.told.unanswered(target));
            println!(
                "malformed: {}: {} exchanges in {:.1} s; {said}; {} MiB before, {} at the peak\n{}",
                target.name,
                sent.told.exchanges(),
                sent.seconds,
                memory >> 20,
                peak >> 20,
                sent.told
            );
            wrong.extend(judge_memory(memory, peak).map(|it| format!("{}: {it}", target.name)));
            if late.is_empty() {
                break;
            }
            if tries_left == 0 {
                wrong.extend(late.into_iter().map(|it| format!("{}: {it}", target.name)));
            } else {
                println!(
                    "malformed: {}: once more, it may have been a moment: {}",
                    target.name,
                    late.join("; ")
                );
            }
        }
    }
    ensure!(wrong.is_empty(), "FUZZ_SEED={seed}:\n{}", wrong.join("\n"));

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

/// Those whose names have this in them: all of them where it is empty.
fn wanted(targets: Vec<Target>, part: &str) -> Result<Vec<Target>> {
    let names: Vec<&str> = targets.iter().map(|target| target.name).collect();
    let names = names.join("; ");
    let wanted: Vec<Target> = targets.into_iter().filter(|target| target.name.contains(part)).collect();
    ensure!(!wanted.is_empty(), "FUZZ_TARGET={part} is in none of the names: {names}");
    Ok(wanted)
}

/// The host agent and those who are well, on their way through all targets.
struct Bench<'a> {
    host: &'a mut Host,
    pulse: &'a Pulse,
    seed: u64,
    rounds: u32,
    round: Duration,
    quiet: Duration,
    /// Files that it had open before any of it.
    files: usize,
    /// How it was without malformed traffic, when that was last measured.
    last: Beats,
}

/// What came of one target.
struct Sent {
    told: Told,
    usual: Usual,
    beats: Beats,
    /// How long it was sent to.
    seconds: f64,
}

impl<'a> Bench<'a> {
    fn new(host: &'a mut Host, pulse: &'a Pulse, seed: u64, length: Duration) -> Result<Self> {
        let rounds = length.as_secs().div_ceil(ROUND.as_secs()).max(1) as u32;
        let round = length / rounds;
        let [least, most] = QUIET;
        let files = process::descriptors(host.pid())?;
        let quiet = round.clamp(least, most);
        let last = pulse.during(quiet)?;
        Ok(Self { host, pulse, seed, rounds, round, quiet, files, last })
    }

    /// Sends to one target, in rounds.
    fn send(&mut self, target: &Target) -> Result<Sent> {
        let (mut told, mut beats, mut seconds) = (Told::default(), Beats::default(), 0.0);
        let (mut usual, mut quiet) = (self.last.clone(), self.quiet.as_secs_f64());
        for round in 0..self.rounds {
            self.pulse.forget();
            let began = Instant::now();
            // Each of them sends something else.
            told.extend(attack::run(target, self.seed ^ (u64::from(round) << 32), self.round)?);
            seconds += began.elapsed().as_secs_f64();
            let taken = self.pulse.take();
            // If it is not, that is why somebody was cut off.
            self.host.is_sound()?;
            beats.extend(&taken?);
            self.last = self.rest()?;
            usual.extend(&self.last);
            quiet += self.quiet.as_secs_f64();
        }
        Ok(Sent { told, usual: Usual::of(&usual, quiet), beats, seconds })
    }

    /// How it is without malformed traffic, when nothing is left of that.
    fn rest(&self) -> Result<Beats> {
        wait_for("the connections are gone", RID, || {
            let (now, before) = (process::descriptors(self.host.pid())?, self.files);
            ensure!(now <= before + FILES, "{now} files are open, {before} were before");
            Ok(Some(()))
        })?;
        thread::sleep(SETTLED);
        self.pulse.during(self.quiet)
    }
}

fn setting(name: &str, usual: u64) -> Result<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(Ok(usual), |text| text.parse().with_context(|| format!("{name}={text}")))
}
