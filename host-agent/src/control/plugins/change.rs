//! What a person changes: plugins are planned, changed, removed and followed, their manifests fetched, their secrets kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use host_plugins::{
    DiffAction, Ended, Follow, Given, ObjectDiffView, Offer, Progress, Removal, Vendored, Wish, WishError,
    WishKind,
};
use k8sctl_proto::control::v1 as control;
use k8sctl_rpc::status::status;
use k8sctl_types::failure::Failure;
use plugin_plan::SecretRef;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::{set, wire_diagnostics};
use crate::cluster::manager::{Manager, RequestError};
use crate::control::refused;
use crate::wire;

type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// What a change would do.
pub(super) async fn plan(
    manager: Arc<Manager>,
    request: control::PlanPluginRequest,
) -> Result<control::PlanPluginResponse, Status> {
    let (cluster, wish) = read_wish(request.wish.unwrap_or_default())?;
    let access = manager.cluster_access(&cluster).await?;
    match Box::pin(manager.shared().plugins.offer(&access, &wish, request.diff)).await {
        Ok(offer) => Ok(wire_offer(offer)),
        Err(WishError::Config(mistakes)) => Ok(control::PlanPluginResponse {
            diagnostics: wire_diagnostics(mistakes),
            ..control::PlanPluginResponse::default()
        }),
        Err(WishError::Failure(failure)) => Err(refused(&failure)),
    }
}

/// Carries one out, and follows it.
pub(super) async fn change(
    manager: Arc<Manager>,
    uid: u32,
    request: control::ChangePluginRequest,
    sender: Sender<control::ChangePluginResponse>,
) -> Result<(), Status> {
    let (cluster, wish) = read_wish(request.wish.unwrap_or_default())?;
    let given = Given {
        approved_digest: request.approved_permissions,
        plan_digest: request.plan_digest,
        prune_many: request.prune_many,
        deadline: request.deadline.and_then(|deadline| Duration::try_from(deadline).ok()),
        by_uid: uid,
    };
    let access = manager.cluster_access(&cluster).await?;
    let follow = match manager.shared().plugins.begin(&access, &wish, &given).await {
        Ok(follow) => follow,
        Err(WishError::Config(mistakes)) => {
            let diagnostics = wire_diagnostics(mistakes);
            let response =
                control::ChangePluginResponse { diagnostics, ..control::ChangePluginResponse::default() };
            // The client may be gone.
            let _ = sender.send(Ok(response)).await;
            return Ok(());
        }
        Err(WishError::Failure(failure)) => return Err(refused(&failure)),
    };
    let said = |progress, blocking| control::ChangePluginResponse {
        progress,
        blocking,
        ..control::ChangePluginResponse::default()
    };
    match tell(follow, &sender, said).await {
        // The operation goes on.
        None => Ok(()),
        Some(Ended::Status(status)) => {
            let status = Some(wire::plugin_status(status));
            let response =
                control::ChangePluginResponse { status, ..control::ChangePluginResponse::default() };
            let _ = sender.send(Ok(response)).await;
            Ok(())
        }
        Some(Ended::Gone { .. }) => {
            let next = "`k8sctl plugin list` shows what there is";
            let object = format!("plugin {}", wish.plugin);
            Err(refused(&Failure::new("PLUGIN-NOT-INSTALLED", object, "it was removed meanwhile", next)))
        }
        Some(Ended::Failed(failure)) => Err(refused(&failure)),
    }
}

