//! All clusters of this host. Control services come in here; each cluster's own work is done by its
//! [task](super::task).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host_artifacts::bundle::BundleStore;
use host_artifacts::image::{Image, ImageStore};
use host_hypervisor::Hypervisor;
use host_hypervisor::accelerator::Accelerator;
use host_hypervisor::adoption::Adoption;
use host_hypervisor::change::HostPlan;
use host_hypervisor::observed::ObservedHost;
use host_hypervisor::plan::{plan_host, plan_teardown};
use host_pki::join::JoinAuthority;
use host_plugins::{ClusterAccess, PluginHost};
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1::LogSelector;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::{self, ClusterSpec, Diagnostic, HostRoom, Parsed};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};

use super::desired::{desired_host, host_pool};
use super::task::{ClusterTask, Handle};
use crate::config::HostConfig;
use crate::events::EventLog;
use crate::nodes::registry::{LogReader, NodeRegistry};
use crate::pki::PkiStore;
use crate::records::{
    ClusterRecord, ClusterState, NewGeneration, NodeState, OperationState, RecordError, Records,
};
use crate::wire;

/// Everything that cluster tasks and services share.
pub struct Shared {
    /// The host agent's configuration.
    pub config: HostConfig,
    /// What must not be forgotten.
    pub records: Records,
    /// What happened.
    pub events: EventLog,
    /// libvirt.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Node agents.
    pub registry: Arc<NodeRegistry>,
    /// Node images.
    pub images: ImageStore,
    /// Bundles.
    pub bundles: BundleStore,
    /// Certificate authorities of each cluster.
    pub pki: PkiStore,
    /// Join tokens and node certificates.
    pub authority: Arc<JoinAuthority>,
    /// Plugins.
    pub plugins: PluginHost,
    /// Held while one cluster's plan for the host is made and carried out: two at once could undo each other.
    pub host: tokio::sync::Mutex<()>,
    /// Operations by id, as last published.
    pub operations: watch::Sender<BTreeMap<String, control::Operation>>,
}

impl Shared {
    /// Publishes an operation as the records have it now; without lines its last progress stays.
    pub async fn publish_operation(
        &self,
        id: &str,
        lines: Vec<control::Progress>,
    ) -> Result<(), RecordError> {
        let Some(record) = self.records.operation(id).await? else { return Ok(()) };
        self.operations.send_if_modified(|operations| {
            let kept = operations.get(id).map(|old| old.progress.clone()).filter(|_| lines.is_empty());
            let new = wire_operation(&record, kept.unwrap_or(lines));
            let changed = operations.get(id) != Some(&new);
            operations.insert(id.to_owned(), new);
            changed
        });
        Ok(())
    }
}

/// A request that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The spec has mistakes.
    #[error("the cluster file has {} mistakes", .0.len())]
    Diagnostics(Vec<Diagnostic>),
    /// It cannot be done, and the user can mend it.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The host agent's records cannot be used.
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// A plan with the warnings of its spec.
#[derive(Debug)]
pub struct PlannedUp {
    /// What would be done.
    pub plan: control::Plan,
    /// Warnings about the spec.
    pub warnings: Vec<Diagnostic>,
    spec: ClusterSpec,
    image: Image,
}

/// An accepted spec.
#[derive(Debug)]
pub struct Applied {
    /// Warnings about the spec.
    pub warnings: Vec<Diagnostic>,
    /// The operation to watch, unless there is nothing to do.
    pub operation_id: Option<String>,
    /// It was running already.
    pub attached: bool,
    /// All is as it should be.
    pub no_changes: bool,
}

/// See the module.
pub struct Manager {
    shared: Arc<Shared>,
    tasks: Mutex<HashMap<String, Handle>>,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").finish_non_exhaustive()
    }
}

impl Manager {
    /// Takes up every cluster in the records, unfinished operations included.
    pub async fn start(shared: Arc<Shared>) -> Result<Arc<Self>, RecordError> {
        let manager = Arc::new(Self { shared, tasks: Mutex::default() });
        for cluster in manager.shared.records.clusters().await? {
            manager.handle(&cluster);
        }
        Ok(manager)
    }

    /// The host agent's configuration.
    pub fn config(&self) -> &HostConfig {
        &self.shared.config
    }

    /// The event log.
    pub fn events(&self) -> &EventLog {
        &self.shared.events
    }

