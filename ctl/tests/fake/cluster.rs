//! The fake's cluster service.

use k8sctl_proto::control::v1::cluster_service_server::ClusterService;
use k8sctl_proto::control::v1::*;
use k8sctl_types::failure::Failure;
use tonic::{Code, Request, Response, Status};

use super::{Answers, FakeHostAgent, Reply, broken, stream};

#[tonic::async_trait]
impl ClusterService for FakeHostAgent {
    async fn plan(&self, request: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        let plan = Some(answers.plan);
        Ok(Response::new(PlanResponse { diagnostics: answers.diagnostics, plan }))
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        if answers.changed_plans > 0 {
            self.answers.lock().unwrap().changed_plans -= 1;
            let failure = Failure::new("PLAN-CHANGED", "cluster home", "it has changed", "plan again");
            return Err(k8sctl_rpc::status::status(Code::FailedPrecondition, &failure));
        }
        Ok(Response::new(answers.apply))
    }

    async fn plan_destroy(
        &self,
        request: Request<PlanDestroyRequest>,
    ) -> Result<Response<PlanDestroyResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(PlanDestroyResponse { plan: Some(answers.plan) }))
    }

    async fn destroy(&self, request: Request<DestroyRequest>) -> Result<Response<DestroyResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(DestroyResponse { operation_id: answers.apply.operation_id }))
    }

    type WatchOperationStream = Reply<WatchOperationResponse>;
    async fn watch_operation(
        &self,
        request: Request<WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let answers = self.called(request.into_inner())?;
        let broken = self.broken_after(true);
        let state = |operation| WatchOperationResponse { operation: Some(operation) };
        if answers.endless && broken.is_none() {
            let all =
                move |answers: &Answers| answers.operation.iter().cloned().map(state).collect::<Vec<_>>();
            return Ok(Response::new(self.growing(answers.pace, all)));
        }
        let states = answers.operation.into_iter().take(broken.unwrap_or(usize::MAX)).map(state).collect();
        Ok(Response::new(stream(states, answers.pace, answers.endless)))
    }

    async fn list_clusters(
        &self,
        request: Request<ListClustersRequest>,
    ) -> Result<Response<ListClustersResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        let summary = |name| ClusterSummary { name, ..Default::default() };
        Ok(Response::new(ListClustersResponse {
            clusters: answers.clusters.into_iter().map(summary).collect(),
        }))
    }

    type WatchStatusStream = Reply<WatchStatusResponse>;
    async fn watch_status(
        &self,
        request: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let request = request.into_inner();
        let answers = self.called(request.clone())?;
        if request.watch && answers.away > 0 {
            self.answers.lock().unwrap().away -= 1;
            return Err(Status::unavailable("nobody is there"));
        }
        let broken = self.broken_after(request.watch);
        let state = |status| WatchStatusResponse { status: Some(status) };
        if answers.endless && request.watch && broken.is_none() {
            let all = move |answers: &Answers| answers.status.iter().cloned().map(state).collect::<Vec<_>>();
            return Ok(Response::new(self.growing(answers.pace, all)));
        }
        let wanted = if request.watch { broken.unwrap_or(usize::MAX) } else { 1 };
        let states = answers.status.into_iter().take(wanted).map(state).collect();
        Ok(Response::new(stream(states, answers.pace, false)))
    }

    type StreamEventsStream = Reply<StreamEventsResponse>;
    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let request = request.into_inner();
        let answers = self.called(request.clone())?;
        let name = &request.cluster_name;
        if !request.follow && !name.is_empty() && !answers.clusters.contains(name) {
            let next = format!("the clusters are: {}", answers.clusters.join(", "));
            let failure = Failure::new("CLUSTER-UNKNOWN", format!("cluster {name}"), "there is none", next);
            return Err(k8sctl_rpc::status::status(Code::NotFound, &failure));
        }
        let broken = self.broken_after(request.follow);
        let next = answers.events.last().map_or(1, |event| event.number + 1);
        let events = answers.events.into_iter().filter(|event| event.number >= request.from);
        let events = events.map(|event| StreamEventsResponse {
            next: event.number + 1,
            event: Some(event),
            ..StreamEventsResponse::default()
        });
        let caught_up =
            request.follow.then_some(StreamEventsResponse { next, ..StreamEventsResponse::default() });
        let messages = events.chain(caught_up).take(broken.unwrap_or(usize::MAX)).collect();
        let is_endless = answers.endless && request.follow && broken.is_none();
        Ok(Response::new(stream(messages, answers.pace, is_endless)))
    }

    async fn get_kubeconfig(
        &self,
        request: Request<GetKubeconfigRequest>,
    ) -> Result<Response<GetKubeconfigResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(GetKubeconfigResponse { kubeconfig_yaml: answers.kubeconfig }))
    }

    type UpgradeAgentsStream = Reply<UpgradeAgentsResponse>;
    async fn upgrade_agents(
        &self,
        request: Request<UpgradeAgentsRequest>,
    ) -> Result<Response<Self::UpgradeAgentsStream>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(stream(answers.upgrades, answers.pace, false)))
    }

    type StreamLogsStream = Reply<StreamLogsResponse>;
    async fn stream_logs(
        &self,
        request: Request<StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let request = request.into_inner();
        let follow = request.selector.as_ref().is_some_and(|selector| selector.follow);
        let begin = request.positions.iter().map(|it| it.cursor.parse::<usize>().unwrap()).max();
        let answers = self.called(request)?;
        let lost = self.answers.lock().unwrap().logs_lost_after.take();
        let begin = begin.unwrap_or(0);
        if answers.endless && follow && lost.is_none() {
            let all = move |answers: &Answers| log_messages(answers, begin);
            return Ok(Response::new(self.growing(answers.pace, all)));
        }
        let all = log_messages(&answers, begin).into_iter();
        let all = all.take(lost.map_or(usize::MAX, |lines| lines + 1)).collect();
        let mut replies = stream(all, answers.pace, false);
        if lost.is_some() {
            replies = broken(replies);
        }
        Ok(Response::new(replies))
    }
}

/// The notices, and behind them the lines from this place on, each with the position behind it.
fn log_messages(answers: &Answers, begin: usize) -> Vec<StreamLogsResponse> {
    let notices = StreamLogsResponse { notices: answers.log_notices.clone(), ..Default::default() };
    let line = |(place, line): (usize, ClusterLogLine)| StreamLogsResponse {
        positions: vec![LogPosition { node_name: line.node_name.clone(), cursor: (place + 1).to_string() }],
        lines: vec![line],
        ..Default::default()
    };
    let lines = answers.logs.iter().cloned().enumerate().skip(begin).map(line);
    std::iter::once(notices).chain(lines).collect()
}
