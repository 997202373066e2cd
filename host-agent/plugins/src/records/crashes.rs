//! Ends of processes that count against a package, and packages that are not started any more. By package and not by
//! cluster: the same program would crash on the next one, too.

use std::collections::HashMap;

use host_store::StoreError;
use rusqlite::{OptionalExtension, params};

use super::{Place, Records, now_ms};

impl Records {
    /// When its crashes since then were, the oldest first. Older ones are forgotten.
    pub(crate) async fn crashes(&self, package_sha256: &str, since_ms: i64) -> Result<Vec<i64>, StoreError> {
        let package = package_sha256.to_owned();
        self.store
            .call(move |connection| {
                connection.execute("DELETE FROM plugin_crash WHERE at_ms < ?1", [since_ms])?;
                let mut query = connection
                    .prepare("SELECT at_ms FROM plugin_crash WHERE package_sha256 = ?1 ORDER BY at_ms")?;
                let rows = query.query_map([package], |row| row.get(0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Counts one.
    pub(crate) async fn crashed(&self, package_sha256: &str, what: &str) -> Result<(), StoreError> {
        let (package, what) = (package_sha256.to_owned(), what.to_owned());
        self.store
            .call(move |connection| {
                let sql = "INSERT INTO plugin_crash (package_sha256, at_ms, what) VALUES (?1, ?2, ?3)";
                connection.execute(sql, params![package, now_ms(), what])?;
                Ok(())
            })
            .await
    }

    /// The package is not started any more. `false`: it was not before either.
    pub(crate) async fn quarantine(
        &self,
        place: &Place,
        package_sha256: &str,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let (plugin, package, reason) = (place.plugin.clone(), package_sha256.to_owned(), reason.to_owned());
        self.store
            .call(move |connection| {
                let sql = "INSERT INTO plugin_quarantine (package_sha256, plugin, reason, since_ms)
                    VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
                Ok(connection.execute(sql, params![package, plugin, reason, now_ms()])? > 0)
            })
            .await
    }

    /// A person wants it to be started nevertheless: its crashes are forgotten with it.
    pub(crate) async fn lift_quarantine(&self, package_sha256: &str) -> Result<(), StoreError> {
        let package = package_sha256.to_owned();
        self.store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                for table in ["plugin_quarantine", "plugin_crash"] {
                    transaction
                        .execute(&format!("DELETE FROM {table} WHERE package_sha256 = ?1"), [&package])?;
                }
                Ok(transaction.commit()?)
            })
            .await
    }

    /// Why the package is not started; `None`: it is.
    pub(crate) async fn quarantined(&self, package_sha256: &str) -> Result<Option<String>, StoreError> {
        let package = package_sha256.to_owned();
        self.store
            .call(move |connection| {
                let sql = "SELECT reason FROM plugin_quarantine WHERE package_sha256 = ?1";
                Ok(connection.query_row(sql, [package], |row| row.get(0)).optional()?)
            })
            .await
    }

    /// All of them, with why.
    pub(crate) async fn quarantines(&self) -> Result<HashMap<String, String>, StoreError> {
        self.store
            .call(|connection| {
                let mut query = connection.prepare("SELECT package_sha256, reason FROM plugin_quarantine")?;
                let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }
}
