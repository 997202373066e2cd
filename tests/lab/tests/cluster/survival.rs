//! What the cluster survives: a VM that ends, ends of the host agent and of libvirtd, a suspended host, a host's disk
//! without room. A node's reboot and a cut link are in [`super::follow`], where somebody reads meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab_tests::host::SmallDisk;
use lab_tests::pace::{Pace, within};
use lab_tests::vm::Shell;
use lab_tests::{Lab, Running, phase, wait_until};

use super::{MINUTE, NODES, nodes_are_ready, pool_files, told};

const NODE: &str = "k8s-worker-2";
/// As promised, each from when the cause is over.
const SESSIONS: Duration = Duration::from_secs(10);
const LIBVIRT: Duration = Duration::from_secs(15);
const CLOCKS: Duration = Duration::from_secs(60);
const ROOM: Duration = Duration::from_secs(30);
/// How long the host is suspended.
const SUSPENDED: Duration = Duration::from_secs(20);
/// What a clock may be off, in milliseconds; more is set right.
const IN_STEP: i128 = 2_000;

/// A VM ends as in a crash; how long it takes until its node is well again is this run's measure of time.
pub fn a_vm_crashes(lab: &Lab) -> Result<Pace> {
    phase("a VM crashes");
    let pace = Pace::of_boot(vm_ends(lab, NODE)?);
    println!(
        "lab: a clean boot took {:.1} s: what nodes promise may take {:.1} times as long",
        pace.boot().as_secs_f64(),
        pace.factor()
    );
    Ok(pace)
}

/// Takes the power from a VM; gives how long it took until its node was well again.
pub fn vm_ends(lab: &Lab, node: &str) -> Result<Duration> {
    let before = told::last_event(lab)?;
    let (began, since) = (Instant::now(), jiff::Timestamp::now());
    lab.run("virsh", &["destroy", node], MINUTE)?;
    wait_until(&format!("{node} is well again"), 30 * MINUTE, || told::is_back(lab, node, since))?;
    let took = began.elapsed();
    ensure!(told::has_told(lab, before, node, "VMStarted", "")?, "no event tells that {node} was started");
    ensure!(told::has_told(lab, before, node, "NodeConnected", "")?, "no event tells that {node} is back");
    Ok(took)
}

/// The host agent is killed. Gives the next one.
pub fn host_agent_is_killed(lab: &Lab, mut agent: Running, pace: Pace) -> Result<Running> {
    phase("the host agent is killed");
    let (before, ran) = (told::last_event(lab)?, powered_on(lab)?);
    agent.kill()?;
    let agent = lab.host_agent(None)?;
    let back = Instant::now();
    wait_until("every agent has a session", 5 * MINUTE, || all_have_connected(lab, before))?;
    within("until every agent has a session again", back.elapsed(), pace.allow(SESSIONS))?;
    wait_until("all is well again", 10 * MINUTE, || told::is_well(lab))?;
    ensure!(
        powered_on(lab)? == ran,
        "VMs that ran on are said to run since {:?}, before {ran:?}",
        powered_on(lab)?
    );
    Ok(agent)
}

/// Whether each node has opened a session behind that event.
pub fn all_have_connected(lab: &Lab, before: u64) -> Result<bool> {
    let events = told::events_since(lab, before)?;
    Ok(NODES.iter().all(|(node, ..)| told::last_of(&events, node, "NodeConnected", "").is_some()))
}

/// libvirtd ends, and VMs go on. Gives how long after its return the host agent acts on its VMs again.
pub fn libvirtd_ends(lab: &Lab) -> Result<Duration> {
    let before = lab.libvirtd()?;
    let ran = powered_on(lab)?;
    lab.end_libvirtd()?;
    // The host agent starts it, where systemd does not.
    wait_until("libvirtd is back", 5 * MINUTE, || {
        lab.run("virsh", &["--quiet", "list", "--name"], MINUTE)?;
        Ok(lab.libvirtd()? != before)
    })?;
    let back = Instant::now();
    lab.run("virsh", &["suspend", NODE], MINUTE)?;
    wait_until("a VM that is paused goes on", 5 * MINUTE, || {
        Ok(lab.run("virsh", &["domstate", NODE], MINUTE)?.trim() == "running")
    })?;
    let took = back.elapsed();
    wait_until("the host agent sees all VMs", 5 * MINUTE, || Ok(powered_on(lab)? == ran))?;
    Ok(took)
}

/// The same, judged.
pub fn libvirtd_is_restarted(lab: &Lab, pace: Pace) -> Result<()> {
    phase("libvirtd ends under the VMs");
    within("from libvirtd's return to the host agent's", libvirtd_ends(lab)?, pace.allow(LIBVIRT))?;
    wait_until("all is well again", 10 * MINUTE, || told::is_well(lab))
}

