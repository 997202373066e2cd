//! Plugins of a cluster.

use std::sync::Arc;

use host_plugins::{Diagnostic, InstallError, Offer};
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::control::v1::plugin_service_server::PluginService;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::queue::{Queues, caller};
use super::{LINES, Reply, forward, refused, stream};
use crate::cluster::manager::{Manager, RequestError};
use crate::wire;

/// See [`PluginService`].
#[derive(Debug)]
pub(super) struct Plugins {
    pub(super) manager: Arc<Manager>,
    pub(super) queues: Queues,
}

#[tonic::async_trait]
impl PluginService for Plugins {
    type AddPluginStream = Reply<control::AddPluginResponse>;

    async fn add_plugin(
        &self,
        request: Request<control::AddPluginRequest>,
    ) -> Result<Response<Self::AddPluginStream>, Status> {
        let request = request.into_inner();
        let manager = Arc::clone(&self.manager);
        let reply = stream("add-plugin", |sender| async move {
            let cluster = manager.cluster_access(&request.cluster_name).await?;
            let config = if request.config_json.is_empty() { "{}" } else { &request.config_json };
            let plugins = &manager.shared().plugins;
            let offer = match plugins.offer(&cluster, &request.plugin, config).await {
                Ok(offer) => offer,
                Err(error) => return install_error(error, &sender).await,
            };
            // Sending fails only when the client is gone; an installation once begun goes on.
            let _ = sender.send(Ok(wire_offer(offer))).await;
            if request.dry_run {
                return Ok(());
            }
            let (lines, receiver) = mpsc::channel(LINES);
            let progress = forward(receiver, sender.clone(), |progress| control::AddPluginResponse {
                progress,
                ..control::AddPluginResponse::default()
            });
            let install =
                plugins.install(&cluster, &request.plugin, config, &request.approved_permissions, lines);
            let (installed, ()) = tokio::join!(install, progress);
            match installed {
                Ok(status) => {
                    let response = control::AddPluginResponse {
                        status: Some(wire::plugin_status(status)),
                        ..control::AddPluginResponse::default()
                    };
                    let _ = sender.send(Ok(response)).await;
                    Ok(())
                }
                Err(error) => install_error(error, &sender).await,
            }
        });
        Ok(Response::new(reply))
    }

    async fn list_plugins(
        &self,
        request: Request<control::ListPluginsRequest>,
    ) -> Result<Response<control::ListPluginsResponse>, Status> {
        let (uid, manager) = (caller(&request), Arc::clone(&self.manager));
        let name = request.into_inner().cluster_name;
        let list = async move {
            let cluster = manager.find(&name).await?;
            Ok::<_, RequestError>(manager.shared().plugins.list(&cluster.id).await?)
        };
        let plugins = self.queues.reads.run("list-plugins", uid, list).await??;
        let plugins = plugins.into_iter().map(wire::plugin_status).collect();
        Ok(Response::new(control::ListPluginsResponse { plugins }))
    }

    type RemovePluginStream = Reply<control::RemovePluginResponse>;

    async fn remove_plugin(
        &self,
        request: Request<control::RemovePluginRequest>,
    ) -> Result<Response<Self::RemovePluginStream>, Status> {
        let request = request.into_inner();
        let manager = Arc::clone(&self.manager);
        let reply = stream("remove-plugin", |sender| async move {
            let cluster = manager.cluster_access(&request.cluster_name).await?;
            let (lines, receiver) = mpsc::channel(LINES);
            let progress =
                forward(receiver, sender.clone(), |progress| control::RemovePluginResponse { progress });
            let remove = manager.shared().plugins.remove(&cluster, &request.plugin, lines);
            let (removed, ()) = tokio::join!(remove, progress);
            removed.map_err(|failure| refused(&failure))
        });
        Ok(Response::new(reply))
    }
}

/// Mistakes in the config are an answer, everything else is a status.
async fn install_error(
    error: InstallError,
    sender: &mpsc::Sender<Result<control::AddPluginResponse, Status>>,
) -> Result<(), Status> {
    match error {
        InstallError::Failure(failure) => Err(refused(&failure)),
        InstallError::Config(mistakes) => {
            let diagnostics = mistakes.into_iter().map(wire_diagnostic).collect();
            let response =
                control::AddPluginResponse { diagnostics, ..control::AddPluginResponse::default() };
            // The client may be gone.
            let _ = sender.send(Ok(response)).await;
            Ok(())
        }
    }
}

/// The offer, and beside it what the plugin remarks on the config.
fn wire_offer(offer: Offer) -> control::AddPluginResponse {
    control::AddPluginResponse {
        diagnostics: offer.warnings.into_iter().map(wire_diagnostic).collect(),
        offer: Some(control::PluginOffer {
            name: offer.name,
            version: offer.version,
            permissions: offer.permissions,
            permissions_digest: offer.digest,
            objects: offer.objects,
        }),
        ..control::AddPluginResponse::default()
    }
}

fn wire_diagnostic(diagnostic: Diagnostic) -> control::Diagnostic {
    control::Diagnostic {
        id: "PLUGIN-CONFIG".to_owned(),
        field: diagnostic.path,
        message: diagnostic.message,
        hint: diagnostic.hint,
        warning: diagnostic.warning,
        ..control::Diagnostic::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_brings_the_remarks_of_the_plugin() {
        let warning = Diagnostic {
            path: "replicas".to_owned(),
            message: "one replica stands still while its node does".to_owned(),
            hint: "2".to_owned(),
            warning: true,
        };
        let offer = Offer {
            name: "hello".to_owned(),
            version: "1.0.0".to_owned(),
            permissions: Vec::new(),
            digest: "digest".to_owned(),
            objects: Vec::new(),
            warnings: vec![warning],
        };
        let sent = wire_offer(offer);
        assert_eq!(sent.offer.expect("the offer").name, "hello");
        let [told] = &sent.diagnostics[..] else { panic!("{:?}", sent.diagnostics) };
        assert!(told.warning && told.field == "replicas" && told.id == "PLUGIN-CONFIG", "{told:?}");
    }
}
