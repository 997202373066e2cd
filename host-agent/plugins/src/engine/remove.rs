//! Takes a plugin's objects away: the last one applied first, each by its UID, and waits until it is gone. Called
//! through [`Engine::remove`] and by pruning.

use k8sctl_types::failure::Failure;
use kube::Error;
use kube::api::{DeleteParams, Preconditions};

use super::apply::Ownership;
use super::{Engine, store_failure};
use crate::inventory::Entry;

impl Engine {
    /// Deletes everything in the inventory. A namespace that holds what is not ours is kept, and said.
    pub(crate) async fn remove(&self) -> Result<(), Failure> {
        let entries = self.inventory.entries().await.map_err(|error| store_failure(&self.plugin, &error))?;
        let is_namespace = |entry: &&Entry| entry.key.group.is_empty() && entry.key.kind == "Namespace";
        for entry in entries.iter().rev().filter(|entry| !is_namespace(entry)) {
            self.delete(entry).await?;
        }
        for entry in entries.iter().rev().filter(is_namespace) {
            let foreign = self.foreign_objects(&entry.key.name).await?;
            if foreign.is_empty() {
                self.delete(entry).await?;
                continue;
            }
            let shown: Vec<_> = foreign.iter().take(5).map(String::as_str).collect();
            let more = foreign.len() - shown.len();
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            self.say(format!("kept {}: it holds {}{more}", entry.key, shown.join(", ")));
            self.forget(entry).await?;
        }
        Ok(())
    }

    /// Deletes one object and waits until it is gone; `false`: there was nothing of ours to delete.
    pub(super) async fn delete(&self, entry: &Entry) -> Result<bool, Failure> {
        let key = &entry.key;
        // Without its definition a kind has no objects.
        let Some(api) = self.served(key).await? else {
            self.forget(entry).await?;
            return Ok(false);
        };
        let live = self.get(&api, key).await?;
        let uid = match self.decide_ownership(Some(entry), live.as_ref()) {
            Ownership::Ours => live.and_then(|live| live.metadata.uid).unwrap_or_default(),
            ownership => {
                if ownership == Ownership::Foreign {
                    self.say(format!("left {key}: it is not the one that this plugin made"));
                }
                self.forget(entry).await?;
                return Ok(false);
            }
        };
        let only_this = Preconditions { uid: Some(uid.clone()), resource_version: None };
        let params = DeleteParams::background().preconditions(only_this);
        match api.delete(&key.name, &params).await {
            Ok(_) => {}
            Err(Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(self.api_failure(key, "delete", &error)),
        }
        self.wait_gone(&api, key, &uid).await?;
        self.forget(entry).await?;
        self.say(format!("deleted {key}"));
        Ok(true)
    }

    async fn forget(&self, entry: &Entry) -> Result<(), Failure> {
        self.inventory.forget(&entry.key).await.map_err(|error| store_failure(&self.plugin, &error))
    }
}