    /// What all tasks share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        // Only whole entries are inserted and removed, so what a panic leaves behind is sound.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of a cluster's task, started if there is none.
    fn handle(&self, cluster: &ClusterRecord) -> Handle {
        let mut tasks = self.lock();
        tasks.retain(|_, handle| !handle.is_gone());
        tasks
            .entry(cluster.name.clone())
            .or_insert_with(|| {
                let (status, receiver) = watch::channel(control::ClusterStatus {
                    name: cluster.name.clone(),
                    id: cluster.id.clone(),
                    generation: cluster.generation,
                    kubernetes_version: cluster.kubernetes.clone(),
                    image_id: cluster.image_id.clone(),
                    trial_bundle: cluster.trial,
                    ..control::ClusterStatus::default()
                });
                let wake = Arc::new(Notify::new());
                let task = ClusterTask::new(
                    Arc::clone(&self.shared),
                    cluster.name.clone(),
                    Arc::clone(&wake),
                    status,
                );
                k8sctl_rpc::task::spawn(format!("cluster-{}", cluster.name), task.run());
                Handle { wake, status: receiver }
            })
            .clone()
    }

    /// What `up` with this spec would do.
    pub async fn plan_up(&self, text: &str) -> Result<PlannedUp, RequestError> {
        let observed = self.shared.hypervisor.observe(&host_pool(&self.shared.config)).await;
        // Mistakes are told without libvirt too; with it, also what does not fit onto this host.
        let parsed = match &observed {
            Ok(host) => spec::parse_on(text, &room(host)),
            Err(_) => spec::parse(text),
        };
        let Parsed { spec, warnings } = parsed.map_err(RequestError::Diagnostics)?;
        let record = self.shared.records.cluster(&spec.name).await?;
        if record.as_ref().is_some_and(|record| record.state == ClusterState::Removing) {
            return Err(is_being_removed(&spec.name).into());
        }
        let image = self.choose_image(&spec, record.as_ref())?;
        if let Some(record) = &record {
            super::fixed::refuse_changes(record, &spec, &image.kubernetes.to_string())?;
        }
        let observed = observed?;

        let would_be =
            ClusterRecord::planned(&spec, record.as_ref(), &image.id, &image.kubernetes.to_string());
        let adoption = stored_adoption(&self.shared.records).await?;
        let desired = desired_host(&self.shared.config, &would_be, &image, observed.accelerator, |_| true);
        let host = plan_host(&desired, &observed, &adoption)?;
        let mut changes = node_changes(&would_be, record.as_ref());
        changes.extend(host.changes.iter().map(|change| wire_change(change, &would_be.id)));
        let plan = control::Plan {
            cluster_name: spec.name.clone(),
            digest: plan_digest(&changes),
            changes,
            notices: notices(&observed, &image, &spec),
            kubernetes_version: image.kubernetes.to_string(),
            image_id: image.id.clone(),
        };
        Ok(PlannedUp { plan, warnings, spec, image })
    }

    /// Makes a spec the desired one and begins its operation, or re-attaches to the running one.
    pub async fn apply(
        &self,
        text: &str,
        seen_digest: &str,
        allow_destructive: bool,
        deadline: Option<Duration>,
    ) -> Result<Applied, RequestError> {
        let planned = self.plan_up(text).await?;
        let PlannedUp { plan, warnings, spec, image } = planned;
        let record = self.shared.records.cluster(&spec.name).await?;
        if let Some(record) = &record {
            let running = self.shared.records.running_operation(&record.id).await?;
            if let Some(operation) = running.filter(|_| record.spec == spec && record.image_id == image.id) {
                let operation_id = Some(operation.id);
                return Ok(Applied { warnings, operation_id, attached: true, no_changes: false });
            }
            let ready = self.handle(record).status.borrow().conditions.iter().any(|condition| {
                condition.r#type == "Ready"
                    && condition.status() == k8sctl_proto::node::v1::ConditionStatus::True
            });
            if plan.changes.is_empty() && record.spec == spec && ready {
                return Ok(Applied { warnings, operation_id: None, attached: false, no_changes: true });
            }
        }
        consent(&plan, seen_digest, allow_destructive)?;
        let superseded = self.running(record.as_ref()).await?;
        let name = spec.name.clone();
        let default = self.shared.config.operation_deadline;
        let operation = self
            .shared
            .records
            .begin_up(NewGeneration {
                spec,
                kubernetes: image.kubernetes.to_string(),
                trial: image.trial,
                image_id: image.id,
                deadline: deadline_from_now(deadline.unwrap_or(default)),
            })
            .await?
            .ok_or_else(|| is_being_removed(&name))?;
        super::crash::point("after-begin-up");
        self.publish_ended(superseded).await?;
        self.wake(&operation.cluster).await?;
        Ok(Applied { warnings, operation_id: Some(operation.id), attached: false, no_changes: false })
    }

