//! `k8sctl health`: whether a cluster is well, now or within a time, as text and as an exit code.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::status;
use crate::agent::{self, Agent};
use crate::cli::HealthArgs;
use crate::ended::{Ended, LOST_INTERVAL, is_lost};
use crate::exit::Exit;
use crate::output;
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, Printer, duration, styles, visible};
use crate::view::{ClusterView, HealthView, ProblemView, seconds_since};

pub(super) async fn run(context: &Context, args: &HealthArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let name = agent.cluster_name(context, args.name.as_deref()).await?;
    let mut health = HealthView::unknown(&name, "Ready", "NotSeen", "the host agent has told nothing of it");
    if args.wait {
        let waited = timeout(args.timeout, until_well(context, &agent, &name, &mut health)).await;
        health.timed_out = waited.is_err();
        waited.unwrap_or(Ok(()))?;
    } else {
        health = (&agent.status(&name).await?).into();
    }
    health.cluster_name = name;
    if context.format.is_structured() {
        output::document(context, &health)?;
    } else {
        print(&context.out, &health, args.timeout)?;
    }
    Ok(match &health {
        HealthView { healthy: true, .. } => Exit::Ok,
        HealthView { timed_out: true, .. } => Exit::TimedOut,
        _ => Exit::Unhealthy,
    })
}

/// Until the cluster is well, through restarts of the host agent. Each message says how it is and not how it became so,
/// so none is missed. `last` is how it was last.
async fn until_well(
    context: &Context,
    agent: &Agent,
    name: &str,
    last: &mut HealthView,
) -> Result<(), Ended> {
    let mut said = None;
    loop {
        let lost = match status::open(agent, name).await {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(message)) => {
                        let Some(status) = message.status else { continue };
                        *last = (&ClusterView::from(status)).into();
                        if last.healthy {
                            return Ok(());
                        }
                        tell(context, last, &mut said)?;
                    }
                    // The cluster is gone, or the host agent ends: asking again tells.
                    Ok(None) => break None,
                    Err(status) => break Some(status),
                }
            },
            Err(status) => Some(status),
        };
        if let Some(status) = lost {
            if !is_lost(&status) {
                return Err(status.into());
            }
            *last = HealthView::unknown(name, "HostAgent", "Away", "the host agent does not answer");
            tell(context, last, &mut said)?;
        }
        sleep(LOST_INTERVAL).await;
    }
}

/// Says what is waited for, where that is news.
fn tell(context: &Context, health: &HealthView, said: &mut Option<String>) -> std::io::Result<()> {
    let Some(first) = health.problems.first() else { return Ok(()) };
    let whose = first.node.as_ref().map(|node| format!("node {node}: ")).unwrap_or_default();
    let reason = first.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let line = visible(&format!("waiting for {whose}{}={}{reason}", first.condition, first.status));
    if said.as_ref() == Some(&line) {
        return Ok(());
    }
    context.err.line(&line)?;
    *said = Some(line);
    Ok(())
}

fn print(out: &Printer, health: &HealthView, waited: Duration) -> std::io::Result<()> {
    let name = visible(&health.cluster_name);
    for notice in &health.notices {
        let message = notice.message.as_deref().or(notice.reason.as_deref()).unwrap_or_default();
        out.line(format!("{} {}: {}", out.paint(styles::WARN, "note"), notice.condition, visible(message)))?;
    }
    if health.healthy {
        let verdict = format!("cluster {name} is well: {} of {} nodes Ready", health.ready, health.nodes);
        return out.line(out.paint(styles::GOOD, verdict));
    }
    let after = match health.timed_out {
        true => {
            format!(" after {}", duration(i64::try_from(waited.as_secs()).unwrap_or(i64::MAX)))
        }
        false => String::new(),
    };
    let count = health.problems.len();
    let problems = if count == 1 { "problem" } else { "problems" };
    let verdict = format!("cluster {name} is not well{after}: {count} {problems}");
    out.line(out.paint(styles::BAD, verdict))?;
    table(&health.problems).print(out)
}

fn table(problems: &[ProblemView]) -> Table {
    let mut table = Table::new(&["NODE", "CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for problem in problems {
        let since = seconds_since(problem.since.as_deref()).map(duration);
        let style = if problem.status == "False" { styles::BAD } else { styles::WARN };
        table.row(vec![
            styled(styles::STRONG, problem.node.as_deref().unwrap_or_default()),
            cell(&problem.condition),
            styled(style, problem.status),
            cell(problem.reason.as_deref().unwrap_or_default()),
            cell(since.unwrap_or_default()),
            cell(problem.message.as_deref().unwrap_or_default()),
        ]);
    }
    table
}
