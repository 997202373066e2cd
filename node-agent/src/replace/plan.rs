//! How an agent's program is replaced, as pure functions of what is on the disk. Every step leaves a disk from which the
//! next look goes on, so that a crash or a loss of power between any two of them costs nothing but time.
//!
//! Two take steps. The agent that runs puts the new program beside its own, keeps a copy of its own, and begins a trial.
//! The guard, a unit of its own that runs the copy, gives the new one its place and takes it away again unless that one
//! has a session in time. The new one's only part is to say that it has one.

use serde::{Deserialize, Serialize};

/// How often a guard may be started for one trial. One that dies each time must not keep a bad program in place.
pub const MOST_STARTS: u32 = 5;

/// A trial that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Names the host's wish.
    pub attempt: String,
    /// Digest of the program that ran when it began.
    pub old: String,
    /// Digest of the one on trial.
    pub new: String,
    /// How long the new one may take until it has a session.
    pub seconds: u64,
    /// How often a guard has been started.
    #[serde(default)]
    pub starts: u32,
    /// Why the old one is to come back. Whoever said it has a session by then is not heard any more.
    #[serde(default)]
    pub reverting: Option<String>,
}

/// Who had a session: written by the program on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Of the trial.
    pub attempt: String,
    /// Its own digest.
    pub sha256: String,
}

/// How a trial ended. The last one stays on the disk, and is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of the trial.
    pub attempt: String,
    /// Digest of what was on trial.
    pub new: String,
    /// Why the old one is back, or `None`: the new one stays.
    pub reason: Option<String>,
}

/// What the host wants to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Names the wish.
    pub attempt: String,
    /// Digest of the program.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// How long it may take until it has a session.
    pub seconds: u64,
}

/// All that is on the disk; programs by their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// What systemd starts.
    pub program: Option<String>,
    /// The copy of what ran before.
    pub kept: Option<String>,
    /// The new one, beside it.
    pub staged: Option<String>,
    /// The trial.
    pub trial: Option<Trial>,
    /// Who said last that it has a session.
    pub confirmed: Option<Confirmed>,
    /// How the last trial ended.
    pub outcome: Option<Outcome>,
}

/// What an agent does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentStep {
    /// Nothing.
    Rest,
    /// Gets the program from the host and puts it beside its own.
    Fetch,
    /// Keeps a copy of its own.
    Keep,
    /// Writes down that there is a trial.
    Begin(Trial),
    /// Says that it has a session.
    Confirm(Confirmed),
    /// Sees to it that the guard runs; all else is its business.
    Guard,
}

/// What a guard does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardStep {
    /// There is no trial.
    Finish,
    /// Writes the trial anew: its own start is counted, or the old program is to come back.
    Write(Trial),
    /// Gives the new program the place of the old one.
    Install,
    /// Has systemd start what has the place.
    Restart,
    /// Waits for the new program's word, or for the end of its time.
    Wait,
    /// Gives the old program its place again.
    Restore,
    /// Writes down how it ended.
    Conclude(Outcome),
    /// Takes away the trial, of which all is said.
    Clear,
}

/// What a guard knows by itself, and forgets with its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardMemory {
    /// Its start has been counted.
    pub is_counted: bool,
    /// systemd was asked to start what has the place now.
    pub has_restarted: bool,
    /// The time is up.
    pub is_late: bool,
}

/// The next step of the agent whose digest is `running`.
pub fn plan_agent(disk: &Disk, running: &str, wanted: Option<&Wanted>, has_session: bool) -> AgentStep {
    if let Some(trial) = &disk.trial {
        let word = Confirmed { attempt: trial.attempt.clone(), sha256: running.to_owned() };
        let is_on_trial = running == trial.new && trial.reverting.is_none();
        if is_on_trial && has_session && disk.confirmed.as_ref() != Some(&word) {
            return AgentStep::Confirm(word);
        }
        return AgentStep::Guard;
    }
    let Some(wanted) = wanted.filter(|wanted| wanted.sha256 != running) else { return AgentStep::Rest };
    if disk.outcome.as_ref().is_some_and(|outcome| outcome.attempt == wanted.attempt) {
        return AgentStep::Rest;
    }
    if disk.staged.as_ref() != Some(&wanted.sha256) {
        return AgentStep::Fetch;
    }
    if disk.kept.as_deref() != Some(running) {
        return AgentStep::Keep;
    }
    AgentStep::Begin(Trial {
        attempt: wanted.attempt.clone(),
        old: running.to_owned(),
        new: wanted.sha256.clone(),
        seconds: wanted.seconds,
        starts: 0,
        reverting: None,
    })
}

/// The next step of a guard.
pub fn plan_guard(disk: &Disk, memory: GuardMemory) -> GuardStep {
    let Some(trial) = &disk.trial else { return GuardStep::Finish };
    if disk.outcome.as_ref().is_some_and(|outcome| outcome.attempt == trial.attempt) {
        return GuardStep::Clear;
    }
    if !memory.is_counted {
        return GuardStep::Write(Trial { starts: trial.starts.saturating_add(1), ..trial.clone() });
    }
    match &trial.reverting {
        None => plan_forward(disk, trial, memory),
        Some(reason) => plan_back(disk, trial, reason, memory),
    }
}

fn plan_forward(disk: &Disk, trial: &Trial, memory: GuardMemory) -> GuardStep {
    let revert =
        |reason: &str| GuardStep::Write(Trial { reverting: Some(reason.to_owned()), ..trial.clone() });
    let word = Confirmed { attempt: trial.attempt.clone(), sha256: trial.new.clone() };
    if disk.confirmed.as_ref() == Some(&word) {
        return GuardStep::Conclude(outcome(trial, None));
    }
    if memory.is_late {
        return revert(&format!("it had no lasting session within {} s", trial.seconds));
    }
    if trial.starts > MOST_STARTS {
        return revert(&format!("its guard was started {} times", trial.starts));
    }
    if disk.program.as_ref() != Some(&trial.new) {
        if disk.staged.as_ref() != Some(&trial.new) {
            return revert("it is not on the disk as it was fetched");
        }
        return GuardStep::Install;
    }
    if memory.has_restarted { GuardStep::Wait } else { GuardStep::Restart }
}

fn plan_back(disk: &Disk, trial: &Trial, reason: &str, memory: GuardMemory) -> GuardStep {
    if disk.program.as_ref() != Some(&trial.old) {
        if disk.kept.as_ref() != Some(&trial.old) {
            let reason = format!("{reason}; the old one cannot come back: its copy is not as it was");
            return GuardStep::Conclude(outcome(trial, Some(reason)));
        }
        return GuardStep::Restore;
    }
    if !memory.has_restarted {
        return GuardStep::Restart;
    }
    GuardStep::Conclude(outcome(trial, Some(reason.to_owned())))
}

fn outcome(trial: &Trial, reason: Option<String>) -> Outcome {
    Outcome { attempt: trial.attempt.clone(), new: trial.new.clone(), reason }
}

#[cfg(test)]
mod tests;
