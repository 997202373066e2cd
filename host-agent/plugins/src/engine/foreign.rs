//! What lies in a namespace that we made and is not ours: it decides whether `remove` may delete the namespace. If
//! anything cannot be listed the answer is unknown, and unknown counts as foreign.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8sctl_types::failure::Failure;
use kube::Api;
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::core::discovery::{ApiResource, Scope};

use super::Engine;
use crate::plan::ObjectKey;

impl Engine {
    /// Names of foreign objects in a namespace, `ConfigMap notes`.
    pub(super) async fn foreign_objects(&self, namespace: &str) -> Result<Vec<String>, Failure> {
        let resources = match self.listable().await {
            Ok(resources) => resources,
            Err(error) => {
                return Ok(vec![format!("what cannot be listed ({})", super::api::chain(&error))]);
            }
        };
        let mut found: Vec<(String, ObjectMeta)> = Vec::new();
        for resource in resources {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
            match api.list_metadata(&ListParams::default()).await {
                Ok(list) => {
                    found.extend(list.items.into_iter().map(|item| (resource.kind.clone(), item.metadata)))
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => {}
                Err(error) => {
                    let key = ObjectKey {
                        group: resource.group,
                        version: resource.version,
                        kind: resource.kind,
                        namespace: namespace.to_owned(),
                        name: "*".to_owned(),
                    };
                    return Err(self.api_failure(&key, "list", &error));
                }
            }
        }
        Ok(decide_foreign(&found))
    }

    /// Kinds that live in namespaces and can be listed and deleted, each in one version.
    async fn listable(&self) -> Result<Vec<ApiResource>, kube::Error> {
        let mut groups = vec![kube::discovery::group(&self.client, "").await?];
        for group in self.client.list_api_groups().await?.groups {
            groups.push(kube::discovery::group(&self.client, &group.name).await?);
        }
        let can = |operations: &[String], verb: &str| operations.iter().any(|operation| operation == verb);
        Ok(groups
            .iter()
            .flat_map(|group| group.recommended_resources())
            .filter(|(_, capabilities)| {
                capabilities.scope == Scope::Namespaced
                    && can(&capabilities.operations, "list")
                    && can(&capabilities.operations, "delete")
            })
            .map(|(resource, _)| resource)
            .collect())
    }
}

/// Those that nobody will clean up by himself: not made by Kubernetes in every namespace, not on their way out, not
/// owned by another object of the namespace (which counts itself), nor by one that is gone.
fn decide_foreign(found: &[(String, ObjectMeta)]) -> Vec<String> {
    const BY_CONTROLLERS: [&str; 3] = ["Event", "Endpoints", "EndpointSlice"];
    let mut seen = HashSet::new();
    let mut foreign = Vec::new();
    for (kind, metadata) in found {
        let name = metadata.name.as_deref().unwrap_or_default();
        let token_of = |annotation: &str| metadata.annotations.as_ref().and_then(|all| all.get(annotation));
        let everywhere = match kind.as_str() {
            "ServiceAccount" => name == "default",
            "ConfigMap" => name == "kube-root-ca.crt",
            "Secret" => {
                token_of("kubernetes.io/service-account.name").is_some_and(|account| account == "default")
            }
            kind => BY_CONTROLLERS.contains(&kind),
        };
        // Whatever owns an object of a namespace lies in the same namespace, or is a thing of the whole cluster.
        let owned = metadata.owner_references.iter().flatten().any(|owner| owner.kind != "Node");
        let leaving = metadata.deletion_timestamp.is_some();
        if !everywhere && !owned && !leaving && seen.insert((kind.clone(), name.to_owned())) {
            foreign.push(format!("{kind} {name}"));
        }
    }
    foreign
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn object(kind: &str, name: &str) -> (String, ObjectMeta) {
        (kind.to_owned(), ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() })
    }

    #[test]
    fn what_kubernetes_makes_in_every_namespace_is_not_foreign() {
        let mut pod = object("Pod", "hello-1");
        pod.1.owner_references =
            Some(vec![OwnerReference { kind: "ReplicaSet".to_owned(), ..OwnerReference::default() }]);
        let found = [
            object("ServiceAccount", "default"),
            object("ConfigMap", "kube-root-ca.crt"),
            object("Endpoints", "hello"),
            pod,
            object("ConfigMap", "notes"),
            object("Secret", "mine"),
        ];
        assert_eq!(decide_foreign(&found), ["ConfigMap notes", "Secret mine"]);
    }
}
