//! The event log: append-only, numbered, persistent, with retention.
//!
//! Readers get what is stored, then what comes, by number: a reader keeps the number behind the last one that it saw and
//! asks for the next ones whenever the log's head moves, so there is neither gap nor duplicate. What cannot be written,
//! since the host's disk is full, waits in memory (`waiting`) until it can.

mod selection;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;

use host_store::{Schema, Store, StoreError};
use k8sctl_proto::control::v1::Event;
use k8sctl_types::event::EventType;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use tokio::sync::watch;

pub use selection::{Selection, Since};
use waiting::{Unwritten, Waiting};

use crate::wire;

/// Tables of this room.
pub const SCHEMA: Schema =
    Schema { room: "events", steps: &[include_str!("step1.sql"), include_str!("step2.sql")] };

/// Rows read at a time.
const PAGE: usize = 500;
/// Marks kept of each source: twice what a node tells at a time.
const MARKS: u32 = 128;

/// What happened to what.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Cluster's name; empty for the host itself.
    pub cluster: String,
    /// Kind and name, `node k8s-worker-1`.
    pub object: String,
    /// What happened.
    pub kind: EventType,
    /// One line for a person.
    pub message: String,
    /// Something is wrong.
    pub warning: bool,
}

/// By what an event is known again that its source may tell more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who tells it: a node's id.
    pub source: String,
    /// What it is, among all that this source tells.
    pub mark: String,
    /// Where it is one of several turns of something, of which only the last one counts.
    pub turn: Option<Turn>,
}

/// Of what an event is a turn, such as a condition of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How the marks of all of its turns begin.
    pub of: String,
    /// How its first turn is told.
    pub first: First,
}

/// How the first turn of something is told, before which nobody knew of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// As any other.
    Told,
    /// As no warning: nothing has turned bad.
    Calm,
    /// Not at all.
    Untold,
}

impl Told {
    /// Something that happens once.
    pub fn once(source: impl Into<String>, mark: impl Into<String>) -> Self {
        Self { source: source.into(), mark: mark.into(), turn: None }
    }
}

/// Stored events in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// At most 500.
    pub events: Vec<Event>,
    /// Everything that fits before this number is in this page or was before it.
    pub next: u64,
    /// More that fits may be stored already.
    pub has_more: bool,
    /// Number of the oldest event that is kept, whether it fits or not; 0 means: there is none.
    pub oldest: u64,
}

