//! Log lines of an agent without a machine of its own, for tests of the whole system.

use std::time::Duration;

use async_trait::async_trait;
use k8sctl_proto::node::v1::{LogLine, LogSelector, LogSource};
use tokio::sync::mpsc;

use super::{LogError, LogSources};
use crate::clock;

/// Lines that are there before following begins.
const BEFORE: u64 = 10;
/// Pause between two lines while following.
const PAUSE: Duration = Duration::from_millis(100);

/// Counts: `simulated line 1` and so on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedLogs;

#[async_trait]
impl LogSources for SimulatedLogs {
    async fn read(&self, selector: LogSelector, lines: mpsc::Sender<LogLine>) -> Result<(), LogError> {
        let source = match selector.sources().next() {
            Some(LogSource::Containerd) => "containerd",
            Some(LogSource::Agent) => "agent",
            Some(LogSource::Kernel) => "kernel",
            _ => "kubelet",
        };
        let mut next = BEFORE - selector.tail.unwrap_or(BEFORE).min(BEFORE) + 1;
        while next <= BEFORE || selector.follow {
            if next > BEFORE {
                tokio::time::sleep(PAUSE).await;
            }
            let text = format!("simulated line {next}");
            let line = LogLine { time: Some(clock::now()), source: source.to_owned(), text };
            if lines.send(line).await.is_err() {
                break;
            }
            next += 1;
        }
        Ok(())
    }
}
