//! Events as a stream: what is stored and fits, then what comes.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8sctl_proto::control::v1::{StreamEventsRequest, StreamEventsResponse};
use k8sctl_types::event::{self, EventType};
use k8sctl_types::failure::Failure;
use tonic::Status;

use super::{Reply, broken, refused, stream};
use crate::cluster::manager::Manager;
use crate::events::{EventLog, Selection, Since};
use crate::records::RecordError;
use crate::wire;

/// Names in one refusal.
const NAMES: usize = 50;

/// Checks what is asked for, and begins to stream it.
pub(super) async fn open(
    manager: &Arc<Manager>,
    request: StreamEventsRequest,
) -> Result<Reply<StreamEventsResponse>, Status> {
    let log = manager.events().clone();
    let mut selection = Selection {
        cluster: request.cluster_name.clone(),
        node: request.node_name.clone(),
        types: types(&request.types).map_err(|failure| refused(&failure))?,
        since: None,
    };
    if !request.cluster_name.is_empty() && !request.follow {
        // A cluster that is gone still has its events; one that never was is a slip of the pen.
        let of_cluster = Selection::of_cluster(&request.cluster_name);
        let has_events = log.tail_start(1, 0, &of_cluster).await.map_err(|e| broken(&e))?.is_some();
        if !has_events {
            manager.find(&request.cluster_name).await?;
        }
    }
    if !selection.node.is_empty() {
        refuse_unknown_node(manager, &selection).await?;
    }
    // Before the stream begins: what is recorded from here on is not stored, but comes.
    let stored = *log.head().borrow();
    refuse_unknown_number(&log, request.from, stored).await?;
    selection.since = request.since.map(|since| Since { moment: wire::moment(since), stored });
    let reply = stream("stream-events", |sender| async move {
        let mut head = log.head();
        let mut from = request.from;
        if let Some(tail) = request.tail {
            let start = log.tail_start(tail, from, &selection).await.map_err(|e| broken(&e))?;
            from = start.unwrap_or(stored + 1).max(from);
        }
        let (mut has_caught_up, mut gone_before) = (false, 0);
        loop {
            // Marked seen before reading, so that an event appended meanwhile wakes us again.
            head.borrow_and_update();
            let mut has_more = true;
            while has_more {
                let page = log.page(from, &selection).await.map_err(|e| broken(&e))?;
                // Retention was faster than the reader. Whoever begins with the oldest misses nothing.
                if from > 0 && page.oldest > from {
                    gone_before = page.oldest;
                }
                (from, has_more) = (page.next, page.has_more);
                for event in page.events {
                    let (next, gone_before) = (event.number + 1, std::mem::take(&mut gone_before));
                    let response = StreamEventsResponse { event: Some(event), next, gone_before };
                    if sender.send(Ok(response)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            if gone_before > 0 || (request.follow && !has_caught_up) {
                has_caught_up = true;
                let gone_before = std::mem::take(&mut gone_before);
                let response = StreamEventsResponse { event: None, next: from, gone_before };
                if sender.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
            }
            if !request.follow {
                return Ok(());
            }
            tokio::select! {
                // Cancel-safe: an unseen change stays unseen.
                changed = head.changed() => if changed.is_err() { return Ok(()) },
                () = sender.closed() => return Ok(()),
            }
        }
    });
    Ok(reply)
}

fn types(names: &[String]) -> Result<Vec<EventType>, Failure> {
    let find = |name: &String| {
        EventType::find(name).ok_or_else(|| {
            Failure::new(
                "EVENT-TYPE-UNKNOWN",
                format!("event type {name}"),
                "there is no such type of event",
                format!("the types are: {}", event::names()),
            )
        })
    };
    let mut types = Vec::new();
    for name in names {
        let found = find(name)?;
        // Each is a part of the query of every page, however often somebody writes it.
        if !types.contains(&found) {
            types.push(found);
        }
    }
    Ok(types)
}

/// Whoever begins behind the next event would wait for it in silence: the number is a slip of the pen, or of another
/// database than this.
async fn refuse_unknown_number(log: &EventLog, from: u64, stored: u64) -> Result<(), Status> {
    if from <= stored + 1 {
        return Ok(());
    }
    // A reader may have been sent events that the log's head was not moved to yet.
    let newest = log.tail_start(1, 0, &Selection::default()).await.map_err(|e| broken(&e))?;
    let newest = newest.unwrap_or_default().max(stored);
    if from <= newest + 1 {
        return Ok(());
    }
    let reason = match newest {
        0 => "there are no events yet".to_owned(),
        _ => format!("the newest event is {newest}"),
    };
    let next = format!("begin with --from {}, or leave it out", newest + 1);
    Err(refused(&Failure::new("EVENT-NUMBER", format!("event {from}"), reason, next)))
}

/// A node that left the file still has its events; one that never was would be waited for in vain.
async fn refuse_unknown_node(manager: &Manager, selection: &Selection) -> Result<(), Status> {
    let Selection { cluster, node, .. } = selection;
    let known = known_nodes(manager, manager.events(), cluster).await.map_err(|error| broken(&error))?;
    if known.contains(node) {
        return Ok(());
    }
    // What was refused to join may have called itself so.
    let of_stranger = manager.events().tail_start(1, 0, selection).await.map_err(|e| broken(&e))?;
    if of_stranger.is_some() {
        return Ok(());
    }
    let whose = if cluster.is_empty() { "no cluster".to_owned() } else { format!("cluster {cluster}") };
    let has = if cluster.is_empty() { "has, or had, a node" } else { "has, and had, no node" };
    let more = known.len().saturating_sub(NAMES);
    let mut names = known.into_iter().take(NAMES).collect::<Vec<_>>().join(", ");
    if more > 0 {
        names.push_str(&format!(" and {more} more"));
    }
    let next = match names.is_empty() {
        true => "there is none yet: leave out --node".to_owned(),
        false => format!("the nodes are: {names}"),
    };
    let failure =
        Failure::new("NODE-UNKNOWN", format!("node {node}"), format!("{whose} {has} of that name"), next);
    Err(refused(&failure))
}

async fn known_nodes(
    manager: &Manager,
    log: &EventLog,
    cluster: &str,
) -> Result<BTreeSet<String>, RecordError> {
    let mut known: BTreeSet<String> = log.nodes(cluster).await?.into_iter().collect();
    let records = manager.shared().records.clusters().await?;
    let wanted = records.into_iter().filter(|record| cluster.is_empty() || record.name == *cluster);
    known.extend(wanted.flat_map(|record| record.nodes).map(|node| node.name));
    Ok(known)
}

#[cfg(test)]
mod tests {
    use k8sctl_proto::roles::Role;
    use k8sctl_rpc::status::failure_from;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC, spec_file};
    use crate::events::NewEvent;

    async fn tell(agent: &FakeHostAgent, object: &str, kind: EventType) {
        let (cluster, message) = ("home".to_owned(), String::new());
        let event = NewEvent { cluster, object: object.to_owned(), kind, message, warning: false };
        agent.shared.events.record(event).await;
    }

    /// Numbers of the events until all that is stored was sent, and where to go on.
    async fn caught_up(reply: &mut Reply<StreamEventsResponse>) -> (Vec<u64>, u64) {
        let mut numbers = Vec::new();
        loop {
            let response = reply.next().await.expect("it goes on").expect("no failure");
            match response.event {
                Some(event) => {
                    assert_eq!(response.next, event.number + 1);
                    numbers.push(event.number);
                }
                None => return (numbers, response.next),
            }
        }
    }

    async fn next(reply: &mut Reply<StreamEventsResponse>) -> u64 {
        let response = reply.next().await.expect("it goes on").expect("no failure");
        response.event.expect("an event").number
    }

    async fn refusal(manager: &Arc<Manager>, request: StreamEventsRequest) -> Failure {
        let status = open(manager, request).await.map(|_| ()).expect_err("it is refused");
        failure_from(&status).expect("a failure")
    }

    #[tokio::test]
    async fn what_is_stored_comes_first_and_then_what_fits_of_the_rest() {
        let agent = FakeHostAgent::new().await;
        let manager = agent.start().await;
        for _ in 0..600 {
            tell(&agent, "node worker", EventType::StepDone).await;
            tell(&agent, "network default", EventType::NetworkUpdated).await;
        }
        let request = StreamEventsRequest {
            node_name: "worker".to_owned(),
            follow: true,
            ..StreamEventsRequest::default()
        };
        let mut all = open(&manager, request.clone()).await.expect("it is served");
        assert_eq!(caught_up(&mut all).await, ((1..1200).step_by(2).collect(), 1201));
        let tail = StreamEventsRequest { tail: Some(2), ..request.clone() };
        let mut last = open(&manager, tail).await.expect("it is served");
        assert_eq!(caught_up(&mut last).await, (vec![1197, 1199], 1201));
        // Where the first one was interrupted.
        let rest = StreamEventsRequest { from: 1195, ..request.clone() };
        let mut rest = open(&manager, rest).await.expect("it is served");
        assert_eq!(caught_up(&mut rest).await, (vec![1195, 1197, 1199], 1201));
        let none = StreamEventsRequest { types: vec!["StepFailed".to_owned()], tail: Some(0), ..request };
        let mut none = open(&manager, none).await.expect("it is served");
        assert_eq!(caught_up(&mut none).await, (vec![], 1201));

        tell(&agent, "node other", EventType::StepFailed).await;
        tell(&agent, "domain worker", EventType::VMStarted).await;
        tell(&agent, "node worker", EventType::StepFailed).await;
        for reply in [&mut all, &mut last, &mut rest] {
            assert_eq!((next(reply).await, next(reply).await), (1202, 1203));
        }
        assert_eq!(next(&mut none).await, 1203);
    }

    #[tokio::test]
    async fn who_comes_too_late_is_told_what_is_gone() {
        let agent = FakeHostAgent::new().await;
        let manager = agent.start().await;
        let log = crate::events::EventLog::open(agent.store.clone(), 10).await.expect("opens");
        for _ in 0..25 {
            log.record(NewEvent {
                cluster: "home".to_owned(),
                object: "node worker".to_owned(),
                kind: EventType::StepDone,
                message: String::new(),
                warning: false,
            })
            .await;
        }
        let gone = async |from: u64, types: &[&str]| {
            let types = types.iter().map(|name| (*name).to_owned()).collect();
            let request = StreamEventsRequest { from, types, ..StreamEventsRequest::default() };
            let reply = open(&manager, request).await.expect("it is served");
            reply.map(|response| response.expect("no failure").gone_before).collect::<Vec<_>>().await
        };
        let of_ten = |first| [vec![first], vec![0; 9]].concat();
        assert_eq!(gone(3, &[]).await, of_ten(16));
        assert_eq!(gone(3, &["StepFailed"]).await, [16], "where nothing fits, too");
        assert_eq!((gone(0, &[]).await, gone(16, &[]).await), (of_ten(0), of_ten(0)));
    }

    #[tokio::test]
    async fn a_number_that_would_be_waited_for_in_silence_is_refused() {
        let agent = FakeHostAgent::new().await;
        let manager = agent.start().await;
        let from = |from, follow| StreamEventsRequest { from, follow, ..StreamEventsRequest::default() };
        let none = refusal(&manager, from(2, true)).await;
        assert_eq!((none.id.as_str(), none.object.as_str()), ("EVENT-NUMBER", "event 2"));
        assert_eq!(none.reason, "there are no events yet");
        for _ in 0..3 {
            tell(&agent, "node worker", EventType::StepDone).await;
        }
        for follow in [false, true] {
            let failure = refusal(&manager, from(5, follow)).await;
            assert_eq!(failure.reason, "the newest event is 3");
            assert_eq!(failure.next_step, "begin with --from 4, or leave it out");
        }
        assert_eq!(refusal(&manager, from(u64::MAX, true)).await.id, "EVENT-NUMBER");
        let mut next_one = open(&manager, from(4, true)).await.expect("it is served");
        assert_eq!(caught_up(&mut next_one).await, (vec![], 4));
        tell(&agent, "node worker", EventType::StepDone).await;
        assert_eq!(next(&mut next_one).await, 4);
    }

    #[tokio::test]
    async fn a_moment_holds_back_what_was_before_it() {
        let agent = FakeHostAgent::new().await;
        let manager = agent.start().await;
        tell(&agent, "node worker", EventType::StepDone).await;
        let hour = jiff::SignedDuration::from_hours(1);
        let numbers = async |since: jiff::Timestamp| {
            let since = Some(wire::timestamp(since));
            let request = StreamEventsRequest { since, ..StreamEventsRequest::default() };
            let reply = open(&manager, request).await.expect("it is served");
            reply.map(|response| response.expect("no failure").next).collect::<Vec<_>>().await
        };
        let now = jiff::Timestamp::now();
        assert_eq!((numbers(now - hour).await, numbers(now + hour).await), (vec![2], vec![]));
    }

    #[tokio::test]
    async fn slips_of_the_pen_are_refused_with_what_there_is() {
        let agent = FakeHostAgent::new().await;
        let manager = agent.start().await;
        let of_node = |cluster: &str, node: &str| StreamEventsRequest {
            cluster_name: cluster.to_owned(),
            node_name: node.to_owned(),
            follow: true,
            ..StreamEventsRequest::default()
        };
        let none = refusal(&manager, of_node("", "worker")).await;
        assert_eq!((none.id.as_str(), none.object.as_str()), ("NODE-UNKNOWN", "node worker"));
        assert!(none.next_step.contains("none yet"), "{none:?}");
        let file = spec_file(SPEC, "");
        manager.apply(&file, "", true, None, Role::Admin).await.expect("it begins");
        tell(&agent, "node gone", EventType::NodeRemoved).await;
        let slip = refusal(&manager, of_node("", "wroker")).await;
        assert_eq!(slip.reason, "no cluster has, or had, a node of that name");
        assert_eq!(slip.next_step, "the nodes are: control, gone, worker");
        let elsewhere = refusal(&manager, of_node("other", "worker")).await;
        assert_eq!(elsewhere.reason, "cluster other has, and had, no node of that name");
        for node in ["worker", "gone"] {
            open(&manager, of_node("home", node)).await.map(|_| ()).expect("it is known");
        }

        let types = vec!["NodeJoined".to_owned(), "NodeJoinde".to_owned()];
        let unknown =
            refusal(&manager, StreamEventsRequest { types, ..StreamEventsRequest::default() }).await;
        assert_eq!(
            (unknown.id.as_str(), unknown.object.as_str()),
            ("EVENT-TYPE-UNKNOWN", "event type NodeJoinde")
        );
        assert!(unknown.next_step.contains("NodeJoined"), "{unknown:?}");
        let cluster_name = "nosuch".to_owned();
        let unknown =
            refusal(&manager, StreamEventsRequest { cluster_name, ..StreamEventsRequest::default() }).await;
        assert_eq!(unknown.id, "CLUSTER-UNKNOWN");
    }
}
