//! Plan, apply, destroy, and everything that watches a cluster.

use std::sync::Arc;
use std::time::Duration;

use k8sctl_proto::control::v1 as control;
use k8sctl_proto::control::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use super::queue::{Queues, caller};
use super::roles::caller_role;
use super::{NEWEST, Reply, broken, events, refused, stream, stream_of};
use crate::cluster::agents::AgentUpgrade;
use crate::cluster::manager::{Manager, RequestError};
use crate::logs::LogReaders;
use crate::nodes::agent_file::AgentFile;
use crate::records::RecordError;
use crate::wire;

/// Responses with lines of logs on their way to one slow client; each may be large.
const LOG_RESPONSES: usize = 2;

/// See [`ClusterService`].
#[derive(Debug)]
pub(super) struct Clusters {
    manager: Arc<Manager>,
    queues: Queues,
    log_readers: LogReaders,
    /// Held by whoever replaces agents.
    upgrade: Arc<tokio::sync::Mutex<()>>,
}

impl Clusters {
    pub(super) fn new(manager: Arc<Manager>, queues: Queues) -> Self {
        Self { manager, queues, log_readers: LogReaders::default(), upgrade: Arc::default() }
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(failure) => refused(&failure),
            RequestError::Records(error @ RecordError::Damaged { .. }) => refused(&error.failure()),
            RequestError::Records(error) => broken(&error),
            RequestError::Diagnostics(_) => {
                unreachable!("every method that parses a spec answers its diagnostics itself")
            }
        }
    }
}

