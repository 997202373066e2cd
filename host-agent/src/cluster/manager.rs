//! All clusters of this host. Control services come in here; each cluster's own work is done by its
//! [task](super::task).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host_plugins::ClusterAccess;
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::roles::Role;
use k8sctl_rpc::task::Supervisor;
use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::Diagnostic;
use tokio::sync::{Notify, watch};

use super::consent::{approval, consent};
use super::planning::{self, PlannedUp, is_being_removed, is_same, plan_changed};
use super::shared::{Shared, wire_operation};
use super::status;
use super::task::{ClusterTask, Handle};
use crate::config::HostConfig;
use crate::events::{EventLog, NewEvent};
use crate::records::{
    Begun, ClusterRecord, ClusterState, NewGeneration, NodeState, OperationRecord, OperationState,
    RecordError,
};

mod exits;
#[cfg(test)]
mod tests;

/// How long a status may wait for the first look at its cluster after a start.
const FIRST_LOOK: Duration = Duration::from_secs(5);

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
    supervisor: Supervisor,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").finish_non_exhaustive()
    }
}

impl Manager {
    /// Takes up every cluster in the records, unfinished operations included.
    pub async fn start(shared: Arc<Shared>) -> Result<Arc<Self>, RecordError> {
        let (supervisor, exits) = Supervisor::new();
        let manager = Arc::new(Self { shared, tasks: Mutex::default(), supervisor });
        manager.take_up_all().await?;
        manager.tell_of_damage().await?;
        k8sctl_rpc::task::spawn("clusters", exits::take_up_again(Arc::downgrade(&manager), exits));
        Ok(manager)
    }

    async fn take_up_all(&self) -> Result<(), RecordError> {
        for cluster in self.shared.records.clusters().await? {
            self.handle(&cluster);
        }
        Ok(())
    }

    /// Clusters that cannot be taken up hold up no others. What ran for them ends: they have no task that would end it.
    async fn tell_of_damage(&self) -> Result<(), RecordError> {
        for cluster in self.shared.records.all_clusters().await?.1 {
            let failure = cluster.error.failure();
            tracing::error!(cluster.name = %cluster.name, error = %failure, "a cluster cannot be taken up");
            let event = NewEvent {
                object: format!("cluster {}", cluster.name),
                cluster: cluster.name,
                kind: EventType::RecordDamaged,
                message: format!("{}; {}", failure.reason, failure.next_step),
                warning: true,
            };
            if let Err(error) = self.shared.records.end_operation_of(&event.cluster, &failure).await {
                let error = k8sctl_rpc::chain(&error);
                tracing::error!(cluster.name = %event.cluster, error = %error, "cannot end its operation");
            }
            self.shared.events.record(event).await;
        }
        Ok(())
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
        self.handle_of(&cluster.name, || status::first_status(cluster))
    }

    fn handle_of(&self, name: &str, first: impl FnOnce() -> control::ClusterStatus) -> Handle {
        let mut tasks = self.lock();
        tasks.retain(|_, handle| !handle.is_gone());
        tasks
            .entry(name.to_owned())
            .or_insert_with(|| {
                let (status, receiver) = watch::channel(first());
                let wake = Arc::new(Notify::new());
                let task =
                    ClusterTask::new(Arc::clone(&self.shared), name.to_owned(), Arc::clone(&wake), status);
                self.supervisor.spawn(exits::task_name(name), task.run());
                Handle { wake, status: receiver }
            })
            .clone()
    }

