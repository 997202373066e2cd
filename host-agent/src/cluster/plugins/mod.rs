//! The plugins of clusters, as the rest of the host agent sees them: the host of plugins is made here, and asked for what
//! belongs to a spec.
//!
//! - `proposal`: what `up` would do to plugins, and the places of what they say in the user's file
//!
//! What a person does to one plugin comes in at the control service, which asks the host of plugins itself.

use std::path::Path;

use async_trait::async_trait;
use host_plugins::{
    Ceilings, Cgroups, ClusterAccess, Converged, Deadlines, FetchSetup, Gate, HostSetup, KeyRing, Library,
    Limits, Manifests, NodeNeed, PinnedPlugin, PluginEvent, PluginHost, PluginState, PluginStatus, Runner,
    SpecAsk, SpecProposal, Vault, WantedPlugin,
};
use host_store::Store;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::PluginSpec;
use tokio::sync::{mpsc, watch};

use super::crash;
use crate::config::HostConfig;
use crate::events::{EventLog, NewEvent};
use crate::records::ClusterRecord;

mod proposal;

pub use proposal::place;
pub(crate) use proposal::read_lock;
pub(super) use proposal::{Asked, Proposed, propose};

/// Events on their way to the log.
const EVENTS: usize = 256;
/// Longest that a manifest may be on its way from its place.
const FETCH: std::time::Duration = std::time::Duration::from_secs(120);
/// Longest that nothing of it may come.
const FETCH_IDLE: std::time::Duration = std::time::Duration::from_secs(15);

/// How plugins are on one cluster.
#[derive(Clone, Debug, Default)]
pub struct PluginsSeen {
    /// Those that are installed, or are about to be.
    pub statuses: Vec<PluginStatus>,
    /// What they need of nodes.
    pub needs: Vec<NodeNeed>,
}

