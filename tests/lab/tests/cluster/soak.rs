//! Random faults, one after the other, in an order that a seed gives: each time all is well again by itself, as soon as
//! `docs/reliability.md` promises it. Afterwards nothing is left over, nothing has leaked, and the events tell the whole
//! story.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab_tests::faults::{Deck, Fault, Planned};
use lab_tests::host::Held;
use lab_tests::pace::{Pace, within};
use lab_tests::vm::Shell;
use lab_tests::{Lab, Running, phase, wait_until};

use super::survival::{self, clock_off};
use super::{MINUTE, NODES, told};

/// Of the short one.
const SEED: u64 = 1;
const SHORT: Duration = Duration::from_secs(90);
/// How much more time its faults have than is promised: others use its machine, and a flaky test proves nothing. What is
/// promised is judged by the long one.
const SHARED: f64 = 2.0;
/// Of the long one, unless `SOAK_SECONDS` says otherwise.
const LONG: u64 = 30 * 60;
/// Growth of memory that is no leak, in KiB.
const OF_HOST_AGENT: u64 = 32 << 10;
const OF_NODE_AGENT: u64 = 8 << 10;
/// The host agent, and the nodes behind it.
const ALL: [usize; 1 + NODES.len()] = [0, 1, 2, 3];
/// What a clock may be off, in milliseconds.
const IN_STEP: i128 = 2_000;
/// As promised of the control plane's API, where its link was cut.
const API_BACK: Duration = Duration::from_secs(60);
/// A kubelet that was started anew says of pods with a startup probe that they are not Ready, some seconds after all
/// seemed to be well and until it looks at them again: this belongs to its fault, and not to the next one.
const SECOND_THOUGHTS: Duration = Duration::from_secs(15);
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// A fault that is not over by then is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

struct Soak<'a> {
    lab: &'a Lab,
    agent: Running,
    pace: Pace,
    /// Clean boots, in the order of the nodes.
    boots: [Duration; 3],
    /// What the host agent and each node's held when all was well for the first time since it was started.
    held: Vec<Held>,
}

/// What is there and stays there.
#[derive(Debug, PartialEq, Eq)]
struct Inventory {
    domains: Vec<String>,
    volumes: Vec<String>,
    emulators: usize,
}

/// Faults that are over soon, on a cluster that others use as well. Gives the host agent that runs then.
pub fn for_a_while(lab: &Lab, agent: Running, pace: Pace) -> Result<Running> {
    phase("a short soak");
    let soak = Soak { lab, agent, pace: pace.times(SHARED), boots: [pace.boot(); 3], held: Vec::new() };
    soak.run(Deck::new(SEED, &Fault::QUICK, NODES.len()), SHORT)
}

/// All faults, on a cluster of its own: `make soak`.
pub fn half_an_hour_of_faults(lab: &Lab) -> Result<()> {
    let home = lab.repo("examples/home.toml").to_string_lossy().into_owned();
    let agent = lab.host_agent(None)?;
    super::k8sctl(lab, &["up", "-f", &home, "--yes"])?;
    wait_until("all is well", PATIENCE, || told::is_well(lab))?;
    let lived = of_all_kinds(lab, agent);
    if let Err(error) = &lived {
        println!("lab: {error:#}");
        super::tell_what_is_known(lab);
    }
    let _agent = lived?;
    super::k8sctl(lab, &["down", "--yes"]).map(drop)
}

/// All faults, on a cluster that is well. Gives the host agent that runs then.
pub fn of_all_kinds(lab: &Lab, agent: Running) -> Result<Running> {
    let (seed, seconds) = (setting("SOAK_SEED", SEED)?, setting("SOAK_SECONDS", LONG)?);
    println!("lab: SOAK_SEED={seed} SOAK_SECONDS={seconds}");
    phase("clean boots");
    let boots = [clean_boot(lab, 0)?, clean_boot(lab, 1)?, clean_boot(lab, 2)?];
    let workers = (boots[1] + boots[2]) / 2;
    let boots = [boots[0], workers, workers];
    let soak = Soak { lab, agent, pace: Pace::of_boot(workers), boots, held: Vec::new() };
    soak.run(Deck::new(seed, &Fault::ALL, NODES.len()), Duration::from_secs(seconds))
}

/// How long the end of a VM takes to be over while all else is well: until all is well again, as after a fault.
fn clean_boot(lab: &Lab, place: usize) -> Result<Duration> {
    let (node, began) = (name(place), Instant::now());
    survival::vm_ends(lab, node)?;
    wait_until("all is well", PATIENCE, || told::is_well(lab))?;
    let took = began.elapsed();
    println!("lab: a clean boot of {node}: {:.1} s", took.as_secs_f64());
    Ok(took)
}

fn setting(name: &str, usual: u64) -> Result<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(Ok(usual), |text| text.parse().with_context(|| format!("{name}={text}")))
}

