//! Which objects a plugin made on a cluster, by UID, in the host agent's database. Written before the cluster is: an
//! object that was applied is never unknown here. Called by the engine, and by whoever begins an operation. The tables
//! are made in `records`.

use std::collections::BTreeSet;

use host_store::{Store, StoreError};
use k8sctl_types::failure::Failure;
use plugin_plan::ObjectKey;
use rusqlite::{Connection, ToSql, Transaction, named_params};

/// An object that we applied, or are about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which one.
    pub key: ObjectKey,
    /// `None`: we meant to apply it and do not know whether we did.
    pub uid: Option<String>,
    /// Digest of the planned object that was applied last; empty: none was.
    pub applied_sha256: String,
    /// `resourceVersion` that was seen last with nothing of ours changed; empty: none was.
    pub seen_version: String,
    /// `metadata.generation` that our last write returned.
    pub generation: Option<i64>,
    /// Never pruned or removed.
    pub keep: bool,
}

/// What is known of an object after it was written, or was found to be as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its UID.
    pub uid: String,
    /// Digest of the planned object.
    pub applied_sha256: String,
    /// Its `resourceVersion`.
    pub seen_version: String,
    /// Its `metadata.generation`.
    pub generation: Option<i64>,
}

/// The rows of one plugin on one cluster.
#[derive(Clone, Debug)]
pub struct Inventory {
    store: Store,
    cluster_id: String,
    plugin: String,
}

/// One object of one plugin on one cluster.
const ONE: &str = "cluster_id = :cluster AND plugin = :plugin AND api_group = :group AND kind = :kind
                   AND namespace = :namespace AND name = :name";

impl Inventory {
    /// The rows of this plugin on this cluster, whether there are any or not.
    pub fn new(store: Store, cluster_id: &str, plugin: &str) -> Self {
        Self { store, cluster_id: cluster_id.to_owned(), plugin: plugin.to_owned() }
    }

