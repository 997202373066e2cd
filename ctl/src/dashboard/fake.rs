//! A cluster at a fixed moment, for the tests of the dashboard.

use jiff::Timestamp;

use super::model::{Model, News};
use crate::view::{
    ClusterView, ConditionView, FailureView, LogView, NodeView, OperationView, PluginView, ProgressView,
    StepView,
};

/// What the clock shows.
pub fn now() -> Timestamp {
    at(0)
}

/// So many seconds before that.
pub fn at(ago: i64) -> Timestamp {
    Timestamp::from_second(1_795_514_400 - ago).expect("a time")
}

fn time(ago: i64) -> Option<String> {
    Some(at(ago).to_string())
}

pub fn condition(kind: &str, status: &'static str, reason: &str, message: &str) -> ConditionView {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    ConditionView {
        r#type: kind.to_owned(),
        status,
        reason: text(reason),
        message: text(message),
        since: time(60),
    }
}

pub fn node(name: &str, role: &'static str, ip: &str) -> NodeView {
    NodeView {
        name: name.to_owned(),
        id: format!("id-of-{name}"),
        role,
        ip: ip.to_owned(),
        vm_state: "running".to_owned(),
        phase: "Ready".to_owned(),
        message: None,
        connected: true,
        last_seen: time(1),
        agent_version: Some("0.1.0".to_owned()),
        powered_on: time(4000),
        joined: time(3990),
        conditions: vec![condition("KubeletReady", "True", "Healthy", "")],
        steps: Vec::new(),
        repairs: Vec::new(),
        facts: None,
    }
}

/// All is well.
pub fn status() -> ClusterView {
    ClusterView {
        name: "home".to_owned(),
        id: "0198-cluster".to_owned(),
        generation: 3,
        kubernetes_version: "v1.29.0".to_owned(),
        image_id: "ab".repeat(32),
        trial_bundle: false,
        operation_id: None,
        last_failure: None,
        conditions: vec![
            condition("Ready", "True", "AllNodesReady", ""),
            condition("KubernetesAPI", "True", "Answers", ""),
        ],
        nodes: vec![
            node("control-plane-1", "control-plane", "192.168.122.10"),
            node("worker-1", "worker", "192.168.122.11"),
        ],
        plugins: vec![PluginView {
            name: "hello".to_owned(),
            version: "0.1.0".to_owned(),
            state: "Ready".to_owned(),
            message: Some("2 of 2 objects are ready".to_owned()),
            objects: 2,
            installed: time(100),
            trust: Some("built-in".to_owned()),
            origin: Some("command".to_owned()),
            revision: 1,
            ..PluginView::default()
        }],
    }
}

/// A node is dead, the API is down, and an operation runs.
pub fn troubled() -> ClusterView {
    let mut status = status();
    status.operation_id = Some("op".to_owned());
    status.conditions = vec![
        condition("Ready", "False", "NotAsDesired", "node worker-1: Disconnected"),
        condition("KubernetesAPI", "Unknown", "NoAnswer", "connection refused"),
        condition("HostOK", "True", "", ""),
    ];
    let dead = &mut status.nodes[1];
    dead.vm_state = "crashed".to_owned();
    dead.phase = "Disconnected".to_owned();
    dead.message = Some("its agent has no session\x1b[2J".to_owned());
    dead.connected = false;
    dead.last_seen = time(72);
    dead.conditions = vec![
        condition("AgentReady", "False", "NoSession", "its agent has no session"),
        condition("KubeletReady", "Unknown", "NoSession", "its agent has no session"),
    ];
    status.last_failure = Some(FailureView {
        id: "NODE-SILENT".to_owned(),
        object: "node worker-1".to_owned(),
        reason: "its agent has not called home".to_owned(),
        next_step: "look at its console".to_owned(),
        evidence: Some("Kernel panic\x1b[31m <b>\nend of console\n".to_owned()),
    });
    status
}

pub fn operation(state: &'static str) -> OperationView {
    let step = |name: &str, state| StepView {
        name: name.to_owned(),
        state,
        message: None,
        attempts: 1,
        started: time(5),
        finished: None,
        evidence: None,
    };
    OperationView {
        id: "op".to_owned(),
        cluster_name: "home".to_owned(),
        kind: "up".to_owned(),
        state,
        started: time(252),
        finished: if state == "running" { None } else { time(12) },
        progress: vec![
            ProgressView {
                object: "network".to_owned(),
                phase: "adopted".to_owned(),
                message: None,
                done: true,
                started: time(250),
                steps: Vec::new(),
            },
            ProgressView {
                object: "worker-1".to_owned(),
                phase: "Configuring".to_owned(),
                message: Some("kubeadm".to_owned()),
                done: state == "succeeded",
                started: time(30),
                steps: vec![step("containerd", "done"), step("kubeadm", "running")],
            },
        ],
        failure: None,
    }
}

pub fn line(node: &str, text: &str) -> LogView {
    LogView {
        time: Some("2026-11-24T10:00:00.0075Z".to_owned()),
        node: node.to_owned(),
        source: "kubelet".to_owned(),
        text: text.to_owned(),
        late: false,
    }
}

/// A model that was told all this, at the fixed moment.
pub fn model(news: impl IntoIterator<Item = News>) -> Model {
    let mut model = Model::new("home");
    news.into_iter().for_each(|news| model.apply(news, now()));
    model
}
