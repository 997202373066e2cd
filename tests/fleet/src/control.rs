//! What is asked of the host agent besides what users ask: clusters are begun, and their nodes are counted.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8sctl_proto::control::v1::cluster_service_client::ClusterServiceClient;
use k8sctl_proto::control::v1::{ApplyRequest, ApplyResponse, ClusterStatus, SpecFile, WatchStatusRequest};
use k8sctl_rpc::unix::connect_unix;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::cluster::Cluster;
use crate::host::Host;
use crate::wait_for;

type Client = ClusterServiceClient<Channel>;

/// Room for the status of a thousand nodes.
const DECODE_BYTES: usize = 64 * 1024 * 1024;
/// Longest that one call may take, on a host agent that has much to do.
const CALL: Duration = Duration::from_secs(120);

/// The control side of one host agent.
#[derive(Debug)]
pub struct Control {
    runtime: Runtime,
}

impl Control {
    /// Asks nobody yet.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime })
    }

    /// Begins an `up`; it ends when all agents have done their steps.
    pub fn apply(&self, host: &Host, cluster: &Cluster) -> Result<()> {
        let spec =
            Some(SpecFile { name: "cluster.toml".to_owned(), text: cluster.text(), ..Default::default() });
        let request = ApplyRequest { spec, allow_destructive: true, ..ApplyRequest::default() };
        let applied = self.call(host, async move |mut client: Client| -> Result<ApplyResponse> {
            Ok(client.apply(request).await?.into_inner())
        })?;
        ensure!(
            !applied.operation_id.is_empty(),
            "{} was not begun: {:?}",
            cluster.name(),
            applied.diagnostics
        );
        Ok(())
    }

    /// What the host agent knows of a cluster.
    pub fn status(&self, host: &Host, cluster: &Cluster) -> Result<ClusterStatus> {
        let request = WatchStatusRequest { cluster_name: cluster.name(), watch: false };
        self.call(host, async move |mut client: Client| -> Result<ClusterStatus> {
            let mut answers = client.watch_status(request).await?.into_inner();
            answers.message().await?.and_then(|answer| answer.status).context("a status")
        })
    }

    /// Waits until the `up` of a cluster has ended well.
    pub fn wait_ready(&self, host: &Host, cluster: &Cluster, deadline: Duration) -> Result<()> {
        let what = format!("all nodes of {} are Ready", cluster.name());
        let failed = wait_for(&what, deadline, || {
            let status = self.status(host, cluster)?;
            if let Some(failure) = status.last_failure {
                return Ok(Some(Some(failure)));
            }
            let ready = status.nodes.iter().filter(|node| node.phase == "Ready").count();
            let all = cluster.nodes().len();
            // What is published may be of the time before the operation.
            ensure!(status.operation_id.is_empty() && ready == all, "{ready} of {all} are");
            Ok(Some(None))
        })?;
        match failed {
            Some(failure) => bail!("{} failed: {}: {}", cluster.name(), failure.object, failure.reason),
            None => Ok(()),
        }
    }

    /// Waits until all agents of these clusters have sessions.
    pub fn wait_connected(&self, host: &Host, clusters: &[Cluster], deadline: Duration) -> Result<()> {
        for cluster in clusters {
            let what = format!("all agents of {} have sessions", cluster.name());
            wait_for(&what, deadline, || {
                let status = self.status(host, cluster)?;
                let connected = status.nodes.iter().filter(|node| node.connected).count();
                let all = cluster.nodes().len();
                ensure!(connected == all, "{connected} of {all} have");
                Ok(Some(()))
            })?;
        }
        Ok(())
    }

    fn call<T>(&self, host: &Host, call: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
        let socket = host.socket();
        self.runtime.block_on(async {
            let answer = async {
                let channel = connect_unix(&socket).await?;
                call(Client::new(channel).max_decoding_message_size(DECODE_BYTES)).await
            };
            tokio::time::timeout(CALL, answer).await.context("the host agent does not answer")?
        })
    }
}

/// The UUIDs of all VMs by name: the host agent and the VMs alone know them, and these VMs are none.
pub fn machine_uuids(host: &Host) -> Result<HashMap<String, String>> {
    let store = rusqlite::Connection::open(host.file("state/k8s-myhome.db"))?;
    let mut query = store.prepare("SELECT name, machine_uuid FROM node")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
