//! A host agent for a test: the real program on libvirt's test driver, in directories that go with the test. Its
//! log is printed where the test fails.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

/// The host agent under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_integration-host-agent");
/// How long anything may take that takes a moment.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Begins the host agent as systemd and `k8sctl` do: closed to others is what it does not open.
const BEGIN: &str = r#"umask 077 && exec "$@""#;
/// Between two looks at a condition: only how often, never whether.
const LOOK: Duration = Duration::from_millis(50);

/// See the module. Ends the host agent when dropped.
pub struct Host {
    dir: TempDir,
    /// Beside what cargo builds: /tmp may be in memory, and has no room for disks then.
    _pool: TempDir,
    agent: Child,
}

/// What differs from host to host.
#[derive(Default)]
pub struct Setup<'a> {
    /// Further lines of the configuration.
    pub config: &'a str,
    /// `/etc/passwd` and `/etc/group` as this host agent sees them; it has no network then. Needs root.
    pub users: Option<(&'a str, &'a str)>,
}

impl Host {
    /// Starts a host agent and waits until its socket answers.
    pub fn start(setup: &Setup) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        // Strangers must get as far as the socket.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        let pool = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        for part in ["channels", "images", "bundles", "plugins"] {
            fs::create_dir(dir.path().join(part))?;
        }
        let config = dir.path().join("host-agent.toml");
        fs::write(&config, config_text(dir.path(), pool.path(), setup.config))?;
        let mut command = match setup.users {
            None => in_shell(),
            Some((passwd, group)) => in_namespace(dir.path(), passwd, group)?,
        };
        let agent = command
            .arg(PROGRAM)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("host-agent.log"))?)
            .spawn()
            .context("cannot start the host agent")?;
        let mut host = Self { dir, _pool: pool, agent };
        let end = Instant::now() + DEADLINE;
        while UnixStream::connect(host.socket()).is_err() {
            if let Some(status) = host.agent.try_wait()? {
                bail!("the host agent ended with {status}");
            }
            ensure!(Instant::now() < end, "the host agent's socket does not answer");
            std::thread::sleep(LOOK);
        }
        Ok(host)
    }

    /// Something in this host's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.file("run/api.sock")
    }

    /// Puts an image there that looks like one: nothing of it is ever booted.
    pub fn install_image(&self) -> Result<()> {
        let id = "00112233445566778899aabbccddeeff";
        let dir = self.file("images").join(id);
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
}

impl Drop for Host {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        // The test runner shows what a test prints only where it fails.
        let log = fs::read_to_string(self.file("host-agent.log")).unwrap_or_default();
        eprintln!("--- log of the host agent\n{log}");
    }
}

/// Looks until there is something.
pub async fn wait_for<T, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await.with_context(|| what.to_owned())? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

fn config_text(dir: &Path, pool: &Path, more: &str) -> String {
    let mut text = format!(
        "libvirt_uri = \"test:///default\"\nnode_listen = \"127.0.0.1:0\"\nsimulated_kubernetes = true\n\
         pool_dir = {pool:?}\n",
    );
    for (key, part) in [
        ("state_dir", "state"),
        ("run_dir", "run"),
        ("image_dir", "images"),
        ("bundle_dir", "bundles"),
        ("plugin_dir", "plugins"),
        ("join_channel_dir", "channels"),
    ] {
        text.push_str(&format!("{key} = {:?}\n", dir.join(part)));
    }
    text + more
}

fn in_shell() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", BEGIN, "sh"]);
    command
}

/// The host agent with a user database of its own and without a network: nothing that it is asked to fetch leaves
/// this machine, and no user of this machine matters.
fn in_namespace(dir: &Path, passwd: &str, group: &str) -> Result<Command> {
    let script = format!(
        r#"mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && shift && {BEGIN}"#
    );
    for (name, text) in [("passwd", passwd), ("group", group)] {
        fs::write(dir.join(name), text)?;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--net", "sh", "-c", &script, "sh"]).arg(dir);
    Ok(command)
}
