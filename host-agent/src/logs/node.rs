//! The log of one node, for one reader: opened, opened again behind what came when the node was away, until it ends.
//!
//! One task for each node and reader. What it hands on waits until it is taken, and what is not taken waits in the node.

use std::sync::Arc;
use std::time::Duration;

use k8sctl_proto::node::v1::{LogFrame, LogSelector};
use k8sctl_types::logs::merge::Micros;
use prost_types::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Clock, micros};
use crate::nodes::registry::{LogLost, LogReader, NodeRegistry, OpenLogsError, PlaceLost};
use crate::wire;

/// Longest wait until a node that was asked for a log begins to push it.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a reader who does not follow waits for a node that went away in the middle, and one who named an end behind
/// that.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait that is asked for.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Between two tries to ask an agent that has many requests before it.
const BUSY: Duration = Duration::from_millis(100);
const BUSY_TRIES: u32 = 100;
/// Between two tries to read a log that breaks off while the node stays; doubled up to the longest, until lines come.
const AGAIN: Duration = Duration::from_millis(500);
const LONGEST_AGAIN: Duration = Duration::from_secs(30);
/// So often a log is begun again for a reader who does not follow, without that lines come.
const TRIES: u32 = 2;

/// What becomes of a node's log.
#[derive(Debug)]
pub enum NodeEvent {
    /// A frame came, at this moment.
    Frame(LogFrame, Micros),
    /// It cannot be read at the moment, and why.
    Away(String),
    /// It has been read to its end.
    Ended,
    /// It will not be read on, and why.
    Failed(String, Missing),
    /// The node was removed.
    Removed,
}

/// What kind of thing is in the way of a node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The node has no session.
    Away,
    /// Its agent takes in no more requests.
    Busy,
    /// What reads it here broke off, by a mistake of the host agent.
    Broken,
    /// The reason tells all.
    Other,
}

/// How a stream that was open came to its end.
enum End {
    Whole,
    Lost(String),
    /// The agent says that it cannot.
    Refused(String),
    Replaced,
    Removed,
    NoReader,
}

/// See the module.
pub struct NodeLog {
    /// Nodes of all clusters.
    pub registry: Arc<NodeRegistry>,
    /// Id of the node.
    pub id: String,
    /// What is asked of it.
    pub selector: LogSelector,
    /// The reader's.
    pub clock: Clock,
    /// Where the reader takes it.
    pub events: mpsc::Sender<NodeEvent>,
    /// Whether it was known to the registry.
    pub known: bool,
    /// It was read to what was its end then, since that was asked last.
    pub caught_up: bool,
}

impl NodeLog {
    /// Reads until it ends, or nobody takes what is read.
    pub async fn run(mut self) {
        if let Some(last) = self.read().await {
            // The reader may be gone.
            let _ = self.events.send(last).await;
        }
    }

    /// `None` means: there is no reader any more.
    async fn read(&mut self) -> Option<NodeEvent> {
        let (mut pause, mut busy, mut tries) = (AGAIN, 0, 0);
        // One that was read before is read again, whatever the agent says; what it says at once, it means.
        let mut was_read = !self.selector.after_cursor.is_empty();
        loop {
            let opened = self.registry.open_logs(&self.id, self.selector.clone());
            let (reason, missing) = match opened {
                Ok(reader) => {
                    busy = 0;
                    let before = self.selector.after_cursor.clone();
                    let end = self.pump(reader).await;
                    let was_well = std::mem::take(&mut self.caught_up);
                    if was_well || self.selector.after_cursor != before {
                        (was_read, pause, tries) = (true, AGAIN, 0);
                    }
                    match end {
                        End::Whole => return Some(NodeEvent::Ended),
                        End::Removed => return Some(NodeEvent::Removed),
                        End::NoReader => return None,
                        End::Replaced => continue,
                        End::Refused(reason) if !(was_read && self.selector.follow) => {
                            return Some(NodeEvent::Failed(reason, Missing::Other));
                        }
                        End::Lost(reason) | End::Refused(reason) => (reason, Missing::Other),
                    }
                }
                Err(OpenLogsError::Busy) if busy < BUSY_TRIES => {
                    busy += 1;
                    self.rest(BUSY).await?;
                    continue;
                }
                Err(error @ OpenLogsError::Busy) => (error.to_string(), Missing::Busy),
                Err(error @ OpenLogsError::NotConnected) => {
                    if !self.selector.follow && !was_read {
                        return Some(NodeEvent::Failed(error.to_string(), Missing::Away));
                    }
                    (error.to_string(), Missing::Away)
                }
            };
            tries += 1;
            if !self.selector.follow && tries > TRIES {
                return Some(NodeEvent::Failed(reason, missing));
            }
            self.events.send(NodeEvent::Away(reason.clone())).await.ok()?;
            self.begin_with_the_reader();
            if self.registry.is_connected(&self.id) == Some(true) {
                self.rest(pause).await?;
                pause = (2 * pause).min(LONGEST_AGAIN);
            }
            match self.connected().await {
                Some(true) => {}
                Some(false) => return Some(NodeEvent::Failed(reason, Missing::Away)),
                None => return Some(NodeEvent::Removed),
            }
        }
    }

