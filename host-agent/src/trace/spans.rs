//! What of an operation becomes a span, as pure functions. An operation's id is the id of its trace, and half of it that
//! of its root: spans of before and after a restart of the host agent come together, and nothing is kept for that.

use std::borrow::Cow;
use std::time::SystemTime;

use host_hypervisor::change::HostChange;
use jiff::Timestamp;
use k8sctl_proto::control::v1::{Operation, Progress};
use k8sctl_proto::node::v1::{StepState, StepStatus};
use k8sctl_types::failure::Failure;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use uuid::Uuid;

use crate::wire;

/// From when until when.
pub type Period = (Timestamp, Timestamp);

/// The span of an operation that has ended, above all its others.
pub fn root(operation: &Operation, period: Period) -> Option<SpanData> {
    let attributes = vec![
        KeyValue::new("k8s.cluster.name", operation.cluster_name.clone()),
        KeyValue::new("operation.id", operation.id.clone()),
    ];
    let status = operation.failure.as_ref().map_or(Status::Ok, |failure| {
        Status::error(format!("{}: {}: {}", failure.id, failure.object, failure.reason))
    });
    let (trace, root) = ids(&operation.id)?;
    Some(span((trace, root, SpanId::INVALID), operation.kind.clone(), period, attributes, status))
}

/// A change to the host.
pub fn host_change(
    operation: &str,
    change: &HostChange,
    period: Period,
    failure: Option<&Failure>,
) -> Option<SpanData> {
    let attributes = vec![
        KeyValue::new("host.object", format!("{} {}", change.kind, change.name)),
        KeyValue::new("host.action", change.action.to_string()),
        KeyValue::new("host.reason", change.reason.clone()),
    ];
    let status = failure.map_or(Status::Ok, |failure| Status::error(failure.to_string()));
    child(operation, change.op.name(), period, attributes, status)
}

/// What an object of an operation, as a node, did for a while.
pub fn phase(operation: &str, object: &str, phase: &str, period: Period) -> Option<SpanData> {
    let attributes = vec![KeyValue::new("operation.object", object.to_owned())];
    child(operation, phase.to_owned(), period, attributes, Status::Unset)
}

/// The steps of a node as far as they were carried out within that time. A node's clock may be off: nothing reaches out
/// of its operation.
pub fn steps(operation: &str, node: &Progress, period: Period) -> Vec<SpanData> {
    node.steps.iter().filter_map(|step| self::step(operation, &node.object, step, period)).collect()
}

fn step(operation: &str, node: &str, step: &StepStatus, (from, until): Period) -> Option<SpanData> {
    let begun = step.started.map(wire::moment)?;
    let ended = step.finished.map_or(until, wire::moment).min(until);
    // What was done before is no part of it.
    if ended < from || begun > until {
        return None;
    }
    let attributes = vec![
        KeyValue::new("k8s.node.name", node.to_owned()),
        KeyValue::new("step.attempts", i64::from(step.attempts)),
    ];
    let status = match step.state() {
        StepState::Done => Status::Ok,
        StepState::Failed => Status::error(step.message.clone()),
        _ => Status::Unset,
    };
    child(operation, step.name.clone(), (begun.max(from), ended), attributes, status)
}

/// Ids of an operation's trace and of its root.
fn ids(operation: &str) -> Option<(TraceId, SpanId)> {
    let id = Uuid::parse_str(operation).ok()?;
    let [.., a, b, c, d, e, f, g, h] = *id.as_bytes();
    Some((TraceId::from_bytes(*id.as_bytes()), SpanId::from_bytes([a, b, c, d, e, f, g, h])))
}

fn child(
    operation: &str,
    name: impl Into<Cow<'static, str>>,
    period: Period,
    attributes: Vec<KeyValue>,
    status: Status,
) -> Option<SpanData> {
    let (trace, root) = ids(operation)?;
    let [a, b, c, d, e, f, g, h, ..] = *Uuid::new_v4().as_bytes();
    let own = SpanId::from_bytes([a, b, c, d, e, f, g, h]);
    Some(span((trace, own, root), name, period, attributes, status))
}

