//! The one owner of one cluster: reads what shall be and what is, acts, publishes, and waits for the next change.
//!
//! Level-triggered: a wake-up carries no hint, so what a kill or a missed event left undone is found by the next
//! look. Changes to the host are made only on behalf of an operation, but for starting VMs that shall run.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host_artifacts::image::Image;
use host_hypervisor::change::HostOp;
use host_hypervisor::observed::{DomainState, ObservedHost};
use host_hypervisor::plan::plan_host;
use k8sctl_proto::control::v1 as control;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::Role;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::crash;
use super::desired::{console_dir, desired_host, desired_state, host_pool, image_facts};
use super::execute::execute_changes;
use super::manager::{RequestError, Shared, stored_adoption, teardown, wire_operation};
use super::progress::{self, Observed, VmView};
use crate::events::NewEvent;
use crate::kubernetes::{Kubernetes, KubernetesError, KubernetesNode, KubernetesView};
use crate::nodes::channel::{OfferTemplate, PortPath, serve_port};
use crate::nodes::listener::NodeListener;
use crate::records::{
    ClusterRecord, ClusterState, NodeRecord, NodeState, OperationKind, OperationRecord, OperationState,
    RecordError,
};
use crate::wire;

/// Everything is read again after this time, whatever events say.
const RESYNC: Duration = Duration::from_secs(10);
/// Changes that come close together are taken as one.
const SETTLE: Duration = Duration::from_millis(50);
/// A passing failure may last so long before it ends an operation.
const GRACE: Duration = Duration::from_secs(60);
/// Pause after a passing failure.
const RETRY: Duration = Duration::from_secs(2);
/// How long a node's pods have to leave.
const DRAIN_DEADLINE: Duration = Duration::from_secs(300);

/// How others reach a cluster's task.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Makes the task look again.
    pub wake: Arc<Notify>,
    /// What it last published.
    pub status: watch::Receiver<control::ClusterStatus>,
}

impl Handle {
    /// The cluster is gone and its task has ended.
    pub fn is_gone(&self) -> bool {
        self.status.has_changed().is_err()
    }
}

/// Ends a task when dropped.
#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// See the module.
pub struct ClusterTask {
    shared: Arc<Shared>,
    name: String,
    wake: Arc<Notify>,
    status: watch::Sender<control::ClusterStatus>,
    host: Option<(Instant, u64, ObservedHost)>,
    listener: Option<NodeListener>,
    ports: HashMap<String, AbortOnDrop>,
    kubernetes: Option<Kubernetes>,
    kubernetes_view: Option<watch::Receiver<KubernetesView>>,
    powered_on: BTreeMap<String, jiff::Timestamp>,
    troubled_since: Option<Instant>,
    /// When to look again at the latest, because a deadline passes then.
    next_deadline: Option<jiff::Timestamp>,
}

/// Why a look at the cluster did not come to its end.
enum Trouble {
    /// May pass by itself.
    Passing(Failure),
    /// Somebody must act.
    Final(Failure),
}

impl From<RecordError> for Trouble {
    fn from(error: RecordError) -> Self {
        Self::Passing(Failure::new(
            "HOST-RECORDS",
            "host agent",
            k8sctl_rpc::chain(&error).to_string(),
            "check the disk under the host agent's state directory",
        ))
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        if failure.id == "LIBVIRT-UNREACHABLE" { Self::Passing(failure) } else { Self::Final(failure) }
    }
}

impl From<RequestError> for Trouble {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(failure) => failure.into(),
            RequestError::Records(error) => error.into(),
            RequestError::Diagnostics(_) => unreachable!("the task parses no spec"),
        }
    }
}

impl From<KubernetesError> for Trouble {
    fn from(error: KubernetesError) -> Self {
        let is_drain = matches!(error, KubernetesError::DrainDeadline { .. });
        let failure = Failure::new(
            if is_drain { "NODE-DRAIN" } else { "KUBERNETES-API" },
            "Kubernetes API",
            k8sctl_rpc::chain(&error).to_string(),
            "look at the pods with `kubectl get pods -A -o wide`, then run the command again",
        );
        if is_drain { Self::Final(failure) } else { Self::Passing(failure) }
    }
}

