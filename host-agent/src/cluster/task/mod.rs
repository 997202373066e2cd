//! The one owner of one cluster: reads what shall be and what is, acts, publishes, and waits for the next change.
//!
//! Level-triggered: a wake-up carries no hint, so what a kill or a missed event left undone is found by the next
//! look. Changes to the host are made only on behalf of an operation, but for starting VMs that shall run.

mod mandate;
mod removal;
mod report;
mod starts;
mod trouble;

use std::collections::{BTreeMap, HashMap};
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

use super::consent::refuse_unagreed;
use super::crash;
use super::desired::{desired_host, desired_state, host_pool, image_facts};
use super::planning::stored_adoption;
use super::progress::{self, Observed};
use super::shared::Shared;
use crate::kubernetes::{Kubernetes, KubernetesView};
use crate::nodes::channel::{OfferTemplate, PortPath, serve_port};
use crate::nodes::listener::NodeListener;
use crate::records::{ClusterRecord, ClusterState, NodeRecord, NodeState, OperationKind, OperationRecord};
use mandate::Doings;
use removal::Drain;
use starts::Starts;
use trouble::Trouble;

/// Everything is read again after this time, whatever events say.
const RESYNC: Duration = Duration::from_secs(10);
/// Changes that come close together are taken as one.
const SETTLE: Duration = Duration::from_millis(50);

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
    since: jiff::Timestamp,
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
    powered_on: BTreeMap<String, PoweredOn>,
    /// The operation of the last look.
    operation: Option<OperationRecord>,
    /// The last one that failed, where the records could not be written then: they still have it as running.
    unwritten: Option<OperationRecord>,
    starts: Starts,
    doings: Doings,
    drains: BTreeMap<String, Drain>,
    /// Since when looks fail without a break, and on behalf of which operation.
    troubled_since: Option<(Instant, String)>,
    /// Why the last look failed.
    last_trouble: Option<Failure>,
    /// When to look again at the latest, because a deadline passes then.
    next_deadline: Option<jiff::Timestamp>,
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
            operation: None,
            unwritten: None,
            starts: Starts::default(),
            doings: Doings::default(),
            drains: BTreeMap::new(),
            troubled_since: None,
            last_trouble: None,
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
        self.write_down_failure().await;
        let Some((cluster, operation)) = self.shared.records.at_work(&self.name).await? else {
            return Ok(false);
        };
        let operation = self.unless_it_failed(operation);
        if operation.as_ref().map(|it| &it.id) != self.operation.as_ref().map(|it| &it.id) {
            // A person has asked for it, and may have mended what was in the way.
            (self.starts, self.drains) = (Starts::default(), BTreeMap::new());
        }
        self.operation.clone_from(&operation);
        if cluster.state == ClusterState::Removing {
            let removed = self.remove_cluster(&cluster).await;
            if let Err(trouble) = &removed {
                self.last_trouble = Some(trouble.failure().clone());
                let observed = self.observed(&cluster);
                self.publish(&cluster, &observed, operation.as_ref()).await?;
            }
            return removed.map(|()| false);
        }
        let result = match self.image(&cluster) {
            Ok(image) => self.converge(&cluster, operation.as_ref(), &image).await,
            // Running VMs keep what they have, and so do their agents.
            Err(failure) => self.converge_nodes(&cluster, None).await.and(Err(failure.into())),
        };
        self.last_trouble = result.as_ref().err().map(|trouble| trouble.failure().clone());
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
            self.converge_nodes(cluster, Some(image)).await?;
            return self.remove_nodes(cluster, image, up).await;
        }
        // What is wrong with one VM, or with libvirt, is no reason to leave the agents alone.
        let nodes = self.converge_nodes(cluster, Some(image)).await;
        host.map(|_| ()).and(nodes)
    }

    /// Agents and Kubernetes: ports, sessions, and with the image's facts what each node shall be.
    async fn converge_nodes(
        &mut self,
        cluster: &ClusterRecord,
        image: Option<&Image>,
    ) -> Result<(), Trouble> {
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
        let observed = self.observed(cluster);
        let Some(facts) = image.map(image_facts) else { return Ok(()) };
        let address =
            self.listener.as_ref().map(|listener| listener.address().to_string()).unwrap_or_default();
        for node in cluster.nodes.iter().filter(|node| node.state == NodeState::Present) {
            let files = pki.node_files(cluster, node)?;
            let target = progress::node_target(cluster, node, &observed);
            let desired = desired_state(cluster, node, &facts, files, target, address.clone());
            self.shared.registry.set_desired(&node.id, desired);
        }
        self.introduce_nodes(cluster, &observed.kubernetes).await
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

    /// Makes the host as the cluster needs it, as far as that was agreed to; without an operation only VMs that shall
    /// run are started, with the network and the pool that they need. `false` means: another operation has begun
    /// meanwhile, and the rest is left to its look.
    async fn converge_host(
        &mut self,
        cluster: &ClusterRecord,
        image: &Image,
        up: Option<&OperationRecord>,
    ) -> Result<bool, Trouble> {
        let shared = Arc::clone(&self.shared);
        let _one_at_a_time = shared.host.lock().await;
        // Others had it for minutes.
        if !self.is_at_work(cluster, up).await? {
            return Ok(false);
        }
        let observed = self.observe_host().await?;
        self.note_power(cluster, &observed);
        let agents = self.observed(cluster);
        let powered = |node: &NodeRecord| shall_run(cluster, node, &observed, &agents);
        let desired = desired_host(&shared.config, cluster, image, observed.accelerator, powered);
        let adopted = stored_adoption(&shared.records).await?;
        let plan = plan_host(&desired, &observed, &adopted)?;
        let mut changes = plan.changes;
        match up {
            Some(up) => refuse_unagreed(cluster, up, &self.doings.unsettled(up), &changes)?,
            None => changes.retain(|change| only_starts(&change.op, &observed)),
        }
        let now = Instant::now();
        changes.retain(|change| started(&change.op).is_none_or(|name| self.starts.may(name, now)));
        if up.is_some() && plan.adoption != adopted {
            crash::point("before-store-adoption");
            let record = serde_json::to_value(&plan.adoption).expect("an adoption has string keys only");
            shared.records.set_adoption(&record).await?;
            crash::point("after-store-adoption");
        }
        if !changes.is_empty() {
            self.host = None;
            if changes.iter().any(|change| matches!(change.op, HostOp::InstallFile { .. })) {
                let (images, id) = (shared.images.clone(), image.id.clone());
                let read = tokio::task::spawn_blocking(move || images.verify(&id)).await;
                read.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
            }
            for name in changes.iter().filter_map(|change| started(&change.op)) {
                self.starts.note(name, now);
            }
        }
        let all_done = self.carry_out(cluster, up, &changes).await?;
        let observed = self.observe_host().await?;
        self.note_power(cluster, &observed);
        Ok(all_done)
    }

    /// Takes in which VMs run, and in which run of theirs. With a run its join channel ends, and what its agent
    /// reported is void.
    fn note_power(&mut self, cluster: &ClusterRecord, observed: &ObservedHost) {
        for node in &cluster.nodes {
            let run = observed.domain(&node.name).and_then(|domain| domain.run);
            let known = self.powered_on.get(&node.id).map(|power| power.run);
            if run == known {
                continue;
            }
            if known.is_some() {
                self.powered_on.remove(&node.id);
                self.ports.remove(&node.id);
                self.shared.registry.reset(&node.id);
                if node.spec.role == Role::ControlPlane {
                    // Its connections lead to an API server that is gone; what was seen over them is void.
                    (self.kubernetes, self.kubernetes_view) = (None, None);
                }
            }
            if let Some(run) = run {
                let since = jiff::Timestamp::now();
                self.powered_on.insert(node.id.clone(), PoweredOn { run, since });
            }
        }
    }

    /// The TLS port of this cluster's node agents, as soon as the bridge is there.
    async fn open_listener(&mut self, cluster: &ClusterRecord) -> Result<(), Trouble> {
        if let Some(listener) = self.listener.as_ref().filter(|listener| listener.is_open()) {
            listener.set_nodes(cluster);
            return Ok(());
        }
        // One after the other: each sees the ports of those before it.
        let shared = Arc::clone(&self.shared);
        let _one_at_a_time = shared.host.lock().await;
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

/// The time until then, nothing where it has passed.
fn until(then: jiff::Timestamp) -> Duration {
    Duration::try_from(then.duration_since(jiff::Timestamp::now())).unwrap_or_default()
}

/// The VM that an effect starts.
fn started(op: &HostOp) -> Option<&str> {
    match op {
        HostOp::StartDomain { domain } => Some(&domain.name),
        _ => None,
    }
}

/// Whether an effect only starts what is defined already, or plugs it in again.
fn only_starts(op: &HostOp, host: &ObservedHost) -> bool {
    match op {
        HostOp::StartDomain { domain } => host.domain(&domain.name).is_some(),
        HostOp::StartNetwork { name } => host.networks.iter().any(|network| network.name == *name),
        HostOp::StartPool { .. } => host.pool.is_some(),
        HostOp::AttachTap { bridge, .. } => {
            host.networks.iter().any(|network| network.bridge.as_ref() == Some(bridge))
        }
        _ => false,
    }
}

/// Whether a VM shall run by now. The control plane comes first; the others wait while it needs the host's
/// processors for itself, unless the host has enough for all. One that is not off is not turned off for that.
fn shall_run(cluster: &ClusterRecord, node: &NodeRecord, host: &ObservedHost, agents: &Observed) -> bool {
    let is_on = host.domain(&node.name).is_some_and(|domain| domain.state != DomainState::Off);
    let wanted: u32 = cluster.nodes.iter().map(|node| node.spec.vcpus).sum();
    is_on
        || node.spec.role == Role::ControlPlane
        || wanted <= host.host_cpus
        || progress::control_plane_is_starting(cluster, agents)
}

#[cfg(test)]
mod tests {
    use host_hypervisor::change::DomainRef;
    use host_hypervisor::observed::ObservedNetwork;

    use super::*;

    /// A network that was undefined comes back with an `up` only; until then there is no bridge.
    #[test]
    fn without_an_operation_vms_go_back_onto_a_bridge_that_there_is() {
        let domain = DomainRef { name: "w".into(), uuid: "u".into(), cluster_id: "c".into() };
        let op = HostOp::AttachTap { domain, device: "vnet0".into(), bridge: "virbr0".into() };
        let network = serde_json::json!({
            "name": "default", "uuid": "n", "forward": "nat", "bridge": "virbr0", "active": false, "autostart": true,
            "ranges": [], "hosts": [],
        });
        let network: ObservedNetwork = serde_json::from_value(network).expect("it is one");
        let mut host = ObservedHost { networks: vec![network], ..ObservedHost::default() };
        assert!(only_starts(&op, &host));
        host.networks.clear();
        assert!(!only_starts(&op, &host));
    }
}
