//! `k8sctl node describe NAME`: everything that is known of one node, for a person who wants to know why.

use k8sctl_proto::control::v1::StreamEventsRequest;
use k8sctl_types::failure::Failure;
use serde::Serialize;

use super::events;
use crate::agent::{self, Agent};
use crate::cli::{NodeDescribeArgs, NodeVerb};
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::output;
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, Printer, bytes, duration, styles, visible};
use crate::view::{
    ConditionView, EventView, EvidenceView, FactsView, NodeView, RepairView, StepView, seconds_between,
    seconds_since,
};

/// Events that are shown.
const EVENTS: u64 = 10;

/// `node describe -o json`.
#[derive(Debug, Serialize)]
struct Document {
    /// Name of the cluster.
    cluster_name: String,
    /// The node as in `status`.
    node: NodeView,
    /// Its last events, and those of its VM and disk.
    events: Vec<EventView>,
}

pub(super) async fn run(context: &Context, verb: NodeVerb) -> Result<Exit, Ended> {
    match verb {
        NodeVerb::Describe(args) => describe(context, &args).await,
    }
}

async fn describe(context: &Context, args: &NodeDescribeArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let cluster_name = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let mut nodes = agent.status(&cluster_name).await?.nodes;
    let Some(found) = nodes.iter().position(|node| node.name == args.name) else {
        return Err(no_such_node(&cluster_name, &args.name, &nodes).into());
    };
    let node = nodes.swap_remove(found);
    let events = last_events(&agent, &cluster_name, &node.name).await?;
    let document = Document { cluster_name, node, events };
    if context.format.is_structured() {
        output::document(context, &document)?;
    } else {
        context.out.raw(text(&context.out, &document))?;
    }
    Ok(Exit::Ok)
}

fn no_such_node(cluster: &str, name: &str, nodes: &[NodeView]) -> Failure {
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    Failure::new(
        "NODE-UNKNOWN",
        format!("node {name}"),
        format!("cluster {cluster} has no node of that name"),
        format!("the nodes are: {}", names.join(", ")),
    )
}

async fn last_events(agent: &Agent, cluster: &str, node: &str) -> Result<Vec<EventView>, Ended> {
    let request = StreamEventsRequest {
        cluster_name: cluster.to_owned(),
        node_name: node.to_owned(),
        tail: Some(EVENTS),
        ..StreamEventsRequest::default()
    };
    let mut stream = agent.clusters().stream_events(request).await?.into_inner();
    let mut events = Vec::new();
    while let Some(response) = stream.message().await? {
        events.extend(response.event.map(EventView::from));
    }
    Ok(events)
}

fn text(out: &Printer, document: &Document) -> String {
    let Document { cluster_name, node, events } = document;
    let mut lines = fields(out, cluster_name, node);
    let mut part = |title: &str, what: Vec<String>| {
        if !what.is_empty() {
            lines.extend([String::new(), out.paint(styles::STRONG, title)]);
            lines.extend(what);
        }
    };
    part("Conditions", conditions(out, &node.conditions));
    part("Steps", steps(out, &node.steps));
    for step in node.steps.iter().filter(|step| step.state != "done") {
        if let Some(evidence) = &step.evidence {
            part(&format!("What failed in {}", visible(&step.name)), shown(out, evidence));
        }
    }
    part("Repairs", repairs(out, &node.repairs));
    part("Last events", events.iter().map(|event| events::line(out, event)).collect());
    lines.join("\n") + "\n"
}

fn fields(out: &Printer, cluster: &str, node: &NodeView) -> Vec<String> {
    let age = |time: &Option<String>| seconds_since(time.as_deref()).map(duration);
    let mut lines = Vec::new();
    let mut field = |name: &str, value: String| {
        lines.push(format!("{} {value}", out.paint(styles::DIM, format!("{name:<10}"))));
    };
    field("node", out.paint(styles::STRONG, visible(&node.name)));
    field("id", visible(&node.id));
    field("cluster", visible(cluster));
    field("role", node.role.to_owned());
    field("ip", visible(&node.ip));
    let on = age(&node.powered_on).map(|age| format!(", for {age}")).unwrap_or_default();
    let style = if node.vm_state == "running" { styles::GOOD } else { styles::BAD };
    field("VM", out.paint(style, visible(&node.vm_state)) + &on);
    let style = if node.phase == "Ready" { styles::GOOD } else { styles::WARN };
    let why = node.message.as_ref().map(|message| format!(": {}", visible(message))).unwrap_or_default();
    field("phase", out.paint(style, visible(&node.phase)) + &why);
    let version =
        node.agent_version.as_ref().map(|it| format!(", version {}", visible(it))).unwrap_or_default();
    let agent = match (node.connected, age(&node.last_seen)) {
        (true, _) => out.paint(styles::GOOD, "connected"),
        (false, Some(age)) => out.paint(styles::BAD, format!("seen {age} ago")),
        (false, None) => out.paint(styles::WARN, "never seen"),
    };
    let session = age(&node.joined).map(|age| format!(", first session {age} ago")).unwrap_or_default();
    field("agent", agent + &version + &session);
    if let Some(facts) = &node.facts {
        field("machine", machine(facts));
        let FactsView { os, kernel, hostname, .. } = facts;
        field("system", visible(&format!("{os}, kernel {kernel}, hostname {hostname}")));
        if let Some(seconds) = facts.boot_to_agent_seconds {
            field("boot", format!("{seconds:.1} s from power-on to the agent"));
        }
    }
    lines
}

