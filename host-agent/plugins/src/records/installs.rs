//! Plugins of clusters: what each is, where it stands, and which operation is under way.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use host_store::StoreError;
use k8sctl_types::failure::Failure;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Place, Records, counted, time_of};
use crate::status::PluginState;

/// Who asked for a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `k8sctl plugin add`.
    Command,
    /// The cluster file.
    Spec,
}

impl Origin {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Spec => "spec",
        }
    }
}

/// What is done to a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperationKind {
    /// It was not there.
    Install,
    /// Another package.
    Upgrade,
    /// The same package with another config, or once more.
    Configure,
    /// A revision of before.
    RollBack,
    /// It shall be gone.
    Remove,
}

impl OperationKind {
    /// The word that is stored.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Upgrade => "upgrade",
            Self::Configure => "configure",
            Self::RollBack => "rollback",
            Self::Remove => "remove",
        }
    }

    fn from_stored(word: &str) -> Self {
        match word {
            "upgrade" => Self::Upgrade,
            "configure" => Self::Configure,
            "rollback" => Self::RollBack,
            "remove" => Self::Remove,
            _ => Self::Install,
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Install => "is being installed",
            Self::Upgrade => "is being upgraded",
            Self::Configure => "is being configured",
            Self::RollBack => "is being rolled back",
            Self::Remove => "is being removed",
        })
    }
}

/// One plugin on one cluster, as stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Install {
    pub(crate) plugin: String,
    pub(crate) version: String,
    pub(crate) config_json: String,
    pub(crate) config_version: u32,
    pub(crate) state: PluginState,
    pub(crate) message: String,
    /// When it was ready for the first time.
    pub(crate) installed: Option<SystemTime>,
    pub(crate) origin: Origin,
    /// Empty: it was installed before packages had digests.
    pub(crate) package_sha256: String,
    /// What is applied; 0: nothing yet.
    pub(crate) revision: u64,
    /// What was to be applied last; the same as `revision` when that ended well.
    pub(crate) target: u64,
    /// What is under way; `None`: nothing is.
    pub(crate) operation: Option<OperationKind>,
    pub(crate) attempt: String,
    pub(crate) deadline_ms: Option<i64>,
    pub(crate) purge: bool,
    pub(crate) adopt: bool,
    pub(crate) prune_many: bool,
    pub(crate) outputs: BTreeMap<String, String>,
    /// Why the last operation failed.
    pub(crate) failure: Option<Failure>,
    /// Objects in the inventory.
    pub(crate) objects: u32,
    /// Of the revision that is applied; empty: none is.
    pub(crate) plan_sha256: String,
    /// Of what was asked for that revision.
    pub(crate) ask_sha256: String,
}

impl Install {
    /// Whether all that was wanted last is applied.
    pub(crate) fn is_settled(&self) -> bool {
        self.operation.is_none()
            && self.failure.is_none()
            && self.revision != 0
            && self.revision == self.target
            && matches!(self.state, PluginState::Ready | PluginState::Degraded)
    }
}

/// A removal that begins.
#[derive(Clone, Debug)]
pub(crate) struct NewRemoval {
    pub(crate) purge: bool,
    pub(crate) attempt: String,
    pub(crate) deadline_ms: i64,
}

const INSTALL: &str = "SELECT i.plugin, i.version, i.config_json, i.config_version, i.state, i.message,
    i.installed_ms, i.origin, i.package_sha256, i.revision, i.target, i.operation, i.attempt, i.deadline_ms, i.purge,
    i.adopt, i.prune_many, i.outputs_json, i.failure_json,
    (SELECT count(*) FROM plugin_object o WHERE o.cluster_id = i.cluster_id AND o.plugin = i.plugin),
    coalesce(r.plan_sha256, ''), coalesce(r.ask_sha256, '')
    FROM plugin_install i LEFT JOIN plugin_revision r
    ON r.cluster_id = i.cluster_id AND r.plugin = i.plugin AND r.revision = i.revision
    WHERE i.cluster_id = ?1";

