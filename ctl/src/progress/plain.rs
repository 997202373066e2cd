//! Progress off a terminal: a line for each change, with the time since the operation began.

use std::collections::BTreeMap;
use std::io;

use super::Display;
use crate::terminal::{Printer, duration, visible};
use crate::view::{OperationView, ProgressView, seconds_since};

/// Prints changes.
#[derive(Debug)]
pub(super) struct Plain {
    printer: Printer,
    last: BTreeMap<String, ProgressView>,
    started: Option<String>,
}

impl Plain {
    pub(super) fn new(printer: Printer) -> Self {
        Self { printer, last: BTreeMap::new(), started: None }
    }

    fn line(&self, text: &str) -> io::Result<()> {
        let elapsed = seconds_since(self.started.as_deref()).unwrap_or_default();
        self.printer.line(format!("[{:>7}] {text}", duration(elapsed)))
    }
}

impl Display for Plain {
    fn show(&mut self, operation: &OperationView) -> io::Result<()> {
        self.started.clone_from(&operation.started);
        for progress in &operation.progress {
            for line in plan_lines(self.last.get(&progress.object), progress) {
                self.line(&line)?;
            }
            self.last.insert(progress.object.clone(), progress.clone());
        }
        // What went and comes again is said again.
        self.last.retain(|object, _| operation.progress.iter().any(|progress| progress.object == *object));
        Ok(())
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        self.line(text)
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is worth a line between two states of an object.
fn plan_lines(before: Option<&ProgressView>, now: &ProgressView) -> Vec<String> {
    let object = visible(&now.object);
    let mut lines = Vec::new();
    for step in &now.steps {
        let old = before.and_then(|before| before.steps.iter().find(|old| old.name == step.name));
        let changed = old.is_none_or(|old| old.state != step.state || old.attempts != step.attempts);
        if !changed || step.state == "pending" {
            continue;
        }
        let message =
            step.message.as_deref().filter(|_| step.state != "done").map(|m| format!(": {}", visible(m)));
        let tries = if step.attempts > 1 { format!(" (try {})", step.attempts) } else { String::new() };
        let message = message.unwrap_or_default();
        lines.push(format!("{object}: step {} {}{tries}{message}", visible(&step.name), step.state));
    }
    // A node's message repeats its steps.
    let said = before.is_some_and(|before| {
        before.phase == now.phase
            && before.done == now.done
            && (!now.steps.is_empty() || before.message == now.message)
    });
    if !said {
        let message =
            now.message.as_deref().map(|message| format!(": {}", visible(message))).unwrap_or_default();
        lines.push(format!("{object}: {}{message}", visible(&now.phase)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::StepView;

    fn node(phase: &str, states: &[(&str, &'static str)]) -> ProgressView {
        let step = |(name, state): &(&str, &'static str)| StepView {
            name: (*name).to_owned(),
            state,
            message: None,
            attempts: 1,
            started: None,
            finished: None,
            evidence: None,
        };
        ProgressView {
            object: "w1".to_owned(),
            phase: phase.to_owned(),
            message: None,
            done: false,
            started: None,
            steps: states.iter().map(step).collect(),
        }
    }

    #[test]
    fn only_changes_are_said() {
        let booting = node("Booting", &[]);
        assert_eq!(plan_lines(None, &booting), ["w1: Booting"]);
        assert!(plan_lines(Some(&booting), &booting).is_empty());
        let working = node("Configuring", &[("host-os", "running"), ("cni", "pending")]);
        assert_eq!(plan_lines(Some(&booting), &working), ["w1: step host-os running", "w1: Configuring"]);
        let further = node("Configuring", &[("host-os", "done"), ("cni", "pending")]);
        assert_eq!(plan_lines(Some(&working), &further), ["w1: step host-os done"]);
    }

    #[test]
    fn names_from_the_wire_cannot_move_the_cursor() {
        let evil = ProgressView { message: Some("\x1b[2J".to_owned()), ..node("x", &[]) };
        assert_eq!(plan_lines(None, &evil), ["w1: x: \\x1b[2J"]);
    }
}
