//! The loop that makes the node what the host wants: level-triggered, one step after the other, forever.
//!
//! [`Converge`] owns the steps. It wakes on a new desired state, on a timer (drift) and after a failure's pause,
//! and each time begins at the first step. A new generation interrupts only between steps.
//!
//! A step that was done for the desired state of now and is so no more, or cannot even be looked at, has drifted: its
//! apply is a repair, which is limited and listed, until it is so again, whatever else is wanted by then. One that rests,
//! because it was repaired too often, does not hold up those behind it. Nor does one of which nobody can say yet how it is.

pub mod simulated;
pub mod step;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8sctl_proto::node::v1::{DesiredState, StepState, Target};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::repair::{Repairs, Rest};
use crate::retry::{self, Backoff};
use crate::status::{Board, Progress};
use crate::{clock, durable};
use step::{Check, Journal, Step, StepError};

/// How often everything is checked again although nothing happened, from the beginning of one round to that of the next:
/// what has drifted is to be as it was within a minute, its repair included.
pub const DRIFT_INTERVAL: Duration = Duration::from_secs(45);
/// Shortest pause between two rounds, however long one took.
const LEAST_PAUSE: Duration = Duration::from_secs(10);
/// Pause between two looks at a step of which nobody can say how it is: that may be over at any moment.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(5);
/// How long nobody may be able to say that before it counts as a try that has failed.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Longest that one apply may take when the host sets no deadline.
pub const STEP_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// How a round through the steps ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// All steps that the target asks for are true, or rest.
    Converged,
    /// The same but for some of which nobody can say yet.
    Unknown,
    /// A step failed; later ones were not tried.
    Failed,
    /// The desired state changed meanwhile.
    Interrupted,
}

/// How a step that has not failed was left.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Left {
    /// It is so, or rests.
    Settled,
    /// Nobody can say yet, and why.
    Unknown(String),
}

/// The loop and its steps.
pub struct Converge {
    steps: Arc<[Box<dyn Step>]>,
    desired: watch::Receiver<Option<DesiredState>>,
    board: Board,
    journal: Arc<dyn Journal>,
    shutdown: CancellationToken,
    repairs: Repairs,
    /// Somebody has changed something.
    wake: Arc<Notify>,
    /// What the host wanted at the last look.
    known: Option<DesiredState>,
    /// The host has let this machine be a member.
    is_member: bool,
    /// The generation for which a step was done last.
    done: HashMap<&'static str, u64>,
    /// Where that is kept; `None` means: nowhere.
    done_file: Option<PathBuf>,
    /// Since when nobody can say of which step how it is, or since that counted as a failure last.
    unknown: HashMap<&'static str, Instant>,
}

impl Converge {
    /// Steps run in the given order. Repairs are limited, and listed on the board, but not kept.
    pub fn new(
        steps: Vec<Box<dyn Step>>,
        desired: watch::Receiver<Option<DesiredState>>,
        board: Board,
        journal: Arc<dyn Journal>,
        shutdown: CancellationToken,
    ) -> Self {
        let known = desired.borrow().clone();
        Self {
            steps: steps.into(),
            desired,
            journal,
            shutdown,
            repairs: Repairs::in_memory(board.clone()),
            board,
            wake: Arc::default(),
            is_member: known.as_ref().is_some_and(|known| known.target() == Target::Member),
            known,
            done: HashMap::new(),
            done_file: None,
            unknown: HashMap::new(),
        }
    }

    /// Counts and lists repairs together with those of others.
    pub fn with_repairs(self, repairs: Repairs) -> Self {
        Self { repairs, ..self }
    }

    /// Is woken by this too.
    pub fn woken_by(self, wake: Arc<Notify>) -> Self {
        Self { wake, ..self }
    }

