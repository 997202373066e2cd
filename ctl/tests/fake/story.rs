//! The story that the fake tells: a home cluster with three nodes that comes up.

use std::time::{SystemTime, UNIX_EPOCH};

use k8sctl_proto::control::v1::*;
use k8sctl_proto::node::v1::{
    Condition, ConditionStatus, Evidence, LogLine, NodeFacts, NodeRole, Repair, RepairOutcome, StepState,
    StepStatus,
};
use prost_types::Timestamp;

use super::Answers;

pub const OPERATION: &str = "0198-op";
pub const KUBECONFIG: &str = "apiVersion: v1
kind: Config
current-context: home
clusters: [{name: home, cluster: {server: 'https://192.168.122.10:6443', certificate-authority-data: Q0E=}}]
contexts: [{name: home, context: {cluster: home, user: admin}}]
users: [{name: admin, user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}}]
";
const STEPS: [&str; 4] = ["host-os", "containerd", "cni", "kubeadm"];
const NODES: [(&str, &str); 3] = [
    ("k8s-control-plane-1", "192.168.122.10"),
    ("k8s-worker-1", "192.168.122.11"),
    ("k8s-worker-2", "192.168.122.12"),
];

/// Seconds before now.
pub fn ago(seconds: i64) -> Option<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    Some(Timestamp { seconds: now - seconds, nanos: 500_000_000 })
}

pub fn change(action: Action, kind: &str, name: &str, reason: &str, destructive: bool) -> Change {
    let (kind, name, reason) = (kind.to_owned(), name.to_owned(), reason.to_owned());
    Change { action: action.into(), kind, name, reason, destructive, ..Default::default() }
}

pub fn plan() -> Plan {
    let mut changes = vec![
        change(Action::Adopt, "network", "default", "it exists with the CIDR of the spec", false),
        change(Action::Create, "pool", "k8s-myhome", "it does not exist", false),
    ];
    for (name, ip) in NODES {
        changes.push(change(Action::Create, "domain", name, &format!("new node at {ip}"), false));
    }
    Plan {
        cluster_name: "home".to_owned(),
        changes,
        digest: "digest-of-the-plan".to_owned(),
        notices: vec!["no KVM on this host: the VMs are emulated, which is slow".to_owned()],
        kubernetes_version: "v1.29.0".to_owned(),
        image_id: "ab".repeat(32),
        ..Default::default()
    }
}

/// A plan that loses something.
pub fn destructive_plan() -> Plan {
    let gone = change(Action::Delete, "domain", "k8s-worker-2", "it left the file", true);
    Plan { changes: vec![gone], ..plan() }
}

/// So many of them are done, and the next one runs.
pub fn steps(done: usize) -> Vec<StepStatus> {
    let state = |index: usize| match index.cmp(&done) {
        std::cmp::Ordering::Less => StepState::Done,
        std::cmp::Ordering::Equal => StepState::Running,
        std::cmp::Ordering::Greater => StepState::Pending,
    };
    let step = |(index, name): (usize, &&str)| StepStatus {
        name: (*name).to_owned(),
        state: state(index).into(),
        message: if index == done { "working on it".to_owned() } else { String::new() },
        attempts: u32::from(index <= done),
        started: ago(5),
        ..Default::default()
    };
    STEPS.iter().enumerate().map(step).collect()
}

pub fn operation(state: OperationState, progress: Vec<Progress>) -> Operation {
    Operation {
        id: OPERATION.to_owned(),
        cluster_name: "home".to_owned(),
        kind: "up".to_owned(),
        state: state.into(),
        started: ago(252),
        finished: if state == OperationState::Running { None } else { ago(0) },
        progress,
        failure: None,
    }
}

pub fn progress(object: &str, phase: &str, message: &str, done: bool, steps: Vec<StepStatus>) -> Progress {
    let (object, phase, message) = (object.to_owned(), phase.to_owned(), message.to_owned());
    Progress { object, phase, message, done, started: ago(12), steps }
}

/// The states of an `up` that ends well.
pub fn operation_up() -> Vec<Operation> {
    let network = || progress("network", "adopted", "", true, Vec::new());
    let mut states = vec![operation(OperationState::Running, vec![network()])];
    let booting = NODES
        .map(|(name, _)| progress(name, "Booting", "waiting for its agent to call home", false, Vec::new()));
    states.push(operation(OperationState::Running, [vec![network()], booting.to_vec()].concat()));
    for (done, step) in STEPS.iter().enumerate() {
        let nodes = NODES.map(|(name, _)| progress(name, "Configuring", step, false, steps(done)));
        states.push(operation(OperationState::Running, [vec![network()], nodes.to_vec()].concat()));
    }
    let nodes = NODES.map(|(name, _)| progress(name, "Ready", "", true, steps(STEPS.len())));
    states.push(operation(OperationState::Succeeded, [vec![network()], nodes.to_vec()].concat()));
    states
}

