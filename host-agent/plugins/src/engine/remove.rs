//! Takes a plugin's objects away: what others judge or serve first, each by its UID, and waits until it is gone. Called
//! by the host for a whole plugin, and by pruning.
//!
//! A workload counts as gone when its pods are: the controller of namespaces looks at one that still has pods only after
//! a pause that grows to a minute, so that a namespace is deleted when there is no pod in it any more.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8sctl_types::failure::Failure;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use plugin_plan::ObjectKey;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::explain::{leaving_all, selector_of};
use super::foreign::some_of;
use super::meta::{Ownership, decide_ownership};
use super::request::{Place, Trouble};
use super::wait::Gone;
use super::{Engine, READS, all_of};
use crate::inventory::Entry;

/// Between two looks at pods that are to go.
const LOOK: Duration = Duration::from_secs(1);
/// Pods that nobody has begun to delete so long after their workload went, nobody will.
const COLLECTED: Duration = Duration::from_secs(30);

/// What a removal left where it is, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// `v1 Namespace hello: it holds ConfigMap notes`
    pub kept: Vec<String>,
}

/// In which order kinds go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Custom,
    Admission,
    Workloads,
    Network,
    Settings,
    Accounts,
    Classes,
    Definitions,
    Namespaces,
}

const TURNS: [Turn; 7] = [
    Turn::Custom,
    Turn::Admission,
    Turn::Workloads,
    Turn::Network,
    Turn::Settings,
    Turn::Accounts,
    Turn::Classes,
];

fn turn(key: &ObjectKey) -> Turn {
    if key.is_namespace() {
        return Turn::Namespaces;
    }
    if key.is_definition() {
        return Turn::Definitions;
    }
    if key.is_custom() {
        return Turn::Custom;
    }
    match (key.group.as_str(), key.kind.as_str()) {
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Turn::Admission,
        (_, "PriorityClass" | "StorageClass" | "IngressClass" | "RuntimeClass" | "CSIDriver") => {
            Turn::Classes
        }
        ("", "ServiceAccount") | ("rbac.authorization.k8s.io", _) => Turn::Accounts,
        ("", "ConfigMap" | "Secret" | "ResourceQuota" | "LimitRange") => Turn::Settings,
        (_, "NetworkPolicy" | "PodDisruptionBudget") => Turn::Settings,
        ("", "Service" | "PersistentVolume" | "PersistentVolumeClaim") | (_, "Ingress") => Turn::Network,
        _ => Turn::Workloads,
    }
}

fn holds_data(key: &ObjectKey) -> bool {
    key.group.is_empty() && matches!(key.kind.as_str(), "PersistentVolume" | "PersistentVolumeClaim")
}

/// Pods that have to be gone: of a namespace, with these labels, whose controller is one of these. `None`: all.
struct PodsOf<'a> {
    namespace: &'a str,
    labels: Option<String>,
    controllers: Option<HashSet<String>>,
}

impl Engine {
    /// Deletes everything in the inventory. What holds data is kept, and so is what holds others' things; with `purge`
    /// both go. What is kept stays in the inventory, so that a removal that was interrupted tells of it again; whoever
    /// ends the installation forgets it.
    pub async fn remove(&self, purge: bool) -> Result<Removed, Failure> {
        self.wait_started().await;
        let entries = self.entries().await?;
        let (mut kept, mut doomed): (Vec<(&Entry, String)>, Vec<Entry>) = (Vec::new(), Vec::new());
        for entry in &entries {
            if entry.keep {
                kept.push((entry, "the plugin wants it kept".to_owned()));
            } else if holds_data(&entry.key) && !purge {
                kept.push((entry, "it holds data".to_owned()));
            } else if turn(&entry.key) < Turn::Definitions {
                doomed.push(entry.clone());
            }
        }
        self.take_away(&doomed).await?;
        let rest = || entries.iter().rev().filter(|entry| !entry.keep);
        for entry in rest().filter(|entry| turn(&entry.key) == Turn::Definitions) {
            if let Some(why) = self.remove_definition(entry, &entries, purge).await? {
                kept.push((entry, why));
            }
        }
        for entry in rest().filter(|entry| turn(&entry.key) == Turn::Namespaces) {
            if let Some(why) = self.remove_namespace(entry, &entries, purge).await? {
                kept.push((entry, why));
            }
        }
        let mut removed = Removed::default();
        for (entry, why) in kept {
            let line = format!("{}: {why}", entry.key);
            self.say(format!("kept {line}"));
            removed.kept.push(line);
        }
        self.progress.blocked(None);
        Ok(removed)
    }

