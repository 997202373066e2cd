//! A host agent on a host in memory, for the tests of this crate: real records, real tasks, no libvirt, no agents.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use host_artifacts::bundle::BundleStore;
use host_artifacts::image::ImageStore;
use host_hypervisor::fake::FakeHost;
use host_hypervisor::{FakeHypervisor, Hypervisor as _};
use host_pki::join::JoinAuthority;
use host_plugins::{PluginDir, PluginHost};
use host_store::Store;
use k8sctl_proto::control::v1 as control;
use tokio::sync::{Notify, watch};

use super::desired::host_pool;
use super::manager::Manager;
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
            plugins: PluginHost::new(PluginDir::new([config.plugin_dir.clone()]), store.clone()),
            turns: HostTurns::default(),
            node_ports: tokio::sync::Mutex::default(),
            handshakes: Arc::default(),
            operations: watch::Sender::new(BTreeMap::new()),
            tracer: Tracer::default(),
            config,
        });
        Self { shared, hypervisor, store, _dir: dir }
    }

    /// Its image's id.
    pub(crate) fn image_id(&self) -> String {
        IMAGE.to_owned()
    }

    /// An `up` with this spec, planned on the cluster as it is now.
    pub(crate) async fn generation(&self, text: &str) -> NewGeneration {
        let spec = k8sctl_types::spec::parse(text).expect("a sound spec").spec;
        let before = self.shared.records.cluster(&spec.name).await.expect("reads");
        NewGeneration {
            spec,
            image_id: self.image_id(),
            kubernetes: "v1.29.0".to_owned(),
            trial: false,
            started: jiff::Timestamp::now(),
            deadline: jiff::Timestamp::MAX,
            planned_on: before.as_ref().map(ClusterRecord::version),
            agreed: Vec::new(),
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
