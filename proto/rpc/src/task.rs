//! Supervised tasks: each has a name and a span, and its exit or panic is logged and told to the supervisor.
//! The only place that calls `tokio::spawn`. What blocks or computes for long is no task: [`blocking`] is for that.

use std::any::Any;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use crate::chain;

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It returned.
    Done,
    /// It returned an error, printed with its causes.
    Failed(String),
    /// It panicked with this message.
    Panicked(String),
}

/// The end of a task. A task that was aborted reports nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Name given at its start.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a task may return: nothing, or a result.
pub trait TaskResult {
    /// The outcome that it stands for.
    fn outcome(self) -> Outcome;
}

impl TaskResult for () {
    fn outcome(self) -> Outcome {
        Outcome::Done
    }
}

impl<E: Error + 'static> TaskResult for Result<(), E> {
    fn outcome(self) -> Outcome {
        match self {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(chain(&error).to_string()),
        }
    }
}

/// Starts tasks and hears of their end. Clones report to the same receiver.
#[derive(Clone, Debug)]
pub struct Supervisor {
    exits: mpsc::UnboundedSender<Exit>,
}

impl Supervisor {
    /// A supervisor and the channel on which exits arrive.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Exit>) {
        let (exits, receiver) = mpsc::unbounded_channel();
        (Self { exits }, receiver)
    }

    /// Starts a task in the current span. Its exit is logged and reported. It goes on when the handle is dropped.
    pub fn spawn<F>(&self, name: impl Into<String>, future: F) -> AbortHandle
    where
        F: Future<Output: TaskResult> + Send + 'static,
    {
        let exits = self.exits.clone();
        start(name.into(), future, move |exit| {
            // Nobody listens any more when the program ends.
            let _ = exits.send(exit);
        })
    }
}

/// Starts a task whose exit is only logged.
pub fn spawn<F>(name: impl Into<String>, future: F) -> AbortHandle
where
    F: Future<Output: TaskResult> + Send + 'static,
{
    start(name.into(), future, |_| ())
}

/// Runs `work` on a thread where it holds up nobody else, however long it reads or computes. A panic in it goes on here.
/// It runs to its end also where nobody waits for it any more.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that starts a task")]
fn start<F>(name: String, future: F, report: impl FnOnce(Exit) + Send + 'static) -> AbortHandle
where
    F: Future<Output: TaskResult> + Send + 'static,
{
    let span = tracing::info_span!("task", task.name = %name);
    let run = async move {
        let outcome = match catch_unwind(future).await {
            Ok(result) => result.outcome(),
            Err(panic) => Outcome::Panicked(panic_message(&*panic)),
        };
        match &outcome {
            Outcome::Done => tracing::debug!("task ended"),
            Outcome::Failed(error) => tracing::error!(error, "task failed"),
            Outcome::Panicked(error) => tracing::error!(error, "task panicked"),
        }
        report(Exit { name, outcome });
    };
    tokio::spawn(run.instrument(span)).abort_handle()
}

/// Runs a future and turns a panic into an error. The future is dropped after a panic, so no broken state of it
/// is seen.
async fn catch_unwind<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    std::future::poll_fn(move |context: &mut Context<'_>| {
        let polled: Pin<&mut F> = future.as_mut();
        match std::panic::catch_unwind(AssertUnwindSafe(|| polled.poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_exit_is_reported() {
        let (supervisor, mut exits) = Supervisor::new();
        let mut next = async |name: &str| {
            let exit = exits.recv().await.expect("an exit");
            assert_eq!(exit.name, name);
            exit.outcome
        };
        supervisor.spawn("good", async {});
        assert_eq!(next("good").await, Outcome::Done);
        supervisor.spawn("bad", async { Err(std::io::Error::other("disk full")) });
        assert_eq!(next("bad").await, Outcome::Failed("disk full".into()));
        let names = ["one"];
        supervisor.spawn("ugly", async move { assert!(names.is_empty(), "index {}", 7) });
        assert_eq!(next("ugly").await, Outcome::Panicked("index 7".into()));
        supervisor.spawn("far", async { blocking::<()>(|| panic!("elsewhere")).await });
        assert_eq!(next("far").await, Outcome::Panicked("elsewhere".into()));
        assert_eq!(blocking(|| 7).await, 7);
    }
}
