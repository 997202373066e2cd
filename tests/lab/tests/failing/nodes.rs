//! What goes wrong inside of a VM, and what takes too long.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use lab_tests::simulated::Differences;

use crate::{Stage, told};

/// kubeadm fails three times: its command line, exit status and last output reach the person.
#[test]
fn a_failing_kubeadm_shows_its_last_output() -> Result<()> {
    let mut stage = Stage::new("kubeadm")?;
    let _agent = stage.host.host_agent(None)?;
    stage.host.agent_arguments("sim-control", &["--simulate-fail-always", "kubeadm"]);
    let failed = stage.up()?;
    let evidence = ["$ simulate kubeadm", "[kubeadm] error: simulated failure", "exit status 1"];
    let said = ["node sim-control", "step kubeadm failed 3 times", "k8sctl logs sim-control"];
    told(&stage.lab, &failed, 1, "KUBEADM-FAILED", &[&said[..], &evidence[..]].concat())?;
    stage.is_kept("KUBEADM-FAILED", "[kubeadm] error: simulated failure")?;
    let events = stage.host.k8sctl(&["events"])?;
    ensure!(events.contains("StepFailed"), "{events}");

    // Still broken: `up` has it tried again, and what failed before does not count.
    let failed = stage.up()?;
    told(&stage.lab, &failed, 1, "KUBEADM-FAILED", &["step kubeadm failed 3 times"])?;
    stage.host.agent_arguments("sim-control", &[]);
    stage.host.kill_node_agent("sim-control")?;
    stage.up_succeeds()
}

/// A VM that runs and never calls home: the end of its console is shown.
#[test]
fn a_silent_node_shows_its_console() -> Result<()> {
    let keys = vec![("silence_deadline", "\"5s\"".to_owned())];
    let mut stage = Stage::with("silent", Differences { keys, ..Differences::default() })?;
    let _agent = stage.host.host_agent(None)?;
    stage.host.silence("sim-worker-2", true);
    let running = stage.host.spawn_k8sctl(&["up", "-f", &stage.spec, "--yes", "--no-kubeconfig"])?;
    let console = stage.host.file("pool/console/sim-worker-2.log");
    // libvirt's log daemon would write it; where, says the domain.
    stage.host.run_until("the silent VM is there", crate::MINUTE, |host| {
        let xml = host.virsh(&["dumpxml", "sim-worker-2"])?;
        ensure!(xml.contains(&*console.to_string_lossy()), "{xml}");
        fs::write(&console, "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs\n")?;
        Ok(true)
    })?;
    let silent = stage.host.powered(running)?;
    let said = ["node sim-worker-2", "never called home", "Kernel panic - not syncing", "k8sctl doctor"];
    told(&stage.lab, &silent, 1, "NODE-SILENT", &said)?;
    stage.is_kept("NODE-SILENT", "Kernel panic")?;

    // The VM was on before this `up`, for longer than the deadline: that is no reason to give up at once.
    let status = stage.status()?;
    ensure!(status["nodes"].to_string().contains("sim-worker-2"), "{status:#}");
    stage.host.silence("sim-worker-2", false);
    stage.up_succeeds()
}

/// A deadline passes: the object that is in the way, and what it last was.
#[test]
fn a_passed_deadline_names_what_is_in_the_way() -> Result<()> {
    let mut stage = Stage::new("deadline")?;
    let _agent = stage.host.host_agent(None)?;
    stage.host.silence("sim-worker-1", true);
    let spec = stage.spec.clone();
    let began = std::time::Instant::now();
    let late =
        stage.host.powered_k8sctl(&["up", "-f", &spec, "--yes", "--no-kubeconfig", "--deadline", "6s"])?;
    let said = ["node sim-worker-1", "waiting for its agent to call home", "--deadline"];
    told(&stage.lab, &late, 1, "OPERATION-DEADLINE", &said)?;
    // On time, not at the next look at everything.
    ensure!(began.elapsed().as_secs() < 10, "it took {:?}", began.elapsed());
    stage.is_kept("OPERATION-DEADLINE", "sim-worker-1")?;
    stage.host.silence("sim-worker-1", false);
    stage.up_succeeds()
}

/// The host agent's own deadline counts where the command names none.
#[test]
fn the_configured_deadline_counts() -> Result<()> {
    let keys = vec![("operation_deadline", "\"5s\"".to_owned())];
    let mut stage = Stage::with("configured", Differences { keys, ..Differences::default() })?;
    let _agent = stage.host.host_agent(None)?;
    stage.host.silence("sim-control", true);
    let late = stage.up()?;
    told(&stage.lab, &late, 1, "OPERATION-DEADLINE", &["node sim-control"])?;
    let plan = stage.host.k8sctl(&["plan", "-f", &stage.spec.clone()])?;
    plan.to_lowercase().find("no changes").context(plan)?;
    Ok(())
}

/// Another operation takes the place of one that somebody watches: that one ends at once, and says why.
#[test]
fn an_up_gives_way_to_a_down() -> Result<()> {
    let mut stage = Stage::new("superseded")?;
    let _agent = stage.host.host_agent(None)?;
    stage.host.silence("sim-worker-1", true);
    let up = stage.host.spawn_k8sctl(&["up", "-f", &stage.spec, "--yes", "--no-kubeconfig"])?;
    stage.host.run_until("the VMs are there", crate::MINUTE, |host| Ok(host.domains()?.len() == 3))?;
    let down = stage.host.try_k8sctl(&["down", "--yes"])?;
    ensure!(down.status.success(), "{}\n{}\n{}", down.status, down.out, down.err);
    let gave_way = stage.host.powered(up)?;
    told(&stage.lab, &gave_way, 1, "OPERATION-SUPERSEDED", &["the cluster is being removed"])
}
