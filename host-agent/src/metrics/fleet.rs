//! Clusters, nodes and running operations as last published.

use k8sctl_proto::control::v1::{ClusterStatus, NodeStatus, Operation, OperationState};
use k8sctl_proto::node::v1::{Condition, ConditionStatus};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::text::{Labels, Value, labels, value};
use crate::records::OperationKind;
use crate::wire;

/// Conditions of a node that have a series of their own. An agent can say anything: all others are one, the worst.
pub(super) const CONDITIONS: [&str; 18] = [
    "VMRunning",
    "AgentReady",
    "NodeReady",
    "NodeOK",
    "ContainerdReady",
    "KubeletReady",
    "ApiServerReady",
    "ControllerManagerReady",
    "SchedulerReady",
    "EtcdReady",
    "UnitsOK",
    "DiskOK",
    "MemoryOK",
    "ClockOK",
    "CertificateValid",
    "KubeletCertificateValid",
    "ControlPlaneCertificatesValid",
    "ReportWhole",
];
/// The one of all others.
pub(super) const OTHER: &str = "other";

/// Everything about them. Made anew for each reader.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    clusters: u64,
    cluster_conditions: Family<Labels, Value>,
    nodes: Family<Labels, Value>,
    node_conditions: Family<Labels, Value>,
    connected: Family<Labels, Value>,
    last_seen: Family<Labels, Value>,
    repairs: Family<Labels, Counter>,
    running: Family<Labels, Value>,
    started: Family<Labels, Value>,
}

impl Fleet {
    pub(super) fn add_cluster(&mut self, status: &ClusterStatus) {
        self.clusters += 1;
        let cluster = status.name.as_str();
        for condition in &status.conditions {
            let key = labels([("cluster", cluster), ("condition", condition.r#type.as_str())]);
            self.cluster_conditions.get_or_create(&key).set(number(condition));
        }
        for node in &status.nodes {
            self.nodes.get_or_create(&labels([("cluster", cluster), ("phase", node.phase.as_str())])).inc();
            self.add_node(cluster, node);
        }
    }

    fn add_node(&self, cluster: &str, node: &NodeStatus) {
        let key = labels([("cluster", cluster), ("node", node.name.as_str())]);
        let mut other = None;
        for condition in &node.conditions {
            let number = number(condition);
            if CONDITIONS.contains(&condition.r#type.as_str()) {
                self.set_condition(cluster, node, &condition.r#type, number);
            } else {
                other = Some(other.map_or(number, |worst: f64| worst.min(number)));
            }
        }
        if let Some(worst) = other {
            self.set_condition(cluster, node, OTHER, worst);
        }
        self.connected.get_or_create(&key).set(if node.connected { 1.0 } else { 0.0 });
        if let Some(seen) = node.last_seen {
            let seen = wire::moment(seen).as_millisecond();
            self.last_seen.get_or_create(&key).set(seen as f64 / 1e3);
        }
        // They are numbered from one. Of a node that this host agent has not heard of yet nobody knows how many: to a
        // counter that is no zero.
        if !node.steps.is_empty() || !node.repairs.is_empty() {
            let repairs = node.repairs.last().map_or(0, |repair| repair.number);
            self.repairs.get_or_create(&key).inc_by(repairs);
        }
    }

    fn set_condition(&self, cluster: &str, node: &NodeStatus, kind: &str, number: f64) {
        let key = labels([("cluster", cluster), ("node", node.name.as_str()), ("condition", kind)]);
        self.node_conditions.get_or_create(&key).set(number);
    }

    /// Counts an operation that runs.
    pub(super) fn add_operation(&self, operation: &Operation) {
        if operation.state() != OperationState::Running {
            return;
        }
        let kind = operation.kind.as_str();
        self.running.get_or_create(&labels([("kind", kind)])).inc();
        if let Some(started) = operation.started {
            let key = labels([("cluster", operation.cluster_name.as_str()), ("kind", kind)]);
            self.started.get_or_create(&key).set(wire::moment(started).as_millisecond() as f64 / 1e3);
        }
    }

    pub(super) fn register(self, registry: &mut Registry) {
        for kind in OperationKind::ALL {
            self.running.get_or_create(&labels([("kind", kind.as_str())])).inc_by(0.0);
        }
        registry.register("clusters", "Clusters of this host", value(self.clusters));
        let help = "Conditions of clusters: 1 is True, 0.5 Unknown, 0 False";
        registry.register("cluster_condition", help, self.cluster_conditions);
        registry.register("nodes", "Nodes by how far they are", self.nodes);
        let help = "Conditions of nodes: 1 is True, 0.5 Unknown, 0 False";
        registry.register("node_condition", help, self.node_conditions);
        registry.register("node_connected", "Whether the node's agent has a session", self.connected);
        let help = "When the node's agent was last heard";
        registry.register_with_unit("node_last_seen_timestamp", help, Unit::Seconds, self.last_seen);
        let help = "Repairs that the node's agent has numbered, from one on each disk";
        registry.register("node_repairs", help, self.repairs);
        registry.register("operations_running", "Operations that run now", self.running);
        let help = "When the running operation of a cluster began";
        registry.register_with_unit("operation_started_timestamp", help, Unit::Seconds, self.started);
    }
}

/// The lower, the worse.
fn number(condition: &Condition) -> f64 {
    match condition.status() {
        ConditionStatus::True => 1.0,
        ConditionStatus::False => 0.0,
        ConditionStatus::Unknown | ConditionStatus::Unspecified => 0.5,
    }
}