/// Takes a plugin away, and follows that.
pub(super) async fn remove(
    manager: Arc<Manager>,
    request: control::RemovePluginRequest,
    sender: Sender<control::RemovePluginResponse>,
) -> Result<(), Status> {
    let control::RemovePluginRequest { cluster_name, plugin, purge, deadline } = request;
    let deadline = deadline.and_then(|deadline| Duration::try_from(deadline).ok());
    let removal = Removal { purge, deadline, attempt: None };
    let access = manager.cluster_access(&cluster_name).await?;
    let begun = manager.shared().plugins.begin_removal(&access, &plugin, &removal).await;
    let follow = begun.map_err(|failure| refused(&failure))?;
    let said = |progress, blocking| control::RemovePluginResponse {
        progress,
        blocking,
        ..control::RemovePluginResponse::default()
    };
    match tell(follow, &sender, said).await {
        None => Ok(()),
        Some(Ended::Gone { kept }) => {
            let response = control::RemovePluginResponse { kept, ..control::RemovePluginResponse::default() };
            let _ = sender.send(Ok(response)).await;
            Ok(())
        }
        Some(Ended::Status(status)) => {
            let reason = format!("it is {} again: it was added meanwhile", status.state.as_str());
            let next = "see `k8sctl plugin status`, and remove it again if it shall go";
            Err(refused(&Failure::new("PLUGIN-BUSY", format!("plugin {plugin}"), reason, next)))
        }
        Some(Ended::Failed(failure)) => Err(refused(&failure)),
    }
}

/// Gets manifests into the store.
pub(super) async fn vendor(
    manager: Arc<Manager>,
    request: control::VendorPluginRequest,
    sender: Sender<control::VendorPluginResponse>,
) -> Result<(), Status> {
    let control::VendorPluginRequest { plugin, from, cluster_name } = request;
    let (plugin, from) = (set(plugin), set(from));
    if let Some(from) = from.as_deref().filter(|from| !from.starts_with('/')) {
        let next = "name the directory from the root on: the host agent reads it";
        let failure =
            Failure::new("PLUGIN-REMOTE", format!("directory {from}"), "its path is not absolute", next);
        return Err(refused(&failure));
    }
    // Without any cluster there are still the plugins of the plugin path.
    let access = match manager.cluster_access(&cluster_name).await {
        Ok(access) => Some(access),
        Err(RequestError::Refused(failure)) if failure.id == "CLUSTER-UNKNOWN" && cluster_name.is_empty() => {
            None
        }
        Err(error) => return Err(error.into()),
    };
    let progress = Progress::new();
    let (mut lines, _blocking) = progress.follow();
    let plugins = &manager.shared().plugins;
    let from = from.as_deref().map(Path::new);
    let work = plugins.vendor(access.as_ref(), plugin.as_deref(), from, &progress);
    tokio::pin!(work);
    let vendored = loop {
        let line = tokio::select! {
            // Lines first: what was said before the end is sent before it.
            biased;
            // Cancel-safe: what was not received stays where it is; the work is only polled.
            line = lines.recv() => heard(line),
            done = &mut work => break done,
        };
        if let Some(progress) = line {
            let response =
                control::VendorPluginResponse { progress, ..control::VendorPluginResponse::default() };
            let _ = sender.send(Ok(response)).await;
        }
    };
    let vendored = vendored.map_err(|failure| refused(&failure))?;
    let manifests = vendored.into_iter().map(wire_vendored).collect();
    let response = control::VendorPluginResponse { manifests, ..control::VendorPluginResponse::default() };
    let _ = sender.send(Ok(response)).await;
    Ok(())
}

/// Keeps a value for a plugin.
pub(super) async fn set_secret(
    manager: Arc<Manager>,
    request: control::SetPluginSecretRequest,
) -> Result<control::SetPluginSecretResponse, Status> {
    let control::SetPluginSecretRequest { cluster_name, plugin, handle, key, value } = request;
    let value = Zeroizing::new(value);
    let cluster = manager.find(&cluster_name).await?;
    let secret = SecretRef { handle, key };
    let kept = manager.shared().plugins.set_secret(&cluster.id, &plugin, &secret, value).await;
    kept.map_err(|failure| refused(&failure))?;
    Ok(control::SetPluginSecretResponse {})
}

/// What one of them says next.
enum Said {
    Line(String),
    Blocked(control::Blocking),
    Nothing,
    Ended(Box<Ended>),
    /// Nobody listens any more.
    Left,
}

