//! Turns changes of node agents into events: what a report says differently from the one before it.

use std::collections::HashMap;

use host_pki::join::JoinEvent;
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
    let mut names = Names::default();
    while let Some((node_id, change)) = changes.recv().await {
        let (cluster, object) = names.of(&records, &node_id).await;
        for (kind, message, warning) in lines(&change) {
            events
                .record(NewEvent { cluster: cluster.clone(), object: object.clone(), kind, message, warning })
                .await;
        }
    }
}

/// Records what the join authority tells until it is gone.
pub async fn record_joins(records: Records, events: EventLog, mut joins: mpsc::UnboundedReceiver<JoinEvent>) {
    let mut names = Names::default();
    while let Some(event) = joins.recv().await {
        let (node_id, kind, message, warning) = match event {
            JoinEvent::Joined { node_id, peer } => {
                (node_id, "NodeJoined", format!("it got its certificate at {peer}"), false)
            }
            JoinEvent::Refused { node_id, peer, refusal } => {
                (node_id, "JoinRefused", format!("an attempt from {peer} was refused: {refusal}"), true)
            }
            JoinEvent::Replaced { node_id, serial } => (
                node_id,
                "OldCertificate",
                format!("the replaced certificate {serial} was shown again"),
                true,
            ),
        };
        let (cluster, object) = names.of(&records, &node_id).await;
        events.record(NewEvent { cluster, object, kind, message, warning }).await;
    }
}

/// Names of clusters and nodes by node id, read when an unknown id comes.
#[derive(Default)]
struct Names(HashMap<String, (String, String)>);

impl Names {
    /// Cluster's name and the node as an object. What a stranger claims to be is shown as it claims it.
    async fn of(&mut self, records: &Records, node_id: &str) -> (String, String) {
        if !self.0.contains_key(node_id) {
            for cluster in records.clusters().await.unwrap_or_default() {
                for node in cluster.nodes {
                    self.0.insert(node.id, (cluster.name.clone(), format!("node {}", node.name)));
                }
            }
        }
        let unknown = || (String::new(), format!("node {}", node_id.escape_debug()));
        self.0.get(node_id).cloned().unwrap_or_else(unknown)
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
            Some((
                "ConditionChanged",
                format!("{}={status} {}: {}", new.r#type, new.reason, new.message),
                warning,
            ))
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
            conditions: vec![Condition {
                r#type: "DiskOK".into(),
                status: status.into(),
                ..Condition::default()
            }],
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
