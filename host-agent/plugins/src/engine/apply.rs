//! Applies a checked plan: whose are the objects, then server-side apply in order, waiting where later objects
//! need earlier ones, then what the last plan had and this one does not. Called through [`Engine::install`].

use k8sctl_types::failure::Failure;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Engine, MANAGED_BY_LABEL, OWNER_ANNOTATION, PLUGIN_LABEL, store_failure};
use crate::inventory::Entry;
use crate::plan::{ObjectKey, Planned, ReadinessRule, rank};

/// Whose a live object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// There is none.
    Absent,
    /// We applied it.
    Ours,
    /// Somebody else made it.
    Foreign,
}

/// What an installation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) written: usize,
    pub(crate) unchanged: usize,
    pub(crate) pruned: usize,
}

impl Engine {
    /// Applies the plan and waits until all of it is ready. The inventory holds every key already.
    pub(crate) async fn install(
        &self,
        planned: &[Planned],
        rules: &[ReadinessRule],
    ) -> Result<Applied, Failure> {
        let entries = self.inventory.entries().await.map_err(|error| store_failure(&self.plugin, &error))?;
        self.check_ownership(planned, &entries).await?;

        let deadline = Instant::now() + self.limits.ready;
        let (first, rest): (Vec<_>, Vec<_>) = planned.iter().partition(|planned| rank(&planned.key) == 0);
        let mut applied = Applied::default();
        for (objects, prerequisite) in [(&first, true), (&rest, false)] {
            for planned in objects.iter() {
                match self.apply(planned, &entries, !prerequisite).await? {
                    true => applied.written += 1,
                    false => applied.unchanged += 1,
                }
            }
            self.wait_ready(objects, rules, deadline).await?;
        }
        applied.pruned = self.prune(planned, &entries).await?;
        Ok(applied)
    }

    /// Nothing is written while any object belongs to somebody else.
    async fn check_ownership(&self, planned: &[Planned], entries: &[Entry]) -> Result<(), Failure> {
        let mut foreign = Vec::new();
        for Planned { key, .. } in planned {
            // A kind that the plan itself brings is not served yet, so it has no objects.
            let Some(api) = self.served(key).await? else { continue };
            let mut live = self.get(&api, key).await?;
            if let Some(dying) = live.as_ref().filter(|live| live.metadata.deletion_timestamp.is_some()) {
                self.say(format!("waiting for the old {key} to be gone"));
                let uid = dying.metadata.uid.clone().unwrap_or_default();
                self.wait_gone(&api, key, &uid).await?;
                live = self.get(&api, key).await?;
            }
            if self.decide_ownership(entry_of(entries, key), live.as_ref()) == Ownership::Foreign {
                foreign.push(key.to_string());
            }
        }
        if foreign.is_empty() {
            return Ok(());
        }
        let reason =
            format!("objects of these names exist and were not made by this plugin: {}", foreign.join(", "));
        let next = "nothing was changed; rename or delete them, then run the same command again";
        Err(self.failure("PLUGIN-OBJECT-FOREIGN", reason, next))
    }

    /// By the UID that we noted; where an interrupted operation left none, by our annotation and field manager.
    pub(super) fn decide_ownership(&self, entry: Option<&Entry>, live: Option<&DynamicObject>) -> Ownership {
        let Some(live) = live else { return Ownership::Absent };
        let Some(entry) = entry else { return Ownership::Foreign };
        if entry.uid.is_some() && entry.uid == live.metadata.uid {
            return Ownership::Ours;
        }
        let annotations = live.metadata.annotations.as_ref();
        let annotated = annotations.and_then(|all| all.get(OWNER_ANNOTATION)) == Some(&self.owner);
        let managed = live.metadata.managed_fields.iter().flatten().any(|fields| {
            fields.manager.as_ref() == Some(&self.manager) && fields.operation.as_deref() == Some("Apply")
        });
        if annotated && managed { Ownership::Ours } else { Ownership::Foreign }
    }

