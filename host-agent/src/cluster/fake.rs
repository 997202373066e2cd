//! A host agent on a host in memory, for the tests of this crate: real records, real tasks, no libvirt, no agents.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use host_artifacts::bundle::BundleStore;
use host_artifacts::image::ImageStore;
use host_hypervisor::fake::FakeHost;
use host_hypervisor::{FakeHypervisor, Hypervisor as _};
use host_pki::join::JoinAuthority;
use host_plugins::{
    ClusterAccess, Converged, Diagnostic, Gate, NodeNeed, PinnedPlugin, PluginState, PluginStatus,
    ProposedAction, ProposedChange, SpecAsk, SpecProposal, WantedPlugin,
};
use host_store::Store;
use k8sctl_proto::control::v1 as control;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::PluginSpec;
use tokio::sync::{Notify, watch};

use super::desired::host_pool;
use super::manager::Manager;
use super::node_requirements;
use super::plugins::{self, ClusterPlugins, PluginsSeen};
use super::shared::Shared;
use super::task::ClusterTask;
use super::turns::HostTurns;
use crate::config::HostConfig;
use crate::events::{self, EventLog};
use crate::nodes::changes::changes;
use crate::nodes::machines::RunningMachines;
use crate::nodes::registry::NodeRegistry;
use crate::pki::PkiStore;
use crate::records::{self, Begun, ClusterRecord, NewGeneration, OperationRecord, Records};
use crate::trace::Tracer;

/// Longest wait for what a task does at its next look.
const PATIENCE: Duration = Duration::from_secs(60);

const IMAGE: &str = "0123456789abcdef0123456789abcdef";

/// A cluster of two nodes.
pub(crate) const SPEC: &str = r#"
name = "home"
[network]
name = "k8s-home"
[[node]]
name = "control"
role = "control-plane"
ip = "192.168.122.10"
[[node]]
name = "worker"
role = "worker"
ip = "192.168.122.11"
"#;

/// A user's file, without a lock beside it.
pub(crate) fn spec_file(text: &str, name: &str) -> control::SpecFile {
    control::SpecFile { text: text.to_owned(), name: name.to_owned(), ..control::SpecFile::default() }
}

/// Another one, on a network of its own.
pub(crate) fn other_spec() -> String {
    SPEC.replace("home", "other")
        .replace("\"control\"", "\"other-control\"")
        .replace("\"worker\"\nrole", "\"other-worker\"\nrole")
        .replace("192.168.122.", "192.168.123.")
        .replace("[network]", "[network]\ncidr = \"192.168.123.0/24\"")
}

/// See the module.
pub(crate) struct FakeHostAgent {
    pub(crate) shared: Arc<Shared>,
    pub(crate) hypervisor: Arc<FakeHypervisor>,
    pub(crate) plugins: Arc<FakePlugins>,
    pub(crate) store: Store,
    _dir: tempfile::TempDir,
}

impl FakeHostAgent {
    /// On an empty host, with one image of v1.29.0.
    pub(crate) async fn new() -> Self {
        k8sctl_rpc::provider::install();
        let dir = tempfile::tempdir().expect("a directory");
        let in_dir = |name: &str| dir.path().join(name);
        let config = HostConfig {
            state_dir: in_dir("state"),
            run_dir: in_dir("run"),
            pool_dir: in_dir("pool"),
            image_dir: in_dir("images"),
            bundle_dir: in_dir("bundles"),
            plugin_dir: in_dir("plugins"),
            plugin_key_dir: in_dir("keys"),
            node_listen: Some(([127, 0, 0, 1], 0).into()),
            join_channel_dir: Some(in_dir("channels")),
            simulated_kubernetes: true,
            ..HostConfig::default()
        };
        make_image(&in_dir("images").join(IMAGE));
        std::fs::create_dir(in_dir("channels")).expect("a directory");
        let schemas = [records::SCHEMA, events::SCHEMA, host_pki::join::SCHEMA, host_plugins::SCHEMA];
        let store = Store::in_memory(&schemas).expect("a store");
        let hypervisor = Arc::new(FakeHypervisor::default());
        let pki = PkiStore::new(in_dir("pki"));
        let machines = Arc::new(RunningMachines::new(hypervisor.clone(), host_pool(&config)));
        let (changes, _) = changes();
        let (host, _) = plugins::open(&config, &store, None).expect("a host of plugins");
        let plugins = Arc::new(FakePlugins::default());
        let shared = Arc::new(Shared {
            records: Records::new(store.clone()),
            events: EventLog::open(store.clone(), config.event_retention).await.expect("a log"),
            hypervisor: hypervisor.clone(),
            documents: hypervisor.clone(),
            registry: NodeRegistry::new(changes),
            images: ImageStore::new(&config.image_dir),
            bundles: BundleStore::new(&config.bundle_dir),
            authority: Arc::new(JoinAuthority::new(store.clone(), Arc::new(pki.clone()), machines)),
            pki,
            plugins: host,
            plugin_cgroups: false,
            cluster_plugins: plugins.clone(),
            turns: HostTurns::default(),
            node_ports: tokio::sync::Mutex::default(),
            handshakes: Arc::default(),
            operations: watch::Sender::new(BTreeMap::new()),
            tracer: Tracer::default(),
            config,
        });
        Self { shared, hypervisor, plugins, store, _dir: dir }
    }

