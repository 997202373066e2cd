//! Operations: what a user asked for, until it ended well or badly.

use k8sctl_types::failure::Failure;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

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
    /// When it began.
    pub started: jiff::Timestamp,
    /// When it shall have ended.
    pub deadline: jiff::Timestamp,
    /// When it ended.
    pub finished: Option<jiff::Timestamp>,
}

const COLUMNS: &str =
    "id, cluster_id, cluster, kind, generation, state, started, deadline, finished, failure";

impl Records {
    /// The operation with that id.
    pub async fn operation(&self, id: &str) -> Result<Option<OperationRecord>, RecordError> {
        let id = id.to_owned();
        self.store.call(move |c| select(c, "WHERE id = ?1", &id)).await
    }

    /// The running operation of a cluster.
    pub async fn running_operation(&self, cluster_id: &str) -> Result<Option<OperationRecord>, RecordError> {
        let id = cluster_id.to_owned();
        self.store.call(move |c| select(c, "WHERE cluster_id = ?1 AND state = 'running'", &id)).await
    }

    /// The newest operation of a cluster, running or ended.
    pub async fn last_operation(&self, cluster_id: &str) -> Result<Option<OperationRecord>, RecordError> {
        let id = cluster_id.to_owned();
        self.store.call(move |c| select(c, "WHERE cluster_id = ?1 ORDER BY id DESC LIMIT 1", &id)).await
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

pub(super) fn insert(
    t: &Transaction<'_>,
    cluster_id: &str,
    cluster: &str,
    kind: OperationKind,
    generation: u64,
    deadline: jiff::Timestamp,
) -> Result<OperationRecord, RecordError> {
    let record = OperationRecord {
        id: uuid::Uuid::now_v7().to_string(),
        cluster_id: cluster_id.to_owned(),
        cluster: cluster.to_owned(),
        kind,
        generation,
        state: OperationState::Running,
        started: jiff::Timestamp::now(),
        deadline,
        finished: None,
    };
    supersede(t, cluster_id, "a newer spec was applied")?;
    t.execute(
        "INSERT INTO operation (id, cluster_id, cluster, kind, generation, state, started, deadline)
         VALUES (?1, ?2, ?3, ?4, ?5, 'running', ?6, ?7)",
        params![
            record.id,
            cluster_id,
            cluster,
            kind.as_str(),
            generation as i64,
            record.started.to_string(),
            deadline.to_string()
        ],
    )?;
    Ok(record)
}

/// Ends the running operation of a cluster because another takes its place.
pub(super) fn supersede(t: &Transaction<'_>, cluster_id: &str, reason: &str) -> Result<(), RecordError> {
    let failure = Failure::new(
        "OPERATION-SUPERSEDED",
        "operation",
        reason,
        "follow the newer operation with `k8sctl status -w`",
    );
    t.execute(
        "UPDATE operation SET state = 'failed', failure = ?2, finished = ?3
         WHERE cluster_id = ?1 AND state = 'running'",
        params![cluster_id, to_json(&failure), now()],
    )?;
    Ok(())
}

fn select(c: &Connection, filter: &str, arg: &str) -> Result<Option<OperationRecord>, RecordError> {
    let row = c
        .query_row(&format!("SELECT {COLUMNS} FROM operation {filter}"), [arg], |r| {
            let failure: Option<String> = r.get(9)?;
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
            };
            Ok((record, failure))
        })
        .optional()?;
    let Some((mut record, failure)) = row else { return Ok(None) };
    if let Some(failure) = failure {
        record.state = OperationState::Failed(serde_json::from_str(&failure).map_err(|source| {
            RecordError::Damaged { what: "failure", object: format!("operation {}", record.id), source }
        })?);
    }
    Ok(Some(record))
}
