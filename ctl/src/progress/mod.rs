//! Watching an operation: through restarts of the host agent, until its end or until the user leaves.
//!
//! - `live`: a line per object that is drawn over, on a terminal
//! - `plain`: a line per change, off it
//! - [`Ticker`]: the same two for a stream of single lines

mod live;
mod plain;
mod ticker;

use std::io;
use std::time::Duration;

use k8sctl_proto::control::v1::WatchOperationRequest;
use k8sctl_types::failure::Failure;
use tokio::time::{Instant, sleep};
use tonic::Status;

use crate::agent::Agent;
use crate::ended::{Ended, is_lost};
use crate::exit::Exit;
use crate::terminal::{Context, Printer};
use crate::view::OperationView;

pub use ticker::Ticker;

/// How long a host agent may be away before watching it is given up.
const AWAY_LIMIT: Duration = Duration::from_secs(120);
/// Between two tries to reach it.
const INTERVAL: Duration = Duration::from_millis(250);

/// How progress is shown.
pub trait Display {
    /// The operation is now so.
    fn show(&mut self, operation: &OperationView) -> io::Result<()>;
    /// Something else is to be said.
    fn note(&mut self, text: &str) -> io::Result<()>;
    /// The last state stays as it is.
    fn finish(&mut self) -> io::Result<()>;
}

fn display(printer: &Printer) -> Box<dyn Display> {
    if printer.tty { Box::new(live::Live::new(*printer)) } else { Box::new(plain::Plain::new(*printer)) }
}

/// Watches until the operation ended, and gives back its last state. Ctrl-C leaves it alone and says how to come
/// back; `again` is the command for that.
pub async fn watch(context: &Context, agent: &Agent, id: &str, again: &str) -> Result<OperationView, Ended> {
    let mut display = display(context.story());
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let followed = tokio::select! {
        // Both only read, so leaving either loses nothing.
        followed = follow(agent, id, &mut *display) => Some(followed),
        _ = &mut interrupt => None,
    };
    display.finish()?;
    match followed {
        Some(followed) => followed,
        None => {
            context.err.line(format!("left: operation {id} goes on without you"))?;
            context.err.line(format!("watch it again with: {again}"))?;
            let look = context.source.command(&["status", "-w"]);
            context.err.line(format!("or look at it with:  {look}"))?;
            Err(Ended::Reported(Exit::Interrupted))
        }
    }
}

/// What comes behind [`watch`]. Who has once listened for Ctrl-C is no longer ended by it, so that somebody must go on
/// listening; `left` says what is done and what is not.
pub async fn interruptible<T>(
    context: &Context,
    rest: impl Future<Output = Result<T, Ended>>,
    left: &str,
) -> Result<T, Ended> {
    tokio::select! {
        // It listens before the rest begins to say anything.
        biased;
        _ = tokio::signal::ctrl_c() => {
            context.err.line(left)?;
            Err(Ended::Reported(Exit::Interrupted))
        }
        // What this does to files, it does under their locks and at once: left between two awaits, they are whole.
        ended = rest => ended,
    }
}

async fn follow(agent: &Agent, id: &str, display: &mut dyn Display) -> Result<OperationView, Ended> {
    let mut away = Away::default();
    loop {
        let lost = match follow_once(agent, id, display, &mut away).await? {
            Followed::Ended(operation) => return Ok(*operation),
            Followed::Lost(status) => status,
        };
        away.wait(id, lost, display).await?;
    }
}

enum Followed {
    Ended(Box<OperationView>),
    /// `None` means: the stream ended before the operation did.
    Lost(Option<Status>),
}

async fn follow_once(
    agent: &Agent,
    id: &str,
    display: &mut dyn Display,
    away: &mut Away,
) -> Result<Followed, Ended> {
    let request = WatchOperationRequest { operation_id: id.to_owned() };
    let mut stream = match agent.clusters().watch_operation(request).await {
        Ok(response) => response.into_inner(),
        Err(status) if is_lost(&status) => return Ok(Followed::Lost(Some(status))),
        Err(status) => return Err(status.into()),
    };
    loop {
        let operation = match stream.message().await {
            Ok(Some(response)) => response.operation.map(OperationView::from),
            Ok(None) => return Ok(Followed::Lost(None)),
            Err(status) if is_lost(&status) => return Ok(Followed::Lost(Some(status))),
            Err(status) => return Err(status.into()),
        };
        let Some(operation) = operation else { continue };
        away.back(display)?;
        display.show(&operation)?;
        if operation.state != "running" {
            return Ok(Followed::Ended(Box::new(operation)));
        }
    }
}

/// Since when the host agent is away.
#[derive(Debug, Default)]
pub struct Away {
    since: Option<Instant>,
}

impl Away {
    fn back(&mut self, display: &mut dyn Display) -> io::Result<()> {
        if self.since.take().is_some() { display.note("the host agent is back") } else { Ok(()) }
    }

    async fn wait(&mut self, id: &str, lost: Option<Status>, display: &mut dyn Display) -> Result<(), Ended> {
        if self.since.is_none() {
            display.note("the host agent went away; trying to reach it again (the operation is kept)")?;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() > AWAY_LIMIT {
            let reason =
                lost.map_or_else(|| "it ended the stream".to_owned(), |status| status.message().to_owned());
            let failure = Failure::new(
                "HOST-AGENT-LOST",
                format!("operation {id}"),
                format!("the host agent is away for {} s: {reason}", AWAY_LIMIT.as_secs()),
                "run the same command again: it starts the host agent, which goes on where it was",
            );
            return Err(Ended::with(Exit::Unreachable, failure));
        }
        sleep(INTERVAL).await;
        Ok(())
    }
}
