//! Makes sure that libvirt's daemons run on this host. The connection's owner thread (`link`) calls it
//! before it connects; only for the host's own system libvirt, never for a remote or a test one.
//!
//! With systemd the sockets are started, and systemd starts the rest; without it the daemons themselves. Installs
//! and stops nothing.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8sctl_command::{CommandError, Program};
use k8sctl_types::failure::Failure;

/// How long a daemon, or systemd with its sockets, may take to start.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// While there is no connection, the next attempt waits so long.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(30);
/// The package that has, or pulls in, all of them on Debian and Ubuntu.
const PACKAGE: &str = "libvirt-daemon-system";

/// Units of a host on which one libvirtd does everything.
const MONOLITHIC: [&str; 2] = ["virtlogd.socket", "libvirtd.socket"];
/// Units of a host with one daemon per driver.
const MODULAR: [&str; 4] =
    ["virtlogd.socket", "virtnetworkd.socket", "virtstoraged.socket", "virtqemud.socket"];
/// Without systemd: each program with its socket, in the order in which they are started.
const PROGRAMS: [(&str, &str); 2] = [("virtlogd", "virtlogd-sock"), ("libvirtd", "libvirt-sock")];
/// Without systemd: begins the program `$1`. Our umask is none for it: what libvirtd writes for dnsmasq is read by a user
/// of its own, and nodes whose reservations are not read get other addresses.
const DAEMON: &str = r#"umask 022; exec "$1" -d"#;

/// Whether `uri` means this host's own system libvirt, the only one whose daemons are ours to start.
pub fn is_local_system(uri: &str) -> bool {
    matches!(uri, "qemu:///system" | "qemu+unix:///system")
}

/// Sockets of which one is QEMU's driver: libvirtd's, or its own daemon's.
const DRIVER_SOCKETS: [&str; 2] = ["libvirt-sock", "virtqemud-sock"];

/// Where daemons are looked for and started from.
#[derive(Clone, Debug)]
pub struct Daemons {
    /// Where programs are, as in `PATH`.
    pub path: OsString,
    /// A directory that exists where systemd runs the host.
    pub systemd_dir: PathBuf,
    /// Directory of the daemons' sockets.
    pub run_dir: PathBuf,
}

impl Daemons {
    /// Those of this host.
    pub fn of_this_host() -> Self {
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        // A user's PATH lacks the directories of daemons.
        path.push(":/usr/sbin:/sbin");
        Self { path, systemd_dir: "/run/systemd/system".into(), run_dir: "/run/libvirt".into() }
    }

    /// Starts what does not run. A daemon that runs already is left alone.
    pub async fn execute_start(&self) -> Result<(), Failure> {
        if self.answers("virtlogd-sock") && DRIVER_SOCKETS.iter().any(|socket| self.answers(socket)) {
            return Ok(());
        }
        let systemctl = self.systemd_dir.is_dir().then(|| self.find("systemctl")).flatten();
        match systemctl {
            Some(systemctl) => start_units(&systemctl).await,
            None => self.start_programs().await,
        }
    }

    fn answers(&self, socket: &str) -> bool {
        UnixStream::connect(self.run_dir.join(socket)).is_ok()
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path).map(|dir| dir.join(name)).find(|file| file.is_file())
    }

    async fn start_programs(&self) -> Result<(), Failure> {
        // All are looked for before the first is started: half a libvirt helps nobody.
        let mut found = Vec::new();
        for (name, socket) in PROGRAMS {
            let program = self.find(name).ok_or_else(|| not_installed(name))?;
            found.push((name, program, socket));
        }
        for (name, program, socket) in found {
            if self.answers(socket) {
                continue;
            }
            // It returns when the daemon has begun to listen, or with the reason why it did not.
            let daemon = Program::new("sh", START_DEADLINE).args(["-c", DAEMON, "sh"]).arg(&program);
            let started = daemon.run().await;
            started.map_err(|error| not_started(name, &error, "see the output"))?;
            tracing::info!(program = %program.display(), "started libvirt's daemon");
        }
        Ok(())
    }
}

async fn start_units(systemctl: &Path) -> Result<(), Failure> {
    let ask = |args: [&'static str; 2]| Program::new(systemctl, START_DEADLINE).args(args).run();
    let units: &[&str] = if ask(["is-enabled", "virtqemud.socket"]).await.is_ok() {
        &MODULAR
    } else if ask(["cat", "libvirtd.socket"]).await.is_ok() {
        &MONOLITHIC
    } else if ask(["cat", "virtqemud.socket"]).await.is_ok() {
        &MODULAR
    } else {
        return Err(not_installed("libvirtd"));
    };
    let start = Program::new(systemctl, START_DEADLINE).args(["--no-ask-password", "start"]);
    let started = start.args(units.iter().copied()).run().await;
    started
        .map_err(|error| not_started("libvirt", &error, "see `journalctl -u libvirtd -u virtlogd -n 50`"))?;
    tracing::info!(units = units.join(" "), "started libvirt's sockets");
    Ok(())
}

fn not_installed(program: &str) -> Failure {
    Failure::new(
        "LIBVIRT-MISSING",
        format!("program {program}"),
        "libvirt does not answer, and its daemon is not installed",
        format!("install it: apt-get install {PACKAGE} qemu-system-x86; then run the command again"),
    )
}

/// The same id as for a libvirt that does not answer: that is what it is, and it may pass.
fn not_started(what: &str, error: &CommandError, look: &str) -> Failure {
    let evidence = error.evidence().map(ToString::to_string).unwrap_or_default();
    Failure::new(
        "LIBVIRT-UNREACHABLE",
        format!("daemon {what}"),
        format!("libvirt does not answer, and starting it failed: {error}"),
        format!("{look}, mend what it says and see `k8sctl doctor`; the operation goes on by itself"),
    )
    .with_evidence(evidence)
}

/// When the daemons are started: before the first attempt to connect, at once when the connection broke, and not
/// again for a while when that did not help. Owned by the connection's thread.
#[derive(Debug)]
pub(super) struct Starter {
    daemons: Daemons,
    last: Option<Instant>,
}

impl Starter {
    pub(super) fn new(daemons: Daemons) -> Self {
        Self { daemons, last: None }
    }

    /// Starts the daemons where an attempt is due; blocks meanwhile. `None` means: none was due.
    pub(super) fn start(&mut self) -> Option<Result<(), Failure>> {
        if self.last.is_some_and(|last| last.elapsed() < BETWEEN_ATTEMPTS) {
            return None;
        }
        // The thread blocks by trade and has no runtime of its own.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let result = runtime.block_on(self.daemons.execute_start());
        self.last = Some(Instant::now());
        Some(result)
    }

    /// The connection stands: when it breaks the next time, an attempt is due at once.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests;
