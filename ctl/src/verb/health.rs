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
    let given = args.name.as_deref();
    let mut health = unknown(given);
    if args.wait {
        let waited = timeout(args.timeout, until_well(context, &agent, given, &mut health)).await;
        health.timed_out = waited.is_err();
        waited.unwrap_or(Ok(()))?;
    } else {
        let name = agent.cluster_name(context, given).await?;
        health = (&agent.status(&name).await?).into();
        health.cluster_name = name;
    }
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

/// Before anything is known. Without a name it is the only cluster, whose name has still to be asked.
fn unknown(name: Option<&str>) -> HealthView {
    let why = "the host agent has told nothing of it";
    HealthView::unknown(name.unwrap_or_default(), "Ready", "NotSeen", why)
}

/// Until the cluster is well, through restarts of the host agent. Each message says how it is and not how it became so,
/// so none is missed. `last` is how it was last.
async fn until_well(
    context: &Context,
    agent: &Agent,
    given: Option<&str>,
    last: &mut HealthView,
) -> Result<(), Ended> {
    let mut said = None;
    let name = loop {
        match agent.name_of_cluster(context, given).await? {
            Ok(name) => break name,
            Err(_) => away(context, given.unwrap_or_default(), last, &mut said)?,
        }
        sleep(LOST_INTERVAL).await;
    };
    *last = unknown(Some(&name));
    loop {
        let lost = match status::open(agent, &name).await {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(message)) => {
                        let Some(status) = message.status else { continue };
                        *last = (&ClusterView::from(status)).into();
                        last.cluster_name.clone_from(&name);
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
            away(context, &name, last, &mut said)?;
        }
        sleep(LOST_INTERVAL).await;
    }
}

fn away(
    context: &Context,
    name: &str,
    last: &mut HealthView,
    said: &mut Option<String>,
) -> std::io::Result<()> {
    *last = HealthView::unknown(name, "HostAgent", "Away", "the host agent does not answer");
    tell(context, last, said)
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
    let whose = match visible(&health.cluster_name) {
        name if name.is_empty() => "the cluster".to_owned(),
        name => format!("cluster {name}"),
    };
    for notice in &health.notices {
        let message = notice.message.as_deref().or(notice.reason.as_deref()).unwrap_or_default();
        out.line(format!("{} {}: {}", out.paint(styles::WARN, "note"), notice.condition, visible(message)))?;
    }
    if health.healthy {
        let verdict = format!("{whose} is well: {} of {} nodes Ready", health.ready, health.nodes);
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
    let verdict = format!("{whose} is not well{after}: {count} {problems}");
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
