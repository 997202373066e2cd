//! How much node agents have sent since this host agent began. The registry and the log streams count, the metrics
//! read.

use std::sync::atomic::{AtomicU64, Ordering};

use k8sctl_proto::node::v1::LogFrame;

/// Counts of all nodes together. Each is right by itself; between two of them a message may come.
#[derive(Debug, Default)]
pub struct Traffic {
    sessions: AtomicU64,
    log_streams: AtomicU64,
    log_lines: AtomicU64,
    log_bytes: AtomicU64,
}

/// Counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Sessions that were opened.
    pub sessions: u64,
    /// Streams of logs that are open now.
    pub log_streams: u64,
    /// Lines of logs.
    pub log_lines: u64,
    /// Bytes of their text.
    pub log_bytes: u64,
}

impl Traffic {
    /// The counts now.
    pub fn sent(&self) -> Sent {
        Sent {
            sessions: self.sessions.load(Ordering::Relaxed),
            log_streams: self.log_streams.load(Ordering::Relaxed),
            log_lines: self.log_lines.load(Ordering::Relaxed),
            log_bytes: self.log_bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn session_opened(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn log_opened(&self) {
        self.log_streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn log_closed(&self) {
        self.log_streams.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn log_frame(&self, frame: &LogFrame) {
        let bytes: usize = frame.lines.iter().map(|line| line.text.len()).sum();
        self.log_lines.fetch_add(frame.lines.len() as u64, Ordering::Relaxed);
        self.log_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
