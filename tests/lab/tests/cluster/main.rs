//! The life of one cluster on real VMs, from nothing to nothing. The phases share the cluster and run in the order
//! in which they stand here, since a fresh cluster costs minutes:
//!
//! up, the host agent killed three times, `k8sctl` once, a node agent and a whole VM while they join → what is in the
//! VMs → workload → again → logs, events, health → a VM crashes → containerd stops on a worker → drifts, a kubelet that
//! hangs, a repair that is given up → logs followed, *through a reboot and a cut link too → agents are replaced, bad ones
//! go back, the power lost once → support bundle* → plugins by commands, stuck, by the file, *one that takes the pod
//! network over* → a worker joins (the host agent killed three times), *has no room on the host's disk*, and leaves → the
//! network is stopped under the VMs → *host agent and libvirtd end, the host is suspended, its disk is full → random
//! faults* → strangers survive `down`.
//!
//! What stands between stars is left out, and that is said, on a machine on which the run would take hours, see
//! [`budget`]; `LAB_PHASES=all` asks for all of it in any case. Other values are for those who work on one phase, see
//! [`some`], and `half-an-hour` is `make soak`.

mod budget;
mod follow;
mod inside;
mod live;
mod plugins;
mod repairs;
mod soak;
mod some;
mod survival;
mod told;
mod upgrade;
mod workload;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab_tests::pace::Pace;
use lab_tests::{Lab, Running, phase, wait_until};
use serde_json::Value;

use self::budget::{Budget, Optional};

const MINUTE: Duration = Duration::from_secs(60);
/// Emulated VMs on a busy machine are slow; a wait ends when its condition holds.
const UP_DEADLINE: Duration = Duration::from_secs(40 * 60);
const NODES: [(&str, &str, u64, u64, u64); 3] = [
    ("k8s-control-plane-1", "192.168.122.10", 4, 8, 50),
    ("k8s-worker-1", "192.168.122.11", 2, 4, 30),
    ("k8s-worker-2", "192.168.122.12", 2, 4, 30),
];
/// Of `LAB_PHASES`: every phase, however slow the machine.
const ALL: &str = "all";
/// A plugin, a worker that comes and goes, a network that is stopped, and `down`.
const REST: Duration = MINUTE.saturating_mul(8);
const FOLLOWED: Optional = Optional {
    name: "a reboot and a cut link during `logs -f`",
    usual: MINUTE.saturating_mul(3),
    after: REST,
};
const UPGRADED: Optional =
    Optional { name: "agents are replaced", usual: MINUTE.saturating_mul(4), after: REST };
const BUNDLED: Optional = Optional { name: "a support bundle without an agent", usual: MINUTE, after: REST };
const REPLACED: Optional =
    Optional { name: "another pod network", usual: MINUTE.saturating_mul(3), after: REST };
const FULL: Optional = Optional { name: "a full disk under a VM", usual: MINUTE, after: REST };
const SURVIVED: Optional = Optional {
    name: "host agent killed, libvirtd restarted, host suspended, host's disk full",
    usual: MINUTE.saturating_mul(4),
    after: MINUTE,
};
const SOAKED: Optional = Optional { name: "the short soak", usual: MINUTE.saturating_mul(3), after: MINUTE };
/// A copy of worker 1.
const CLONE: &str = "k8s-worker-1-clone";

#[test]
fn a_cluster_from_nothing_to_nothing() -> Result<()> {
    let lab = Lab::here()?;
    match lab.phases().as_str() {
        "" | ALL => {}
        "half-an-hour" => return soak::half_an_hour_of_faults(&lab),
        names => return some::these(&lab, names),
    }
    let lived = from_nothing_to_nothing(&lab);
    if let Err(error) = &lived {
        println!("lab: {error:#}");
        tell_what_is_known(&lab);
        if let Err(error) = clear_away(&lab) {
            println!("lab: it is not cleared away: {error:#}");
        }
    }
    lived
}

