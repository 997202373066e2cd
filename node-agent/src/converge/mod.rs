//! The loop that makes the node what the host wants: level-triggered, one step after the other, forever.
//!
//! [`Converge`] owns the steps. It wakes on a new desired state, on a timer (drift) and after a failure's pause,
//! and each time begins at the first step. A new generation interrupts only between steps.

pub mod simulated;
pub mod step;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8sctl_proto::node::v1::{DesiredState, StepState, Target};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::retry::{self, Backoff};
use crate::status::{Board, Progress};
use step::{Check, Journal, Step, StepError};

/// How often everything is checked again although nothing happened.
pub const DRIFT_INTERVAL: Duration = Duration::from_secs(60);
/// Longest that one apply may take when the host sets no deadline.
pub const STEP_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// How a round through the steps ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// All steps that the target asks for are true.
    Converged,
    /// A step failed; later ones were not tried.
    Failed,
    /// The desired state changed meanwhile.
    Interrupted,
}

/// The loop and its steps.
pub struct Converge {
    steps: Vec<Box<dyn Step>>,
    desired: watch::Receiver<Option<DesiredState>>,
    board: Board,
    journal: Arc<dyn Journal>,
    shutdown: CancellationToken,
}

impl Converge {
    /// Steps run in the given order.
    pub fn new(
        steps: Vec<Box<dyn Step>>,
        desired: watch::Receiver<Option<DesiredState>>,
        board: Board,
        journal: Arc<dyn Journal>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { steps, desired, board, journal, shutdown }
    }

    /// Runs until shutdown; a step in progress is dropped then, and begun again at the next start.
    pub async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        // Cancel-safe by contract of the steps: each may be ended anywhere and resumes by its check.
        tokio::select! {
            () = self.converge() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn converge(&mut self) {
        let mut backoff = Backoff::new(retry::STEP);
        let mut asked = None;
        loop {
            let Some(desired) = self.desired.borrow_and_update().clone() else {
                if self.desired.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let names: Vec<&'static str> = self.steps.iter().map(|step| step.name()).collect();
            // A person asked again: what failed before that does not count against this time.
            let anew =
                asked.replace(desired.spec_generation).is_some_and(|old| old != desired.spec_generation);
            self.board.observe(desired.generation, &names, anew);
            let pause = match self.round(&desired).await {
                Round::Converged => {
                    backoff.reset();
                    DRIFT_INTERVAL
                }
                Round::Failed => backoff.next_pause(),
                Round::Interrupted => {
                    backoff.reset();
                    continue;
                }
            };
            // Cancel-safe: `changed` loses nothing, and the state is read anew above in any case.
            tokio::select! {
                changed = self.desired.changed() => match changed {
                    Ok(()) => backoff.reset(),
                    Err(_) => return,
                },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn round(&self, desired: &DesiredState) -> Round {
        let member = desired.target() == Target::Member;
        for step in &self.steps {
            if self.desired.has_changed().unwrap_or(false) {
                return Round::Interrupted;
            }
            if step.members_only() && !member {
                self.board.step(step.name(), |status| {
                    status.set_state(StepState::Pending);
                    status.message = "waiting for the control plane".to_owned();
                });
                continue;
            }
            let progress = Progress::new(self.board.clone(), step.name());
            if let Err(error) = self.make_true(step.as_ref(), desired, &progress).await {
                self.fail(step.as_ref(), &error, &progress).await;
                return Round::Failed;
            }
        }
        Round::Converged
    }

    /// Check; if it is not true, apply and check again.
    async fn make_true(
        &self,
        step: &dyn Step,
        desired: &DesiredState,
        progress: &Progress,
    ) -> Result<(), StepError> {
        let name = step.name();
        let why = match step.check(desired).await {
            Ok(Check::True) => {
                self.done(name);
                return Ok(());
            }
            Ok(Check::False(why)) => why,
            Err(error) => {
                self.begin(name, String::new());
                return Err(error);
            }
        };
        tracing::info!(step = name, why, "step begins");
        self.begin(name, why);
        let deadline = desired
            .step_deadline
            .and_then(|duration| Duration::try_from(duration).ok())
            .filter(|deadline| !deadline.is_zero())
            .unwrap_or(STEP_DEADLINE);
        match timeout(deadline, step.apply(desired, progress)).await {
            Err(_) => {
                let last = self.board.step_status(name).message;
                return Err(StepError::Deadline { deadline, last });
            }
            Ok(applied) => applied?,
        }
        match step.check(desired).await? {
            Check::True => {
                self.done(name);
                Ok(())
            }
            Check::False(why) => Err(StepError::NotTrueAfterApply { why }),
        }
    }

    /// Another try, which [`Self::done`] or [`Self::fail`] ends.
    fn begin(&self, name: &str, why: String) {
        self.board.step(name, |status| {
            status.set_state(StepState::Running);
            status.message = why;
            status.attempts = status.attempts.saturating_add(1);
            status.started = Some(clock::now());
            status.finished = None;
            status.evidence = None;
        });
    }

    fn done(&self, name: &str) {
        self.board.step(name, |status| {
            status.attempts = 0;
            if status.state() == StepState::Done {
                return;
            }
            tracing::info!(step = name, "step done");
            let now = clock::now();
            status.started.get_or_insert(now);
            status.finished = Some(now);
            status.set_state(StepState::Done);
            status.message = String::new();
            status.evidence = None;
        });
    }

    async fn fail(&self, step: &dyn Step, error: &StepError, progress: &Progress) {
        let message = k8sctl_rpc::chain(error).to_string();
        tracing::error!(step = step.name(), error = message, "step failed");
        // An error that is no command's may well come of what the last command did.
        let mut evidence = Some(error.evidence())
            .filter(|evidence| !evidence.argv.is_empty())
            .unwrap_or_else(|| progress.last_command());
        if let Some(unit) = step.unit() {
            evidence.journal_tail = self.journal.tail(unit).await;
        }
        self.board.step(step.name(), |status| {
            status.set_state(StepState::Failed);
            status.message = message;
            status.evidence = Some(evidence);
            status.finished = Some(clock::now());
        });
    }
}
