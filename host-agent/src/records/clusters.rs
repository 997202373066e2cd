//! Clusters and their nodes.

use std::collections::{BTreeMap, BTreeSet};

use host_plugins::PinnedPlugin;
use k8sctl_types::spec::{ClusterSpec, NodeSpec};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::operations::{self, Agreed, Begun, OperationKind, OperationRecord};
use super::{RecordError, Records, now, to_json};

#[cfg(test)]
mod tests;

/// Whether a cluster shall be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// It shall be as its spec says.
    Present,
    /// It shall vanish.
    Removing,
}

/// Whether a node shall be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It shall be as its spec says.
    Present,
    /// It left the file: its pods are to be moved and its Kubernetes node deleted; its VM still stands.
    Draining,
    /// Kubernetes has forgotten it; its VM and disk are to be destroyed.
    Removing,
}

/// A cluster as last committed.
#[derive(Clone, Debug)]
pub struct ClusterRecord {
    /// UUIDv7.
    pub id: String,
    /// The user's name for it.
    pub name: String,
    /// Whether it shall be there.
    pub state: ClusterState,
    /// Counts the specs that were applied.
    pub generation: u64,
    /// The spec of that generation.
    pub spec: ClusterSpec,
    /// Node image of all its nodes.
    pub image_id: String,
    /// Kubernetes version of that image.
    pub kubernetes: String,
    /// The bundle is the lab's.
    pub trial: bool,
    /// Port that node agents dial; `None` until first bound.
    pub node_port: Option<u16>,
    /// In the order of `pod_index`.
    pub nodes: Vec<NodeRecord>,
    /// The plugins of that spec, as they were agreed to.
    pub plugins: Vec<PinnedPlugin>,
}

/// A node as last committed.
#[derive(Clone, Debug)]
pub struct NodeRecord {
    /// UUIDv7.
    pub id: String,
    /// Domain name, hostname and Kubernetes node name.
    pub name: String,
    /// As in the cluster's spec; kept here so that a node that left the file can still be removed.
    pub spec: NodeSpec,
    /// libvirt's UUID of the domain and DMI's of the machine.
    pub machine_uuid: String,
    /// Which /24 of the pod network is its own.
    pub pod_index: u32,
    /// Whether it shall be there.
    pub state: NodeState,
    /// The plugin whose pod network its pods are on; empty: the built-in one. While it is another than the cluster's, its
    /// pods are still to be restarted.
    pub pod_network: String,
}

/// What a plan goes by: it holds while this is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterVersion {
    id: String,
    generation: u64,
    /// Id and state of each node.
    nodes: Vec<(String, NodeState)>,
}

/// A spec to be made the desired one.
#[derive(Clone, Debug)]
pub struct NewGeneration {
    /// The spec.
    pub spec: ClusterSpec,
    /// Node image.
    pub image_id: String,
    /// Its Kubernetes version.
    pub kubernetes: String,
    /// The bundle is the lab's.
    pub trial: bool,
    /// Before its plan was made: the operation begins with that.
    pub started: jiff::Timestamp,
    /// When the operation shall have ended.
    pub deadline: jiff::Timestamp,
    /// The cluster that this was planned on; `None` where there was none.
    pub planned_on: Option<ClusterVersion>,
    /// What the plan destroys, agreed to.
    pub agreed: Vec<Agreed>,
    /// The plugins of the spec, agreed to.
    pub plugins: Vec<PinnedPlugin>,
    /// The plugin whose pod network new nodes begin with; empty: the built-in one.
    pub pod_network: String,
}

/// A cluster whose record cannot be read back. The others go on without it.
#[derive(Debug)]
pub struct DamagedCluster {
    /// The user's name for it.
    pub name: String,
    /// Node image of all its nodes.
    pub image_id: String,
    /// What is damaged.
    pub error: RecordError,
}

impl Records {
    /// All clusters that can be read back, by name.
    pub async fn clusters(&self) -> Result<Vec<ClusterRecord>, RecordError> {
        Ok(self.all_clusters().await?.0)
    }

