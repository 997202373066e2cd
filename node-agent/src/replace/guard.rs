//! The guard of a trial: a process of the old program, in a unit of its own. It gives the new program the place, waits for
//! its word, and takes the place back where that does not come. `plan` decides; this does.
//!
//! Started by the agent and at every boot while there is a trial. One that fails is started again by systemd, and goes on.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::disk::Files;
use super::plan::{Disk, GuardMemory, GuardStep, Trial, plan_guard};
use super::units::Units;
use crate::systemd::SystemdError;

/// Between two looks at whether the new program has said its word: a file of this machine.
const LOOK: Duration = Duration::from_millis(250);
/// Before what could not be written is tried again: the disk may be full, and the agent at work on that.
const AGAIN: Duration = Duration::from_secs(10);

/// A step was not done.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A file could not be read or changed.
    #[error("cannot {what}")]
    File {
        /// In words.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// systemd did not do it.
    #[error("cannot start the agent anew")]
    Restart(#[from] SystemdError),
}

/// Works on the trial to its end.
pub async fn guard(mut files: Files, units: &dyn Units) -> Result<(), GuardError> {
    let (mut memory, mut end) = (GuardMemory::default(), None);
    // Where the disk is full; an old agent that is to come back must do so all the same.
    let mut unwritten: Option<Trial> = None;
    loop {
        let mut disk = files.look().map_err(failed("look at the files of the trial"))?;
        if disk.trial.is_some() && unwritten.is_some() {
            disk.trial.clone_from(&unwritten);
        }
        if let Some(trial) = &disk.trial {
            // Counted from this guard's start, and anew from that of the agent, for which systemd may have taken long: a
            // clock that is set, or a VM that stood still, takes nothing from it.
            let end = *end.get_or_insert_with(|| Instant::now() + Duration::from_secs(trial.seconds));
            memory.is_late = Instant::now() >= end;
        }
        let step = plan_guard(&disk, memory);
        tracing::debug!(?step, "guard");
        match &step {
            GuardStep::Finish => return Ok(()),
            GuardStep::Write(trial) => {
                if let Some(reason) = &trial.reverting {
                    tracing::warn!(reason, "the old agent comes back");
                }
                unwritten = match files.write_trial(trial) {
                    Ok(()) => None,
                    Err(error) if trial.reverting.is_some() => {
                        tracing::warn!(%error, "cannot write that the old agent comes back; it does");
                        Some(trial.clone())
                    }
                    Err(error) => return Err(failed("write the trial")(error)),
                };
                memory.is_counted = true;
            }
            GuardStep::Install => {
                files.install().map_err(failed("give the new agent its place"))?;
                memory.has_restarted = false;
            }
            GuardStep::Restore => {
                files.restore().map_err(failed("give the old agent its place"))?;
                memory.has_restarted = false;
            }
            GuardStep::Restart => {
                units.restart_agent().await?;
                memory.has_restarted = true;
                end = None;
            }
            GuardStep::Wait => wait(&files, &disk, end).await,
            GuardStep::Conclude(outcome) => {
                tracing::info!(?outcome, "the trial has ended");
                // Whoever begins anew restarts the agent once more.
                if let Err(error) = files.write_outcome(outcome) {
                    tracing::warn!(%error, "cannot write how the trial ended; it is tried again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            GuardStep::Clear => {
                if let Err(error) = files.clear() {
                    tracing::warn!(%error, "cannot take away the trial; it is tried again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Until the new program has said its word, or its time is up.
async fn wait(files: &Files, disk: &Disk, end: Option<Instant>) {
    let (Some(trial), Some(end)) = (&disk.trial, end) else { return };
    while !files.is_confirmed(trial) && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> GuardError {
    move |source| GuardError::File { what, source }
}
