//! Events and log lines.

use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1 as node;
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
    /// `kubelet`, `containerd`, `agent` or `kernel`
    pub source: String,
    /// The line as it is.
    pub text: String,
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

impl LogView {
    /// A line of this node.
    pub fn of(node: &str, wire: node::LogLine) -> Self {
        Self { time: time(wire.time), node: node.to_owned(), source: wire.source, text: wire.text }
    }
}