/// The log. Clones share it.
#[derive(Clone, Debug)]
pub struct EventLog {
    store: Store,
    head: watch::Sender<u64>,
    retention: u64,
    waiting: Arc<tokio::sync::Mutex<Waiting>>,
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
        Ok(Self { store, head: watch::Sender::new(head as u64), retention, waiting: Arc::default() })
    }

    /// Appends an event. One that cannot be written does not stop the work that it tells of, and is written as soon as
    /// that is possible again.
    pub async fn record(&self, event: NewEvent) {
        self.append(event, None).await;
    }

    /// Appends an event unless it was told before, also before a restart of this program.
    pub async fn record_once(&self, event: NewEvent, told: Told) {
        self.append(event, Some(told)).await;
    }

    async fn append(&self, event: NewEvent, told: Option<Told>) {
        let mut waiting = self.waiting.lock().await;
        waiting.add(Unwritten::new(event, told));
        self.write(&mut waiting).await;
        if waiting.needs_another_try() {
            k8sctl_rpc::task::spawn("write-events", self.clone().write_later());
        }
    }

    /// Writes what waits, in order, up to the first that cannot be written.
    async fn write(&self, waiting: &mut Waiting) {
        while let Some(mut unwritten) = waiting.take_next() {
            match self.insert(unwritten.clone()).await {
                Ok(None) => {}
                Ok(Some(number)) => {
                    unwritten.log();
                    self.head.send_if_modified(|head| {
                        let newer = number > *head;
                        *head = number.max(*head);
                        newer
                    });
                }
                Err(error) => {
                    unwritten.log();
                    waiting.put_back(unwritten, &error);
                    return;
                }
            }
        }
    }

    /// Tries once more to write what waits, before the program ends.
    pub async fn write_rest(&self) {
        let mut waiting = self.waiting.lock().await;
        self.write(&mut waiting).await;
        let left = waiting.len();
        if left > 0 {
            tracing::error!(left, "events that could not be stored are lost");
        }
    }

    /// Tries again until all is written.
    async fn write_later(self) {
        loop {
            tokio::time::sleep(waiting::AGAIN).await;
            let mut waiting = self.waiting.lock().await;
            self.write(&mut waiting).await;
            if waiting.is_over() {
                return;
            }
        }
    }

    /// Its number; `None` means: it was told before.
    async fn insert(&self, unwritten: Unwritten) -> Result<Option<u64>, StoreError> {
        let Unwritten { mut event, told, time, .. } = unwritten;
        let retention = as_number(self.retention);
        self.store
            .call(move |c| {
                let t = c.transaction()?;
                if let Some(told) = told {
                    let first = match news(&t, &told)? {
                        News::Old => return Ok(None),
                        News::Turn => First::Told,
                        News::First => told.turn.map_or(First::Told, |turn| turn.first),
                    };
                    if first == First::Untold {
                        t.commit()?;
                        return Ok(None);
                    }
                    event.warning &= first == First::Told;
                }
                let number = insert(&t, &event, time)?;
                t.execute("DELETE FROM event WHERE number <= ?1", [number.saturating_sub(retention)])?;
                t.commit()?;
                Ok::<_, StoreError>(Some(number as u64))
            })
            .await
    }

    /// Forgets what a source has told, which will tell nothing any more. Its events stay.
    pub async fn forget(&self, source: &str) -> Result<(), StoreError> {
        let source = source.to_owned();
        self.store
            .call(move |c| {
                c.execute("DELETE FROM told WHERE source = ?1", [source])?;
                Ok(())
            })
            .await
    }

    /// Number of the newest event, and its changes.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Stored events from `from` on that fit.
    pub async fn page(&self, from: u64, selection: &Selection) -> Result<Page, StoreError> {
        // Before the look: all up to it are seen by the look.
        let head = *self.head.borrow();
        let (fits, mut values) = selection.condition(from);
        values.push((PAGE as i64).into());
        let sql = format!(
            "SELECT number, time, cluster, object, type, message, warning FROM event
             WHERE {fits} ORDER BY number LIMIT ?"
        );
        let (events, oldest) = self
            .store
            .call(move |c| {
                let oldest: Option<i64> =
                    c.query_row("SELECT min(number) FROM event", [], |row| row.get(0))?;
                let mut query = c.prepare_cached(&sql)?;
                let rows = query.query_map(params_from_iter(values), event)?;
                Ok::<_, StoreError>((rows.collect::<Result<Vec<_>, _>>()?, oldest.unwrap_or_default()))
            })
            .await?;
        let behind_last = events.last().map_or(from, |event| event.number + 1);
        let has_more = events.len() == PAGE;
        let next = if has_more { behind_last } else { behind_last.max(head + 1) };
        Ok(Page { events, next, has_more, oldest: oldest as u64 })
    }

    /// Number of the first of the last `count` events from `from` on that fit; `None` where none does.
    pub async fn tail_start(
        &self,
        count: u64,
        from: u64,
        selection: &Selection,
    ) -> Result<Option<u64>, StoreError> {
        let (fits, mut values) = selection.condition(from);
        values.push(as_number(count).into());
        let sql = format!(
            "SELECT min(number) FROM (SELECT number FROM event WHERE {fits} ORDER BY number DESC LIMIT ?)"
        );
        let first: Option<i64> = self
            .store
            .call(move |c| {
                let found = c.query_row(&sql, params_from_iter(values), |row| row.get(0));
                found.map_err(StoreError::from)
            })
            .await?;
        Ok(first.map(|number| number as u64))
    }

    /// The type of the last event of each object of a cluster, among those of these types.
    pub async fn last_of(
        &self,
        cluster: &str,
        types: &[EventType],
    ) -> Result<HashMap<String, EventType>, StoreError> {
        let selection = Selection { types: types.to_vec(), ..Selection::of_cluster(cluster) };
        let (fits, values) = selection.condition(0);
        // SQLite takes the other columns from the row that has the greatest number.
        let sql = format!("SELECT object, type, max(number) FROM event WHERE {fits} GROUP BY object");
        let rows: Vec<(String, String)> = self
            .store
            .call(move |c| {
                let mut query = c.prepare_cached(&sql)?;
                let rows = query.query_map(params_from_iter(values), |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
                })?;
                Ok::<_, StoreError>(rows.collect::<Result<Vec<_>, _>>()?)
            })
            .await?;
        let known = |(object, kind): (String, String)| Some((object, EventType::find(&kind)?));
        Ok(rows.into_iter().filter_map(known).collect())
    }

    /// Names of the nodes that have events, also of those that are gone; `cluster` empty means: of all clusters. What
    /// a stranger called itself is none of them.
    pub async fn nodes(&self, cluster: &str) -> Result<Vec<String>, StoreError> {
        let cluster = cluster.to_owned();
        self.store
            .call(move |c| {
                let mut query = c.prepare_cached(
                    "SELECT DISTINCT node FROM event
                     WHERE node IS NOT NULL AND cluster <> '' AND (?1 = '' OR cluster = ?1) ORDER BY node",
                )?;
                let names = query.query_map([cluster], |row| row.get(0))?;
                Ok::<_, StoreError>(names.collect::<Result<Vec<String>, _>>()?)
            })
            .await
    }
}

