//! Events and log lines.

use k8sctl_proto::control::v1 as control;
use serde::Serialize;

use super::{text, time};

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventView {
    /// Counts up without gaps per host agent.
    pub number: u64,
    /// When.
    pub time: Option<String>,
    /// `null` for the host itself.
    pub cluster_name: Option<String>,
    /// Kind and name.
    pub object: String,
    /// CamelCase word.
    pub r#type: String,
    /// One line.
    pub message: String,
    /// Abnormal.
    pub warning: bool,
}

/// A log line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogView {
    /// When.
    pub time: Option<String>,
    /// Name of the node.
    pub node: String,
    /// `kubelet`, `etcd` and so on, a unit's name, or `NAMESPACE/POD/CONTAINER`
    pub source: String,
    /// The line as it is.
    pub text: String,
    /// Lines before it are younger: it came too late to be put in order.
    pub late: bool,
}

impl From<control::Event> for EventView {
    fn from(wire: control::Event) -> Self {
        Self {
            number: wire.number,
            time: time(wire.time),
            cluster_name: text(wire.cluster_name),
            object: wire.object,
            r#type: wire.r#type,
            message: wire.message,
            warning: wire.warning,
        }
    }
}

impl From<control::ClusterLogLine> for LogView {
    fn from(wire: control::ClusterLogLine) -> Self {
        let line = wire.line.unwrap_or_default();
        Self {
            time: time(line.time),
            node: wire.node_name,
            source: line.source,
            text: line.text,
            late: wire.late,
        }
    }
}
