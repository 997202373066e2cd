//! Follows operations as they are published: counts those that end, and tells the tracer of what they were made of.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Ids of those that have ended and are still published.
    told: BTreeSet<String>,
    /// By operation and object: the phase, and since when.
    phases: BTreeMap<(String, String), (String, Timestamp)>,
}

impl Follower {
    fn new(began: Timestamp, with_spans: bool) -> Self {
        Self { began, with_spans, told: BTreeSet::new(), phases: BTreeMap::new() }
    }

    fn look(&mut self, all: &BTreeMap<String, Operation>, now: Timestamp) -> News {
        let mut news = News::default();
        for (id, operation) in all {
            if operation.state() == OperationState::Running {
                self.follow_phases(operation, now, &mut news.spans);
            } else if self.told.insert(id.clone()) {
                self.end(operation, now, &mut news);
            }
        }
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
    }

    fn end(&mut self, operation: &Operation, now: Timestamp, news: &mut News) {
        let finished = operation.finished.map_or(now, wire::moment);
        // It ended before this host agent began, and was counted then.
        if finished < self.began {
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
        let open: Vec<_> = self.phases.keys().filter(|(id, _)| *id == operation.id).cloned().collect();
        for key in open {
            if let Some((phase, since)) = self.phases.remove(&key) {
                news.spans.extend(spans::phase(&operation.id, &key.1, &phase, (since, finished)));
            }
        }
        let period = (started, finished);
        for node in &operation.progress {
            news.spans.extend(spans::steps(&operation.id, node, period));
        }
        news.spans.extend(spans::root(operation, period));
    }
}

fn result(operation: &Operation) -> &'static str {
    match &operation.failure {
        None => "succeeded",
        Some(failure) if failure.id == "OPERATION-SUPERSEDED" => "superseded",
        Some(_) => "failed",
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
}