fn from_nothing_to_nothing(lab: &Lab) -> Result<()> {
    let home = lab.repo("examples/home.toml").to_string_lossy().into_owned();
    let began = Instant::now();
    strangers_move_in(lab)?;

    let agent = up_interrupted(lab, &home)?;
    nodes_are_ready(lab, &NODES.map(|node| node.0))?;
    inside::agent_has_come_back(lab, "k8s-worker-2")?;
    inside::vms_have_their_sizes(lab)?;
    inside::no_secret_lies_open(lab)?;
    workload::system_pods_run(lab)?;
    workload::workload_answers(lab)?;
    again_changes_nothing(lab, &home)?;
    logs_and_events(lab)?;
    live::it_is_well(lab)?;
    let pace = survival::a_vm_crashes(lab)?;
    let mut budget = Budget::new(lab, began);
    let mut failures = Failures::default();
    failures.note(lab, live::conditions_and_logs_are_live(lab, pace))?;
    failures.note(lab, repairs::nodes_mend_themselves(lab, &home, pace))?;
    failures.note(lab, follow::markers_come_in_order(lab, pace))?;
    failures.note(lab, follow::bounds_are_exact(lab))?;
    if budget.has(FOLLOWED) {
        failures.note(lab, follow::nothing_is_lost_or_doubled(lab, pace))?;
    }
    if budget.has(UPGRADED) {
        failures.note(lab, upgrade::agents_are_replaced_and_bad_ones_go_back(lab))?;
    }
    if budget.has(BUNDLED) {
        failures.note(lab, upgrade::a_bundle_tells_of_all_of_it(lab))?;
    }
    failures.note(lab, plugins::plugins_live(lab, pace))?;
    if budget.has(REPLACED) {
        failures.note(lab, plugins::another_pod_network(lab))?;
    }
    let mut agent = a_worker_joins_and_leaves(lab, &home, agent, budget.has(FULL).then_some(pace))?;
    vms_come_back_onto_their_network(lab, &home)?;
    if budget.has(SURVIVED) {
        agent = survives(lab, agent, pace, &mut failures)?;
    }
    if budget.has(SOAKED) {
        agent = soak::for_a_while(lab, agent, pace)?;
    }
    down_leaves_strangers(lab)?;
    drop(agent);
    strangers_move_out(lab)?;
    budget.tell();
    failures.end()
}

/// Faults of the host. Gives the host agent that runs then.
fn survives(lab: &Lab, agent: Running, pace: Pace, failures: &mut Failures) -> Result<Running> {
    let agent = survival::host_agent_is_killed(lab, agent, pace)?;
    failures.note(lab, survival::libvirtd_is_restarted(lab, pace))?;
    failures.note(lab, survival::host_is_suspended(lab, &agent, pace))?;
    survival::host_agent_has_no_room(lab, agent, pace)
}

/// Of phases behind which the others have something to tell all the same: a run that costs so much shall tell all of it.
#[derive(Debug, Default)]
struct Failures(Vec<String>);

impl Failures {
    /// Keeps a failure for the end, where the cluster is well again.
    fn note(&mut self, lab: &Lab, lived: Result<()>) -> Result<()> {
        let Err(error) = lived else { return Ok(()) };
        let told = format!("{error:#}");
        println!("lab: FAILED: {told}");
        wait_until("all is well behind a failure", 20 * MINUTE, || told::is_well(lab))
            .with_context(|| told.clone())?;
        self.0.push(told);
        Ok(())
    }

    fn end(self) -> Result<()> {
        ensure!(self.0.is_empty(), "{} phases failed:\n{}", self.0.len(), self.0.join("\n"));
        Ok(())
    }
}

fn k8sctl(lab: &Lab, args: &[&str]) -> Result<String> {
    lab.run("k8sctl", args, UP_DEADLINE)
}

