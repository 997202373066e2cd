//! What nodes put right by themselves, at once on all three, since each takes its time: drifts of steps, a kubelet that
//! hangs, and a step that cannot be repaired and is given up.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab_tests::pace::{Pace, within};
use lab_tests::vm::Shell;
use lab_tests::{Lab, phase, wait_until};
use serde_json::Value;

use super::{MINUTE, NODES, k8sctl, nodes_are_ready, told};

const CONTROL: &str = "k8s-control-plane-1";
const WORKERS: [&str; 2] = ["k8s-worker-1", "k8s-worker-2"];
/// The pod network's file.
const CNI: &str = "/etc/cni/net.d/10-k8s-myhome.conflist";
/// As promised.
const RESYNC: Duration = Duration::from_secs(60);
const KUBELET_HEALED: Duration = Duration::from_secs(40);
/// From a container's end until the kubelet that lets it lie is restarted.
const BACK_OFF: Duration = Duration::from_secs(90 + 15);
/// What the step itself takes on a machine that is not starved.
const WORK: Duration = Duration::from_secs(20);

/// Something that somebody changes on a node, and the step that keeps it.
struct Drift {
    node: &'static str,
    step: &'static str,
    spoil: &'static str,
    /// Succeeds when it is as it should be.
    look: &'static str,
}

/// On the worker nothing that the kernel tells of: that takes the next look at what the kernel has. Spoilt files are as good as before
/// to those who read them.
const DRIFTS: [Drift; 5] = [
    Drift {
        node: WORKERS[1],
        step: "host-os",
        spoil: "echo 0 >/proc/sys/net/ipv4/ip_forward",
        look: "grep -qx 1 /proc/sys/net/ipv4/ip_forward",
    },
    Drift {
        node: WORKERS[1],
        step: "host-os",
        spoil: "rmmod br_netfilter",
        look: "grep -qx 1 /proc/sys/net/bridge/bridge-nf-call-iptables",
    },
    Drift {
        node: CONTROL,
        step: "host-os",
        spoil: "echo '# drift' >>/etc/sysctl.d/90-k8s-myhome.conf",
        look: "! grep -q drift /etc/sysctl.d/90-k8s-myhome.conf",
    },
    Drift {
        node: CONTROL,
        step: "cni",
        spoil: "echo >>/etc/cni/net.d/10-k8s-myhome.conflist",
        look: "test -n \"$(tail -n 1 /etc/cni/net.d/10-k8s-myhome.conflist)\"",
    },
    Drift {
        node: CONTROL,
        step: "kubeadm",
        spoil: "echo '# drift' >>/etc/kubernetes/manifests/kube-scheduler.yaml",
        look: "! grep -q drift /etc/kubernetes/manifests/kube-scheduler.yaml",
    },
];

/// See the module.
pub fn nodes_mend_themselves(lab: &Lab, home: &str, pace: Pace) -> Result<()> {
    phase("drifts, a kubelet that hangs, and a file that cannot be put back");
    let before = told::last_event(lab)?;
    let mut control = Shell::open(lab, CONTROL)?;
    let (mut one, mut two) = (Shell::open(lab, WORKERS[0])?, Shell::open(lab, WORKERS[1])?);

    // It is a place where something is mounted: nothing can be renamed to it.
    one.run(&format!("mount --bind {CNI} {CNI} && echo >>{CNI}"))?;
    let hung = told::uptime(&mut one)?;
    one.run("kill -STOP $(systemctl show -p MainPID --value kubelet)")?;
    let mut spoilt = Vec::new();
    for drift in &DRIFTS {
        let shell = if drift.node == CONTROL { &mut control } else { &mut two };
        spoilt.push(wall(shell)?);
        shell.run(drift.spoil)?;
    }

    for (drift, since) in DRIFTS.iter().zip(spoilt) {
        let shell = if drift.node == CONTROL { &mut control } else { &mut two };
        let what = format!("{}: `{}` is undone", drift.node, drift.spoil);
        wait_until(&what, 10 * MINUTE, || Ok(shell.try_run(drift.look)?.0 == 0))?;
        let mut repaired = None;
        wait_until(&format!("the repair of {} is told", drift.step), 5 * MINUTE, || {
            let all = told::repaired(&told::node(lab, drift.node)?, drift.step)?;
            repaired = all.into_iter().find(|time| *time >= since);
            Ok(repaired.is_some())
        })?;
        let took = Duration::try_from(repaired.context("it is told")?.duration_since(since))?;
        within(&what, took, RESYNC + pace.allow(WORK))?;
        let begins = format!("{}: ", drift.step);
        ensure!(told::has_told(lab, before, drift.node, "RepairSucceeded", &begins)?, "no event of {what}");
    }

    wait_until("the kubelet's repair is told", 10 * MINUTE, || {
        told::has_told(lab, before, WORKERS[0], "RepairSucceeded", "kubelet: ")
    })?;
    let judged = told::judgements(&mut one, "KubeletReady")?;
    let noticed = told::judged_after(&judged, hung, false)?;
    within("until the kubelet that hangs is noticed", noticed, KUBELET_HEALED)?;
    let healed = told::judged_after(&judged, hung + noticed, true)? + noticed;
    within("until the kubelet answers again", healed, pace.allow(KUBELET_HEALED))?;

    is_given_up(lab, home, &mut one, before)?;
    wait_until("all nodes are Ready again", 10 * MINUTE, || {
        nodes_are_ready(lab, &NODES.map(|node| node.0)).map(|()| true)
    })
}