    /// `Some`: why it stays.
    async fn remove_definition(
        &self,
        entry: &Entry,
        entries: &[Entry],
        purge: bool,
    ) -> Result<Option<String>, Failure> {
        if let Some((_, live)) = self.find(&entry.key).await? {
            let foreign = self.foreign_of_kind(&live, entries).await?;
            if !foreign.is_empty() && !purge {
                return Ok(Some(format!("others have objects of it: {}", some_of(&foreign))));
            }
        }
        self.take_away_one(entry).await.map(|_| None)
    }

    /// `Some`: why it stays.
    async fn remove_namespace(
        &self,
        entry: &Entry,
        entries: &[Entry],
        purge: bool,
    ) -> Result<Option<String>, Failure> {
        let namespace = entry.key.name.as_str();
        let is_account = |entry: &&Entry| {
            entry.key.group.is_empty()
                && entry.key.kind == "ServiceAccount"
                && entry.key.namespace == namespace
        };
        let accounts: BTreeSet<&str> =
            entries.iter().filter(is_account).map(|entry| entry.key.name.as_str()).collect();
        let foreign = self.foreign_objects(namespace, &accounts).await?;
        if !foreign.is_empty() && !purge {
            return Ok(Some(format!("it holds {}", some_of(&foreign))));
        }
        if foreign.is_empty() {
            let pods = PodsOf { namespace, labels: None, controllers: None };
            self.wait_pods_gone(&entry.key, &pods).await?;
        } else {
            self.say(format!("{} goes with {}", entry.key, some_of(&foreign)));
        }
        self.take_away_one(entry).await.map(|_| None)
    }

    /// Deletes these, what depends on others before these others, and waits until they are gone; how many there were.
    pub(super) async fn take_away(&self, entries: &[Entry]) -> Result<usize, Failure> {
        let mut gone = 0;
        for now in TURNS {
            let mut asked = Vec::new();
            for entry in entries.iter().rev().filter(|entry| turn(&entry.key) == now) {
                asked.push(self.take_away_one(entry));
            }
            // What is given up in between is in the inventory still.
            let answers = all_of(READS, asked).await?;
            gone += answers.into_iter().filter(|gone| *gone).count();
        }
        Ok(gone)
    }

    /// Deletes one object and waits until it, and the pods that it had, are gone; `false`: there was nothing of ours to
    /// delete.
    async fn take_away_one(&self, entry: &Entry) -> Result<bool, Failure> {
        let key = &entry.key;
        let Some((place, live)) = self.find(key).await? else {
            self.forget(entry).await?;
            return Ok(false);
        };
        let meta = self.meta_of(&live);
        if decide_ownership(Some(entry), Some(&meta)) == Ownership::Foreign {
            self.say(format!("left {key}: it is not the one that this plugin made"));
            self.forget(entry).await?;
            return Ok(false);
        }
        let pods = self.pods_of(key, &live, &meta.uid).await?;
        self.delete_one(&place, key, &meta.uid, DeleteParams::background()).await?;
        self.wait_gone(&place, key, &meta.uid, Gone::Deleted).await?;
        if let Some(pods) = pods {
            self.wait_pods_gone(key, &pods).await?;
        }
        (self.points)("after-delete");
        self.forget(entry).await?;
        self.say(format!("deleted {key}"));
        Ok(true)
    }

    async fn forget(&self, entry: &Entry) -> Result<(), Failure> {
        self.inventory.forget(&entry.key).await.map_err(|error| self.store_failure(&error))
    }