    /// What `down` would remove.
    pub async fn plan_down(&self, name: &str) -> Result<control::Plan, RequestError> {
        let record = self.find(name).await?;
        let observed = self.shared.hypervisor.observe(&host_pool(&self.shared.config)).await?;
        let host = teardown(&self.shared, &record, &observed).await?;
        let changes: Vec<_> = host.changes.iter().map(|change| wire_change(change, &record.id)).collect();
        Ok(control::Plan {
            cluster_name: record.name.clone(),
            digest: plan_digest(&changes),
            changes,
            kubernetes_version: record.kubernetes.clone(),
            image_id: record.image_id.clone(),
            ..control::Plan::default()
        })
    }

    /// Begins to remove a cluster, or re-attaches to that.
    pub async fn destroy(&self, name: &str, seen_digest: &str) -> Result<String, RequestError> {
        let record = self.find(name).await?;
        if record.state == ClusterState::Removing
            && let Some(operation) = self.shared.records.running_operation(&record.id).await?
        {
            return Ok(operation.id);
        }
        let plan = self.plan_down(&record.name).await?;
        if !seen_digest.is_empty() && seen_digest != plan.digest {
            return Err(plan_changed(&record.name).into());
        }
        let deadline = self.shared.config.operation_deadline;
        let superseded = self.running(Some(&record)).await?;
        let reason = "the cluster is being removed".to_owned();
        let operation = self.shared.records.begin_down(&record, deadline_from_now(deadline), reason).await?;
        super::crash::point("after-begin-down");
        self.publish_ended(superseded).await?;
        self.wake(&operation.cluster).await?;
        Ok(operation.id)
    }

    /// The id of a cluster's running operation.
    async fn running(&self, record: Option<&ClusterRecord>) -> Result<Option<String>, RecordError> {
        let Some(record) = record else { return Ok(None) };
        Ok(self.shared.records.running_operation(&record.id).await?.map(|operation| operation.id))
    }

    /// Tells whoever watches an operation that another has taken its place.
    async fn publish_ended(&self, superseded: Option<String>) -> Result<(), RecordError> {
        match superseded {
            Some(id) => self.shared.publish_operation(&id, Vec::new()).await,
            None => Ok(()),
        }
    }

    async fn wake(&self, cluster: &str) -> Result<(), RequestError> {
        if let Some(record) = self.shared.records.cluster(cluster).await? {
            self.handle(&record).wake.notify_one();
        }
        Ok(())
    }

    /// All operations as last published; ended ones stay while the host agent runs.
    pub fn operations(&self) -> watch::Receiver<BTreeMap<String, control::Operation>> {
        self.shared.operations.subscribe()
    }

    /// An operation, from memory or from the records.
    pub async fn operation(&self, id: &str) -> Result<control::Operation, RequestError> {
        if let Some(operation) = self.shared.operations.borrow().get(id) {
            return Ok(operation.clone());
        }
        let record = self.shared.records.operation(id).await?.ok_or_else(|| {
            Failure::new(
                "OPERATION-UNKNOWN",
                format!("operation {id}"),
                "there is no such operation",
                "look for the running one with `k8sctl status`",
            )
        })?;
        Ok(wire_operation(&record, Vec::new()))
    }

    /// One line per cluster.
    pub async fn summaries(&self) -> Result<Vec<control::ClusterSummary>, RequestError> {
        let clusters = self.shared.records.clusters().await?;
        Ok(clusters
            .iter()
            .map(|record| {
                let status = self.handle(record).status;
                let status = status.borrow();
                let ready = status.nodes.iter().filter(|node| node.phase == "Ready").count();
                control::ClusterSummary {
                    name: record.name.clone(),
                    id: record.id.clone(),
                    kubernetes_version: record.kubernetes.clone(),
                    nodes: record.nodes.len() as u32,
                    ready: ready as u32,
                }
            })
            .collect())
    }

