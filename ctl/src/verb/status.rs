//! `k8sctl status`: a cluster at a glance, or watched.

use std::io;
use std::time::Duration;

use anstyle::Style;
use k8sctl_proto::control::v1::{WatchStatusRequest, WatchStatusResponse};
use k8sctl_types::failure::Failure;
use ratatui::text::Span;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::Streaming;

use super::plan;
use crate::agent::{self, Agent};
use crate::cli::StatusArgs;
use crate::ended::{self, Ended, LOST, LOST_INTERVAL, is_lost};
use crate::exit::Exit;
use crate::output::{self, Format};
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, Printer, bytes, duration, styles, visible};
use crate::view::{ClusterView, ConditionView, NodeView, seconds_since};

/// How often a watched table is drawn again, for its times.
const REDRAW: Duration = Duration::from_secs(1);
/// How much of the last failure's evidence is shown: the table below it shall stay on the screen.
const EVIDENCE_LINES: usize = 20;
/// Conditions that a row of the table names; all of them are told below it.
const NAMED: usize = 2;
/// Back to the top, and clear what is below.
const HOME: &str = "\x1b[H\x1b[J";
const CLEAR: &str = "\x1b[2J";

pub(super) async fn run(context: &Context, args: &StatusArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let name = agent.cluster_name(context, args.name.as_deref()).await?;
    if args.watch {
        return context.out.while_read(watch(context, &agent, &name)).await;
    }
    let status = agent.status(&name).await?;
    if context.format.is_structured() {
        output::document(context, &status)?;
    } else {
        context.out.raw(text(&context.out, context.format, &status))?;
    }
    Ok(Exit::Ok)
}

/// As much as a terminal of this size can show at once: what is drawn over itself must not scroll.
fn fitted(text: &str, columns: usize, rows: usize) -> String {
    let (columns, rows) = (columns.max(1), rows.max(2));
    let height = |line: &str| width(line).div_ceil(columns).max(1);
    // The last newline takes a row of its own.
    if text.lines().map(height).sum::<usize>() < rows {
        return text.to_owned();
    }
    let (mut shown, mut left, mut count) = (String::new(), rows - 1, 0);
    for line in text.lines() {
        let Some(rest) = left.checked_sub(height(line)) else { break };
        (left, count) = (rest, count + 1);
        shown.push_str(line);
        shown.push('\n');
    }
    let more = format!("… {} more lines: k8sctl status, or k8sctl dashboard", text.lines().count() - count);
    shown.extend(more.chars().take(columns));
    shown
}

/// Columns that a line takes, whatever its colours.
fn width(line: &str) -> usize {
    let mut parts = line.split('\x1b');
    let plain = parts.next().into_iter();
    let behind = parts.filter_map(|part| part.split_once('m').map(|(_, rest)| rest));
    plain.chain(behind).map(|part| Span::raw(part).width()).sum()
}

pub(crate) async fn open(agent: &Agent, name: &str) -> Result<Streaming<WatchStatusResponse>, tonic::Status> {
    let request = WatchStatusRequest { cluster_name: name.to_owned(), watch: true };
    Ok(agent.clusters().watch_status(request).await?.into_inner())
}

/// Until the cluster is gone, or the user leaves.
async fn watch(context: &Context, agent: &Agent, name: &str) -> Result<Exit, Ended> {
    let mut screen = Screen::new(context);
    loop {
        let mut stream = match open(agent, name).await {
            Ok(stream) => stream,
            Err(status) if is_lost(&status) => {
                screen.note(LOST).await?;
                sleep(LOST_INTERVAL).await;
                continue;
            }
            Err(status) => return Err(status.into()),
        };
        let mut ticks = interval(REDRAW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let next = tokio::select! {
                // Cancel-safe: a message that is not yet whole stays in the stream's buffer.
                message = stream.message() => Some(message),
                _ = ticks.tick() => None,
            };
            match next {
                None => screen.redraw().await?,
                Some(Ok(Some(WatchStatusResponse { status: Some(status) }))) => {
                    screen.show(status.into()).await?;
                }
                Some(Ok(Some(_))) => {}
                Some(Ok(None)) => return Ok(Exit::Ok),
                Some(Err(status)) if is_lost(&status) => break,
                Some(Err(status)) => return Err(status.into()),
            }
        }
        // It may break off each time.
        sleep(LOST_INTERVAL).await;
    }
}

