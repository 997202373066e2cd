//! From an object's key to the place where the API serves it. Asks for one group version at a time and keeps what it
//! learned: what is served stays, what is not may come. Called by the rest of the engine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8sctl_types::failure::Failure;
use kube::core::discovery::ApiResource;
use plugin_plan::ObjectKey;
use tokio::time::Instant;

use super::request::{Place, Trouble};
use super::{Engine, READS, all_of};

/// Between two looks for a kind that is to come, at first and at most. Discovery has no events.
const LOOKS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// A kind that the API serves.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) resource: ApiResource,
    pub(super) namespaced: bool,
    pub(super) verbs: Vec<String>,
}

/// What is known of group versions, by `apps/v1`.
#[derive(Default)]
pub(super) struct Kinds {
    known: Mutex<HashMap<String, Arc<Vec<Served>>>>,
}

impl Kinds {
    fn get(&self, version: &str) -> Option<Arc<Vec<Served>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(version).cloned()
    }

    fn put(&self, version: &str, served: Arc<Vec<Served>>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(version.to_owned(), served);
    }
}

impl Engine {
    /// Asks for every group version of these once, so that nobody asks twice at the same time.
    pub(super) async fn learn_kinds(&self, keys: impl Iterator<Item = &ObjectKey>) {
        let mut versions: HashMap<String, &ObjectKey> = HashMap::new();
        for key in keys {
            versions.entry(key.api_version()).or_insert(key);
        }
        let mut asked = Vec::new();
        for key in versions.into_values() {
            asked.push(self.kind(key, false));
        }
        // What went wrong goes wrong again for each object, and is told then.
        let _ = all_of(READS, asked).await;
    }

    /// Where an object is, or `None` where the cluster has no such kind.
    pub(super) async fn served(&self, key: &ObjectKey) -> Result<Option<Place>, Failure> {
        let Some(kind) = self.kind_now(key).await? else { return Ok(None) };
        match (kind.namespaced, key.namespace.is_empty()) {
            (false, true) => Ok(Some(Place::new(&self.client, &kind.resource, None))),
            (true, false) => Ok(Some(Place::new(&self.client, &kind.resource, Some(&key.namespace)))),
            (namespaced, _) => {
                let scope = if namespaced { "has" } else { "does not have" };
                let reason = format!("{key} has a wrong namespace: its kind {scope} one");
                let next = "nothing of it was applied; report this to the plugin's author";
                Err(self.failure("PLUGIN-OBJECT-INVALID", reason, next))
            }
        }
    }

    /// Where an object is; a kind that is not served is a failure.
    pub(super) async fn place(&self, key: &ObjectKey) -> Result<Place, Failure> {
        self.served(key).await?.ok_or_else(|| self.unknown_kind(key))
    }

    /// The same of a kind whose definition was established a moment ago.
    pub(super) async fn place_soon(&self, key: &ObjectKey) -> Result<Place, Failure> {
        let deadline = Instant::now() + self.limits.kind;
        let mut pause = LOOKS.0;
        loop {
            if let Some(place) = self.served(key).await? {
                return Ok(place);
            }
            if !key.is_custom() || Instant::now() >= deadline {
                return Err(self.unknown_kind(key));
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LOOKS.1);
        }
    }

    pub(super) fn unknown_kind(&self, key: &ObjectKey) -> Failure {
        let reason = format!("this cluster serves no {} {}", key.api_version(), key.kind);
        let next = "install the plugin that brings this kind, or a newer Kubernetes";
        self.failure("PLUGIN-KIND-UNKNOWN", reason, next)
    }

    /// All objects of a kind, in all namespaces.
    pub(super) async fn everywhere(&self, key: &ObjectKey) -> Result<Option<Place>, Failure> {
        let kind = self.kind_now(key).await?;
        Ok(kind.map(|kind| Place::new(&self.client, &kind.resource, None)))
    }

    async fn kind_now(&self, key: &ObjectKey) -> Result<Option<Served>, Failure> {
        if let Some(kind) = self.kind(key, false).await? {
            return Ok(Some(kind));
        }
        // A server that has just started does not know its custom kinds yet, and says so by 404.
        self.wait_started().await;
        self.kind(key, true).await
    }

    /// A kind; with `anew` what was learned before counts only where it has the kind.
    async fn kind(&self, key: &ObjectKey, anew: bool) -> Result<Option<Served>, Failure> {
        let version = key.api_version();
        let find = |all: &[Served]| all.iter().find(|served| served.resource.kind == key.kind).cloned();
        if let Some(known) = self.kinds.get(&version) {
            if let Some(found) = find(&known) {
                return Ok(Some(found));
            }
            if !anew {
                return Ok(None);
            }
        }
        let asked = || self.list_kinds(&key.group, &key.version);
        match self.tried(key, asked).await {
            Ok(all) => {
                let all = Arc::new(all);
                self.kinds.put(&version, all.clone());
                Ok(find(&all))
            }
            Err(trouble) if trouble.code() == 404 => Ok(None),
            Err(trouble) => Err(self.request_failure(key, "find the kind of", &trouble)),
        }
    }

    /// The kinds of a group version.
    pub(super) async fn list_kinds(&self, group: &str, version: &str) -> Result<Vec<Served>, Trouble> {
        let list = if group.is_empty() {
            self.client.list_core_api_resources(version).await
        } else {
            self.client.list_api_group_resources(&format!("{group}/{version}")).await
        };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let kinds = list.map_err(kind_trouble)?.resources.into_iter();
        Ok(kinds
            .filter(|resource| !resource.name.contains('/'))
            .map(|resource| Served {
                namespaced: resource.namespaced,
                verbs: resource.verbs,
                resource: ApiResource {
                    group: group.to_owned(),
                    version: version.to_owned(),
                    api_version: api_version.clone(),
                    kind: resource.kind,
                    plural: resource.name,
                },
            })
            .collect())
    }
}

/// A group version that is not there is an answer, and not a path that will be there in a moment.
fn kind_trouble(error: kube::Error) -> Trouble {
    match Trouble::from(error) {
        Trouble::Refused(mut status) if status.code == 404 => {
            status.reason = "NotFound".to_owned();
            Trouble::Refused(status)
        }
        other => other,
    }
}