    /// Its image's id.
    pub(crate) fn image_id(&self) -> String {
        IMAGE.to_owned()
    }

    /// An `up` with this spec, planned on the cluster as it is now.
    pub(crate) async fn generation(&self, text: &str) -> NewGeneration {
        let spec = k8sctl_types::spec::parse(text).expect("a sound spec").spec;
        let before = self.shared.records.cluster(&spec.name).await.expect("reads");
        let plugins: Vec<PinnedPlugin> =
            spec.plugins.iter().map(|plugin| self.plugins.pinned(&plugin.name)).collect();
        let network = node_requirements::pod_network(&plugins, &[]);
        NewGeneration {
            spec,
            image_id: self.image_id(),
            kubernetes: "v1.29.0".to_owned(),
            trial: false,
            started: jiff::Timestamp::now(),
            deadline: jiff::Timestamp::MAX,
            planned_on: before.as_ref().map(ClusterRecord::version),
            agreed: Vec::new(),
            plugins,
            pod_network: network.map(|network| network.plugin).unwrap_or_default(),
        }
    }

    /// Begins it in the records, where nobody is told of it.
    pub(crate) async fn begin(&self, generation: NewGeneration) -> OperationRecord {
        match self.shared.records.begin_up(generation).await.expect("answers") {
            Begun::New(operation, _) => operation,
            begun => panic!("it does not begin: {begun:?}"),
        }
    }

    /// The cluster of that name.
    pub(crate) async fn cluster(&self, name: &str) -> ClusterRecord {
        self.shared.records.cluster(name).await.expect("reads").expect("is there")
    }

    /// A cluster's task, whose looks are the test's.
    pub(crate) fn task(&self, cluster: &str) -> ClusterTask {
        let (status, _) = watch::channel(control::ClusterStatus::default());
        ClusterTask::new(Arc::clone(&self.shared), cluster.to_owned(), Arc::new(Notify::new()), status)
    }

    /// The host agent's clusters, taken up from the records.
    pub(crate) async fn start(&self) -> Arc<Manager> {
        Manager::start(Arc::clone(&self.shared)).await.expect("starts")
    }