/// Sends on what an operation says, until its end; `None`: the client is gone before that.
pub(super) async fn tell<T>(
    follow: Follow,
    sender: &Sender<T>,
    wrap: impl Fn(String, Option<control::Blocking>) -> T,
) -> Option<Ended> {
    // Held until the end, so that lines do not end before.
    let Follow { progress, mut ended } = follow;
    let (mut lines, mut blocking) = progress.follow();
    // Whoever comes later sees what blocks now, too.
    blocking.mark_changed();
    let mut is_blocked = false;
    loop {
        let said = tokio::select! {
            // Lines first: what was said before the end is sent before it.
            biased;
            // All are cancel-safe: what was not taken stays where it is, and the end is shared.
            line = lines.recv() => heard(line).map_or(Said::Nothing, Said::Line),
            Ok(()) = blocking.changed() => {
                let was_blocked = is_blocked;
                let now = blocking.borrow_and_update().clone();
                is_blocked = now.is_some();
                match now {
                    Some(now) => Said::Blocked(wire::blocking(now)),
                    // An empty one takes it back.
                    None if was_blocked => Said::Blocked(control::Blocking::default()),
                    None => Said::Nothing,
                }
            }
            ended = &mut ended => Said::Ended(Box::new(ended)),
            () = sender.closed() => Said::Left,
        };
        let message = match said {
            Said::Line(line) => wrap(line, None),
            Said::Blocked(blocking) => wrap(String::new(), Some(blocking)),
            Said::Nothing => continue,
            Said::Ended(ended) => return Some(*ended),
            Said::Left => return None,
        };
        // A client that left does not stop the operation.
        let _ = sender.send(Ok(message)).await;
    }
}

/// A slow reader misses lines, and hears the next ones.
fn heard(line: Result<String, RecvError>) -> Option<String> {
    line.ok()
}

/// The cluster's name, and what is wanted of a plugin.
pub(super) fn read_wish(wish: control::PluginWish) -> Result<(String, Wish), Status> {
    let change = match wish.change() {
        control::PluginChange::Add => WishKind::Add,
        control::PluginChange::Configure => WishKind::Configure,
        control::PluginChange::Upgrade => WishKind::Upgrade,
        control::PluginChange::RollBack => WishKind::RollBack,
        control::PluginChange::Unspecified => {
            let next = "use the k8sctl of the same version as the host agent (`k8sctl version`)";
            let failure = Failure::new(
                "AUTH-UNKNOWN-METHOD",
                format!("plugin {}", wish.plugin),
                "the host agent knows no such change of a plugin",
                next,
            );
            return Err(status(Code::InvalidArgument, &failure));
        }
    };
    let config_json = set(wish.config_json);
    let wish_of_plugin = Wish {
        change,
        plugin: wish.plugin,
        // Only an upgrade leaves a config as it is.
        config_json: match change {
            WishKind::Add | WishKind::Configure => Some(config_json.unwrap_or_else(|| "{}".to_owned())),
            WishKind::Upgrade | WishKind::RollBack => config_json,
        },
        dev: wish.dev,
        lift_quarantine: wish.lift_quarantine,
        adopt: wish.adopt,
        to: set(wish.to),
    };
    Ok((wish.cluster_name, wish_of_plugin))
}

/// The offer, and beside it what the plugin remarks on the config.
pub(super) fn wire_offer(offer: Offer) -> control::PlanPluginResponse {
    control::PlanPluginResponse {
        diagnostics: wire_diagnostics(offer.warnings),
        offer: Some(control::PluginOffer {
            name: offer.name,
            version: offer.version,
            permissions: offer.permissions,
            permissions_digest: offer.permissions_digest,
            objects: offer.objects,
            new_permissions: offer.new_permissions,
            trust: offer.trust.to_string(),
            remarks: offer.remarks,
            plan_digest: offer.plan_digest,
            node_requirements: offer.node,
            from_version: offer.from_version.unwrap_or_default(),
        }),
        diffs: offer.diffs.into_iter().map(wire_diff).collect(),
    }
}

fn wire_diff(diff: ObjectDiffView) -> control::ObjectDiff {
    let action = match diff.action {
        DiffAction::Create => control::Action::Create,
        DiffAction::Change => control::Action::Update,
        DiffAction::Delete => control::Action::Delete,
        DiffAction::Keep => control::Action::Unspecified,
    };
    control::ObjectDiff { action: action.into(), object: diff.object, text: diff.text }
}

fn wire_vendored(vendored: Vendored) -> control::VendoredManifest {
    let Vendored { url, sha256, present, problem } = vendored;
    control::VendoredManifest { url, sha256, present, problem }
}
