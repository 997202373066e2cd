//! Logs of the host: the host agent's own, libvirt's, those of the VMs' QEMU, and the kernel's. Of each its end.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_command::{CommandError, Program};
use k8sctl_rpc::task::blocking;
use k8sctl_types::failure::Failure;

use super::Text;
use crate::config::HostConfig;

/// Most of a file, its end, in bytes.
const TAIL: u64 = 2 * 1024 * 1024;
/// The same of what QEMU said of a VM: some twenty starts.
const EMULATOR_TAIL: u64 = 128 * 1024;
/// Most lines of a journal, its last ones.
const LINES: usize = 10_000;
const UNIT: &str = "k8s-host-agent.service";
const LIBVIRT: [&str; 5] = [
    "libvirtd.service",
    "virtqemud.service",
    "virtnetworkd.service",
    "virtstoraged.service",
    "virtlogd.service",
];
/// Where libvirt has QEMU write.
const EMULATORS: &str = "/var/log/libvirt/qemu";
/// There where systemd runs the host.
const SYSTEMD: &str = "/run/systemd/system";
const DEADLINE: Duration = Duration::from_secs(15);

/// The host agent's own: systemd's journal of its unit, or the file that it was started with.
pub(super) async fn own(config: &HostConfig) -> Result<Text, Failure> {
    if logs_to_journal() {
        return journal("journal of the host agent", &["--unit", UNIT]).await;
    }
    // `k8sctl` has it write there where no systemd does; who started it last is what counts.
    let next = "its standard error was sent elsewhere by who started it: look there";
    file(config.state_dir.join("host-agent.log"), TAIL, next).await
}

/// Whether standard error is the journal: systemd names its device and inode, and whoever is started by somebody who logs
/// there inherits the variable, systemd.exec(5).
fn logs_to_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let stream = rustix::fs::fstat(io::stderr().as_fd()).ok();
    named.zip(stream).is_some_and(|(named, it)| named == format!("{}:{}", it.st_dev, it.st_ino))
}

/// Of libvirt's daemons, where systemd keeps it.
pub(super) fn libvirt() -> Option<impl Future<Output = Result<Text, Failure>>> {
    let read = async {
        let units: Vec<&str> = LIBVIRT.iter().flat_map(|unit| ["--unit", unit]).collect();
        journal("journal of libvirt", &units).await
    };
    Path::new(SYSTEMD).is_dir().then_some(read)
}

/// Of the host's kernel, which ends programs for want of memory.
pub(super) async fn kernel() -> Result<Text, Failure> {
    if Path::new(SYSTEMD).is_dir() {
        return journal("log of the kernel", &["--dmesg"]).await;
    }
    let said = Program::new("dmesg", DEADLINE).args(["--ctime"]).run().await;
    said.map(Text::whole).map_err(|error| missing("log of the kernel", &error, "look at it with `dmesg`"))
}

/// What QEMU said of a VM.
pub(super) async fn emulator(domain: &str) -> Result<Text, Failure> {
    let next = "nothing, where the VM was never started";
    file(Path::new(EMULATORS).join(format!("{domain}.log")), EMULATOR_TAIL, next).await
}

async fn journal(what: &str, of: &[&str]) -> Result<Text, Failure> {
    let lines = LINES.to_string();
    let show = ["--lines", &lines, "--no-pager", "--quiet", "--output", "short-iso-precise"];
    let said = Program::new("journalctl", DEADLINE).args(of).args(show).run().await;
    let next = "look at it with `journalctl`";
    let text = said.map_err(|error| missing(what, &error, next))?;
    let is_end = text.lines().count() >= LINES;
    Ok(Text { text, is_end })
}

async fn file(path: PathBuf, most: u64, next: &str) -> Result<Text, Failure> {
    let object = format!("file {}", path.display());
    let read = blocking(move || k8sctl_command::end_of_file(&path, most)).await;
    let text = read.map(|(text, is_end)| Text { text, is_end });
    text.map_err(|error| Failure::new("HOST-SUPPORT-PART", object, error.to_string(), next))
}

fn missing(what: &str, error: &CommandError, next: &str) -> Failure {
    Failure::new("HOST-SUPPORT-PART", what, k8sctl_rpc::chain(error).to_string(), next)
}
