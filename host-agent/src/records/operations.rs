//! Operations: what a user asked for, until it ended well or badly.

use host_hypervisor::change::{Action, Kind};
use k8sctl_types::failure::Failure;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{RecordError, Records, now, to_json};

/// What kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Make the cluster as its spec says.
    Up,
    /// Make it vanish.
    Down,
}

impl OperationKind {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Up, Self::Down];

    /// `up` or `down`, as users type it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// How far an operation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// Going on.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed(Failure),
}

/// An operation as last committed.
#[derive(Clone, Debug)]
pub struct OperationRecord {
    /// UUIDv7.
    pub id: String,
    /// Cluster's id.
    pub cluster_id: String,
    /// Cluster's name, kept after the cluster is gone.
    pub cluster: String,
    /// What kind of change.
    pub kind: OperationKind,
    /// The spec generation that it works towards.
    pub generation: u64,
    /// How far it is.
    pub state: OperationState,
    /// When it began: before its plan was made.
    pub started: jiff::Timestamp,
    /// When it shall have ended.
    pub deadline: jiff::Timestamp,
    /// When it ended.
    pub finished: Option<jiff::Timestamp>,
    /// What it may destroy; `None` for one that began before this was kept, which was agreed to all the same.
    pub agreed: Option<Vec<Agreed>>,
}

/// An object that an operation may destroy, or stop: a person has agreed to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// What was to happen to it.
    pub action: Action,
    /// What kind of object.
    pub kind: Kind,
    /// The host's name for it.
    pub name: String,
}

/// What became of the wish to begin an operation.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It has begun. The one that gave way to it, as it ended.
    New(OperationRecord, Option<Box<OperationRecord>>),
    /// One that wants the same runs already.
    Runs(OperationRecord),
    /// The cluster is being removed.
    BeingRemoved,
    /// The cluster is not what it was when this was decided: another spec was applied, or it is gone.
    Overtaken,
}

/// Operations that have ended and are kept, of each cluster.
pub(super) const KEPT: u32 = 20;
/// Those of clusters that are gone, of all of them together.
pub(super) const KEPT_OF_GONE: u32 = 100;

/// Those that are listed at once.
const LISTED: u32 = 1000;

const COLUMNS: &str =
    "id, cluster_id, cluster, kind, generation, state, started, deadline, finished, failure, agreed";

impl Records {
    /// The operation with that id.
    pub async fn operation(&self, id: &str) -> Result<Option<OperationRecord>, RecordError> {
        let id = id.to_owned();
        self.store.call(move |c| select(c, "WHERE id = ?1", &id)).await
    }

    /// The running operation of a cluster.
    pub async fn running_operation(&self, cluster_id: &str) -> Result<Option<OperationRecord>, RecordError> {
        let id = cluster_id.to_owned();
        self.store.call(move |c| running(c, &id)).await
    }

    /// The newest operation of a cluster, running or ended.
    pub async fn last_operation(&self, cluster_id: &str) -> Result<Option<OperationRecord>, RecordError> {
        let id = cluster_id.to_owned();
        self.store.call(move |c| select(c, "WHERE cluster_id = ?1 ORDER BY rowid DESC LIMIT 1", &id)).await
    }

