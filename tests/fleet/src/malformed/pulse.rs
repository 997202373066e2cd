//! How soon those are answered who are well: lines of logs on their way from each node's agent over its session to a
//! client, and calls of that client. None of these streams may break off.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use k8sctl_proto::control::v1::cluster_service_client::ClusterServiceClient;
use k8sctl_proto::control::v1::host_service_client::HostServiceClient;
use k8sctl_proto::control::v1::{GetVersionRequest, StreamLogsRequest};
use k8sctl_proto::node::v1::LogSelector;
use k8sctl_rpc::unix::connect_unix;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;
use crate::host::Host;

/// Between an answer and the next call.
pub const APART: Duration = Duration::from_millis(10);
/// Longest that a call may take.
const CALL: Duration = Duration::from_secs(10);

/// Milliseconds that each of them took.
#[derive(Clone, Debug, Default)]
pub struct Beats {
    /// From the moment that a line is written until a client has it.
    pub lines: Vec<f64>,
    /// From a call to its answer.
    pub calls: Vec<f64>,
}

impl Beats {
    /// With those of another time.
    pub fn extend(&mut self, other: &Self) {
        self.lines.extend_from_slice(&other.lines);
        self.calls.extend_from_slice(&other.calls);
    }
}

#[derive(Debug, Default)]
struct Kept {
    beats: Beats,
    broken: Vec<String>,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Pulse {
    runtime: Option<Runtime>,
    kept: Arc<Mutex<Kept>>,
}

impl Pulse {
    /// Follows each of these nodes, and calls.
    pub fn of(host: &Host, cluster: &Cluster, nodes: &[String]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let kept = Arc::<Mutex<Kept>>::default();
        {
            let _inside = runtime.enter();
            for node in nodes {
                let (kept, socket) = (Arc::clone(&kept), host.socket());
                let (cluster, node) = (cluster.name(), node.clone());
                k8sctl_rpc::task::spawn(format!("pulse-{node}"), async move {
                    let what = format!("the log of {node}");
                    let ended = follow(&socket, cluster, node, &kept).await;
                    broke(&kept, &what, ended);
                });
            }
            let (kept, socket) = (Arc::clone(&kept), host.socket());
            k8sctl_rpc::task::spawn("pulse-calls", async move {
                let ended = call(socket, &kept).await;
                broke(&kept, "a client", ended);
            });
        }
        Ok(Self { runtime: Some(runtime), kept })
    }

    /// All that there was within so long from now on.
    pub fn during(&self, length: Duration) -> Result<Beats> {
        self.forget();
        // What is measured is time that passes.
        thread::sleep(length);
        self.take()
    }

    /// What there was is not judged.
    pub fn forget(&self) {
        lock(&self.kept).beats = Beats::default();
    }

    /// All that there was since it was last asked.
    pub fn take(&self) -> Result<Beats> {
        let mut kept = lock(&self.kept);
        ensure!(kept.broken.is_empty(), "somebody who is well was cut off: {}", kept.broken.join("; "));
        Ok(std::mem::take(&mut kept.beats))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn broke(kept: &Mutex<Kept>, what: &str, ended: Result<()>) {
    let why = ended.err().map_or_else(|| "it ended".to_owned(), |error| format!("{error:#}"));
    lock(kept).broken.push(format!("{what}: {why}"));
}

async fn follow(socket: &Path, cluster_name: String, node: String, kept: &Mutex<Kept>) -> Result<()> {
    let mut client = ClusterServiceClient::new(connect_unix(socket).await?);
    let selector = LogSelector { follow: true, tail: Some(0), ..LogSelector::default() };
    let request = StreamLogsRequest {
        cluster_name,
        node_names: vec![node],
        selector: Some(selector),
        ..StreamLogsRequest::default()
    };
    let mut answers = client.stream_logs(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let now = SystemTime::now();
        if let Some(notice) = answer.notices.first() {
            bail!("{}", notice.message);
        }
        let times = answer.lines.into_iter().filter_map(|line| line.line?.time);
        let late: Vec<f64> = times
            .map(|time| {
                let since = Duration::new(time.seconds.unsigned_abs(), time.nanos.unsigned_abs());
                // By the same clock, unless that was set meanwhile.
                let late = now.duration_since(SystemTime::UNIX_EPOCH + since).unwrap_or_default();
                late.as_secs_f64() * 1_000.0
            })
            .collect();
        lock(kept).beats.lines.extend(late);
    }
    Ok(())
}

async fn call(socket: PathBuf, kept: &Mutex<Kept>) -> Result<()> {
    let mut client = HostServiceClient::new(connect_unix(&socket).await?);
    loop {
        let began = Instant::now();
        timeout(CALL, client.get_version(GetVersionRequest {})).await.context("it is not answered")??;
        let took = began.elapsed().as_secs_f64() * 1_000.0;
        lock(kept).beats.calls.push(took);
        sleep(APART).await;
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    // Whole values are pushed, so what a panic leaves behind is sound.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
