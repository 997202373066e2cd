//! What lies in a namespace that we made, or is of a kind that we defined, and is not ours: it decides whether `remove`
//! may delete the namespace or the definition. If anything cannot be listed the answer is unknown, and unknown counts as
//! foreign.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8sctl_types::failure::Failure;
use kube::api::ListParams;
use kube::core::discovery::ApiResource;
use plugin_plan::ObjectKey;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::absent::{definition_key, is_established, served_versions};
use super::kinds::Served;
use super::request::{Place, Trouble};
use super::{Engine, READS, all_of};
use crate::inventory::Entry;

/// Objects that are named.
const NAMED: usize = 5;
/// Between two looks for kinds that are defined and not served.
const LOOK: Duration = Duration::from_secs(1);

impl Engine {
    /// Names of foreign objects in a namespace, `ConfigMap notes`. `accounts`: those that were ours there, whose tokens
    /// go a moment after them.
    pub(super) async fn foreign_objects(
        &self,
        namespace: &str,
        accounts: &BTreeSet<&str>,
    ) -> Result<Vec<String>, Failure> {
        let deadline = Instant::now() + self.limits.kind;
        let resources = loop {
            let (resources, known) = match self.listable().await {
                Ok(listable) => listable,
                Err(trouble) => return Ok(vec![format!("what cannot be listed ({})", trouble.message())]),
            };
            let unlisted = self.unlisted(&known).await?;
            if unlisted.is_empty() {
                break resources;
            }
            if Instant::now() >= deadline {
                let unlisted = some_of(&unlisted);
                return Ok(vec![format!("what cannot be listed ({unlisted}: defined, and not served now)")]);
            }
            sleep(LOOK).await;
        };
        let mut asked = Vec::with_capacity(resources.len());
        for resource in &resources {
            asked.push(self.list_in(resource, namespace));
        }
        let mut found: Vec<(String, ObjectMeta)> = Vec::new();
        for (resource, listed) in resources.iter().zip(all_of(READS, asked).await?) {
            found.extend(listed.into_iter().map(|metadata| (resource.kind.clone(), metadata)));
        }
        Ok(decide_foreign(&found, accounts))
    }

    async fn list_in(&self, resource: &ApiResource, namespace: &str) -> Result<Vec<ObjectMeta>, Failure> {
        let place = Place::new(&self.client, resource, Some(namespace));
        let key = ObjectKey {
            group: resource.group.clone(),
            version: resource.version.clone(),
            kind: resource.kind.clone(),
            namespace: namespace.to_owned(),
            name: "*".to_owned(),
        };
        let params = ListParams::default();
        match self.tried(&key, || place.list_typed_metadata(&params)).await {
            Ok(items) => Ok(items.into_iter().map(|item| item.metadata).collect()),
            Err(trouble) if trouble.is_absent() || trouble.code() == 405 => Ok(Vec::new()),
            Err(trouble) => {
                // It may have gone since it was listed.
                if trouble.is_not_served() && self.definition_of(&key).await?.is_none() {
                    return Ok(Vec::new());
                }
                Err(self.request_failure(&key, "list", &trouble))
            }
        }
    }

    /// Kinds that live in namespaces and can be listed and deleted, each in one version; and all kinds that there are,
    /// `pools.example.org`.
    async fn listable(&self) -> Result<(Vec<ApiResource>, HashSet<String>), Trouble> {
        let groups = self.once(async { self.client.list_api_groups().await.map_err(Trouble::from) }).await?;
        let mut versions = vec![(String::new(), "v1".to_owned())];
        for group in groups.groups {
            let preferred = group.preferred_version.map(|one| one.version);
            let mut all: Vec<String> = group.versions.into_iter().map(|one| one.version).collect();
            all.sort_by_key(|version| Some(version) != preferred.as_ref());
            versions.extend(all.into_iter().map(|version| (group.name.clone(), version)));
        }
        let mut asked = Vec::with_capacity(versions.len());
        for (group, version) in &versions {
            asked.push(self.kinds_now(group, version));
        }
        let (mut resources, mut known) = (Vec::new(), HashSet::new());
        for served in all_of(READS, asked).await?.into_iter().flatten() {
            let Served { resource, namespaced, verbs } = served;
            let can = |verb: &str| verbs.iter().any(|one| one == verb);
            let is_new = known.insert(format!("{}.{}", resource.plural, resource.group));
            if is_new && namespaced && can("list") && can("delete") {
                resources.push(resource);
            }
        }
        Ok((resources, known))
    }

    /// The kinds of a group version, which may have gone since it was told of: what is defined is missed by its definition.
    async fn kinds_now(&self, group: &str, version: &str) -> Result<Vec<Served>, Trouble> {
        match self.once(self.list_kinds(group, version)).await {
            Err(trouble) if trouble.code() == 404 => Ok(Vec::new()),
            answer => answer,
        }
    }

