//! The one owner of one cluster: reads what shall be and what is, acts, publishes, and waits for the next change.
//!
//! Level-triggered: a wake-up carries no hint, so what a kill or a missed event left undone is found by the next
//! look. Changes to the host are made only on behalf of an operation, but for starting VMs that shall run.

mod host;
mod mandate;
mod pace;
mod plugins;
mod removal;
mod report;
mod starts;
mod trouble;
mod turn;
mod untold;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use host_artifacts::image::Image;
use host_hypervisor::accelerator;
use host_hypervisor::observed::ObservedHost;
use host_plugins::Converged;
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1::DesiredState;
use k8sctl_types::failure::Failure;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::desired::{ImageFacts, desired_state, domain_ref, image_facts, neighbours};
use super::plugins::PluginsSeen;
use super::progress;
use super::shared::Shared;
use super::status::ToldConditions;
use crate::kubernetes::{Kubernetes, KubernetesView};
use crate::nodes::channel::{OfferTemplate, PortPath, serve_port};
use crate::nodes::listener::NodeListener;
use crate::nodes::wanted::{Neighbours, Wanted};
use crate::records::{
    ClusterRecord, ClusterState, NodeRecord, NodeState, OperationKind, OperationRecord, RecordError,
};
use mandate::Doings;
use pace::Pace;
use plugins::{Keeper, Restart};
use removal::Drain;
use starts::Starts;
use trouble::Trouble;

/// Everything is read again after this time, whatever events say.
const RESYNC: Duration = Duration::from_secs(10);
/// Changes that come close together are taken as one.
const SETTLE: Duration = Duration::from_millis(50);
/// While nobody waits for an operation, looks at a large cluster take no more than one part in so many of a processor,
/// however much changes in it.
const REST: u32 = 30;
/// Nodes of which is thought without a break.
const NODES_AT_ONCE: usize = 64;
/// Longest rest between two looks.
const LONGEST_REST: Duration = Duration::from_secs(3);

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

