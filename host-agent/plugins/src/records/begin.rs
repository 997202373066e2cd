//! How an operation begins: one transaction for the revision that it shall apply, the plugin's row, what was approved, and
//! every object that it will touch. What was begun so goes on by itself, whatever happens to the host agent.

use host_store::StoreError;
use plugin_plan::ObjectKey;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{OperationKind, Origin, Place, Records, counted, now_ms, stored};
use crate::inventory::Inventory;

/// An operation that begins.
#[derive(Clone, Debug)]
pub(crate) struct NewOperation {
    pub(crate) kind: OperationKind,
    pub(crate) origin: Origin,
    pub(crate) attempt: String,
    pub(crate) deadline_ms: i64,
    pub(crate) adopt: bool,
    pub(crate) prune_many: bool,
    /// What was approved; `None`: as it was.
    pub(crate) approved: Option<Approved>,
    pub(crate) version: String,
    pub(crate) package_sha256: String,
    pub(crate) binary_sha256: String,
    pub(crate) config_version: u32,
    pub(crate) config_json: String,
    pub(crate) plan_sha256: String,
    pub(crate) ask_sha256: String,
    /// The plan, packed.
    pub(crate) plan: Vec<u8>,
    /// Its node requirements.
    pub(crate) node_json: String,
    /// Its objects, in order, and which of them are never pruned.
    pub(crate) keys: Vec<(ObjectKey, bool)>,
}

/// Permissions that a person approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Approved {
    pub(crate) lines: Vec<String>,
    pub(crate) by_uid: u32,
}

/// What an operation works towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) revision: u64,
    /// It is the revision that is applied already.
    pub(crate) is_current: bool,
}

impl Records {
    /// All of it or nothing. The same plan of the same package with the same config is no new revision.
    pub(crate) async fn begin(&self, place: &Place, new: NewOperation) -> Result<Target, StoreError> {
        let place = place.clone();
        self.store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                let target = write_revision(&transaction, &place, &new)?;
                write_install(&transaction, &place, &new, target.revision)?;
                if let Some(approved) = &new.approved {
                    super::approvals::write(&transaction, &place, approved)?;
                }
                Inventory::expect(
                    &transaction,
                    &place.cluster_id,
                    &place.plugin,
                    target.revision,
                    &new.keys,
                )?;
                transaction.commit()?;
                Ok(target)
            })
            .await
    }
}

fn write_revision(
    transaction: &Transaction<'_>,
    place: &Place,
    new: &NewOperation,
) -> rusqlite::Result<Target> {
    let Place { cluster_id, plugin } = place;
    let current: Option<i64> = transaction
        .query_row(
            "SELECT r.revision FROM plugin_install i JOIN plugin_revision r
                 ON r.cluster_id = i.cluster_id AND r.plugin = i.plugin AND r.revision = i.revision
             WHERE i.cluster_id = ?1 AND i.plugin = ?2 AND r.package_sha256 = ?3 AND r.plan_sha256 = ?4
                 AND r.config_json = ?5 AND r.config_version = ?6",
            params![
                cluster_id,
                plugin,
                new.package_sha256,
                new.plan_sha256,
                new.config_json,
                new.config_version
            ],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(revision) = current {
        // The host agent may be newer than the one that checked this plan.
        transaction.execute(
            "UPDATE plugin_revision SET ask_sha256 = ?4, plan = ?5, node_json = ?6
             WHERE cluster_id = ?1 AND plugin = ?2 AND revision = ?3",
            params![cluster_id, plugin, revision, new.ask_sha256, new.plan, new.node_json],
        )?;
        return Ok(Target { revision: counted(revision), is_current: true });
    }
    let revision: i64 = transaction.query_row(
        "SELECT coalesce(max(revision), 0) + 1 FROM plugin_revision WHERE cluster_id = ?1 AND plugin = ?2",
        params![cluster_id, plugin],
        |row| row.get(0),
    )?;
    transaction.execute(
        "INSERT INTO plugin_revision (cluster_id, plugin, revision, version, package_sha256, config_version,
             config_json, plan_sha256, ask_sha256, plan, node_json, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            cluster_id,
            plugin,
            revision,
            new.version,
            new.package_sha256,
            new.config_version,
            new.config_json,
            new.plan_sha256,
            new.ask_sha256,
            new.plan,
            new.node_json,
            now_ms()
        ],
    )?;
    Ok(Target { revision: counted(revision), is_current: false })
}

fn write_install(
    transaction: &Transaction<'_>,
    place: &Place,
    new: &NewOperation,
    target: u64,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO plugin_install (cluster_id, plugin, version, binary_sha256, config_json, state, message, origin,
             package_sha256, config_version, target, operation, attempt, deadline_ms, adopt, prune_many)
         VALUES (?1, ?2, ?3, ?4, ?5, 'Installing', '', ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT DO UPDATE SET version = excluded.version, binary_sha256 = excluded.binary_sha256,
             config_json = excluded.config_json, state = excluded.state, message = excluded.message,
             origin = excluded.origin, package_sha256 = excluded.package_sha256,
             config_version = excluded.config_version, target = excluded.target, operation = excluded.operation,
             attempt = excluded.attempt, deadline_ms = excluded.deadline_ms, adopt = excluded.adopt,
             prune_many = excluded.prune_many, purge = 0, failure_json = NULL",
        params![
            place.cluster_id,
            place.plugin,
            new.version,
            new.binary_sha256,
            new.config_json,
            new.origin.as_str(),
            new.package_sha256,
            new.config_version,
            stored(target),
            new.kind.as_str(),
            new.attempt,
            new.deadline_ms,
            new.adopt,
            new.prune_many
        ],
    )?;
    Ok(())
}
