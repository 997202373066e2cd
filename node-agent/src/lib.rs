//! The agent inside a node's VM: joins, makes the node what the host wants, reports, streams logs.
//!
//! ```text
//!  virtio-serial ── bootstrap ──► identity          session ◄── mTLS ──► host agent
//!                                     └──────────────┘ │ ▲
//!                                     desired (watch)  ▼ │ board (watch)
//!                                                converge ── steps        health ──► repair
//! ```
//!
//! - [`config`]: the few settings
//! - [`bootstrap`]: secret over virtio-serial, proof, certificate; [`dial`]: TLS to the host agent
//! - [`session`]: the one stream, renewal of the certificate, reconnecting
//! - [`converge`]: the loop and what a step is; [`steps`]: the real ones
//! - [`status`]: the board between those who know and the session; [`health`]: conditions; [`systemd`]: units
//! - [`repair`]: what the agent puts right by itself; [`service`]: containerd and the kubelet, and who works on them
//! - [`replace`]: the agent's own program, replaced where the host wants another one
//! - [`logs`]: log streams
//! - [`probe`], [`kubeconfig`]: asking this node's kubelet and API server
//! - [`warm`]: programs started once before they are needed; [`processors`]: how many are used until then
//! - [`durable`], [`certificate`], [`clock`], [`machine`], [`retry`]: files, time, facts, pauses
//!
//! One task owns each of session, converge and every watcher; state goes over `watch` channels.

pub mod bootstrap;
pub mod certificate;
pub mod clock;
pub mod config;
pub mod converge;
pub mod dial;
pub mod durable;
pub mod health;
pub mod kubeconfig;
pub mod logs;
pub mod machine;
pub mod probe;
pub mod processors;
pub mod repair;
pub mod replace;
pub mod retry;
pub mod service;
pub mod session;
pub mod status;
pub mod steps;
pub mod systemd;
pub mod warm;

use std::path::Path;
use std::sync::Arc;

use k8sctl_proto::node::v1::ConditionStatus;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use bootstrap::identity::Store;
use bootstrap::port::RealSecretPort;
use bootstrap::{Bootstrap, Dialer};
use config::{Config, Simulation, Steps};
use converge::Converge;
use converge::simulated::{self, NoJournal};
use converge::step::{Journal, RealJournal};
use dial::RealDialer;
use durable::Root;
use logs::LogSources;
use logs::real::RealLogs;
use logs::simulated::SimulatedLogs;
use repair::{Repairs, Surroundings};
use replace::Replacements;
use service::Claims;
use session::Session;
use status::Board;

/// The steps that are done since the machine was booted. On tmpfs.
const STEPS_DONE: &str = "/run/k8s-myhome/steps-done";

/// Runs the agent until `shutdown`, or until the host removes the node.
pub async fn run(config: Config, shutdown: CancellationToken) {
    run_with(config, Arc::new(RealDialer), shutdown).await;
}

/// The same with another way to the host agent.
pub async fn run_with(config: Config, dialer: Arc<dyn Dialer>, shutdown: CancellationToken) {
    let board = Board::default();
    let root = Root::new(&config.root);
    let (desired, wanted) = watch::channel(session::remembered::load(&config.state_dir));
    let (repairs, claims) = (Repairs::open(&config.state_dir, board.clone()), Claims::default());
    let wake = Arc::<Notify>::default();
    let (steps, journal, logs): (_, Arc<dyn Journal>, Arc<dyn LogSources>) = match &config.steps {
        Steps::Real => (steps::real(&root, &claims), Arc::new(RealJournal), Arc::new(RealLogs::default())),
        Steps::Simulated(simulation) => (
            simulated::steps(simulation, config.state_dir.join("simulated")),
            Arc::new(NoJournal),
            simulated_logs(simulation, &config.state_dir),
        ),
    };
    let mut changing = None;
    match &config.steps {
        Steps::Simulated(simulation) => {
            health::simulate(&board);
            if let Some(every) = simulation.change_every {
                let changes = health::simulate_changes(board.clone(), every);
                changing = Some(k8sctl_rpc::task::spawn("simulated-health", changes));
            }
        }
        Steps::Real => {
            // Not while the node joins: that needs the processor first. Ends by itself; what it has not done by then
            // only costs time.
            let (warm_root, mut warm_wanted) = (root.clone(), wanted.clone());
            k8sctl_rpc::task::spawn("warm-up", async move {
                if warm_wanted.wait_for(Option::is_some).await.is_ok() {
                    warm::warm_up(warm_root).await;
                }
            });
            let bound = processors::run(root.clone(), board.clone(), wanted.clone());
            k8sctl_rpc::task::spawn("processors", bound);
            let sights = health::start(&board, &root, &wanted);
            repair::start(Surroundings {
                root: root.clone(),
                state_dir: config.state_dir.clone(),
                desired: wanted.clone(),
                claims,
                repairs: repairs.clone(),
                sights,
                wake: Arc::clone(&wake),
            });
        }
    }
    board.condition("ClockOK", ConditionStatus::True, "InStep", "set when joining");
    let mut converge = Converge::new(steps, wanted, board.clone(), journal, shutdown.clone())
        .with_repairs(repairs.clone())
        .woken_by(wake);
    if let Steps::Real = config.steps {
        converge = converge.keeping_done(root.path(STEPS_DONE));
    }
    let converging = k8sctl_rpc::task::spawn("converge", converge.run());

    // A simulated agent shares its program with others.
    let replacements = match config.steps {
        Steps::Real => replace::start(&root, &config.state_dir, &board).await,
        Steps::Simulated(_) => Replacements::default(),
    };
    let bootstrap = Bootstrap::new(
        Store::new(&config.state_dir),
        Box::new(RealSecretPort::new(&config.port)),
        Arc::clone(&dialer),
        config.machine.clone(),
        config.step_clock,
    );
    let offset = clock::Offset::default();
    Session { bootstrap, dialer, desired, board, logs, offset, replacements, repairs, config, shutdown }
        .run()
        .await;
    converging.abort();
    if let Some(changing) = changing {
        changing.abort();
    }
}

/// The log of an agent that has no machine of its own.
fn simulated_logs(simulation: &Simulation, state_dir: &Path) -> Arc<dyn LogSources> {
    match &simulation.journal {
        Some(directory) => Arc::new(RealLogs::of_journal(directory)),
        None if simulation.in_memory => Arc::new(SimulatedLogs::fresh(simulation.logs)),
        None => Arc::new(SimulatedLogs::kept(state_dir, simulation.logs)),
    }
}