/// Where a watched status is drawn: over itself on a terminal, else one after the other. Whoever reads slowly is waited
/// for, and the connection lives meanwhile.
struct Screen<'a> {
    context: &'a Context,
    drawn: bool,
    last: Option<ClusterView>,
    note: Option<String>,
}

impl<'a> Screen<'a> {
    fn new(context: &'a Context) -> Self {
        Self { context, drawn: false, last: None, note: None }
    }

    fn is_drawn_over(&self) -> bool {
        self.context.out.tty && !self.context.format.is_structured()
    }

    async fn show(&mut self, status: ClusterView) -> io::Result<()> {
        self.note = None;
        let out = &self.context.out;
        if self.context.format.is_structured() {
            return out.patiently(output::items(self.context, [status])?).await;
        }
        if !self.is_drawn_over() {
            let gap = if self.drawn { "\n" } else { "" };
            self.drawn = true;
            let shown = format!("{gap}{}", text(out, self.context.format, &status));
            return out.patiently(shown.into_bytes()).await;
        }
        self.last = Some(status);
        self.redraw().await
    }

    async fn redraw(&mut self) -> io::Result<()> {
        let (true, Some(status)) = (self.is_drawn_over(), &self.last) else { return Ok(()) };
        let clear = if self.drawn { "" } else { CLEAR };
        self.drawn = true;
        let out = &self.context.out;
        let note = self.note.as_deref().map(|note| out.paint(styles::WARN, note) + "\n").unwrap_or_default();
        let shown = format!("{note}{}", text(out, self.context.format, status));
        let shown = match crossterm::terminal::size() {
            Ok((columns, rows)) => fitted(&shown, columns.into(), rows.into()),
            Err(_) => shown,
        };
        out.patiently(format!("{clear}{HOME}{shown}").into_bytes()).await
    }

    async fn note(&mut self, note: &str) -> io::Result<()> {
        if self.note.as_deref() == Some(note) {
            return Ok(());
        }
        self.note = Some(note.to_owned());
        if self.is_drawn_over() { self.redraw().await } else { self.context.err.line(note) }
    }
}

/// The whole status for a person.
fn text(out: &Printer, format: Format, status: &ClusterView) -> String {
    let mut lines = Vec::new();
    let mut field = |name: &str, value: String| {
        lines.push(format!("{} {value}", out.paint(styles::DIM, format!("{name:<13}"))));
    };
    let version = visible(&status.kubernetes_version);
    field("cluster", out.paint(styles::STRONG, visible(&status.name)));
    if status.trial_bundle {
        let minor = plan::minor(&status.kubernetes_version);
        let warning = format!(" trial bundle, Kubernetes {} ", visible(&minor));
        let reason = "for trying things out: keep no data in it";
        field("kubernetes", format!("{version}  {}  {reason}", out.paint(styles::BOX, warning)));
    } else {
        field("kubernetes", version);
    }
    field("generation", status.generation.to_string());
    if format == Format::Wide {
        field("id", visible(&status.id));
        field("image", visible(&status.image_id));
    }
    if let Some(operation) = &status.operation_id {
        field("operation", out.paint(styles::WARN, format!("{} is running", visible(operation))));
    }
    for condition in untrue(&status.conditions) {
        field("condition", out.paint(styles::WARN, describe(condition)));
    }
    if let Some(failure) = &status.last_failure {
        let failure = Failure::from(failure);
        let what = format!("{}: {}: {}", failure.id, failure.object, failure.reason);
        field("last failure", out.paint(styles::BAD, visible(&what)));
        // The next step may speak of it; its end is what matters.
        let evidence = ended::evidence(out, &failure.evidence);
        lines.extend_from_slice(&evidence[evidence.len().saturating_sub(EVIDENCE_LINES)..]);
        if !failure.next_step.is_empty() {
            lines.push(format!("{:<13} next: {}", "", visible(&failure.next_step)));
        }
    }
    lines.push(String::new());
    lines.extend(nodes(format, &status.nodes).lines(out));
    // What is wrong is said in whole sentences below the table.
    for node in status.nodes.iter().filter(|node| node.phase != "Ready") {
        if let Some(message) = &node.message {
            lines.push(format!("  {}: {}", visible(&node.name), visible(message)));
        }
    }
    for node in &status.nodes {
        for condition in untrue(&node.conditions) {
            lines.push(format!("  {}: {}", visible(&node.name), describe(condition)));
        }
    }
    if !status.plugins.is_empty() {
        lines.push(String::new());
        lines.extend(super::plugin::table(&status.plugins).lines(out));
        lines.extend(super::plugin::sentences(out, &status.plugins));
    }
    lines.join("\n") + "\n"
}

