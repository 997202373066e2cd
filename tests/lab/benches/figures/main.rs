//! The measured figures of real VMs: `make bench`, or one of them by `make bench BENCH=name`, the name of a bench or of a
//! figure. Runs inside of a lab. What is done with figures is in [`bench_figures`].

mod follow;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bench_figures::{Figure, Suite, median, pairs, results};
use lab_tests::vm::Shell;
use lab_tests::{Lab, wait_until};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(30 * 60);

fn main() -> Result<()> {
    let lab = Lab::here()?;
    let bench = |name: &str| match name {
        "up" => bench_up,
        _ => bench_running,
    };
    bench_figures::run(Suite::Lab, &lab.repo(""), &lab, bench, |_| false)
}

/// `k8sctl up` from nothing to all nodes Ready, against the same VMs driven by plain kubeadm.
fn bench_up(lab: &Lab, figures: &mut Vec<Figure>) -> Result<()> {
    let pairs = pairs()?;
    let (mut baselines, mut ups) = (Vec::new(), Vec::new());
    for pair in 1..=pairs {
        let baseline = baseline(lab)?;
        println!("  pair {pair}: plain kubeadm {baseline:.0} s");
        let up = up(lab)?;
        println!("  pair {pair}: k8sctl up     {up:.0} s");
        // Where the time went, node by node.
        let events = lab.run("k8sctl", &["events", "-o", "json"], MINUTE)?;
        fs::write(results()?.join(format!("up-{pair}-events.jsonl")), events)?;
        for node in lab.get(&["nodes"])?["items"].as_array().context("a list")? {
            let name = node["metadata"]["name"].as_str().context("a name")?;
            for source in ["agent", "kubelet"] {
                let logs =
                    lab.run("k8sctl", &["logs", name, "--source", source, "--tail", "2000"], 5 * MINUTE)?;
                fs::write(results()?.join(format!("up-{pair}-{name}-{source}.log")), logs)?;
            }
        }
        baselines.push(baseline);
        ups.push(up);
        down(lab)?;
    }
    figures.push(Figure {
        name: "up-to-all-ready",
        value: median(&mut ups),
        unit: "s",
        baseline: Some(median(&mut baselines)),
    });
    Ok(())
}

fn home(lab: &Lab) -> String {
    lab.repo("examples/home.toml").to_string_lossy().into_owned()
}

fn baseline(lab: &Lab) -> Result<f64> {
    let script = lab.repo("tests/lab/baseline").to_string_lossy().into_owned();
    let printed = lab.run(&script, &[&home(lab)], DEADLINE)?;
    let seconds = printed
        .lines()
        .find_map(|line| line.strip_prefix("baseline ready "))
        .with_context(|| format!("the baseline printed no time: {printed}"))?
        .parse()?;
    for name in lab.run("virsh", &["--quiet", "list", "--name"], MINUTE)?.split_whitespace() {
        lab.run("virsh", &["destroy", name], MINUTE)?;
        fs::remove_file(lab.file("pool").join(format!("{name}.qcow2")))?;
        // The console must be a new one for the next pair.
        fs::remove_file(lab.file(&format!("{name}.console")))?;
    }
    lab.run("virsh", &["net-destroy", "default"], MINUTE)?;
    Ok(seconds)
}

/// The contexts in it are of clusters that are gone.
fn forget_kubeconfig(lab: &Lab) -> Result<()> {
    let kubeconfig = lab.file("kubeconfig");
    if kubeconfig.exists() {
        fs::remove_file(kubeconfig)?;
    }
    Ok(())
}