    /// The operations that are kept, the newest first: of one cluster, or of all and of those that are gone where the name
    /// is empty. One that cannot be read back is told as that.
    pub async fn operations(
        &self,
        cluster: &str,
    ) -> Result<Vec<Result<OperationRecord, RecordError>>, RecordError> {
        let cluster = cluster.to_owned();
        self.store
            .call(move |c| {
                let ids: Vec<String> = c
                    .prepare(
                        "SELECT id FROM operation WHERE ?1 = '' OR cluster = ?1 ORDER BY rowid DESC LIMIT ?2",
                    )?
                    .query_map(params![cluster, LISTED], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                Ok(ids.iter().filter_map(|id| select(c, "WHERE id = ?1", id).transpose()).collect())
            })
            .await
    }

    /// Gives a running operation until then, where that is later than what it had. That operation, where it has changed.
    pub async fn extend_deadline(
        &self,
        id: &str,
        deadline: jiff::Timestamp,
    ) -> Result<Option<OperationRecord>, RecordError> {
        self.move_deadline(id, deadline, move |before| before < deadline).await
    }

    /// Gives a running operation until then in place of `before`, after the clock was set. That operation, where it had
    /// that still.
    pub async fn set_deadline(
        &self,
        id: &str,
        before: jiff::Timestamp,
        deadline: jiff::Timestamp,
    ) -> Result<Option<OperationRecord>, RecordError> {
        self.move_deadline(id, deadline, move |now| now == before).await
    }

    async fn move_deadline(
        &self,
        id: &str,
        deadline: jiff::Timestamp,
        moves: impl FnOnce(jiff::Timestamp) -> bool + Send + 'static,
    ) -> Result<Option<OperationRecord>, RecordError> {
        let id = id.to_owned();
        self.store
            .call(move |c| {
                let t = c.transaction()?;
                let running = select(&t, "WHERE id = ?1 AND state = 'running'", &id)?;
                let Some(moved) = running.filter(|it| moves(it.deadline)) else { return Ok(None) };
                t.execute(
                    "UPDATE operation SET deadline = ?2 WHERE id = ?1",
                    params![id, deadline.to_string()],
                )?;
                t.commit()?;
                Ok(Some(OperationRecord { deadline, ..moved }))
            })
            .await
    }

    /// Ends a running operation; without effect if it has ended already.
    pub async fn finish_operation(&self, id: &str, failure: Option<&Failure>) -> Result<(), RecordError> {
        let (id, failure) = (id.to_owned(), failure.map(to_json));
        self.store
            .call(move |c| {
                c.execute(
                    "UPDATE operation SET state = iif(?2 IS NULL, 'succeeded', 'failed'), failure = ?2, finished = ?3
                     WHERE id = ?1 AND state = 'running'",
                    params![id, failure, now()],
                )?;
                Ok(())
            })
            .await
    }
}

impl Records {
    /// Ends the running operation of a cluster of that name, of which nothing else can be read.
    pub async fn end_operation_of(&self, cluster: &str, failure: &Failure) -> Result<(), RecordError> {
        let (cluster, failure) = (cluster.to_owned(), to_json(failure));
        self.store
            .call(move |c| {
                c.execute(
                    "UPDATE operation SET state = 'failed', failure = ?2, finished = ?3
                     WHERE cluster = ?1 AND state = 'running'",
                    params![cluster, failure, now()],
                )?;
                Ok(())
            })
            .await
    }
}

impl OperationRecord {
    /// One that begins now, for a cluster at this generation.
    pub(super) fn new(
        cluster: (&str, &str, u64),
        kind: OperationKind,
        deadline: jiff::Timestamp,
        agreed: Vec<Agreed>,
    ) -> Self {
        let (cluster_id, name, generation) = cluster;
        Self {
            id: uuid::Uuid::now_v7().to_string(),
            cluster_id: cluster_id.to_owned(),
            cluster: name.to_owned(),
            kind,
            generation,
            state: OperationState::Running,
            started: jiff::Timestamp::now(),
            deadline,
            finished: None,
            agreed: Some(agreed),
        }
    }

