//! What a host agent is asked for. Each part has a deadline of its own within that of the whole; what came before it is
//! kept.

use std::fmt::Write as _;
use std::time::Duration;

use k8sctl_command::last_lines;
use k8sctl_proto::control::v1::{
    CollectSupportRequest, DoctorRequest, GetVersionRequest, ListClustersRequest, StreamEventsRequest,
    StreamLogsRequest,
};
use k8sctl_proto::node::v1::{LogSelector, LogSource};
use k8sctl_types::failure::Failure;
use k8sctl_types::redact::redact_texts;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::archive::{PART_BYTES, Part};
use crate::agent::Agent;
use crate::ended::Ended;
use crate::view::{CheckView, ClusterView, EventView, LogView, ProgramView};

/// Longest that a question may take that has one answer.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest that the logs of one node may take.
const NODE: Duration = Duration::from_secs(30);
/// Longest that the host agent may gather.
const GATHER: Duration = Duration::from_secs(100);
/// Nodes whose logs are read at a time; each takes two of the places that a host agent has for readers.
pub(super) const NODES_AT_ONCE: usize = 8;
/// Events of all clusters, the last ones.
const EVENTS: u64 = 5000;

/// A failure, whatever it was wrapped in.
pub(super) fn failure(ended: Ended) -> Failure {
    match ended {
        Ended::Problem(problem) => problem.failure,
        other => Failure::new("HOST-SUPPORT-PART", "support bundle", other.to_string(), "try again"),
    }
}

fn refused(status: Status) -> Failure {
    failure(status.into())
}

fn late(what: &str) -> Failure {
    Failure::new(
        "HOST-SUPPORT-PART",
        what,
        "it did not come in time",
        "look with `k8sctl status` whether it is well; `k8sctl support-bundle --deadline 10m` gives it longer",
    )
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_value(value)
        .map(|value| format!("{:#}\n", redact_texts(&value)))
        .map_err(|error| Failure::new("HOST-SUPPORT-PART", "support bundle", error.to_string(), "report it"))
}

/// A part of one answer.
async fn part(path: String, end: Instant, work: impl Future<Output = Result<String, Failure>>) -> Part {
    let end = end.min(Instant::now() + ANSWER);
    let content = timeout_at(end, work).await.unwrap_or_else(|_| Err(late(&path)));
    Part::new(path, content)
}

/// Version and doctor.
pub(super) async fn host(agent: &Agent, end: Instant) -> Vec<Part> {
    let version = async {
        let answer = agent.host().get_version(GetVersionRequest {}).await.map_err(refused)?.into_inner();
        json(&ProgramView { version: answer.version, protocol: answer.protocol })
    };
    let doctor = async {
        let answer = agent.host().doctor(DoctorRequest {}).await.map_err(refused)?.into_inner();
        json(&answer.checks.into_iter().map(CheckView::from).collect::<Vec<_>>())
    };
    vec![
        part("host/version.json".to_owned(), end, version).await,
        part("host/doctor.json".to_owned(), end, doctor).await,
    ]
}

/// Names of all clusters, or the one.
pub(super) async fn clusters(
    agent: &Agent,
    wanted: Option<&str>,
    end: Instant,
) -> Result<Vec<String>, Failure> {
    if let Some(name) = wanted {
        return Ok(vec![name.to_owned()]);
    }
    let ask = async { agent.clusters().list_clusters(ListClustersRequest {}).await.map_err(refused) };
    let end = end.min(Instant::now() + ANSWER);
    let listed = timeout_at(end, ask).await.unwrap_or_else(|_| Err(late("list of clusters")))?;
    Ok(listed.into_inner().clusters.into_iter().map(|cluster| cluster.name).collect())
}

/// Status of a cluster with all its conditions, and the names of its nodes.
pub(super) async fn status(agent: &Agent, cluster: &str, end: Instant) -> (Part, Vec<String>) {
    let mut nodes = Vec::new();
    let look = async {
        let status: ClusterView = agent.status(cluster).await.map_err(failure)?;
        nodes = status.nodes.iter().map(|node| node.name.clone()).collect();
        json(&status)
    };
    let part = part(format!("clusters/{cluster}/status.json"), end, look).await;
    (part, nodes)
}

