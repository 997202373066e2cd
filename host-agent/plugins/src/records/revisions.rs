//! What was applied of a plugin, to go back to: package, config and checked plan of each revision; and the one transaction
//! with which an operation ends well.

use std::time::SystemTime;

use host_store::StoreError;
use rusqlite::{OptionalExtension, Row, params};

use super::installs::unused;
use super::{Place, Records, counted, now_ms, stored, time_of};
use crate::status::PluginState;

/// Revisions that were applied and are kept of each plugin.
const KEPT: u32 = 5;

/// One revision, without its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    pub(crate) revision: u64,
    pub(crate) version: String,
    pub(crate) package_sha256: String,
    pub(crate) config_version: u32,
    pub(crate) config_json: String,
    pub(crate) plan_sha256: String,
    pub(crate) ask_sha256: String,
    pub(crate) created: SystemTime,
    /// `None`: it was never applied as a whole.
    pub(crate) applied: Option<SystemTime>,
}

/// What the last plan of a plugin needs of nodes.
#[derive(Clone, Debug)]
pub(crate) struct NodeRow {
    pub(crate) plugin: String,
    pub(crate) was_ready: bool,
    /// A list of requirements as JSON.
    pub(crate) node_json: String,
}

impl Records {
    /// All revisions of a plugin, the newest first.
    pub(crate) async fn revisions(&self, place: &Place) -> Result<Vec<Revision>, StoreError> {
        let place = place.clone();
        self.store
            .call(move |connection| {
                let mut query = connection.prepare(
                    "SELECT revision, version, package_sha256, config_version, config_json, plan_sha256, ask_sha256,
                         created_ms, applied_ms
                     FROM plugin_revision WHERE cluster_id = ?1 AND plugin = ?2 ORDER BY revision DESC",
                )?;
                let rows = query.query_map([place.cluster_id, place.plugin], revision)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The plan of a revision, packed.
    pub(crate) async fn plan(&self, place: &Place, revision: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let place = place.clone();
        self.store
            .call(move |connection| {
                let sql = "SELECT plan FROM plugin_revision WHERE cluster_id = ?1 AND plugin = ?2 AND revision = ?3";
                let plan = connection.query_row(
                    sql,
                    params![place.cluster_id, place.plugin, stored(revision)],
                    |row| row.get(0),
                );
                Ok(plan.optional()?)
            })
            .await
    }

    /// What the plugins of a cluster need of nodes, by the plans that are applied or being applied.
    pub(crate) async fn node_rows(&self, cluster_id: &str) -> Result<Vec<NodeRow>, StoreError> {
        let cluster_id = cluster_id.to_owned();
        self.store
            .call(move |connection| {
                let mut query = connection.prepare(
                    "SELECT i.plugin, i.installed_ms IS NOT NULL, r.node_json
                     FROM plugin_install i JOIN plugin_revision r
                         ON r.cluster_id = i.cluster_id AND r.plugin = i.plugin AND r.revision = i.target
                     WHERE i.cluster_id = ?1 AND r.node_json <> '[]' ORDER BY i.plugin",
                )?;
                let rows = query.query_map([cluster_id], |row| {
                    Ok(NodeRow { plugin: row.get(0)?, was_ready: row.get(1)?, node_json: row.get(2)? })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The operation under way ended well: its revision is the applied one, and revisions beyond [`KEPT`] are forgotten.
    /// Gives digests of packages that nothing refers to any more.
    pub(crate) async fn applied(
        &self,
        place: &Place,
        state: PluginState,
        message: &str,
    ) -> Result<Vec<String>, StoreError> {
        let (place, message) = (place.clone(), message.to_owned());
        self.store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                let Place { cluster_id, plugin } = &place;
                let now = now_ms();
                transaction.execute(
                    "UPDATE plugin_revision SET applied_ms = ?3 WHERE cluster_id = ?1 AND plugin = ?2
                     AND revision = (SELECT target FROM plugin_install WHERE cluster_id = ?1 AND plugin = ?2)",
                    params![cluster_id, plugin, now],
                )?;
                transaction.execute(
                    "UPDATE plugin_install SET revision = target, operation = NULL, state = ?3, message = ?4,
                         installed_ms = coalesce(installed_ms, ?5), failure_json = NULL
                     WHERE cluster_id = ?1 AND plugin = ?2",
                    params![cluster_id, plugin, state.as_str(), message, now],
                )?;
                let old = {
                    let mut query = transaction.prepare(
                        "DELETE FROM plugin_revision WHERE cluster_id = ?1 AND plugin = ?2 AND revision NOT IN (
                             SELECT revision FROM plugin_revision
                             WHERE cluster_id = ?1 AND plugin = ?2 AND applied_ms IS NOT NULL
                             ORDER BY applied_ms DESC, revision DESC LIMIT ?3)
                         RETURNING package_sha256",
                    )?;
                    let rows = query.query_map(params![cluster_id, plugin, KEPT], |row| row.get(0))?;
                    rows.collect::<Result<Vec<String>, _>>()?
                };
                let unused = unused(&transaction, old)?;
                transaction.commit()?;
                Ok(unused)
            })
            .await
    }
}

fn revision(row: &Row<'_>) -> rusqlite::Result<Revision> {
    Ok(Revision {
        revision: counted(row.get(0)?),
        version: row.get(1)?,
        package_sha256: row.get(2)?,
        config_version: row.get(3)?,
        config_json: row.get(4)?,
        plan_sha256: row.get(5)?,
        ask_sha256: row.get(6)?,
        created: time_of(row.get(7)?),
        applied: row.get::<_, Option<i64>>(8)?.map(time_of),
    })
}
