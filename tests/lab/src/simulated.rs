//! A host without VMs: a real host agent on libvirt's test driver, and real node agents with simulated steps in place
//! of the VMs that it starts.
//!
//! libvirt's test driver forgets everything with its last connection, so one is held open for the whole time. It is one
//! for the whole lab, which is why there is one such host at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::tap::Tap;
use crate::{Lab, Printed, Running, wait_until};

const URI: &str = "test+unix:///default";
/// For sockets, in the lab's own /run: their paths must be short, whatever the home directory's is.
const SOCKETS: &str = "/run/simulated";
const MINUTE: Duration = Duration::from_secs(60);

/// One host at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// See the module.
#[derive(Debug)]
pub struct SimulatedHost {
    lab: Lab,
    dir: PathBuf,
    sockets: PathBuf,
    config: PathBuf,
    uri: String,
    holder: Option<Running>,
    agents: BTreeMap<String, Running>,
    log: Option<String>,
    tap: Option<Tap>,
    silent: BTreeSet<String>,
    agent_arguments: BTreeMap<String, Vec<String>>,
    _alone: MutexGuard<'static, ()>,
}

/// How a host differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Differences<'a> {
    /// Another libvirt than the lab's with its test driver.
    pub libvirt_uri: Option<String>,
    /// Keys of the host agent's file, as TOML; they count before the usual ones.
    pub keys: Vec<(&'a str, String)>,
}

impl SimulatedHost {
    /// A host with nothing on it; `name` names its directory.
    pub fn new(lab: &Lab, name: &str) -> Result<Self> {
        Self::with(lab, name, Differences::default())
    }

