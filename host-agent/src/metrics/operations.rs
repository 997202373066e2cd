//! Follows operations as they are published: counts those that end, and tells the tracer of what they were made of.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;
use k8sctl_proto::control::v1::{Operation, OperationState};
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::watch;

use super::Meters;
use super::text::labels;
use crate::trace::{Tracer, spans};
use crate::wire;

/// Objects of running operations whose phases are followed.
const FOLLOWED: usize = 8192;
/// How operations end.
pub(super) const RESULTS: [&str; 3] = [SUCCEEDED, FAILED, SUPERSEDED];
const SUCCEEDED: &str = "succeeded";
const FAILED: &str = "failed";
const SUPERSEDED: &str = "superseded";

/// Follows until the host agent ends.
pub async fn follow(
    mut operations: watch::Receiver<BTreeMap<String, Operation>>,
    meters: Meters,
    tracer: Tracer,
) {
    let mut follower = Follower::new(Timestamp::now(), tracer.is_on());
    loop {
        let News { ended, spans } = follower.look(&operations.borrow_and_update(), Timestamp::now());
        ended.iter().for_each(|ended| meters.operation(ended));
        tracer.tell(|| spans);
        if operations.changed().await.is_err() {
            return;
        }
    }
}

impl Meters {
    fn operation(&self, ended: &Ended) {
        let key = labels([("kind", ended.kind.as_str()), ("result", ended.result)]);
        self.operations.get_or_create(&key).inc();
        let key = labels([("kind", ended.kind.as_str())]);
        self.operation_durations.get_or_create(&key).observe(ended.seconds);
    }
}

/// An operation that has ended.
#[derive(Clone, Debug, PartialEq)]
struct Ended {
    kind: String,
    result: &'static str,
    seconds: f64,
}

#[derive(Debug, Default)]
struct News {
    ended: Vec<Ended>,
    spans: Vec<SpanData>,
}

/// What was seen so far.
#[derive(Debug)]
struct Follower {
    began: Timestamp,
    with_spans: bool,
    /// Ids of those that were seen running.
    running: BTreeSet<String>,
    /// Ids of those that have ended and are still published.
    told: BTreeSet<String>,
    /// By operation and object: the phase, and since when.
    phases: BTreeMap<(String, String), (String, Timestamp)>,
}

impl Follower {
    fn new(began: Timestamp, with_spans: bool) -> Self {
        let (running, told) = (BTreeSet::new(), BTreeSet::new());
        Self { began, with_spans, running, told, phases: BTreeMap::new() }
    }

    fn look(&mut self, all: &BTreeMap<String, Operation>, now: Timestamp) -> News {
        let mut news = News::default();
        for (id, operation) in all {
            if operation.state() == OperationState::Running {
                self.running.insert(id.clone());
                self.follow_phases(operation, now, &mut news.spans);
            } else if self.told.insert(id.clone()) {
                self.end(operation, now, &mut news);
            }
        }
        self.running.retain(|id| all.contains_key(id));
        self.told.retain(|id| all.contains_key(id));
        self.phases.retain(|(id, _), _| all.contains_key(id));
        news
    }

    fn follow_phases(&mut self, operation: &Operation, now: Timestamp, spans: &mut Vec<SpanData>) {
        if !self.with_spans {
            return;
        }
        for line in &operation.progress {
            let key = (operation.id.clone(), line.object.clone());
            if self.phases.get(&key).is_some_and(|(phase, _)| *phase == line.phase && !line.done) {
                continue;
            }
            if let Some((phase, since)) = self.phases.remove(&key) {
                spans.extend(spans::phase(&operation.id, &line.object, &phase, (since, now)));
            }
            if !line.done && self.phases.len() < FOLLOWED {
                self.phases.insert(key, (line.phase.clone(), now));
            }
        }
        // What is not told of any more is over: a wait, or a node that was removed.
        let told: HashSet<&str> = operation.progress.iter().map(|line| line.object.as_str()).collect();
        self.end_phases(&operation.id, now, |object| !told.contains(object), spans);
    }

    /// Ends the open phases of those objects of an operation.
    fn end_phases(
        &mut self,
        operation: &str,
        now: Timestamp,
        is_meant: impl Fn(&str) -> bool,
        spans: &mut Vec<SpanData>,
    ) {
        let keys = self.phases.keys().filter(|(id, object)| id == operation && is_meant(object));
        for key in keys.cloned().collect::<Vec<_>>() {
            if let Some((phase, since)) = self.phases.remove(&key) {
                spans.extend(spans::phase(operation, &key.1, &phase, (since, now)));
            }
        }
    }

    fn end(&mut self, operation: &Operation, now: Timestamp, news: &mut News) {
        let finished = operation.finished.map_or(now, wire::moment);
        // It ended before this host agent began, and was counted then. A clock may have been set back: who was seen
        // running has not.
        if finished < self.began && !self.running.remove(&operation.id) {
            return;
        }
        let started = operation.started.map_or(finished, wire::moment);
        news.ended.push(Ended {
            kind: operation.kind.clone(),
            result: result(operation),
            seconds: finished.duration_since(started).as_secs_f64().max(0.0),
        });
        if !self.with_spans {
            return;
        }
        self.end_phases(&operation.id, finished, |_| true, &mut news.spans);
        let period = (started, finished);
        for node in &operation.progress {
            news.spans.extend(spans::steps(&operation.id, node, period));
        }
        news.spans.extend(spans::root(operation, period));
    }
}

