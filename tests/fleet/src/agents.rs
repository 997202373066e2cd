//! The node agents of a fleet, all in this process: the node agent's own code, once for each node.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use node_agent::bootstrap::identity::{Identity, Store};
use node_agent::config::{Config, Simulation, Steps};
use node_agent::machine::Machine;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::control::machine_uuids;
use crate::descriptors;
use crate::dialer::{FleetDialer, Tally};
use crate::host::Host;
use crate::wait_for;

/// Between the starts of two agents. Each takes two handshakes, and the host agent begins 41 a second: so they all join
/// at their first try.
const APART: Duration = Duration::from_millis(50);
/// How long the VM of an agent may take to be started.
const POWERED: Duration = Duration::from_secs(15 * 60);
/// Where files are in memory: what thousands of agents write at once is none of what is measured.
const IN_MEMORY: &str = "/dev/shm";
/// Least that is free there for it to be used, in bytes.
const ROOM: u64 = 1 << 30;

/// All agents of one host agent. They end when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    runtime: Option<Runtime>,
    dir: TempDir,
    tally: Arc<Tally>,
    stop: CancellationToken,
    count: usize,
}

impl Fleet {
    /// Room for so many agents, none of which is started yet.
    pub fn new(most: usize) -> Result<Self> {
        descriptors::allow(most)?;
        k8sctl_rpc::provider::install();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut dir = tempfile::Builder::new();
        dir.prefix("fleet-agents-");
        let dir = if has_room(Path::new(IN_MEMORY)) { dir.tempdir_in(IN_MEMORY) } else { dir.tempdir() }?;
        Ok(Self {
            runtime: Some(runtime),
            dir,
            tally: Arc::default(),
            stop: CancellationToken::new(),
            count: 0,
        })
    }

    /// Starts the agents of these nodes, one after the other, each as soon as its VM runs.
    pub fn start(&mut self, host: &Host, nodes: &[String], simulation: &Simulation) -> Result<()> {
        let uuids = machine_uuids(host)?;
        for node in nodes {
            let uuid = uuids.get(node).with_context(|| format!("{node} is not in the records"))?;
            let channel = host.channel(node);
            wait_for(&format!("the VM of {node} runs"), POWERED, || Ok(channel.exists().then_some(())))?;
            self.spawn(node, uuid, channel, simulation)?;
            thread::sleep(APART);
        }
        Ok(())
    }

    fn spawn(
        &mut self,
        node: &str,
        machine_uuid: &str,
        port: PathBuf,
        simulation: &Simulation,
    ) -> Result<()> {
        let dir = self.dir.path().join(node);
        fs::create_dir(&dir)?;
        let config = Config {
            port,
            state_dir: dir.join("state"),
            root: dir,
            steps: Steps::Simulated(simulation.clone()),
            step_clock: false,
            machine: Machine {
                boot_id: format!("boot-of-{node}"),
                machine_uuid: machine_uuid.to_owned(),
                boot_to_agent: Duration::ZERO,
            },
        };
        let dialer = Arc::new(FleetDialer::new(self.count, Arc::clone(&self.tally)));
        self.count += 1;
        let runtime = self.runtime.as_ref().context("the fleet has ended")?;
        let _inside = runtime.enter();
        let agent = node_agent::run_with(config, dialer, self.stop.clone());
        k8sctl_rpc::task::spawn(format!("agent-{node}"), agent);
        Ok(())
    }

    /// Who a node is, once its agent has joined.
    pub fn identity(&self, node: &str) -> Result<Identity> {
        let store = Store::new(self.dir.path().join(node).join("state"));
        store.load()?.with_context(|| format!("{node} has not joined"))
    }

    /// How many agents there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their handshakes.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            // Their connections end with it.
            runtime.shutdown_background();
        }
    }
}

fn has_room(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= ROOM)
}