/// What plans and tasks of clusters ask about plugins.
#[async_trait]
pub trait ClusterPlugins: Send + Sync {
    /// What a spec would change. Starts processes, writes nothing.
    async fn propose_spec(&self, ask: &SpecAsk<'_>) -> Result<SpecProposal, Failure>;
    /// Keeps the packages that were proposed, before the spec is committed.
    async fn pin(&self, wanted: &[PluginSpec], pinned: &[PinnedPlugin]) -> Result<(), Failure>;
    /// Starts what may be started, and tells what is missing; `None` where there is no Kubernetes.
    async fn converge(
        &self,
        access: Option<&ClusterAccess>,
        wanted: &[WantedPlugin],
        gate: Gate,
        attempt: &str,
    ) -> Result<Converged, Failure>;
    /// How they are.
    async fn look(&self, cluster: &ClusterRecord) -> Result<PluginsSeen, Failure>;
    /// Counts up with every change of any of them.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// The host of plugins.
#[derive(Clone)]
pub struct RealPlugins {
    host: PluginHost,
    /// Else a node is Ready when its agent says so, and so is a plugin that is wanted.
    has_kubernetes: bool,
}

impl RealPlugins {
    /// Asks this one.
    pub fn new(host: PluginHost, config: &HostConfig) -> Self {
        Self { host, has_kubernetes: !config.simulated_kubernetes }
    }
}

#[async_trait]
impl ClusterPlugins for RealPlugins {
    async fn propose_spec(&self, ask: &SpecAsk<'_>) -> Result<SpecProposal, Failure> {
        self.host.propose_spec(ask).await
    }

    async fn pin(&self, wanted: &[PluginSpec], pinned: &[PinnedPlugin]) -> Result<(), Failure> {
        self.host.pin(wanted, pinned).await
    }

    async fn converge(
        &self,
        access: Option<&ClusterAccess>,
        wanted: &[WantedPlugin],
        gate: Gate,
        attempt: &str,
    ) -> Result<Converged, Failure> {
        match access {
            Some(access) => self.host.converge(access, wanted, gate, attempt).await,
            None => Ok(Converged::default()),
        }
    }

    async fn look(&self, cluster: &ClusterRecord) -> Result<PluginsSeen, Failure> {
        if !self.has_kubernetes {
            let statuses = cluster.plugins.iter().map(simulated).collect();
            return Ok(PluginsSeen { statuses, needs: Vec::new() });
        }
        let statuses = self.host.list(&cluster.id, false).await?;
        let needs = self.host.node_requirements(&cluster.id).await?;
        Ok(PluginsSeen { statuses, needs })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.host.changes()
    }
}

fn simulated(plugin: &PinnedPlugin) -> PluginStatus {
    PluginStatus {
        name: plugin.name.clone(),
        version: plugin.version.clone(),
        state: PluginState::Ready,
        origin: "spec".to_owned(),
        ..PluginStatus::default()
    }
}

/// The host of plugins as the configuration has it, and what it tells.
pub fn open(
    config: &HostConfig,
    store: &Store,
    cgroups: Option<Cgroups>,
) -> Result<(PluginHost, mpsc::Receiver<PluginEvent>), Failure> {
    let (keys, unread) = KeyRing::load(&config.plugin_key_dir);
    for error in unread {
        // What it has signed is refused as unsigned, which names the folder.
        tracing::warn!(path = %config.plugin_key_dir.display(), error = %k8sctl_rpc::chain(&error), "a key is left out");
    }
    let own = config.state_dir.join("plugins");
    let fetch =
        FetchSetup { folder: own.join("manifests"), roots: Vec::new(), deadline: FETCH, idle: FETCH_IDLE };
    let (events, told) = mpsc::channel(EVENTS);
    let path = vec![config.plugin_dir.clone()];
    let host = PluginHost::new(HostSetup {
        store: store.clone(),
        library: Library::new(path, own.join("store"), Library::tree_policy(keys)),
        runner: Runner::new(Deadlines::default(), Ceilings::default()).with_cgroups(cgroups),
        manifests: Manifests::new(fetch)?,
        vault: Vault::new(own.join("secrets")),
        limits: Limits::default(),
        points: crash::point,
        events,
        drift_interval: config.plugin_drift_interval,
    });
    Ok((host, told))
}

/// The part of the control groups that is this program's own, where it has one: found once, at its start.
pub fn own_cgroups() -> Option<Cgroups> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    Cgroups::claim(Path::new("/sys/fs/cgroup"), &own)
}

/// Writes what happens to plugins into the event log, until there is no host of plugins any more.
pub async fn record_events(events: EventLog, mut told: mpsc::Receiver<PluginEvent>) {
    while let Some(PluginEvent { cluster_name, plugin, kind, message, warning }) = told.recv().await {
        let object = format!("plugin {plugin}");
        events.record(NewEvent { cluster: cluster_name, object, kind, message, warning }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC};
    use crate::cluster::node_requirements::tests::flannel;

    #[tokio::test]
    async fn without_kubernetes_a_plugin_that_is_wanted_is_taken_for_ready() {
        let agent = FakeHostAgent::new().await;
        let spec = k8sctl_types::spec::parse(SPEC).expect("a sound spec").spec;
        let mut cluster = ClusterRecord::planned(&spec, None, "image", "v1.29.0");
        cluster.plugins = vec![flannel()];
        let plugins = RealPlugins::new(agent.shared.plugins.clone(), &agent.shared.config);
        let seen = plugins.look(&cluster).await.expect("it answers");
        assert_eq!((seen.statuses[0].name.as_str(), seen.statuses[0].state), ("flannel", PluginState::Ready));
        let wanted = [WantedPlugin { pinned: flannel(), config: serde_json::json!({}) }];
        let converged = plugins.converge(None, &wanted, Gate::Everything, "o").await.expect("it answers");
        assert!(converged.is_done());
    }

    #[tokio::test]
    async fn what_happens_to_plugins_is_told_as_events() {
        let agent = FakeHostAgent::new().await;
        let (sender, told) = mpsc::channel(4);
        let event = PluginEvent {
            cluster_name: "home".to_owned(),
            plugin: "hello".to_owned(),
            kind: k8sctl_types::event::EventType::PluginInstalled,
            message: "0.1.0 is ready".to_owned(),
            warning: false,
        };
        sender.send(event).await.expect("there is room");
        drop(sender);
        record_events(agent.shared.events.clone(), told).await;
        let selection = crate::events::Selection::of_cluster("home");
        let events = agent.shared.events.page(0, &selection).await.expect("reads").events;
        assert_eq!(
            (events[0].object.as_str(), events[0].r#type.as_str()),
            ("plugin hello", "PluginInstalled")
        );
    }
}
