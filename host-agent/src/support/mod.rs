//! What only the host agent can see, for a support bundle: part by part, each within a time and a size, without secrets.
//! A part that cannot be had is told with the reason, and no other waits for it longer than its time.
//!
//! - `records`: configuration, specs, operations; `plugins`: those of a cluster; `kubernetes`: nodes, pods and their logs,
//!   and events; `log`: the host agent's own log, libvirt's, and the kernel's
//!
//! Called by the control service; the client writes the archive, and takes secrets out once more.

mod kubernetes;
mod log;
mod plugins;
mod records;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use host_hypervisor::documents::Wanted;
use k8sctl_command::last_lines;
use k8sctl_proto::control::v1::{CollectSupportResponse, SupportPart};
use k8sctl_rpc::task::blocking;
use k8sctl_types::failure::Failure;
use k8sctl_types::redact::{redact, redact_texts};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::cluster::desired::host_pool;
use crate::cluster::manager::Manager;
use crate::cluster::shared::Shared;
use crate::records::ClusterRecord;
use crate::wire;

/// Longest that all of it may take.
const ALL: Duration = Duration::from_secs(120);
/// The same with a client that reads slowly.
pub(crate) const LONGEST: Duration = Duration::from_secs(180);
/// Longest that one part may take.
const PART: Duration = Duration::from_secs(20);
/// Logs of pods that are read at a time.
const AT_ONCE: usize = 4;
/// Most of one part in bytes; a message of the control socket has room for it.
const PART_BYTES: usize = 2 * 1024 * 1024;

/// Where parts go. Whoever asked may be gone.
type Sender = mpsc::Sender<Result<CollectSupportResponse, Status>>;

struct Collector {
    sender: Sender,
    end: Instant,
}

/// What a part has.
#[derive(Debug)]
struct Text {
    text: String,
    /// There was more before it, or behind the first so many of a list.
    is_end: bool,
}

impl Text {
    fn whole(text: String) -> Self {
        Self { text, is_end: false }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::whole(text)
    }
}

/// Gathers; `cluster` empty means: of all.
pub async fn collect(
    manager: Arc<Manager>,
    cluster: String,
    deadline: Option<Duration>,
    sender: Sender,
) -> Result<(), Status> {
    let shared = manager.shared();
    let end = Instant::now() + deadline.filter(|it| !it.is_zero()).unwrap_or(ALL).min(ALL);
    let collector = Collector { sender, end };
    collector.part("host/agent.log", log::own(&shared.config)).await;
    collector.part("host/kernel.log", log::kernel()).await;
    if let Some(journal) = log::libvirt() {
        collector.part("host/libvirt.log", journal).await;
    }
    collector.part("host/config.json", async { records::config(&shared.config) }).await;
    collector.part("host/operations.json", records::operations(shared, &cluster)).await;
    let clusters = match shared.records.all_clusters().await {
        Ok((clusters, damaged)) => {
            for damaged in damaged {
                let path = format!("clusters/{}/spec.json", damaged.name);
                collector.part(&path, async { Err::<String, _>(damaged.error.failure()) }).await;
            }
            clusters
        }
        Err(error) => {
            collector.part("clusters", async { Err::<String, _>(error.failure()) }).await;
            Vec::new()
        }
    };
    let wanted = |it: &&ClusterRecord| cluster.is_empty() || it.name == cluster;
    let clusters: Vec<ClusterRecord> = clusters.iter().filter(wanted).cloned().collect();
    collector.libvirt(shared, &clusters).await;
    let mut apis = Vec::new();
    for cluster in &clusters {
        let path = |name: &str| format!("clusters/{}/{name}", cluster.name);
        collector.part(&path("spec.json"), async { records::spec(cluster) }).await;
        collector.part(&path("plugins.json"), plugins::plugins(shared, cluster)).await;
        let consoles = records::consoles(shared, cluster);
        collector.part(&path("consoles.txt"), consoles).await;
        match timeout_at(collector.until(), manager.cluster_access(&cluster.name)).await {
            Ok(Ok(access)) => {
                let [nodes, pods, events] =
                    ["nodes", "pods", "events"].map(|it| path(&format!("kubernetes/{it}.json")));
                // Of an API that does not answer each takes all of its time.
                tokio::join!(
                    collector.part(&nodes, kubernetes::nodes(&access.client)),
                    collector.part(&pods, kubernetes::pods(&access.client)),
                    collector.part(&events, kubernetes::events(&access.client)),
                );
                apis.push((path("kubernetes/logs"), access));
            }
            Ok(Err(error)) => {
                let failure = kubernetes::unreachable(cluster, &error);
                collector.part(&path("kubernetes"), async { Err::<String, _>(failure) }).await;
            }
            Err(_) => {
                collector.part(&path("kubernetes"), async { Err::<String, _>(late("kubernetes")) }).await
            }
        }
    }
    // Last, since there may be many of them, or nodes that do not answer.
    for node in clusters.iter().flat_map(|cluster| &cluster.nodes) {
        collector.part(&format!("libvirt/{}.qemu.log", node.name), log::emulator(&node.name)).await;
    }
    for (path, access) in apis {
        collector.pod_logs(&path, &access.client).await;
    }
    Ok(())
}