/// Kills the host agent at three points of one `up`; the fourth host agent finishes it.
fn up_interrupted(lab: &Lab, home: &str) -> Result<Running> {
    phase("up, killed in the middle of adopting a network");
    let mut agent = lab.host_agent(Some("after-add-dhcp-host"))?;
    let up = ["up", "-f", home, "--yes", "--no-wait"];
    lab.run("k8sctl", &up, 5 * MINUTE)?;
    agent.wait(5 * MINUTE)?;

    phase("up, killed after the first VM was started");
    agent = lab.host_agent(Some("after-start-domain"))?;
    agent.wait(5 * MINUTE)?;

    phase("up, killed while kubeadm runs");
    agent = lab.host_agent(None)?;
    wait_until("the control plane's kubeadm step runs", UP_DEADLINE, || {
        step_has_started(lab, "k8s-control-plane-1", "kubeadm")
    })?;
    agent.kill()?;

    phase("up, a VM powered off while it boots");
    agent = lab.host_agent(None)?;
    wait_until("worker 2 runs", 10 * MINUTE, || {
        Ok(lab.run("virsh", &["domstate", "k8s-worker-2"], MINUTE)?.trim() == "running")
    })?;
    lab.run("virsh", &["destroy", "k8s-worker-2"], MINUTE)?;

    inside::power_off_when_kubeadm_writes(lab, "k8s-worker-1")?;

    phase("up, its k8sctl killed, a VM powered off and a node agent killed while they join");
    let mut first = lab.spawn("k8sctl", &["up", "-f", home, "--yes"], &[])?;
    wait_until("worker 1 joins", UP_DEADLINE, || step_has_started(lab, "k8s-worker-1", "kubeadm"))?;
    first.kill()?;
    inside::kill_agent_while_joining(lab, "k8s-worker-2")?;

    phase("up, to its end");
    k8sctl(lab, &["up", "-f", home, "--yes"])?;
    was_powered_off_while_joining(lab, "k8s-worker-1")?;
    let domains = lab.run("virsh", &["--quiet", "list", "--all", "--name"], MINUTE)?;
    let mut names: Vec<&str> = domains.lines().filter(|line| !line.trim().is_empty()).collect();
    names.sort_unstable();
    ensure!(names == ["k8s-control-plane-1", "k8s-worker-1", "k8s-worker-2", "k8s-worker-9"], "{names:?}");
    Ok(agent)
}

/// Its VM was started again after kubeadm had begun, and before it was done.
fn was_powered_off_while_joining(lab: &Lab, node: &str) -> Result<()> {
    let events = k8sctl(lab, &["events", "-o", "json"])?;
    let of_node = |line: &&str| line.contains(&format!(" {node}\""));
    let lines: Vec<&str> = events.lines().filter(of_node).collect();
    let first = |what: &str| lines.iter().position(|line| line.contains(what));
    let began = first("kubeadm started").with_context(|| format!("{node} began to join:\n{events}"))?;
    let on = lines.iter().rposition(|line| line.contains("VMStarted")).context("its VM was started")?;
    let done = first("kubeadm is done").with_context(|| format!("{node} has joined:\n{events}"))?;
    ensure!(began < on && on < done, "{node}: kubeadm {began}, VM {on}, done {done}:\n{lines:#?}");
    // It knew at once what it shall be, and had no address yet: what needs one waits for it.
    let is_early = |line: &&&str| line.contains("host-os failed") || line.contains("cni failed");
    let early = lines[on..].iter().find(is_early);
    ensure!(early.is_none(), "{node}: {early:?}");
    Ok(())
}

/// Whether an event says that this node began that step.
fn step_has_started(lab: &Lab, node: &str, step: &str) -> Result<bool> {
    let events = k8sctl(lab, &["events", "-o", "json"])?;
    Ok(events.lines().any(|line| line.contains(node) && line.contains(&format!("{step} started"))))
}

/// The kubelets of a busy machine miss a heartbeat now and then, so that a node that was Ready is so again.
fn nodes_are_ready(lab: &Lab, names: &[&str]) -> Result<()> {
    wait_until("all nodes are Ready", 5 * MINUTE, || {
        let list = lab.get(&["nodes"])?;
        let nodes = list["items"].as_array().context("a list")?;
        let mut found: Vec<&str> =
            nodes.iter().filter_map(|node| node["metadata"]["name"].as_str()).collect();
        found.sort_unstable();
        ensure!(found == names, "nodes are {found:?}, expected {names:?}");
        for node in nodes {
            let conditions = node["status"]["conditions"].as_array().context("conditions")?;
            let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            ensure!(ready, "{} is not Ready: {conditions:?}", node["metadata"]["name"]);
        }
        Ok(true)
    })
}

