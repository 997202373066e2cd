//! Lines from journald, read by `journalctl` as JSON.
//!
//! The one place that starts a program itself: [`k8sctl_command::Program`] keeps the whole output, and this one may
//! never end. The pipe is the back-pressure; dropping the future kills the program.

use std::process::Stdio;

use async_trait::async_trait;
use k8sctl_proto::node::v1::{LogLine, LogSelector, LogSource};
use prost_types::Timestamp;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::{LogError, LogSources};

const PROGRAM: &str = "journalctl";
/// Longest text of one line; the rest is cut.
const TEXT_LIMIT: usize = 32 * 1024;
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
            .args(arguments(&selector))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let stdout = child.stdout.take().expect("stdout is piped above");
        let stderr = child.stderr.take().expect("stderr is piped above");
        let mut reader = BufReader::new(stdout);
        let mut buffer = Vec::new();
        while reader.read_until(b'\n', &mut buffer).await.map_err(read)? > 0 {
            let line = parse(&buffer);
            buffer.clear();
            let Some(line) = line else { continue };
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
const UNITS: [(LogSource, &str, &str); 3] = [
    (LogSource::Kubelet, "kubelet", "kubelet.service"),
    (LogSource::Containerd, "containerd", "containerd.service"),
    (LogSource::Agent, "agent", "k8s-node-agent.service"),
];

fn arguments(selector: &LogSelector) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE,_SYSTEMD_UNIT,UNIT,_TRANSPORT"]
            .map(str::to_owned)
            .to_vec();
    if selector.follow {
        arguments.push("--follow".to_owned());
    }
    match selector.tail {
        Some(tail) => arguments.push(format!("--lines={tail}")),
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
    for (at, text) in matches.into_iter().enumerate() {
        if at > 0 {
            arguments.push("+".to_owned());
        }
        arguments.push(text);
    }
    arguments
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    micros: String,
    #[serde(rename = "MESSAGE")]
    message: Option<Message>,
    #[serde(rename = "_SYSTEMD_UNIT")]
    unit: Option<String>,
    #[serde(rename = "UNIT")]
    about: Option<String>,
}

/// Text, or bytes where it is no text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    Bytes(Vec<u8>),
}

/// `None` means: no entry of the journal, or one without a message.
fn parse(line: &[u8]) -> Option<LogLine> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let micros: i64 = entry.micros.parse().ok()?;
    let mut text = match entry.message? {
        Message::Text(text) => text,
        Message::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    if text.len() > TEXT_LIMIT {
        let end = (0..=TEXT_LIMIT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    let named = |unit: &Option<String>| {
        UNITS.iter().find(|(_, _, known)| unit.as_deref() == Some(known)).map(|(_, name, _)| *name)
    };
    Some(LogLine {
        time: Some(Timestamp { seconds: micros / 1_000_000, nanos: (micros % 1_000_000) as i32 * 1000 }),
        source: named(&entry.unit).or_else(|| named(&entry.about)).unwrap_or("kernel").to_owned(),
        // One line: what a program wrote with line breaks in it stays one entry.
        text: text.replace('\n', " "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_lines() {
        let line = parse(
            br#"{"__REALTIME_TIMESTAMP":"1700000000000005","MESSAGE":"hello\nworld","_SYSTEMD_UNIT":"kubelet.service"}"#,
        )
        .expect("a line");
        assert_eq!((line.source.as_str(), line.text.as_str()), ("kubelet", "hello world"));
        assert_eq!(line.time, Some(Timestamp { seconds: 1_700_000_000, nanos: 5_000 }));
        let bytes =
            parse(br#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":[104,105,255],"UNIT":"containerd.service"}"#);
        let bytes = bytes.expect("a line");
        assert_eq!((bytes.source.as_str(), bytes.text.as_str()), ("containerd", "hi\u{fffd}"));
        assert_eq!(parse(br#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":null}"#), None);
        assert_eq!(parse(b"-- No entries --"), None);
    }

    #[test]
    fn the_selector_becomes_matches() {
        let selector = LogSelector {
            sources: vec![LogSource::Kubelet.into(), LogSource::Kernel.into()],
            follow: true,
            tail: Some(5),
        };
        let arguments = arguments(&selector).join(" ");
        let matches = "_SYSTEMD_UNIT=kubelet.service + UNIT=kubelet.service + _TRANSPORT=kernel";
        assert!(arguments.ends_with(&format!("--follow --lines=5 {matches}")), "{arguments}");
        let all = super::arguments(&LogSelector::default()).join(" ");
        assert!(all.contains("k8s-node-agent.service") && !all.contains("kernel"), "{all}");
    }
}
