//! Replaces the agent's own program where the host wants another one.
//!
//! - `plan`: what the agent and the guard do next, pure
//! - `disk`: the files; `fetch`: the program's way here; `units`: systemd
//! - `guard`: the process that gives the new program its place, and takes it back
//!
//! The session tells [`Replacements`] what the host wants and that it has a session; one task acts on it. Nothing here
//! ends the agent: the guard has systemd do that.

mod disk;
mod fetch;
mod guard;
mod plan;
mod units;

use std::sync::Arc;
use std::time::Duration;

use k8sctl_command::CommandError;
use k8sctl_proto::node::v1::{AgentProgram, AgentReplacement, ReplacementState};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::durable::Root;
use crate::status::Board;
use crate::systemd::SystemdError;
use disk::{Files, Places};
use fetch::FetchError;
use guard::GuardError;
use plan::{AgentStep, Disk, Wanted, plan_agent};
use units::{RealUnits, Units};

/// How long a new agent may take until it has a session, unless the host says otherwise.
const SESSION_SECONDS: u64 = 90;
/// Between two looks at a trial: the guard works on it beside this process, and may end it, or die.
const LOOK: Duration = Duration::from_secs(5);
/// How long a new agent must have had its session without a break: one that dies of what the host tells it has one, too.
/// No more than a third of the time that it has for all.
const STEADY: Duration = Duration::from_secs(10);
/// The longest that is taken from a host.
const MOST_SECONDS: u64 = 60 * 60;

/// What the host wants, with the way to it.
#[derive(Clone, Debug, Default)]
struct Asked {
    wanted: Option<(Wanted, Channel)>,
    /// Since when it has a session.
    session_since: Option<Instant>,
}

/// The session's end of it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Replacements {
    asked: Arc<watch::Sender<Asked>>,
    running: Option<String>,
}

impl Replacements {
    /// The digest of the program that this process is; `None` means: it is not known, or of no use.
    pub fn running(&self) -> Option<&str> {
        self.running.as_deref()
    }

    /// The host has spoken.
    pub fn heard(&self) {
        self.asked.send_if_modified(|asked| {
            let is_news = asked.session_since.is_none();
            asked.session_since.get_or_insert_with(Instant::now);
            is_news
        });
    }

    /// The session has ended.
    pub fn lost(&self) {
        self.asked.send_if_modified(|asked| asked.session_since.take().is_some());
    }

    /// What the host wants to run; said again, it is tried again.
    pub fn want(&self, program: Option<&AgentProgram>, channel: &Channel) {
        let wanted = program.map(|program| (wanted(program), channel.clone()));
        self.asked.send_if_modified(|asked| {
            let is_news = asked.wanted.is_some() || wanted.is_some();
            asked.wanted = wanted;
            is_news
        });
    }
}

fn wanted(program: &AgentProgram) -> Wanted {
    let seconds = program.session_deadline.and_then(|it| u64::try_from(it.seconds).ok());
    Wanted {
        attempt: program.attempt.clone(),
        sha256: program.sha256.clone(),
        size: program.size_bytes,
        seconds: seconds.filter(|seconds| *seconds > 0).unwrap_or(SESSION_SECONDS).min(MOST_SECONDS),
    }
}

