//! Turns changes of node agents into events: what a report says differently from the one before it.

use std::collections::HashMap;

use host_pki::join::{JoinEvent, JoinEvents};
use k8sctl_proto::node::v1::{Condition, ConditionStatus, Repair, RepairOutcome, StatusReport, StepState};
use k8sctl_types::event::EventType;
use prost_types::Timestamp;

use super::changes::Changes;
use super::registry::{NodeChange, condition};
use crate::cluster::OF_HOST;
use crate::events::{EventLog, First, NewEvent, Told, Turn};
use crate::records::Records;
use crate::wire;

/// A repair that is told so long after it was made is told with its time.
const LATE: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) kind: EventType,
    pub(super) message: String,
    pub(super) warning: bool,
    /// By what it is known again, where its node may tell it again.
    pub(super) mark: Option<Mark>,
}

/// See [`Told`], which has the node besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    text: String,
    turn: Option<Turn>,
}

impl Mark {
    /// One turn of what has this name: to what, and when.
    fn turn(name: &str, to: &str, at: Option<Timestamp>, first: First) -> Self {
        let (of, at) = (format!("{name} "), at.unwrap_or_default());
        Self { text: format!("{of}{to} {}.{:09}", at.seconds, at.nanos), turn: Some(Turn { of, first }) }
    }
}

impl Line {
    pub(super) fn new(kind: EventType, message: String, warning: bool) -> Self {
        Self { kind, message, warning, mark: None }
    }
}

/// Records changes until the registry is gone.
pub async fn record_changes(records: Records, events: EventLog, mut changes: Changes) {
    let mut names = Names::default();
    while let Some((node_id, Line { kind, message, warning, mark })) = changes.next().await {
        let (cluster, object) = match &node_id {
            Some(node_id) => names.of(&records, node_id).await,
            None => (String::new(), "host".to_owned()),
        };
        let event = NewEvent { cluster, object, kind, message, warning };
        match (node_id, mark) {
            (Some(source), Some(Mark { text: mark, turn })) => {
                events.record_once(event, Told { source, mark, turn }).await;
            }
            _ => events.record(event).await,
        }
    }
}