impl Records {
    /// Every plugin that is, or was meant to be, on a cluster, by name.
    pub(crate) async fn installs(&self, cluster_id: &str) -> Result<Vec<Install>, StoreError> {
        let cluster_id = cluster_id.to_owned();
        self.store
            .call(move |connection| {
                let mut query = connection.prepare(&format!("{INSTALL} ORDER BY i.plugin"))?;
                let rows = query.query_map([cluster_id], install)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// One of them.
    pub(crate) async fn install(&self, place: &Place) -> Result<Option<Install>, StoreError> {
        let place = place.clone();
        self.store
            .call(move |connection| {
                let query = format!("{INSTALL} AND i.plugin = ?2");
                let key = [place.cluster_id, place.plugin];
                Ok(connection.query_row(&query, key, install).optional()?)
            })
            .await
    }

    /// Sets where it stands, outside of operations.
    pub(crate) async fn set_state(
        &self,
        place: &Place,
        state: PluginState,
        message: &str,
    ) -> Result<(), StoreError> {
        let message = message.to_owned();
        let sql = "UPDATE plugin_install SET state = ?3, message = ?4 WHERE cluster_id = ?1 AND plugin = ?2";
        self.update(place, move |transaction, place| {
            transaction.execute(sql, params![place.cluster_id, place.plugin, state.as_str(), message])
        })
        .await
    }

    /// Keeps what dependents are told.
    pub(crate) async fn set_outputs(
        &self,
        place: &Place,
        outputs: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        let outputs = serde_json::to_string(outputs).unwrap_or_default();
        let sql = "UPDATE plugin_install SET outputs_json = ?3 WHERE cluster_id = ?1 AND plugin = ?2";
        self.update(place, move |transaction, place| {
            transaction.execute(sql, params![place.cluster_id, place.plugin, outputs])
        })
        .await
    }

    /// The cluster file has it from now on.
    pub(crate) async fn set_origin(&self, place: &Place, origin: Origin) -> Result<(), StoreError> {
        let sql = "UPDATE plugin_install SET origin = ?3 WHERE cluster_id = ?1 AND plugin = ?2";
        self.update(place, move |transaction, place| {
            transaction.execute(sql, params![place.cluster_id, place.plugin, origin.as_str()])
        })
        .await
    }

    /// The operation under way ended badly.
    pub(crate) async fn fail(&self, place: &Place, failure: &Failure) -> Result<(), StoreError> {
        let (message, json) = (failure.to_string(), serde_json::to_string(failure).unwrap_or_default());
        let sql =
            "UPDATE plugin_install SET operation = NULL, state = 'Failed', message = ?3, failure_json = ?4
            WHERE cluster_id = ?1 AND plugin = ?2";
        self.update(place, move |transaction, place| {
            transaction.execute(sql, params![place.cluster_id, place.plugin, message, json])
        })
        .await
    }

    /// A removal begins.
    pub(crate) async fn begin_removal(&self, place: &Place, new: NewRemoval) -> Result<(), StoreError> {
        let sql = "UPDATE plugin_install SET operation = 'remove', state = 'Removing', message = '',
            failure_json = NULL, purge = ?3, attempt = ?4, deadline_ms = ?5 WHERE cluster_id = ?1 AND plugin = ?2";
        self.update(place, move |transaction, place| {
            transaction.execute(
                sql,
                params![place.cluster_id, place.plugin, new.purge, new.attempt, new.deadline_ms],
            )
        })
        .await
    }

    /// The plugin is gone from this cluster. Gives digests of packages that nothing refers to any more.
    pub(crate) async fn end(&self, place: &Place) -> Result<Vec<String>, StoreError> {
        let place = place.clone();
        self.store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                let packages = packages_of(&transaction, &place)?;
                for table in TABLES {
                    let sql = format!("DELETE FROM {table} WHERE cluster_id = ?1 AND plugin = ?2");
                    transaction.execute(&sql, params![place.cluster_id, place.plugin])?;
                }
                let unused = unused(&transaction, packages)?;
                transaction.commit()?;
                Ok(unused)
            })
            .await
    }

    /// The cluster is gone, and with it everything that was on it. Gives digests of packages that nothing refers to.
    pub(crate) async fn forget_cluster(&self, cluster_id: &str) -> Result<Vec<String>, StoreError> {
        let cluster_id = cluster_id.to_owned();
        self.store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                let packages = {
                    let mut query = transaction.prepare(
                        "SELECT DISTINCT package_sha256 FROM plugin_revision WHERE cluster_id = ?1",
                    )?;
                    query.query_map([&cluster_id], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?
                };
                for table in TABLES {
                    transaction
                        .execute(&format!("DELETE FROM {table} WHERE cluster_id = ?1"), [&cluster_id])?;
                }
                let unused = unused(&transaction, packages)?;
                transaction.commit()?;
                Ok(unused)
            })
            .await
    }

