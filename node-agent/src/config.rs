//! The agent's few settings: flags with environment variables, defaults that fit the node image.
//!
//! Read by `main`; tests build a [`Config`] themselves.

use std::path::PathBuf;
use std::time::Duration;

use crate::machine::Machine;

/// Where the host agent hands out the secret.
pub const DEFAULT_PORT: &str = "/dev/virtio-ports/org.k8sctl.join.0";

/// Everything that [`crate::run`] needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// A virtio-serial port, or a Unix socket with the same lines.
    pub port: PathBuf,
    /// Key and certificate, kept over restarts and reboots.
    pub state_dir: PathBuf,
    /// The directory that stands for `/`.
    pub root: PathBuf,
    /// What converges the node.
    pub steps: Steps,
    /// Whether the clock may be set.
    pub step_clock: bool,
    /// Ids of this machine.
    pub machine: Machine,
}

/// Which steps run.
#[derive(Clone, Debug)]
pub enum Steps {
    /// The real ones.
    Real,
    /// Steps that only take time, for tests without a VM.
    Simulated(Simulation),
}

/// How simulated steps behave.
#[derive(Clone, Debug, Default)]
pub struct Simulation {
    /// How long each apply takes.
    pub delay: Duration,
    /// Steps whose first apply fails.
    pub fail_once: Vec<String>,
    /// Steps whose every apply fails.
    pub fail_always: Vec<String>,
    /// How it logs.
    pub logs: SimulatedLog,
    /// Its log is the journal in this directory, read as a node's own is, and no simulated one.
    pub journal: Option<PathBuf>,
    /// Between two changes of its health; none unless given.
    pub change_every: Option<Duration>,
    /// Steps and log begin anew with each start: nothing of them is on the disk. For thousands on one machine.
    pub in_memory: bool,
}

/// The log of a simulated agent: lines that count, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedLog {
    /// Lines that are there when the agent is started for the first time.
    pub before: u64,
    /// Between two lines; at least a microsecond.
    pub pause: Duration,
    /// Length of a line; shorter ones are filled up.
    pub bytes: usize,
}

impl Default for SimulatedLog {
    fn default() -> Self {
        Self { before: 10, pause: Duration::from_millis(100), bytes: 0 }
    }
}

/// The command line of `k8s-node-agent`.
#[derive(Debug, clap::Parser)]
#[command(name = "k8s-node-agent", version, about = "Makes this machine a node of a k8s-myhome cluster")]
pub struct Arguments {
    /// Port or Unix socket that hands out the join secret.
    #[arg(long, env = "K8S_NODE_AGENT_PORT", default_value = DEFAULT_PORT)]
    port: PathBuf,
    /// Directory for key and certificate.
    #[arg(long, env = "K8S_NODE_AGENT_STATE_DIR", default_value = "/var/lib/k8s-myhome")]
    state_dir: PathBuf,
    /// Directory that stands for `/`.
    #[arg(long, default_value = "/", hide = true)]
    root: PathBuf,
    /// Run steps that only take time.
    #[arg(long, hide = true)]
    simulate: bool,
    /// How long a simulated step takes.
    #[arg(long, default_value_t = 0, hide = true)]
    simulate_delay_ms: u64,
    /// A simulated step that fails the first time.
    #[arg(long, hide = true)]
    simulate_fail_once: Vec<String>,
    /// A simulated step that always fails.
    #[arg(long, hide = true)]
    simulate_fail_always: Vec<String>,
    /// Lines that a simulated log begins with.
    #[arg(long, default_value_t = SimulatedLog::default().before, hide = true)]
    simulate_log_lines: u64,
    /// Microseconds between two lines of a simulated log.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..), hide = true)]
    simulate_log_pause_us: u64,
    /// Length of a line of a simulated log.
    #[arg(long, default_value_t = 0, hide = true)]
    simulate_log_bytes: usize,
    /// Machine UUID instead of the firmware's.
    #[arg(long, hide = true)]
    machine_uuid: Option<String>,
    /// Boot id instead of the kernel's.
    #[arg(long, hide = true)]
    boot_id: Option<String>,
    /// Be the guard of a new agent's trial, and no agent.
    #[arg(long, hide = true)]
    guard: bool,
}

impl Arguments {
    /// Whether this process is to be a guard.
    pub fn is_guard(&self) -> bool {
        self.guard
    }
}

impl From<Arguments> for Config {
    fn from(arguments: Arguments) -> Self {
        let mut machine = Machine::read();
        if let Some(uuid) = arguments.machine_uuid {
            machine.machine_uuid = uuid.to_lowercase();
        }
        if let Some(boot_id) = arguments.boot_id {
            machine.boot_id = boot_id;
        }
        let steps = if arguments.simulate {
            Steps::Simulated(Simulation {
                delay: Duration::from_millis(arguments.simulate_delay_ms),
                fail_once: arguments.simulate_fail_once,
                fail_always: arguments.simulate_fail_always,
                logs: SimulatedLog {
                    before: arguments.simulate_log_lines,
                    pause: Duration::from_micros(arguments.simulate_log_pause_us),
                    bytes: arguments.simulate_log_bytes,
                },
                ..Simulation::default()
            })
        } else {
            Steps::Real
        };
        Self {
            port: arguments.port,
            state_dir: arguments.state_dir,
            // A simulated agent shares its machine with others.
            step_clock: !arguments.simulate && arguments.root == std::path::Path::new("/"),
            root: arguments.root,
            steps,
            machine,
        }
    }
}
