//! The host agent's configuration, what was asked of it, and what became of that.

use k8sctl_types::failure::Failure;
use k8sctl_types::redact::without_texts;
use serde_json::{Value, json};

use super::pretty;
use crate::cluster::desired::domain_ref;
use crate::cluster::shared::Shared;
use crate::config::HostConfig;
use crate::records::{ClusterRecord, OperationRecord, OperationState};

/// Last bytes of the console of each VM.
const CONSOLE_BYTES: usize = 64 * 1024;

/// All keys, those with their defaults included.
pub(super) fn config(config: &HostConfig) -> Result<String, Failure> {
    serde_json::to_value(config).map(|value| pretty(&value)).map_err(|error| unwritable(&error))
}

/// A cluster as it was last applied. Of plugins' configuration only the shape: what in it is secret nobody can know.
pub(super) fn spec(cluster: &ClusterRecord) -> Result<String, Failure> {
    let mut spec = serde_json::to_value(&cluster.spec).map_err(|error| unwritable(&error))?;
    for plugin in spec.get_mut("plugins").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(config) = plugin.get_mut("config") {
            *config = without_texts(config);
        }
    }
    let nodes: Vec<Value> = cluster
        .nodes
        .iter()
        .map(|node| {
            json!({
                "name": node.name,
                "id": node.id,
                "machine_uuid": node.machine_uuid,
                "pod_index": node.pod_index,
                "state": format!("{:?}", node.state),
            })
        })
        .collect();
    Ok(pretty(&json!({
        "id": cluster.id,
        "state": format!("{:?}", cluster.state),
        "generation": cluster.generation,
        "image_id": cluster.image_id,
        "kubernetes": cluster.kubernetes,
        "trial": cluster.trial,
        "node_port": cluster.node_port,
        "nodes": nodes,
        "spec": spec,
    })))
}

/// The journal of operations, the newest first.
pub(super) async fn operations(shared: &Shared, cluster: &str) -> Result<String, Failure> {
    let all = shared.records.operations(cluster).await.map_err(|error| error.failure())?;
    let shown = all.iter().map(|record| match record {
        Ok(record) => operation(record),
        Err(error) => json!({ "error": k8sctl_rpc::chain(error).to_string() }),
    });
    Ok(pretty(&shown.collect()))
}

fn operation(record: &OperationRecord) -> Value {
    let (state, failure) = match &record.state {
        OperationState::Running => ("running", None),
        OperationState::Succeeded => ("succeeded", None),
        OperationState::Failed(failure) => ("failed", Some(failure)),
    };
    json!({
        "id": record.id,
        "cluster": record.cluster,
        "kind": record.kind.as_str(),
        "generation": record.generation,
        "state": state,
        "started": record.started.to_string(),
        "deadline": record.deadline.to_string(),
        "finished": record.finished.map(|time| time.to_string()),
        "agreed": record.agreed,
        "failure": failure,
    })
}

/// The ends of the consoles of all VMs; of one that has none, why.
pub(super) async fn consoles(shared: &Shared, cluster: &ClusterRecord) -> Result<String, Failure> {
    let mut text = String::new();
    for node in &cluster.nodes {
        let tail = shared.hypervisor.console_tail(&domain_ref(cluster, node), CONSOLE_BYTES).await;
        let tail = tail.unwrap_or_else(|failure| failure.to_string());
        // In half a line nobody knows a secret by its name.
        let is_cut = tail.len() >= CONSOLE_BYTES;
        let tail = if is_cut { tail.split_once('\n').map_or("", |(_, rest)| rest) } else { tail.as_str() };
        text.push_str(&format!("== {}\n{}\n", node.name, tail.trim_end()));
    }
    Ok(text)
}

fn unwritable(error: &serde_json::Error) -> Failure {
    Failure::new("HOST-SUPPORT-PART", "host agent", error.to_string(), "report it")
}
