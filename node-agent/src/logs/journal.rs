//! Lines from journald, read by `journalctl` as JSON.
//!
//! The one place that starts a program itself: [`k8sctl_command::Program`] keeps the whole output, and this one may
//! never end. The pipe is the back-pressure; dropping the future kills the program.

use std::process::Stdio;

use async_trait::async_trait;
use k8sctl_proto::node::v1::{LogLine, LogSelector, LogSource};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::entry::RawEntry;
use super::{LogError, LogSources};

const PROGRAM: &str = "journalctl";
/// Longest end of the error output that is kept.
const ERROR_LIMIT: u64 = 4 * 1024;

/// journald's.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealLogs;

#[async_trait]
impl LogSources for RealLogs {
    async fn read(&self, selector: LogSelector, lines: mpsc::Sender<LogLine>) -> Result<(), LogError> {
        let start = |source| LogError::Start { program: PROGRAM, source };
        let read = |source| LogError::Read { program: PROGRAM, source };
        #[expect(
            clippy::disallowed_methods,
            reason = "Program keeps the whole output; this one may never end"
        )]
        let mut child = Command::new(PROGRAM)
            .args(arguments(&selector)?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let stdout = child.stdout.take().expect("stdout is piped above");
        let stderr = child.stderr.take().expect("stderr is piped above");
        let mut reader = BufReader::new(stdout);
        let mut entry = RawEntry::default();
        while entry.read(&mut reader).await.map_err(read)? {
            let Some(line) = entry.parse() else {
                tracing::warn!("journalctl printed a line that is no entry");
                continue;
            };
            if lines.send(line).await.is_err() {
                return Ok(());
            }
        }
        let mut says = String::new();
        // What it cannot say does not matter when it ended well.
        let _ = stderr.take(ERROR_LIMIT).read_to_string(&mut says).await;
        if child.wait().await.map_err(read)?.success() {
            return Ok(());
        }
        Err(LogError::Failed { program: PROGRAM, says: says.trim().to_owned() })
    }
}

/// Sources, by their unit; the kernel has none.
pub const UNITS: [(LogSource, &str, &str); 3] = [
    (LogSource::Kubelet, "kubelet", "kubelet.service"),
    (LogSource::Containerd, "containerd", "containerd.service"),
    (LogSource::Agent, "agent", "k8s-node-agent.service"),
];

fn arguments(selector: &LogSelector) -> Result<Vec<String>, LogError> {
    let mut arguments: Vec<String> =
        // Without `--all`, a field of 4 KiB or more is null.
        ["--quiet", "--no-pager", "--all", "--output=json", "--output-fields=MESSAGE,_SYSTEMD_UNIT,UNIT,_TRANSPORT"]
            .map(str::to_owned)
            .to_vec();
    if selector.follow {
        arguments.push("--follow".to_owned());
    }
    match selector.tail {
        // journalctl reads an int; nobody has more lines than that.
        Some(tail) => arguments.push(format!("--lines={}", tail.min(i32::MAX as u64))),
        None if selector.follow => arguments.push("--no-tail".to_owned()),
        None => {}
    }
    let all = selector.sources.is_empty();
    let mut matches = Vec::new();
    for (source, _, unit) in UNITS {
        if all || selector.sources().any(|wanted| wanted == source) {
            // What the unit says, and what systemd says of it.
            matches.push(format!("_SYSTEMD_UNIT={unit}"));
            matches.push(format!("UNIT={unit}"));
        }
    }
    if selector.sources().any(|wanted| wanted == LogSource::Kernel) {
        matches.push("_TRANSPORT=kernel".to_owned());
    }
    if matches.is_empty() {
        return Err(LogError::Sources(selector.sources.clone()));
    }
    for (at, text) in matches.into_iter().enumerate() {
        if at > 0 {
            arguments.push("+".to_owned());
        }
        arguments.push(text);
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selector_becomes_matches() {
        let selector = LogSelector {
            sources: vec![LogSource::Kubelet.into(), LogSource::Kernel.into()],
            follow: true,
            tail: Some(5),
            ..LogSelector::default()
        };
        let words = |selector: &LogSelector| arguments(selector).expect("the sources are known");
        let arguments = words(&selector).join(" ");
        let matches = "_SYSTEMD_UNIT=kubelet.service + UNIT=kubelet.service + _TRANSPORT=kernel";
        assert!(arguments.contains(" --all "), "{arguments}");
        assert!(arguments.ends_with(&format!("--follow --lines=5 {matches}")), "{arguments}");
        let selector = LogSelector { tail: Some(3_000_000_000), ..LogSelector::default() };
        assert!(words(&selector).contains(&"--lines=2147483647".to_owned()), "journalctl's int");
        let all = words(&LogSelector::default()).join(" ");
        assert!(all.contains("k8s-node-agent.service") && !all.contains("kernel"), "{all}");
    }

    #[test]
    fn sources_that_nobody_knows_open_nothing() {
        for sources in [vec![LogSource::Unspecified.into()], vec![99], vec![-1, 0]] {
            let selector = LogSelector { sources, ..LogSelector::default() };
            let error = arguments(&selector).expect_err("it would be the whole journal");
            assert!(error.to_string().starts_with("none of the sources"), "{error}");
        }
        let selector = LogSelector { sources: vec![99, LogSource::Agent.into()], ..LogSelector::default() };
        assert!(
            arguments(&selector)
                .expect("one is known")
                .ends_with(&["UNIT=k8s-node-agent.service".to_owned()])
        );
    }
}