    /// Waits until the host is so.
    pub(crate) async fn wait_host(&self, what: &str, is_so: impl Fn(&FakeHost) -> bool) {
        let mut changes = self.hypervisor.changes();
        let wait = async {
            while !is_so(&self.hypervisor.host()) {
                changes.changed().await.expect("the host lives");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }

    /// Waits until an operation is published so.
    pub(crate) async fn wait_operation(
        &self,
        what: &str,
        id: &str,
        is_so: impl Fn(&control::Operation) -> bool,
    ) -> control::Operation {
        let mut operations = self.shared.operations.subscribe();
        let seen = operations.wait_for(|all| all.get(id).is_some_and(&is_so));
        let seen =
            tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("not in time: {what}"));
        seen.expect("the sender lives")[id].clone()
    }

    /// Waits until an operation has ended badly.
    pub(crate) async fn failure_of(&self, id: &str) -> control::Failure {
        let has_ended = |it: &control::Operation| it.state() != control::OperationState::Running;
        self.wait_operation("its end", id, has_ended).await.failure.expect("it failed")
    }
}

/// Plugins without processes and without a cluster: each is what it is said to be, and Ready as soon as it may be begun.
pub(crate) struct FakePlugins {
    state: Mutex<FakePluginState>,
    changes: watch::Sender<u64>,
}

impl Default for FakePlugins {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

/// What plugins are, and what was asked of them.
#[derive(Default)]
pub(crate) struct FakePluginState {
    /// What is known of a plugin; of others nothing but their names.
    pub(crate) known: Vec<PinnedPlugin>,
    /// What each asks for that nobody has approved.
    pub(crate) unapproved: Vec<String>,
    /// What they say of their configs.
    pub(crate) said: Vec<(String, Diagnostic)>,
    /// Those that are installed.
    pub(crate) installed: Vec<PluginStatus>,
    /// What those need of nodes.
    pub(crate) needs: Vec<NodeNeed>,
    /// The one that never becomes Ready, and why.
    pub(crate) stuck: Option<(String, String)>,
    /// The one whose installation fails.
    pub(crate) failing: Option<(String, Failure)>,
    /// Names of packages that were kept.
    pub(crate) kept: Vec<String>,
    /// How far a cluster was, and for which operation, at each try.
    pub(crate) tries: Vec<(Gate, String)>,
}

impl FakePlugins {
    pub(crate) fn state(&self) -> MutexGuard<'_, FakePluginState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pinned(&self, name: &str) -> PinnedPlugin {
        let known = self.state().known.iter().find(|plugin| plugin.name == name).cloned();
        known.unwrap_or_else(|| PinnedPlugin {
            approved: self.state().unapproved.clone(),
            ..node_requirements::tests::pinned(name, Vec::new())
        })
    }
}

#[async_trait]
impl ClusterPlugins for FakePlugins {
    async fn propose_spec(&self, ask: &SpecAsk<'_>) -> Result<SpecProposal, Failure> {
        let pinned: Vec<PinnedPlugin> = ask.wanted.iter().map(|plugin| self.pinned(&plugin.name)).collect();
        let state = self.state();
        let change = |action: ProposedAction, plugin: &str| {
            let agreed = ask.agreed.iter().find(|pinned| pinned.name == plugin);
            let is_new = |line: &&String| agreed.is_none_or(|pinned| !pinned.approved.contains(*line));
            let permissions: Vec<String> = match action {
                ProposedAction::Delete => Vec::new(),
                _ => state.unapproved.iter().filter(is_new).cloned().collect(),
            };
            ProposedChange {
                action,
                plugin: plugin.to_owned(),
                reason: "0.1.0".to_owned(),
                destructive: action == ProposedAction::Delete,
                permissions_digest: permissions.join(";"),
                permissions,
            }
        };
        let is_installed = |name: &str| state.installed.iter().any(|status| status.name == name);
        let new = pinned.iter().filter(|plugin| !is_installed(&plugin.name));
        let gone = state.installed.iter().filter(|status| {
            status.origin == "spec" && ask.wanted.iter().all(|plugin| plugin.name != status.name)
        });
        let changes = new
            .map(|plugin| change(ProposedAction::Create, &plugin.name))
            .chain(gone.map(|status| change(ProposedAction::Delete, &status.name)))
            .collect();
        Ok(SpecProposal { changes, diagnostics: state.said.clone(), pinned, ..SpecProposal::default() })
    }

    async fn pin(&self, _: &[PluginSpec], pinned: &[PinnedPlugin]) -> Result<(), Failure> {
        self.state().kept.extend(pinned.iter().map(|plugin| plugin.name.clone()));
        Ok(())
    }

    async fn converge(
        &self,
        _: Option<&ClusterAccess>,
        wanted: &[WantedPlugin],
        gate: Gate,
        attempt: &str,
    ) -> Result<Converged, Failure> {
        let mut state = self.state();
        state.tries.push((gate, attempt.to_owned()));
        state.installed.retain(|status| {
            status.origin != "spec" || wanted.iter().any(|plugin| plugin.pinned.name == status.name)
        });
        let mut converged = Converged::default();
        for WantedPlugin { pinned, .. } in wanted {
            if state.installed.iter().any(|status| status.name == pinned.name) {
                continue;
            }
            let (stuck, failing) = (state.stuck.clone(), state.failing.clone());
            if let Some((name, failure)) = failing.filter(|(name, _)| *name == pinned.name) {
                converged.failed = Some((name, failure));
            } else if let Some((name, why)) = stuck.filter(|(name, _)| *name == pinned.name) {
                converged.waiting.push((name, why));
            } else if gate == Gate::Network && !pinned.provides.iter().any(|what| what == "cni") {
                converged.waiting.push((pinned.name.clone(), "nodes are not ready yet".to_owned()));
            } else {
                state.installed.push(PluginStatus {
                    name: pinned.name.clone(),
                    version: pinned.version.clone(),
                    state: PluginState::Ready,
                    origin: "spec".to_owned(),
                    ..PluginStatus::default()
                });
            }
        }
        Ok(converged)
    }

    async fn look(&self, _: &ClusterRecord) -> Result<PluginsSeen, Failure> {
        let state = self.state();
        Ok(PluginsSeen { statuses: state.installed.clone(), needs: state.needs.clone() })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// An image whose files are empty: nothing boots from it.
fn make_image(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory");
    for name in ["disk.qcow2", "vmlinuz", "initrd.img"] {
        std::fs::write(dir.join(name), "").expect("writes");
    }
    let description = format!(
        "id = \"{IMAGE}\"\nkubernetes = \"v1.29.0\"\nbundle = \"k8s-v1.29.0\"\nbundle_digest = \"\"\n\
         trial = false\nsuite = \"bookworm\"\nnode_agent_sha256 = \"\"\ndebug_unit = false\n\
         cmdline = \"root=/dev/vda\"\n[images]\n"
    );
    std::fs::write(dir.join("image.toml"), description).expect("writes");
}
