//! Plugins of a cluster, as a person looks at them and changes them; what a spec wants of them comes in with the spec.
//!
//! - `change`: plans, changes, removals, manifests, secrets
//! - `read`: lists, details, statuses, logs, checks of packages; none of it starts a plugin
//!
//! Each only translates. What is begun goes on when the client goes.

mod change;
mod read;

use std::sync::Arc;

use host_plugins::Diagnostic;
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::control::v1::plugin_service_server::PluginService;
use tonic::{Request, Response, Status};

use super::queue::{Queues, caller};
use super::{NEWEST, Reply, stream, stream_of};
use crate::cluster::manager::Manager;
use crate::wire;

/// See [`PluginService`].
#[derive(Debug)]
pub(super) struct Plugins {
    pub(super) manager: Arc<Manager>,
    pub(super) queues: Queues,
}

#[tonic::async_trait]
impl PluginService for Plugins {
    async fn plan_plugin(
        &self,
        request: Request<control::PlanPluginRequest>,
    ) -> Result<Response<control::PlanPluginResponse>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        // In a box: all that asks a plugin is in it, which would be moved about on the stack.
        let plan = Box::pin(change::plan(manager, request.into_inner()));
        Ok(Response::new(self.queues.plans.run("plan-plugin", uid, plan).await??))
    }

    type ChangePluginStream = Reply<control::ChangePluginResponse>;

    async fn change_plugin(
        &self,
        request: Request<control::ChangePluginRequest>,
    ) -> Result<Response<Self::ChangePluginStream>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let request = request.into_inner();
        let reply = stream("change-plugin", |sender| change::change(manager, uid, request, sender));
        Ok(Response::new(reply))
    }

    type RemovePluginStream = Reply<control::RemovePluginResponse>;

    async fn remove_plugin(
        &self,
        request: Request<control::RemovePluginRequest>,
    ) -> Result<Response<Self::RemovePluginStream>, Status> {
        let (manager, request) = (Arc::clone(&self.manager), request.into_inner());
        let reply = stream("remove-plugin", |sender| change::remove(manager, request, sender));
        Ok(Response::new(reply))
    }

    async fn list_plugins(
        &self,
        request: Request<control::ListPluginsRequest>,
    ) -> Result<Response<control::ListPluginsResponse>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let list = read::list(manager, request.into_inner());
        Ok(Response::new(self.queues.reads.run("list-plugins", uid, list).await??))
    }

    async fn show_plugin(
        &self,
        request: Request<control::ShowPluginRequest>,
    ) -> Result<Response<control::ShowPluginResponse>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let show = read::show(manager, request.into_inner());
        Ok(Response::new(self.queues.reads.run("show-plugin", uid, show).await??))
    }

    type WatchPluginsStream = Reply<control::WatchPluginsResponse>;

    async fn watch_plugins(
        &self,
        request: Request<control::WatchPluginsRequest>,
    ) -> Result<Response<Self::WatchPluginsStream>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let control::WatchPluginsRequest { cluster_name, watch } = request.into_inner();
        let finder = Arc::clone(&manager);
        let find = async move { finder.find(&cluster_name).await };
        let record = self.queues.reads.run("find-cluster", uid, find).await??;
        let reply = stream_of("watch-plugins", NEWEST, |sender| read::watch(manager, record, watch, sender));
        Ok(Response::new(reply))
    }

    async fn get_plugin_logs(
        &self,
        request: Request<control::GetPluginLogsRequest>,
    ) -> Result<Response<control::GetPluginLogsResponse>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let logs = read::logs(manager, request.into_inner());
        Ok(Response::new(self.queues.reads.run("get-plugin-logs", uid, logs).await??))
    }

    type VendorPluginStream = Reply<control::VendorPluginResponse>;

    async fn vendor_plugin(
        &self,
        request: Request<control::VendorPluginRequest>,
    ) -> Result<Response<Self::VendorPluginStream>, Status> {
        let (manager, request) = (Arc::clone(&self.manager), request.into_inner());
        let reply = stream("vendor-plugin", |sender| change::vendor(manager, request, sender));
        Ok(Response::new(reply))
    }

    async fn verify_plugins(
        &self,
        request: Request<control::VerifyPluginsRequest>,
    ) -> Result<Response<control::VerifyPluginsResponse>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let verify = read::verify(manager, request.into_inner());
        Ok(Response::new(self.queues.checks.run("verify-plugins", uid, verify).await??))
    }

    async fn set_plugin_secret(
        &self,
        request: Request<control::SetPluginSecretRequest>,
    ) -> Result<Response<control::SetPluginSecretResponse>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let set = change::set_secret(manager, request.into_inner());
        Ok(Response::new(self.queues.reads.run("set-plugin-secret", uid, set).await??))
    }
}

/// What plugins say of a config.
fn wire_diagnostics(diagnostics: Vec<Diagnostic>) -> Vec<control::Diagnostic> {
    diagnostics.into_iter().map(wire::plugin_diagnostic).collect()
}

/// An empty text on the wire is one that is not set.
fn set(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