/// What of the host agent's does not run any more when the host goes off, without power: VMs, their network, libvirt, which
/// knows nothing of a boot before. Gives when that was.
pub fn host_goes_off(lab: &Lab) -> Result<jiff::Timestamp> {
    for (node, ..) in NODES {
        lab.run("virsh", &["destroy", node], MINUTE)?;
    }
    lab.run("virsh", &["net-destroy", "default"], MINUTE)?;
    lab.end_libvirtd()?;
    for driver in ["qemu", "network", "storage"] {
        // Which it has where it has started something by itself in this boot.
        let _ = std::fs::remove_file(format!("/run/libvirt/{driver}/autostarted"));
    }
    Ok(jiff::Timestamp::now())
}

/// Whether all nodes are well in VMs that were started since that moment, the control plane's before the others.
pub fn all_are_back(lab: &Lab, since: jiff::Timestamp) -> Result<bool> {
    NODES.iter().try_for_each(|(node, ..)| told::is_back(lab, node, since).map(drop))?;
    let started = powered_on(lab)?;
    ensure!(
        started[1..].iter().all(|worker| *worker > started[0]),
        "VMs were started in no order: {started:?}"
    );
    Ok(true)
}

/// Since when each VM runs, as the host agent has seen it.
fn powered_on(lab: &Lab) -> Result<Vec<jiff::Timestamp>> {
    NODES.iter().map(|(name, ..)| told::moment(&told::node(lab, name)?["powered_on"])).collect()
}

/// As a laptop that is closed: VMs and host agent stand still, and when they go on the VMs' clocks show the time of then.
pub fn host_is_suspended(lab: &Lab, agent: &Running, pace: Pace) -> Result<()> {
    phase("the host is suspended");
    let before = told::last_event(lab)?;
    let mut shells = Vec::new();
    for (node, ..) in NODES {
        shells.push((node, Shell::open(lab, node)?));
    }
    lab.signal(agent.pid(), "STOP")?;
    let all = |what: &str| -> Result<()> {
        NODES.iter().try_for_each(|(node, ..)| lab.run("virsh", &[what, node], MINUTE).map(drop))
    };
    let stand_still = || -> Result<()> {
        all("suspend")?;
        let began = Instant::now();
        wait_until("the host has stood still for a while", MINUTE, || Ok(began.elapsed() >= SUSPENDED))?;
        all("resume")
    };
    let stood_still = stand_still();
    // Whatever came of it: without a host agent nothing would be well again.
    lab.signal(agent.pid(), "CONT")?;
    stood_still?;
    let on = Instant::now();
    for (node, shell) in &mut shells {
        let off = clock_off(shell)?;
        println!("lab: {node}: its clock is off by {off} ms");
    }
    wait_until("the clocks are right", 10 * MINUTE, || {
        for (node, shell) in &mut shells {
            let off = clock_off(shell)?;
            ensure!(off.abs() <= IN_STEP, "{node}: its clock is off by {off} ms");
        }
        Ok(true)
    })?;
    within("until all clocks are right", on.elapsed(), pace.allow(CLOCKS))?;
    drop(shells);
    wait_until("all is well again", 10 * MINUTE, || told::is_well(lab))?;
    wait_until("all nodes are Ready again", 10 * MINUTE, || {
        nodes_are_ready(lab, &NODES.map(|node| node.0)).map(|()| true)
    })?;
    // A machine that stood still has lost nothing.
    for event in told::events_since(lab, before)? {
        let message = event["message"].as_str().unwrap_or_default();
        let is_of_service = ["containerd: ", "kubelet: "].iter().any(|begins| message.starts_with(begins));
        let is_repair = event["type"].as_str().is_some_and(|kind| kind.starts_with("Repair"));
        ensure!(!(is_repair && is_of_service), "a repair that nobody needed: {event}");
    }
    Ok(())
}

/// How far a VM's clock is ahead of the host's, at least, in milliseconds.
pub fn clock_off(shell: &mut Shell) -> Result<i128> {
    let before = jiff::Timestamp::now().as_nanosecond();
    let there = i128::from(shell.number("date +%s%N")?);
    let after = jiff::Timestamp::now().as_nanosecond();
    let off = if there < before { there - before } else { (there - after).max(0) };
    Ok(off / 1_000_000)
}

