//! Plan, apply, destroy, and everything that watches a cluster.

use std::sync::Arc;
use std::time::Duration;

use k8sctl_proto::control::v1 as control;
use k8sctl_proto::control::v1::cluster_service_server::ClusterService;
use k8sctl_types::failure::Failure;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::{Reply, broken, events, refused, stream};
use crate::cluster::manager::{Manager, RequestError};
use crate::records::RecordError;
use crate::wire;

/// Longest wait until a node that was asked for a log begins to push it.
const LOGS_ANSWER: Duration = Duration::from_secs(30);

/// See [`ClusterService`].
#[derive(Debug)]
pub(super) struct Clusters {
    pub(super) manager: Arc<Manager>,
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
        let spec = request.into_inner().spec.unwrap_or_default();
        let response = match self.manager.plan_up(&spec).await {
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
        let request = request.into_inner();
        let spec = request.spec.unwrap_or_default();
        let deadline = request.deadline.and_then(|d| std::time::Duration::try_from(d).ok());
        let applied =
            self.manager.apply(&spec, &request.plan_digest, request.allow_destructive, deadline).await;
        let response = match applied {
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
        let plan = self.manager.plan_down(&request.get_ref().cluster_name).await?;
        Ok(Response::new(control::PlanDestroyResponse { plan: Some(plan) }))
    }

    async fn destroy(
        &self,
        request: Request<control::DestroyRequest>,
    ) -> Result<Response<control::DestroyResponse>, Status> {
        let request = request.into_inner();
        let operation_id = self.manager.destroy(&request.cluster_name, &request.plan_digest).await?;
        Ok(Response::new(control::DestroyResponse { operation_id }))
    }

    type WatchOperationStream = Reply<control::WatchOperationResponse>;

    async fn watch_operation(
        &self,
        request: Request<control::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = request.into_inner().operation_id;
        // Subscribed before reading: what changes in between is seen.
        let mut operations = self.manager.operations();
        let first = self.manager.operation(&id).await?;
        let reply = stream("watch-operation", |sender| async move {
            let mut last = None;
            let mut current = Some(first);
            loop {
                if let Some(operation) = current.filter(|operation| Some(operation) != last.as_ref()) {
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
                current = operations.borrow_and_update().get(&id).cloned();
            }
        });
        Ok(Response::new(reply))
    }

    async fn list_clusters(
        &self,
        _request: Request<control::ListClustersRequest>,
    ) -> Result<Response<control::ListClustersResponse>, Status> {
        let clusters = self.manager.summaries().await?;
        Ok(Response::new(control::ListClustersResponse { clusters }))
    }

    type WatchStatusStream = Reply<control::WatchStatusResponse>;

    async fn watch_status(
        &self,
        request: Request<control::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let request = request.into_inner();
        let mut status = self.manager.status(&request.cluster_name).await?;
        let reply = stream("watch-status", |sender| async move {
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
        Ok(Response::new(events::open(&self.manager, request.into_inner()).await?))
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
        let request = request.into_inner();
        let selector = request.selector.unwrap_or_default();
        let node = request.node_names.first().cloned().unwrap_or_default();
        let mut reader = self.manager.open_logs(&request.cluster_name, &node, selector).await?;
        let reply = stream("stream-logs", |sender: mpsc::Sender<_>| async move {
            let failed = |reason: String| {
                let next = format!("check the node with `k8sctl status`, then try again: k8sctl logs {node}");
                refused(&Failure::new("NODE-LOGS", format!("node {node}"), reason, next))
            };
            let mut unanswered = std::pin::pin!(tokio::time::sleep(LOGS_ANSWER));
            let mut is_due = false;
            loop {
                let frame = tokio::select! {
                    // Cancel-safe: recv takes a frame only when it returns it.
                    frame = reader.frames.recv() => frame,
                    () = sender.closed() => return Ok(()),
                    () = &mut unanswered, if !is_due => {
                        is_due = true;
                        if reader.is_unclaimed() {
                            return Err(failed(format!("its agent has not answered within {LOGS_ANSWER:?}")));
                        }
                        continue;
                    }
                };
                let Some(frame) = frame else { return Ok(()) };
                if !frame.error.is_empty() {
                    return Err(failed(frame.error));
                }
                if sender.send(Ok(control::StreamLogsResponse { lines: frame.lines.into_iter().map(|line| control::ClusterLogLine { line: Some(line), ..Default::default() }).collect(), ..Default::default() })).await.is_err() {
                    return Ok(());
                }
            }
        });
        Ok(Response::new(reply))
    }
}