/// A VM that runs, as far as this host agent has seen.
#[derive(Clone, Copy, Debug)]
struct PoweredOn {
    run: u32,
    /// When this host agent saw it first.
    since: jiff::Timestamp,
    /// When it began.
    started: jiff::Timestamp,
    /// When it was rebooted in this run, as far as that was taken in.
    rebooted: Option<Instant>,
    /// It was, and its run is still to be ended for that.
    is_stale: bool,
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
    /// How plugins were at the last look; `None`: nothing is known of them yet.
    plugins: Option<PluginsSeen>,
    /// How far the plugins of the spec are, for the operation of the last look.
    converged: Option<Converged>,
    keeper: Option<Keeper>,
    restart: Option<Restart>,
    /// What plugins needed of nodes at the last look, for a person.
    needed: Option<String>,
    powered_on: BTreeMap<String, PoweredOn>,
    /// The run of the control plane's VM that has the greater share of the processors.
    preferred: Option<u32>,
    /// Kept as long as it stays the same: it is compared by its address.
    neighbours: Arc<Neighbours>,
    /// The operation of the last look.
    operation: Option<OperationRecord>,
    /// The last one that failed, where the records could not be written then: they still have it as running.
    unwritten: Option<OperationRecord>,
    starts: Starts,
    doings: Doings,
    drains: BTreeMap<String, Drain>,
    told: ToldConditions,
    /// What was done to the host before this task began is all told.
    has_caught_up: bool,
    /// Since when looks fail without a break, and on behalf of which operation.
    troubled_since: Option<(Instant, String)>,
    /// Why the last look failed.
    last_trouble: Option<Failure>,
    /// When to look again at the latest, because a deadline passes then.
    next_deadline: Option<jiff::Timestamp>,
    pace: Pace,
    /// When it was seen last that the host had stood still.
    woke: Option<jiff::Timestamp>,
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
            plugins: None,
            converged: None,
            keeper: None,
            restart: None,
            needed: None,
            powered_on: BTreeMap::new(),
            preferred: None,
            neighbours: Arc::default(),
            operation: None,
            unwritten: None,
            starts: Starts::default(),
            doings: Doings::default(),
            drains: BTreeMap::new(),
            told: ToldConditions::default(),
            has_caught_up: false,
            troubled_since: None,
            last_trouble: None,
            next_deadline: None,
            pace: Pace::new(),
            woke: None,
        }
    }

    /// Runs until the cluster is gone.
    pub async fn run(mut self) {
        let mut hypervisor = self.shared.hypervisor.changes();
        let mut nodes = self.shared.registry.version();
        let mut plugins = self.shared.cluster_plugins.changes();
        loop {
            // Marked before looking: what changes meanwhile wakes us again.
            nodes.mark_unchanged();
            plugins.mark_unchanged();
            hypervisor.mark_unchanged();
            if let Some(view) = &mut self.kubernetes_view {
                view.mark_unchanged();
            }
            let began = Instant::now();
            let looked = self.look().await;
            let rest = rest_after(began.elapsed(), self.operation.is_some());
            let ended = Instant::now();
            let pause = match looked {
                Ok(true) => self.next_deadline.map_or(RESYNC, |deadline| until(deadline).min(RESYNC)),
                Ok(false) => return,
                Err(trouble) => self.take_trouble(trouble).await,
            };
            tokio::select! {
                // Cancel-safe: a permit or an unseen change stays for the next time.
                () = self.wake.notified() => { self.host = None; }
                changed = hypervisor.changed() => if changed.is_err() { return },
                changed = nodes.changed() => if changed.is_err() { return },
                changed = plugins.changed() => if changed.is_err() { return },
                () = view_changed(self.kubernetes_view.as_mut()) => {}
                () = tokio::time::sleep(pause) => {}
            }
            tokio::time::sleep(rest.saturating_sub(ended.elapsed()).max(SETTLE)).await;
        }
    }

    /// One look. `false` means: the cluster is gone.
    async fn look(&mut self) -> Result<bool, Trouble> {
        self.write_down_failure().await;
        let Some((cluster, operation)) = self.shared.records.at_work(&self.name).await? else {
            return Ok(false);
        };
        let mut operation = self.unless_it_failed(operation);
        self.take_standstill(&mut operation).await?;
        let is_other = operation.as_ref().map(|it| &it.id) != self.operation.as_ref().map(|it| &it.id);
        if is_other {
            self.tell_of_the_end_before(operation.as_ref()).await;
            // A person has asked for it, and may have mended what was in the way.
            (self.starts, self.drains, self.converged) = (Starts::default(), BTreeMap::new(), None);
        }
        self.operation.clone_from(&operation);
        if let Some(operation) = operation.as_ref().filter(|_| is_other) {
            self.announce(&cluster, operation);
        }
        if cluster.state == ClusterState::Removing {
            let removed = self.remove_cluster(&cluster, operation.as_ref()).await;
            if let Err(trouble) = &removed {
                self.last_trouble = Some(trouble.failure().clone());
                self.observe_anew().await;
                let observed = self.observed(&cluster);
                self.publish(&cluster, &observed, operation.as_ref()).await?;
            }
            return removed.map(|is_gone| !is_gone);
        }
        let result = match self.image(&cluster) {
            Ok(image) => self.converge(&cluster, operation.as_ref(), &image).await,
            Err(failure) => self.converge_without_image(&cluster, operation.as_ref(), failure).await,
        };
        self.last_trouble = result.as_ref().err().map(|trouble| trouble.failure().clone());
        if result.is_err() {
            self.observe_anew().await;
        }
        // Published even when something failed, from what is known by then.
        let record = self.shared.records.cluster(&self.name).await?.unwrap_or(cluster);
        let observed = self.observed(&record);
        let running = self.shared.records.running_operation(&record.id).await?;
        let running = self.unless_it_failed(running);
        self.publish(&record, &observed, running.as_ref()).await?;
        result?;
        self.troubled_since = None;
        self.next_deadline = None;
        // One that has begun meanwhile is judged by a look of its own.
        if let Some(operation) = running.filter(|it| is_one(&self.operation, it)) {
            self.judge(&record, &observed, &operation).await?;
        }
        Ok(true)
    }

    /// While the host stands still, nobody is late: an operation has that much longer, and VMs are silent only from then on.
    /// Where its clock was set back, an operation is to end that much earlier by it, unless somebody has put that off since
    /// the last look.
    pub(super) async fn take_standstill(
        &mut self,
        operation: &mut Option<OperationRecord>,
    ) -> Result<(), RecordError> {
        let now = jiff::Timestamp::now();
        let Some(lost) = self.pace.stood_still(now, Instant::now()) else { return Ok(()) };
        tracing::info!(cluster.name = %self.name, lost = ?lost, "the host stood still");
        self.woke = Some(now);
        let Some(running) = operation else { return Ok(()) };
        let until = running.deadline.checked_add(lost).unwrap_or(running.deadline);
        let moved = if lost.is_positive() {
            self.shared.records.extend_deadline(&running.id, until).await?
        } else if let Some(before) = self.operation.as_ref().filter(|before| before.id == running.id) {
            self.shared.records.set_deadline(&running.id, before.deadline, until).await?
        } else {
            None
        };
        if let Some(moved) = moved {
            self.shared.publish_record(&moved, Vec::new());
            *operation = Some(moved);
        }
        Ok(())
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
                format!(
                    "build it again from the bundle of Kubernetes {}: `k8sctl bundle list`, then \
                     `k8sctl image build --bundle NAME`",
                    cluster.kubernetes
                ),
            )
        })
    }

    /// Also of a damaged image, while its description can be read.
    fn image_facts(&self, cluster: &ClusterRecord) -> Option<ImageFacts> {
        self.shared.images.container_images(&cluster.image_id).map(|images| image_facts(&images))
    }

    async fn converge(
        &mut self,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
        image: &Image,
    ) -> Result<(), Trouble> {
        let up = operation.filter(|operation| operation.kind == OperationKind::Up);
        let host = self.converge_host(cluster, image, up).await;
        // The next look has another operation, and perhaps another spec.
        if matches!(host, Ok(false)) {
            return Ok(());
        }
        if let Some(up) = up {
            host?;
            self.converge_nodes(cluster).await?;
            self.converge_plugins(cluster, up).await?;
            return self.remove_nodes(cluster, image, up).await;
        }
        // What is wrong with one VM, or with libvirt, is no reason to leave the agents alone.
        let nodes = self.converge_nodes(cluster).await;
        host.map(|_| ()).and(nodes)
    }

    /// No operation can reach its goal. Without one VMs are started all the same, and agents are left no more alone than
    /// they must.
    async fn converge_without_image(
        &mut self,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
        failure: Failure,
    ) -> Result<(), Trouble> {
        let host = match operation {
            Some(_) => Ok(true),
            None => self.start_vms(cluster).await,
        };
        // The next look has an operation.
        if matches!(host, Ok(false)) {
            return Ok(());
        }
        let nodes = self.converge_nodes(cluster).await;
        host.map(|_| ()).and(nodes).and(Err(failure.into()))
    }

    /// Agents and Kubernetes: ports, sessions, and with the image's facts what each node shall be.
    async fn converge_nodes(&mut self, cluster: &ClusterRecord) -> Result<(), Trouble> {
        let pki = self.shared.pki.open(cluster)?;
        self.open_listener(cluster).await?;
        self.open_ports(cluster).await?;
        if self.kubernetes.as_ref().is_some_and(Kubernetes::is_old) {
            self.kubernetes = None;
        }
        if self.kubernetes.is_none() && !self.shared.config.simulated_kubernetes {
            let kubernetes = Kubernetes::connect(&pki.admin_kubeconfig(cluster)?).await?;
            self.kubernetes_view = Some(kubernetes.view());
            self.kubernetes = Some(kubernetes);
        }
        self.keep_plugins(cluster);
        let looked = self.look_at_plugins(cluster).await;
        let observed = self.observed(cluster);
        // To nodes of which it is not known what plugins need of them, nothing is said: they would undo it.
        let (Some(facts), Some(seen)) = (self.image_facts(cluster), &self.plugins) else { return looked };
        let address =
            self.listener.as_ref().map(|listener| listener.address().to_string()).unwrap_or_default();
        let neighbours = neighbours(cluster);
        if *self.neighbours != neighbours {
            self.neighbours = Arc::new(neighbours);
        }
        let processors = accelerator::at_once();
        let present = cluster.nodes.iter().filter(|node| node.state == NodeState::Present);
        for (place, node) in present.enumerate() {
            // Of many nodes this takes a while, in which others, such as those who join, have their turn.
            if place % NODES_AT_ONCE == NODES_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let files = pki.node_files(cluster, node)?;
            let target = progress::node_target(cluster, node, &observed);
            let needs = Self::requirements(cluster, node, seen);
            let desired = DesiredState {
                processors,
                ..desired_state(cluster, node, &facts, files, target, address.clone(), needs)
            };
            self.shared.registry.set_desired(&node.id, Wanted::new(desired, Arc::clone(&self.neighbours)));
        }
        self.tell_of_handover(cluster, &observed);
        self.introduce_nodes(cluster, &observed.kubernetes).await?;
        self.move_pods(cluster, &observed.kubernetes).await?;
        looked
    }

    /// The TLS port of this cluster's node agents, as soon as the bridge is there.
    async fn open_listener(&mut self, cluster: &ClusterRecord) -> Result<(), Trouble> {
        if let Some(listener) = self.listener.as_ref().filter(|listener| listener.is_open()) {
            listener.set_nodes(cluster);
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let _one_at_a_time = shared.node_ports.lock().await;
        let all = shared.records.clusters().await?;
        let listener = NodeListener::open(&shared, cluster, &all).await?;
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
                None => match self.shared.hypervisor.join_channel(&domain_ref(cluster, node)).await? {
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
        // An API that is away is waited for; what was read of it before says nothing of now.
        let Some(kubernetes) = self.kubernetes.as_ref().filter(|_| view.reachable) else { return Ok(()) };
        for node in &cluster.nodes {
            let Some(seen) = view.nodes.get(&node.name) else { continue };
            if seen.draining && node.state == NodeState::Present {
                kubernetes.uncordon(&node.name).await?;
            }
            if seen.pod_cidr.is_none() {
                let cidr = super::desired::node_pod_cidr(cluster.spec.network.pods, node.pod_index);
                kubernetes.introduce_node(&node.spec, &cidr.to_string()).await?;
            }
        }
        Ok(())
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

/// Whether an operation is this one.
fn is_one(this: &Option<OperationRecord>, operation: &OperationRecord) -> bool {
    this.as_ref().is_some_and(|this| this.id == operation.id)
}

/// How long changes are gathered after a look that took so long.
fn rest_after(took: Duration, is_awaited: bool) -> Duration {
    if is_awaited { SETTLE } else { took.saturating_mul(REST).clamp(SETTLE, LONGEST_REST) }
}

/// The time until then, nothing where it has passed.
fn until(then: jiff::Timestamp) -> Duration {
    Duration::try_from(then.duration_since(jiff::Timestamp::now())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_take_long_are_rarer_unless_somebody_waits() {
        let rest = |millis, is_awaited| rest_after(Duration::from_millis(millis), is_awaited).as_millis();
        assert_eq!([1, 5, 30, 100, 5_000].map(|took| rest(took, false)), [50, 150, 900, 3_000, 3_000]);
        assert_eq!([1, 5_000].map(|took| rest(took, true)), [50, 50]);
    }
}
