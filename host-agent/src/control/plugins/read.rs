//! What a person looks at. None of it starts a plugin.

use std::sync::Arc;

use host_plugins::{PluginDetails, PluginRevision, PluginRun, Verified};
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1::PodLogs;
use tokio::sync::mpsc;
use tonic::Status;

use crate::cluster::manager::Manager;
use crate::cluster::plugins::read_lock;
use crate::control::refused;
use crate::records::ClusterRecord;
use crate::wire;

use super::set;

/// Installed ones, and those in the plugin path.
pub(super) async fn list(
    manager: Arc<Manager>,
    request: control::ListPluginsRequest,
) -> Result<control::ListPluginsResponse, Status> {
    let cluster = manager.find(&request.cluster_name).await?;
    let available = request.available.unwrap_or(true);
    Ok(control::ListPluginsResponse { plugins: statuses(&manager, &cluster.id, available).await? })
}

/// All that is known of one.
pub(super) async fn show(
    manager: Arc<Manager>,
    request: control::ShowPluginRequest,
) -> Result<control::ShowPluginResponse, Status> {
    let cluster = manager.find(&request.cluster_name).await?;
    let shown = manager.shared().plugins.show(&cluster.id, &request.plugin).await;
    Ok(wire_details(shown.map_err(|failure| refused(&failure))?))
}

/// All of a cluster, and again at each change, until it is gone.
pub(super) async fn watch(
    manager: Arc<Manager>,
    cluster: ClusterRecord,
    watch: bool,
    sender: mpsc::Sender<Result<control::WatchPluginsResponse, Status>>,
) -> Result<(), Status> {
    let mut changes = manager.shared().plugins.changes();
    let mut status = manager.status_of(&cluster).await;
    let mut last = None;
    loop {
        // Marked before looking: what changes meanwhile is seen.
        changes.mark_unchanged();
        let plugins = statuses(&manager, &cluster.id, false).await?;
        if last.as_ref() != Some(&plugins) {
            let response = control::WatchPluginsResponse { plugins: plugins.clone() };
            if sender.send(Ok(response)).await.is_err() || !watch {
                return Ok(());
            }
            last = Some(plugins);
        }
        tokio::select! {
            // Cancel-safe: an unseen change stays unseen. Each errs when what it watches is gone.
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            changed = status.changed() => if changed.is_err() { return Ok(()) },
            () = sender.closed() => return Ok(()),
        }
    }
}

/// How its programs ended and what they said, and its pods, whose logs nodes have.
pub(super) async fn logs(
    manager: Arc<Manager>,
    request: control::GetPluginLogsRequest,
) -> Result<control::GetPluginLogsResponse, Status> {
    let control::GetPluginLogsRequest { cluster_name, plugin, pods } = request;
    let cluster = manager.find(&cluster_name).await?;
    let plugins = &manager.shared().plugins;
    let runs = plugins.runs(&plugin).await.map_err(|failure| refused(&failure))?;
    let pods = if pods {
        let access = manager.cluster_access(&cluster.name).await?;
        plugins.pods(&access, &plugin).await.map_err(|failure| refused(&failure))?
    } else {
        // What its programs said is known without the cluster's API. Of one that nobody knows nothing is.
        if runs.is_empty() {
            plugins.show(&cluster.id, &plugin).await.map_err(|failure| refused(&failure))?;
        }
        Vec::new()
    };
    let pod = |(namespace, name): (String, String)| PodLogs { namespace, name, ..PodLogs::default() };
    Ok(control::GetPluginLogsResponse {
        // The newest comes last, as in every log.
        runs: runs.into_iter().rev().map(wire_run).collect(),
        pods: pods.into_iter().map(pod).collect(),
    })
}

/// Every digest and signature, and a lock file against them.
pub(super) async fn verify(
    manager: Arc<Manager>,
    request: control::VerifyPluginsRequest,
) -> Result<control::VerifyPluginsResponse, Status> {
    let lock = match set(request.lock_text) {
        Some(text) => Some(read_lock(&text).map_err(|failure| refused(&failure))?),
        None => None,
    };
    let plugin = set(request.plugin);
    let verified = manager.shared().plugins.verify(plugin.as_deref(), lock.as_ref()).await;
    let verified = verified.map_err(|failure| refused(&failure))?;
    Ok(control::VerifyPluginsResponse { plugins: verified.into_iter().map(wire_verified).collect() })
}

async fn statuses(
    manager: &Manager,
    cluster_id: &str,
    available: bool,
) -> Result<Vec<control::PluginStatus>, Status> {
    let all = manager.shared().plugins.list(cluster_id, available).await;
    Ok(all.map_err(|failure| refused(&failure))?.into_iter().map(wire::plugin_status).collect())
}

fn wire_details(details: PluginDetails) -> control::ShowPluginResponse {
    control::ShowPluginResponse {
        status: Some(wire::plugin_status(details.status)),
        manifest_toml: details.manifest_toml,
        config_schema_json: details.config_schema_json,
        config_json: details.config_json,
        permissions: details.permissions,
        objects: details.objects,
        outputs: details.outputs.into_iter().collect(),
        revisions: details.revisions.into_iter().map(wire_revision).collect(),
        package_sha256: details.package_sha256,
        package_path: details.package_path,
    }
}

fn wire_revision(revision: PluginRevision) -> control::PluginRevision {
    control::PluginRevision {
        revision: revision.revision,
        version: revision.version,
        created: wire::system_time(revision.created),
        applied: revision.applied.and_then(wire::system_time),
        current: revision.current,
    }
}

fn wire_run(run: PluginRun) -> control::PluginRun {
    control::PluginRun {
        time: wire::system_time(run.time),
        purpose: run.purpose,
        took: prost_types::Duration::try_from(run.took).ok(),
        outcome: run.outcome,
        stderr: run.stderr,
    }
}

fn wire_verified(verified: Verified) -> control::VerifiedPlugin {
    let Verified { name, version, sha256, trust, found, path, problem } = verified;
    let problem = problem.as_ref().map(wire::failure);
    let (found, path) = (found.as_str().to_owned(), path.display().to_string());
    control::VerifiedPlugin { name, version, sha256, trust, problem, found, path }
}