/// Whether something was told before.
enum News {
    /// It was.
    Old,
    /// Another turn of the same was.
    Turn,
    /// Neither.
    First,
}

/// Whether this was told before. From now on it was.
fn news(c: &Connection, told: &Told) -> Result<News, rusqlite::Error> {
    let Told { source, mark, turn } = told;
    let added = c.execute(
        "INSERT INTO told (source, mark) VALUES (?1, ?2) ON CONFLICT (source, mark) DO NOTHING",
        params![source, mark],
    )?;
    if added == 0 {
        return Ok(News::Old);
    }
    let mut others = 0;
    if let Some(turn) = turn {
        others = c.execute(
            "DELETE FROM told WHERE source = ?1 AND mark <> ?2 AND substr(mark, 1, length(?3)) = ?3",
            params![source, mark, turn.of],
        )?;
    }
    let oldest: Option<i64> = c
        .query_row(
            "SELECT rowid FROM told WHERE source = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2",
            params![source, MARKS],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(oldest) = oldest {
        c.execute("DELETE FROM told WHERE source = ?1 AND rowid <= ?2", params![source, oldest])?;
    }
    Ok(if others > 0 { News::Turn } else { News::First })
}

/// The number that it has now.
fn insert(c: &Connection, event: &NewEvent, time: jiff::Timestamp) -> Result<i64, rusqlite::Error> {
    let NewEvent { cluster, object, kind, message, warning } = event;
    c.prepare_cached(
        "INSERT INTO event (time, cluster, object, type, message, warning) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![selection::time_text(time), cluster, object, kind.as_str(), message, warning])?;
    Ok(c.last_insert_rowid())
}

fn event(row: &Row<'_>) -> Result<Event, rusqlite::Error> {
    let time: String = row.get(1)?;
    Ok(Event {
        number: row.get::<_, i64>(0)? as u64,
        time: time.parse().ok().map(wire::timestamp),
        cluster_name: row.get(2)?,
        object: row.get(3)?,
        r#type: row.get(4)?,
        message: row.get(5)?,
        warning: row.get(6)?,
    })
}

/// For SQL, which counts to 2^63; no event has a number beyond that.
fn as_number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