fn again_changes_nothing(lab: &Lab, home: &str) -> Result<()> {
    phase("again");
    let plan = k8sctl(lab, &["plan", "-f", home])?;
    ensure!(plan.to_lowercase().contains("no changes"), "{plan}");
    let began = Instant::now();
    let up = k8sctl(lab, &["up", "-f", home])?;
    println!("lab: a second up took {:.1} s", began.elapsed().as_secs_f64());
    ensure!(up.to_lowercase().contains("no changes"), "{up}");
    ensure!(began.elapsed() < Duration::from_secs(5), "a second up took {:?}", began.elapsed());
    Ok(())
}

fn logs_and_events(lab: &Lab) -> Result<()> {
    phase("logs and events");
    for (node, ..) in NODES {
        for source in ["kubelet", "containerd", "agent"] {
            let args = ["logs", node, "--source", source, "--tail", "3"];
            let printed = lab.run("k8sctl", &args, 2 * MINUTE)?;
            ensure!((1..=3).contains(&printed.lines().count()), "{args:?} printed {printed:?}");
        }
    }
    let unknown = lab.try_run("k8sctl", &["logs", "k8s-worker-7"], MINUTE)?;
    ensure!(!unknown.status.success() && unknown.err.contains("NODE-UNKNOWN"), "{unknown:?}");

    let events = k8sctl(lab, &["events", "-o", "json"])?;
    let numbers: Vec<u64> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line)?["number"].as_u64().context("a number"))
        .collect::<Result<_>>()?;
    ensure!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "events are out of order");
    let status = lab.json("k8sctl", &["status", "-o", "json"])?;
    if workload::bundle_image(lab, "coredns")?.is_none() {
        ensure!(status.to_string().contains("NotInBundle"), "a bundle without CoreDNS says so: {status}");
    }
    Ok(())
}