    pub(super) async fn get(
        &self,
        api: &Api<DynamicObject>,
        key: &ObjectKey,
    ) -> Result<Option<DynamicObject>, Failure> {
        api.get_opt(&key.name).await.map_err(|error| self.api_failure(key, "read", &error))
    }

    /// Applies one object; `false`: it was as it should be, and nothing was written.
    async fn apply(
        &self,
        planned: &Planned,
        entries: &[Entry],
        wait_for_kind: bool,
    ) -> Result<bool, Failure> {
        let key = &planned.key;
        if wait_for_kind {
            self.wait_served(key).await?;
        }
        let api = self.api(key).await?;
        let live = self.get(&api, key).await?;
        let ours = match self.decide_ownership(entry_of(entries, key), live.as_ref()) {
            Ownership::Absent => None,
            Ownership::Ours => live,
            Ownership::Foreign => {
                let reason = format!("somebody else made {key} while this was installed");
                let next = "rename or delete it, then run the same command again";
                return Err(self.failure("PLUGIN-OBJECT-FOREIGN", reason, next));
            }
        };
        let mut wanted = self.with_marks(&planned.object);
        let params = PatchParams::apply(&self.manager).validation_strict();
        if let Some(live) = &ours {
            // The UID makes the server refuse where the object was replaced since we looked.
            wanted["metadata"]["uid"] = json!(live.metadata.uid);
            let would_be = api
                .patch(&key.name, &params.clone().dry_run(), &Patch::Apply(&wanted))
                .await
                .map_err(|error| self.api_failure(key, "apply", &error))?;
            if same(live, &would_be) {
                self.bind(key, live).await?;
                return Ok(false);
            }
        }
        let written = api
            .patch(&key.name, &params, &Patch::Apply(&wanted))
            .await
            .map_err(|error| self.api_failure(key, "apply", &error))?;
        self.bind(key, &written).await?;
        self.say(format!("{} {key}", if ours.is_some() { "changed" } else { "created" }));
        Ok(true)
    }

    fn with_marks(&self, object: &Value) -> Value {
        let mut object = object.clone();
        let mut mark = |map: &str, name: &str, value: &str| {
            let map = &mut object["metadata"][map];
            if !map.is_object() {
                *map = json!({});
            }
            map[name] = json!(value);
        };
        mark("labels", MANAGED_BY_LABEL, "k8sctl");
        mark("labels", PLUGIN_LABEL, &self.plugin);
        mark("annotations", OWNER_ANNOTATION, &self.owner);
        object
    }

    async fn bind(&self, key: &ObjectKey, live: &DynamicObject) -> Result<(), Failure> {
        let uid = live.metadata.uid.as_deref().unwrap_or_default();
        self.inventory.bind(key, uid).await.map_err(|error| store_failure(&self.plugin, &error))
    }

    /// Deletes what an earlier plan had and this one does not; never what holds other things or data.
    async fn prune(&self, planned: &[Planned], entries: &[Entry]) -> Result<usize, Failure> {
        const KEPT: [&str; 5] = [
            "Namespace",
            "CustomResourceDefinition",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "StorageClass",
        ];
        let mut pruned = 0;
        for entry in entries.iter().rev() {
            if planned.iter().any(|planned| planned.key.same_object(&entry.key)) {
                continue;
            }
            if KEPT.contains(&entry.key.kind.as_str()) {
                self.say(format!("kept {}: only `k8sctl plugin remove` deletes one", entry.key));
                continue;
            }
            pruned += usize::from(self.delete(entry).await?);
        }
        Ok(pruned)
    }
}

fn entry_of<'a>(entries: &'a [Entry], key: &ObjectKey) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key.same_object(key))
}

/// Do both say the same, apart from what the server counts?
fn same(live: &DynamicObject, would_be: &DynamicObject) -> bool {
    let bare = |object: &DynamicObject| {
        let mut object = object.clone();
        object.metadata.managed_fields = None;
        object.metadata.resource_version = None;
        object.metadata.generation = None;
        if let Some(data) = object.data.as_object_mut() {
            data.remove("status");
        }
        object
    };
    bare(live) == bare(would_be)
}