fn machine(facts: &FactsView) -> String {
    let cpus = if facts.vcpus == 1 { "CPU" } else { "CPUs" };
    format!(
        "{} {cpus}, {} of memory, {} of disk",
        facts.vcpus,
        bytes(facts.memory_bytes),
        bytes(facts.disk_bytes)
    )
}

fn conditions(out: &Printer, conditions: &[ConditionView]) -> Vec<String> {
    if conditions.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for condition in conditions {
        let style = match condition.status {
            "True" => styles::GOOD,
            "False" => styles::BAD,
            _ => styles::WARN,
        };
        table.row(vec![
            cell(&condition.r#type),
            styled(style, condition.status),
            cell(condition.reason.as_deref().unwrap_or_default()),
            cell(seconds_since(condition.since.as_deref()).map(duration).unwrap_or_default()),
            cell(condition.message.as_deref().unwrap_or_default()),
        ]);
    }
    table.lines(out)
}

fn steps(out: &Printer, steps: &[StepView]) -> Vec<String> {
    if steps.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&["STEP", "STATE", "TRIES", "TOOK", "MESSAGE"]);
    for step in steps {
        let style = match step.state {
            "done" => styles::GOOD,
            "failed" => styles::BAD,
            "running" => styles::WARN,
            _ => styles::DIM,
        };
        let tries = if step.attempts == 0 { String::new() } else { step.attempts.to_string() };
        table.row(vec![
            cell(&step.name),
            styled(style, step.state),
            cell(tries),
            cell(took(step).unwrap_or_default()),
            cell(step.message.as_deref().unwrap_or_default()),
        ]);
    }
    table.lines(out)
}

/// How long it took, or has taken by now.
fn took(step: &StepView) -> Option<String> {
    let started = step.started.as_deref();
    let seconds = match step.state {
        "pending" => None,
        "running" => seconds_since(started),
        _ => seconds_between(started, step.finished.as_deref()),
    };
    seconds.map(duration)
}

fn shown(out: &Printer, evidence: &EvidenceView) -> Vec<String> {
    let mut lines = Vec::new();
    if !evidence.argv.is_empty() {
        lines.push(format!("$ {}", visible(&evidence.argv.join(" "))));
    }
    let journal = evidence.journal_tail.as_ref().map(|text| format!("-- journal --\n{text}"));
    for text in [&evidence.output_tail, &journal].into_iter().flatten() {
        lines.extend(ended::evidence(out, text));
    }
    if !evidence.argv.is_empty() {
        let status = |status: i32| format!("exit status {status}");
        let killed = || "ended by a signal or its deadline".to_owned();
        lines.push(evidence.exit_status.map_or_else(killed, status));
    }
    lines
}

fn repairs(out: &Printer, repairs: &[RepairView]) -> Vec<String> {
    if repairs.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&["REPAIR", "OUTCOME", "AGO", "OBJECT", "WHAT"]);
    for repair in repairs {
        let style = if repair.outcome == "repaired" { styles::GOOD } else { styles::BAD };
        let said: Vec<&str> = [&repair.reason, &repair.action, &repair.message]
            .into_iter()
            .filter_map(|it| it.as_deref())
            .collect();
        table.row(vec![
            cell(repair.number.to_string()),
            styled(style, repair.outcome),
            cell(seconds_since(repair.time.as_deref()).map(duration).unwrap_or_default()),
            cell(&repair.object),
            cell(said.join("; ")),
        ]);
    }
    table.lines(out)
}
