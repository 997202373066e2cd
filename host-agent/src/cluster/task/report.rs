//! What a cluster's task tells others: status, operations, events.

use host_hypervisor::observed::DomainState;
use k8sctl_proto::control::v1 as control;
use k8sctl_types::event::EventType;

use super::ClusterTask;
use super::plugins::Restart;
use crate::cluster::conditions;
use crate::cluster::desired::vm_of;
use crate::cluster::progress::{self, Observed, VmView};
use crate::cluster::status;
use crate::events::NewEvent;
use crate::kubernetes::{KubernetesNode, KubernetesView, PodState};
use crate::records::{ClusterRecord, OperationKind, OperationRecord, OperationState, RecordError};
use crate::wire;

impl ClusterTask {
    pub(super) fn observed(&self, cluster: &ClusterRecord) -> Observed {
        let host = self.host.as_ref().map(|(_, _, host)| host);
        let registry = &self.shared.registry;
        let mut observed = Observed::default();
        for node in &cluster.nodes {
            let domain = host.and_then(|host| vm_of(host, cluster, node));
            let state = match domain.map(|domain| domain.state) {
                None if host.is_none() => progress::VM_UNKNOWN,
                None => "missing",
                Some(DomainState::Running) => "running",
                Some(DomainState::Paused) => "paused",
                Some(DomainState::IoError) => progress::VM_IO_ERROR,
                Some(DomainState::Off) => "shut off",
                Some(DomainState::Crashed) => "crashed",
            };
            let vm = VmView {
                state: state.to_owned(),
                powered_on: self.powered_on.get(&node.id).map(|power| power.since),
                started: self.powered_on.get(&node.id).map(|power| power.started),
                starts: self.starts.in_a_row(&node.name),
            };
            observed.vms.insert(node.id.clone(), vm);
            observed.agents.insert(node.id.clone(), registry.view(&node.id));
            if let Some(generation) = registry.desired_generation(&node.id) {
                observed.generations.insert(node.id.clone(), generation);
            }
        }
        observed.trouble = self.last_trouble.clone();
        if let Some(seen) = &self.plugins {
            (observed.plugins, observed.needs) = (seen.statuses.clone(), seen.needs.clone());
        }
        observed.converged = self.converged.clone();
        observed.restart = self.restart.as_ref().and_then(Restart::seen);
        observed.drains = self
            .drains
            .iter()
            .filter_map(|(id, drain)| Some((id.clone(), drain.remaining.clone()?)))
            .collect();
        observed.kubernetes = match &self.kubernetes {
            Some(kubernetes) => kubernetes.view().borrow().clone(),
            None if self.shared.config.simulated_kubernetes => simulated_view(cluster),
            None => KubernetesView { error: "no client yet".to_owned(), ..KubernetesView::default() },
        };
        observed
    }

    /// Tells of an operation that the look is the first to see: that it runs. How far it is, is told at the end of each
    /// look.
    pub(super) fn announce(&self, cluster: &ClusterRecord, operation: &OperationRecord) {
        let now = jiff::Timestamp::now();
        self.status.send_modify(|status| status::announce(status, cluster, operation, now));
        self.shared.publish_record(operation, Vec::new());
    }

    pub(super) async fn publish(
        &mut self,
        cluster: &ClusterRecord,
        observed: &Observed,
        running: Option<&OperationRecord>,
    ) -> Result<(), RecordError> {
        let last = self.shared.records.last_operation(&cluster.id).await?;
        let last = self.unwritten.clone().filter(|it| last.as_ref().is_some_and(|l| l.id == it.id)).or(last);
        let last_failure = match last.map(|operation| operation.state) {
            Some(OperationState::Failed(failure)) => Some(wire::failure(&failure)),
            _ => None,
        };
        let facts = self.image_facts(cluster);
        let new = status::cluster_status(cluster, observed, facts.as_ref(), running, last_failure);
        for (node, condition) in self.told.changes(&new.nodes) {
            self.shared.registry.judged(&node.id, condition);
        }
        self.status.send_if_modified(|status| {
            let mut new = new;
            status::keep_since(&status.conditions, &mut new.conditions);
            for node in &mut new.nodes {
                if let Some(old) = status.nodes.iter().find(|old| old.id == node.id) {
                    status::keep_since(&old.conditions, &mut node.conditions);
                }
            }
            let changed = *status != new;
            *status = new;
            changed
        });
        if let Some(operation) = running {
            self.shared.publish_operation(&operation.id, progress_lines(cluster, observed)).await?;
        }
        Ok(())
    }

    /// Tells how the operation of the last look ended, now that it is none any more. Whoever began the next one has told
    /// it, unless that was cut short.
    pub(super) async fn tell_of_the_end_before(&self, next: Option<&OperationRecord>) {
        let Some(before) = self.operation.clone().filter(|it| !self.shared.has_ended(&it.id)) else { return };
        let to = next.map_or(OperationKind::Up, |next| next.kind);
        self.shared.publish_end(&before.given_way(to, "another operation began")).await;
    }

    /// Something that is told whenever it is come to.
    pub(super) async fn event(&self, object: &str, kind: EventType, message: String) {
        let (cluster, object) = (self.name.clone(), object.to_owned());
        self.shared.events.record(NewEvent { cluster, object, kind, message, warning: false }).await;
    }

    /// An end of something, whose id `of` is: told once, however often that is come to.
    pub(super) async fn end_event(
        &self,
        of: &str,
        object: &str,
        kind: EventType,
        message: &str,
        warning: bool,
    ) {
        let event = NewEvent {
            cluster: self.name.clone(),
            object: object.to_owned(),
            kind,
            message: message.to_owned(),
            warning,
        };
        self.shared.record_end(of, event).await;
    }
}

pub(super) fn progress_lines(cluster: &ClusterRecord, observed: &Observed) -> Vec<control::Progress> {
    let nodes = cluster.nodes.iter().map(|node| progress::node_progress(node, observed));
    nodes.chain(progress::plugin_progress(cluster, observed)).collect()
}

/// With simulated agents there is no Kubernetes: a node is Ready when its agent has done its steps.
fn simulated_view(cluster: &ClusterRecord) -> KubernetesView {
    let pod_cidr = Some("simulated".to_owned());
    let ready = KubernetesNode { ready: true, pod_cidr, ..KubernetesNode::default() };
    let pod = |prefix: &str, node: &str| {
        let state = PodState { node: node.to_owned(), ready: true, ..PodState::default() };
        (format!("{prefix}{node}"), state)
    };
    let names = || cluster.nodes.iter().map(|node| node.name.as_str());
    let proxies = names().map(|name| pod(progress::PROXY, name));
    let dns = names().take(1).map(|name| pod(conditions::DNS, name));
    KubernetesView {
        reachable: true,
        nodes: names().map(|name| (name.to_owned(), ready.clone())).collect(),
        system_pods: proxies.chain(dns).collect(),
        ..KubernetesView::default()
    }
}
