//! What is installed and which objects that made, by UID, in the host agent's database. Written before the cluster
//! is: an object that was applied is never unknown here. Called by [`crate::host`] and the engine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use host_store::{Schema, Store, StoreError};
use rusqlite::{OptionalExtension, Row, params};

use crate::plan::ObjectKey;
use crate::status::PluginState;

/// The tables of this room; given to [`Store::open`].
pub const SCHEMA: Schema = Schema {
    room: "plugins",
    steps: &["
        CREATE TABLE plugin_install (
            cluster_id    TEXT NOT NULL,
            plugin        TEXT NOT NULL,
            version       TEXT NOT NULL,
            binary_sha256 TEXT NOT NULL,
            config_json   TEXT NOT NULL,
            state         TEXT NOT NULL,
            message       TEXT NOT NULL,
            installed_ms  INTEGER,
            PRIMARY KEY (cluster_id, plugin)
        ) STRICT;
        CREATE TABLE plugin_object (
            cluster_id TEXT NOT NULL,
            plugin     TEXT NOT NULL,
            api_group  TEXT NOT NULL,
            version    TEXT NOT NULL,
            kind       TEXT NOT NULL,
            namespace  TEXT NOT NULL,
            name       TEXT NOT NULL,
            position   INTEGER NOT NULL,
            uid        TEXT,
            PRIMARY KEY (cluster_id, plugin, api_group, kind, namespace, name)
        ) STRICT;
    "],
};

/// One plugin on one cluster, as stored.
#[derive(Clone, Debug)]
pub(crate) struct Install {
    pub(crate) plugin: String,
    pub(crate) version: String,
    pub(crate) state: PluginState,
    pub(crate) message: String,
    pub(crate) installed: Option<SystemTime>,
    pub(crate) objects: u32,
}

/// An object that we applied, or are about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: ObjectKey,
    /// `None`: we meant to apply it and do not know whether we did.
    pub(crate) uid: Option<String>,
}

/// The rows of one plugin on one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Inventory {
    store: Store,
    cluster_id: String,
    plugin: String,
}

const INSTALL: &str = "SELECT i.plugin, i.version, i.state, i.message, i.installed_ms,
    (SELECT count(*) FROM plugin_object o WHERE o.cluster_id = i.cluster_id AND o.plugin = i.plugin)
    FROM plugin_install i WHERE i.cluster_id = ?1";

