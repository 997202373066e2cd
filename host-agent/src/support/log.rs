//! The host agent's own log: systemd's journal of its unit, or the file that it was started with.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::time::Duration;

use k8sctl_command::Program;
use k8sctl_rpc::task::blocking;
use k8sctl_types::failure::Failure;

use crate::config::HostConfig;

/// Most of a file, its end, in bytes.
const TAIL: u64 = 2 * 1024 * 1024;
const UNIT: &str = "k8s-host-agent.service";
const DEADLINE: Duration = Duration::from_secs(15);

/// Its end.
pub(super) async fn own(config: &HostConfig) -> Result<String, Failure> {
    // `k8sctl` has it write there where no systemd does; who started it last is what counts.
    let path = config.state_dir.join("host-agent.log");
    if std::env::var_os("JOURNAL_STREAM").is_none() {
        let file = path.clone();
        return blocking(move || tail(&file)).await.map_err(|error| {
            let next = "its standard error was sent elsewhere by who started it: look there";
            Failure::new("HOST-SUPPORT-PART", format!("file {}", path.display()), error.to_string(), next)
        });
    }
    let show = ["--unit", UNIT, "--lines", "10000", "--no-pager", "--output", "short-iso-precise"];
    Program::new("journalctl", DEADLINE).args(show).run().await.map_err(|error| {
        let next = "look at it with `journalctl -u k8s-host-agent`";
        Failure::new(
            "HOST-SUPPORT-PART",
            "journal of the host agent",
            k8sctl_rpc::chain(&error).to_string(),
            next,
        )
    })
}

fn tail(path: &std::path::Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let begin = size.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // In half a line nobody knows a secret by its name.
    let whole = if begin > 0 { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &*text };
    Ok(whole.to_owned())
}