/// Gives back the host agent that runs then. With a pace the host's disk is full under the worker for a while.
fn a_worker_joins_and_leaves(
    lab: &Lab,
    home: &str,
    mut agent: Running,
    pace: Option<Pace>,
) -> Result<Running> {
    phase("a worker joins, the host agent killed before its VM runs and around what it writes into its Node");
    let before = lab.get(&["nodes"])?;
    let three = std::fs::read_to_string(home)?;
    let four = format!(
        "{three}\n[[node]]\nname = \"k8s-worker-3\"\nrole = \"worker\"\nvcpus = 2\nmemory = \"2GiB\"\n\
         disk = \"20GiB\"\nip = \"192.168.122.13\"\n\
         labels = {{ \"topology.kubernetes.io/zone\" = \"cellar\", \"node-restriction.kubernetes.io/team\" = \"red\" }}\n"
    );
    let file = lab.file("four.toml");
    std::fs::write(&file, four)?;
    let file = file.to_string_lossy().into_owned();
    let plan = k8sctl(lab, &["plan", "-f", &file])?;
    ensure!(plan.contains("k8s-worker-3") && !plan.contains("k8s-worker-1"), "{plan}");
    agent.kill()?;
    agent = lab.host_agent(Some("after-create-volume"))?;
    k8sctl(lab, &["up", "-f", &file, "--no-wait"])?;
    agent.wait(UP_DEADLINE)?;
    let small = pace.map(|_| survival::disk_on_a_small_one(lab, "k8s-worker-3")).transpose()?;
    agent = lab.host_agent(Some("before-introduce-node"))?;
    agent.wait(UP_DEADLINE)?;
    agent = lab.host_agent(Some("after-introduce-node"))?;
    agent.wait(UP_DEADLINE)?;
    agent = lab.host_agent(None)?;
    k8sctl(lab, &["up", "-f", &file])?;
    nodes_are_ready(lab, &["k8s-control-plane-1", "k8s-worker-1", "k8s-worker-2", "k8s-worker-3"])?;
    // One that a kubelet may give itself, and one that it may not.
    let labels = &lab.get(&["node", "k8s-worker-3"])?["metadata"]["labels"];
    ensure!(labels["topology.kubernetes.io/zone"] == "cellar", "{labels}");
    ensure!(labels["node-restriction.kubernetes.io/team"] == "red", "{labels}");
    for old in before["items"].as_array().context("a list")? {
        let name = old["metadata"]["name"].as_str().context("a name")?;
        let now = lab.get(&["node", name])?;
        ensure!(now["metadata"]["uid"] == old["metadata"]["uid"], "{name} was registered anew");
    }

    if let (Some(small), Some(pace)) = (small, pace) {
        survival::vm_waits_for_room(lab, "k8s-worker-3", small, pace)?;
    }

    phase("its Node is deleted, and comes back");
    let uid = |node: &Value| node["metadata"]["uid"].as_str().map(str::to_owned);
    let deleted = uid(&lab.get(&["node", "k8s-worker-3"])?);
    lab.kubectl(&["delete", "node", "k8s-worker-3", "--ignore-not-found"], 5 * MINUTE)?;
    wait_until("worker 3 has registered anew, with its labels", 15 * MINUTE, || {
        let nodes = lab.get(&["nodes"])?;
        let mut nodes = nodes["items"].as_array().context("a list")?.iter();
        Ok(nodes.any(|node| {
            node["metadata"]["name"] == "k8s-worker-3"
                && uid(node) != deleted
                && node["metadata"]["labels"]["topology.kubernetes.io/zone"] == "cellar"
                && node["metadata"]["labels"]["node-restriction.kubernetes.io/team"] == "red"
        }))
    })?;
    k8sctl(lab, &["up", "-f", &file])?;
    nodes_are_ready(lab, &["k8s-control-plane-1", "k8s-worker-1", "k8s-worker-2", "k8s-worker-3"])?;

    phase("it leaves, after consent, when a disruption budget lets its pod go");
    let refused = lab.try_run("k8sctl", &["up", "-f", home], 2 * MINUTE)?;
    ensure!(!refused.status.success() && refused.err.contains("--yes"), "{refused:?}");
    lab.kubectl(&["scale", "deployment/echo", "--replicas=3"], MINUTE)?;
    lab.kubectl(&["rollout", "status", "deployment/echo", "--timeout=10m"], 11 * MINUTE)?;
    let budget = ["create", "poddisruptionbudget", "echo", "--selector=app=echo", "--min-available=3"];
    lab.kubectl(&budget, MINUTE)?;
    wait_until("the budget is counted", 5 * MINUTE, || {
        Ok(lab.get(&["poddisruptionbudget", "echo"])?["status"]["currentHealthy"] == 3)
    })?;
    let mut up = lab.spawn("k8sctl", &["up", "-f", home, "--yes"], &[])?;
    wait_until("status tells of the pod that stays", 10 * MINUTE, || {
        let status = k8sctl(lab, &["status"])?;
        Ok(status.contains("still on it, first default/echo-"))
    })?;
    ensure!(!up.has_ended()?, "up waits for the pod");
    lab.kubectl(&["delete", "poddisruptionbudget", "echo", "--ignore-not-found"], MINUTE)?;
    let ended = up.wait(UP_DEADLINE)?;
    ensure!(ended.success(), "{:?}", up.printed(ended)?);
    nodes_are_ready(lab, &NODES.map(|node| node.0))?;
    let domains = lab.run("virsh", &["--quiet", "list", "--all", "--name"], MINUTE)?;
    ensure!(!domains.contains("k8s-worker-3"), "{domains}");
    Ok(agent)
}

/// Somebody stops the network: no VM is on it any more, not even when it runs again.
fn vms_come_back_onto_their_network(lab: &Lab, home: &str) -> Result<()> {
    phase("the network is stopped under the VMs");
    let kubelet_answers = |ip: &str| {
        let address = format!("{ip}:10250").parse().expect("an address");
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
    };
    let all_answer = || Ok(NODES.iter().all(|node| kubelet_answers(node.1)));
    wait_until("each kubelet answers before", 5 * MINUTE, all_answer)?;
    lab.run("virsh", &["net-destroy", "default"], MINUTE)?;
    k8sctl(lab, &["up", "-f", home, "--yes"])?;
    wait_until("each kubelet answers again", 5 * MINUTE, all_answer)?;
    let events = k8sctl(lab, &["events", "-o", "json"])?;
    for (node, ..) in NODES {
        let is_told = |line: &str| line.contains("VMReattached") && line.contains(node);
        ensure!(events.lines().any(is_told), "no event tells that {node} was put back:\n{events}");
    }
    // libvirt goes on to say that it runs.
    phase("the network's bridge is removed under the VMs");
    lab.run("ip", &["link", "delete", "virbr0"], MINUTE)?;
    wait_until("each kubelet answers again, by itself", 5 * MINUTE, all_answer)?;
    // Kubernetes may have missed them for a moment.
    wait_until("all nodes are Ready again", 10 * MINUTE, || {
        nodes_are_ready(lab, &NODES.map(|node| node.0)).map(|()| true)
    })
}