    /// Definitions of kinds that live in namespaces, and that are not among those that are known.
    async fn unlisted(&self, known: &HashSet<String>) -> Result<Vec<String>, Failure> {
        let (place, mut names) = self.definitions().await?;
        names.retain(|name| !known.contains(name));
        let mut unlisted = Vec::new();
        for name in names {
            let definition = self.get(&place, &definition_key(&name)).await?;
            if definition.is_some_and(|definition| has_objects_in_namespaces(&definition)) {
                unlisted.push(name);
            }
        }
        Ok(unlisted)
    }

    /// Objects of a definition's kind that are not in the inventory, `hello/pool`.
    pub(super) async fn foreign_of_kind(
        &self,
        definition: &Value,
        entries: &[Entry],
    ) -> Result<Vec<String>, Failure> {
        let text = |pointer: &str| {
            definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let Some(version) = served_versions(definition).first().copied() else { return Ok(Vec::new()) };
        let mut key = ObjectKey {
            group: text("/spec/group"),
            version: version.to_owned(),
            kind: text("/spec/names/kind"),
            namespace: String::new(),
            name: "*".to_owned(),
        };
        let Some(place) = self.everywhere(&key).await? else {
            let unlisted =
                format!("what cannot be listed (no {} {} is served now)", key.api_version(), key.kind);
            return Ok(if is_established(definition) { vec![unlisted] } else { Vec::new() });
        };
        let params = ListParams::default();
        let listed = self.tried(&key, || place.list_metadata(&params)).await;
        let listed = listed.map_err(|trouble| self.request_failure(&key, "list", &trouble))?;
        let mut foreign = Vec::new();
        for object in &listed {
            let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
            (key.namespace, key.name) = (text("namespace"), text("name"));
            if !entries.iter().any(|entry| entry.key.same_object(&key)) {
                let place =
                    if key.namespace.is_empty() { String::new() } else { format!("{}/", key.namespace) };
                foreign.push(format!("{} {place}{}", key.kind, key.name));
            }
        }
        Ok(foreign)
    }
}

/// Whether there may be objects of a definition in a namespace.
fn has_objects_in_namespaces(definition: &Value) -> bool {
    let is_namespaced = definition["spec"]["scope"] == "Namespaced";
    is_namespaced && is_established(definition) && !served_versions(definition).is_empty()
}

/// The first few, and how many more.
pub(super) fn some_of(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let more = names.len() - shown.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", shown.join(", "))
}

/// Those that nobody will clean up by himself: not made by Kubernetes in every namespace, not on their way out, not
/// owned by another object of the namespace (which counts itself), nor by one that is gone.
fn decide_foreign(found: &[(String, ObjectMeta)], accounts: &BTreeSet<&str>) -> Vec<String> {
    const BY_CONTROLLERS: [&str; 4] = ["Event", "Endpoints", "EndpointSlice", "Lease"];
    let mut seen = HashSet::new();
    let mut foreign = Vec::new();
    for (kind, metadata) in found {
        let name = metadata.name.as_deref().unwrap_or_default();
        let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name));
        let everywhere = match kind.as_str() {
            "ServiceAccount" => name == "default",
            "ConfigMap" => name == "kube-root-ca.crt",
            "Secret" => annotation("kubernetes.io/service-account.name")
                .is_some_and(|account| account == "default" || accounts.contains(account.as_str())),
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

    fn token(name: &str, account: &str) -> (String, ObjectMeta) {
        let mut token = object("Secret", name);
        let annotation = ("kubernetes.io/service-account.name".to_owned(), account.to_owned());
        token.1.annotations = Some([annotation].into());
        token
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
            object("Lease", "hello-leader"),
            pod,
            object("ConfigMap", "notes"),
            object("Secret", "mine"),
            token("default-token-1", "default"),
            token("hello-token-1", "hello"),
            token("other-token-1", "other"),
        ];
        let accounts = BTreeSet::from(["hello"]);
        assert_eq!(
            decide_foreign(&found, &accounts),
            ["ConfigMap notes", "Secret mine", "Secret other-token-1"]
        );
    }

    #[test]
    fn of_a_kind_that_was_served_there_may_be_objects() {
        let definition = |scope: &str, served: bool, status: &str| {
            let accepted = serde_json::json!({"type": "NamesAccepted", "status": "True"});
            serde_json::json!({
                "spec": {"scope": scope, "versions": [{"name": "v1", "served": served}]},
                "status": {"conditions": [accepted, {"type": "Established", "status": status}]},
            })
        };
        assert!(has_objects_in_namespaces(&definition("Namespaced", true, "True")));
        assert!(!has_objects_in_namespaces(&definition("Cluster", true, "True")));
        assert!(!has_objects_in_namespaces(&definition("Namespaced", false, "True")));
        assert!(!has_objects_in_namespaces(&definition("Namespaced", true, "False")));
        assert!(!is_established(&Value::Null));
    }

    #[test]
    fn of_many_the_first_are_named() {
        let names: Vec<String> = (1..=7).map(|number| format!("ConfigMap c{number}")).collect();
        assert!(some_of(&names).ends_with("ConfigMap c5 and 2 more"));
        assert_eq!(some_of(&names[..1]), "ConfigMap c1");
    }
}