    /// All clusters, by name, and those that cannot be read back.
    pub async fn all_clusters(&self) -> Result<(Vec<ClusterRecord>, Vec<DamagedCluster>), RecordError> {
        self.store
            .call(|c| {
                // Also names that are no text: what is damaged in one cluster concerns no other.
                let names: Vec<(String, String)> = c
                    .prepare("SELECT name, image_id FROM cluster ORDER BY name")?
                    .query_map([], |row| Ok((lossy(row.get_ref(0)?), lossy(row.get_ref(1)?))))?
                    .collect::<Result<_, _>>()?;
                let (mut clusters, mut damaged) = (Vec::new(), Vec::new());
                for (name, image_id) in names {
                    match load(c, &name) {
                        Ok(Some(cluster)) => clusters.push(cluster),
                        // As only a name is that was no text.
                        Ok(None) => {
                            let object = format!("cluster {name}");
                            let source = "it is not UTF-8".into();
                            let error = RecordError::Damaged { what: "name", object, source };
                            damaged.push(DamagedCluster { name, image_id, error });
                        }
                        Err(error @ RecordError::Damaged { .. }) => {
                            damaged.push(DamagedCluster { name, image_id, error });
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok((clusters, damaged))
            })
            .await
    }

    /// Names of all clusters by their ids, also of those that cannot be read back.
    pub async fn cluster_names(&self) -> Result<BTreeMap<String, String>, RecordError> {
        self.store
            .call(|c| {
                let mut query = c.prepare("SELECT id, name FROM cluster")?;
                let names =
                    query.query_map([], |row| Ok((lossy(row.get_ref(0)?), lossy(row.get_ref(1)?))))?;
                Ok(names.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The cluster of that name.
    pub async fn cluster(&self, name: &str) -> Result<Option<ClusterRecord>, RecordError> {
        let name = name.to_owned();
        self.store.call(move |c| load(c, &name)).await
    }

    /// The cluster of that name and its running operation, as of one moment.
    pub async fn at_work(
        &self,
        name: &str,
    ) -> Result<Option<(ClusterRecord, Option<OperationRecord>)>, RecordError> {
        let name = name.to_owned();
        self.store
            .call(move |c| {
                let t = c.transaction()?;
                let Some(cluster) = load(&t, &name)? else { return Ok(None) };
                let running = operations::running(&t, &cluster.id)?;
                Ok(Some((cluster, running)))
            })
            .await
    }

    /// Makes a spec the desired one and begins its operation, all or nothing, unless one that wants the same runs.
    /// Nodes that left the spec are set to draining; a node that came back is present again.
    pub async fn begin_up(&self, new: NewGeneration) -> Result<Begun, RecordError> {
        self.store
            .call(move |c| {
                let t = c.transaction()?;
                let old = load(&t, &new.spec.name)?;
                if old.as_ref().is_some_and(|old| old.state == ClusterState::Removing) {
                    return Ok(Begun::BeingRemoved);
                }
                if let Some(old) = &old
                    && let Some(running) = operations::running(&t, &old.id)?
                    && (&old.spec, &old.image_id, &old.plugins)
                        == (&new.spec, &new.image_id, &new.plugins)
                {
                    return Ok(Begun::Runs(running));
                }
                if old.as_ref().map(ClusterRecord::version) != new.planned_on {
                    return Ok(Begun::Overtaken);
                }
                let id = old.as_ref().map_or_else(new_id, |old| old.id.clone());
                let generation = old.as_ref().map_or(1, |old| old.generation + 1);
                t.execute(
                    "INSERT INTO cluster
                        (id, name, state, generation, spec, image_id, kubernetes, trial, created, plugins)
                     VALUES (?1, ?2, 'present', ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                     ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, spec = excluded.spec,
                        image_id = excluded.image_id, kubernetes = excluded.kubernetes, trial = excluded.trial,
                        plugins = excluded.plugins",
                    params![
                        id,
                        new.spec.name,
                        generation as i64,
                        to_json(&new.spec),
                        new.image_id,
                        new.kubernetes,
                        new.trial,
                        now(),
                        to_json(&new.plugins)
                    ],
                )?;
                let known = old.as_ref().map(|old| old.nodes.as_slice()).unwrap_or_default();
                let nodes = allocate_nodes(&new.spec.nodes, known, &new.pod_network);
                for gone in known.iter().filter(|old| !nodes.iter().any(|node| node.id == old.id)) {
                    t.execute("DELETE FROM node WHERE id = ?1", [&gone.id])?;
                }
                write_nodes(&t, &id, &nodes)?;
                let cluster = (id.as_str(), new.spec.name.as_str(), generation);
                let operation = OperationRecord {
                    started: new.started,
                    ..OperationRecord::new(cluster, OperationKind::Up, new.deadline, new.agreed)
                };
                let begun = operations::insert(&t, operation, "a newer spec was applied")?;
                t.commit()?;
                Ok(begun)
            })
            .await
    }

    /// Decides that a cluster shall vanish and begins its operation, unless that runs already.
    /// A running `up` gives way.
    pub async fn begin_down(
        &self,
        cluster: &ClusterRecord,
        deadline: jiff::Timestamp,
    ) -> Result<Begun, RecordError> {
        let (id, name, generation) = (cluster.id.clone(), cluster.name.clone(), cluster.generation);
        self.store
            .call(move |c| {
                let t = c.transaction()?;
                let running = operations::running(&t, &id)?;
                if let Some(running) = running.filter(|it| it.kind == OperationKind::Down) {
                    return Ok(Begun::Runs(running));
                }
                let marked = t.execute(
                    "UPDATE cluster SET state = 'removing' WHERE id = ?1 AND generation = ?2",
                    params![id, generation as i64],
                )?;
                if marked == 0 {
                    return Ok(Begun::Overtaken);
                }
                let cluster = (id.as_str(), name.as_str(), generation);
                let operation = OperationRecord::new(cluster, OperationKind::Down, deadline, Vec::new());
                let begun = operations::insert(&t, operation, "the cluster is being removed")?;
                t.commit()?;
                Ok(begun)
            })
            .await
    }

    /// Forgets a cluster that is gone, nodes included, and ends its operation well: all or nothing. That operation, as
    /// it ended.
    pub async fn forget_cluster(&self, id: &str) -> Result<Option<OperationRecord>, RecordError> {
        let id = id.to_owned();
        self.store
            .call(move |c| {
                let t = c.transaction()?;
                t.execute("DELETE FROM cluster WHERE id = ?1", [&id])?;
                let ended = operations::end_running(&t, &id, None)?;
                t.commit()?;
                Ok(ended)
            })
            .await
    }

    /// Remembers the port that node agents dial.
    pub async fn set_node_port(&self, cluster_id: &str, port: u16) -> Result<(), RecordError> {
        let sql = "UPDATE cluster SET node_port = CAST(?2 AS INTEGER) WHERE id = ?1";
        self.execute(sql, vec![cluster_id.to_owned(), port.to_string()]).await
    }

    /// What is changed in adopted networks, of all clusters, as the hypervisor room wrote it; null at first.
    pub async fn adoption(&self) -> Result<serde_json::Value, RecordError> {
        self.store
            .call(|c| {
                let stored: Option<String> =
                    c.query_row("SELECT record FROM adoption", [], |row| row.get(0)).optional()?;
                let damaged = |error: serde_json::Error| RecordError::Damaged {
                    what: "record",
                    object: "adopted networks".to_owned(),
                    source: error.into(),
                };
                stored
                    .map_or(Ok(serde_json::Value::Null), |text| serde_json::from_str(&text).map_err(damaged))
            })
            .await
    }

    /// Remembers what is changed in adopted networks, before it is changed.
    pub async fn set_adoption(&self, adoption: &serde_json::Value) -> Result<(), RecordError> {
        let sql = "INSERT INTO adoption (one, record) VALUES (1, ?1)
                   ON CONFLICT (one) DO UPDATE SET record = excluded.record";
        self.execute(sql, vec![to_json(adoption)]).await
    }

    /// Moves a node that has been drained on in its removal, unless it is wanted again by now.
    pub async fn set_removing(&self, node_id: &str) -> Result<(), RecordError> {
        let sql = "UPDATE node SET state = 'removing' WHERE id = ?1 AND state = 'draining'";
        self.execute(sql, vec![node_id.to_owned()]).await
    }

    /// Remembers that a node's pods are on this plugin's network by now.
    pub async fn set_pod_network(&self, node_id: &str, plugin: &str) -> Result<(), RecordError> {
        let sql = "UPDATE node SET pod_network = ?2 WHERE id = ?1";
        self.execute(sql, vec![node_id.to_owned(), plugin.to_owned()]).await
    }

    /// Forgets a node whose VM is gone.
    pub async fn forget_node(&self, node_id: &str) -> Result<(), RecordError> {
        self.execute("DELETE FROM node WHERE id = ?1", vec![node_id.to_owned()]).await
    }

    pub(super) async fn execute(&self, sql: &'static str, args: Vec<String>) -> Result<(), RecordError> {
        self.store
            .call(move |c| {
                c.execute(sql, rusqlite::params_from_iter(args))?;
                Ok(())
            })
            .await
    }
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

impl ClusterRecord {
    /// What a plan on it goes by. A node that is drained by now is another machine when it comes back.
    pub fn version(&self) -> ClusterVersion {
        let nodes = self.nodes.iter().map(|node| (node.id.clone(), node.state)).collect();
        ClusterVersion { id: self.id.clone(), generation: self.generation, nodes }
    }

    /// The record that applying this spec would leave, with ids of its own where nothing is stored yet.
    pub fn planned(
        spec: &ClusterSpec,
        before: Option<&ClusterRecord>,
        image_id: &str,
        kubernetes: &str,
    ) -> Self {
        Self {
            id: before.map_or_else(new_id, |old| old.id.clone()),
            name: spec.name.clone(),
            state: ClusterState::Present,
            generation: before.map_or(1, |old| old.generation + 1),
            spec: spec.clone(),
            image_id: image_id.to_owned(),
            kubernetes: kubernetes.to_owned(),
            trial: false,
            node_port: before.and_then(|old| old.node_port),
            nodes: allocate_nodes(
                &spec.nodes,
                before.map(|old| old.nodes.as_slice()).unwrap_or_default(),
                "",
            ),
            plugins: before.map(|old| old.plugins.clone()).unwrap_or_default(),
        }
    }
}

/// The node records for a spec: known nodes keep id, machine and pod index; new ones get the lowest free index;
/// nodes that left the spec are drained. One that comes back when its certificate is void already is another machine. New
/// machines begin with this pod network.
fn allocate_nodes(wanted: &[NodeSpec], old: &[NodeRecord], pod_network: &str) -> Vec<NodeRecord> {
    let mut taken: BTreeSet<u32> = old.iter().map(|node| node.pod_index).collect();
    let mut nodes: Vec<NodeRecord> = wanted
        .iter()
        .map(|spec| match old.iter().find(|node| node.name == spec.name) {
            Some(node) if node.state == NodeState::Removing => NodeRecord {
                id: new_id(),
                machine_uuid: uuid::Uuid::new_v4().to_string(),
                spec: spec.clone(),
                state: NodeState::Present,
                pod_network: pod_network.to_owned(),
                ..node.clone()
            },
            Some(node) => NodeRecord { spec: spec.clone(), state: NodeState::Present, ..node.clone() },
            None => {
                let pod_index = (0..).find(|index| !taken.contains(index)).expect("the set is finite");
                taken.insert(pod_index);
                NodeRecord {
                    id: new_id(),
                    name: spec.name.clone(),
                    spec: spec.clone(),
                    machine_uuid: uuid::Uuid::new_v4().to_string(),
                    pod_index,
                    state: NodeState::Present,
                    pod_network: pod_network.to_owned(),
                }
            }
        })
        .collect();
    let leaving = old.iter().filter(|node| !wanted.iter().any(|spec| spec.name == node.name));
    nodes.extend(leaving.map(|node| match node.state {
        NodeState::Present => NodeRecord { state: NodeState::Draining, ..node.clone() },
        NodeState::Draining | NodeState::Removing => node.clone(),
    }));
    nodes.sort_by_key(|node| node.pod_index);
    nodes
}

fn write_nodes(t: &Transaction<'_>, cluster_id: &str, nodes: &[NodeRecord]) -> Result<(), RecordError> {
    for node in nodes {
        t.execute(
            "INSERT INTO node (id, cluster_id, name, spec, machine_uuid, pod_index, state, pod_network)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (id) DO UPDATE SET spec = excluded.spec, state = excluded.state",
            params![
                node.id,
                cluster_id,
                node.name,
                to_json(&node.spec),
                node.machine_uuid,
                node.pod_index,
                node_state_text(node.state),
                node.pod_network
            ],
        )?;
    }
    Ok(())
}

fn load(c: &Connection, name: &str) -> Result<Option<ClusterRecord>, RecordError> {
    struct Raw(String, String, i64, String, String, String, bool, Option<u16>, String);
    let raw = c
        .query_row(
            "SELECT id, state, generation, spec, image_id, kubernetes, trial, node_port, plugins
             FROM cluster WHERE name = ?1",
            [name],
            |r| {
                Ok(Raw(
                    r.get(0)?,
                    r.get(1)?,
                    r.get(2)?,
                    r.get(3)?,
                    r.get(4)?,
                    r.get(5)?,
                    r.get(6)?,
                    r.get(7)?,
                    r.get(8)?,
                ))
            },
        )
        .optional()
        .map_err(|error| unreadable(error, || format!("cluster {name}")))?;
    let Some(Raw(id, state, generation, spec, image_id, kubernetes, trial, node_port, plugins)) = raw else {
        return Ok(None);
    };
    let damaged = |what| {
        move |error: serde_json::Error| RecordError::Damaged {
            what,
            object: format!("cluster {name}"),
            source: error.into(),
        }
    };
    let nodes = load_nodes(c, name, &id)?;
    Ok(Some(ClusterRecord {
        name: name.to_owned(),
        state: if state == "removing" { ClusterState::Removing } else { ClusterState::Present },
        generation: generation as u64,
        spec: serde_json::from_str(&spec).map_err(damaged("spec"))?,
        plugins: serde_json::from_str(&plugins).map_err(damaged("plugins"))?,
        id,
        image_id,
        kubernetes,
        trial,
        node_port,
        nodes,
    }))
}

fn load_nodes(c: &Connection, cluster: &str, cluster_id: &str) -> Result<Vec<NodeRecord>, RecordError> {
    let mut query = c.prepare(
        "SELECT id, name, spec, machine_uuid, pod_index, state, pod_network
         FROM node WHERE cluster_id = ?1 ORDER BY pod_index",
    )?;
    let read = |row: &Row<'_>| -> rusqlite::Result<(String, String, String, String, u32, String, String)> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
    };
    let rows: Vec<_> = query
        .query_map([cluster_id], read)?
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(error, || format!("a node of cluster {cluster}")))?;
    rows.into_iter()
        .map(|(id, name, spec, machine_uuid, pod_index, state, pod_network)| {
            let spec = serde_json::from_str(&spec).map_err(|error| RecordError::Damaged {
                what: "spec",
                object: format!("node {name}"),
                source: error.into(),
            })?;
            let state = match state.as_str() {
                "draining" => NodeState::Draining,
                "removing" => NodeState::Removing,
                _ => NodeState::Present,
            };
            Ok(NodeRecord { id, name, spec, machine_uuid, pod_index, state, pod_network })
        })
        .collect()
}

/// What was read and is no value of its column is damage, of this row only; all else is the database's failure.
fn unreadable(error: rusqlite::Error, object: impl FnOnce() -> String) -> RecordError {
    use rusqlite::Error;
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => {
            RecordError::Damaged { what: "row", object: object(), source: error.into() }
        }
        error => error.into(),
    }
}

/// Text as far as it is some.
fn lossy(value: ValueRef<'_>) -> String {
    value.as_bytes().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

fn node_state_text(state: NodeState) -> &'static str {
    match state {
        NodeState::Present => "present",
        NodeState::Draining => "draining",
        NodeState::Removing => "removing",
    }
}