    /// Of a node that can be read only later, all that was written since the reader began is to come: its last lines by
    /// then may be fewer.
    fn begin_with_the_reader(&mut self) {
        let ends_later = |until: &Timestamp| micros(until) > self.clock.began;
        if self.selector.follow
            && self.selector.after_cursor.is_empty()
            && self.selector.until.as_ref().is_none_or(ends_later)
            && self.selector.tail.take().is_some()
        {
            // A first moment that was asked for is before it.
            let began = jiff::Timestamp::from_microsecond(self.clock.began);
            self.selector.since = began.ok().map(wire::timestamp);
        }
    }

    /// A pause; `None` where the reader is gone meanwhile.
    async fn rest(&self, length: Duration) -> Option<()> {
        tokio::select! {
            // Both are cancel-safe: they only wait.
            () = sleep(length) => Some(()),
            () = self.events.closed() => None,
        }
    }

    /// Waits until the node has a session; `false` when it was waited for long enough, `None` when it was removed.
    async fn connected(&mut self) -> Option<bool> {
        let deadline = self.deadline();
        let mut version = self.registry.version();
        loop {
            version.borrow_and_update();
            match self.registry.is_connected(&self.id) {
                Some(true) => return Some(true),
                Some(false) => self.known = true,
                None if self.known => return None,
                None => {}
            }
            let changed = async {
                tokio::select! {
                    // Cancel-safe: an unseen change stays unseen. An error means that the host agent ends.
                    changed = version.changed() => changed.is_ok(),
                    () = self.events.closed() => false,
                }
            };
            let goes_on = match deadline {
                None => changed.await,
                Some(deadline) => match timeout_at(deadline, changed).await {
                    Ok(goes_on) => goes_on,
                    Err(_) => return Some(false),
                },
            };
            if !goes_on {
                return None;
            }
        }
    }

    /// Until when the node is waited for; `None` means: as long as it takes.
    fn deadline(&self) -> Option<Instant> {
        let left = match &self.selector.until {
            Some(until) if self.selector.follow => {
                let left = micros(until).saturating_sub(self.clock.now());
                Duration::from_micros(u64::try_from(left).unwrap_or_default()).min(FAR)
            }
            None if self.selector.follow => return None,
            _ => Duration::ZERO,
        };
        Some(Instant::now() + left + PATIENCE)
    }

    /// Hands frames on and notes where to go on behind them.
    async fn pump(&mut self, mut reader: LogReader) -> End {
        self.known = true;
        let mut lost = std::pin::pin!(reader.place_lost());
        let mut unanswered = std::pin::pin!(sleep(ANSWER));
        let mut is_due = false;
        loop {
            let frame = tokio::select! {
                // Cancel-safe: recv takes a frame only when it returns it, the others only wait.
                frame = reader.frames.recv() => frame,
                lost = &mut lost => return match lost {
                    PlaceLost::Replaced => End::Replaced,
                    PlaceLost::Removed => End::Removed,
                },
                () = self.events.closed() => return End::NoReader,
                () = &mut unanswered, if !is_due => {
                    is_due = true;
                    if reader.is_unclaimed() {
                        return End::Lost(format!("its agent has not answered within {ANSWER:?}"));
                    }
                    continue;
                }
            };
            // One that follows has an end only where one was asked for.
            let may_end = !self.selector.follow || self.selector.until.is_some();
            let mut frame = match frame {
                Some(Ok(frame)) if !frame.error.is_empty() => return End::Refused(frame.error),
                Some(Ok(frame)) if !frame.whole => frame,
                Some(Ok(_)) if may_end => return End::Whole,
                Some(Err(LogLost(reason))) => return End::Lost(reason),
                // That nothing comes any more says nothing: a connection that broke may end it too.
                Some(Ok(_)) | None => return End::Lost("its log broke off".to_owned()),
            };
            let cursor = std::mem::take(&mut frame.cursor);
            if let (Some(left), false) = (&mut self.selector.tail, self.selector.follow) {
                // After an interruption it is not the agent who counts them.
                frame.lines.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= frame.lines.len() as u64;
            }
            frame.cursor.clone_from(&cursor);
            self.caught_up |= frame.caught_up;
            if self.events.send(NodeEvent::Frame(frame, self.clock.now())).await.is_err() {
                return End::NoReader;
            }
            if !cursor.is_empty() {
                self.selector.after_cursor = cursor;
            }
        }
    }
}