fn span(
    (trace, own, parent): (TraceId, SpanId, SpanId),
    name: impl Into<Cow<'static, str>>,
    (from, until): Period,
    attributes: Vec<KeyValue>,
    status: Status,
) -> SpanData {
    let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME")).with_version(env!("CARGO_PKG_VERSION"));
    SpanData {
        span_context: SpanContext::new(trace, own, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time: SystemTime::from(from),
        // A clock that was set back makes no span of less than nothing.
        end_time: SystemTime::from(until.max(from)),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: scope.build(),
    }
}

#[cfg(test)]
mod tests {
    use host_hypervisor::change::{Action, HostOp, Kind};

    use super::*;

    const ID: &str = "0192f0c1-2d3e-7a4b-8c5d-6e7f80912a3b";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment")
    }

    fn seconds(span: &SpanData) -> (u64, u64) {
        let of =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        (of(span.start_time), of(span.end_time))
    }

    #[test]
    fn all_spans_of_an_operation_are_of_one_trace_below_its_root() {
        let operation = Operation { id: ID.to_owned(), kind: "up".to_owned(), ..Operation::default() };
        let root = root(&operation, (at(10), at(90))).expect("a span");
        let change = HostChange {
            action: Action::Create,
            kind: Kind::Network,
            name: "k8s-home".to_owned(),
            reason: "it is missing".to_owned(),
            destructive: false,
            op: HostOp::StartNetwork { name: "k8s-home".to_owned() },
        };
        let failure = Failure::new("LIBVIRT-OPERATION-FAILED", "network k8s-home", "why", "next");
        let host = host_change(ID, &change, (at(11), at(12)), Some(&failure)).expect("a span");
        let booting = phase(ID, "worker", "Booting", (at(12), at(30))).expect("a span");
        assert_eq!(root.span_context.trace_id().to_string(), ID.replace('-', ""));
        assert_eq!(root.parent_span_id, SpanId::INVALID);
        for child in [&host, &booting] {
            assert_eq!(child.span_context.trace_id(), root.span_context.trace_id());
            assert_eq!(child.parent_span_id, root.span_context.span_id());
        }
        assert_ne!(host.span_context.span_id(), booting.span_context.span_id());
        assert_eq!((root.name.as_ref(), &root.status), ("up", &Status::Ok));
        let told = Status::error("LIBVIRT-OPERATION-FAILED: network k8s-home: why");
        assert_eq!((host.name.as_ref(), &host.status), ("start-network", &told));
        assert_eq!((booting.name.as_ref(), seconds(&booting)), ("Booting", (12, 30)));
    }

    #[test]
    fn steps_stay_within_their_operation() {
        let step = |name: &str, state: StepState, started: i64, finished: Option<i64>| StepStatus {
            name: name.to_owned(),
            state: state.into(),
            started: Some(wire::timestamp(at(started))),
            finished: finished.map(at).map(wire::timestamp),
            ..StepStatus::default()
        };
        let node = Progress {
            object: "worker".to_owned(),
            steps: vec![
                step("host-os", StepState::Done, 1, Some(5)),
                step("containerd", StepState::Done, 5, Some(20)),
                step("cni", StepState::Failed, 30, Some(500)),
                step("kubelet", StepState::Running, 40, None),
                step("kubeadm", StepState::Running, 200, None),
                StepStatus { name: "later".to_owned(), ..StepStatus::default() },
            ],
            ..Progress::default()
        };
        let spans = steps(ID, &node, (at(10), at(90)));
        let seen: Vec<_> = spans.iter().map(|span| (span.name.as_ref(), seconds(span))).collect();
        assert_eq!(seen, [("containerd", (10, 20)), ("cni", (30, 90)), ("kubelet", (40, 90))]);
        assert!(matches!(spans[1].status, Status::Error { .. }));
    }

    #[test]
    fn an_operation_of_another_name_has_no_trace() {
        assert!(phase("050", "worker", "Booting", (at(1), at(2))).is_none());
    }
}
