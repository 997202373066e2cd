//! Turns changes of node agents into events: what a report says differently from the one before it.

use std::collections::HashMap;

use k8sctl_proto::node::v1::{ConditionStatus, StatusReport, StepState};
use tokio::sync::mpsc;

use super::registry::{NodeChange, condition};
use crate::events::{EventLog, NewEvent};
use crate::records::Records;

/// A line of an event log: kind, message, warning.
type Line = (&'static str, String, bool);

/// Records changes until the registry is gone.
pub async fn record_changes(
    records: Records,
    events: EventLog,
    mut changes: mpsc::UnboundedReceiver<(String, NodeChange)>,
) {
    let mut names: HashMap<String, (String, String)> = HashMap::new();
    while let Some((node_id, change)) = changes.recv().await {
        if !names.contains_key(&node_id) {
            for cluster in records.clusters().await.unwrap_or_default() {
                for node in cluster.nodes {
                    names.insert(node.id, (cluster.name.clone(), node.name));
                }
            }
        }
        let (cluster, node) = names.get(&node_id).cloned().unwrap_or_else(|| (String::new(), node_id.clone()));
        for (kind, message, warning) in lines(&change) {
            let event = NewEvent { cluster: cluster.clone(), object: format!("node {node}"), kind, message, warning };
            events.record(event).await;
        }
    }
}

fn lines(change: &NodeChange) -> Vec<Line> {
    match change {
        NodeChange::Connected(hello) => {
            vec![("NodeConnected", format!("its agent {} opened a session", hello.agent_version), false)]
        }
        NodeChange::Disconnected => vec![("NodeDisconnected", "its agent's session ended".to_owned(), true)],
        NodeChange::Reported { before, now } => {
            let mut lines = step_lines(before, now);
            lines.extend(condition_lines(before, now));
            lines
        }
    }
}

fn step_lines(before: &StatusReport, now: &StatusReport) -> Vec<Line> {
    now.steps
        .iter()
        .filter_map(|step| {
            let old = before.steps.iter().find(|old| old.name == step.name);
            let same = old.is_some_and(|old| old.state == step.state && old.attempts == step.attempts);
            let text = |what: &str| {
                let colon = if step.message.is_empty() { "" } else { ": " };
                format!("{} {what}{colon}{}", step.name, step.message)
            };
            match step.state() {
                _ if same => None,
                StepState::Running => Some(("StepStarted", text("started"), false)),
                StepState::Done if old.is_some() => Some(("StepDone", text("is done"), false)),
                StepState::Failed => Some(("StepFailed", text("failed"), true)),
                StepState::Done | StepState::Pending | StepState::Unspecified => None,
            }
        })
        .collect()
}

fn condition_lines(before: &StatusReport, now: &StatusReport) -> Vec<Line> {
    now.conditions
        .iter()
        .filter_map(|new| {
            let old = condition(&before.conditions, &new.r#type);
            if old.is_some_and(|old| old.status == new.status) {
                return None;
            }
            let status = match new.status() {
                ConditionStatus::True => "True",
                ConditionStatus::False => "False",
                ConditionStatus::Unknown | ConditionStatus::Unspecified => "Unknown",
            };
            let warning = old.is_some() && new.status() != ConditionStatus::True;
            Some(("ConditionChanged", format!("{}={status} {}: {}", new.r#type, new.reason, new.message), warning))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8sctl_proto::node::v1::{Condition, StepStatus};

    fn report(state: StepState, status: ConditionStatus) -> StatusReport {
        StatusReport {
            steps: vec![StepStatus { name: "kubeadm".into(), state: state.into(), ..StepStatus::default() }],
            conditions: vec![Condition { r#type: "DiskOK".into(), status: status.into(), ..Condition::default() }],
            ..StatusReport::default()
        }
    }

    #[test]
    fn only_what_changed_is_told() {
        let a = report(StepState::Running, ConditionStatus::True);
        let b = report(StepState::Failed, ConditionStatus::False);
        assert!(step_lines(&a, &a).is_empty() && condition_lines(&a, &a).is_empty());
        assert_eq!(step_lines(&a, &b), [("StepFailed", "kubeadm failed".to_owned(), true)]);
        assert!(condition_lines(&a, &b)[0].2, "a condition that went bad is a warning");
    }
}
