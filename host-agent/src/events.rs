//! The event log: append-only, numbered, persistent, with retention.
//!
//! Readers get what is stored, then what comes, by number: a reader keeps the last number it saw and asks for
//! the next ones whenever the log's head moves, so there is neither gap nor duplicate.

use host_store::{Schema, Store, StoreError};
use k8sctl_proto::control::v1::Event;
use tokio::sync::watch;

use crate::wire;

/// Tables of this room.
pub const SCHEMA: Schema = Schema {
    room: "events",
    steps: &["CREATE TABLE event (
        number  INTEGER PRIMARY KEY AUTOINCREMENT,
        time    TEXT NOT NULL,
        cluster TEXT NOT NULL,
        object  TEXT NOT NULL,
        type    TEXT NOT NULL,
        message TEXT NOT NULL,
        warning INTEGER NOT NULL
    ) STRICT"],
};

/// Rows read at a time.
const PAGE: u32 = 500;

/// What happened to what.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Cluster's name; empty for the host itself.
    pub cluster: String,
    /// Kind and name, `node k8s-worker-1`.
    pub object: String,
    /// CamelCase word.
    pub kind: &'static str,
    /// One line for a person.
    pub message: String,
    /// Something is wrong.
    pub warning: bool,
}

/// The log. Clones share it.
#[derive(Clone, Debug)]
pub struct EventLog {
    store: Store,
    head: watch::Sender<u64>,
    retention: u64,
}

impl EventLog {
    /// The log in this store, keeping the last `retention` events.
    pub async fn open(store: Store, retention: u64) -> Result<Self, StoreError> {
        let head: i64 = store
            .call(|c| {
                c.query_row("SELECT coalesce(max(number), 0) FROM event", [], |r| r.get(0))
                    .map_err(StoreError::from)
            })
            .await?;
        Ok(Self { store, head: watch::Sender::new(head as u64), retention })
    }

    /// Appends an event. A log that cannot be written is reported and does not stop the work it tells of.
    pub async fn record(&self, event: NewEvent) {
        let NewEvent { cluster, object, kind, message, warning } = event;
        // What it says may come out of a VM: it is not to look like lines of the host agent's.
        tracing::info!(cluster.name = %cluster, object = %object, event = kind, warning, detail = ?message, "event");
        let retention = self.retention as i64;
        let appended = self
            .store
            .call(move |c| {
                c.execute(
                    "INSERT INTO event (time, cluster, object, type, message, warning) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    rusqlite::params![jiff::Timestamp::now().to_string(), cluster, object, kind, message, warning],
                )?;
                let number = c.last_insert_rowid();
                c.execute("DELETE FROM event WHERE number <= ?1", [number - retention])?;
                Ok::<_, StoreError>(number as u64)
            })
            .await;
        match appended {
            Ok(number) => {
                self.head.send_if_modified(|head| {
                    let newer = number > *head;
                    *head = number.max(*head);
                    newer
                });
            }
            Err(error) => tracing::error!(error = %k8sctl_rpc::chain(&error), "cannot store an event"),
        }
    }

    /// Number of the newest event, and its changes.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Stored events from `from` on, at most one page. `cluster` empty means: all.
    pub async fn page(&self, from: u64, cluster: &str) -> Result<Vec<Event>, StoreError> {
        let cluster = cluster.to_owned();
        let from = as_number(from);
        self.store
            .call(move |c| {
                let mut query = c.prepare_cached(
                    "SELECT number, time, cluster, object, type, message, warning FROM event
                     WHERE number >= ?1 AND (?2 = '' OR cluster = ?2) ORDER BY number LIMIT ?3",
                )?;
                let rows = query.query_map(rusqlite::params![from, cluster, PAGE], |r| {
                    let time: String = r.get(1)?;
                    Ok(Event {
                        number: r.get::<_, i64>(0)? as u64,
                        time: time.parse().ok().map(wire::timestamp),
                        cluster_name: r.get(2)?,
                        object: r.get(3)?,
                        r#type: r.get(4)?,
                        message: r.get(5)?,
                        warning: r.get(6)?,
                    })
                })?;
                Ok(rows.collect::<Result<Vec<_>, _>>()?)
            })
            .await
    }

    /// Number of the first of the last `count` events.
    pub async fn tail_start(&self, count: u64, cluster: &str) -> Result<u64, StoreError> {
        let cluster = cluster.to_owned();
        let count = as_number(count);
        self.store
            .call(move |c| {
                let number: i64 = c.query_row(
                    "SELECT coalesce(min(number), 0) FROM (SELECT number FROM event
                     WHERE ?1 = '' OR cluster = ?1 ORDER BY number DESC LIMIT ?2)",
                    rusqlite::params![cluster, count],
                    |r| r.get(0),
                )?;
                Ok(number as u64)
            })
            .await
    }
}

/// For SQL, which counts to 2^63; no event has a number beyond that.
fn as_number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn log_with(count: u64, retention: u64) -> EventLog {
        let store = Store::in_memory(&[SCHEMA]).expect("opens");
        let log = EventLog::open(store, retention).await.expect("opens");
        for number in 1..=count {
            let cluster = if number % 2 == 0 { "even" } else { "odd" };
            log.record(NewEvent {
                cluster: cluster.to_owned(),
                object: "node a".to_owned(),
                kind: "Tested",
                message: number.to_string(),
                warning: false,
            })
            .await;
        }
        log
    }

    #[tokio::test]
    async fn what_an_event_says_is_one_line_of_the_log() {
        let (lines, _guard) = crate::log_lines::collect(tracing::Level::INFO);
        let event = NewEvent {
            cluster: String::new(),
            object: "node a".to_owned(),
            kind: "Tested",
            message: "at ease\n2026-01-01T00:00:00Z  INFO all is well".to_owned(),
            warning: false,
        };
        log_with(0, 10).await.record(event).await;
        let lines = lines.all();
        assert!(lines.len() == 1 && !lines[0].contains('\n'), "{lines:?}");
        assert!(lines[0].contains("at ease\\n2026"), "{lines:?}");
    }

    #[tokio::test]
    async fn pages_follow_each_other_without_gap() {
        let log = log_with(1200, 10_000).await;
        let (mut from, mut seen) = (0, Vec::new());
        loop {
            let page = log.page(from, "").await.expect("reads");
            let Some(last) = page.last() else { break };
            from = last.number + 1;
            seen.extend(page.iter().map(|event| event.number));
        }
        assert_eq!(seen, (1..=1200).collect::<Vec<_>>());
        assert_eq!(*log.head().borrow(), 1200);
    }

    #[tokio::test]
    async fn only_the_last_are_kept() {
        let log = log_with(25, 10).await;
        let page = log.page(0, "").await.expect("reads");
        assert_eq!(page.first().map(|event| event.number), Some(16));
    }

    #[tokio::test]
    async fn tail_counts_per_cluster() {
        let log = log_with(10, 100).await;
        assert_eq!(log.tail_start(2, "even").await.expect("reads"), 8);
        assert_eq!(log.page(8, "even").await.expect("reads").len(), 2);
        assert_eq!(log.tail_start(u64::MAX, "even").await.expect("reads"), 2);
    }

    #[tokio::test]
    async fn there_is_nothing_behind_the_last_number() {
        let log = log_with(3, 100).await;
        for from in [4, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
            assert_eq!(log.page(from, "").await.expect("reads"), [], "{from}");
        }
    }
}