    /// The live status of a cluster.
    pub async fn status(&self, name: &str) -> Result<watch::Receiver<control::ClusterStatus>, RequestError> {
        let record = self.find(name).await?;
        Ok(self.handle(&record).status)
    }

    /// A kubeconfig with a fresh administrator certificate.
    pub async fn kubeconfig(&self, name: &str) -> Result<String, RequestError> {
        let record = self.find(name).await?;
        Ok(self.shared.pki.open(&record)?.admin_kubeconfig(&record)?)
    }

    /// A running cluster for the plugin engine.
    pub async fn cluster_access(&self, name: &str) -> Result<ClusterAccess, RequestError> {
        let record = self.find(name).await?;
        let pki = self.shared.pki.open(&record)?;
        let kubeconfig = pki.admin_kubeconfig(&record)?;
        let unreachable = |error: crate::kubernetes::KubernetesError| {
            let next = "check the cluster with `k8sctl status`";
            Failure::new(
                "KUBERNETES-API",
                format!("cluster {}", record.name),
                k8sctl_rpc::chain(&error).to_string(),
                next,
            )
        };
        let client = crate::kubernetes::client(&kubeconfig).await.map_err(unreachable)?;
        let images = self.shared.images.list()?;
        let image = images.iter().find(|image| image.id == record.image_id);
        let facts = super::desired::cluster_facts(&record, image);
        Ok(ClusterAccess { cluster_id: record.id.clone(), client, facts })
    }

    /// Opens a log stream of a node.
    pub async fn open_logs(
        &self,
        cluster: &str,
        node: &str,
        selector: LogSelector,
    ) -> Result<LogReader, RequestError> {
        let clusters = self.shared.records.clusters().await?;
        let found = clusters
            .iter()
            .filter(|record| cluster.is_empty() || record.name == cluster)
            .flat_map(|record| &record.nodes)
            .find(|record| record.name == node);
        let Some(found) = found else {
            let names: Vec<&str> =
                clusters.iter().flat_map(|record| &record.nodes).map(|node| node.name.as_str()).collect();
            return Err(Failure::new(
                "NODE-UNKNOWN",
                format!("node {node}"),
                "no cluster has a node of that name",
                format!("the nodes are: {}", names.join(", ")),
            )
            .into());
        };
        Ok(self.shared.registry.open_logs(&found.id, selector).map_err(|error| {
            let next = "check it with `k8sctl status`; a node that is down keeps its logs until it is back";
            Failure::new("NODE-NOT-CONNECTED", format!("node {node}"), error.to_string(), next)
        })?)
    }

    /// The cluster of that name, or the only one.
    pub async fn find(&self, name: &str) -> Result<ClusterRecord, RequestError> {
        let mut clusters = self.shared.records.clusters().await?;
        if name.is_empty() && clusters.len() == 1 {
            return Ok(clusters.remove(0));
        }
        let names = clusters.iter().map(|c| c.name.clone()).collect::<Vec<_>>().join(", ");
        if let Some(found) = clusters.into_iter().find(|cluster| cluster.name == name) {
            return Ok(found);
        }
        let (reason, next) = match (names.is_empty(), name.is_empty()) {
            (true, _) => ("there is no cluster yet", "make one with `k8sctl up -f cluster.toml`".to_owned()),
            (false, true) => ("there are several clusters", format!("name one of: {names}")),
            (false, false) => ("there is no cluster of that name", format!("the clusters are: {names}")),
        };
        Err(Failure::new("CLUSTER-UNKNOWN", format!("cluster {name}"), reason, next).into())
    }