    /// The same, with differences.
    pub fn with(lab: &Lab, name: &str, differences: Differences<'_>) -> Result<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = lab.file(name);
        for part in ["state", "run", "pool", "nodes"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let sockets = Path::new(SOCKETS).join(name);
        let channels = sockets.join("channels");
        fs::create_dir_all(&channels)?;
        let Differences { libvirt_uri, keys } = differences;
        let uri = libvirt_uri.unwrap_or_else(|| URI.to_owned());
        let lab_config = fs::read_to_string(std::env::var("K8SCTL_CONFIG")?)?;
        let inherited = lab_config.lines().filter(|line| {
            ["image_dir", "bundle_dir", "plugin_dir", "node_agent"].iter().any(|k| line.starts_with(k))
        });
        let config = dir.join("host-agent.toml");
        let mut file = fs::File::create(&config)?;
        let differs = |key: &str| keys.iter().any(|(differing, _)| *differing == key);
        for line in inherited.filter(|line| !differs(line.split(' ').next().unwrap_or_default())) {
            writeln!(file, "{line}")?;
        }
        for (key, value) in &keys {
            writeln!(file, "{key} = {value}")?;
        }
        for (key, path) in [
            ("state_dir", dir.join("state")),
            ("run_dir", dir.join("run")),
            ("pool_dir", dir.join("pool")),
            ("join_channel_dir", channels),
        ] {
            if !differs(key) {
                writeln!(file, "{key} = {path:?}")?;
            }
        }
        writeln!(file, "libvirt_uri = {uri:?}\nnode_listen = \"127.0.0.1:0\"\nsimulated_kubernetes = true")?;
        let mut host = Self {
            lab: lab.clone(),
            dir,
            sockets,
            config,
            uri,
            holder: None,
            agents: BTreeMap::new(),
            silent: BTreeSet::new(),
            agent_arguments: BTreeMap::new(),
            log: None,
            tap: None,
            _alone: alone,
        };
        if host.uri == URI {
            host.holder = Some(lab.spawn("virsh", &["-c", URI, "event", "--all", "--loop"], &[])?);
            wait_until("the test driver answers", MINUTE, || Ok(host.virsh(&["uri"])?.contains("test")))?;
        }
        Ok(host)
    }

    /// The VM of this node runs and its agent does not, as long as that is so.
    pub fn silence(&mut self, name: &str, silent: bool) {
        if silent {
            self.silent.insert(name.to_owned());
            self.agents.remove(name);
        } else {
            self.silent.remove(name);
        }
    }

    /// The agent of this node is started with these arguments besides, from the next time on.
    pub fn agent_arguments(&mut self, name: &str, arguments: &[&str]) {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.agent_arguments.insert(name.to_owned(), arguments);
    }

    /// The same host, whose programs log what this filter says.
    pub fn with_log(mut self, filter: &str) -> Self {
        self.log = Some(filter.to_owned());
        self
    }

    /// The same host, with somebody listening on every join channel.
    pub fn with_tap(mut self) -> Result<Self> {
        self.tap = Some(Tap::new(&self.sockets.join("channels"), &self.sockets.join("taps"))?);
        Ok(self)
    }

    /// What passed over the join channels.
    pub fn tap(&self) -> Result<&Tap> {
        self.tap.as_ref().context("nobody listens on this host")
    }

    /// A file in this host's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts the host agent; with `crash_at` it ends itself there.
    pub fn host_agent(&self, crash_at: Option<&str>) -> Result<Running> {
        let config = self.config.to_string_lossy().into_owned();
        let mut env: Vec<(&str, &str)> = crash_at.iter().map(|point| ("K8SCTL_CRASH_AT", *point)).collect();
        env.extend(self.log_env());
        let mut agent = self.lab.spawn("k8s-host-agent", &["--config", &config], &env)?;
        let socket = self.dir.join("run/api.sock");
        wait_until("the host agent's socket answers, or it has ended", MINUTE, || {
            Ok(agent.has_ended()? || std::os::unix::net::UnixStream::connect(&socket).is_ok())
        })?;
        Ok(agent)
    }

    /// Runs `k8sctl` against this host, whatever its exit status.
    pub fn try_k8sctl(&self, args: &[&str]) -> Result<Printed> {
        let mut running = self.spawn_k8sctl(args)?;
        let status = running.wait(10 * MINUTE)?;
        running.printed(status)
    }

    fn try_k8sctl_with(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Printed> {
        let mut running = self.spawn_k8sctl_with(args, env)?;
        let status = running.wait(10 * MINUTE)?;
        running.printed(status)
    }

    /// Starts `k8sctl` against this host.
    pub fn spawn_k8sctl(&self, args: &[&str]) -> Result<Running> {
        self.spawn_k8sctl_with(args, &[])
    }

    fn spawn_k8sctl_with(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Running> {
        let socket = self.dir.join("run/api.sock").to_string_lossy().into_owned();
        let config = self.config.to_string_lossy().into_owned();
        let mut all = vec!["--config", &config, "--socket", &socket];
        all.extend(args);
        let mut env = env.to_vec();
        env.extend(self.log_env());
        self.lab.spawn("k8sctl", &all, &env)
    }

    /// Runs `k8sctl` against this host to its end, with power on the VMs meanwhile.
    pub fn powered_k8sctl(&mut self, args: &[&str]) -> Result<Printed> {
        let running = self.spawn_k8sctl(args)?;
        self.powered(running)
    }

    /// Waits for the end of a command, with power on the VMs meanwhile.
    pub fn powered(&mut self, mut running: Running) -> Result<Printed> {
        let ended = self.run_until("the command ends", 3 * MINUTE, |_| running.has_ended());
        ended.with_context(|| format!("it printed: {:?}", running.read()))?;
        let status = running.wait(MINUTE)?;
        running.printed(status)
    }

    /// Runs `k8sctl` against this host; it must succeed.
    pub fn k8sctl(&self, args: &[&str]) -> Result<String> {
        self.k8sctl_with(args, &[])
    }

    /// The same with these variables.
    pub fn k8sctl_with(&self, args: &[&str], env: &[(&str, &str)]) -> Result<String> {
        let printed = self.try_k8sctl_with(args, env)?;
        ensure!(
            printed.status.success(),
            "k8sctl {args:?}: {}\n{}\n{}",
            printed.status,
            printed.out,
            printed.err
        );
        Ok(printed.out)
    }

    /// Runs `virsh` against this host; it must succeed.
    pub fn virsh(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-c", &self.uri, "--quiet"];
        all.extend(args);
        self.lab.run("virsh", &all, MINUTE)
    }

    /// Names of all domains, the test driver's own excepted.
    pub fn domains(&self) -> Result<Vec<String>> {
        let list = self.virsh(&["list", "--all", "--name"])?;
        let mut names: Vec<String> = list
            .lines()
            .map(str::trim)
            .filter(|n| !n.is_empty() && *n != "test")
            .map(str::to_owned)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Does what power does: an agent for every VM that runs, none for the others. Called again and again.
    pub fn power(&mut self) -> Result<()> {
        let list = self.virsh(&["list", "--name"])?;
        let running: Vec<String> = list
            .lines()
            .map(str::trim)
            .filter(|n| !n.is_empty() && *n != "test" && !self.silent.contains(*n))
            .map(str::to_owned)
            .collect();
        self.agents.retain(|name, _| running.contains(name));
        for name in running {
            if self.agents.contains_key(&name) {
                continue;
            }
            let uuid = self.virsh(&["domuuid", &name])?.trim().to_owned();
            let agent = self.node_agent(&name, &uuid)?;
            self.agents.insert(name, agent);
        }
        Ok(())
    }

    fn node_agent(&self, name: &str, uuid: &str) -> Result<Running> {
        let path = |base: &Path, part: &str| base.join(part).to_string_lossy().into_owned();
        let disk = self.dir.join("nodes").join(uuid);
        fs::create_dir_all(&disk)?;
        let port = match &self.tap {
            None => path(&self.sockets, &format!("channels/{name}.sock")),
            Some(tap) => tap.listen(name)?.to_string_lossy().into_owned(),
        };
        let (state, root) = (path(&disk, "state"), path(&disk, "root"));
        let mut args = vec![
            "--simulate",
            "--simulate-delay-ms",
            "30",
            "--machine-uuid",
            uuid,
            "--port",
            &port,
            "--state-dir",
            &state,
            "--root",
            &root,
        ];
        args.extend(self.agent_arguments.get(name).into_iter().flatten().map(String::as_str));
        self.lab.spawn("k8s-node-agent", &args, &self.log_env())
    }

    fn log_env(&self) -> Vec<(&str, &str)> {
        self.log.iter().map(|filter| ("K8SCTL_LOG", filter.as_str())).collect()
    }

    /// Ends a node's agent with SIGKILL; [`Self::power`] starts it again.
    pub fn kill_node_agent(&mut self, name: &str) -> Result<()> {
        self.agents.remove(name).with_context(|| format!("{name} has no agent"))?.kill()
    }

    /// Powers on and off until the condition holds.
    pub fn run_until(
        &mut self,
        what: &str,
        deadline: Duration,
        mut holds: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        wait_until(what, deadline, || {
            self.power()?;
            holds(self)
        })
    }
}