/// The agent's part was not done.
#[derive(Debug, thiserror::Error)]
enum ReplaceError {
    #[error("cannot fetch the program")]
    Fetch(#[from] FetchError),
    #[error("the program does not start here")]
    TryOut(#[source] CommandError),
    #[error("cannot {what}")]
    File {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start the guard")]
    Guard(#[from] SystemdError),
}

/// Watches over the agent's program below `root` from now on.
pub async fn start(root: &Root, state_dir: &std::path::Path, board: &Board) -> Replacements {
    let places = Places::new(root, state_dir);
    start_with(places, Arc::new(RealUnits), board.clone(), running_digest().await)
}

async fn running_digest() -> Option<String> {
    match spawn_blocking(disk::running_digest).await {
        Ok(Ok(digest)) => Some(digest),
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot read this agent's own program; it will not be replaced");
            None
        }
        Err(_) => None,
    }
}

fn start_with(places: Places, units: Arc<dyn Units>, board: Board, running: Option<String>) -> Replacements {
    let replacements = Replacements { running: running.clone(), ..Replacements::default() };
    if let Some(running) = running {
        let asked = replacements.asked.subscribe();
        let replacer = Replacer { files: Files::new(places), units, board, running, asked, steady: None };
        k8sctl_rpc::task::spawn("replace-agent", replacer.run());
    }
    replacements
}

/// Runs as the guard of the trial on this machine's disk, to its end.
pub async fn run_guard(root: &Root, state_dir: &std::path::Path) -> Result<(), GuardError> {
    guard::guard(Files::new(Places::new(root, state_dir)), &RealUnits).await
}

struct Replacer {
    files: Files,
    units: Arc<dyn Units>,
    board: Board,
    running: String,
    asked: watch::Receiver<Asked>,
    /// How long the agent of the trial, if there was one at the last look, must have had its session.
    steady: Option<Duration>,
}

impl Replacer {
    /// Ends with the session's end of it.
    async fn run(mut self) {
        loop {
            let asked = self.asked.borrow_and_update().clone();
            if let Err(error) = self.round(&asked).await {
                let error = k8sctl_rpc::chain(&error).to_string();
                tracing::warn!(error, "the agent is not replaced");
                if let Some((wanted, _)) = &asked.wanted {
                    self.tell(wanted, ReplacementState::Failed, error);
                }
            }
            // Cancel-safe: a change that was not seen stays one.
            let changed = self.asked.changed();
            let changed = match self.steady {
                Some(steady) => {
                    let left = asked.session_since.map(|since| steady.saturating_sub(since.elapsed()));
                    let look = left.filter(|left| !left.is_zero()).unwrap_or(LOOK).min(LOOK);
                    tokio::time::timeout(look, changed).await.unwrap_or(Ok(()))
                }
                None => changed.await,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Steps until nothing is left to do here.
    async fn round(&mut self, asked: &Asked) -> Result<(), ReplaceError> {
        loop {
            let disk = self.look().await?;
            let wanted = asked.wanted.as_ref().map(|(wanted, _)| wanted);
            let has_session = asked
                .session_since
                .is_some_and(|since| self.steady.is_none_or(|steady| since.elapsed() >= steady));
            let step = plan_agent(&disk, &self.running, wanted, has_session);
            self.tell_of(&disk);
            let file = |what| move |source| ReplaceError::File { what, source };
            match (step, &asked.wanted) {
                (AgentStep::Rest, _) => return Ok(()),
                (AgentStep::Fetch, Some((wanted, channel))) => {
                    self.tell(wanted, ReplacementState::Fetching, format!("{} bytes", wanted.size));
                    let staged = self.files.places.staged.clone();
                    fetch::fetch(channel.clone(), wanted, &staged).await?;
                    tracing::info!(sha256 = wanted.sha256, "fetched another agent");
                }
                // Nothing is fetched that nobody wants.
                (AgentStep::Fetch, None) => return Ok(()),
                (AgentStep::Keep, _) => {
                    let files = Files::new(self.files.places.clone());
                    let kept = spawn_blocking(move || files.keep_running()).await;
                    let kept = kept.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                    kept.map_err(file("keep a copy of this agent"))?;
                }
                (AgentStep::Begin(trial), _) => {
                    // Also one that was fetched in an earlier attempt.
                    let staged = self.files.places.staged.clone();
                    let version = self.units.try_out(&staged).await.map_err(ReplaceError::TryOut)?;
                    let asked = self.asked.borrow().wanted.as_ref().map(|(wanted, _)| wanted.attempt.clone());
                    if asked.as_ref() != Some(&trial.attempt) {
                        // Something else is asked for by now: the next round sees to that.
                        return Ok(());
                    }
                    let version = version.trim();
                    tracing::info!(
                        attempt = trial.attempt,
                        sha256 = trial.new,
                        version,
                        "another agent is tried"
                    );
                    self.files.write_trial(&trial).map_err(file("write the trial"))?;
                }
                (AgentStep::Confirm(word), _) => {
                    self.files.write_confirmed(&word).map_err(file("write that there is a session"))?;
                }
                (AgentStep::Guard, _) => return Ok(self.units.start_guard().await?),
            }
        }
    }

    /// Reading programs takes a while.
    async fn look(&mut self) -> Result<Disk, ReplaceError> {
        let file = |source| ReplaceError::File { what: "look at the files of the trial", source };
        let empty = Files::new(self.files.places.clone());
        let mut files = std::mem::replace(&mut self.files, empty);
        let looked = spawn_blocking(move || {
            let disk = files.look();
            (files, disk)
        });
        let (files, disk) = looked.await.map_err(|error| file(std::io::Error::other(error)))?;
        self.files = files;
        let disk = disk.map_err(file)?;
        let third = |seconds| Duration::from_secs(seconds) / 3;
        self.steady = disk.trial.as_ref().map(|trial| STEADY.min(third(trial.seconds)));
        Ok(disk)
    }

    /// What the disk says of the last trial.
    fn tell_of(&self, disk: &Disk) {
        if let Some(trial) = &disk.trial {
            let is_confirmed = disk.confirmed.as_ref().is_some_and(|it| {
                it.attempt == trial.attempt && it.sha256 == trial.new && trial.reverting.is_none()
            });
            let state = if is_confirmed { ReplacementState::Replaced } else { ReplacementState::OnTrial };
            let message = trial.reverting.clone().unwrap_or_default();
            self.board.replacement(replacement(&trial.attempt, &trial.new, state, message));
        } else if let Some(outcome) = &disk.outcome {
            let state = match outcome.reason {
                None => ReplacementState::Replaced,
                Some(_) => ReplacementState::RolledBack,
            };
            let message = outcome.reason.clone().unwrap_or_default();
            self.board.replacement(replacement(&outcome.attempt, &outcome.new, state, message));
        }
    }

    fn tell(&self, wanted: &Wanted, state: ReplacementState, message: String) {
        self.board.replacement(replacement(&wanted.attempt, &wanted.sha256, state, message));
    }
}

fn replacement(attempt: &str, sha256: &str, state: ReplacementState, message: String) -> AgentReplacement {
    AgentReplacement { attempt: attempt.to_owned(), sha256: sha256.to_owned(), state: state.into(), message }
}

#[cfg(test)]
mod tests;
