//! Small conversions between inner values and wire types, used by every service.

use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1::{Condition, ConditionStatus};
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::Diagnostic;

/// A time on the wire.
pub fn timestamp(time: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

/// A time from the wire; one that no clock shows becomes the first or the last that one does.
pub fn moment(time: prost_types::Timestamp) -> jiff::Timestamp {
    let bound = if time.seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::new(time.seconds, time.nanos).unwrap_or(bound)
}

/// A failure on the wire.
pub fn failure(failure: &Failure) -> control::Failure {
    control::Failure {
        id: failure.id.clone(),
        object: failure.object.clone(),
        reason: failure.reason.clone(),
        next_step: failure.next_step.clone(),
        evidence: failure.evidence.clone(),
    }
}

/// A mistake in the user's file on the wire.
pub fn diagnostic(diagnostic: Diagnostic) -> control::Diagnostic {
    control::Diagnostic {
        id: diagnostic.id.to_owned(),
        field: diagnostic.field,
        line: diagnostic.line,
        column: diagnostic.column,
        message: diagnostic.message,
        hint: diagnostic.hint,
        warning: diagnostic.warning,
    }
}

/// A condition that holds since now.
pub fn condition(
    kind: &str,
    status: ConditionStatus,
    reason: &str,
    message: impl Into<String>,
    since: jiff::Timestamp,
) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: status.into(),
        reason: reason.to_owned(),
        message: message.into(),
        since: Some(timestamp(since)),
    }
}

/// A plugin's status on the wire.
pub fn plugin_status(status: host_plugins::PluginStatus) -> control::PluginStatus {
    let installed = status.installed.and_then(|time| jiff::Timestamp::try_from(time).ok());
    control::PluginStatus {
        name: status.name,
        version: status.version,
        state: status.state.as_str().to_owned(),
        message: status.message,
        objects: status.objects,
        installed: installed.map(timestamp),
    }
}
