//! `k8sctl events`: what happened, and with `-f` what happens, through restarts of the host agent without gap.

use k8sctl_proto::control::v1::{StreamEventsRequest, StreamEventsResponse};
use k8sctl_rpc::status::failure_from;
use tokio::time::sleep;
use tonic::{Status, Streaming};

use crate::agent::{self, Agent};
use crate::cli::EventsArgs;
use crate::ended::{Ended, LOST, LOST_INTERVAL, is_lost};
use crate::exit::Exit;
use crate::moment::stamp;
use crate::output;
use crate::terminal::{Context, Printer, styles, visible};
use crate::view::EventView;

/// Events are printed when no other is there yet, or when they are this many bytes.
const TEXT_BYTES: usize = 64 * 1024;

pub(super) async fn run(context: &Context, args: &EventsArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let request = StreamEventsRequest {
        cluster_name: args.name.clone().unwrap_or_default(),
        from: args.from,
        follow: args.follow,
        tail: args.tail,
        since: args.since.map(stamp),
        node_name: args.node.clone().unwrap_or_default(),
        types: args.types.clone(),
    };
    if let (true, Some(name)) = (args.follow, &args.name) {
        say_if_unknown(context, &agent, name).await?;
    }
    let listening = listen(context, &agent, request);
    if args.follow { context.out.while_read(listening).await } else { listening.await }
}

async fn listen(context: &Context, agent: &Agent, mut request: StreamEventsRequest) -> Result<Exit, Ended> {
    let (follow, mut is_away) = (request.follow, false);
    loop {
        match read(context, agent, &mut request, &mut is_away).await? {
            End::Whole if !follow => return Ok(Exit::Ok),
            End::Lost(status) if !follow => return Err(status.into()),
            // Who follows is told of no end: the host agent's own has come.
            End::Whole | End::Lost(_) => {
                if !is_away {
                    context.err.line(LOST)?;
                }
                is_away = true;
                sleep(LOST_INTERVAL).await;
            }
        }
    }
}

/// Who follows a cluster that never was may be early, or has a slip in its name.
async fn say_if_unknown(context: &Context, agent: &Agent, name: &str) -> Result<(), Ended> {
    let look = StreamEventsRequest { cluster_name: name.to_owned(), tail: Some(1), ..Default::default() };
    let Err(status) = agent.clusters().stream_events(look).await else { return Ok(()) };
    // Of what else is wrong the stream itself will tell.
    if let Some(failure) = failure_from(&status).filter(|failure| failure.id == "CLUSTER-UNKNOWN") {
        let (name, next) = (visible(name), visible(&failure.next_step));
        context.err.line(format!("there is no cluster {name} yet; waiting for its events ({next})"))?;
    }
    Ok(())
}

enum End {
    Whole,
    Lost(Status),
}

async fn read(
    context: &Context,
    agent: &Agent,
    request: &mut StreamEventsRequest,
    is_away: &mut bool,
) -> Result<End, Ended> {
    let mut stream = match agent.clusters().stream_events(request.clone()).await {
        Ok(response) => response.into_inner(),
        Err(status) if is_lost(&status) => return Ok(End::Lost(status)),
        Err(status) => return Err(status.into()),
    };
    *is_away = false;
    let mut text: Vec<u8> = Vec::new();
    loop {
        let next = if text.is_empty() {
            Some(stream.message().await)
        } else if text.len() < TEXT_BYTES {
            at_once(&mut stream).await
        } else {
            None
        };
        let Some(next) = next else {
            context.out.patiently(std::mem::take(&mut text)).await?;
            continue;
        };
        let response = match next {
            Ok(Some(response)) => response,
            end => {
                context.out.patiently(text).await?;
                return match end {
                    Ok(_) => Ok(End::Whole),
                    Err(status) if is_lost(&status) => Ok(End::Lost(status)),
                    Err(status) => Err(status.into()),
                };
            }
        };
        // Where to go on after an interruption.
        let seen = response.event.as_ref().map_or(0, |event| event.number + 1);
        request.from = response.next.max(seen).max(request.from);
        request.tail = None;
        if response.gone_before > 0 {
            // Behind the events before it.
            context.out.patiently(std::mem::take(&mut text)).await?;
            let before = response.gone_before;
            context.err.line(format!("events before {before} are no longer kept: some may be missing"))?;
        }
        match response.event {
            Some(event) => text.extend(shown(context, event.into())?),
            // All that was stored is here: what comes from now on fits whatever its time is.
            None => request.since = None,
        }
    }
}

/// The next message, where it is there already: what is there is printed at once, since each writing may be a wait.
async fn at_once(
    stream: &mut Streaming<StreamEventsResponse>,
) -> Option<Result<Option<StreamEventsResponse>, Status>> {
    tokio::select! {
        // Only where there is none the other has its turn.
        biased;
        // Cancel-safe: a message that is not yet whole stays in the stream's buffer.
        next = stream.message() => Some(next),
        () = std::future::ready(()) => None,
    }
}

fn shown(context: &Context, event: EventView) -> std::io::Result<Vec<u8>> {
    if context.format.is_structured() {
        return output::items(context, [event]);
    }
    Ok((line(&context.out, &event) + "\n").into_bytes())
}

/// An event for a person.
pub(super) fn line(out: &Printer, event: &EventView) -> String {
    let time = event.time.as_deref().map_or_else(|| "-".to_owned(), seconds);
    let style = if event.warning { styles::BAD } else { styles::NAME };
    let mark = if event.warning { "!" } else { " " };
    let cluster = event.cluster_name.as_deref().unwrap_or("-");
    format!(
        "{} {}{} {:<10} {}: {}",
        out.paint(styles::DIM, format!("{:>6} {time}", event.number)),
        out.paint(style, mark),
        out.paint(style, format!("{:<20}", visible(&event.r#type))),
        visible(cluster),
        out.paint(styles::STRONG, visible(&event.object)),
        visible(&event.message),
    )
}

/// Without the fraction of a second: `2026-11-24T04:11:50Z`.
fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time.to_owned(),
    }
}
