//! Logs of a cluster's nodes as one stream, in the order of time, through the deaths and returns of nodes.
//!
//! - `request`: what is asked for, checked; `asked`: whether any node knows it
//! - `node`: the log of one node; `position`: where a reader is in it
//! - `reader`: all of them, merged
//!
//! Memory is bounded: a few frames of each node, and what a reader does not take stays in the nodes. At most
//! [`LOG_READERS`] read at once, and each node has at most
//! [`LOG_STREAMS`](k8sctl_rpc::limits::LOG_STREAMS) readers.

mod asked;
mod node;
mod position;
mod reader;
mod request;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8sctl_proto::control::v1::StreamLogsRequest;
use k8sctl_rpc::limits::LOG_READERS;
use k8sctl_rpc::memory;
use k8sctl_rpc::task::blocking;
use k8sctl_types::failure::Failure;
use k8sctl_types::logs::merge::Micros;
use prost_types::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::cluster::manager::{Manager, RequestError};
use crate::records::ClusterRecord;

pub use reader::LogStream;

/// The places for readers of logs, of one host agent.
#[derive(Clone, Debug)]
pub struct LogReaders(Arc<Semaphore>);

impl Default for LogReaders {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOG_READERS)))
    }
}

impl LogReaders {
    /// Checks a request and finds its nodes. Reading begins with [`LogStream::run`].
    pub async fn open(
        &self,
        manager: &Manager,
        request: StreamLogsRequest,
    ) -> Result<LogStream, RequestError> {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            let reason = format!("{LOG_READERS} readers of logs are open already");
            let next = "end one of them, then read again";
            return Err(Failure::new("HOST-LOG-READERS", "host agent", reason, next).into());
        };
        let (record, status) = manager.members(&request.cluster_name).await?;
        let is_all = request.node_names.is_empty();
        // Thousands of names and positions, or an expression that is compiled, take a processor for a while.
        let check = move || {
            let nodes = nodes(&record, &request.node_names)?;
            Ok::<_, Failure>((nodes, request::check(request, jiff::Timestamp::now())?))
        };
        let (nodes, wanted) = blocking(check).await?;
        memory::keep();
        let registry = Arc::clone(&manager.shared().registry);
        let members = Some(status).filter(|_| is_all && wanted.selector.follow);
        Ok(LogStream::new(registry, wanted, nodes, members, Some(place)))
    }
}

/// Names and ids of the nodes that are asked for, each once.
fn nodes(record: &ClusterRecord, names: &[String]) -> Result<Vec<(String, String)>, Failure> {
    if names.is_empty() {
        return Ok(record.nodes.iter().map(|node| (node.name.clone(), node.id.clone())).collect());
    }
    // Of several of one name the first.
    let all = record.nodes.iter().rev().map(|node| (node.name.as_str(), node.id.as_str()));
    let all: HashMap<&str, &str> = all.collect();
    let (mut nodes, mut has_come) = (Vec::new(), HashSet::new());
    for name in names {
        let Some(id) = all.get(name.as_str()) else {
            let known: Vec<&str> = record.nodes.iter().map(|node| node.name.as_str()).collect();
            let hint = if *name == record.name { "; a cluster is named with --cluster" } else { "" };
            return Err(Failure::new(
                "NODE-UNKNOWN",
                format!("node {name}"),
                format!("cluster {} has no node of that name", record.name),
                format!("the nodes are: {}{hint}", known.join(", ")),
            ));
        };
        if has_come.insert(name.as_str()) {
            nodes.push((name.clone(), (*id).to_owned()));
        }
    }
    Ok(nodes)
}

/// The host's clock as it goes on from the beginning of a stream, even when it is set meanwhile, also while the host is
/// suspended.
#[derive(Clone, Copy, Debug)]
struct Clock {
    began: Micros,
    at: Instant,
    /// How long the host had been suspended by then.
    suspended: Micros,
}

impl Clock {
    fn new() -> Self {
        let began = jiff::Timestamp::now().as_microsecond();
        Self { began, at: Instant::now(), suspended: suspended() }
    }

    fn now(&self) -> Micros {
        let passed = Micros::try_from(self.at.elapsed().as_micros()).unwrap_or(Micros::MAX);
        self.began.saturating_add(passed).saturating_add(suspended().saturating_sub(self.suspended))
    }
}

/// How long the host has been suspended since it booted: what one clock counts and the other does not.
fn suspended() -> Micros {
    let micros = |clock| {
        let time = rustix::time::clock_gettime(clock);
        time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000)
    };
    let steady = micros(rustix::time::ClockId::Monotonic);
    // Where it never was, they differ by the time between two questions.
    let suspended = micros(rustix::time::ClockId::Boottime).saturating_sub(steady);
    if suspended < 1_000 { 0 } else { suspended }
}

fn micros(stamp: &Timestamp) -> Micros {
    stamp.seconds.saturating_mul(1_000_000).saturating_add(i64::from(stamp.nanos) / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC, spec_file};
    use k8sctl_proto::node::v1::LogSelector;
    use k8sctl_proto::roles::Role;

    fn refusal(answer: Result<LogStream, RequestError>) -> Failure {
        match answer {
            Err(RequestError::Refused(failure)) => failure,
            other => panic!("it is not refused: {other:?}"),
        }
    }

    #[tokio::test]
    async fn requests_are_of_known_nodes_and_not_too_many_at_once() {
        let agent = FakeHostAgent::new().await;
        let manager = agent.start().await;
        let file = spec_file(SPEC, "cluster.toml");
        manager.apply(&file, "", true, None, Role::Admin).await.expect("it is accepted");
        let readers = LogReaders::default();
        let open = |cluster: &str, names: &[&str], grep: &str| {
            let request = StreamLogsRequest {
                cluster_name: cluster.to_owned(),
                node_names: names.iter().map(|name| (*name).to_owned()).collect(),
                selector: Some(LogSelector { grep: grep.to_owned(), ..LogSelector::default() }),
                ..StreamLogsRequest::default()
            };
            readers.open(&manager, request)
        };
        assert_eq!(refusal(open("typo", &[], "").await).id, "CLUSTER-UNKNOWN");
        let unknown = refusal(open("home", &["control", "nosuch"], "").await);
        assert_eq!((unknown.id.as_str(), unknown.object.as_str()), ("NODE-UNKNOWN", "node nosuch"));
        assert_eq!(unknown.next_step, "the nodes are: control, worker");
        let cluster = refusal(open("home", &["home"], "").await);
        assert_eq!(cluster.next_step, "the nodes are: control, worker; a cluster is named with --cluster");
        assert_eq!(refusal(open("home", &[], "a(").await).id, "NODE-LOGS-REQUEST");
        let mut all = Vec::new();
        for _ in 0..LOG_READERS {
            all.push(open("home", &["worker", "worker"], "").await.expect("there is room"));
        }
        assert_eq!(refusal(open("home", &[], "").await).id, "HOST-LOG-READERS");
        all.pop();
        open("", &[], "").await.expect("there is room again");
    }
}