/// The conditions that a person is told: of an agent without a session the one that says so, not each one that is
/// therefore unknown.
fn untrue(conditions: &[ConditionView]) -> impl Iterator<Item = &ConditionView> {
    conditions.iter().filter(|one| one.status != "True" && !one.is_silence() && !is_said_elsewhere(one))
}

/// A column says it, or the nodes' own conditions do.
fn is_said_elsewhere(condition: &ConditionView) -> bool {
    let is_never_seen = condition.reason.as_deref() == Some("NeverSeen");
    is_never_seen
        || matches!(condition.r#type.as_str(), "VMRunning" | "VMsRunning" | "AgentsReady" | "NodesHealthy")
}

fn describe(condition: &ConditionView) -> String {
    let reason = condition.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let message = condition.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    visible(&format!("{}={}{reason}{message}", condition.r#type, condition.status))
}

fn nodes(format: Format, nodes: &[NodeView]) -> Table {
    let wide = format == Format::Wide;
    let mut table = Table::new(if wide {
        &[
            "NODE", "ROLE", "IP", "VM", "PHASE", "NOT TRUE", "AGENT", "AGE", "VERSION", "CPU", "MEMORY",
            "DISK", "KERNEL", "OS",
        ]
    } else {
        &["NODE", "ROLE", "IP", "VM", "PHASE", "NOT TRUE", "AGENT", "AGE"]
    });
    for node in nodes {
        let good = |is_good: bool| if is_good { styles::GOOD } else { styles::WARN };
        let untrue: Vec<_> = untrue(&node.conditions).map(|one| one.r#type.as_str()).collect();
        let more = untrue.len().saturating_sub(NAMED);
        let named = untrue[..untrue.len() - more].join(",");
        let more = if more == 0 { String::new() } else { format!(" +{more}") };
        let age = |time: &Option<String>| seconds_since(time.as_deref()).map(duration);
        let agent = match (node.connected, age(&node.last_seen)) {
            (true, _) => styled(styles::GOOD, "connected"),
            (false, Some(age)) => styled(styles::BAD, format!("seen {age} ago")),
            (false, None) => styled(styles::WARN, "never seen"),
        };
        let vm = if node.vm_state == "running" { Style::new() } else { styles::BAD };
        let mut row = vec![
            styled(styles::STRONG, &node.name),
            cell(node.role),
            cell(&node.ip),
            styled(vm, &node.vm_state),
            styled(good(node.phase == "Ready"), &node.phase),
            styled(styles::WARN, named + &more),
            agent,
            cell(age(&node.powered_on).unwrap_or_default()),
        ];
        if wide {
            let facts = |show: fn(&crate::view::FactsView) -> String| {
                cell(node.facts.as_ref().map(show).unwrap_or_default())
            };
            row.push(cell(node.agent_version.as_deref().unwrap_or_default()));
            row.push(facts(|facts| facts.vcpus.to_string()));
            row.push(facts(|facts| bytes(facts.memory_bytes)));
            row.push(facts(|facts| bytes(facts.disk_bytes)));
            row.push(facts(|facts| facts.kernel.clone()));
            row.push(facts(|facts| facts.os.clone()));
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_over_itself_never_scrolls() {
        let text = "one\n\x1b[1;31mtwo\x1b[0m\nthree\n";
        assert_eq!(fitted(text, 80, 4), text);
        assert_eq!(
            fitted(text, 80, 3),
            "one\n\x1b[1;31mtwo\x1b[0m\n… 1 more lines: k8sctl status, or k8sctl dashboard"
        );
        // Its colours take no room; a line that is wrapped takes more than one row.
        assert_eq!(width("\x1b[1;31mtwö\x1b[0m!"), 4);
        assert_eq!(fitted(text, 3, 4), "one\n\x1b[1;31mtwo\x1b[0m\n… 1");
        assert_eq!(fitted(text, 3, 5), text);
        assert_eq!(fitted("a\nb\n", 0, 0), "a\n…");
    }
}