impl Collector {
    fn until(&self) -> Instant {
        self.end.min(Instant::now() + PART)
    }

    async fn part(&self, path: &str, work: impl Future<Output = Result<impl Into<Text>, Failure>>) {
        let content = timeout_at(self.until(), work).await.unwrap_or_else(|_| Err(late(path)));
        let ((content, cut), failure) = match content.map(Into::into) {
            Ok(Text { text, is_end }) => {
                let keep = move || {
                    let clean = redact(&text);
                    let kept = last_lines(&clean, PART_BYTES);
                    (kept.to_owned(), is_end || kept.len() < clean.len())
                };
                (blocking(keep).await, None)
            }
            Err(failure) => ((String::new(), false), Some(wire::failure(&clean(&failure)))),
        };
        let part = SupportPart { path: path.to_owned(), content, failure, cut };
        // The client may be gone, and then is told nothing more.
        let _ = self.sender.send(Ok(CollectSupportResponse { part: Some(part) })).await;
    }

    /// What the pods of the system say, those that are not Ready first, a part each, all within the time of one: those of
    /// a node that hangs take all they get.
    async fn pod_logs(&self, path: &str, client: &kube::Client) {
        let end = self.until();
        match timeout_at(end, kubernetes::system_containers(client)).await {
            Ok(Ok(containers)) => {
                let read = stream::iter(containers).map(async |container| {
                    let path = format!("{path}/{}-{}.log", container.pod, container.name);
                    let log = timeout_at(end, kubernetes::log(client, &container)).await;
                    (log.unwrap_or_else(|_| Err(late(&path))), path)
                });
                let mut read = pin!(read.buffered(AT_ONCE));
                while let Some((log, path)) = read.next().await {
                    self.part(&path, async { log }).await;
                }
            }
            Ok(Err(failure)) => self.part(path, async { Err::<String, _>(failure) }).await,
            Err(_) => self.part(path, async { Err::<String, _>(late(path)) }).await,
        }
    }

    /// libvirt's documents, a part each.
    async fn libvirt(&self, shared: &Shared, clusters: &[ClusterRecord]) {
        let wanted = Wanted {
            clusters: clusters.iter().map(|cluster| cluster.id.clone()).collect(),
            networks: clusters.iter().map(|cluster| cluster.spec.network.name.clone()).collect(),
            pool: host_pool(&shared.config).name,
        };
        match timeout_at(self.until(), shared.documents.documents(&wanted)).await {
            Ok(Ok(documents)) => {
                for document in documents {
                    let path = format!("libvirt/{}-{}.xml", document.kind, document.name);
                    self.part(&path, async { Ok(document.xml) }).await;
                }
            }
            Ok(Err(failure)) => self.part("libvirt", async { Err::<String, _>(failure) }).await,
            Err(_) => self.part("libvirt", async { Err::<String, _>(late("libvirt")) }).await,
        }
    }
}

/// Of what was not there in time.
pub(crate) fn late(what: &str) -> Failure {
    Failure::new(
        "HOST-SUPPORT-PART",
        what,
        "it did not come in time",
        "look with `k8sctl doctor` at what it comes from; `k8sctl support-bundle` tries again",
    )
}

/// A failure holds what programs and strangers said.
fn clean(failure: &Failure) -> Failure {
    let text = |text: &str| redact(text).into_owned();
    Failure {
        id: failure.id.clone(),
        object: text(&failure.object),
        reason: text(&failure.reason),
        next_step: text(&failure.next_step),
        evidence: text(&failure.evidence),
    }
}

/// As a document for people.
fn pretty(value: &serde_json::Value) -> String {
    format!("{:#}\n", redact_texts(value))
}

#[cfg(test)]
mod tests;
