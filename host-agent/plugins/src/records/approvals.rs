//! The permissions that a person approved for a plugin on a cluster, line by line: what is new in a wider one is what is
//! not among them.

use host_store::StoreError;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Approved, Place, Records, now_ms};

impl Records {
    /// The approved lines; none where nobody approved any.
    pub(crate) async fn approved(&self, place: &Place) -> Result<Vec<String>, StoreError> {
        let place = place.clone();
        let lines: Option<String> = self
            .store
            .call(move |connection| {
                let sql = "SELECT lines_json FROM plugin_approval WHERE cluster_id = ?1 AND plugin = ?2";
                let key = [place.cluster_id, place.plugin];
                Ok::<_, StoreError>(connection.query_row(sql, key, |row| row.get(0)).optional()?)
            })
            .await?;
        // What cannot be read back was approved by nobody.
        Ok(lines.and_then(|lines| serde_json::from_str(&lines).ok()).unwrap_or_default())
    }
}

/// These and no others are approved.
pub(super) fn write(
    transaction: &Transaction<'_>,
    place: &Place,
    approved: &Approved,
) -> rusqlite::Result<()> {
    let lines = serde_json::to_string(&approved.lines).unwrap_or_default();
    transaction.execute(
        "INSERT INTO plugin_approval (cluster_id, plugin, lines_json, approved_by, approved_ms)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET lines_json = excluded.lines_json, approved_by = excluded.approved_by,
             approved_ms = excluded.approved_ms
         WHERE plugin_approval.lines_json <> excluded.lines_json",
        params![place.cluster_id, place.plugin, lines, approved.by_uid, now_ms()],
    )?;
    Ok(())
}
