//! What is seen from inside of the VMs.

use anyhow::{Context as _, Result, ensure};
use lab_tests::vm::Shell;
use lab_tests::{Lab, phase, wait_until};
use serde_json::Value;

use super::{MINUTE, NODES, UP_DEADLINE, step_has_started};

/// Has the VM lose its power, with nothing synced, a second after kubeadm has begun to write.
pub fn power_off_when_kubeadm_writes(lab: &Lab, node: &str) -> Result<()> {
    let wait = "until test -e /var/lib/kubelet/config.yaml; do sleep 0.5; done; sleep 1";
    let script = format!("{wait}; echo o >/proc/sysrq-trigger");
    Shell::open(lab, node)?.run(&format!("systemd-run --quiet --no-block sh -c '{script}'")).map(drop)
}

/// Kills the node agent with SIGKILL while its step kubeadm runs.
pub fn kill_agent_while_joining(lab: &Lab, node: &str) -> Result<()> {
    wait_until(&format!("{node} joins"), UP_DEADLINE, || step_has_started(lab, node, "kubeadm"))?;
    let mut shell = Shell::open(lab, node)?;
    shell.run("kill -KILL $(systemctl show -p MainPID --value k8s-node-agent)")?;
    let status = lab.json("k8sctl", &["status", "-o", "json"])?;
    let steps = status["nodes"].as_array().context("nodes")?.iter().find(|found| found["name"] == node);
    let steps = steps.and_then(|found| found["steps"].as_array()).context("its steps")?;
    let kubeadm = steps.iter().find(|step| step["name"] == "kubeadm").context("step kubeadm")?;
    ensure!(kubeadm["state"] != "done", "{node} was through with kubeadm before its agent was killed");
    Ok(())
}

/// The agent that was killed came back by itself.
pub fn agent_has_come_back(lab: &Lab, node: &str) -> Result<()> {
    let restarts = Shell::open(lab, node)?.number("systemctl show -p NRestarts --value k8s-node-agent")?;
    ensure!(restarts == 1, "the agent of {node} was started anew {restarts} times");
    Ok(())
}

/// The sizes of the file, as Kubernetes and the VM itself have them.
pub fn vms_have_their_sizes(lab: &Lab) -> Result<()> {
    phase("what is in the VMs");
    for (name, ip, vcpus, memory_gib, disk_gib) in NODES {
        let node = lab.get(&["node", name])?;
        let addresses = node["status"]["addresses"].to_string();
        ensure!(addresses.contains(&format!("\"{ip}\"")), "{name} has {addresses}, expected {ip}");
        let capacity = &node["status"]["capacity"];
        ensure!(
            capacity["cpu"].as_str().and_then(|text| text.parse().ok()) == Some(vcpus),
            "{name} has {} CPUs, expected {vcpus}",
            capacity["cpu"]
        );
        // The kernel keeps some memory, and the file system its tables, for themselves.
        within(name, "memory", kib(&capacity["memory"])?, memory_gib << 20)?;
        within(name, "disk", kib(&capacity["ephemeral-storage"])?, disk_gib << 20)?;

        let mut shell = Shell::open(lab, name)?;
        let seen = shell.number("nproc")?;
        ensure!(seen == vcpus, "{name}: nproc says {seen}, expected {vcpus}");
        within(
            name,
            "memory",
            shell.number("awk '/MemTotal/ { print $2 }' /proc/meminfo")?,
            memory_gib << 20,
        )?;
        within(name, "disk", shell.number("df -k --output=size / | tail -n 1")?, disk_gib << 20)?;
        let hostname = shell.run("hostname")?;
        ensure!(hostname.trim() == name, "the host name of {name} is {hostname}");
    }
    Ok(())
}

fn kib(quantity: &Value) -> Result<u64> {
    let text = quantity.as_str().context("a quantity")?;
    Ok(text.strip_suffix("Ki").with_context(|| format!("{text} in Ki"))?.parse()?)
}

fn within(node: &str, what: &str, found: u64, expected: u64) -> Result<()> {
    ensure!(
        found <= expected && found >= expected / 100 * 90,
        "{node}: {what} is {found} KiB of {expected} KiB"
    );
    Ok(())
}