    /// The image for new nodes: that of the cluster while it fits, else the newest that fits.
    fn choose_image(
        &self,
        spec: &ClusterSpec,
        record: Option<&ClusterRecord>,
    ) -> Result<Image, RequestError> {
        let images = self.shared.images.list()?;
        let wanted = spec.kubernetes.as_ref().map(ToString::to_string);
        let fits = |image: &&Image| {
            wanted.as_ref().is_none_or(|version| image.kubernetes.to_string() == *version)
                && image.suite == spec.image.suite
        };
        let current =
            record.and_then(|record| images.iter().find(|image| image.id == record.image_id)).filter(fits);
        if let Some(image) = current {
            return Ok(image.clone());
        }
        if let Some(record) = record.filter(|old| wanted.as_ref().is_none_or(|v| *v == old.kubernetes)) {
            tracing::warn!(cluster.name = %record.name, image.id = %record.image_id, "the cluster's image is gone");
        }
        if let Some(image) = images
            .iter()
            .filter(fits)
            .max_by(|a, b| (!a.trial, &a.kubernetes, a.built).cmp(&(!b.trial, &b.kubernetes, b.built)))
        {
            return Ok(image.clone());
        }
        let mut damaged = self.shared.images.damaged().into_iter().filter(|image| {
            wanted.as_ref().is_none_or(|version| image.kubernetes.to_string() == *version)
                && image.suite == spec.image.suite
        });
        if let Some(damaged) = damaged.next() {
            return Err(damaged.failure.into());
        }
        Err(no_image(spec, wanted.as_deref(), &self.shared.bundles)?.into())
    }
}

fn is_being_removed(cluster: &str) -> Failure {
    Failure::new(
        "OPERATION-RUNNING",
        format!("cluster {cluster}"),
        "it is being removed",
        format!("wait for it with `k8sctl down {cluster}`, then try again"),
    )
}

fn no_image(spec: &ClusterSpec, wanted: Option<&str>, bundles: &BundleStore) -> Result<Failure, Failure> {
    let listing = bundles.list()?;
    let has_bundle = listing
        .bundles
        .iter()
        .any(|bundle| wanted.is_none_or(|version| bundle.manifest.kubernetes.to_string() == version));
    // What version a broken file has cannot be read from it; its name says.
    let broken = |failure: &&Failure| wanted.is_none_or(|version| failure.object.contains(version));
    if let Some(broken) = listing.broken.iter().find(broken).filter(|_| !has_bundle) {
        return Ok(broken.clone());
    }
    let suite = &spec.image.suite;
    Ok(match (has_bundle, wanted) {
        (true, wanted) => Failure::new(
            "IMAGE-MISSING",
            format!("node image {suite}"),
            wanted.map_or_else(
                || "no node image is built".to_owned(),
                |version| format!("no node image is built for Kubernetes {version}"),
            ),
            format!("build it with `k8sctl image build --suite {suite}`"),
        ),
        (false, Some(version)) => Failure::new(
            "BUNDLE-MISSING",
            format!("bundle {version}"),
            format!("the spec pins Kubernetes {version} and no bundle of it is installed"),
            format!("get it with `k8sctl bundle fetch --kubernetes {version}`, then `k8sctl image build`"),
        ),
        (false, None) => Failure::new(
            "BUNDLE-MISSING",
            "bundle",
            "no Kubernetes bundle is installed",
            "get one with `k8sctl bundle fetch`, then `k8sctl image build`",
        ),
    })
}

/// The changes that take a cluster off the host.
pub(super) async fn teardown(
    shared: &Shared,
    record: &ClusterRecord,
    observed: &ObservedHost,
) -> Result<HostPlan, RequestError> {
    let adoption = stored_adoption(&shared.records).await?;
    Ok(plan_teardown(&record.id, &host_pool(&shared.config), observed, &adoption))
}

/// What is changed in adopted networks.
pub(super) async fn stored_adoption(records: &Records) -> Result<Adoption, RequestError> {
    let stored = records.adoption().await?;
    if stored.is_null() {
        return Ok(Adoption::default());
    }
    serde_json::from_value(stored).map_err(|error| {
        let reason = format!("it cannot be read: {error}");
        let next = "restore the host agent's database from a backup";
        Failure::new("HOST-RECORD-DAMAGED", "record of adopted networks", reason, next).into()
    })
}

fn consent(plan: &control::Plan, seen_digest: &str, allow_destructive: bool) -> Result<(), Failure> {
    if !seen_digest.is_empty() && seen_digest != plan.digest {
        return Err(plan_changed(&plan.cluster_name));
    }
    let Some(change) = plan.changes.iter().find(|change| change.destructive) else { return Ok(()) };
    if allow_destructive {
        return Ok(());
    }
    Err(Failure::new(
        "PLAN-CONSENT",
        format!("{} {}", change.kind, change.name),
        format!("the plan would {} it: {}", wire_action_word(change.action()), change.reason),
        "look at `k8sctl plan`, then say so with `k8sctl up --yes`",
    ))
}

