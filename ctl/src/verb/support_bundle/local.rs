//! What `k8sctl` can see alone, whether a host agent runs or not.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use k8sctl_command::Program;
use k8sctl_types::failure::Failure;

use super::archive::Part;
use crate::agent::Settings;

/// Longest that one program may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most of a file, its end, in bytes.
const TAIL: u64 = 4 * 1024 * 1024;
/// Most lines of the journal, its last ones.
const LINES: usize = 5000;
const UNIT: &str = "k8s-host-agent.service";
const LIBVIRT: [&str; 5] =
    ["libvirtd.service", "virtqemud.service", "virtnetworkd.service", "virtlogd.service", "virtlogd.socket"];

/// Of this machine.
pub(super) fn machine() -> Part {
    let mut text = format!("k8sctl {}\n", env!("CARGO_PKG_VERSION"));
    for file in ["/etc/os-release", "/proc/version", "/proc/uptime", "/proc/loadavg", "/proc/meminfo"] {
        let content = fs::read_to_string(file).unwrap_or_else(|error| format!("{error}\n"));
        let _ = write!(text, "\n== {file}\n{content}");
    }
    Part::new("client/machine.txt", Ok(text))
}

/// Of the files that lead to a host agent.
pub(super) fn files(settings: &Settings) -> Part {
    let mut text = String::new();
    for path in [&settings.socket, &settings.run_dir, &settings.state_dir] {
        let what = match fs::symlink_metadata(path) {
            Ok(data) => {
                format!("{:?} mode {:o} owner {}:{}", data.file_type(), data.mode(), data.uid(), data.gid())
            }
            Err(error) => error.to_string(),
        };
        let _ = writeln!(text, "{}: {what}", path.display());
    }
    Part::new("client/files.txt", Ok(text))
}

/// The host agent's configuration.
pub(super) fn config(settings: &Settings) -> Part {
    let path = settings.config.as_deref().unwrap_or(Path::new("/etc/k8s-myhome/host-agent.toml"));
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && settings.config.is_none() => {
            Ok("# There is none: all keys have their defaults.\n".to_owned())
        }
        text => text.map_err(|error| unreadable(path, &error)),
    };
    Part::new("client/host-agent.toml", text)
}

/// What systemd says of the host agent and of libvirt's daemons.
pub(super) async fn units() -> Part {
    let show = ["show", "--property=Id,LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus", UNIT];
    // One after the other, with an empty line between two.
    let said = Program::new("systemctl", DEADLINE).args(show).args(LIBVIRT).run().await;
    let text = said.unwrap_or_else(|error| format!("{}\n", k8sctl_rpc::chain(&error)));
    Part::new("client/units.txt", Ok(text))
}

/// The host agent's log, as far as this user may read it.
pub(super) async fn log(settings: &Settings) -> Vec<Part> {
    let path = settings.state_dir.join("host-agent.log");
    let file = k8sctl_command::end_of_file(&path, TAIL).map_err(|error| unreadable(&path, &error));
    let is_end = file.as_ref().is_ok_and(|(_, is_end)| *is_end);
    let file = Part { cut: is_end, ..Part::new("client/host-agent.log", file.map(|(text, _)| text)) };
    let lines = LINES.to_string();
    let show = ["--unit", UNIT, "--lines", &lines, "--no-pager", "--quiet", "--output", "short-iso"];
    let journal = Program::new("journalctl", DEADLINE).args(show).run().await;
    let journal = journal.map_err(|error| {
        let next = "run it with sudo, or as a member of the group adm or systemd-journal";
        Failure::new(
            "HOST-SUPPORT-PART",
            "journal of the host agent",
            k8sctl_rpc::chain(&error).to_string(),
            next,
        )
    });
    let is_end = journal.as_ref().is_ok_and(|text| text.lines().count() >= LINES);
    let journal = Part { cut: is_end, ..Part::new("client/host-agent.journal.txt", journal) };
    // It logs into one of them.
    let says = |part: &Part| part.content.as_ref().is_some_and(|text| !text.is_empty());
    let has_one = says(&file) || says(&journal);
    [file, journal].into_iter().filter(|part| says(part) || !has_one).collect()
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let next = "nothing, where it is not used here; else run it with sudo";
    Failure::new("HOST-SUPPORT-PART", format!("file {}", path.display()), error.to_string(), next)
}
