//! The host agent of a fleet: the real program, in directories that go with it. It can be killed and started again.
//!
//! Its libvirt is the test driver, which lives in the host agent's own process: it has as much memory as it is told, and
//! with the host agent's end it forgets its VMs. Agents that have joined do not need them.

use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::wait_for;

/// How long a start may take, of a host agent that has thousands of nodes in its records.
const START: Duration = Duration::from_secs(60);
/// Begins the host agent as systemd and `k8sctl` do: closed to others is what it does not open. Its pool looks as large as
/// thousands of disks want, which nobody ever writes; that ends with it.
const BEGIN: &str = r#"mount -t tmpfs -o size=64t,mode=755 pool "$0" && umask 077 && exec "$@""#;
/// The machine that libvirt's test driver plays: 64 processors and 4 TiB of memory, in KiB.
const MACHINE: &str = "<node><cpu><nodes>1</nodes><sockets>1</sockets><cores>64</cores><threads>1</threads>\
                       <active>64</active><mhz>2000</mhz><model>x86_64</model></cpu><memory>4294967296</memory></node>\n";
/// Lines of the host agent's log that are shown where something fails.
const SHOWN: usize = 40;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `k8s-host-agent`
    pub host_agent: PathBuf,
    /// `k8sctl`
    pub k8sctl: PathBuf,
}

/// See the module. Ends the host agent when dropped.
#[derive(Debug)]
pub struct Host {
    dir: TempDir,
    programs: Programs,
    log_filter: &'static str,
    agent: Child,
}

/// What differs from host to host.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Further lines of the configuration.
    pub config: &'a str,
    /// What it logs.
    pub log_filter: &'static str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        // A line for each of thousands of nodes is none of what is measured.
        Self { config: "", log_filter: "warn" }
    }
}

impl Host {
    /// Starts a host agent without clusters and waits until its socket answers.
    pub fn start(programs: &Programs) -> Result<Self> {
        Self::start_with(programs, &Setup::default())
    }

    /// The same, with a difference.
    pub fn start_with(programs: &Programs, setup: &Setup) -> Result<Self> {
        // Short, for sockets: their paths have a hundred characters.
        let dir = tempfile::Builder::new().prefix("fleet-").tempdir()?;
        // Other users must get as far as the sockets.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        for part in ["channels", "images", "bundles", "plugins", "pool"] {
            fs::create_dir(dir.path().join(part))?;
        }
        fs::write(dir.path().join("libvirt.xml"), MACHINE)?;
        fs::write(dir.path().join("host-agent.toml"), config_text(&dir) + setup.config)?;
        install_image(&dir)?;
        let agent = spawn(programs, &dir, setup.log_filter)?;
        let mut host = Self { dir, programs: programs.clone(), log_filter: setup.log_filter, agent };
        host.wait_for_socket()?;
        Ok(host)
    }

    /// Kills the host agent in the middle of whatever it does, starts it again, and waits until its socket answers.
    pub fn restart(&mut self) -> Result<()> {
        self.agent.kill()?;
        self.agent.wait()?;
        self.agent = spawn(&self.programs, &self.dir, self.log_filter)?;
        self.wait_for_socket()
    }

    /// It is the process that it was, and no task of it has panicked.
    pub fn is_sound(&mut self) -> Result<()> {
        if let Some(status) = self.agent.try_wait()? {
            bail!("the host agent ended with {status}:\n{}", self.log());
        }
        let log = self.whole_log();
        let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).take(SHOWN).collect();
        ensure!(panics.is_empty(), "the host agent panicked:\n{}", panics.join("\n"));
        Ok(())
    }

    /// Where the metrics are served. The kernel has given the port, and the host agent logs it as information.
    pub fn metrics_port(&self) -> Result<SocketAddr> {
        wait_for("the port of the metrics is logged", START, || {
            let log = self.whole_log();
            let line = log.lines().find(|line| line.contains("serving metrics"));
            let word = line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next());
            Ok(word.and_then(|word| word.parse().ok()))
        })
    }

    /// Process id of the host agent.
    pub fn pid(&self) -> u32 {
        self.agent.id()
    }

    /// The programs that it is of.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Something in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.file("run/api.sock")
    }

    /// Where the VM of this node is given its join secret, once it runs.
    pub fn channel(&self, node: &str) -> PathBuf {
        self.file(&format!("channels/{node}.sock"))
    }

    /// The end of the host agent's log.
    pub fn log(&self) -> String {
        let log = self.whole_log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }

    fn whole_log(&self) -> String {
        let log = fs::read(self.file("host-agent.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn wait_for_socket(&mut self) -> Result<()> {
        let socket = self.socket();
        let agent = &mut self.agent;
        let mut ended = None;
        wait_for("the host agent's socket answers, or it has ended", START, || {
            ended = agent.try_wait()?;
            Ok((ended.is_some() || UnixStream::connect(&socket).is_ok()).then_some(()))
        })?;
        match ended {
            Some(status) => bail!("the host agent ended with {status}:\n{}", self.log()),
            None => Ok(()),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        if std::thread::panicking() {
            eprintln!("--- end of the host agent's log\n{}", self.log());
        }
    }
}

fn spawn(programs: &Programs, dir: &TempDir, log_filter: &str) -> Result<Child> {
    let log = File::options().create(true).append(true).open(dir.path().join("host-agent.log"))?;
    Command::new("unshare")
        .args(["--mount", "sh", "-c", BEGIN])
        .arg(dir.path().join("pool"))
        .arg(&programs.host_agent)
        .arg("--config")
        .arg(dir.path().join("host-agent.toml"))
        .env("K8SCTL_LOG", log_filter)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start the host agent")
}

fn config_text(dir: &TempDir) -> String {
    let file = |name: &str| dir.path().join(name);
    let uri = format!("test://{}", file("libvirt.xml").display());
    let mut text =
        format!("libvirt_uri = {uri:?}\nnode_listen = \"127.0.0.1:0\"\nsimulated_kubernetes = true\n");
    for (key, part) in [
        ("state_dir", "state"),
        ("run_dir", "run"),
        ("pool_dir", "pool"),
        ("image_dir", "images"),
        ("bundle_dir", "bundles"),
        ("plugin_dir", "plugins"),
        ("join_channel_dir", "channels"),
    ] {
        text.push_str(&format!("{key} = {:?}\n", file(part)));
    }
    text
}

/// An image that looks like one: nothing of it is ever booted.
fn install_image(dir: &TempDir) -> Result<()> {
    let id = "00112233445566778899aabbccddeeff";
    let dir = dir.path().join("images").join(id);
    fs::create_dir(&dir)?;
    for name in ["disk.qcow2", "vmlinuz", "initrd.img"] {
        fs::write(dir.join(name), name)?;
    }
    let description = format!(
        "id = {id:?}\nkubernetes = \"v1.20.2\"\nbundle = \"test\"\nbundle_digest = \"\"\ntrial = false\n\
         suite = \"bookworm\"\nnode_agent_sha256 = \"\"\ndebug_unit = false\ncmdline = \"\"\n\
         [images]\npause = \"test/pause:1\"\n"
    );
    fs::write(dir.join("image.toml"), description)?;
    Ok(())
}