fn plan_changed(cluster: &str) -> Failure {
    Failure::new(
        "PLAN-CHANGED",
        format!("cluster {cluster}"),
        "the host changed since the plan was shown",
        "run the command again and look at the new plan",
    )
}

fn wire_action_word(action: control::Action) -> &'static str {
    match action {
        control::Action::Delete => "delete",
        control::Action::Replace => "replace",
        _ => "change",
    }
}

/// Changes to nodes as members of the cluster; what happens to their VMs is the host's plan.
fn node_changes(would_be: &ClusterRecord, before: Option<&ClusterRecord>) -> Vec<control::Change> {
    would_be
        .nodes
        .iter()
        .filter_map(|node| {
            let known = before.is_some_and(|record| {
                record.nodes.iter().any(|old| old.name == node.name && old.state == NodeState::Present)
            });
            let (action, reason, destructive) = match (node.state, known) {
                (NodeState::Present, true) => return None,
                (NodeState::Present, false) => (control::Action::Create, "joins the cluster", false),
                (NodeState::Draining | NodeState::Removing, _) => {
                    (control::Action::Delete, "is no longer in the file: drained and deleted", true)
                }
            };
            Some(control::Change {
                action: action.into(),
                kind: "kubernetes-node".to_owned(),
                name: node.name.clone(),
                reason: reason.to_owned(),
                destructive,
            })
        })
        .collect()
}

/// A change as the user sees it. Volumes carry the cluster's id in their names, which says nothing to a person and
/// is not decided yet when a new cluster is planned.
fn wire_change(change: &host_hypervisor::change::HostChange, cluster_id: &str) -> control::Change {
    use host_hypervisor::change::Action;
    let id_prefix = format!("{}-", cluster_id.replace('-', ""));
    let action = match change.action {
        Action::Create => control::Action::Create,
        Action::Update => control::Action::Update,
        Action::Replace => control::Action::Replace,
        Action::Delete => control::Action::Delete,
        Action::Adopt => control::Action::Adopt,
        Action::Release => control::Action::Release,
    };
    control::Change {
        action: action.into(),
        kind: change.kind.to_string(),
        name: change.name.strip_prefix(&id_prefix).unwrap_or(&change.name).to_owned(),
        reason: change.reason.clone(),
        destructive: change.destructive,
    }
}

fn plan_digest(changes: &[control::Change]) -> String {
    let mut hash = Sha256::new();
    for change in changes {
        hash.update(format!("{} {} {} {}\n", change.action, change.kind, change.name, change.reason));
    }
    hex::encode(hash.finalize())
}

fn room(host: &ObservedHost) -> HostRoom {
    HostRoom {
        memory_bytes: host.host_memory_bytes,
        cpus: host.host_cpus,
        free_disk_bytes: host.pool_free_bytes,
    }
}

fn notices(observed: &ObservedHost, image: &Image, spec: &ClusterSpec) -> Vec<String> {
    let mut notices = Vec::new();
    if observed.accelerator == Accelerator::Tcg {
        notices
            .push("no hardware virtualisation here: VMs are emulated, many times slower than KVM".to_owned());
    }
    if image.trial {
        notices.push(format!(
            "trial bundle, Kubernetes {}: for trying things out, not for use",
            image.kubernetes
        ));
    }
    for plugin in &spec.plugins {
        let name = &plugin.name;
        notices.push(format!("`up` installs no plugins; this one is added with: k8sctl plugin add {name}"));
    }
    notices
}

fn deadline_from_now(deadline: Duration) -> jiff::Timestamp {
    jiff::Timestamp::now().checked_add(deadline).unwrap_or(jiff::Timestamp::MAX)
}

/// An operation on the wire.
fn wire_operation(
    record: &crate::records::OperationRecord,
    progress: Vec<control::Progress>,
) -> control::Operation {
    let (state, failure) = match &record.state {
        OperationState::Running => (control::OperationState::Running, None),
        OperationState::Succeeded => (control::OperationState::Succeeded, None),
        OperationState::Failed(failure) => (control::OperationState::Failed, Some(wire::failure(failure))),
    };
    control::Operation {
        id: record.id.clone(),
        cluster_name: record.cluster.clone(),
        kind: record.kind.as_str().to_owned(),
        state: state.into(),
        started: Some(wire::timestamp(record.started)),
        finished: record.finished.map(wire::timestamp),
        progress,
        failure,
    }
}