    /// The pods of a workload, by who controls them: what is between the two is asked for before it goes.
    async fn pods_of<'a>(
        &self,
        key: &'a ObjectKey,
        live: &Value,
        uid: &str,
    ) -> Result<Option<PodsOf<'a>>, Failure> {
        let between = match (key.group.as_str(), key.kind.as_str()) {
            ("apps", "Deployment") => Some(("apps", "ReplicaSet")),
            ("batch", "CronJob") => Some(("batch", "Job")),
            ("apps", "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") => None,
            _ => return Ok(None),
        };
        let mut controllers = HashSet::from([uid.to_owned()]);
        if let Some((group, kind)) = between {
            let between = ObjectKey {
                group: group.to_owned(),
                version: "v1".to_owned(),
                kind: kind.to_owned(),
                namespace: key.namespace.clone(),
                name: "*".to_owned(),
            };
            let place: Place = self.place(&between).await?;
            let params = ListParams::default();
            let listed = self.tried(&between, || place.list_metadata(&params)).await;
            let listed = listed.map_err(|trouble| self.request_failure(&between, "list", &trouble))?;
            let is_of = |object: &&Value| {
                let owners = object["metadata"]["ownerReferences"].as_array();
                owners.into_iter().flatten().any(|owner| owner["uid"] == uid)
            };
            let uids = listed.iter().filter(is_of).filter_map(|object| object["metadata"]["uid"].as_str());
            controllers.extend(uids.map(str::to_owned));
        }
        Ok(Some(PodsOf {
            namespace: &key.namespace,
            labels: selector_of(live),
            controllers: Some(controllers),
        }))
    }

    /// Until there is none of these pods; of which none is being deleted, nobody will delete them, and they are not
    /// waited for.
    async fn wait_pods_gone(&self, key: &ObjectKey, pods: &PodsOf<'_>) -> Result<(), Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pods.namespace);
        let params = ListParams { label_selector: pods.labels.clone(), ..ListParams::default() };
        let (begun, deadline) = (Instant::now(), self.gone_by());
        let mut said = String::new();
        loop {
            let listed = self.tried(key, || async { api.list(&params).await.map_err(Trouble::from) }).await;
            let listed = listed.map_err(|trouble| self.request_failure(key, "list the pods of", &trouble))?;
            let left: Vec<Pod> = listed.items.into_iter().filter(|pod| is_among(pod, pods)).collect();
            let is_leaving = left.iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
            let is_left = !is_leaving && begun.elapsed() >= COLLECTED.min(self.limits.gone);
            if left.is_empty() || is_left {
                self.progress.blocked(None);
                return Ok(());
            }
            let held = leaving_all(&left);
            if Instant::now() >= deadline {
                let reason =
                    format!("the pods of {key} are still there after {:?}: {held}", self.limits.gone);
                let next = "see to that, then run the same command again: it goes on from here";
                return Err(self.failure("PLUGIN-NOT-GONE", reason, next));
            }
            let line = format!("waiting until the pods of {key} are gone: {held}");
            if line != said {
                self.say(&line);
                self.tell_blocking(key, &held, None);
                said = line;
            }
            sleep(LOOK).await;
        }
    }
}

fn is_among(pod: &Pod, pods: &PodsOf<'_>) -> bool {
    let Some(controllers) = &pods.controllers else { return true };
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.any(|owner| controllers.contains(&owner.uid))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn key(group: &str, kind: &str) -> ObjectKey {
        ObjectKey {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            namespace: String::new(),
            name: "x".to_owned(),
        }
    }

    #[test]
    fn what_serves_others_goes_after_them() {
        let order = [
            key("metallb.io", "IPAddressPool"),
            key("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
            key("apps", "Deployment"),
            key("", "Service"),
            key("", "Secret"),
            key("rbac.authorization.k8s.io", "ClusterRole"),
            key("storage.k8s.io", "StorageClass"),
            key("apiextensions.k8s.io", "CustomResourceDefinition"),
            key("", "Namespace"),
        ];
        let turns: Vec<Turn> = order.iter().map(turn).collect();
        assert!(turns.windows(2).all(|pair| pair[0] < pair[1]), "{turns:?}");
        assert!(TURNS.iter().all(|turn| *turn < Turn::Definitions), "these two have ways of their own");
    }

    #[test]
    fn pods_are_a_workloads_by_their_controller() {
        let owner = OwnerReference { uid: "rs".to_owned(), ..OwnerReference::default() };
        let mut pod = Pod::default();
        let of = |controllers: Option<&str>| PodsOf {
            namespace: "n",
            labels: None,
            controllers: controllers.map(|uid| HashSet::from([uid.to_owned()])),
        };
        assert!(is_among(&pod, &of(None)) && !is_among(&pod, &of(Some("rs"))));
        pod.metadata.owner_references = Some(vec![owner]);
        assert!(is_among(&pod, &of(Some("rs"))) && !is_among(&pod, &of(Some("other"))));
    }
}
