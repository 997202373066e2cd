//! Streams logs that the host asked for: lines from a source, batched into frames, on a call of their own.
//!
//! Memory is bounded: when the host reads slowly, HTTP/2 flow control fills the few frames here, then the source's
//! pipe, and the source waits; journald keeps what is not read yet. The stream ends when the host ends the call. There
//! are so few of them that readers who stop reading never hold the session up, with which they share a connection.

mod entry;
pub mod journal;
pub mod simulated;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_proto::node::v1::node_service_client::NodeServiceClient;
use k8sctl_proto::node::v1::{LogFrame, LogLine, LogSelector, StartLogStream};
use k8sctl_rpc::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// A frame is sent when it holds this many bytes of text, or as many lines as the host takes.
const FRAME_BYTES: usize = 64 * 1024;
/// Or when its first line has waited this long.
const FRAME_WAIT: Duration = Duration::from_millis(20);
/// Frames on their way.
const FRAMES: usize = 4;
/// Lines between source and frame.
const LINES: usize = 32;

/// Reading logs failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The reader could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its output could not be read.
    #[error("cannot read the output of {program}")]
    Read {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Without a match, everything would be read.
    #[error("none of the sources {0:?} is known")]
    Sources(Vec<i32>),
    /// It ended badly.
    #[error("{program} failed: {says}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// Its last words.
        says: String,
    },
}

/// Where log lines come from.
#[async_trait]
pub trait LogSources: Send + Sync {
    /// Sends the selected lines, oldest first, until there are no more or nobody receives.
    async fn read(&self, selector: LogSelector, lines: mpsc::Sender<LogLine>) -> Result<(), LogError>;
}

/// The places for log streams, of one session's connection.
pub fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(limits::LOG_STREAMS))
}

/// One log stream, from the host's request to its end. Without a place it only says that there is none.
pub async fn stream(
    channel: Channel,
    sources: Arc<dyn LogSources>,
    place: Option<OwnedSemaphorePermit>,
    start: StartLogStream,
) {
    let (frames, outgoing) = mpsc::channel(FRAMES);
    let has_place = place.is_some();
    let produce = async {
        if has_place {
            produce(sources, start.clone(), frames).await;
        } else {
            refuse(&start, &frames).await;
        }
    };
    let mut client = NodeServiceClient::new(channel);
    let push = client.push_logs(ReceiverStream::new(outgoing));
    let mut produce = std::pin::pin!(produce);
    let mut push = std::pin::pin!(push);
    // Cancel-safe: whichever ends first ends the stream; dropping `produce` ends the source.
    let ended = tokio::select! {
        ended = &mut push => ended,
        () = &mut produce => push.await,
    };
    match ended {
        Ok(_) => tracing::debug!(stream.id = start.stream_id, "log stream ended"),
        Err(status) => tracing::debug!(stream.id = start.stream_id, code = ?status.code(), "log stream cut"),
    }
}

/// Says that there are too many: small enough that it needs no place.
async fn refuse(start: &StartLogStream, frames: &mpsc::Sender<LogFrame>) {
    let error = format!(
        "{} log streams of this node are open already; end one of them and read again",
        limits::LOG_STREAMS
    );
    tracing::warn!(stream.id = start.stream_id, "log stream refused: too many");
    for frame in [
        LogFrame { stream_id: start.stream_id.clone(), ..LogFrame::default() },
        LogFrame { error, ..LogFrame::default() },
    ] {
        // The host may be gone already.
        let _ = frames.send(frame).await;
    }
}

async fn produce(sources: Arc<dyn LogSources>, start: StartLogStream, frames: mpsc::Sender<LogFrame>) {
    let first = LogFrame { stream_id: start.stream_id, ..LogFrame::default() };
    if frames.send(first).await.is_err() {
        return;
    }
    let (sender, receiver) = mpsc::channel(LINES);
    let read = sources.read(start.selector.unwrap_or_default(), sender);
    let (read, ()) = tokio::join!(read, batch(receiver, &frames));
    if let Err(error) = read {
        let error = k8sctl_rpc::chain(&error).to_string();
        tracing::warn!(error, "log stream failed");
        // The host may be gone already.
        let _ = frames.send(LogFrame { error, ..LogFrame::default() }).await;
    }
}

/// Gathers lines into frames until the lines end or nobody takes frames.
async fn batch(mut receiver: mpsc::Receiver<LogLine>, frames: &mpsc::Sender<LogFrame>) {
    while let Some(line) = receiver.recv().await {
        let deadline = Instant::now() + FRAME_WAIT;
        let mut bytes = line.text.len();
        let mut lines = vec![line];
        while bytes < FRAME_BYTES && lines.len() < limits::LOG_FRAME_LINES {
            let Ok(Some(line)) = timeout_at(deadline, receiver.recv()).await else { break };
            bytes += line.text.len();
            lines.push(line);
        }
        if frames.send(LogFrame { lines, ..LogFrame::default() }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_per_frame(receiver: mpsc::Receiver<LogLine>) -> Vec<usize> {
        let (frames, mut outgoing) = mpsc::channel(FRAMES);
        batch(receiver, &frames).await;
        drop(frames);
        let mut counts = Vec::new();
        while let Some(frame) = outgoing.recv().await {
            counts.push(frame.lines.len());
        }
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_gathered_by_size_and_time() {
        let (sender, receiver) = mpsc::channel(LINES);
        let line = |size: usize| LogLine { text: "x".repeat(size), ..LogLine::default() };
        for size in [FRAME_BYTES - 1, 1, 5, 5] {
            sender.send(line(size)).await.expect("taken");
        }
        drop(sender);
        let counts = lines_per_frame(receiver).await;
        assert_eq!(counts, [2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn empty_lines_make_no_frame_that_the_host_refuses() {
        let (sender, receiver) = mpsc::channel(3 * limits::LOG_FRAME_LINES);
        for _ in 0..2 * limits::LOG_FRAME_LINES + 1 {
            sender.try_send(LogLine::default()).expect("there is room");
        }
        drop(sender);
        let counts = lines_per_frame(receiver).await;
        assert_eq!(counts, [limits::LOG_FRAME_LINES, limits::LOG_FRAME_LINES, 1]);
    }

    #[tokio::test]
    async fn a_failing_source_says_so_in_the_last_frame() {
        struct Broken;
        #[async_trait]
        impl LogSources for Broken {
            async fn read(&self, _: LogSelector, lines: mpsc::Sender<LogLine>) -> Result<(), LogError> {
                lines.send(LogLine { text: "one".into(), ..LogLine::default() }).await.expect("taken");
                Err(LogError::Failed { program: "journalctl", says: "no journal".into() })
            }
        }
        let (frames, mut outgoing) = mpsc::channel(FRAMES);
        let start = StartLogStream { stream_id: "s".into(), selector: None };
        produce(Arc::new(Broken), start, frames).await;
        assert_eq!(outgoing.recv().await.expect("the first").stream_id, "s");
        assert_eq!(outgoing.recv().await.expect("the lines").lines[0].text, "one");
        assert_eq!(outgoing.recv().await.expect("the error").error, "journalctl failed: no journal");
    }
}
