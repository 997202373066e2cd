//! The host agent's embedded database: one SQLite file, WAL, `synchronous=FULL`, so that what was committed
//! survives a kill or a power cut.
//!
//! Each room brings its own tables as a [`Schema`] and its own queries; this crate owns only the connection,
//! the migrations and the rule that SQL never blocks the async runtime.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// Migrations of one room. Each step runs once, in order; a step that was released is never changed.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Name of the room, the key under which its progress is kept.
    pub room: &'static str,
    /// SQL of each step.
    pub steps: &'static [&'static str],
}

/// The database could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Opening or configuring failed.
    #[error("cannot open the database {path}")]
    Open {
        /// The database file.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// A migration failed.
    #[error("cannot bring the tables of {room} to step {step}")]
    Migrate {
        /// The room.
        room: &'static str,
        /// 1-based step.
        step: usize,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer host agent wrote this database.
    #[error(
        "the tables of {room} are at step {found}, newer than this program's {known}: use the newer k8s-host-agent"
    )]
    Newer {
        /// The room.
        room: &'static str,
        /// Step in the database.
        found: usize,
        /// Steps that this program knows.
        known: usize,
    },
    /// A query failed.
    #[error("a database query failed")]
    Query(#[from] rusqlite::Error),
    /// The work was cancelled because the program ends.
    #[error("the database is closing")]
    Closing,
}

/// A handle on the database. Clones share one connection; queries run one after the other.
#[derive(Clone, Debug)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    busy_nanos: AtomicU64,
}

/// How much a database was used since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls that have ended, well or badly.
    pub calls: u64,
    /// How long they had the connection, all together.
    pub busy: Duration,
}

impl Store {
    /// Opens or creates the file and brings every room's tables up to date.
    pub fn open(path: &Path, schemas: &[Schema]) -> Result<Self, StoreError> {
        let open_error = |source| StoreError::Open { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(open_error)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(open_error)?;
        Self::prepare(connection, schemas).map_err(|error| match error {
            StoreError::Query(source) => open_error(source),
            other => other,
        })
    }

    /// A database in memory, for tests.
    pub fn in_memory(schemas: &[Schema]) -> Result<Self, StoreError> {
        Self::prepare(Connection::open_in_memory()?, schemas)
    }

    fn prepare(mut connection: Connection, schemas: &[Schema]) -> Result<Self, StoreError> {
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_step (room TEXT PRIMARY KEY, step INTEGER NOT NULL) STRICT",
        )?;
        for schema in schemas {
            migrate(&mut connection, schema)?;
        }
        Ok(Self { connection: Arc::new(Mutex::new(connection)), counts: Arc::default() })
    }

    /// Runs queries on a blocking thread. `work` is one transaction if it opens one; otherwise each statement
    /// commits by itself.
    pub async fn call<R, E, F>(&self, work: F) -> Result<R, E>
    where
        F: FnOnce(&mut Connection) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || store.call_blocking(work)).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(E::from(StoreError::Closing)),
        }
    }

    /// The same on the calling thread, for tests and start-up.
    pub fn call_blocking<R, E>(&self, work: impl FnOnce(&mut Connection) -> Result<R, E>) -> Result<R, E> {
        // A panic inside a transaction rolls it back, so the connection behind a poisoned lock is sound.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        let result = work(&mut connection);
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counts.busy_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// How much it was used, by all clones together.
    pub fn usage(&self) -> Usage {
        Usage {
            calls: self.counts.calls.load(Ordering::Relaxed),
            busy: Duration::from_nanos(self.counts.busy_nanos.load(Ordering::Relaxed)),
        }
    }
}

fn migrate(connection: &mut Connection, schema: &Schema) -> Result<(), StoreError> {
    let done: i64 = connection
        .query_row("SELECT step FROM schema_step WHERE room = ?1", [schema.room], |row| row.get(0))
        .or_else(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => Ok(0),
            other => Err(other),
        })?;
    let done = usize::try_from(done).unwrap_or_default();
    if done > schema.steps.len() {
        return Err(StoreError::Newer { room: schema.room, found: done, known: schema.steps.len() });
    }
    for (index, sql) in schema.steps.iter().enumerate().skip(done) {
        let step = index + 1;
        let mut run = || -> Result<(), rusqlite::Error> {
            let transaction = connection.transaction()?;
            transaction.execute_batch(sql)?;
            transaction.execute(
                "INSERT INTO schema_step (room, step) VALUES (?1, ?2)
                 ON CONFLICT (room) DO UPDATE SET step = excluded.step",
                (schema.room, step as i64),
            )?;
            transaction.commit()
        };
        run().map_err(|source| StoreError::Migrate { room: schema.room, step, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Schema = Schema { room: "things", steps: &["CREATE TABLE thing (name TEXT) STRICT"] };
    const TWO: Schema = Schema {
        room: "things",
        steps: &["CREATE TABLE thing (name TEXT) STRICT", "ALTER TABLE thing ADD COLUMN size INTEGER"],
    };

    #[test]
    fn migrations_run_once_and_survive_reopening() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("store.db");
        let store = Store::open(&path, &[ONE]).expect("opens");
        store
            .call_blocking(|c| c.execute("INSERT INTO thing VALUES ('a')", []).map_err(StoreError::from))
            .expect("inserts");
        drop(store);
        let store = Store::open(&path, &[TWO]).expect("opens again");
        let names: i64 = store
            .call_blocking(|c| {
                c.query_row("SELECT count(*) FROM thing WHERE size IS NULL", [], |r| r.get(0))
                    .map_err(StoreError::from)
            })
            .expect("counts");
        assert_eq!(names, 1);
    }

    #[test]
    fn every_call_counts_also_one_that_fails() {
        let store = Store::in_memory(&[ONE]).expect("opens");
        assert_eq!(store.usage(), Usage::default());
        let sql = ["SELECT count(*) FROM thing", "SELECT count(*) FROM nothing"];
        let results = sql.map(|sql| {
            store
                .clone()
                .call_blocking(|c| c.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(StoreError::from))
        });
        assert_eq!(results.map(|result| result.is_ok()), [true, false]);
        let usage = store.usage();
        assert!(usage.calls == 2 && !usage.busy.is_zero(), "{usage:?}");
    }

    #[test]
    fn a_newer_database_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("store.db");
        drop(Store::open(&path, &[TWO]).expect("opens"));
        let error = Store::open(&path, &[ONE]).expect_err("step 2 is unknown");
        assert!(error.to_string().contains("use the newer"), "{error}");
    }
}