#[tonic::async_trait]
impl ClusterService for Clusters {
    async fn plan(
        &self,
        request: Request<control::PlanRequest>,
    ) -> Result<Response<control::PlanResponse>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let spec = request.into_inner().spec.unwrap_or_default();
        let plan = async move { manager.plan_up(&spec).await };
        let response = match self.queues.plans.run("plan", uid, plan).await? {
            Ok(planned) => control::PlanResponse {
                diagnostics: planned.warnings.into_iter().map(wire::diagnostic).collect(),
                plan: Some(planned.plan),
            },
            Err(RequestError::Diagnostics(all)) => control::PlanResponse {
                diagnostics: all.into_iter().map(wire::diagnostic).collect(),
                plan: None,
            },
            Err(other) => return Err(other.into()),
        };
        Ok(Response::new(response))
    }

    async fn apply(
        &self,
        request: Request<control::ApplyRequest>,
    ) -> Result<Response<control::ApplyResponse>, Status> {
        let (uid, role) = (caller(&request), caller_role(&request));
        let control::ApplyRequest { spec, plan_digest, allow_destructive, deadline } = request.into_inner();
        let spec = spec.unwrap_or_default();
        let deadline = deadline.and_then(|d| Duration::try_from(d).ok());
        let manager = Arc::clone(&self.manager);
        let apply =
            async move { manager.apply(&spec, &plan_digest, allow_destructive, deadline, role).await };
        let response = match self.queues.plans.run("apply", uid, apply).await? {
            Ok(applied) => control::ApplyResponse {
                diagnostics: applied.warnings.into_iter().map(wire::diagnostic).collect(),
                operation_id: applied.operation_id.unwrap_or_default(),
                attached: applied.attached,
                no_changes: applied.no_changes,
            },
            Err(RequestError::Diagnostics(all)) => control::ApplyResponse {
                diagnostics: all.into_iter().map(wire::diagnostic).collect(),
                ..control::ApplyResponse::default()
            },
            Err(other) => return Err(other.into()),
        };
        Ok(Response::new(response))
    }

    async fn plan_destroy(
        &self,
        request: Request<control::PlanDestroyRequest>,
    ) -> Result<Response<control::PlanDestroyResponse>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let name = request.into_inner().cluster_name;
        let plan = async move { manager.plan_down(&name).await };
        let plan = self.queues.plans.run("plan-destroy", uid, plan).await??;
        Ok(Response::new(control::PlanDestroyResponse { plan: Some(plan) }))
    }

    async fn destroy(
        &self,
        request: Request<control::DestroyRequest>,
    ) -> Result<Response<control::DestroyResponse>, Status> {
        let uid = caller(&request);
        let control::DestroyRequest { cluster_name, plan_digest, deadline } = request.into_inner();
        let deadline = deadline.and_then(|d| Duration::try_from(d).ok());
        let manager = Arc::clone(&self.manager);
        let destroy = async move { manager.destroy(&cluster_name, &plan_digest, deadline).await };
        let operation_id = self.queues.plans.run("destroy", uid, destroy).await??;
        Ok(Response::new(control::DestroyResponse { operation_id }))
    }

    type WatchOperationStream = Reply<control::WatchOperationResponse>;

    async fn watch_operation(
        &self,
        request: Request<control::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = request.into_inner().operation_id;
        // Subscribed before reading: what changes in between is seen.
        let manager = Arc::clone(&self.manager);
        let mut operations = manager.operations();
        let first = manager.operation(&id).await?;
        let reply = stream_of("watch-operation", NEWEST, |sender| async move {
            let (mut last, mut operation) = (None, first);
            loop {
                if Some(&operation) != last.as_ref() {
                    let ended = operation.state() != control::OperationState::Running;
                    last = Some(operation.clone());
                    let response = control::WatchOperationResponse { operation: Some(operation) };
                    if sender.send(Ok(response)).await.is_err() || ended {
                        return Ok(());
                    }
                }
                tokio::select! {
                    // Cancel-safe: an unseen change stays unseen.
                    changed = operations.changed() => if changed.is_err() { return Ok(()) },
                    () = sender.closed() => return Ok(()),
                }
                // From the records where it ended so long ago that it is published no more.
                operation = manager.operation(&id).await?;
            }
        });
        Ok(Response::new(reply))
    }

    async fn list_clusters(
        &self,
        request: Request<control::ListClustersRequest>,
    ) -> Result<Response<control::ListClustersResponse>, Status> {
        let manager = Arc::clone(&self.manager);
        let list = async move { manager.summaries().await };
        let clusters = self.queues.reads.run("list-clusters", caller(&request), list).await??;
        Ok(Response::new(control::ListClustersResponse { clusters }))
    }

    type WatchStatusStream = Reply<control::WatchStatusResponse>;

    async fn watch_status(
        &self,
        request: Request<control::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let request = request.into_inner();
        let name = request.cluster_name.clone();
        let find = async move { manager.find(&name).await };
        let record = self.queues.reads.run("find-cluster", uid, find).await??;
        // Its first look may take a while: nobody's turn waits for that.
        let mut status = self.manager.status_of(&record).await;
        let reply = stream_of("watch-status", NEWEST, |sender| async move {
            loop {
                let snapshot = status.borrow_and_update().clone();
                let response = control::WatchStatusResponse { status: Some(snapshot) };
                if sender.send(Ok(response)).await.is_err() || !request.watch {
                    return Ok(());
                }
                tokio::select! {
                    // Cancel-safe: an unseen change stays unseen. It errs when the cluster is gone.
                    changed = status.changed() => if changed.is_err() { return Ok(()) },
                    () = sender.closed() => return Ok(()),
                }
            }
        });
        Ok(Response::new(reply))
    }

    type StreamEventsStream = Reply<control::StreamEventsResponse>;

    async fn stream_events(
        &self,
        request: Request<control::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let request = request.into_inner();
        let open = async move { events::open(&manager, request).await };
        Ok(Response::new(self.queues.reads.run("open-events", uid, open).await??))
    }

    async fn get_kubeconfig(
        &self,
        request: Request<control::GetKubeconfigRequest>,
    ) -> Result<Response<control::GetKubeconfigResponse>, Status> {
        let kubeconfig_yaml = self.manager.kubeconfig(&request.get_ref().cluster_name).await?;
        Ok(Response::new(control::GetKubeconfigResponse { kubeconfig_yaml }))
    }

    type StreamLogsStream = Reply<control::StreamLogsResponse>;

    async fn stream_logs(
        &self,
        request: Request<control::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let (uid, request) = (caller(&request), request.into_inner());
        let (readers, manager) = (self.log_readers.clone(), Arc::clone(&self.manager));
        let open = async move { readers.open(&manager, request).await };
        let logs = self.queues.reads.run("open-logs", uid, open).await??;
        let reply = stream_of("stream-logs", LOG_RESPONSES, |sender| logs.run(sender));
        Ok(Response::new(reply))
    }

    type UpgradeAgentsStream = Reply<control::UpgradeAgentsResponse>;

    async fn upgrade_agents(
        &self,
        request: Request<control::UpgradeAgentsRequest>,
    ) -> Result<Response<Self::UpgradeAgentsStream>, Status> {
        let control::UpgradeAgentsRequest { cluster_name, node_names, session_deadline } =
            request.into_inner();
        let session = session_deadline.and_then(|it| Duration::try_from(it).ok());
        let (shared, record) = (self.manager.shared(), self.manager.find(&cluster_name).await?);
        let file = AgentFile::new(&self.manager.config().node_agent);
        let alone = Arc::clone(&self.upgrade);
        let upgrade = AgentUpgrade::plan(shared, &record, &node_names, session, &file, alone).await?;
        Ok(Response::new(stream("upgrade-agents", |sender| upgrade.run(sender))))
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};
    use k8sctl_rpc::status::failure_from;
    use tonic::Code;

    use super::super::queue::NOBODY;
    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC, spec_file};

    /// As it is when the client's connection ends in the middle of a call.
    fn cut<T>(call: impl Future<Output = T>) {
        assert!(call.now_or_never().is_none(), "it was answered at once");
    }

    #[tokio::test]
    async fn what_was_asked_for_is_done_though_the_client_is_gone() {
        let agent = FakeHostAgent::new().await;
        let clusters = Clusters::new(agent.start().await, Queues::default());
        let spec = spec_file(SPEC, "cluster.toml");
        cut(clusters.apply(Request::new(control::ApplyRequest {
            spec: Some(spec),
            ..control::ApplyRequest::default()
        })));
        agent.wait_host("the VMs are there", |host| host.observed.domains.len() == 2).await;
        let request = control::DestroyRequest { cluster_name: "home".to_owned(), ..Default::default() };
        cut(clusters.destroy(Request::new(request)));
        agent.wait_host("they are gone", |host| host.observed.domains.is_empty()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_waits_for_its_turn_and_what_is_only_read_does_not() {
        let agent = FakeHostAgent::new().await;
        let queues = Queues::default();
        let clusters = Clusters::new(agent.start().await, queues.clone());
        let plan = || clusters.plan(Request::new(control::PlanRequest::default()));
        let turn = queues.plans.turn(NOBODY).await.expect("nobody has it");
        let refused = plan().await.expect_err("the one before takes too long");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(failure_from(&refused).map(|failure| failure.id).as_deref(), Some("HOST-BUSY"));
        let list = clusters.list_clusters(Request::new(control::ListClustersRequest::default()));
        list.await.expect("it is no plan");
        drop(turn);
        plan().await.expect("its turn has come");
    }

    #[tokio::test]
    async fn the_end_of_what_is_published_no_more_is_in_the_records() {
        let agent = FakeHostAgent::new().await;
        let clusters = Clusters::new(agent.start().await, Queues::default());
        let begun = agent.begin(agent.generation(SPEC).await).await;
        agent.shared.publish_record(&begun, Vec::new());
        let request = control::WatchOperationRequest { operation_id: begun.id.clone() };
        let watch = clusters.watch_operation(Request::new(request)).await;
        let mut watch = watch.expect("it is there").into_inner();
        for (ends, expected) in
            [(false, control::OperationState::Running), (true, control::OperationState::Succeeded)]
        {
            if ends {
                agent.shared.records.finish_operation(&begun.id, None).await.expect("writes");
                agent.shared.operations.send_modify(|all| drop(all.remove(&begun.id)));
            }
            let told = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("in time");
            let told = told.expect("it is told").expect("it is well").operation.expect("it is there");
            assert_eq!(told.state(), expected);
        }
    }
}