/// The last events of all clusters and of the host.
pub(super) async fn events(agent: &Agent, end: Instant) -> Part {
    let (mut text, path) = (String::new(), "events.jsonl");
    let read = async {
        let request = StreamEventsRequest { tail: Some(EVENTS), ..StreamEventsRequest::default() };
        let mut stream = agent.clusters().stream_events(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            if let Some(event) = response.event {
                let line = serde_json::to_value(EventView::from(event)).unwrap_or_default();
                let _ = writeln!(text, "{}", redact_texts(&line));
            }
        }
        Ok::<(), Status>(())
    };
    let ended = timeout_at(end.min(Instant::now() + ANSWER), read).await;
    let cut = text.lines().count() as u64 >= EVENTS;
    Part { cut, ..partly(path.to_owned(), text, ended) }
}

/// What came, and why it is not all.
fn partly(
    path: String,
    text: String,
    ended: Result<Result<(), Status>, tokio::time::error::Elapsed>,
) -> Part {
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(status)) => Some(refused(status)),
        Err(_) => Some(late(&path)),
    };
    let content = Some(text).filter(|text| !text.is_empty() || failure.is_none());
    Part { path, content, failure, cut: false }
}

/// Logs of these nodes of a cluster, all at once: of each what its agent says, and what the rest says. More than
/// [`NODES_AT_ONCE`] would be too many for the host agent, and for memory.
pub(super) async fn logs(
    agent: &Agent,
    cluster: &str,
    nodes: &[String],
    lines: u64,
    end: Instant,
) -> Vec<Part> {
    let mut readers = JoinSet::new();
    for node in nodes {
        for (name, sources) in [
            ("agent", &[LogSource::Agent][..]),
            (
                "services",
                &[
                    LogSource::Kubelet,
                    LogSource::Containerd,
                    LogSource::Kernel,
                    LogSource::Etcd,
                    LogSource::Apiserver,
                    LogSource::ControllerManager,
                    LogSource::Scheduler,
                ][..],
            ),
        ] {
            let path = format!("clusters/{cluster}/nodes/{node}/{name}.log");
            let selector = LogSelector {
                sources: sources.iter().map(|source| (*source).into()).collect(),
                tail: Some(lines),
                ..LogSelector::default()
            };
            let request = StreamLogsRequest {
                cluster_name: cluster.to_owned(),
                node_names: vec![node.clone()],
                selector: Some(selector),
                positions: Vec::new(),
            };
            readers.spawn(log(agent.clone(), path, request, end.min(Instant::now() + NODE)));
        }
    }
    let mut parts = readers.join_all().await;
    // They ended in any order.
    parts.sort_by(|one, other| one.path.cmp(&other.path));
    parts
}

async fn log(agent: Agent, path: String, request: StreamLogsRequest, end: Instant) -> Part {
    let lines = request.selector.as_ref().and_then(|selector| selector.tail);
    let (mut text, mut told, mut cut) = (String::new(), 0, false);
    let read = async {
        let mut stream = agent.clusters().stream_logs(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            for notice in response.notices {
                let _ = writeln!(text, "-- {}: {}", notice.node_name, notice.message);
            }
            told += response.lines.len() as u64;
            for line in response.lines {
                let line = LogView::from(line);
                let _ = writeln!(text, "{} {} {}", line.time.unwrap_or_default(), line.source, line.text);
            }
            if text.len() > 4 * PART_BYTES {
                // More than is kept, so that what is looked at for secrets is more than what is left of it.
                text = last_lines(&text, 2 * PART_BYTES).to_owned();
                cut = true;
            }
        }
        Ok::<(), Status>(())
    };
    let ended = timeout_at(end, read).await;
    let cut = cut || lines.is_some_and(|lines| told >= lines);
    Part { cut, ..partly(path, text, ended) }
}

/// What only the host agent sees, part by part.
pub(super) async fn gathered(agent: &Agent, cluster: Option<&str>, end: Instant) -> Vec<Part> {
    let mut parts = Vec::new();
    let end = end.min(Instant::now() + GATHER);
    let read = async {
        let deadline = prost_types::Duration::try_from(end.saturating_duration_since(Instant::now())).ok();
        let cluster_name = cluster.unwrap_or_default().to_owned();
        let request = CollectSupportRequest { cluster_name, deadline };
        let mut stream = agent.host().collect_support(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            parts.extend(response.part.map(|part| Part {
                failure: part.failure.map(|it| {
                    Failure::new(&it.id, it.object, it.reason, it.next_step).with_evidence(it.evidence)
                }),
                content: Some(part.content).filter(|content| !content.is_empty()),
                path: part.path,
                cut: part.cut,
            }));
        }
        Ok::<(), Status>(())
    };
    let ended = timeout_at(end, read).await;
    let whole = partly("host/gathered".to_owned(), String::new(), ended);
    parts.extend(Some(whole).filter(|part| part.failure.is_some()));
    parts
}
