//! Turns changes of node agents into events: what a report says differently from the one before it.

use std::collections::HashMap;

use host_pki::join::{JoinEvent, JoinEvents};
use k8sctl_proto::node::v1::{Condition, ConditionStatus, StatusReport, StepState};

use super::changes::Changes;
use super::registry::{NodeChange, condition};
use crate::events::{EventLog, NewEvent};
use crate::records::Records;

/// The event of a condition that has another status than before.
pub(crate) const CONDITION_CHANGED: &str = "ConditionChanged";

/// A line of an event log: kind, message, warning.
pub(super) type Line = (&'static str, String, bool);

/// Records changes until the registry is gone.
pub async fn record_changes(records: Records, events: EventLog, mut changes: Changes) {
    let mut names = Names::default();
    while let Some((node_id, (kind, message, warning))) = changes.next().await {
        let (cluster, object) = match node_id {
            Some(node_id) => names.of(&records, &node_id).await,
            None => (String::new(), "host".to_owned()),
        };
        events.record(NewEvent { cluster, object, kind, message, warning }).await;
    }
}

/// Records what the join authority tells until it is gone.
pub async fn record_joins(records: Records, events: EventLog, mut joins: JoinEvents) {
    let mut names = Names::default();
    while let Some(event) = joins.next().await {
        let (node_id, (kind, message, warning)) = join_line(event);
        let (cluster, object) = match node_id {
            Some(node_id) => names.of(&records, &node_id).await,
            None => (String::new(), "host".to_owned()),
        };
        events.record(NewEvent { cluster, object, kind, message, warning }).await;
    }
}

/// The node, where one is known or claimed, and what there is to tell.
fn join_line(event: JoinEvent) -> (Option<String>, Line) {
    match event {
        JoinEvent::Joined { node_id, peer } => {
            (Some(node_id), ("NodeJoined", format!("it got its certificate at {peer}"), false))
        }
        JoinEvent::Refused { node_id, peer, refusal } => {
            let message = format!("an attempt to join from {peer} was refused: {refusal}");
            (node_id, ("JoinRefused", message, true))
        }
        JoinEvent::Replaced { node_id, serial } => {
            let message = format!("the replaced certificate {serial} was shown again");
            (Some(node_id), ("OldCertificate", message, true))
        }
        JoinEvent::LeftOut { peer: Some(peer), count, .. } => {
            let message =
                format!("{count} more attempts to join from {peer} were refused within a minute or more");
            (None, ("JoinRefused", message, true))
        }
        JoinEvent::LeftOut { node_id: Some(node_id), count, .. } => {
            let message =
                format!("{count} more joins and refusals of it within a minute or more were left out");
            (Some(node_id), ("EventsLeftOut", message, true))
        }
        JoinEvent::LeftOut { count, .. } => {
            let message = format!(
                "{count} more attempts to join, from other addresses, were left out within a minute or more"
            );
            (None, ("JoinRefused", message, true))
        }
        JoinEvent::NoRoom { count } => {
            let message = format!(
                "{count} more joins and refusals within a minute or more were left out: there were too many at once"
            );
            (None, ("EventsLeftOut", message, true))
        }
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

/// What a change says.
pub(super) fn lines(change: &NodeChange) -> Vec<Line> {
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
            let (line, is_bad) = condition_line(new);
            Some((CONDITION_CHANGED, line, old.is_some() && is_bad))
        })
        .collect()
}

/// What is told of a condition, and whether it is bad news.
pub(crate) fn condition_line(condition: &Condition) -> (String, bool) {
    let status = match condition.status() {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown | ConditionStatus::Unspecified => "Unknown",
    };
    let line = format!("{}={status} {}: {}", condition.r#type, condition.reason, condition.message);
    (line, condition.status() != ConditionStatus::True)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8sctl_proto::node::v1::StepStatus;

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
    fn what_was_left_out_is_named_for_what_it_was() {
        let kind = |event| join_line(event).1.0;
        let peer = Some([192, 168, 140, 7].into());
        assert_eq!(kind(JoinEvent::LeftOut { peer, node_id: None, count: 2 }), "JoinRefused");
        assert_eq!(kind(JoinEvent::LeftOut { peer: None, node_id: None, count: 2 }), "JoinRefused");
        let node_id = Some("a".to_owned());
        assert_eq!(kind(JoinEvent::LeftOut { peer: None, node_id, count: 2 }), "EventsLeftOut");
        assert_eq!(kind(JoinEvent::NoRoom { count: 2 }), "EventsLeftOut", "there may be joins among them");
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