    /// Makes a spec the desired one and begins its operation, or re-attaches to the running one, which gets as long as
    /// is asked for now. What plugins ask for is approved by an administrator only.
    pub async fn apply(
        &self,
        file: &control::SpecFile,
        seen_digest: &str,
        allow_destructive: bool,
        deadline: Option<Duration>,
        by: Role,
    ) -> Result<Applied, RequestError> {
        let started = jiff::Timestamp::now();
        let planned = planning::plan_up(&self.shared, file).await?;
        let PlannedUp { plan, warnings, spec, image, record, destroyed, plugins, pod_network } = planned;
        if let Some(record) = &record {
            let running = self.shared.running_operation(&record.id).await?;
            let is_same = is_same(record, &spec, &image, &plugins);
            if let Some(operation) = running.filter(|_| is_same) {
                self.extend(&operation, deadline).await?;
                // Also where whoever began it could not tell the task.
                self.handle(record).wake.notify_one();
                let operation_id = Some(operation.id);
                return Ok(Applied { warnings, operation_id, attached: true, no_changes: false });
            }
            let ready = status::leaves_nothing_to_ask_for(&self.handle(record).status.borrow());
            // An image that is gone keeps every look from its end until another one has taken its place.
            if plan.changes.is_empty() && is_same && ready {
                return Ok(Applied { warnings, operation_id: None, attached: false, no_changes: true });
            }
        }
        consent(&plan, seen_digest, allow_destructive)?;
        approval(&plan, by)?;
        for node in record.iter().flat_map(|record| &record.nodes) {
            if node.state == NodeState::Removing && spec.nodes.iter().any(|back| back.name == node.name) {
                // It comes back as another machine. Its record goes with the spec, and nobody looks for it then.
                self.shared.revoke(&node.id).await?;
            }
        }
        // From here on nobody need look for them where they lie now.
        self.shared.cluster_plugins.pin(&spec.plugins, &plugins).await?;
        let name = spec.name.clone();
        let default = self.shared.config.operation_deadline;
        let begun = self
            .shared
            .records
            .begin_up(NewGeneration {
                spec,
                kubernetes: image.kubernetes.to_string(),
                trial: image.trial,
                image_id: image.id,
                started,
                deadline: deadline_from_now(deadline.unwrap_or(default)),
                planned_on: record.as_ref().map(ClusterRecord::version),
                agreed: destroyed,
                plugins,
                pod_network,
            })
            .await?;
        let (operation, attached) = match begun {
            Begun::New(operation, superseded) => {
                super::crash::point("after-begin-up");
                self.tell_of(&operation, superseded).await;
                (operation, false)
            }
            // Somebody else has asked for the same since the plan was made.
            Begun::Runs(operation) => {
                self.extend(&operation, deadline).await?;
                self.tell_of(&operation, None).await;
                (operation, true)
            }
            Begun::BeingRemoved => return Err(is_being_removed(&name).into()),
            Begun::Overtaken => return Err(plan_changed(&name).into()),
        };
        Ok(Applied { warnings, operation_id: Some(operation.id), attached, no_changes: false })
    }

    /// Begins to remove a cluster, or re-attaches to that, which gets as long as is asked for now.
    pub async fn destroy(
        &self,
        name: &str,
        seen_digest: &str,
        deadline: Option<Duration>,
    ) -> Result<String, RequestError> {
        let record = self.find_named(name).await?;
        let running = self.shared.running_operation(&record.id).await?;
        if let Some(operation) = running.filter(|_| record.state == ClusterState::Removing) {
            self.extend(&operation, deadline).await?;
            self.handle(&record).wake.notify_one();
            return Ok(operation.id);
        }
        let plan = planning::plan_down(&self.shared, &record).await?;
        if !seen_digest.is_empty() && seen_digest != plan.digest {
            return Err(plan_changed(&record.name).into());
        }
        let default = self.shared.config.operation_deadline;
        let ends = deadline_from_now(deadline.unwrap_or(default));
        match self.shared.records.begin_down(&record, ends).await? {
            Begun::New(operation, superseded) => {
                super::crash::point("after-begin-down");
                self.tell_of(&operation, superseded).await;
                Ok(operation.id)
            }
            Begun::Runs(operation) => {
                self.extend(&operation, deadline).await?;
                self.tell_of(&operation, None).await;
                Ok(operation.id)
            }
            Begun::BeingRemoved | Begun::Overtaken => {
                // One that is gone by now is as unknown as one that never was.
                self.find(&record.name).await?;
                Err(plan_changed(&record.name).into())
            }
        }
    }

    /// Gives an operation that somebody follows from now on as long as they want to wait. Never less than it had: others
    /// wait for it, too.
    async fn extend(
        &self,
        operation: &OperationRecord,
        deadline: Option<Duration>,
    ) -> Result<(), RecordError> {
        let Some(deadline) = deadline else { return Ok(()) };
        let ends = deadline_from_now(deadline);
        if let Some(extended) = self.shared.records.extend_deadline(&operation.id, ends).await? {
            self.shared.publish_record(&extended, Vec::new());
        }
        Ok(())
    }

