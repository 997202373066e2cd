//! The fake's plugin service.

use k8sctl_proto::control::v1::plugin_service_server::PluginService;
use k8sctl_proto::control::v1::*;
use k8sctl_types::failure::Failure;
use tonic::{Code, Request, Response, Status};

use super::{Answers, FakeHostAgent, Reply, broken, stream};

#[tonic::async_trait]
impl PluginService for FakeHostAgent {
    async fn plan_plugin(
        &self,
        request: Request<PlanPluginRequest>,
    ) -> Result<Response<PlanPluginResponse>, Status> {
        let request = request.into_inner();
        let answers = self.called(request.clone())?;
        let is_refused = answers.plugin_diagnostics.iter().any(|one| !one.warning);
        Ok(Response::new(PlanPluginResponse {
            diagnostics: answers.plugin_diagnostics,
            offer: answers.offer.filter(|_| !is_refused),
            diffs: if request.diff { answers.plugin_diffs } else { Vec::new() },
        }))
    }

    type ChangePluginStream = Reply<ChangePluginResponse>;
    async fn change_plugin(
        &self,
        request: Request<ChangePluginRequest>,
    ) -> Result<Response<Self::ChangePluginStream>, Status> {
        let answers = self.called(request.into_inner())?;
        if answers.changed_offers > 0 && answers.change_broken_after.is_none() {
            self.answers.lock().unwrap().changed_offers -= 1;
            let failure =
                Failure::new("PLUGIN-NOT-APPROVED", "plugin hello", "its plan is another", "run it again");
            return Err(k8sctl_rpc::status::status(Code::FailedPrecondition, &failure));
        }
        let lost = self.answers.lock().unwrap().change_broken_after.take();
        let all = changes(&answers).into_iter().take(lost.unwrap_or(usize::MAX)).collect();
        let replies = stream(all, answers.pace, answers.endless && lost.is_none());
        Ok(Response::new(if lost.is_some() { broken(replies) } else { replies }))
    }

    type RemovePluginStream = Reply<RemovePluginResponse>;
    async fn remove_plugin(
        &self,
        request: Request<RemovePluginRequest>,
    ) -> Result<Response<Self::RemovePluginStream>, Status> {
        let answers = self.called(request.into_inner())?;
        let says =
            |progress: &str| RemovePluginResponse { progress: progress.to_owned(), ..Default::default() };
        let kept = RemovePluginResponse { kept: answers.plugin_kept, ..Default::default() };
        let lost = self.answers.lock().unwrap().change_broken_after.take();
        if lost.is_none() && answers.plugins.is_empty() {
            let failure = Failure::new("PLUGIN-NOT-INSTALLED", "plugin hello", "it is gone", "look");
            return Err(k8sctl_rpc::status::status(Code::FailedPrecondition, &failure));
        }
        let all = vec![says("deleting Deployment hello"), kept];
        let replies = stream(all.into_iter().take(lost.unwrap_or(usize::MAX)).collect(), answers.pace, false);
        Ok(Response::new(if lost.is_some() { broken(replies) } else { replies }))
    }

    async fn list_plugins(
        &self,
        request: Request<ListPluginsRequest>,
    ) -> Result<Response<ListPluginsResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(ListPluginsResponse { plugins: answers.plugins }))
    }

    async fn show_plugin(
        &self,
        request: Request<ShowPluginRequest>,
    ) -> Result<Response<ShowPluginResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(answers.plugin_details))
    }

    type WatchPluginsStream = Reply<WatchPluginsResponse>;
    async fn watch_plugins(
        &self,
        request: Request<WatchPluginsRequest>,
    ) -> Result<Response<Self::WatchPluginsStream>, Status> {
        let request = request.into_inner();
        let answers = self.called(request.clone())?;
        if request.watch && answers.away > 0 {
            self.answers.lock().unwrap().away -= 1;
            return Err(Status::unavailable("nobody is there"));
        }
        let state = WatchPluginsResponse { plugins: answers.plugins };
        Ok(Response::new(stream(vec![state], answers.pace, answers.endless && request.watch)))
    }

    async fn get_plugin_logs(
        &self,
        request: Request<GetPluginLogsRequest>,
    ) -> Result<Response<GetPluginLogsResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(answers.plugin_logs))
    }

    type VendorPluginStream = Reply<VendorPluginResponse>;
    async fn vendor_plugin(
        &self,
        request: Request<VendorPluginRequest>,
    ) -> Result<Response<Self::VendorPluginStream>, Status> {
        let answers = self.called(request.into_inner())?;
        let says = VendorPluginResponse { progress: "fetching 1 of 2".to_owned(), ..Default::default() };
        let last = VendorPluginResponse { manifests: answers.vendored, ..Default::default() };
        Ok(Response::new(stream(vec![says, last], answers.pace, false)))
    }

    async fn verify_plugins(
        &self,
        request: Request<VerifyPluginsRequest>,
    ) -> Result<Response<VerifyPluginsResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(VerifyPluginsResponse { plugins: answers.verified }))
    }

    async fn set_plugin_secret(
        &self,
        request: Request<SetPluginSecretRequest>,
    ) -> Result<Response<SetPluginSecretResponse>, Status> {
        self.called(request.into_inner())?;
        Ok(Response::new(SetPluginSecretResponse {}))
    }
}

/// What is told while a plugin is changed: what goes on, what blocks it, how it is in the end.
fn changes(answers: &Answers) -> Vec<ChangePluginResponse> {
    let says = |progress: &str| ChangePluginResponse { progress: progress.to_owned(), ..Default::default() };
    let blocking = answers.plugins.first().and_then(|plugin| plugin.blocking.clone());
    let blocked =
        blocking.map(|blocking| ChangePluginResponse { blocking: Some(blocking), ..Default::default() });
    let last = ChangePluginResponse { status: answers.plugins.first().cloned(), ..Default::default() };
    let mut all = vec![says("applying 2 objects")];
    all.extend(blocked);
    all.push(last);
    all
}