impl ClusterTask {
    /// The task of the cluster of that name.
    pub fn new(
        shared: Arc<Shared>,
        name: String,
        wake: Arc<Notify>,
        status: watch::Sender<control::ClusterStatus>,
    ) -> Self {
        Self {
            shared,
            name,
            wake,
            status,
            host: None,
            listener: None,
            ports: HashMap::new(),
            kubernetes: None,
            kubernetes_view: None,
            powered_on: BTreeMap::new(),
            troubled_since: None,
            next_deadline: None,
        }
    }

    /// Runs until the cluster is gone.
    pub async fn run(mut self) {
        let mut hypervisor = self.shared.hypervisor.changes();
        let mut nodes = self.shared.registry.version();
        loop {
            // Marked before looking: what changes meanwhile wakes us again.
            nodes.mark_unchanged();
            hypervisor.mark_unchanged();
            if let Some(view) = &mut self.kubernetes_view {
                view.mark_unchanged();
            }
            let pause = match self.look().await {
                Ok(true) => self.next_deadline.map_or(RESYNC, |deadline| until(deadline).min(RESYNC)),
                Ok(false) => return,
                Err(trouble) => self.take_trouble(trouble).await,
            };
            tokio::select! {
                // Cancel-safe: a permit or an unseen change stays for the next time.
                () = self.wake.notified() => { self.host = None; }
                changed = hypervisor.changed() => if changed.is_err() { return },
                changed = nodes.changed() => if changed.is_err() { return },
                () = view_changed(self.kubernetes_view.as_mut()) => {}
                () = tokio::time::sleep(pause) => {}
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// One look. `false` means: the cluster is gone.
    async fn look(&mut self) -> Result<bool, Trouble> {
        let Some(cluster) = self.shared.records.cluster(&self.name).await? else { return Ok(false) };
        let operation = self.shared.records.running_operation(&cluster.id).await?;
        if cluster.state == ClusterState::Removing {
            self.remove_cluster(&cluster, operation.as_ref()).await?;
            return Ok(false);
        }
        let result = match self.image(&cluster) {
            Ok(image) => self.converge(&cluster, operation.as_ref(), &image).await,
            Err(failure) => Err(failure.into()),
        };
        // Published even when something failed, from what is known by then.
        let record = self.shared.records.cluster(&self.name).await?.unwrap_or(cluster);
        let observed = self.observed(&record);
        let running = self.shared.records.running_operation(&record.id).await?;
        self.publish(&record, &observed, running.as_ref()).await?;
        result?;
        self.troubled_since = None;
        self.next_deadline = None;
        if let Some(operation) = running {
            self.judge(&record, &observed, &operation).await?;
        }
        Ok(true)
    }

    fn image(&self, cluster: &ClusterRecord) -> Result<Image, Failure> {
        let images = self.shared.images.list()?;
        images.into_iter().find(|image| image.id == cluster.image_id).ok_or_else(|| {
            let damaged = self.shared.images.damaged();
            if let Some(damaged) = damaged.into_iter().find(|image| image.id == cluster.image_id) {
                return damaged.failure;
            }
            Failure::new(
                "IMAGE-MISSING",
                format!("image {}", cluster.image_id),
                "the node image of this cluster is gone from the image store",
                "build it again with `k8sctl image build`",
            )
        })
    }

    async fn converge(
        &mut self,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
        image: &Image,
    ) -> Result<(), Trouble> {
        let is_up = operation.is_some_and(|operation| operation.kind == OperationKind::Up);
        let pki = self.shared.pki.open(cluster)?;
        self.converge_host(cluster, image, is_up).await?;
        self.open_listener(cluster).await?;
        self.open_ports(cluster).await?;
        if self.kubernetes.is_none() && !self.shared.config.simulated_kubernetes {
            let kubernetes = Kubernetes::connect(&pki.admin_kubeconfig(cluster)?).await?;
            self.kubernetes_view = Some(kubernetes.view());
            self.kubernetes = Some(kubernetes);
        }
        let facts = image_facts(image);
        let observed = self.observed(cluster);
        for node in cluster.nodes.iter().filter(|node| node.state == NodeState::Present) {
            let files = pki.node_files(cluster, node)?;
            let target = progress::node_target(cluster, node, &observed);
            self.shared.registry.set_desired(&node.id, desired_state(cluster, node, &facts, files, target));
        }
        self.introduce_nodes(cluster, &observed.kubernetes).await?;
        if is_up {
            self.remove_nodes(cluster, image).await?;
        }
        Ok(())
    }

    async fn observe_host(&mut self) -> Result<ObservedHost, Failure> {
        let version = *self.shared.hypervisor.changes().borrow();
        if let Some((when, seen, host)) = &self.host
            && *seen == version
            && when.elapsed() < RESYNC
        {
            return Ok(host.clone());
        }
        let host = self.shared.hypervisor.observe(&host_pool(&self.shared.config)).await?;
        self.host = Some((Instant::now(), version, host.clone()));
        Ok(host)
    }

    /// Makes the host as the cluster needs it; without an operation only VMs that shall run are started.
    async fn converge_host(
        &mut self,
        cluster: &ClusterRecord,
        image: &Image,
        is_up: bool,
    ) -> Result<(), Trouble> {
        let shared = Arc::clone(&self.shared);
        let _one_at_a_time = shared.host.lock().await;
        let observed = self.observe_host().await?;
        let agents = self.observed(cluster);
        let powered = |node: &NodeRecord| shall_run(cluster, node, &observed, &agents);
        let desired = desired_host(&shared.config, cluster, image, observed.accelerator, powered);
        let adopted = stored_adoption(&shared.records).await?;
        let plan = plan_host(&desired, &observed, &adopted)?;
        let changes: Vec<_> = plan
            .changes
            .into_iter()
            .filter(|change| is_up || matches!(change.op, HostOp::StartDomain { .. }))
            .collect();
        if is_up && plan.adoption != adopted {
            crash::point("before-store-adoption");
            let record = serde_json::to_value(&plan.adoption).expect("an adoption has string keys only");
            shared.records.set_adoption(&record).await?;
            crash::point("after-store-adoption");
        }
        if !changes.is_empty() {
            self.host = None;
            execute_changes(&*shared.hypervisor, &shared.events, &cluster.name, &changes).await?;
        }
        let observed = self.observe_host().await?;
        self.note_power(cluster, &observed);
        Ok(())
    }

    fn note_power(&mut self, cluster: &ClusterRecord, observed: &ObservedHost) {
        for node in &cluster.nodes {
            let runs = observed.domain(&node.name).is_some_and(|domain| domain.state == DomainState::Running);
            if !runs {
                if self.powered_on.remove(&node.id).is_some() {
                    self.shared.registry.reset(&node.id);
                }
            } else if !self.powered_on.contains_key(&node.id) {
                self.powered_on.insert(node.id.clone(), jiff::Timestamp::now());
            }
        }
    }

    /// The TLS port of this cluster's node agents, as soon as the bridge is there.
    async fn open_listener(&mut self, cluster: &ClusterRecord) -> Result<(), Trouble> {
        if self.listener.as_ref().is_some_and(NodeListener::is_open) {
            return Ok(());
        }
        let listener = NodeListener::open(&self.shared, cluster).await?;
        if cluster.node_port != Some(listener.address().port()) {
            self.shared.records.set_node_port(&cluster.id, listener.address().port()).await?;
        }
        self.listener = Some(listener);
        Ok(())
    }

    /// One secret channel per running VM.
    async fn open_ports(&mut self, cluster: &ClusterRecord) -> Result<(), Trouble> {
        let running: Vec<&NodeRecord> =
            cluster.nodes.iter().filter(|node| self.powered_on.contains_key(&node.id)).collect();
        self.ports.retain(|id, _| running.iter().any(|node| node.id == *id));
        let Some(listener) = &self.listener else { return Ok(()) };
        for node in running {
            if self.ports.contains_key(&node.id) {
                continue;
            }
            let port = match &self.shared.config.join_channel_dir {
                Some(dir) => PortPath::Listen(dir.join(format!("{}.sock", node.name))),
                None => match self.shared.hypervisor.join_channel(&node.name).await? {
                    Some(path) => PortPath::Connect(path),
                    None => continue,
                },
            };
            let template = OfferTemplate {
                cluster_id: cluster.id.clone(),
                node_id: node.id.clone(),
                machine_uuid: node.machine_uuid.clone(),
                host_address: listener.address().to_string(),
                ca_der: listener.ca_der().to_vec(),
                server_name: listener.server_name().to_owned(),
            };
            let authority = Arc::clone(&self.shared.authority);
            let task = k8sctl_rpc::task::spawn(
                format!("join-channel-{}", node.name),
                serve_port(port, template, authority),
            );
            self.ports.insert(node.id.clone(), AbortOnDrop(task));
        }
        Ok(())
    }

    async fn introduce_nodes(&self, cluster: &ClusterRecord, view: &KubernetesView) -> Result<(), Trouble> {
        let Some(kubernetes) = &self.kubernetes else { return Ok(()) };
        for node in &cluster.nodes {
            if view.nodes.get(&node.name).is_some_and(|seen| seen.pod_cidr.is_none()) {
                let cidr = super::desired::node_pod_cidr(cluster.spec.network.pods, node.pod_index);
                kubernetes.introduce_node(&node.name, &cidr.to_string(), node.spec.role).await?;
            }
        }
        Ok(())
    }

    /// Takes nodes that left the file out of the cluster: pods first, then the Node, then the VM.
    async fn remove_nodes(&mut self, cluster: &ClusterRecord, image: &Image) -> Result<(), Trouble> {
        for node in cluster.nodes.iter().filter(|node| node.state == NodeState::Draining) {
            if let Some(kubernetes) = &self.kubernetes {
                crash::point("before-drain");
                kubernetes.drain(&node.name, DRAIN_DEADLINE).await?;
                kubernetes.delete_node(&node.name).await?;
                crash::point("after-delete-node");
            }
            self.event(
                &format!("node {}", node.name),
                "NodeDrained",
                "its pods have left, Kubernetes forgot it",
                false,
            )
            .await;
            // Revoked before the VM goes: from here on its certificate opens nothing.
            self.shared.authority.revoke(&node.id).await.map_err(|error| authority_trouble(&error))?;
            self.shared.registry.remove(&node.id);
            self.shared.records.set_node_state(&node.id, NodeState::Removing).await?;
        }
        let Some(cluster) = self.shared.records.cluster(&self.name).await? else { return Ok(()) };
        if !cluster.nodes.iter().any(|node| node.state == NodeState::Removing) {
            return Ok(());
        }
        self.host = None;
        self.converge_host(&cluster, image, true).await?;
        for node in cluster.nodes.iter().filter(|node| node.state == NodeState::Removing) {
            crash::point("before-forget-node");
            // Before its record goes: what a kill here leaves is done again.
            self.shared.pki.open(&cluster)?.forget_node(&cluster, &node.name)?;
            self.shared.records.forget_node(&node.id).await?;
            self.ports.remove(&node.id);
            self.powered_on.remove(&node.id);
            self.event(&format!("node {}", node.name), "NodeRemoved", "its VM and disk are gone", false)
                .await;
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Takes the whole cluster off the host.
    async fn remove_cluster(
        &mut self,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
    ) -> Result<(), Trouble> {
        self.kubernetes = None;
        self.kubernetes_view = None;
        self.ports.clear();
        for node in &cluster.nodes {
            self.shared.authority.revoke(&node.id).await.map_err(|error| authority_trouble(&error))?;
            self.shared.registry.remove(&node.id);
        }
        self.listener = None;
        self.host = None;
        let shared = Arc::clone(&self.shared);
        let _one_at_a_time = shared.host.lock().await;
        let observed = self.observe_host().await?;
        let plan = teardown(&shared, cluster, &observed).await?;
        execute_changes(&*shared.hypervisor, &shared.events, &cluster.name, &plan.changes).await?;
        let record = serde_json::to_value(&plan.adoption).expect("an adoption has string keys only");
        shared.records.set_adoption(&record).await?;
        crash::point("before-forget-cluster");
        remove_consoles(&console_dir(&shared.config), &cluster.nodes);
        self.shared.plugins.forget_cluster(&cluster.id).await?;
        self.shared.pki.remove(&cluster.id)?;
        self.shared.records.forget_cluster(&cluster.id).await?;
        crash::point("after-forget-cluster");
        self.event(
            &format!("cluster {}", cluster.name),
            "ClusterRemoved",
            "all that was ours is gone",
            false,
        )
        .await;
        if let Some(operation) = operation {
            self.publish_operation(&operation.id, Vec::new()).await?;
        }
        Ok(())
    }

    /// Ends the operation when it has reached its goal, or when it cannot.
    async fn judge(
        &mut self,
        cluster: &ClusterRecord,
        observed: &Observed,
        operation: &OperationRecord,
    ) -> Result<(), Trouble> {
        let now = jiff::Timestamp::now();
        let limit = self.shared.config.silence_deadline;
        let silence = progress::Silence { since: operation.started, limit };
        if progress::missing(cluster, observed).is_none() {
            self.event(
                &format!("cluster {}", cluster.name),
                "OperationSucceeded",
                "all is as the file says",
                false,
            )
            .await;
            self.finish(cluster, observed, operation, None).await?;
        } else if let Some((node_id, failure)) = progress::failure(cluster, observed, silence, now) {
            let failure = self.with_console(cluster, &node_id, failure).await;
            self.fail(cluster, observed, operation, &failure).await?;
        } else if now >= operation.deadline {
            let failure = progress::deadline_failure(cluster, observed);
            self.fail(cluster, observed, operation, &failure).await?;
        } else {
            let silent = progress::next_silence(cluster, observed, silence);
            self.next_deadline = Some(silent.map_or(operation.deadline, |end| end.min(operation.deadline)));
            return Ok(());
        }
        self.wake.notify_one();
        Ok(())
    }

    async fn with_console(&self, cluster: &ClusterRecord, node_id: &str, failure: Failure) -> Failure {
        let node = cluster.nodes.iter().find(|node| node.id == node_id);
        let Some(node) = node.filter(|_| failure.evidence.is_empty()) else { return failure };
        match self.shared.hypervisor.console_tail(&node.name, 4096).await {
            Ok(console) if console.trim().is_empty() => {
                failure.with_evidence("(its console has printed nothing)")
            }
            Ok(console) => failure.with_evidence(format!("-- end of the console --\n{console}")),
            Err(error) => failure.with_evidence(format!("(no console: {})", error.reason)),
        }
    }

    async fn fail(
        &self,
        cluster: &ClusterRecord,
        observed: &Observed,
        operation: &OperationRecord,
        failure: &Failure,
    ) -> Result<(), RecordError> {
        self.event(&failure.object, "OperationFailed", &failure.to_string(), true).await;
        self.finish(cluster, observed, operation, Some(failure)).await
    }

    /// The status first: who sees the operation end, and looks, sees how it ended.
    async fn finish(
        &self,
        cluster: &ClusterRecord,
        observed: &Observed,
        operation: &OperationRecord,
        failure: Option<&Failure>,
    ) -> Result<(), RecordError> {
        self.shared.records.finish_operation(&operation.id, failure).await?;
        self.publish(cluster, observed, None).await?;
        self.publish_operation(&operation.id, Vec::new()).await
    }

    async fn take_trouble(&mut self, trouble: Trouble) -> Duration {
        let since = *self.troubled_since.get_or_insert_with(Instant::now);
        let (failure, is_final) = match trouble {
            Trouble::Passing(failure) => (failure, since.elapsed() >= GRACE),
            Trouble::Final(failure) => (failure, true),
        };
        tracing::warn!(cluster.name = %self.name, error = %failure, last = is_final, "cannot converge");
        self.host = None;
        let ended = async {
            let Some(cluster) = self.shared.records.cluster(&self.name).await? else { return Ok(()) };
            let running = self.shared.records.running_operation(&cluster.id).await?;
            let Some(operation) = running else { return Ok(()) };
            let observed = self.observed(&cluster);
            if is_final || past_deadline(&operation) {
                self.fail(&cluster, &observed, &operation, &failure).await?;
            } else {
                // Whoever watches sees what is waited for.
                let mut lines = progress_lines(&cluster, &observed);
                lines.push(progress::trouble_line(&failure));
                self.publish_operation(&operation.id, lines).await?;
            }
            Ok::<_, RecordError>(())
        };
        if let Err(error) = ended.await {
            tracing::error!(cluster.name = %self.name, error = %k8sctl_rpc::chain(&error), "cannot record a failure");
        }
        // What only a person can mend is looked at no more often than all else.
        if is_final { RESYNC } else { RETRY }
    }

    fn observed(&self, cluster: &ClusterRecord) -> Observed {
        let host = self.host.as_ref().map(|(_, _, host)| host);
        let registry = &self.shared.registry;
        let mut observed = Observed::default();
        for node in &cluster.nodes {
            let domain = host.and_then(|host| host.domain(&node.name));
            let state = match domain.map(|domain| domain.state) {
                None => "missing",
                Some(DomainState::Running) => "running",
                Some(DomainState::Paused) => "paused",
                Some(DomainState::Off) => "shut off",
                Some(DomainState::Crashed) => "crashed",
            };
            let vm = VmView { state: state.to_owned(), powered_on: self.powered_on.get(&node.id).copied() };
            observed.vms.insert(node.id.clone(), vm);
            observed.agents.insert(node.id.clone(), registry.view(&node.id));
            if let Some(generation) = registry.desired_generation(&node.id) {
                observed.generations.insert(node.id.clone(), generation);
            }
        }
        observed.kubernetes = match &self.kubernetes {
            Some(kubernetes) => kubernetes.view().borrow().clone(),
            None if self.shared.config.simulated_kubernetes => simulated_view(cluster),
            None => KubernetesView { error: "no client yet".to_owned(), ..KubernetesView::default() },
        };
        observed
    }

    async fn publish(
        &self,
        cluster: &ClusterRecord,
        observed: &Observed,
        running: Option<&OperationRecord>,
    ) -> Result<(), RecordError> {
        let last = self.shared.records.last_operation(&cluster.id).await?;
        let last_failure = match last.map(|operation| operation.state) {
            Some(OperationState::Failed(failure)) => Some(wire::failure(&failure)),
            _ => None,
        };
        let facts = self.image(cluster).map(|image| image_facts(&image)).unwrap_or_default();
        let plugins = self.shared.plugins.list(&cluster.id).await.unwrap_or_default();
        let plugins = plugins.into_iter().map(wire::plugin_status).collect();
        let new = super::progress::cluster_status(cluster, observed, &facts, running, last_failure, plugins);
        self.status.send_if_modified(|status| {
            let mut new = new;
            progress::keep_since(&status.conditions, &mut new.conditions);
            for node in &mut new.nodes {
                if let Some(old) = status.nodes.iter().find(|old| old.id == node.id) {
                    progress::keep_since(&old.conditions, &mut node.conditions);
                }
            }
            let changed = *status != new;
            *status = new;
            changed
        });
        if let Some(operation) = running {
            self.publish_operation(&operation.id, progress_lines(cluster, observed)).await?;
        }
        Ok(())
    }

    /// Publishes an operation as the records have it now.
    async fn publish_operation(&self, id: &str, lines: Vec<control::Progress>) -> Result<(), RecordError> {
        let Some(record) = self.shared.records.operation(id).await? else { return Ok(()) };
        self.shared.operations.send_if_modified(|operations| {
            let kept = operations.get(id).map(|old| old.progress.clone()).filter(|_| lines.is_empty());
            let new = wire_operation(&record, kept.unwrap_or(lines));
            let changed = operations.get(id) != Some(&new);
            operations.insert(id.to_owned(), new);
            changed
        });
        Ok(())
    }

    async fn event(&self, object: &str, kind: &'static str, message: &str, warning: bool) {
        let event = NewEvent {
            cluster: self.name.clone(),
            object: object.to_owned(),
            kind,
            message: message.to_owned(),
            warning,
        };
        self.shared.events.record(event).await;
    }
}

async fn view_changed(view: Option<&mut watch::Receiver<KubernetesView>>) {
    match view {
        Some(view) => {
            if view.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

fn authority_trouble(error: &(dyn std::error::Error + 'static)) -> Trouble {
    Trouble::Passing(Failure::new(
        "JOIN-RECORDS",
        "join authority",
        k8sctl_rpc::chain(error).to_string(),
        "check the disk under the host agent's state directory",
    ))
}

/// Removes the console logs of VMs that are gone, and the directory after the last one. What cannot be removed is
/// told: it holds no cluster back.
fn remove_consoles(dir: &Path, nodes: &[NodeRecord]) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // virtlogd rotates NAME.log into NAME.log.0 and so on.
        let is_theirs = nodes.iter().any(|node| {
            name.strip_prefix(&node.name).is_some_and(|rest| rest == ".log" || rest.starts_with(".log."))
        });
        if is_theirs && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::warn!(path = %entry.path().display(), error = %error, "cannot remove a console log");
        }
    }
    // Fails while the consoles of another cluster are in it.
    let _ = std::fs::remove_dir(dir);
}

fn progress_lines(cluster: &ClusterRecord, observed: &Observed) -> Vec<control::Progress> {
    cluster.nodes.iter().map(|node| progress::node_progress(node, observed)).collect()
}

/// The time until then, nothing where it has passed.
fn until(then: jiff::Timestamp) -> Duration {
    Duration::try_from(then.duration_since(jiff::Timestamp::now())).unwrap_or_default()
}

fn past_deadline(operation: &OperationRecord) -> bool {
    jiff::Timestamp::now() >= operation.deadline
}

/// Whether a VM shall run by now. The control plane comes first; the others wait while it needs the host's
/// processors for itself, unless the host has enough for all.
fn shall_run(cluster: &ClusterRecord, node: &NodeRecord, host: &ObservedHost, agents: &Observed) -> bool {
    let runs = host.domain(&node.name).is_some_and(|domain| domain.state == DomainState::Running);
    let wanted: u32 = cluster.nodes.iter().map(|node| node.spec.vcpus).sum();
    runs || node.spec.role == Role::ControlPlane
        || wanted <= host.host_cpus
        || progress::control_plane_is_starting(cluster, agents)
}

/// With simulated agents there is no Kubernetes: a node is Ready when its agent has done its steps.
fn simulated_view(cluster: &ClusterRecord) -> KubernetesView {
    let ready = KubernetesNode { ready: true, ..KubernetesNode::default() };
    KubernetesView {
        reachable: true,
        nodes: cluster.nodes.iter().map(|node| (node.name.clone(), ready.clone())).collect(),
        ..KubernetesView::default()
    }
}
