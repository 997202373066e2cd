//! How the processes of plugins ended and what they wrote: the last [`KEPT`] of each plugin.

use std::time::Duration;

use host_store::StoreError;
use rusqlite::params;

use super::{Place, Records, millis, now_ms, time_of};
use crate::status::PluginRun;

/// Runs that are kept of each plugin.
const KEPT: u32 = 20;

/// A process that ended.
#[derive(Clone, Debug)]
pub(crate) struct NewRun {
    pub(crate) package_sha256: String,
    /// `describe`, `plan`, `migrate`, `assess`.
    pub(crate) purpose: &'static str,
    pub(crate) took: Duration,
    pub(crate) outcome: String,
    pub(crate) stderr: String,
}

impl Records {
    /// Keeps one, and forgets the oldest.
    pub(crate) async fn ran(&self, place: &Place, run: NewRun) -> Result<(), StoreError> {
        self.update(place, move |transaction, place| {
            let began = now_ms().saturating_sub(millis(run.took));
            transaction.execute(
                "INSERT INTO plugin_run (plugin, cluster_id, package_sha256, purpose, at_ms, took_ms, outcome, stderr)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    place.plugin,
                    place.cluster_id,
                    run.package_sha256,
                    run.purpose,
                    began,
                    millis(run.took),
                    run.outcome,
                    run.stderr
                ],
            )?;
            transaction.execute(
                "DELETE FROM plugin_run WHERE plugin = ?1 AND id NOT IN (
                     SELECT id FROM plugin_run WHERE plugin = ?1 ORDER BY id DESC LIMIT ?2)",
                params![place.plugin, KEPT],
            )
        })
        .await
    }

    /// The runs of a plugin, the newest first.
    pub(crate) async fn runs(&self, plugin: &str) -> Result<Vec<PluginRun>, StoreError> {
        let plugin = plugin.to_owned();
        self.store
            .call(move |connection| {
                let mut query = connection.prepare(
                    "SELECT at_ms, purpose, took_ms, outcome, stderr FROM plugin_run WHERE plugin = ?1 ORDER BY id DESC",
                )?;
                let rows = query.query_map([plugin], |row| {
                    let took: i64 = row.get(2)?;
                    Ok(PluginRun {
                        time: time_of(row.get(0)?),
                        purpose: row.get(1)?,
                        took: Duration::from_millis(u64::try_from(took).unwrap_or_default()),
                        outcome: row.get(3)?,
                        stderr: row.get(4)?,
                    })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }
}