/// A VM, a network and a volume that look like ours and are not.
fn strangers_move_in(lab: &Lab) -> Result<()> {
    phase("strangers");
    let write = |name: &str, xml: &str| -> Result<String> {
        let file = lab.file(name);
        std::fs::write(&file, xml)?;
        Ok(file.to_string_lossy().into_owned())
    };
    let domain = "<domain type='qemu'><name>k8s-worker-9</name><memory>65536</memory>\
                  <os><type arch='x86_64'>hvm</type></os></domain>";
    lab.run("virsh", &["define", &write("stranger-domain.xml", domain)?], MINUTE)?;
    let network = "<network><name>k8s-strange</name><bridge name='virbr-strange'/>\
                   <ip address='192.168.99.1' netmask='255.255.255.0'/></network>";
    lab.run("virsh", &["net-define", &write("stranger-network.xml", network)?], MINUTE)?;
    // libvirt's own default network, up as a distribution ships it.
    let default = "<network><name>default</name><forward mode='nat'/><bridge name='virbr0' stp='on' delay='0'/>\
                   <ip address='192.168.122.1' netmask='255.255.255.0'>\
                   <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>";
    lab.run("virsh", &["net-define", &write("default-network.xml", default)?], MINUTE)?;
    lab.run("virsh", &["net-start", "default"], MINUTE)?;
    lab.run("virsh", &["net-autostart", "default"], MINUTE)?;
    for (name, xml) in stranger_definitions(lab)? {
        std::fs::write(lab.file(&name), xml)?;
    }
    Ok(())
}

fn stranger_definitions(lab: &Lab) -> Result<Vec<(String, String)>> {
    Ok(vec![
        ("before-domain".to_owned(), lab.run("virsh", &["dumpxml", "k8s-worker-9"], MINUTE)?),
        ("before-strange".to_owned(), lab.run("virsh", &["net-dumpxml", "k8s-strange"], MINUTE)?),
        ("before-default".to_owned(), lab.run("virsh", &["net-dumpxml", "--inactive", "default"], MINUTE)?),
    ])
}

/// As `virt-clone` makes it of a node: it has our mark, boots from our image, and its disk's name begins as ours do. Gives
/// its definition and that name.
fn a_clone_moves_in(lab: &Lab) -> Result<(String, String)> {
    let of = lab.run("virsh", &["dumpxml", "--inactive", "k8s-worker-1"], MINUTE)?;
    // libvirt gives it others.
    let is_its_own = |line: &&str| !line.contains("<uuid>") && !line.contains("<mac address=");
    let xml: Vec<&str> = of.lines().filter(is_its_own).collect();
    let xml = xml
        .join("\n")
        .replace("<name>k8s-worker-1</name>", &format!("<name>{CLONE}</name>"))
        .replace("-k8s-worker-1.qcow2", &format!("-{CLONE}.qcow2"));
    let disk = xml.split(['\'', '"', '/']).find(|part| part.ends_with(&format!("-{CLONE}.qcow2")));
    let disk = disk.context("the clone has no disk")?.to_owned();
    lab.run("virsh", &["vol-create-as", "k8s-myhome", &disk, "1M", "--format", "qcow2"], MINUTE)?;
    let file = lab.file("clone.xml");
    std::fs::write(&file, xml)?;
    lab.run("virsh", &["define", &file.to_string_lossy()], MINUTE)?;
    Ok((lab.run("virsh", &["dumpxml", CLONE], MINUTE)?, disk))
}

