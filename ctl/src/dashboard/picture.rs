//! What is to be seen at a moment, in words and tones: made of the model, drawn by the terminal and by the page. Pure.
//! Every text in it is fit to be shown.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::model::{Model, shown};
use crate::terminal::duration;
use crate::view::{
    ClusterView, ConditionView, FailureView, HealthView, NodeView, OperationView, PluginView, ProblemView,
    ProgressView,
};

#[cfg(test)]
mod tests;

/// Lines of a failure's evidence that are shown: its end.
const EVIDENCE_LINES: usize = 8;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// As it should be.
    Good,
    /// Under way, or not known.
    Warn,
    /// Not as it should be.
    Bad,
    /// Neither.
    Plain,
}

/// A text with its tone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Said {
    /// How that is.
    pub tone: Tone,
    /// What is said.
    pub text: String,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Picture {
    /// Name of the cluster.
    pub cluster: String,
    /// `v1.29.0`; empty where nothing is known.
    pub kubernetes: String,
    /// Whether all is well, in one line.
    pub verdict: Said,
    /// Why what is shown may be true no more, and how old it is.
    pub old: Option<String>,
    /// Nodes.
    pub nodes: Vec<NodePicture>,
    /// Conditions: what is wrong with nodes and cluster, then what is well with the cluster.
    pub conditions: Vec<ConditionPicture>,
    /// The operation that runs, or ran last.
    pub operation: Option<OperationPicture>,
    /// Why the last operation failed.
    pub failure: Option<FailurePicture>,
    /// Plugins.
    pub plugins: Vec<PluginPicture>,
    /// Why no log lines come.
    pub logs_lost: Option<String>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodePicture {
    /// The worst of it.
    pub tone: Tone,
    /// Name.
    pub name: String,
    /// `control-plane` or `worker`
    pub role: &'static str,
    /// Address.
    pub ip: String,
    /// State of its VM.
    pub vm: Said,
    /// `Ready`, or what it is doing.
    pub phase: Said,
    /// Its agent.
    pub agent: Said,
    /// Since its VM was started.
    pub age: String,
    /// Conditions that are not True.
    pub untrue: Vec<String>,
    /// One line on the phase.
    pub message: String,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConditionPicture {
    /// How that is.
    pub tone: Tone,
    /// Name of the node; empty for the whole cluster.
    pub node: String,
    /// `KubeletReady`
    pub condition: String,
    /// `True`, `False` or `Unknown`
    pub status: &'static str,
    /// CamelCase word.
    pub reason: String,
    /// For how long.
    pub since: String,
    /// One line.
    pub message: String,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationPicture {
    /// `up is running, for 4m12s`
    pub title: Said,
    /// What goes on with each object.
    pub objects: Vec<ProgressPicture>,
}

/// What goes on with one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProgressPicture {
    /// How that is.
    pub tone: Tone,
    /// Name of a node, or `network`, `image`.
    pub object: String,
    /// What it is doing.
    pub phase: String,
    /// For how long; empty where it is done.
    pub age: String,
    /// Its steps by name.
    pub steps: Vec<Said>,
    /// One line.
    pub message: String,
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailurePicture {
    /// Id, object and reason.
    pub what: String,
    /// The end of what was left behind.
    pub evidence: Vec<String>,
    /// What to do next.
    pub next: String,
}

/// A plugin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PluginPicture {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `Ready`, `Failed` and so on.
    pub state: Said,
    /// What blocks it, or one line on its state.
    pub message: String,
}

impl Picture {
    /// Of what is known at this moment.
    pub fn of(model: &Model, now: Timestamp) -> Self {
        let status = model.status();
        Self {
            cluster: shown(model.cluster()),
            kubernetes: status.map(kubernetes).unwrap_or_default(),
            verdict: verdict(model),
            old: old(model, now),
            nodes: status.iter().flat_map(|it| &it.nodes).map(|it| node(it, now)).collect(),
            conditions: status.map(|it| conditions(it, now)).unwrap_or_default(),
            operation: model.operation().map(|it| operation(it, now)),
            failure: status.and_then(|it| it.last_failure.as_ref()).map(failure),
            plugins: status.iter().flat_map(|it| &it.plugins).map(plugin).collect(),
            logs_lost: model.logs_lost().map(|lost| shown(&lost.reason)),
        }
    }

    /// Its nodes by name, each with its place, for their colours. There may be thousands of them.
    pub fn places(&self) -> HashMap<&str, usize> {
        self.nodes.iter().enumerate().map(|(place, node)| (node.name.as_str(), place)).collect()
    }

    /// Which of its nodes this one is.
    pub fn place_of(&self, node: &str) -> usize {
        self.nodes.iter().position(|known| known.name == node).unwrap_or_default()
    }
}

impl Said {
    fn new(tone: Tone, text: &str) -> Self {
        Self { tone, text: shown(text) }
    }
}

fn kubernetes(status: &ClusterView) -> String {
    let trial = if status.trial_bundle { " (trial bundle: keep no data in it)" } else { "" };
    shown(&status.kubernetes_version) + trial
}

fn verdict(model: &Model) -> Said {
    let Some(status) = model.status() else { return Said::new(Tone::Warn, "nothing is known yet") };
    let health = HealthView::from(status);
    let ready = format!("{} of {} nodes Ready", health.ready, health.nodes);
    let (tone, is) = match (health.problems.len(), model.operation_to_watch()) {
        (0, _) => (Tone::Good, "well".to_owned()),
        // It is on its way there.
        (_, Some(_)) => (Tone::Warn, "not well yet".to_owned()),
        (1, None) => (Tone::Bad, "not well, 1 problem".to_owned()),
        (count, None) => (Tone::Bad, format!("not well, {count} problems")),
    };
    match model.old() {
        None => Said { tone, text: format!("{is}: {ready}") },
        Some(_) => Said { tone: Tone::Warn, text: format!("was {is}: {ready}") },
    }
}

fn old(model: &Model, now: Timestamp) -> Option<String> {
    let lost = model.old()?;
    let reason = format!("{}, for {}", shown(&lost.reason), between(lost.since, now));
    Some(match model.seen() {
        Some(seen) => format!("{reason}: this is how it was {} ago", between(seen, now)),
        None => format!("{reason}: nothing is known yet"),
    })
}

fn node(node: &NodeView, now: Timestamp) -> NodePicture {
    let vm = if node.vm_state == "running" { Tone::Plain } else { Tone::Bad };
    let phase = match (node.phase.as_str(), node.connected) {
        ("Ready", true) => Tone::Good,
        // It is Ready as far as Kubernetes knows.
        ("Ready", false) | (_, true) => Tone::Warn,
        (_, false) => Tone::Bad,
    };
    let agent = match (node.connected, age(&node.last_seen, now)) {
        (true, _) => Said::new(Tone::Good, "connected"),
        (false, Some(age)) => Said::new(Tone::Bad, &format!("seen {age} ago")),
        (false, None) => Said::new(Tone::Warn, "never seen"),
    };
    let untrue = node.conditions.iter().filter(|one| one.status != "True" && !one.is_silence());
    let untrue: Vec<_> = untrue.map(|one| shown(&one.r#type)).collect();
    let tones = [vm, phase, agent.tone, if untrue.is_empty() { Tone::Good } else { Tone::Warn }];
    NodePicture {
        tone: worst(&tones),
        name: shown(&node.name),
        role: node.role,
        ip: shown(&node.ip),
        vm: Said::new(vm, &node.vm_state),
        phase: Said::new(phase, &node.phase),
        agent,
        age: age(&node.powered_on, now).unwrap_or_default(),
        untrue,
        message: maybe(&node.message),
    }
}

fn worst(tones: &[Tone]) -> Tone {
    let order = [Tone::Bad, Tone::Warn, Tone::Good];
    order.into_iter().find(|tone| tones.contains(tone)).unwrap_or(Tone::Plain)
}

fn conditions(status: &ClusterView, now: Timestamp) -> Vec<ConditionPicture> {
    let health = HealthView::from(status);
    let problem = |tone: Option<Tone>| {
        move |one: &ProblemView| ConditionPicture {
            tone: tone.unwrap_or(if one.status == "False" { Tone::Bad } else { Tone::Warn }),
            node: maybe(&one.node),
            condition: shown(&one.condition),
            status: one.status,
            reason: maybe(&one.reason),
            since: age(&one.since, now).unwrap_or_default(),
            message: maybe(&one.message),
        }
    };
    let well = |one: &ConditionView| ConditionPicture {
        tone: Tone::Good,
        node: String::new(),
        condition: shown(&one.r#type),
        status: one.status,
        reason: maybe(&one.reason),
        since: age(&one.since, now).unwrap_or_default(),
        message: maybe(&one.message),
    };
    let wrong = health.problems.iter().map(problem(None));
    let notices = health.notices.iter().map(problem(Some(Tone::Warn)));
    let good = status.conditions.iter().filter(|one| one.status == "True").map(well);
    wrong.chain(notices).chain(good).collect()
}

fn operation(operation: &OperationView, now: Timestamp) -> OperationPicture {
    let for_long = age(&operation.started, now).unwrap_or_default();
    let ago = age(&operation.finished, now).unwrap_or_default();
    let (tone, how) = match operation.state {
        "succeeded" => (Tone::Good, format!("succeeded {ago} ago")),
        "failed" => (Tone::Bad, format!("failed {ago} ago")),
        _ => (Tone::Warn, format!("is running, for {for_long}")),
    };
    OperationPicture {
        title: Said::new(tone, &format!("{} {how}", operation.kind)),
        objects: operation.progress.iter().map(|it| progress(it, operation.state, now)).collect(),
    }
}

fn progress(progress: &ProgressView, state: &str, now: Timestamp) -> ProgressPicture {
    let step = |name: &str, state: &str| {
        let tone = match state {
            "done" => Tone::Good,
            "failed" => Tone::Bad,
            "running" => Tone::Warn,
            _ => Tone::Plain,
        };
        Said::new(tone, name)
    };
    let tone = match (progress.done, state) {
        (true, _) => Tone::Good,
        (false, "failed") => Tone::Bad,
        (false, _) => Tone::Warn,
    };
    let is_under_way = !progress.done && state == "running";
    ProgressPicture {
        tone,
        object: shown(&progress.object),
        phase: shown(&progress.phase),
        age: age(&progress.started, now).filter(|_| is_under_way).unwrap_or_default(),
        steps: progress.steps.iter().map(|it| step(&it.name, it.state)).collect(),
        message: maybe(&progress.message),
    }
}

fn failure(failure: &FailureView) -> FailurePicture {
    let evidence: Vec<&str> = failure.evidence.iter().flat_map(|text| text.trim_end().lines()).collect();
    let evidence = &evidence[evidence.len().saturating_sub(EVIDENCE_LINES)..];
    FailurePicture {
        what: shown(&format!("{}: {}: {}", failure.id, failure.object, failure.reason)),
        evidence: evidence.iter().map(|line| shown(line)).collect(),
        next: shown(&failure.next_step),
    }
}

fn plugin(plugin: &PluginView) -> PluginPicture {
    let tone = match plugin.state.as_str() {
        "Ready" => Tone::Good,
        "Degraded" | "Failed" | "Quarantined" => Tone::Bad,
        "Available" => Tone::Plain,
        _ => Tone::Warn,
    };
    let blocking = plugin.blocking.as_ref().map(|blocking| shown(&blocking.line()));
    PluginPicture {
        name: shown(&plugin.name),
        version: shown(&plugin.version),
        state: Said::new(tone, &plugin.state),
        message: blocking.unwrap_or_else(|| maybe(&plugin.message)),
    }
}

fn maybe(text: &Option<String>) -> String {
    text.as_deref().map(shown).unwrap_or_default()
}

fn age(then: &Option<String>, now: Timestamp) -> Option<String> {
    let then: Timestamp = then.as_deref()?.parse().ok()?;
    Some(between(then, now))
}

fn between(then: Timestamp, now: Timestamp) -> String {
    duration(now.as_second() - then.as_second())
}
