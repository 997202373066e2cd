//! From an object's key to the API that serves it, and from the API's errors to failures. Called by the rest of
//! the engine.

use std::sync::PoisonError;

use k8sctl_types::failure::Failure;
use kube::core::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Api, Error};

use super::Engine;
use crate::plan::ObjectKey;

impl Engine {
    /// The API of an object, or `None` where the cluster has no such kind.
    pub(super) async fn served(&self, key: &ObjectKey) -> Result<Option<Api<DynamicObject>>, Failure> {
        let Some((resource, capabilities)) = self.kind(key).await? else { return Ok(None) };
        match (capabilities.scope, key.namespace.is_empty()) {
            (Scope::Cluster, true) => Ok(Some(Api::all_with(self.client.clone(), &resource))),
            (Scope::Namespaced, false) => {
                Ok(Some(Api::namespaced_with(self.client.clone(), &key.namespace, &resource)))
            }
            (scope, _) => {
                let reason = format!("{key} has a wrong namespace: its kind is of scope {scope:?}");
                let next = "nothing of it was applied; report this to the plugin's author";
                Err(self.failure("PLUGIN-OBJECT-INVALID", reason, next))
            }
        }
    }

    /// The API of an object; a kind that is not served is a failure.
    pub(super) async fn api(&self, key: &ObjectKey) -> Result<Api<DynamicObject>, Failure> {
        self.served(key).await?.ok_or_else(|| {
            let reason = format!("this cluster serves no {} {}", key.api_version(), key.kind);
            self.failure(
                "PLUGIN-KIND-UNKNOWN",
                reason,
                "install the plugin that brings this kind, or a newer Kubernetes",
            )
        })
    }

    async fn kind(&self, key: &ObjectKey) -> Result<Option<(ApiResource, ApiCapabilities)>, Failure> {
        let cached = (key.api_version(), key.kind.clone());
        let kinds = || self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kinds().get(&cached) {
            return Ok(Some(found.clone()));
        }
        let gvk = GroupVersionKind::gvk(&key.group, &key.version, &key.kind);
        match kube::discovery::pinned_kind(&self.client, &gvk).await {
            Ok(found) => {
                kinds().insert(cached, found.clone());
                Ok(Some(found))
            }
            Err(Error::Discovery(_)) => Ok(None),
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(self.api_failure(key, "find the kind of", &error)),
        }
    }

    /// A request about an object failed.
    pub(super) fn api_failure(&self, key: &ObjectKey, verb: &str, error: &Error) -> Failure {
        let Error::Api(status) = error else {
            let reason = format!("cannot {verb} {key}: {}", chain(error));
            let next = "see `k8sctl status`; when the API server answers, run the same command again";
            return self.failure("PLUGIN-API", reason, next);
        };
        let reason = format!("cannot {verb} {key}: {}", status.message);
        match status.code {
            403 => self.failure(
                "PLUGIN-FORBIDDEN",
                reason,
                "the cluster does not let the host agent do this: see its admission policies and quotas",
            ),
            409 => self.failure(
                "PLUGIN-CONFLICT",
                reason,
                "another program set these fields; undo its change, or delete the object, and run the same command again",
            ),
            400 | 413 | 415 | 422 => self.failure(
                "PLUGIN-OBJECT-INVALID",
                reason,
                "this Kubernetes does not take the object; report this to the plugin's author",
            ),
            _ => self.failure(
                "PLUGIN-API",
                reason,
                "see `k8sctl status`; when the API server answers, run the same command again",
            ),
        }
    }
}

/// An error and its causes in one line, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        cause = error.source();
    }
    said
}