/// The states of an `up` that fails.
pub fn operation_failed() -> Vec<Operation> {
    let mut states = operation_up();
    states.truncate(3);
    let mut last = states[2].clone();
    last.state = OperationState::Failed.into();
    last.finished = ago(0);
    last.failure = Some(failure());
    states.push(last);
    states
}

pub fn failure() -> Failure {
    Failure {
        id: "NODE-SILENT".to_owned(),
        object: "node k8s-worker-1".to_owned(),
        reason: "its agent has not called home for 15 min".to_owned(),
        next_step: "look at its console: k8sctl logs k8s-worker-1".to_owned(),
        evidence: "[    1.0] Kernel panic\x1b[31m - not syncing\nend of console".to_owned(),
    }
}

pub fn condition(kind: &str, status: ConditionStatus, reason: &str, message: &str) -> Condition {
    let (reason, message) = (reason.to_owned(), message.to_owned());
    Condition { r#type: kind.to_owned(), status: status.into(), reason, message, since: ago(60) }
}

pub fn status() -> ClusterStatus {
    let node = |(index, (name, ip)): (usize, &(&str, &str))| NodeStatus {
        name: (*name).to_owned(),
        id: format!("node-{index}"),
        role: if index == 0 { NodeRole::ControlPlane.into() } else { NodeRole::Worker.into() },
        ip: (*ip).to_owned(),
        vm_state: "running".to_owned(),
        phase: "Ready".to_owned(),
        conditions: vec![condition("KubeletReady", ConditionStatus::True, "Healthy", "")],
        steps: steps(STEPS.len()),
        connected: true,
        last_seen: ago(1),
        agent_version: "0.1.0".to_owned(),
        powered_on: ago(4000),
        joined: ago(3990),
        facts: Some(NodeFacts {
            vcpus: 2,
            memory_bytes: 4 << 30,
            disk_bytes: 30 << 30,
            kernel: "6.1.0-41-amd64".to_owned(),
            os: "Debian GNU/Linux 12".to_owned(),
            hostname: (*name).to_owned(),
            boot_to_agent: Some(prost_types::Duration { seconds: 7, nanos: 250_000_000 }),
        }),
        ..Default::default()
    };
    ClusterStatus {
        name: "home".to_owned(),
        id: "0198-cluster".to_owned(),
        generation: 3,
        kubernetes_version: "v1.29.0".to_owned(),
        image_id: "ab".repeat(32),
        conditions: vec![
            condition("Ready", ConditionStatus::True, "AllNodesReady", ""),
            condition("KubernetesAPI", ConditionStatus::True, "Answers", ""),
        ],
        nodes: NODES.iter().enumerate().map(node).collect(),
        plugins: vec![plugin("Ready")],
        ..Default::default()
    }
}

/// A cluster with trouble, of the lab's bundle.
pub fn troubled_status() -> ClusterStatus {
    let mut status = status();
    status.trial_bundle = true;
    status.kubernetes_version = "v1.20.2".to_owned();
    status.operation_id = OPERATION.to_owned();
    status.last_failure = Some(failure());
    let bad = ConditionStatus::False;
    status.conditions = vec![
        condition("Ready", bad, "NotAsDesired", "node k8s-worker-1: Disconnected: its agent has no session"),
        condition("AgentsReady", bad, "NoSession", "k8s-worker-1: its agent has no session"),
        condition("ClusterDNS", bad, "NotInBundle", "the bundle has no CoreDNS"),
    ];
    let node = &mut status.nodes[1];
    node.phase = "Disconnected".to_owned();
    node.message = "its agent has no session".to_owned();
    node.connected = false;
    node.last_seen = ago(72);
    let silence = "its agent has no session";
    node.conditions = vec![
        condition("DiskOK", bad, "Full", "3 % free on /var\x1b[2J"),
        condition("AgentReady", bad, "NoSession", silence),
        condition("KubeletReady", ConditionStatus::Unknown, "NoSession", silence),
    ];
    node.steps[3] = failed_step();
    node.repairs = vec![
        repair(16, RepairOutcome::Repaired, "restarted containerd.service", ""),
        repair(17, RepairOutcome::GaveUp, "", "rests until 19:00\x1b[2J"),
    ];
    status
}

fn failed_step() -> StepStatus {
    let finished = ago(63);
    StepStatus {
        name: "kubeadm".to_owned(),
        state: StepState::Failed.into(),
        message: "kubeadm join failed".to_owned(),
        attempts: 3,
        started: finished.map(|time| Timestamp { seconds: time.seconds - 12, ..time }),
        finished,
        evidence: Some(Evidence {
            argv: vec!["kubeadm".to_owned(), "join".to_owned()],
            exit_status: Some(1),
            output_tail: "[preflight] no\x1b[2J\n".to_owned(),
            journal_tail: "kubelet says\n".to_owned(),
        }),
    }
}

fn repair(number: u64, outcome: RepairOutcome, action: &str, message: &str) -> Repair {
    Repair {
        number,
        time: ago(125),
        object: "containerd".to_owned(),
        reason: "it does not run".to_owned(),
        action: action.to_owned(),
        outcome: outcome.into(),
        message: message.to_owned(),
    }
}

pub fn plugin(state: &str) -> PluginStatus {
    PluginStatus {
        name: "hello".to_owned(),
        version: "0.1.0".to_owned(),
        state: state.to_owned(),
        message: "2 of 2 objects are ready".to_owned(),
        objects: 2,
        installed: ago(100),
        trust: "built-in".to_owned(),
        origin: "command".to_owned(),
        revision: 1,
        ..Default::default()
    }
}

/// One that is not ready, since a pod of it cannot pull its image.
pub fn blocked_plugin() -> PluginStatus {
    PluginStatus {
        message: "0 of 2 objects are ready".to_owned(),
        blocking: Some(Blocking {
            object: "apps/v1 Deployment hello/hello".to_owned(),
            reason: "0 of 2 pods are available".to_owned(),
            pod: "pod hello-7d9f on k8s-worker-1: container hello: ImagePullBackOff\x1b[2J".to_owned(),
            since: ago(72),
        }),
        drifted: vec!["v1 Service hello/hello".to_owned()],
        ..plugin("Installing")
    }
}

pub fn offer() -> PluginOffer {
    let permissions = vec![
        "get,create,patch,delete Deployment.apps in namespace hello: the web servers".to_owned(),
        "get,create,patch,delete Service in namespace hello: one address for all".to_owned(),
    ];
    PluginOffer {
        name: "hello".to_owned(),
        version: "0.1.0".to_owned(),
        new_permissions: permissions.clone(),
        permissions,
        permissions_digest: "digest-of-the-permissions".to_owned(),
        objects: vec!["v1 Namespace hello".to_owned(), "apps/v1 Deployment hello/hello".to_owned()],
        trust: "built-in".to_owned(),
        remarks: vec!["create 2, change 0, delete 0".to_owned()],
        plan_digest: "digest-of-the-offer".to_owned(),
        ..Default::default()
    }
}

fn event(number: u64, object: &str, kind: &str, message: &str, warning: bool) -> Event {
    let (object, r#type, message) = (object.to_owned(), kind.to_owned(), message.to_owned());
    let cluster_name = "home".to_owned();
    Event { number, time: ago(100 - number as i64), cluster_name, object, r#type, message, warning }
}

fn check(id: &str, state: CheckState, message: &str, hint: &str) -> Check {
    Check { id: id.to_owned(), state: state.into(), message: message.to_owned(), hint: hint.to_owned() }
}

/// All goes well.
pub fn answers() -> Answers {
    let line = |node: &str, source: &str, text: &str| ClusterLogLine {
        node_name: node.to_owned(),
        line: Some(LogLine { time: ago(1), source: source.to_owned(), text: text.to_owned() }),
        late: false,
    };
    Answers {
        clusters: vec!["home".to_owned()],
        plan: plan(),
        apply: ApplyResponse { operation_id: OPERATION.to_owned(), ..Default::default() },
        operation: operation_up(),
        status: vec![status()],
        events: vec![
            event(7, "node k8s-worker-1", "VMStarted", "its VM was started", false),
            event(8, "node k8s-worker-1", "NodeJoined", "first session", false),
            event(9, "node k8s-worker-2", "StepFailed", "kubeadm: exit status 1", true),
        ],
        logs: vec![
            line("k8s-worker-1", "kubelet", "started"),
            ClusterLogLine { late: true, ..line("k8s-worker-2", "kubelet", "started late") },
            line("k8s-worker-1", "agent", "evil \x1b[31mred"),
        ],
        kubeconfig: KUBECONFIG.to_owned(),
        checks: vec![
            check("libvirtd-running", CheckState::Ok, "libvirtd 9.0.0 answers", ""),
            check("kvm", CheckState::Warning, "no /dev/kvm", "turn on virtualisation in the firmware"),
        ],
        bundles: vec![Bundle {
            name: "kubernetes-v1.29.0-x86_64".to_owned(),
            kubernetes_version: "v1.29.0".to_owned(),
            arch: "x86_64".to_owned(),
            trial: false,
            size_bytes: 500 << 20,
            path: "/var/lib/k8s-myhome/bundles/kubernetes-v1.29.0-x86_64.k8sbundle".to_owned(),
            problem: None,
        }],
        images: vec![Image {
            id: "ab".repeat(32),
            kubernetes_version: "v1.29.0".to_owned(),
            bundle: "kubernetes-v1.29.0-x86_64".to_owned(),
            suite: "bookworm".to_owned(),
            size_bytes: 900 << 20,
            created: ago(90_000),
            trial: false,
            used_by: vec!["home".to_owned()],
            problem: None,
        }],
        plugins: vec![plugin("Ready")],
        offer: Some(offer()),
        ..Default::default()
    }
}

/// A failing check of the doctor.
pub fn failed_check() -> Check {
    check("libvirtd-running", CheckState::Failed, "nobody answers", "systemctl start libvirtd")
}
