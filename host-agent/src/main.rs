//! `k8s-host-agent`: logging, configuration, build, serve, drain.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use host_agent::alone::Alone;
use host_agent::cluster::crash;
use host_agent::cluster::desired::{console_dir, host_pool};
use host_agent::cluster::manager::Manager;
use host_agent::cluster::plugins::{self, RealPlugins};
use host_agent::cluster::shared::Shared;
use host_agent::cluster::turns::HostTurns;
use host_agent::config::{ConfigError, HostConfig};
use host_agent::events::EventLog;
use host_agent::metrics::libvirt::Measured;
use host_agent::metrics::{Exporter, Meters, operations, serve};
use host_agent::nodes::registry::NodeRegistry;
use host_agent::pki::PkiStore;
use host_agent::records::Records;
use host_agent::startup::{record_failure, store_failure};
use host_agent::trace::Tracer;
use host_agent::{control, events, libvirt_events, nodes, records};
use host_artifacts::bundle::BundleStore;
use host_artifacts::image::ImageStore;
use host_hypervisor::real::HypervisorConfig;
use host_hypervisor::{Hypervisor, RealHypervisor};
use host_pki::join::{JoinAuthority, join_events};
use host_store::{Store, StoreError};
use k8sctl_types::failure::Failure;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long open calls may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(2);
/// The same for events that could not be stored until then.
const LAST_EVENTS: Duration = Duration::from_secs(1);
/// How long another one of this configuration may take to end: what it drains, and the spans that it sends.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// Manages the VMs and clusters of this host. Usually started by systemd or by k8sctl.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Configuration file; /etc/k8s-myhome/host-agent.toml unless given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    k8sctl_rpc::telemetry::init("k8s-host-agent");
    k8sctl_rpc::provider::install();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

/// Tells why the host agent ended, and what to do next, as `k8sctl` tells a failure.
fn tell(error: &anyhow::Error) {
    let other = || {
        let next = "mend that, then start it again";
        Failure::new("HOST-AGENT-START", "host agent", format!("{error:#}"), next)
    };
    let failure = error.downcast_ref::<Failure>().cloned().unwrap_or_else(other);
    // There is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "error {failure}\nnext: {}", failure.next_step);
}

fn start(args: &Args) -> anyhow::Result<()> {
    let config = HostConfig::load(args.config.as_deref()).map_err(|error| {
        let reason = k8sctl_rpc::chain(&error).to_string();
        let next = match &error {
            ConfigError::Unreadable { .. } => "see to path, owner and mode of the file, then start it again",
            ConfigError::Mistakes { .. } => "mend the keys that are named, then start it again",
        };
        Failure::new("HOST-CONFIG", "host agent's configuration", reason, next)
    })?;
    for (dir, mode) in [(&config.state_dir, 0o700), (&config.run_dir, 0o755)] {
        k8sctl_rpc::directory::make(dir, mode)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }
    close_dir(&config.state_dir)?;
    let _alone = Alone::lock(&config, PREDECESSOR)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(run(config))
}

async fn run(config: HostConfig) -> anyhow::Result<()> {
    let schemas = [records::SCHEMA, events::SCHEMA, host_pki::join::SCHEMA, host_plugins::SCHEMA];
    let database = config.database();
    let unusable = |error: &StoreError| store_failure(&database, error);
    let store = Store::open(&database, &schemas).map_err(|error| unusable(&error))?;
    let event_log =
        EventLog::open(store.clone(), config.event_retention).await.map_err(|error| unusable(&error))?;
    let (changes, receiver) = nodes::changes::changes();
    let registry = NodeRegistry::new(changes);
    let pki = PkiStore::new(config.state_dir.join("pki"));
    let records = Records::new(store.clone());
    let libvirt = Arc::new(RealHypervisor::start(HypervisorConfig {
        uri: config.libvirt_uri.clone(),
        console_dir: console_dir(&config),
        start_daemons: config.start_libvirt,
    })?);
    let (meters, answers) = (Meters::default(), libvirt.answers());
    let hypervisor: Arc<dyn Hypervisor> = Arc::new(Measured::new(libvirt.clone(), meters.clone()));
    let machines = Arc::new(nodes::machines::RunningMachines::new(hypervisor.clone(), host_pool(&config)));
    let (join_teller, joins) = join_events();
    let authority =
        JoinAuthority::new(store.clone(), Arc::new(pki.clone()), machines).with_events(join_teller);
    let authority = authority.with_points(crash::point);
    let authority = Arc::new(authority);
    let tracer = start_tracer(config.trace_endpoint.as_deref());
    let cgroups = plugins::own_cgroups();
    let plugin_cgroups = cgroups.is_some();
    let (plugins, plugin_events) = plugins::open(&config, &store, cgroups)?;
    let cluster_plugins = Arc::new(RealPlugins::new(plugins.clone(), &config));
    let shared = Arc::new(Shared {
        records: records.clone(),
        events: event_log.clone(),
        hypervisor,
        documents: libvirt,
        registry,
        images: ImageStore::new(&config.image_dir),
        bundles: BundleStore::new(&config.bundle_dir),
        pki,
        authority,
        plugins,
        plugin_cgroups,
        cluster_plugins,
        turns: HostTurns::default(),
        node_ports: tokio::sync::Mutex::default(),
        handshakes: Arc::default(),
        operations: watch::Sender::new(BTreeMap::new()),
        tracer: tracer.clone(),
        config,
    });
    k8sctl_rpc::task::spawn(
        "node-events",
        nodes::node_events::record_changes(records.clone(), event_log.clone(), receiver),
    );
    k8sctl_rpc::task::spawn("plugin-events", plugins::record_events(event_log.clone(), plugin_events));
    k8sctl_rpc::task::spawn("libvirt-events", libvirt_events::record(event_log.clone(), answers));
    let last_events = event_log.clone();
    k8sctl_rpc::task::spawn("join-events", nodes::node_events::record_joins(records, event_log, joins));
    let socket = shared.config.socket();
    k8sctl_rpc::task::spawn(
        "operation-metrics",
        operations::follow(shared.operations.subscribe(), meters.clone(), tracer.clone()),
    );
    let manager = Manager::start(shared).await.map_err(|error| record_failure(&database, &error))?;
    serve::start(manager.config(), Exporter::new(Arc::clone(&manager), store, meters))?;

    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut wait = stopped.clone();
    let server = control::serve(&socket, manager, async move {
        // Ends when the sender says so or is gone.
        let _ = wait.wait_for(|stop| *stop).await;
    });
    tokio::pin!(server);
    tracing::info!(socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "the host agent is up");
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        result = &mut server => return result,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    stop.send_replace(true);
    if tokio::time::timeout(DRAIN, server).await.is_err() {
        tracing::info!("open calls were cut; their operations go on at the next start");
    }
    if tokio::time::timeout(LAST_EVENTS, last_events.write_rest()).await.is_err() {
        tracing::error!("events may be lost: storing them takes too long");
    }
    tracer.stop().await;
    Ok(())
}

/// Traces are no reason not to start.
fn start_tracer(endpoint: Option<&str>) -> Tracer {
    let Some(endpoint) = endpoint else { return Tracer::default() };
    Tracer::start(endpoint).unwrap_or_else(|error| {
        tracing::error!(endpoint, %error, "no traces are sent");
        Tracer::default()
    })
}

/// A state directory that was there before is made as private as one that we make.
fn close_dir(dir: &Path) -> anyhow::Result<()> {
    let mode = std::fs::metadata(dir)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(path = %dir.display(), "the state directory was open to others; closing it");
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close {} to others (chmod 0700)", dir.display()))
}