impl Soak<'_> {
    fn run(mut self, deck: Deck, length: Duration) -> Result<Running> {
        wait_until("all is well", PATIENCE, || told::is_well(self.lab))?;
        let (before, began) = (told::last_event(self.lab)?, Instant::now());
        let there = self.inventory()?;
        self.held = ALL.into_iter().map(|place| self.held_by(place)).collect::<Result<_>>()?;
        let mut dealt = 0;
        for planned in deck.take_while(|_| began.elapsed() < length) {
            dealt += 1;
            let node = planned.node.map_or("host", name);
            let what = format!("fault {dealt}: {}, {node}", planned.fault.name());
            phase(&what);
            let over = self.strike(planned);
            if over.is_err() {
                self.tell_what_happened(before);
            }
            over.with_context(|| what.clone())?;
        }
        println!("lab: {dealt} faults in {:.0} s", began.elapsed().as_secs_f64());
        self.nothing_is_left_over(&there)?;
        told::has_no_gap(self.lab, before)?;
        Ok(self.agent)
    }

    /// Prints the last events and what agents have said since.
    fn tell_what_happened(&self, before: u64) {
        let from = (before + 1).to_string();
        let agents = ["logs", "--source", "agent", "--tail", "60", "--timestamps"];
        for args in [&["events", "--from", &from, "--tail", "60"][..], &agents] {
            match self.lab.try_run("k8sctl", args, MINUTE) {
                Ok(printed) => println!("lab: k8sctl {}\n{}{}", args.join(" "), printed.out, printed.err),
                Err(error) => println!("lab: k8sctl {}: {error:#}", args.join(" ")),
            }
        }
    }

    /// One fault, until it is over, which it must be in time and with the events that tell of it.
    fn strike(&mut self, planned: Planned) -> Result<()> {
        let before = told::last_event(self.lab)?;
        let place = planned.node.unwrap_or_default();
        // Of the host all of them, one after the other.
        let boot =
            planned.node.map_or_else(|| self.boots.iter().sum::<Duration>(), |place| self.boots[place]);
        let deadline = planned.fault.deadline(self.pace, boot);
        let node = name(place);
        let ends = match planned.fault {
            Fault::AgentKilled | Fault::VmEnds => vec![place + 1],
            Fault::HostAgentKilled => vec![0],
            Fault::HostReboots => ALL.to_vec(),
            _ => Vec::new(),
        };
        // What a process has held back goes with it.
        self.nothing_is_held_back(&ends)?;
        let took = match planned.fault {
            Fault::AgentKilled => {
                let kill = "kill -KILL $(systemctl show -p MainPID --value k8s-node-agent)";
                self.after(node, kill, || self.told(before, node, "NodeConnected", ""))?
            }
            Fault::ContainerdStopped => self.after(node, "systemctl --no-block stop containerd", || {
                self.told(before, node, "RepairSucceeded", "containerd: ")
            })?,
            Fault::KubeletHangs => {
                let stop = "kill -STOP $(systemctl show -p MainPID --value kubelet)";
                self.after(node, stop, || self.told(before, node, "RepairSucceeded", "kubelet: "))?
            }
            Fault::VmEnds => survival::vm_ends(self.lab, node)?,
            Fault::LinkCut => self.link_is_cut(place, planned.between(40, 70), before)?,
            Fault::ClockJumps => self.clock_jumps(node, planned, before)?,
            Fault::DiskFull => self.disk_is_full(node, before)?,
            Fault::LibvirtdEnds => {
                let took = survival::libvirtd_ends(self.lab)?;
                for kind in ["LibvirtLost", "LibvirtBack"] {
                    ensure!(told::has_told_of_host(self.lab, before, kind)?, "no event {kind}");
                }
                took
            }
            Fault::HostAgentKilled => {
                self.agent.kill()?;
                self.agent = self.lab.host_agent(None)?;
                since_now(|| survival::all_have_connected(self.lab, before))?
            }
            Fault::HostReboots => {
                self.agent.kill()?;
                let since = survival::host_goes_off(self.lab)?;
                self.agent = self.lab.host_agent(None)?;
                since_now(|| survival::all_are_back(self.lab, since))?
            }
        };
        let seen = Instant::now();
        let deadline = if planned.fault == Fault::LinkCut && place == 0 {
            // What its API says is seen again later.
            within("until the agent that was cut off is back", took, deadline)?;
            self.pace.allow(API_BACK)
        } else {
            deadline
        };
        let mut last = String::new();
        let mut is_well = || told::is_well(self.lab).inspect_err(|error| last = format!("{error:#}"));
        wait_until("all is well", PATIENCE, &mut is_well)?;
        let mut well = seen.elapsed();
        if planned.fault == Fault::KubeletHangs {
            let settled = Instant::now() + self.pace.allow(SECOND_THOUGHTS);
            while Instant::now() < settled {
                thread::sleep(BETWEEN_LOOKS);
                if is_well().is_err() {
                    wait_until("all is well again", PATIENCE, &mut is_well)?;
                    well = seen.elapsed();
                }
            }
        }
        for place in ends {
            self.held[place] = self.held_by(place)?;
        }
        within(planned.fault.name(), took + well, deadline)
            .with_context(|| format!("over after {:.1} s; then at last: {last}", took.as_secs_f64()))
    }

    /// How long after this command it is over.
    fn after(&self, node: &str, command: &str, is_over: impl FnMut() -> Result<bool>) -> Result<Duration> {
        Shell::open(self.lab, node)?.run(command)?;
        since_now(is_over)
    }

    fn told(&self, before: u64, node: &str, kind: &str, begins: &str) -> Result<bool> {
        told::has_told(self.lab, before, node, kind, begins)
    }

    /// From when it is mended.
    fn link_is_cut(&self, place: usize, seconds: u64, before: u64) -> Result<Duration> {
        let (node, ip, ..) = NODES[place];
        let cut = self.lab.cut_link(ip)?;
        let began = Instant::now();
        wait_until("the host agent has missed the node", PATIENCE, || {
            Ok(began.elapsed() >= Duration::from_secs(seconds)
                && self.told(before, node, "NodeDisconnected", "")?)
        })?;
        let missed = told::last_event(self.lab)?;
        cut.mend()?;
        since_now(|| self.told(missed, node, "NodeConnected", ""))
    }

    fn clock_jumps(&self, node: &str, planned: Planned, before: u64) -> Result<Duration> {
        let seconds = planned.between(120, 600);
        let sign = if planned.size.is_multiple_of(2) { "+" } else { "-" };
        let mut shell = Shell::open(self.lab, node)?;
        shell.run(&format!("date -s @$(($(date +%s) {sign} {seconds}))"))?;
        since_now(|| {
            Ok(clock_off(&mut shell)?.abs() <= IN_STEP
                && self.told(before, node, "RepairSucceeded", "clock: ")?)
        })
    }

    /// From when there is room again.
    fn disk_is_full(&self, node: &str, before: u64) -> Result<Duration> {
        let mut shell = Shell::open(self.lab, node)?;
        let bytes = |what: &str| format!("$(df -B1 --output={what} / | tail -n 1)");
        // Too little for the agent, and enough for the kubelet, which would evict pods.
        let most = format!("$(({} - {} * 7 / 100))", bytes("avail"), bytes("size"));
        shell.run(&format!("fallocate -l {most} /var/tmp/full"))?;
        let noticed = wait_until("its agent has noticed", PATIENCE, || {
            self.told(before, node, "ConditionChanged", "DiskOK=False ")
        });
        let full = told::last_event(self.lab);
        shell.run("rm /var/tmp/full")?;
        noticed?;
        let full = full?;
        since_now(|| self.told(full, node, "ConditionChanged", "DiskOK=True "))
    }

    fn inventory(&self) -> Result<Inventory> {
        let names = |args: &[&str]| -> Result<Vec<String>> {
            let printed = self.lab.run("virsh", args, MINUTE)?;
            let first = printed.lines().filter_map(|line| line.split_whitespace().next());
            let mut names: Vec<String> = first.map(str::to_owned).collect();
            names.sort();
            Ok(names)
        };
        // libvirt lists the directory of the consoles in the pool only when it has looked again, as after its restart.
        self.lab.run("virsh", &["--quiet", "pool-refresh", "k8s-myhome"], MINUTE)?;
        Ok(Inventory {
            domains: names(&["--quiet", "list", "--all", "--name"])?,
            volumes: names(&["--quiet", "vol-list", "k8s-myhome"])?,
            emulators: self.lab.processes("qemu-system-x86_64")?.len(),
        })
    }

    /// By the host agent, or the agent of the node before that place.
    fn held_by(&self, place: usize) -> Result<Held> {
        let Some(node) = place.checked_sub(1) else { return Held::by(self.agent.pid()) };
        let of_agent = Held::command("$(systemctl show -p MainPID --value k8s-node-agent)");
        Held::parse(&Shell::open(self.lab, name(node))?.run(&of_agent)?)
    }

    fn nothing_is_held_back(&self, places: &[usize]) -> Result<()> {
        for &place in places {
            let (before, now) = (self.held[place], self.held_by(place)?);
            let whose = place.checked_sub(1).map_or("the host agent", name);
            println!("lab: {whose} held {before:?}, and holds {now:?}");
            let leak = now.leaked_since(before, if place == 0 { OF_HOST_AGENT } else { OF_NODE_AGENT });
            ensure!(leak.is_none(), "{whose}: {}", leak.unwrap_or_default());
        }
        Ok(())
    }

    fn nothing_is_left_over(&self, there: &Inventory) -> Result<()> {
        self.nothing_is_held_back(&ALL)?;
        let now = self.inventory()?;
        ensure!(now == *there, "there was {there:?}, and now there is {now:?}");
        Ok(())
    }
}

fn name(place: usize) -> &'static str {
    NODES[place].0
}

/// How long it takes from now on.
fn since_now(is_so: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    wait_until("it is over", PATIENCE, is_so)?;
    Ok(began.elapsed())
}
