//! The board on which the agent's own tasks write what they know, and from which the session reports.
//!
//! Written by converge (steps), health (conditions) and repair, read by session. It keeps, it does not judge.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8sctl_command::last_lines;
use k8sctl_proto::node::v1::{
    AgentReplacement, Condition, ConditionStatus, Evidence, Repair, StatusReport, StepState, StepStatus,
};
use tokio::sync::watch;

use crate::clock;

/// Where status is written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Board(Arc<watch::Sender<StatusReport>>);

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(StatusReport::default())))
    }
}

impl Board {
    /// A reader that wakes on every change.
    pub fn subscribe(&self) -> watch::Receiver<StatusReport> {
        self.0.subscribe()
    }

    /// Lists the steps anew, in order, and says which generation they belong to. What is known of a step is kept, but of
    /// another generation none has failed before it was tried: it is pending, with what it said last. With `anew` its
    /// tries count from one again, and failures are no news any more.
    pub fn observe(&self, generation: u64, names: &[&'static str], anew: bool) {
        self.0.send_if_modified(|report| {
            let is_other = report.observed_generation != generation;
            let fresh = |name: &str| StepStatus {
                name: name.to_owned(),
                state: StepState::Pending.into(),
                ..StepStatus::default()
            };
            let keep = |mut step: StepStatus| {
                let has_failed = step.state() == StepState::Failed;
                if anew && has_failed {
                    return fresh(&step.name);
                }
                if anew {
                    step.attempts = 0;
                }
                if is_other && has_failed {
                    step.set_state(StepState::Pending);
                }
                step
            };
            let steps: Vec<StepStatus> = names
                .iter()
                .map(|name| {
                    let known = report.steps.iter().find(|step| step.name == *name).cloned();
                    known.map_or_else(|| fresh(name), keep)
                })
                .collect();
            let modified = is_other || report.steps != steps;
            report.observed_generation = generation;
            report.steps = steps;
            modified
        });
    }

    /// Changes one step's status.
    pub fn step(&self, name: &str, change: impl FnOnce(&mut StepStatus)) {
        self.0.send_if_modified(|report| {
            let Some(step) = report.steps.iter_mut().find(|step| step.name == name) else { return false };
            let before = step.clone();
            change(step);
            *step != before
        });
    }

    /// What is known of a step.
    pub fn step_status(&self, name: &str) -> StepStatus {
        self.0.borrow().steps.iter().find(|step| step.name == name).cloned().unwrap_or_default()
    }

    /// The last repairs, oldest first.
    pub fn repairs(&self, repairs: &[Repair]) {
        self.0.send_if_modified(|report| {
            let modified = report.repairs != repairs;
            report.repairs = repairs.to_vec();
            modified
        });
    }

    /// The last replacement of the agent's program.
    pub fn replacement(&self, replacement: AgentReplacement) {
        self.0.send_if_modified(|report| {
            let modified = report.replacement.as_ref() != Some(&replacement);
            report.replacement = Some(replacement);
            modified
        });
    }

    /// Whether there is a condition of this type.
    pub fn has_condition(&self, kind: &str) -> bool {
        self.0.borrow().conditions.iter().any(|known| known.r#type == kind)
    }

    /// Sets one condition; `since` moves only when its status changes.
    pub fn condition(&self, kind: &str, status: ConditionStatus, reason: &str, message: impl Into<String>) {
        let message = message.into();
        self.0.send_if_modified(|report| {
            let fresh = Condition {
                r#type: kind.to_owned(),
                status: status.into(),
                reason: reason.to_owned(),
                message,
                since: Some(clock::now()),
            };
            match report.conditions.iter_mut().find(|known| known.r#type == kind) {
                None => {
                    tracing::info!(
                        condition = kind,
                        condition.status = status.as_str_name(),
                        reason,
                        "condition"
                    );
                    report.conditions.push(fresh);
                    true
                }
                Some(known) if known.status == fresh.status => {
                    let modified = known.reason != fresh.reason || known.message != fresh.message;
                    known.reason = fresh.reason;
                    known.message = fresh.message;
                    modified
                }
                Some(known) => {
                    tracing::info!(
                        condition = kind,
                        condition.status = status.as_str_name(),
                        reason,
                        "condition"
                    );
                    *known = fresh;
                    true
                }
            }
        });
    }
}

/// How much of the end of a command's output is kept, in bytes.
const TAIL_LIMIT: usize = 8 * 1024;

/// Lets a running step say what it is doing, and keeps what its last command said: a step that is ended at its deadline,
/// or that waits in vain for what the command began, cannot tell any more.
#[derive(Clone, Debug)]
pub struct Progress {
    board: Board,
    step: &'static str,
    command: Arc<Mutex<Evidence>>,
}

impl Progress {
    /// Progress of one step.
    pub fn new(board: Board, step: &'static str) -> Self {
        Self { board, step, command: Arc::default() }
    }

    /// One line for a person.
    pub fn say(&self, message: impl Into<String>) {
        let message = message.into();
        self.board.step(self.step, |status| status.message = message);
    }

    /// A command starts; what is known of the one before is dropped.
    pub fn command_begins(&self, argv: &[&str]) {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        *self.command() = Evidence { argv, ..Evidence::default() };
    }

    /// A line of its output.
    pub fn command_says(&self, line: &str) {
        let mut command = self.command();
        command.output_tail.push_str(line);
        command.output_tail.push('\n');
        if command.output_tail.len() > 2 * TAIL_LIMIT {
            command.output_tail = last_lines(&command.output_tail, TAIL_LIMIT).to_owned();
        }
    }

    /// It ended well.
    pub fn command_ended(&self) {
        self.command().exit_status = Some(0);
    }

    /// What the last command said so far; empty when there was none.
    pub fn last_command(&self) -> Evidence {
        let mut command = self.command().clone();
        command.output_tail = last_lines(&command.output_tail, TAIL_LIMIT).to_owned();
        command
    }

    fn command(&self) -> MutexGuard<'_, Evidence> {
        // Every critical section only moves values, so what a panic leaves behind is sound.
        self.command.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The evidence of a command as the wire has it.
pub fn wire_evidence(evidence: &k8sctl_command::Evidence) -> Evidence {
    Evidence {
        argv: evidence.argv.clone(),
        exit_status: evidence.exit_status,
        output_tail: evidence.output_tail.clone(),
        journal_tail: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_moves_only_with_the_status() {
        let board = Board::default();
        board.condition("DiskOK", ConditionStatus::True, "Free", "50 %");
        let first = board.subscribe().borrow().conditions[0].since;
        board.condition("DiskOK", ConditionStatus::True, "Free", "49 %");
        let report = board.subscribe().borrow().clone();
        assert_eq!((report.conditions[0].since, report.conditions[0].message.as_str()), (first, "49 %"));
    }

    #[test]
    fn of_a_commands_output_the_end_is_kept() {
        let progress = Progress::new(Board::default(), "kubeadm");
        assert_eq!(progress.last_command(), Evidence::default());
        progress.command_begins(&["kubeadm", "init"]);
        for _ in 0..10_000 {
            progress.command_says("ä line");
        }
        progress.command_says("the end");
        let command = progress.last_command();
        assert_eq!((command.argv.len(), command.exit_status), (2, None));
        assert!(command.output_tail.ends_with("the end\n") && command.output_tail.len() <= TAIL_LIMIT);
    }

    #[test]
    fn what_failed_for_one_generation_is_still_to_be_tried_for_the_next() {
        let board = Board::default();
        let observe = |generation: u64, anew: bool| {
            board.observe(generation, &["kubeadm"], anew);
            let step = board.step_status("kubeadm");
            (step.state(), step.attempts)
        };
        let fail = |step: &mut StepStatus| {
            step.set_state(StepState::Failed);
            step.attempts = 3;
        };
        observe(1, false);
        board.step("kubeadm", fail);
        assert_eq!(observe(1, false), (StepState::Failed, 3), "another round for the same");
        assert_eq!(observe(2, false), (StepState::Pending, 3));
        board.step("kubeadm", fail);
        assert_eq!(observe(3, true), (StepState::Pending, 0));
    }

    #[test]
    fn the_same_again_wakes_nobody() {
        let board = Board::default();
        board.observe(3, &["host-os"], false);
        board.condition("DiskOK", ConditionStatus::True, "Free", "");
        let mut reader = board.subscribe();
        reader.mark_unchanged();
        board.observe(3, &["host-os"], false);
        board.condition("DiskOK", ConditionStatus::True, "Free", "");
        assert!(!reader.has_changed().expect("the board lives"));
    }
}