    /// Digests of the packages that rows refer to, of all clusters, and whose each is.
    pub(crate) async fn packages(&self) -> Result<BTreeMap<String, String>, StoreError> {
        self.store
            .call(|connection| {
                let mut query = connection.prepare(
                    "SELECT package_sha256, plugin FROM plugin_revision WHERE package_sha256 <> ''
                     UNION SELECT package_sha256, plugin FROM plugin_install WHERE package_sha256 <> ''",
                )?;
                let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// One statement on one plugin.
    pub(super) async fn update(
        &self,
        place: &Place,
        work: impl FnOnce(&Transaction<'_>, &Place) -> rusqlite::Result<usize> + Send + 'static,
    ) -> Result<(), StoreError> {
        let place = place.clone();
        self.store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                work(&transaction, &place)?;
                Ok(transaction.commit()?)
            })
            .await
    }
}

/// All that is kept of a plugin on a cluster.
const TABLES: [&str; 5] =
    ["plugin_object", "plugin_install", "plugin_revision", "plugin_approval", "plugin_drift"];

fn packages_of(transaction: &Transaction<'_>, place: &Place) -> rusqlite::Result<Vec<String>> {
    let mut query = transaction.prepare(
        "SELECT DISTINCT package_sha256 FROM plugin_revision WHERE cluster_id = ?1 AND plugin = ?2",
    )?;
    query.query_map([&place.cluster_id, &place.plugin], |row| row.get(0))?.collect()
}

/// Those of these packages to which no row refers.
pub(super) fn unused(transaction: &Transaction<'_>, packages: Vec<String>) -> rusqlite::Result<Vec<String>> {
    let mut query = transaction.prepare(
        "SELECT EXISTS (SELECT 1 FROM plugin_revision WHERE package_sha256 = ?1)
             OR EXISTS (SELECT 1 FROM plugin_install WHERE package_sha256 = ?1)",
    )?;
    let mut unused = Vec::new();
    for package in packages {
        if !query.query_row([&package], |row| row.get::<_, bool>(0))? {
            unused.push(package);
        }
    }
    Ok(unused)
}

fn install(row: &Row<'_>) -> rusqlite::Result<Install> {
    let state: String = row.get(4)?;
    let origin: String = row.get(7)?;
    let operation: Option<String> = row.get(11)?;
    let outputs: String = row.get(17)?;
    let failure: Option<String> = row.get(18)?;
    Ok(Install {
        plugin: row.get(0)?,
        version: row.get(1)?,
        config_json: row.get(2)?,
        config_version: row.get(3)?,
        state: PluginState::from_stored(&state),
        message: row.get(5)?,
        installed: row.get::<_, Option<i64>>(6)?.map(time_of),
        origin: if origin == Origin::Spec.as_str() { Origin::Spec } else { Origin::Command },
        package_sha256: row.get(8)?,
        revision: counted(row.get(9)?),
        target: counted(row.get(10)?),
        operation: operation.as_deref().map(OperationKind::from_stored),
        attempt: row.get(12)?,
        deadline_ms: row.get(13)?,
        purge: row.get(14)?,
        adopt: row.get(15)?,
        prune_many: row.get(16)?,
        outputs: serde_json::from_str(&outputs).unwrap_or_default(),
        failure: failure.map(|json| read_failure(&json)),
        objects: row.get(19)?,
        plan_sha256: row.get(20)?,
        ask_sha256: row.get(21)?,
    })
}

/// A failure that was stored; one that cannot be read back is still one.
fn read_failure(json: &str) -> Failure {
    serde_json::from_str(json).unwrap_or_else(|error| {
        let reason = format!("the last operation failed; why cannot be read back: {error}");
        Failure::new("PLUGIN-STORE", "plugin", reason, "run the same command again")
    })
}

#[cfg(test)]
impl Install {
    /// One that a command added and that is ready, for tests.
    pub(crate) fn ready(plugin: &str, revision: u64) -> Self {
        Self {
            plugin: plugin.to_owned(),
            version: "1.0.0".to_owned(),
            config_json: "{}".to_owned(),
            config_version: 1,
            state: PluginState::Ready,
            message: "ready".to_owned(),
            installed: None,
            origin: Origin::Command,
            package_sha256: "a".repeat(64),
            revision,
            target: revision,
            operation: None,
            attempt: String::new(),
            deadline_ms: None,
            purge: false,
            adopt: false,
            prune_many: false,
            outputs: BTreeMap::new(),
            failure: None,
            objects: 1,
            plan_sha256: String::new(),
            ask_sha256: String::new(),
        }
    }
}
