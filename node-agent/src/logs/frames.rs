//! The way of lines out of a source: gathered into frames, their times by the host's clock.

use k8sctl_proto::node::v1::{LogFrame, LogLine, LogSelector};
use k8sctl_rpc::limits;
use k8sctl_types::logs::merge::Micros;
use prost_types::Timestamp;
use tokio::sync::mpsc;

use super::filter::{micros, stamp};
use crate::clock::Offset;

/// Where a source sends its frames.
#[derive(Debug)]
pub struct Frames {
    sender: mpsc::Sender<LogFrame>,
    offset: Offset,
    /// One for all that was there when the stream began, so that its moments are the ones that were asked for.
    fixed: Option<Micros>,
}

impl Frames {
    /// Sends there, with times corrected by this.
    pub fn new(sender: mpsc::Sender<LogFrame>, offset: Offset) -> Self {
        let fixed = Some(offset.micros());
        Self { sender, offset, fixed }
    }

    /// The selector with its moments by this machine's clock.
    pub fn localised(&self, mut selector: LogSelector) -> LogSelector {
        let offset = self.fixed.unwrap_or_default();
        for moment in [&mut selector.since, &mut selector.until].into_iter().flatten() {
            *moment = shifted(moment, offset);
        }
        selector
    }

    /// Waits until there is room. `false` means: nobody receives.
    pub async fn send(&mut self, mut frame: LogFrame) -> bool {
        let offset = self.fixed.unwrap_or_else(|| self.offset.micros());
        if offset != 0 {
            for time in frame.lines.iter_mut().filter_map(|line| line.time.as_mut()) {
                *time = shifted(time, -offset);
            }
        }
        if frame.caught_up {
            self.fixed = None;
        }
        self.sender.send(frame).await.is_ok()
    }

    /// Whether what there was when the stream began has been sent.
    pub fn is_live(&self) -> bool {
        self.fixed.is_none()
    }

    /// Waits until nobody receives. Cancel-safe.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

/// Nanoseconds below the microsecond stay.
fn shifted(time: &Timestamp, by: Micros) -> Timestamp {
    let rest = time.nanos % 1_000;
    let moved = stamp(micros(time).saturating_add(by));
    Timestamp { nanos: moved.nanos + rest, ..moved }
}

/// Lines that become a frame. It is sent when it holds so many bytes of text and names, or so many lines, as [`limits`]
/// says.
#[derive(Debug, Default)]
pub struct Batch {
    lines: Vec<LogLine>,
    bytes: usize,
}

impl Batch {
    /// Adds a line; `true` means: it is full.
    pub fn push(&mut self, line: LogLine) -> bool {
        self.bytes += line.text.len() + line.source.len();
        self.lines.push(line);
        self.bytes >= limits::LOG_FRAME_BYTES || self.lines.len() >= limits::LOG_FRAME_LINES
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines as a frame, with the place behind them.
    pub fn take(&mut self, cursor: String) -> LogFrame {
        self.bytes = 0;
        LogFrame { lines: std::mem::take(&mut self.lines), cursor, ..LogFrame::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn line(time: Micros, text: &str) -> LogLine {
        LogLine { time: Some(stamp(time)), text: text.to_owned(), ..LogLine::default() }
    }

    #[test]
    fn lines_are_gathered_by_size_and_by_number() {
        let mut batch = Batch::default();
        assert!(!batch.push(line(0, &"x".repeat(limits::LOG_FRAME_BYTES - 1))));
        assert!(batch.push(line(0, "x")));
        assert_eq!(batch.take("c".to_owned()).lines.len(), 2);
        let mut pushed = 1;
        while !batch.push(line(0, "")) {
            pushed += 1;
        }
        assert_eq!(pushed, limits::LOG_FRAME_LINES);
    }

    #[tokio::test]
    async fn times_are_the_hosts_both_ways() {
        let offset = Offset::default();
        let host = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        offset.observe(host + Duration::from_secs(1), host);
        let (sender, mut sent) = mpsc::channel(4);
        let mut frames = Frames::new(sender, offset.clone());
        let selector = LogSelector { since: Some(stamp(5_000_000)), ..LogSelector::default() };
        assert_eq!(frames.localised(selector).since, Some(stamp(6_000_000)));
        let mut frame = LogFrame { lines: vec![line(6_000_000, "x")], ..LogFrame::default() };
        frame.lines[0].time = Some(Timestamp { seconds: 6, nanos: 7 });
        assert!(frames.send(frame.clone()).await);
        assert_eq!(
            sent.recv().await.expect("a frame").lines[0].time,
            Some(Timestamp { seconds: 5, nanos: 7 })
        );
        // Set meanwhile: what was asked for at first stays as it is, what comes later is as it is then.
        offset.reset();
        assert!(frames.send(LogFrame { caught_up: true, ..frame.clone() }).await);
        assert!(frames.send(frame).await);
        let seconds = |frame: LogFrame| frame.lines[0].time.map(|time| time.seconds);
        assert_eq!(sent.recv().await.map(seconds), Some(Some(5)));
        assert_eq!(sent.recv().await.map(seconds), Some(Some(6)));
    }
}