    /// As it is when another of that kind has taken its place.
    pub fn given_way(self, to: OperationKind, reason: &str) -> Self {
        let state = OperationState::Failed(superseded(&self.cluster, to, reason));
        Self { state, finished: Some(jiff::Timestamp::now()), ..self }
    }
}

/// To begin the older one again would undo what was asked for last.
fn superseded(cluster: &str, by: OperationKind, reason: &str) -> Failure {
    let next = match by {
        OperationKind::Up => format!("follow the newer operation with `k8sctl status -w {cluster}`"),
        OperationKind::Down => format!("follow the removal with `k8sctl down {cluster}`"),
    };
    Failure::new("OPERATION-SUPERSEDED", format!("cluster {cluster}"), reason, next)
}

/// Begins an operation; the running one gives way, ended by `reason`. The oldest that have ended are forgotten.
pub(super) fn insert(
    t: &Transaction<'_>,
    record: OperationRecord,
    reason: &str,
) -> Result<Begun, RecordError> {
    let failure = superseded(&record.cluster, record.kind, reason);
    let before = end_running(t, &record.cluster_id, Some(failure))?;
    t.execute(
        "INSERT INTO operation (id, cluster_id, cluster, kind, generation, state, started, deadline, agreed)
         VALUES (?1, ?2, ?3, ?4, ?5, 'running', ?6, ?7, ?8)",
        params![
            record.id,
            record.cluster_id,
            record.cluster,
            record.kind.as_str(),
            record.generation as i64,
            record.started.to_string(),
            record.deadline.to_string(),
            record.agreed.as_ref().map(to_json)
        ],
    )?;
    forget_old(t, &record.cluster_id)?;
    Ok(Begun::New(record, before.map(Box::new)))
}

fn forget_old(t: &Transaction<'_>, cluster_id: &str) -> Result<(), RecordError> {
    t.execute(
        "DELETE FROM operation WHERE cluster_id = ?1 AND state <> 'running' AND id NOT IN (
            SELECT id FROM operation WHERE cluster_id = ?1 AND state <> 'running' ORDER BY rowid DESC LIMIT ?2)",
        params![cluster_id, KEPT],
    )?;
    t.execute(
        "DELETE FROM operation WHERE cluster_id NOT IN (SELECT id FROM cluster) AND id NOT IN (
            SELECT id FROM operation WHERE cluster_id NOT IN (SELECT id FROM cluster) ORDER BY rowid DESC LIMIT ?1)",
        params![KEPT_OF_GONE],
    )?;
    Ok(())
}

/// Ends the running operation of a cluster, badly with a failure.
pub(super) fn end_running(
    t: &Transaction<'_>,
    cluster_id: &str,
    failure: Option<Failure>,
) -> Result<Option<OperationRecord>, RecordError> {
    let Some(mut ended) = running(t, cluster_id)? else { return Ok(None) };
    let finished = jiff::Timestamp::now();
    t.execute(
        "UPDATE operation SET state = iif(?2 IS NULL, 'succeeded', 'failed'), failure = ?2, finished = ?3
         WHERE id = ?1",
        params![ended.id, failure.as_ref().map(to_json), finished.to_string()],
    )?;
    ended.state = failure.map_or(OperationState::Succeeded, OperationState::Failed);
    ended.finished = Some(finished);
    Ok(Some(ended))
}

/// The running operation of a cluster.
pub(super) fn running(c: &Connection, cluster_id: &str) -> Result<Option<OperationRecord>, RecordError> {
    select(c, "WHERE cluster_id = ?1 AND state = 'running'", cluster_id)
}

fn select(c: &Connection, filter: &str, arg: &str) -> Result<Option<OperationRecord>, RecordError> {
    let row = c
        .query_row(&format!("SELECT {COLUMNS} FROM operation {filter}"), [arg], |r| {
            let (failure, agreed): (Option<String>, Option<String>) = (r.get(9)?, r.get(10)?);
            let time = |text: String| text.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            let record = OperationRecord {
                id: r.get(0)?,
                cluster_id: r.get(1)?,
                cluster: r.get(2)?,
                kind: if r.get::<_, String>(3)? == "down" { OperationKind::Down } else { OperationKind::Up },
                generation: r.get::<_, i64>(4)? as u64,
                state: match r.get::<_, String>(5)?.as_str() {
                    "running" => OperationState::Running,
                    _ => OperationState::Succeeded,
                },
                started: time(r.get(6)?),
                deadline: time(r.get(7)?),
                finished: r.get::<_, Option<String>>(8)?.map(time),
                agreed: None,
            };
            Ok((record, failure, agreed))
        })
        .optional()?;
    let Some((mut record, failure, agreed)) = row else { return Ok(None) };
    let object = format!("operation {}", record.id);
    let damaged =
        |what| move |error: serde_json::Error| RecordError::Damaged { what, object, source: error.into() };
    if let Some(failure) = failure {
        record.state =
            OperationState::Failed(serde_json::from_str(&failure).map_err(damaged.clone()("failure"))?);
    }
    let agreed = agreed.map(|agreed| serde_json::from_str(&agreed));
    record.agreed = agreed.transpose().map_err(damaged("agreement"))?;
    Ok(Some(record))
}