/// Every plugin that is, or was meant to be, on a cluster.
pub(crate) async fn installs(store: &Store, cluster_id: &str) -> Result<Vec<Install>, StoreError> {
    let cluster_id = cluster_id.to_owned();
    store
        .call(move |connection| {
            let mut query = connection.prepare(&format!("{INSTALL} ORDER BY i.plugin"))?;
            let rows = query.query_map([cluster_id], install)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
}

impl Inventory {
    pub(crate) fn new(store: Store, cluster_id: &str, plugin: &str) -> Self {
        Self { store, cluster_id: cluster_id.to_owned(), plugin: plugin.to_owned() }
    }

    /// The installation, if there is one.
    pub(crate) async fn install(&self) -> Result<Option<Install>, StoreError> {
        let (cluster_id, plugin) = (self.cluster_id.clone(), self.plugin.clone());
        self.store
            .call(move |connection| {
                let query = format!("{INSTALL} AND i.plugin = ?2");
                Ok(connection.query_row(&query, [cluster_id, plugin], install).optional()?)
            })
            .await
    }

    /// An installation begins: one transaction for it and for every object that it will apply. What is there
    /// already keeps its UID; nothing is forgotten.
    pub(crate) async fn begin(
        &self,
        version: &str,
        binary_sha256: &str,
        config_json: &str,
        keys: Vec<ObjectKey>,
    ) -> Result<(), StoreError> {
        let (cluster_id, plugin) = (self.cluster_id.clone(), self.plugin.clone());
        let (version, binary_sha256) = (version.to_owned(), binary_sha256.to_owned());
        let config_json = config_json.to_owned();
        self.store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                transaction.execute(
                    "INSERT INTO plugin_install VALUES (?1, ?2, ?3, ?4, ?5, 'Installing', '', NULL)
                     ON CONFLICT DO UPDATE SET version = ?3, binary_sha256 = ?4, config_json = ?5,
                     state = 'Installing', message = ''",
                    params![cluster_id, plugin, version, binary_sha256, config_json],
                )?;
                for (position, key) in keys.iter().enumerate() {
                    transaction.execute(
                        "INSERT INTO plugin_object VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL)
                         ON CONFLICT DO UPDATE SET version = ?4, position = ?8",
                        params![
                            cluster_id,
                            plugin,
                            key.group,
                            key.version,
                            key.kind,
                            key.namespace,
                            key.name,
                            position as i64
                        ],
                    )?;
                }
                Ok(transaction.commit()?)
            })
            .await
    }

    /// Sets the state; `Ready` sets the time of installation the first time.
    pub(crate) async fn set_state(&self, state: PluginState, message: &str) -> Result<(), StoreError> {
        let (cluster_id, plugin, message) =
            (self.cluster_id.clone(), self.plugin.clone(), message.to_owned());
        let now = (state == PluginState::Ready).then(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
        self.store
            .call(move |connection| {
                connection.execute(
                    "UPDATE plugin_install SET state = ?3, message = ?4, installed_ms = coalesce(installed_ms, ?5)
                     WHERE cluster_id = ?1 AND plugin = ?2",
                    params![cluster_id, plugin, state.as_str(), message, now],
                )?;
                Ok(())
            })
            .await
    }

    /// All entries in the order in which they were applied.
    pub(crate) async fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let (cluster_id, plugin) = (self.cluster_id.clone(), self.plugin.clone());
        self.store
            .call(move |connection| {
                let mut query = connection.prepare(
                    "SELECT api_group, version, kind, namespace, name, uid FROM plugin_object
                     WHERE cluster_id = ?1 AND plugin = ?2 ORDER BY position, rowid",
                )?;
                let rows = query.query_map([cluster_id, plugin], |row| {
                    let key = ObjectKey {
                        group: row.get(0)?,
                        version: row.get(1)?,
                        kind: row.get(2)?,
                        namespace: row.get(3)?,
                        name: row.get(4)?,
                    };
                    Ok(Entry { key, uid: row.get(5)? })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The object exists and is ours.
    pub(crate) async fn bind(&self, key: &ObjectKey, uid: &str) -> Result<(), StoreError> {
        self.on_object("UPDATE plugin_object SET uid = ?6", key, Some(uid.to_owned())).await
    }

    /// The object is gone, or was never ours.
    pub(crate) async fn forget(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.on_object("DELETE FROM plugin_object", key, None).await
    }

    async fn on_object(
        &self,
        what: &'static str,
        key: &ObjectKey,
        uid: Option<String>,
    ) -> Result<(), StoreError> {
        let (cluster_id, plugin, key) = (self.cluster_id.clone(), self.plugin.clone(), key.clone());
        self.store
            .call(move |connection| {
                let sql = format!(
                    "{what} WHERE cluster_id = ?1 AND plugin = ?2 AND api_group = ?3 AND kind = ?4
                     AND namespace || '/' || name = ?5"
                );
                let place = format!("{}/{}", key.namespace, key.name);
                match uid {
                    Some(uid) => connection
                        .execute(&sql, params![cluster_id, plugin, key.group, key.kind, place, uid])?,
                    None => {
                        connection.execute(&sql, params![cluster_id, plugin, key.group, key.kind, place])?
                    }
                };
                Ok(())
            })
            .await
    }

    /// The plugin is gone from this cluster.
    pub(crate) async fn end(&self) -> Result<(), StoreError> {
        let (cluster_id, plugin) = (self.cluster_id.clone(), self.plugin.clone());
        self.store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                for table in ["plugin_object", "plugin_install"] {
                    let sql = format!("DELETE FROM {table} WHERE cluster_id = ?1 AND plugin = ?2");
                    transaction.execute(&sql, params![cluster_id, plugin])?;
                }
                Ok(transaction.commit()?)
            })
            .await
    }
}

/// The cluster is gone, and with it everything that was on it.
pub(crate) async fn forget_cluster(store: &Store, cluster_id: &str) -> Result<(), StoreError> {
    let cluster_id = cluster_id.to_owned();
    store
        .call(move |connection| {
            let transaction = connection.transaction()?;
            for table in ["plugin_object", "plugin_install"] {
                transaction.execute(&format!("DELETE FROM {table} WHERE cluster_id = ?1"), [&cluster_id])?;
            }
            Ok(transaction.commit()?)
        })
        .await
}

fn install(row: &Row<'_>) -> Result<Install, rusqlite::Error> {
    let state: String = row.get(2)?;
    let installed: Option<i64> = row.get(4)?;
    let time = |ms: i64| UNIX_EPOCH + Duration::from_millis(ms.try_into().unwrap_or_default());
    Ok(Install {
        plugin: row.get(0)?,
        version: row.get(1)?,
        state: PluginState::from_stored(&state),
        message: row.get(3)?,
        installed: installed.map(time),
        objects: row.get(5)?,
    })
}
