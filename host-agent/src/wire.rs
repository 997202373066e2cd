//! Small conversions between inner values and wire types, used by every service.

use std::time::SystemTime;

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
        id: diagnostic.id.into_owned(),
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

/// A time of the system's clock on the wire; one that no clock shows is none.
pub fn system_time(time: SystemTime) -> Option<prost_types::Timestamp> {
    jiff::Timestamp::try_from(time).ok().map(timestamp)
}

/// A plugin's status on the wire.
pub fn plugin_status(status: host_plugins::PluginStatus) -> control::PluginStatus {
    control::PluginStatus {
        name: status.name,
        version: status.version,
        state: status.state.as_str().to_owned(),
        message: status.message,
        objects: status.objects,
        installed: status.installed.and_then(system_time),
        blocking: status.blocking.map(blocking),
        trust: status.trust,
        origin: status.origin,
        newer_version: status.newer_version,
        revision: status.revision,
        drifted: status.drifted,
    }
}

/// What blocks a plugin, on the wire.
pub fn blocking(blocking: host_plugins::Blocking) -> control::Blocking {
    control::Blocking {
        object: blocking.object,
        reason: blocking.reason,
        pod: blocking.pod.unwrap_or_default(),
        since: system_time(blocking.since),
    }
}

/// What a plugin says of its config, on the wire; who sent the config knows where in it that is.
pub fn plugin_diagnostic(diagnostic: host_plugins::Diagnostic) -> control::Diagnostic {
    let id = if diagnostic.code.is_empty() { PLUGIN_CONFIG.to_owned() } else { diagnostic.code };
    control::Diagnostic {
        id,
        field: diagnostic.path,
        message: diagnostic.message,
        hint: diagnostic.hint,
        warning: diagnostic.warning,
        ..control::Diagnostic::default()
    }
}

/// The id of what a plugin says of its config without one of its own.
pub const PLUGIN_CONFIG: &str = "PLUGIN-CONFIG";