    /// Takes up which steps an agent before this one had done, and keeps it: what is so no more has drifted for this one
    /// too. In a file that a boot removes, since a boot undoes some of it, and that is no drift.
    pub fn keeping_done(mut self, file: PathBuf) -> Self {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        for step in self.steps.iter() {
            let generation =
                |line: &str| line.strip_prefix(step.name())?.strip_prefix(' ')?.parse::<u64>().ok();
            self.done.extend(text.lines().find_map(generation).map(|generation| (step.name(), generation)));
        }
        Self { done_file: Some(file), ..self }
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
        // When the last round through all steps began.
        let mut begun = Instant::now();
        let mut is_for_all = true;
        loop {
            let Some(desired) = self.desired.borrow_and_update().clone() else {
                if self.desired.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let names: Vec<&'static str> = self.steps.iter().map(|step| step.name()).collect();
            let anew = self.take_in(&desired);
            self.board.observe(desired.generation, &names, anew);
            if is_for_all {
                begun = Instant::now();
            }
            // What a failing step changes must not make it try again at once.
            let (pause, may_be_woken) = match self.round(&desired, is_for_all).await {
                Round::Converged => {
                    backoff.reset();
                    (DRIFT_INTERVAL.saturating_sub(begun.elapsed()).max(LEAST_PAUSE), true)
                }
                Round::Unknown => {
                    backoff.reset();
                    (UNKNOWN_PAUSE, true)
                }
                Round::Failed => (backoff.next_pause(), false),
                Round::Interrupted => {
                    backoff.reset();
                    is_for_all = true;
                    continue;
                }
            };
            is_for_all = true;
            // Cancel-safe: `changed` loses nothing, the others only wake, and the state is read anew above in any case.
            tokio::select! {
                changed = self.desired.changed() => match changed {
                    Ok(()) => backoff.reset(),
                    Err(_) => return,
                },
                () = self.wake.notified(), if may_be_woken => {}
                () = tokio::time::sleep(pause) => {
                    // A machine that boots has better things to do than to look at everything every few seconds.
                    is_for_all = self.unknown.is_empty() || begun.elapsed() >= DRIFT_INTERVAL;
                }
            }
        }
    }

    /// Takes in what the host wants. Says whether a person asked again: what failed before that does not count against
    /// this time.
    fn take_in(&mut self, desired: &DesiredState) -> bool {
        let known = self.known.replace(desired.clone());
        let is_other_number = |known: &DesiredState| known.generation != desired.generation;
        if let Some(known) = known.filter(|known| is_other_number(known) && is_the_same(known, desired)) {
            // The host agent was started again, and counts from elsewhere: what was done for this is done.
            for done in self.done.values_mut().filter(|done| **done == known.generation) {
                *done = desired.generation;
            }
            self.keep_done();
        }
        self.repairs.asked_for(desired.spec_generation)
    }

    /// One round, through all steps or only those of which nobody could say how they are.
    async fn round(&mut self, desired: &DesiredState, is_for_all: bool) -> Round {
        // Who was let be a member stays one: a host agent that was just started does not know yet how far a node was.
        self.is_member |= desired.target() == Target::Member;
        let steps = Arc::clone(&self.steps);
        for step in steps.iter() {
            if self.desired.has_changed().unwrap_or(false) {
                return Round::Interrupted;
            }
            if !is_for_all && !self.unknown.contains_key(step.name()) {
                continue;
            }
            if step.members_only() && !self.is_member {
                self.board.step(step.name(), |status| {
                    status.set_state(StepState::Pending);
                    status.message = "waiting for the control plane".to_owned();
                });
                continue;
            }
            let progress = Progress::new(self.board.clone(), step.name());
            match self.make_true(step.as_ref(), desired, &progress).await {
                Ok(Left::Settled) => {
                    self.unknown.remove(step.name());
                }
                Ok(Left::Unknown(why)) => self.look_again(step.as_ref(), why, &progress).await,
                Err(error) => {
                    self.unknown.remove(step.name());
                    self.fail(step.as_ref(), &error, &progress).await;
                    return Round::Failed;
                }
            }
        }
        if self.unknown.is_empty() { Round::Converged } else { Round::Unknown }
    }

    /// Check; if it is not true, apply and check again.
    async fn make_true(
        &mut self,
        step: &dyn Step,
        desired: &DesiredState,
        progress: &Progress,
    ) -> Result<Left, StepError> {
        let name = step.name();
        let was_done = self.done.get(name) == Some(&desired.generation);
        // One that did not help is still that repair, also for another desired state and after a boot: neither ends a rest,
        // nor begins to count anew.
        let is_repair = was_done || self.repairs.is_unsettled(name);
        let (why, drifted) = match step.check(desired).await {
            Ok(Check::True) => {
                self.done(name, desired);
                return Ok(Left::Settled);
            }
            Ok(Check::Waits(why) | Check::Unknown(why)) if was_done => {
                self.wait(name, why);
                return Ok(Left::Settled);
            }
            Ok(Check::Unknown(why)) => return Ok(Left::Unknown(why)),
            Ok(Check::False(why) | Check::Waits(why)) => (why, is_repair),
            // Something is in the way of looking that was not there before, such as a directory in a file's place.
            Err(error) if is_repair => (k8sctl_rpc::chain(&error).to_string(), true),
            Err(error) => {
                self.begin(name, String::new());
                return Err(error);
            }
        };
        if !drifted {
            tracing::info!(step = name, why, "step begins");
            self.begin(name, why);
            return self.apply(step, desired, progress, drifted).await;
        }
        if let Err(rest) = self.repairs.leave(name, &why) {
            self.rest(name, &why, &rest);
            return Ok(Left::Settled);
        }
        tracing::warn!(step = name, why, "step has drifted");
        let listed = self.repairs.newest(name);
        self.begin(name, why.clone());
        let applied = self.apply(step, desired, progress, drifted).await;
        // Where a service was meant, repair may have been at it meanwhile, and has listed it then.
        if self.repairs.newest(name) == listed {
            let result = applied.as_ref().map(|_| ()).map_err(|error| k8sctl_rpc::chain(error).to_string());
            self.repairs.ended(name, &why, &format!("ran step {name} again"), result);
        } else {
            self.repairs.passed(name, &why);
        }
        applied
    }

    /// Apply, within the deadline, and check again.
    async fn apply(
        &mut self,
        step: &dyn Step,
        desired: &DesiredState,
        progress: &Progress,
        drifted: bool,
    ) -> Result<Left, StepError> {
        let deadline = desired
            .step_deadline
            .and_then(|duration| Duration::try_from(duration).ok())
            .filter(|deadline| !deadline.is_zero())
            .unwrap_or(STEP_DEADLINE);
        let Ok(applied) = timeout(deadline, apply_and_check(step, desired, progress, drifted)).await else {
            let last = self.board.step_status(step.name()).message;
            return Err(StepError::Deadline { deadline, last });
        };
        let waits = match applied? {
            Check::True => None,
            // Where it was done before, that is no part of its repair, which would hold up the steps behind it meanwhile.
            Check::Waits(why) | Check::Unknown(why) if drifted => Some(why),
            Check::Unknown(why) => return Ok(Left::Unknown(why)),
            Check::False(why) | Check::Waits(why) => return Err(StepError::NotTrueAfterApply { why }),
        };
        self.done(step.name(), desired);
        if let Some(why) = waits {
            self.wait(step.name(), why);
        }
        Ok(Left::Settled)
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

    /// It was done, perhaps by an agent before this one, and waits for others now: nothing here is undone by that.
    fn wait(&self, name: &str, why: String) {
        tracing::debug!(step = name, why, "step cannot be looked at");
        self.board.step(name, |status| {
            if status.state() == StepState::Pending {
                status.set_state(StepState::Done);
            }
            if status.state() == StepState::Done {
                status.message = why;
            }
        });
    }

    /// It was not done yet, and there is nothing to do but to look again soon. That is no try, and no failure before it has
    /// lasted.
    async fn look_again(&mut self, step: &dyn Step, why: String, progress: &Progress) {
        let name = step.name();
        let is_new = !self.unknown.contains_key(name);
        let since = self.unknown.entry(name).or_insert_with(Instant::now);
        if since.elapsed() >= UNKNOWN_PATIENCE {
            *since = Instant::now();
            self.board.step(name, |status| status.attempts = status.attempts.saturating_add(1));
            let error = StepError::Deadline { deadline: UNKNOWN_PATIENCE, last: why };
            self.fail(step, &error, progress).await;
            return;
        }
        self.board.step(name, |status| {
            if is_new && status.state() != StepState::Running {
                tracing::info!(step = name, why, "step waits");
                status.set_state(StepState::Running);
                status.started = Some(clock::now());
                status.finished = None;
                status.evidence = None;
            }
            // One that has failed says why.
            if status.state() == StepState::Running {
                status.message = why;
            }
        });
    }

    fn rest(&self, name: &str, why: &str, rest: &Rest) {
        self.board.step(name, |status| {
            status.set_state(StepState::Failed);
            status.message = format!("{why}; repaired too often, {}", rest.message);
            status.finished.get_or_insert_with(clock::now);
        });
    }

    fn done(&mut self, name: &'static str, desired: &DesiredState) {
        self.repairs.settle(name);
        if self.done.insert(name, desired.generation) != Some(desired.generation) {
            self.keep_done();
        }
        self.board.step(name, |status| {
            status.attempts = 0;
            if status.state() == StepState::Done {
                status.message = String::new();
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

    fn keep_done(&self) {
        let Some(file) = &self.done_file else { return };
        let text: String =
            self.done.iter().map(|(name, generation)| format!("{name} {generation}\n")).collect();
        if let Err(error) = durable::write(file, text.as_bytes(), 0o600) {
            tracing::warn!(path = %file.display(), %error, "cannot keep which steps are done");
        }
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

/// Whether both ask for the same: whatever its number, whichever program the agent shall be, and however far the node may
/// go, each step has the same to do.
fn is_the_same(one: &DesiredState, other: &DesiredState) -> bool {
    let bare = |desired: &DesiredState| {
        let target = Target::Unspecified.into();
        DesiredState { generation: 0, agent: None, target, ..desired.clone() }
    };
    bare(one) == bare(other)
}

/// Says how it is in the end.
async fn apply_and_check(
    step: &dyn Step,
    desired: &DesiredState,
    progress: &Progress,
    drifted: bool,
) -> Result<Check, StepError> {
    step.apply(desired, progress).await?;
    match step.check(desired).await? {
        // What an apply has left to others, the next one begins with, and waits.
        Check::Waits(_) if !drifted => {
            step.apply(desired, progress).await?;
            step.check(desired).await
        }
        check => Ok(check),
    }
}