fn result(operation: &Operation) -> &'static str {
    match &operation.failure {
        None => SUCCEEDED,
        Some(failure) if failure.id == "OPERATION-SUPERSEDED" => SUPERSEDED,
        Some(_) => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use k8sctl_proto::control::v1::{Failure, Progress};

    use super::*;

    const ID: &str = "0192f0c1-2d3e-7a4b-8c5d-6e7f80912a3b";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment")
    }

    fn line(object: &str, phase: &str) -> Progress {
        let done = phase == "Ready";
        Progress { object: object.to_owned(), phase: phase.to_owned(), done, ..Progress::default() }
    }

    fn running(progress: Vec<Progress>) -> Operation {
        Operation {
            id: ID.to_owned(),
            cluster_name: "home".to_owned(),
            kind: "up".to_owned(),
            state: OperationState::Running.into(),
            started: Some(wire::timestamp(at(100))),
            progress,
            ..Operation::default()
        }
    }

    fn ended(failure: Option<&str>, finished: i64, progress: Vec<Progress>) -> Operation {
        let state = if failure.is_some() { OperationState::Failed } else { OperationState::Succeeded };
        Operation {
            state: state.into(),
            finished: Some(wire::timestamp(at(finished))),
            failure: failure.map(|id| Failure { id: id.to_owned(), ..Failure::default() }),
            ..running(progress)
        }
    }

    fn published(operation: Operation) -> BTreeMap<String, Operation> {
        BTreeMap::from([(operation.id.clone(), operation)])
    }

    #[test]
    fn an_operation_counts_once_and_not_if_it_ended_before() {
        let mut follower = Follower::new(at(90), false);
        let end = |result: &'static str, seconds| vec![Ended { kind: "up".to_owned(), result, seconds }];
        assert_eq!(follower.look(&published(running(Vec::new())), at(101)).ended, []);
        let all = published(ended(None, 130, Vec::new()));
        assert_eq!(follower.look(&all, at(131)).ended, end("succeeded", 30.0));
        assert_eq!(follower.look(&all, at(132)).ended, []);
        // Forgotten by all: what is kept of it goes.
        follower.look(&BTreeMap::new(), at(133));
        assert!(follower.told.is_empty());
        for (failure, result) in [("NODE-SILENT", "failed"), ("OPERATION-SUPERSEDED", "superseded")] {
            let mut follower = Follower::new(at(90), false);
            let news = follower.look(&published(ended(Some(failure), 130, Vec::new())), at(131));
            assert_eq!(news.ended, end(result, 30.0));
            assert!(news.spans.is_empty(), "nobody wants them");
        }
        let mut follower = Follower::new(at(200), true);
        let news = follower.look(&published(ended(None, 130, Vec::new())), at(201));
        assert!(news.ended.is_empty() && news.spans.is_empty());
        // It ran before everybody's eyes, and then the clock was set back.
        let mut follower = Follower::new(at(200), true);
        follower.look(&published(running(Vec::new())), at(201));
        let news = follower.look(&published(ended(None, 130, Vec::new())), at(131));
        assert_eq!((news.ended, news.spans.len()), (end("succeeded", 30.0), 1));
    }

    #[test]
    fn what_a_node_went_through_becomes_spans() {
        let mut follower = Follower::new(at(90), true);
        let names = |news: News| -> Vec<String> {
            news.spans.iter().map(|span| span.name.clone().into_owned()).collect()
        };
        let both = |control, worker| vec![line("control", control), line("worker", worker)];
        assert!(names(follower.look(&published(running(both("Booting", "VM"))), at(101))).is_empty());
        assert!(names(follower.look(&published(running(both("Booting", "VM"))), at(102))).is_empty());
        let news = follower.look(&published(running(both("Ready", "Booting"))), at(120));
        assert_eq!(names(news), ["Booting", "VM"]);
        let end = ended(Some("NODE-SILENT"), 150, both("Ready", "Booting"));
        assert_eq!(names(follower.look(&published(end), at(151))), ["Booting", "up"]);
        assert!(follower.phases.is_empty());
    }

    #[test]
    fn a_line_that_is_gone_is_a_phase_that_is_over() {
        let mut follower = Follower::new(at(90), true);
        let wait = || vec![line("worker", "VM"), line("cluster home", "Waiting")];
        follower.look(&published(running(wait())), at(101));
        let news = follower.look(&published(running(vec![line("worker", "VM")])), at(111));
        let periods = |news: &News| -> Vec<_> {
            let of = |span: &SpanData| (span.name.clone(), span.start_time, span.end_time);
            news.spans.iter().map(of).collect()
        };
        let at = |second: i64| std::time::SystemTime::from(at(second));
        assert_eq!(periods(&news), [("Waiting".into(), at(101), at(111))]);
        // Another wait is another span.
        follower.look(&published(running(wait())), Timestamp::from_second(120).expect("a moment"));
        let news =
            follower.look(&published(running(Vec::new())), Timestamp::from_second(125).expect("a moment"));
        assert_eq!(periods(&news), [("Waiting".into(), at(120), at(125)), ("VM".into(), at(101), at(125))]);
    }
}