/// Three tries, then none any more until a person asks again, who has mended what was in the way.
fn is_given_up(lab: &Lab, home: &str, shell: &mut Shell, before: u64) -> Result<()> {
    let node = WORKERS[0];
    wait_until("the step that cannot be repaired is given up", 10 * MINUTE, || {
        told::has_told(lab, before, node, "RepairGaveUp", "cni: ")
    })?;
    wait_until("the step says until when it rests", 2 * MINUTE, || {
        let node = told::node(lab, node)?;
        let step = node["steps"].as_array().context("steps")?.iter().find(|step| step["name"] == "cni");
        let step = step.context("step cni")?;
        let message = step["message"].as_str().unwrap_or_default();
        ensure!(step["state"] == "failed" && message.contains("rests until"), "{step}");
        Ok(true)
    })?;
    let has_failed = |times: usize| -> Result<()> {
        let events = told::events_since(lab, before)?;
        let is_failed = |event: &&Value| {
            event["type"] == "RepairFailed"
                && event["object"] == format!("node {node}")
                && event["message"].as_str().is_some_and(|message| message.starts_with("cni: "))
        };
        let failed = events.iter().filter(is_failed).count();
        ensure!(failed == times, "{failed} tries failed, and not {times}");
        Ok(())
    };
    has_failed(3)?;

    shell.run(&format!("umount {CNI}"))?;
    let is_whole = format!("test -n \"$(tail -n 1 {CNI})\"");
    ensure!(shell.try_run(&is_whole)?.0 != 0, "the agent rests, and {CNI} was put back all the same");
    has_failed(3)?;
    k8sctl(lab, &["up", "-f", home])?;
    wait_until("`up` ends the rest", 10 * MINUTE, || Ok(shell.try_run(&is_whole)?.0 == 0))
}

/// The scheduler ends again and again until the kubelet would wait for minutes, which takes some minutes itself: a phase to
/// be asked for.
pub fn a_control_plane_waits_for_no_back_off(lab: &Lab, pace: Pace) -> Result<()> {
    phase("the kubelet lets a scheduler lie that has ended several times");
    let before = told::last_event(lab)?;
    let mut control = Shell::open(lab, CONTROL)?;
    let end = "pid=; for exe in /proc/[0-9]*/exe; do case $(readlink $exe) in */kube-scheduler) pid=${exe#/proc/}; \
               kill -KILL ${pid%/exe};; esac; done";
    let (mut ends, mut last) = (0, wall(&mut control)?);
    let is_repaired = || told::has_told(lab, before, CONTROL, "RepairSucceeded", "control-plane: ");
    wait_until("the kubelet is restarted for it", 20 * MINUTE, || {
        // One that was started by the repair goes on.
        if is_repaired()? {
            return Ok(true);
        }
        let (_, pids) = control.try_run(&format!("{end}; echo ${{pid%/exe}}"))?;
        if !pids.trim().is_empty() {
            (ends, last) = (ends + 1, wall(&mut control)?);
        }
        Ok(false)
    })?;
    let repaired = told::repaired(&told::node(lab, CONTROL)?, "control-plane")?;
    let repaired = repaired.last().context("the repair is on the node's list")?;
    // One that was started by it may have been ended as well.
    let took = Duration::try_from(repaired.duration_since(last)).unwrap_or_default();
    within(
        &format!("until a scheduler that ended {ends} times runs again"),
        took,
        BACK_OFF + pace.allow(WORK),
    )?;
    wait_until("all is well again", 10 * MINUTE, || told::is_well(lab))
}

/// The time that a VM's clock shows.
fn wall(shell: &mut Shell) -> Result<jiff::Timestamp> {
    let nanos = shell.number("date +%s%N")?;
    Ok(jiff::Timestamp::from_nanosecond(i128::from(nanos))?)
}