    /// Tells whoever watches the operation before that it has given way, and the cluster's task of the new one. It has
    /// begun, so that nothing that fails here is in its way.
    async fn tell_of(&self, operation: &OperationRecord, superseded: Option<Box<OperationRecord>>) {
        if let Some(superseded) = superseded {
            if let OperationState::Failed(failure) = &superseded.state {
                let event = NewEvent {
                    cluster: superseded.cluster.clone(),
                    object: failure.object.clone(),
                    kind: EventType::OperationFailed,
                    message: failure.to_string(),
                    // A person wanted it so.
                    warning: false,
                };
                self.shared.record_end(&superseded.id, event).await;
            }
            self.shared.publish_record(&superseded, Vec::new());
        }
        let name = &operation.cluster;
        let first = match self.shared.records.cluster(name).await {
            Ok(Some(record)) => status::first_status(&record),
            // It is gone by now, and its operation has ended.
            Ok(None) => return,
            // The task reads it again.
            Err(error) => {
                tracing::error!(cluster.name = %name, error = %k8sctl_rpc::chain(&error), "cannot read a cluster");
                control::ClusterStatus { name: name.clone(), ..control::ClusterStatus::default() }
            }
        };
        self.handle_of(name, || first).wake.notify_one();
    }

    /// What `up` with this spec would do.
    pub async fn plan_up(&self, file: &control::SpecFile) -> Result<PlannedUp, RequestError> {
        planning::plan_up(&self.shared, file).await
    }

    /// What `down` would remove.
    pub async fn plan_down(&self, name: &str) -> Result<control::Plan, RequestError> {
        planning::plan_down(&self.shared, &self.find_named(name).await?).await
    }

    /// All operations as last published; the last that have ended stay for a while.
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
        let (clusters, damaged) = self.shared.records.all_clusters().await?;
        // Their names are all that is known of them.
        let damaged = damaged.into_iter().map(|cluster| control::ClusterSummary {
            name: cluster.name,
            ..control::ClusterSummary::default()
        });
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
            .chain(damaged)
            .collect())
    }

    /// The live status of a cluster.
    pub async fn status(&self, name: &str) -> Result<watch::Receiver<control::ClusterStatus>, RequestError> {
        Ok(self.status_of(&self.find(name).await?).await)
    }

    /// The same of one that was found.
    pub async fn status_of(&self, record: &ClusterRecord) -> watch::Receiver<control::ClusterStatus> {
        let mut status = self.handle(record).status;
        if record.state == ClusterState::Removing {
            return status;
        }
        // The first look has been begun, and tells more than that: at once, where it has something to do.
        let told = |status: &control::ClusterStatus| {
            !status.operation_id.is_empty() || !status.conditions.is_empty()
        };
        let looked = status.wait_for(told);
        let _ = tokio::time::timeout(FIRST_LOOK, looked).await;
        status
    }

    /// The live status of every cluster that has a task, which are all that can be read.
    pub fn watches(&self) -> Vec<watch::Receiver<control::ClusterStatus>> {
        self.lock().values().filter(|handle| !handle.is_gone()).map(|handle| handle.status.clone()).collect()
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
        let images = self.shared.images.container_images(&record.image_id);
        let facts = super::desired::cluster_facts(&record, images.as_ref());
        Ok(ClusterAccess { cluster_id: record.id.clone(), cluster_name: record.name.clone(), client, facts })
    }

    /// The nodes of a cluster, and its live status, in which those are that come later.
    pub async fn members(
        &self,
        name: &str,
    ) -> Result<(ClusterRecord, watch::Receiver<control::ClusterStatus>), RequestError> {
        let record = self.find(name).await?;
        let mut status = self.handle(&record).status;
        status.mark_changed();
        Ok((record, status))
    }

    /// What is to be removed has a name: an empty one is a slip, and not the only cluster.
    async fn find_named(&self, name: &str) -> Result<ClusterRecord, RequestError> {
        if name.is_empty() {
            let next = "name the one that shall go: `k8sctl down NAME`";
            return Err(Failure::new("CLUSTER-WHICH", "this host", "no cluster is named", next).into());
        }
        self.find(name).await
    }

    /// The cluster of that name, or the only one.
    pub async fn find(&self, name: &str) -> Result<ClusterRecord, RequestError> {
        let (mut clusters, mut damaged) = self.shared.records.all_clusters().await?;
        let is_only = clusters.len() + damaged.len() == 1;
        if name.is_empty() && is_only && !clusters.is_empty() {
            return Ok(clusters.remove(0));
        }
        if let Some(found) = damaged.iter().position(|it| it.name == name || (name.is_empty() && is_only)) {
            return Err(damaged.remove(found).error.into());
        }
        let names = clusters.iter().map(|it| &it.name).chain(damaged.iter().map(|it| &it.name));
        let names = names.cloned().collect::<Vec<_>>().join(", ");
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
}

fn deadline_from_now(deadline: Duration) -> jiff::Timestamp {
    jiff::Timestamp::now().checked_add(deadline).unwrap_or(jiff::Timestamp::MAX)
}