    /// All entries in the order in which they were applied.
    pub async fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let (cluster_id, plugin) = (self.cluster_id.clone(), self.plugin.clone());
        self.store
            .call(move |connection| {
                let mut query = connection.prepare(
                    "SELECT api_group, version, kind, namespace, name, uid, applied_sha256, seen_version,
                            generation, keep
                     FROM plugin_object WHERE cluster_id = ?1 AND plugin = ?2 ORDER BY position, rowid",
                )?;
                let rows = query.query_map([cluster_id, plugin], |row| {
                    let key = ObjectKey {
                        group: row.get(0)?,
                        version: row.get(1)?,
                        kind: row.get(2)?,
                        namespace: row.get(3)?,
                        name: row.get(4)?,
                    };
                    Ok(Entry {
                        key,
                        uid: row.get(5)?,
                        applied_sha256: row.get(6)?,
                        seen_version: row.get(7)?,
                        generation: row.get(8)?,
                        keep: row.get(9)?,
                    })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The union: the keys of this revision, and whether each is kept for ever, beside all that is there. What is there
    /// keeps its UID; nothing is forgotten. Within the transaction that begins the operation. Blocking.
    pub fn expect(
        transaction: &Transaction<'_>,
        cluster_id: &str,
        plugin: &str,
        revision: u64,
        keys: &[(ObjectKey, bool)],
    ) -> rusqlite::Result<()> {
        let mut insert = transaction.prepare(
            "INSERT INTO plugin_object
                 (cluster_id, plugin, api_group, version, kind, namespace, name, position, revision, keep)
             VALUES (:cluster, :plugin, :group, :version, :kind, :namespace, :name, :position, :revision, :keep)
             ON CONFLICT DO UPDATE SET version = :version, position = :position, revision = :revision, keep = :keep",
        )?;
        for (position, (key, keep)) in keys.iter().enumerate() {
            insert.execute(named_params! {
                ":cluster": cluster_id,
                ":plugin": plugin,
                ":group": key.group,
                ":version": key.version,
                ":kind": key.kind,
                ":namespace": key.namespace,
                ":name": key.name,
                ":position": position as i64,
                ":revision": i64::try_from(revision).unwrap_or(i64::MAX),
                ":keep": keep,
            })?;
        }
        Ok(())
    }

    /// The object exists, is ours, and is as it was planned.
    pub async fn bind(&self, key: &ObjectKey, bound: &Bound) -> Result<(), StoreError> {
        let bound = bound.clone();
        self.on_object(key, move |connection, one| {
            let sql = format!(
                "UPDATE plugin_object SET uid = :uid, applied_sha256 = :applied, seen_version = :seen,
                 generation = :generation WHERE {ONE}"
            );
            let more: [(&str, &dyn ToSql); 4] = [
                (":uid", &bound.uid),
                (":applied", &bound.applied_sha256),
                (":seen", &bound.seen_version),
                (":generation", &bound.generation),
            ];
            let all: Vec<_> = one.iter().copied().chain(more).collect();
            connection.execute(&sql, all.as_slice()).map(drop)
        })
        .await
    }

    /// These were seen with these versions, and nothing of ours was changed in them.
    pub async fn saw(&self, seen: Vec<(ObjectKey, String)>) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        let (cluster_id, plugin) = (self.cluster_id.clone(), self.plugin.clone());
        self.store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                let sql = format!("UPDATE plugin_object SET seen_version = :seen WHERE {ONE}");
                let mut update = transaction.prepare(&sql)?;
                for (key, version) in &seen {
                    update.execute(named_params! {
                        ":cluster": cluster_id,
                        ":plugin": plugin,
                        ":group": key.group,
                        ":kind": key.kind,
                        ":namespace": key.namespace,
                        ":name": key.name,
                        ":seen": version,
                    })?;
                }
                drop(update);
                Ok(transaction.commit()?)
            })
            .await
    }

    /// The object is gone, or was never ours.
    pub async fn forget(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.on_object(key, |connection, one| {
            connection.execute(&format!("DELETE FROM plugin_object WHERE {ONE}"), one).map(drop)
        })
        .await
    }

    async fn on_object(
        &self,
        key: &ObjectKey,
        work: impl FnOnce(&Connection, &[(&str, &dyn ToSql)]) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (cluster_id, plugin, key) = (self.cluster_id.clone(), self.plugin.clone(), key.clone());
        self.store
            .call(move |connection| {
                let one: [(&str, &dyn ToSql); 6] = [
                    (":cluster", &cluster_id),
                    (":plugin", &plugin),
                    (":group", &key.group),
                    (":kind", &key.kind),
                    (":namespace", &key.namespace),
                    (":name", &key.name),
                ];
                Ok(work(connection, &one)?)
            })
            .await
    }

    /// How often a change of this manager to this object was undone since then, in ms since the epoch.
    pub async fn corrections(
        &self,
        key: &ObjectKey,
        manager: &str,
        since_ms: i64,
    ) -> Result<u32, StoreError> {
        let (cluster_id, plugin, key, manager) =
            (self.cluster_id.clone(), self.plugin.clone(), key.clone(), manager.to_owned());
        self.store
            .call(move |connection| {
                let sql = format!(
                    "SELECT count(*) FROM plugin_drift WHERE {ONE} AND manager = :manager AND at_ms >= :since"
                );
                let counted = connection.query_row(
                    &sql,
                    named_params! {
                        ":cluster": cluster_id,
                        ":plugin": plugin,
                        ":group": key.group,
                        ":kind": key.kind,
                        ":namespace": key.namespace,
                        ":name": key.name,
                        ":manager": manager,
                        ":since": since_ms,
                    },
                    |row| row.get(0),
                );
                Ok(counted?)
            })
            .await
    }

    /// A change of this manager was undone. Forgets corrections of this plugin that are older than an hour.
    pub async fn corrected(&self, key: &ObjectKey, manager: &str, at_ms: i64) -> Result<(), StoreError> {
        const FORGOTTEN_MS: i64 = 3_600_000;
        let (cluster_id, plugin, key, manager) =
            (self.cluster_id.clone(), self.plugin.clone(), key.clone(), manager.to_owned());
        self.store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                transaction.execute(
                    "DELETE FROM plugin_drift WHERE cluster_id = ?1 AND plugin = ?2 AND at_ms < ?3",
                    rusqlite::params![cluster_id, plugin, at_ms - FORGOTTEN_MS],
                )?;
                transaction.execute(
                    "INSERT INTO plugin_drift (cluster_id, plugin, api_group, kind, namespace, name, manager, at_ms)
                     VALUES (:cluster, :plugin, :group, :kind, :namespace, :name, :manager, :at)",
                    named_params! {
                        ":cluster": cluster_id,
                        ":plugin": plugin,
                        ":group": key.group,
                        ":kind": key.kind,
                        ":namespace": key.namespace,
                        ":name": key.name,
                        ":manager": manager,
                        ":at": at_ms,
                    },
                )?;
                Ok(transaction.commit()?)
            })
            .await
    }

    /// The service accounts among the entries: (namespace, name).
    pub async fn accounts(&self) -> Result<BTreeSet<(String, String)>, StoreError> {
        let accounts = self.entries().await?.into_iter().map(|entry| entry.key);
        Ok(accounts
            .filter(|key| key.group.is_empty() && key.kind == "ServiceAccount")
            .map(|key| (key.namespace, key.name))
            .collect())
    }
}