fn down_leaves_strangers(lab: &Lab) -> Result<()> {
    phase("down");
    let volume = ["vol-create-as", "k8s-myhome", "stranger.qcow2", "1M", "--format", "qcow2"];
    lab.run("virsh", &volume, MINUTE)?;
    let stranger = lab.file("pool/stranger.qcow2");
    let before = std::fs::read(&stranger)?;
    let (clone, clone_disk) = a_clone_moves_in(lab)?;
    let refused = lab.try_run("k8sctl", &["down"], 2 * MINUTE)?;
    ensure!(!refused.status.success(), "down without consent and without a terminal is refused: {refused:?}");
    k8sctl(lab, &["down", "--yes"])?;
    for (name, now) in stranger_definitions(lab)? {
        let before = std::fs::read_to_string(lab.file(&name))?;
        ensure!(before == now, "{name} changed from\n{before}\nto\n{now}");
    }
    ensure!(std::fs::read(&stranger)? == before, "the foreign volume changed");
    let active = lab.run("virsh", &["--quiet", "net-list", "--name"], MINUTE)?;
    ensure!(active.contains("default"), "the adopted network was up and still is: {active}");
    ensure!(lab.run("virsh", &["dumpxml", CLONE], MINUTE)? == clone, "the clone changed");
    let domains = lab.run("virsh", &["--quiet", "list", "--all", "--name"], MINUTE)?;
    let mut domains: Vec<&str> = domains.split_whitespace().collect();
    domains.sort_unstable();
    ensure!(domains == [CLONE, "k8s-worker-9"], "left over: {domains:?}");
    // With the clone's disk stays the image that it boots from.
    let (images, others): (Vec<_>, Vec<_>) = pool_files(lab)?
        .into_iter()
        .partition(|name| ["base-", "kernel-", "initrd-"].iter().any(|kind| name.starts_with(kind)));
    ensure!(images.len() == 3, "images in the pool's directory: {images:?}");
    ensure!(others == [clone_disk, "stranger.qcow2".to_owned()], "in the pool's directory: {others:?}");
    Ok(())
}

fn pool_files(lab: &Lab) -> Result<Vec<String>> {
    let names = std::fs::read_dir(lab.file("pool"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// The next test has the lab as this one found it.
fn strangers_move_out(lab: &Lab) -> Result<()> {
    for file in pool_files(lab)? {
        lab.run("virsh", &["vol-delete", &file, "--pool", "k8s-myhome"], MINUTE)?;
    }
    clear_away(lab)
}

/// Whatever of this test's is at libvirt, VMs that run too, and what the host agent has of it.
fn clear_away(lab: &Lab) -> Result<()> {
    let kinds: [(&[&str], &str, &str); 3] = [
        (&["list"], "destroy", "undefine"),
        (&["net-list"], "net-destroy", "net-undefine"),
        (&["pool-list"], "pool-destroy", "pool-undefine"),
    ];
    for (list, stop, forget) in kinds {
        let names =
            |which: &[&str]| lab.run("virsh", &[&["--quiet"], list, which, &["--name"]].concat(), MINUTE);
        for name in names(&[])?.split_whitespace() {
            // It may have ended meanwhile; where it has not, it cannot be forgotten either.
            lab.try_run("virsh", &[stop, name], MINUTE)?;
        }
        for name in names(&["--all"])?.split_whitespace() {
            lab.run("virsh", &[forget, name], MINUTE)?;
        }
    }
    for dir in ["state", "pool"] {
        std::fs::remove_dir_all(lab.file(dir))?;
        std::fs::create_dir(lab.file(dir))?;
    }
    Ok(())
}

/// For whoever reads of the failure. The test's own host agent ended with it.
fn tell_what_is_known(lab: &Lab) {
    let _agent = match lab.host_agent(None) {
        Ok(agent) => agent,
        Err(error) => return println!("lab: no host agent tells of it: {error:#}"),
    };
    for args in [&["status"][..], &["events"]] {
        match lab.try_run("k8sctl", args, MINUTE) {
            Ok(printed) => println!("lab: k8sctl {}\n{}{}", args.join(" "), printed.out, printed.err),
            Err(error) => println!("lab: k8sctl {}: {error:#}", args.join(" ")),
        }
    }
}
