//! `k8sctl support-bundle`: all that somebody who is to help would ask for, in one file, without secrets. What cannot be
//! had is named in it with the reason; no host agent is started for it.
//!
//! - `archive`: the file, its bounds and its manifest
//! - `asked`: what a host agent is asked for; `local`: what is seen without one

mod archive;
mod asked;
mod local;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::agent::{self, Settings};
use crate::cli::SupportBundleArgs;
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, bytes, styles, visible};
use crate::view::SupportBundleView;
use archive::{Archive, Part};

pub(super) async fn run(context: &Context, args: SupportBundleArgs) -> Result<Exit, Ended> {
    let end = Instant::now() + args.deadline;
    let mut archive = Archive::begin(args.file.as_deref())?;
    // Cancel-safe: whoever is interrupted drops the archive, and its unfinished file with it.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        gathered = gather(context, &args, end, &mut archive) => gathered?,
        _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        _ = terminate.recv() => return Ok(Exit::Interrupted),
    }
    let bundle = archive.finish()?;
    if context.format.is_structured() {
        output::document(context, &bundle)?;
    } else {
        print(context, &bundle)?;
    }
    Ok(Exit::Ok)
}

async fn gather(
    context: &Context,
    args: &SupportBundleArgs,
    end: Instant,
    archive: &mut Archive,
) -> Result<(), Ended> {
    archive.add(local::machine())?;
    archive.add(local::units().await)?;
    let settings = Settings::load(&context.source);
    match &settings {
        Ok(settings) => {
            archive.add(local::files(settings))?;
            archive.add(local::config(settings))?;
        }
        Err(failure) => archive.add(Part::new("client/host-agent.toml", Err(failure.clone())))?,
    }
    let has_log = match agent::connect_running(context).await {
        Ok(agent) => from_agent(context, &agent, args, end, archive).await?,
        Err(error) => {
            archive.add(Part::new("host", Err(asked::failure(error))))?;
            false
        }
    };
    // The host agent's own part is the better one; this is for when there is none.
    if let (Ok(settings), false) = (&settings, has_log) {
        for part in local::log(settings).await {
            archive.add(part)?;
        }
    }
    Ok(())
}

/// Whether the host agent's log was among it.
async fn from_agent(
    context: &Context,
    agent: &agent::Agent,
    args: &SupportBundleArgs,
    end: Instant,
    archive: &mut Archive,
) -> Result<bool, Ended> {
    let say = |what: &str| context.err.line(format!("{what} …"));
    say("asking the host agent")?;
    if let Some(name) = &args.name {
        // Of a slip of the pen there would be a file that lacks what it was made for.
        let (status, _) = asked::status(agent, name, end).await;
        if let Some(failure) = status.failure.filter(|failure| failure.id == "CLUSTER-UNKNOWN") {
            return Err(failure.into());
        }
    }
    let mut parts = asked::host(agent, end).await;
    parts.push(asked::events(agent, end).await);
    let gathered = asked::gathered(agent, args.name.as_deref(), end).await;
    let has_log = gathered.iter().any(|part| part.path == "host/agent.log" && part.content.is_some());
    parts.extend(gathered);
    for part in parts {
        archive.add(part)?;
    }
    let clusters = match asked::clusters(agent, args.name.as_deref(), end).await {
        Ok(clusters) => clusters,
        Err(failure) => {
            archive.add(Part::new("clusters", Err(failure)))?;
            return Ok(has_log);
        }
    };
    for cluster in clusters {
        let (status, nodes) = asked::status(agent, &cluster, end).await;
        archive.add(status)?;
        say(&format!("reading the logs of {} node(s) of {}", nodes.len(), visible(&cluster)))?;
        // Written before the next ones are read: those of a large cluster are gigabytes.
        for nodes in nodes.chunks(asked::NODES_AT_ONCE) {
            for part in asked::logs(agent, &cluster, nodes, args.lines, end).await {
                archive.add(part)?;
            }
        }
    }
    Ok(has_log)
}

fn print(context: &Context, bundle: &SupportBundleView) -> std::io::Result<()> {
    for (part, error) in bundle.parts.iter().filter_map(|part| Some((part, part.error.as_ref()?))) {
        context.err.line("")?;
        let part = context.err.paint(styles::DIM, format!("{}:", visible(&part.path)));
        context.err.line(format!("not in it, or not whole: {part}"))?;
        ended::print(&context.err, "warning", &error.into())?;
    }
    let size: u64 = bundle.parts.iter().filter_map(|part| part.size_bytes).sum();
    let path = visible(bundle.path.as_deref().unwrap_or_default());
    context.out.line(path)?;
    context.err.line(format!(
        "{} parts, {}; what looks like a secret was taken out, but look at it before you give it away",
        bundle.parts.len(),
        bytes(size)
    ))
}