fn up(lab: &Lab) -> Result<f64> {
    forget_kubeconfig(lab)?;
    let began = Instant::now();
    lab.run("k8sctl", &["up", "-f", &home(lab), "--yes", "--no-wait"], DEADLINE)?;
    lab.run("k8sctl", &["kubeconfig"], MINUTE)?;
    // Nothing is started again and again meanwhile, as nothing is for the baseline: a program a look would take from the
    // VMs. kubectl is asked at the end only, too: each time costs an API server that comes up a handshake.
    let watching = lab.spawn("k8sctl", &["status", "-w", "-o", "json"], &[])?;
    wait_until("all nodes are Ready for status", DEADLINE, || {
        let shown = watching.read()?.0;
        // The last line may not be whole yet.
        let Some(status) = shown.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok())
        else {
            return Ok(false);
        };
        let nodes = status["nodes"].as_array().context("nodes")?;
        Ok(!nodes.is_empty() && nodes.iter().all(|node| node["phase"] == "Ready"))
    })?;
    drop(watching);
    wait_until("all nodes are Ready", DEADLINE, || {
        let nodes = lab.get(&["nodes"])?;
        let nodes = nodes["items"].as_array().context("a list")?;
        let is_ready = |node: &&Value| {
            let conditions = node["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        };
        Ok(nodes.iter().filter(is_ready).count() == 3)
    })?;
    Ok(began.elapsed().as_secs_f64())
}

fn down(lab: &Lab) -> Result<()> {
    lab.run("k8sctl", &["down", "--yes"], DEADLINE)?;
    Ok(())
}

/// What a running cluster costs: time to join, `status`, memory of the two agents, and how late its lines are.
fn bench_running(lab: &Lab, figures: &mut Vec<Figure>) -> Result<()> {
    forget_kubeconfig(lab)?;
    lab.run("k8sctl", &["up", "-f", &home(lab), "--yes"], DEADLINE)?;
    let status = lab.json("k8sctl", &["status", "-o", "json"])?;
    let nodes = status["nodes"].as_array().context("nodes")?;
    let (mut joins, mut ours) = (Vec::new(), Vec::new());
    for node in nodes {
        let seconds = |key: &str| -> Result<f64> {
            let text = node[key].as_str().with_context(|| format!("{key} of {node}"))?;
            Ok(text.parse::<jiff::Timestamp>()?.as_millisecond() as f64 / 1000.0)
        };
        let join = seconds("joined")? - seconds("powered_on")?;
        let boot = node.pointer("/facts/boot_to_agent_seconds").and_then(Value::as_f64);
        joins.push(join);
        ours.push(join - boot.with_context(|| format!("no boot time in {node}"))?);
    }
    let join = median(&mut joins);
    figures.push(Figure { name: "power-on-to-joined", value: join, unit: "s", baseline: None });
    // What the kernel and systemd do before our agent runs is not ours; the ratio is our share.
    figures.push(Figure {
        name: "agent-start-to-joined",
        value: median(&mut ours),
        unit: "s",
        baseline: Some(join),
    });

    let mut times = Vec::new();
    let mut floor = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        lab.run("k8sctl", &["status"], MINUTE)?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        let began = Instant::now();
        lab.run("k8sctl", &["version", "--client"], MINUTE)?;
        floor.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let baseline = Some(median(&mut floor));
    figures.push(Figure { name: "status", value: median(&mut times), unit: "ms", baseline });

    let pid = fs::read_to_string("/run/k8s-myhome/k8s-host-agent.pid")?;
    let status = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = rss.trim().trim_end_matches(" kB").parse()?;
    figures.push(Figure { name: "host-agent-resident", value: kib / 1024.0, unit: "MiB", baseline: None });
    let names: Vec<&str> = nodes.iter().filter_map(|node| node["name"].as_str()).collect();
    let mut agents = Vec::new();
    for name in &names {
        agents.push(node_agent_resident(lab, name)?);
    }
    let largest = agents.into_iter().fold(0.0, f64::max);
    figures.push(Figure { name: "node-agent-resident", value: largest, unit: "MiB", baseline: None });
    figures.push(follow::latency(lab, &names)?);
    down(lab)
}

/// MiB that the node agent holds, read inside of its VM.
fn node_agent_resident(lab: &Lab, node: &str) -> Result<f64> {
    let read = "awk '/^VmRSS:/ { print $2 }' \
                /proc/$(systemctl show -p MainPID --value k8s-node-agent)/status";
    Ok(Shell::open(lab, node)?.number(read)? as f64 / 1024.0)
}