/// The database could not keep the inventory.
pub fn store_failure(plugin: &str, error: &StoreError) -> Failure {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::new(
        "PLUGIN-STORE",
        format!("plugin {plugin}"),
        format!("{error}{cause}"),
        "see that the host agent's state directory has space and is writable, then run the same command again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            group: String::new(),
            version: "v1".to_owned(),
            kind: "ServiceAccount".to_owned(),
            namespace: "hello".to_owned(),
            name: name.to_owned(),
        }
    }

    fn inventory() -> (Store, Inventory) {
        let store = Store::in_memory(&[crate::SCHEMA]).expect("a database in memory");
        (store.clone(), Inventory::new(store, "c", "hello"))
    }

    fn expect(store: &Store, revision: u64, names: &[&str]) {
        let keys: Vec<_> = names.iter().map(|name| (key(name), *name == "kept")).collect();
        let begun = store.call_blocking(|connection| -> Result<(), StoreError> {
            let transaction = connection.transaction()?;
            Inventory::expect(&transaction, "c", "hello", revision, &keys)?;
            Ok(transaction.commit()?)
        });
        begun.expect("it is written");
    }

    #[tokio::test]
    async fn what_is_expected_is_a_union_that_keeps_what_is_known() {
        let (store, inventory) = inventory();
        expect(&store, 1, &["a", "kept"]);
        let bound = Bound {
            uid: "u".to_owned(),
            applied_sha256: "d".to_owned(),
            seen_version: "7".to_owned(),
            generation: Some(3),
        };
        inventory.bind(&key("a"), &bound).await.expect("it is bound");
        inventory.saw(vec![(key("a"), "8".to_owned())]).await.expect("it is noted");
        expect(&store, 2, &["b", "a"]);
        let entries = inventory.entries().await.expect("they are read");
        let names: BTreeSet<_> = entries.iter().map(|entry| entry.key.name.as_str()).collect();
        assert_eq!(names, BTreeSet::from(["a", "b", "kept"]));
        let of = |name: &str| entries.iter().find(|entry| entry.key.name == name).expect("it is there");
        assert_eq!((of("a").uid.as_deref(), of("a").generation), (Some("u"), Some(3)));
        assert_eq!((of("a").applied_sha256.as_str(), of("a").seen_version.as_str()), ("d", "8"));
        assert!(of("kept").keep && !of("b").keep && of("b").uid.is_none());
        assert_eq!(inventory.accounts().await.expect("they are read").len(), 3);
        inventory.forget(&key("a")).await.expect("it is forgotten");
        assert_eq!(inventory.entries().await.expect("they are read").len(), 2);
        let other = Inventory::new(store, "c", "other");
        assert!(other.entries().await.expect("they are read").is_empty());
    }

    #[tokio::test]
    async fn corrections_count_by_object_manager_and_time() {
        let (_, inventory) = inventory();
        for (name, manager, at) in
            [("a", "x", 1_000), ("a", "x", 2_000), ("a", "y", 2_000), ("b", "x", 2_000)]
        {
            inventory.corrected(&key(name), manager, at).await.expect("it is noted");
        }
        let count =
            async |since| inventory.corrections(&key("a"), "x", since).await.expect("they are counted");
        assert_eq!((count(0).await, count(1_500).await, count(2_001).await), (2, 1, 0));
        inventory.corrected(&key("a"), "x", 4_000_000).await.expect("it is noted");
        assert_eq!(count(0).await, 1, "what is older than an hour is forgotten");
    }
}