/// The host agent can write nothing: it goes on, answers, and tells the whole story later. Gives the next one.
pub fn host_agent_has_no_room(lab: &Lab, mut agent: Running, pace: Pace) -> Result<Running> {
    phase("the host agent's disk is full");
    agent.kill()?;
    let small = SmallDisk::over(lab, &lab.file("state"))?;
    // What was kept for writing would be written into first.
    let database = rusqlite::Connection::open(lab.file("state/k8s-myhome.db"))?;
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    drop(database);
    agent = lab.host_agent(None)?;
    wait_until("all is well", 10 * MINUTE, || told::is_well(lab))?;
    let before = told::last_event(lab)?;
    small.fill(0)?;
    let full = jiff::Timestamp::now();
    for (node, ..) in NODES {
        // Away until that is seen: the time since when a condition holds is that of a look.
        let mut shell = Shell::open(lab, node)?;
        shell.run("systemctl stop k8s-node-agent")?;
        wait_until(&format!("status tells that the agent of {node} is away"), 5 * MINUTE, || {
            Ok(told::condition(&told::node(lab, node)?, "AgentReady") == Some("False"))
        })?;
        shell.run("systemctl --no-block start k8s-node-agent")?;
    }
    wait_until("every agent is back, as status tells", 5 * MINUTE, || {
        for (name, ..) in NODES {
            let node = told::node(lab, name)?;
            ensure!(told::condition(&node, "AgentReady") == Some("True"), "{name} has no session");
            let since = told::condition_since(&node, "AgentReady")?;
            ensure!(since >= full, "{name} has had its session since {since}");
        }
        Ok(true)
    })?;
    small.make_room()?;
    let there = Instant::now();
    wait_until("the events tell of every agent's return", 5 * MINUTE, || all_have_connected(lab, before))?;
    within("until the story is whole", there.elapsed(), pace.allow(ROOM))?;
    told::has_no_gap(lab, before)?;
    wait_until("all is well again", 10 * MINUTE, || told::is_well(lab))?;
    agent.kill()?;
    small.write_back()?;
    let agent = lab.host_agent(None)?;
    wait_until("all is well", 10 * MINUTE, || told::is_well(lab))?;
    Ok(agent)
}

/// Has the disk of a node's VM, which must not run yet, on a small file system.
pub fn disk_on_a_small_one(lab: &Lab, node: &str) -> Result<SmallDisk> {
    let names = pool_files(lab)?;
    let name = names.iter().find(|name| name.ends_with(&format!("-{node}.qcow2")));
    let name = name.with_context(|| format!("the disk of {node} among {names:?}"))?;
    SmallDisk::over(lab, &lab.file("pool").join(name))
}

/// The host's disk is full: the VM stands until there is room, and goes on where it stood.
pub fn vm_waits_for_room(lab: &Lab, node: &str, small: SmallDisk, pace: Pace) -> Result<()> {
    phase("the host's disk is full under a VM");
    let mut shell = Shell::open(lab, node)?;
    let boot = shell.run("cat /proc/sys/kernel/random/boot_id")?;
    // The answer still needs some, and others write meanwhile.
    small.fill(16 << 20)?;
    // Not before the answer has left the VM.
    let write = "sleep 3; exec dd if=/dev/zero of=/root/fill bs=1M count=64 oflag=direct";
    shell.run(&format!("systemd-run --quiet --unit=fill sh -c '{write}'"))?;
    drop(shell);
    // It is tried again now and then, and stands again at once.
    wait_until("its VM stands, and status tells so", 10 * MINUTE, || {
        let state = lab.run("virsh", &["domstate", node, "--reason"], MINUTE)?;
        ensure!(state.contains("I/O error"), "it is {state}");
        Ok(told::condition(&told::node(lab, node)?, "VMRunning") == Some("False"))
    })?;
    small.make_room()?;
    let there = Instant::now();
    wait_until("its VM runs", 10 * MINUTE, || {
        let runs = lab.run("virsh", &["domstate", node], MINUTE)?.trim() == "running";
        Ok(runs && told::condition(&told::node(lab, node)?, "VMRunning") == Some("True"))
    })?;
    within("from the room to the VM that runs", there.elapsed(), pace.allow(ROOM))?;
    let mut shell = Shell::open(lab, node)?;
    wait_until("what was being written is whole", 10 * MINUTE, || {
        Ok(shell.try_run("test $(stat -c %s /root/fill) = 67108864 && ! systemctl -q is-active fill")?.0 == 0)
    })?;
    ensure!(shell.run("cat /proc/sys/kernel/random/boot_id")? == boot, "{node} was started anew");
    shell.run("rm /root/fill")?;
    drop(shell);
    wait_until("all is well again", 10 * MINUTE, || told::is_well(lab))?;
    small.forget()
}