/// The host agent's port on the bridge.
const NODE_PORT: (&str, u16) = ("192.168.122.1", 7443);

/// Nodes reach the host agent, and their pods, which come with their address, do not.
pub fn pods_do_not_reach_the_host_agent(lab: &Lab, pods: &[String]) -> Result<()> {
    let (host, port) = NODE_PORT;
    Shell::open(lab, "k8s-worker-1")?.run(&format!("timeout 20 bash -c ': </dev/tcp/{host}/{port}'"))?;
    for pod in pods {
        let dial = format!("/bin/busybox nc -w 5 {host} {port} </dev/null && echo open || echo shut");
        let dial = ["exec", pod, "--", "/bin/busybox", "sh", "-c", &dial];
        // The API server may be busy, so not at once; a pod that reaches it once does so again.
        wait_until(&format!("{pod} does not reach the host agent"), 5 * MINUTE, || {
            Ok(lab.kubectl(&dial, MINUTE)?.trim() == "shut")
        })?;
    }
    Ok(())
}

/// A private key, or a bootstrap token of kubeadm's.
const SECRET: &str =
    "PRIVATE KEY-----|client-key-data: |(^|[^a-z0-9.])[a-z0-9]{6}[.][a-z0-9]{16}([^a-z0-9.]|$)";
/// Where programs of ours, kubeadm's and the kubelet's write.
const WRITTEN: &str = "/etc /run /root /tmp /var/tmp /var/log /var/lib/kubelet /var/lib/k8s-myhome";
/// The pattern is there, so that it is in nobody's arguments.
const PATTERN: &str = "/root/secret-pattern";
/// Looks as if it were a secret.
const PLANTED: &str = "abcdef.0123456789abcdef";

/// No key or token in a file that not only root reads, in an argument, an environment or the journal. What lies open since
/// it was put there is found by the same look.
pub fn no_secret_lies_open(lab: &Lab) -> Result<()> {
    phase("secrets in the VMs");
    std::thread::scope(|scope| {
        let looks = NODES.map(|(name, ..)| {
            scope.spawn(move || no_secret_lies_open_in(lab, name).with_context(|| name.to_owned()))
        });
        looks
            .into_iter()
            .try_for_each(|look| look.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn no_secret_lies_open_in(lab: &Lab, name: &str) -> Result<()> {
    let mut shell = Shell::open(lab, name)?;
    shell.run(&format!("umask 077; echo '{SECRET}' >{PATTERN}"))?;
    shell.run(&format!("echo {PLANTED} >/var/lib/kubelet/open && chmod 644 /var/lib/kubelet/open"))?;
    let planted = format!("PLANTED={PLANTED} sleep infinity </dev/null >/dev/null 2>&1 & echo $!");
    let planted = shell.number(&planted)?;
    shell.run(&format!("echo token {PLANTED} | systemd-cat -t open; journalctl --sync"))?;

    // In bytes: the tables of other locales cost minutes here. Files and processes go while it looks.
    let grep = format!("LC_ALL=C grep -E -f {PATTERN}");
    let files = shell.try_run(&format!(
        "exec 2>/dev/null; \
         find {WRITTEN} -xdev -type f -perm /077 -exec env {grep} -lI {{}} + | grep -v ^/run/log/"
    ))?;
    let processes = shell.try_run(&format!(
        "exec 2>/dev/null; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n' | {grep}"
    ))?;
    let journal = shell.try_run(&format!("journalctl -q -o cat | {grep}"))?;
    shell.run(&format!("kill {planted}; rm /var/lib/kubelet/open {PATTERN}"))?;

    ensure!(files.1.trim() == "/var/lib/kubelet/open", "secrets in files that others may read: {files:?}");
    ensure!(
        processes.1.trim() == format!("PLANTED={PLANTED}"),
        "secrets in arguments or environments: {processes:?}"
    );
    // What puts them there is in the journal as well, where the debug unit's commands are.
    let is_planted = |line: &str| line.contains(PLANTED);
    let others: Vec<&str> = journal.1.lines().filter(|line| !is_planted(line)).collect();
    ensure!(others.is_empty(), "secrets in the journal: {others:?}");
    ensure!(journal.1.lines().any(|line| line == format!("token {PLANTED}")), "the look found {journal:?}");
    Ok(())
}
