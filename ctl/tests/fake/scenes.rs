//! What the dashboard is looked at with: a cluster as it may be at home on a bad day, one whose API is down, and one
//! whose texts are a stranger's.

use k8sctl_proto::control::v1::*;
use k8sctl_proto::node::v1::{ConditionStatus, LogLine};

use super::{Answers, story};

/// It would act as markup.
pub const MARKUP: &str = "<img src=x onerror=\"window.acted=1\"><script>window.acted=1</script>";
/// It would act in a terminal: clears it, colours it, gives it a title and turns the direction of writing.
pub const CONTROL: &str = "\x1b[2J\x1b[31mred\x1b]0;stolen\x07\u{202e}gnp";
/// The same, made visible.
pub const CONTROL_SHOWN: &str = "\\x1b[2J\\x1b[31mred\\x1b]0;stolen\\x07\\u{202e}gnp";
/// Characters of two columns, and one of none.
pub const WIDE: &str = "日本語のログ e\u{301}";

const TRUE: ConditionStatus = ConditionStatus::True;
const FALSE: ConditionStatus = ConditionStatus::False;

/// A log line of so many seconds ago.
pub fn line(ago: i64, node: &str, source: &str, text: &str) -> ClusterLogLine {
    let line = LogLine { time: story::ago(ago), source: source.to_owned(), text: text.to_owned() };
    ClusterLogLine { node_name: node.to_owned(), line: Some(line), late: false }
}

/// The VM of a worker has crashed while another worker joins.
pub fn dead_node() -> Answers {
    let mut status = story::status();
    status.operation_id = story::OPERATION.to_owned();
    status.conditions = vec![
        story::condition("Ready", FALSE, "NotAsDesired", "node k8s-worker-1: VM: the VM is crashed"),
        story::condition("ControlPlaneReady", TRUE, "AllPartsReady", ""),
        story::condition("KubernetesAPI", TRUE, "Answers", ""),
        story::condition("HostOK", TRUE, "", ""),
    ];
    die(&mut status.nodes[1]);
    let joining = &mut status.nodes[2];
    joining.phase = "Configuring".to_owned();
    joining.message = "cni".to_owned();
    joining.powered_on = story::ago(41);
    joining.joined = story::ago(31);
    joining.conditions = vec![story::condition("AgentReady", TRUE, "InSession", "")];
    joining.steps = story::steps(2);
    let progress = vec![
        story::progress("network", "adopted", "", true, Vec::new()),
        story::progress("k8s-control-plane-1", "Ready", "", true, story::steps(4)),
        story::progress("k8s-worker-1", "VM", "the VM is crashed", false, story::steps(4)),
        story::progress("k8s-worker-2", "Configuring", "cni", false, story::steps(2)),
    ];
    Answers {
        endless: true,
        status: vec![status],
        operation: vec![story::operation(OperationState::Running, progress)],
        logs: logs(),
        log_notices: vec![LogNotice {
            node_name: "k8s-worker-1".to_owned(),
            message: "its agent went away; it is waited for".to_owned(),
        }],
        ..story::answers()
    }
}

/// The same cluster, later: its operation is over, and the Kubernetes API is down as well.
pub fn api_down() -> ClusterStatus {
    let mut status = story::status();
    status.conditions = vec![
        story::condition("Ready", FALSE, "NotAsDesired", "node k8s-worker-1: VM: the VM is crashed"),
        story::condition("KubernetesAPI", FALSE, "NoAnswer", "connection refused"),
    ];
    for node in &mut status.nodes {
        node.phase = "API".to_owned();
        node.message = "the Kubernetes API does not answer: connection refused".to_owned();
    }
    die(&mut status.nodes[1]);
    status
}

/// Every text that comes from a node, a pod or a plugin is one that would act if it could.
pub fn hostile() -> Answers {
    let mut answers = dead_node();
    let text = format!("{CONTROL} {MARKUP}");
    let status = &mut answers.status[0];
    status.nodes[1].message = text.clone();
    status.nodes[1].conditions[0].message = text.clone();
    status.plugins[0].message = text.clone();
    status.last_failure = Some(Failure { evidence: text.clone(), ..story::failure() });
    answers.operation[0].progress[2].message = text;
    answers.log_notices.clear();
    answers.logs = vec![
        line(9, "k8s-worker-1", "kubelet", CONTROL),
        line(8, "k8s-worker-1", "kubelet", MARKUP),
        line(7, "k8s-worker-1", "kubelet", WIDE),
        // It has to be cut within a character, on one screen or another.
        line(6, "k8s-worker-2", "kubelet", &WIDE.repeat(40)),
    ];
    answers
}

fn die(node: &mut NodeStatus) {
    let silence = "its agent has no session";
    node.vm_state = "crashed".to_owned();
    node.phase = "VM".to_owned();
    node.message = "the VM is crashed".to_owned();
    node.connected = false;
    node.last_seen = story::ago(72);
    node.conditions = vec![
        story::condition("VMRunning", FALSE, "NotRunning", "the VM is crashed"),
        story::condition("AgentReady", FALSE, "NoSession", silence),
        story::condition("KubeletReady", ConditionStatus::Unknown, "NoSession", silence),
    ];
}

fn logs() -> Vec<ClusterLogLine> {
    let (control, dead, joining) = ("k8s-control-plane-1", "k8s-worker-1", "k8s-worker-2");
    vec![
        line(
            95,
            control,
            "kubelet",
            "\"SyncLoop ADD\" source=\"api\" pods=[\"hello/hello-6d4cf56db6-x2x7p\"]",
        ),
        line(
            94,
            dead,
            "containerd",
            "CreateContainer within sandbox \"0c9f\" for name hello returns \"41aa\"",
        ),
        line(
            93,
            dead,
            "kubelet",
            "\"SyncLoop (probe)\" probe=\"readiness\" status=\"ready\" pod=\"hello/hello\"",
        ),
        line(41, control, "agent", "node k8s-worker-2 is expected"),
        line(31, joining, "agent", "first session with the host agent"),
        line(30, joining, "agent", "step host-os: running"),
        line(26, joining, "agent", "step host-os: done"),
        line(25, joining, "agent", "step containerd: running"),
        line(22, joining, "containerd", "containerd successfully booted in 0.041s"),
        line(21, joining, "agent", "step containerd: done"),
        line(20, joining, "agent", "step cni: running"),
        line(
            12,
            control,
            "kubelet",
            "\"Node became not ready\" node=\"k8s-worker-1\" reason=\"NodeStatusUnknown\"",
        ),
    ]
}