/// Records what the join authority tells until it is gone.
pub async fn record_joins(records: Records, events: EventLog, mut joins: JoinEvents) {
    let mut names = Names::default();
    while let Some(event) = joins.next().await {
        let (node_id, Line { kind, message, warning, .. }) = join_line(event);
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
            let message = format!("it got its certificate at {peer}");
            (Some(node_id), Line::new(EventType::NodeJoined, message, false))
        }
        JoinEvent::Refused { node_id, peer, refusal } => {
            let message = format!("an attempt to join from {peer} was refused: {refusal}");
            (node_id, Line::new(EventType::JoinRefused, message, true))
        }
        JoinEvent::Replaced { node_id, serial } => {
            let message = format!("the replaced certificate {serial} was shown again");
            (Some(node_id), Line::new(EventType::OldCertificate, message, true))
        }
        JoinEvent::LeftOut { peer: Some(peer), count, .. } => {
            let message =
                format!("{count} more attempts to join from {peer} were refused within a minute or more");
            (None, Line::new(EventType::JoinRefused, message, true))
        }
        JoinEvent::LeftOut { node_id: Some(node_id), count, .. } => {
            let message =
                format!("{count} more joins and refusals of it within a minute or more were left out");
            (Some(node_id), Line::new(EventType::EventsLeftOut, message, true))
        }
        JoinEvent::LeftOut { count, .. } => {
            let message = format!(
                "{count} more attempts to join, from other addresses, were left out within a minute or more"
            );
            (None, Line::new(EventType::JoinRefused, message, true))
        }
        JoinEvent::NoRoom { count } => {
            let message = format!(
                "{count} more joins and refusals within a minute or more were left out: there were too many at once"
            );
            (None, Line::new(EventType::EventsLeftOut, message, true))
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
pub(super) fn lines(change: &NodeChange, at: jiff::Timestamp) -> Vec<Line> {
    match change {
        NodeChange::Connected(hello) => {
            let message = format!("its agent {} opened a session", hello.agent_version);
            vec![Line::new(EventType::NodeConnected, message, false)]
        }
        NodeChange::Disconnected => {
            vec![Line::new(EventType::NodeDisconnected, "its agent's session ended".to_owned(), true)]
        }
        NodeChange::Rebooted => {
            let message = "its VM was reset, or its guest rebooted".to_owned();
            vec![Line::new(EventType::VMRebooted, message, true)]
        }
        NodeChange::Reported { before, now } => {
            let mut lines = step_lines(before, now);
            lines.extend(condition_lines(&before.conditions, &now.conditions));
            lines.extend(repair_lines(&before.repairs, &now.repairs, at));
            lines
        }
        NodeChange::Judged(condition) => vec![condition_line(condition)],
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
            let (kind, what, warning, at, first) = match step.state() {
                _ if same => return None,
                StepState::Running => (EventType::StepStarted, "started", false, step.started, First::Told),
                StepState::Done => {
                    // Where nothing was said before, it may have been done all the time.
                    let first = if old.is_some() { First::Told } else { First::Untold };
                    (EventType::StepDone, "is done", false, step.finished, first)
                }
                StepState::Failed => (EventType::StepFailed, "failed", true, step.finished, First::Told),
                StepState::Pending | StepState::Unspecified => return None,
            };
            let mark = Mark::turn(&format!("step {}", step.name), what, at, first);
            Some(Line { mark: Some(mark), ..Line::new(kind, text(what), warning) })
        })
        .collect()
}

/// What the host says of a node, it tells itself.
fn condition_lines(before: &[Condition], now: &[Condition]) -> Vec<Line> {
    let has_turned = |new: &&Condition| {
        !OF_HOST.contains(&new.r#type.as_str())
            && condition(before, &new.r#type).is_none_or(|old| old.status != new.status)
    };
    let line = |new: &Condition| {
        let name = format!("condition {}", new.r#type);
        let first = if condition(before, &new.r#type).is_some() { First::Told } else { First::Calm };
        let mark = Mark::turn(&name, new.status().as_str_name(), new.since, first);
        Line { mark: Some(mark), ..condition_line(new) }
    };
    now.iter().filter(has_turned).map(line).collect()
}

/// What is told of a condition; it is a warning where that is bad news.
fn condition_line(condition: &Condition) -> Line {
    let status = match condition.status() {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown | ConditionStatus::Unspecified => "Unknown",
    };
    let message = format!("{}={status} {}: {}", condition.r#type, condition.reason, condition.message);
    Line::new(EventType::ConditionChanged, message, condition.status() != ConditionStatus::True)
}

/// Repairs that were not in the report before. Numbers alone do not tell two apart: a new disk counts from one again.
fn repair_lines(before: &[Repair], now: &[Repair], at: jiff::Timestamp) -> Vec<Line> {
    let is_new =
        |repair: &&Repair| !before.iter().any(|old| (old.number, old.time) == (repair.number, repair.time));
    now.iter().filter(is_new).filter_map(|repair| repair_line(repair, at)).collect()
}

/// `None` for an outcome that this host agent does not know.
fn repair_line(repair: &Repair, at: jiff::Timestamp) -> Option<Line> {
    let (kind, warning) = match repair.outcome() {
        RepairOutcome::Repaired => (EventType::RepairSucceeded, false),
        RepairOutcome::Failed => (EventType::RepairFailed, true),
        RepairOutcome::GaveUp => (EventType::RepairGaveUp, true),
        RepairOutcome::Unspecified => return None,
    };
    let said = [&repair.reason, &repair.action, &repair.message].map(String::as_str);
    let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
    let mut message = format!("{}: {}", repair.object, said.join("; "));
    let time = repair.time.unwrap_or_default();
    let made = wire::moment(time);
    if repair.time.is_some() && at.duration_since(made).abs() > LATE {
        message.push_str(&format!(" (at {made:.0})"));
    }
    let text = format!("repair {} {}.{:09}", repair.number, time.seconds, time.nanos);
    Some(Line { kind, message, warning, mark: Some(Mark { text, turn: None }) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use host_store::Store;
    use k8sctl_proto::node::v1::{Hello, StepStatus};

    use super::*;
    use crate::events::{self, Selection};
    use crate::nodes::changes::changes;
    use crate::nodes::registry::NodeRegistry;
    use crate::records;

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

    fn repair(number: u64, made: jiff::Timestamp, outcome: RepairOutcome) -> Repair {
        Repair {
            number,
            time: Some(wire::timestamp(made)),
            object: "containerd".to_owned(),
            reason: "it does not run".to_owned(),
            action: "restarted containerd.service".to_owned(),
            outcome: outcome.into(),
            message: String::new(),
        }
    }

    #[test]
    fn what_was_left_out_is_named_for_what_it_was() {
        let kind = |event| join_line(event).1.kind;
        let peer = Some([192, 168, 140, 7].into());
        let (refused, left_out) = (EventType::JoinRefused, EventType::EventsLeftOut);
        assert_eq!(kind(JoinEvent::LeftOut { peer, node_id: None, count: 2 }), refused);
        assert_eq!(kind(JoinEvent::LeftOut { peer: None, node_id: None, count: 2 }), refused);
        let node_id = Some("a".to_owned());
        assert_eq!(kind(JoinEvent::LeftOut { peer: None, node_id, count: 2 }), left_out);
        assert_eq!(kind(JoinEvent::NoRoom { count: 2 }), left_out, "there may be joins among them");
    }

    #[test]
    fn only_what_changed_is_told() {
        let a = report(StepState::Running, ConditionStatus::True);
        let b = report(StepState::Failed, ConditionStatus::False);
        let lines = |before: &StatusReport, now: &StatusReport| {
            let (before, now) = (Arc::new(before.clone()), Arc::new(now.clone()));
            lines(&NodeChange::Reported { before, now }, jiff::Timestamp::UNIX_EPOCH)
        };
        assert_eq!(lines(&a, &a), []);
        let told = lines(&a, &b);
        let said: Vec<_> = told.iter().map(|line| (line.kind, line.message.as_str(), line.warning)).collect();
        let turned = (EventType::ConditionChanged, "DiskOK=False : ", true);
        assert_eq!(said, [(EventType::StepFailed, "kubeadm failed", true), turned]);
        // What the host says of a node, its agent does not.
        let of_host = Condition { r#type: "NodeReady".to_owned(), ..Condition::default() };
        let mut c = b.clone();
        c.conditions.push(of_host);
        assert_eq!(lines(&b, &c), []);
    }

    #[test]
    fn a_repair_says_what_was_wrong_and_what_was_done() {
        let made = jiff::Timestamp::from_second(1_800_000_000).expect("a time");
        let told = |repair: &Repair, later: i64| {
            let at = made + jiff::SignedDuration::from_secs(later);
            let lines = repair_lines(&[], std::slice::from_ref(repair), at);
            lines.into_iter().map(|line| (line.kind, line.message, line.warning)).next()
        };
        let well = repair(1, made, RepairOutcome::Repaired);
        let said = "containerd: it does not run; restarted containerd.service".to_owned();
        assert_eq!(told(&well, 2), Some((EventType::RepairSucceeded, said.clone(), false)));
        let late = format!("{said} (at 2027-01-15T08:00:00Z)");
        assert_eq!(told(&well, 61), Some((EventType::RepairSucceeded, late, false)));
        let gave_up = Repair {
            action: String::new(),
            message: "rests until 09:00".to_owned(),
            ..repair(2, made, RepairOutcome::GaveUp)
        };
        let said = "containerd: it does not run; rests until 09:00".to_owned();
        assert_eq!(told(&gave_up, 0), Some((EventType::RepairGaveUp, said, true)));
        assert_eq!(told(&repair(3, made, RepairOutcome::Unspecified), 0), None);
    }

    /// The same for conditions and steps.
    #[tokio::test]
    async fn each_turn_is_one_event_whatever_restarts() {
        let store = Store::in_memory(&[records::SCHEMA, events::SCHEMA]).expect("opens");
        let tell = async |at: i64, state: StepState, status: ConditionStatus| {
            let log = EventLog::open(store.clone(), 100).await.expect("opens");
            let begun = *log.head().borrow();
            let (sender, receiver) = changes();
            let registry = NodeRegistry::new(sender);
            let session = registry.open_session("a", Hello::default());
            let mut said = report(state, status);
            let at = Some(Timestamp { seconds: at, nanos: 0 });
            said.conditions[0].since = at;
            (said.steps[0].started, said.steps[0].finished) = (at, at);
            assert!(session.report(said));
            drop((session, registry));
            record_changes(Records::new(store.clone()), log.clone(), receiver).await;
            let types = vec![EventType::ConditionChanged, EventType::StepFailed, EventType::StepDone];
            let selection = Selection { types, ..Selection::default() };
            let page = log.page(begun + 1, &selection).await.expect("reads");
            page.events.iter().map(|event| (event.r#type.clone(), event.warning)).collect::<Vec<_>>()
        };
        let condition = |warning: bool| ("ConditionChanged".to_owned(), warning);
        let (good, bad) = (ConditionStatus::True, ConditionStatus::False);
        let (done, failed) = (StepState::Done, StepState::Failed);
        assert_eq!(tell(1, done, good).await, [condition(false)], "it may have been done all the time");
        assert_eq!(tell(1, done, good).await, []);
        assert_eq!(tell(2, failed, bad).await, [("StepFailed".to_owned(), true), condition(true)]);
        assert_eq!(tell(2, failed, bad).await, []);
        assert_eq!(tell(3, done, good).await, [("StepDone".to_owned(), false), condition(false)]);
    }

    /// A host agent that forgets all but its database, over and over, and nodes that tell all that they know each time.
    #[tokio::test]
    async fn each_repair_is_one_event_whatever_restarts() {
        let store = Store::in_memory(&[records::SCHEMA, events::SCHEMA]).expect("opens");
        let made = jiff::Timestamp::now();
        let tell = async |node: &str, repairs: Vec<Repair>| {
            let log = EventLog::open(store.clone(), 100).await.expect("opens");
            let (sender, receiver) = changes();
            let registry = NodeRegistry::new(sender);
            let session = registry.open_session(node, Hello::default());
            assert!(session.report(StatusReport { repairs, ..StatusReport::default() }));
            drop((session, registry));
            record_changes(Records::new(store.clone()), log.clone(), receiver).await;
            let types = vec![EventType::RepairSucceeded, EventType::RepairFailed];
            let selection = Selection { node: node.to_owned(), types, ..Selection::default() };
            log.page(0, &selection).await.expect("reads").events.len()
        };
        let first = repair(1, made, RepairOutcome::Failed);
        let second = repair(2, made, RepairOutcome::Repaired);
        assert_eq!(tell("a", vec![first.clone()]).await, 1);
        assert_eq!(tell("a", vec![first.clone(), second.clone()]).await, 2);
        assert_eq!(tell("a", vec![first.clone(), second.clone()]).await, 2);
        assert_eq!(tell("b", vec![first.clone()]).await, 1, "another node has numbers of its own");
        // A new disk counts from one again.
        let anew = repair(1, made + jiff::SignedDuration::from_secs(1), RepairOutcome::Repaired);
        assert_eq!(tell("a", vec![anew.clone()]).await, 3);
        assert_eq!(tell("a", vec![anew]).await, 3);
    }
}
