//! Streams logs that the host asked for: lines from a source, in frames, on a call of their own.
//!
//! - [`real`]: the node's own, of `journal` and `pods`, merged; [`simulated`]: lines that count
//! - `journal`, `export`: entries from journald; `pods`, `container`, `segment`, `cri`: the files of containers
//! - `wanted`, `filter`: what is asked for; `cursor`: where to go on; `frames`: the way out
//!
//! Memory is bounded: when the host reads slowly, HTTP/2 flow control fills the few frames here, and the source waits;
//! journald and the files keep what is not read yet. The stream ends when the host ends the call. There are so few of
//! them that readers who stop reading never hold the session up, with which they share a connection.

mod container;
mod cri;
mod cursor;
mod export;
mod filter;
mod frames;
mod journal;
mod pods;
pub mod real;
mod segment;
pub mod simulated;
mod wanted;

use std::sync::Arc;

use async_trait::async_trait;
use k8sctl_proto::node::v1::node_service_client::NodeServiceClient;
use k8sctl_proto::node::v1::{LogFrame, LogSelector, StartLogStream};
use k8sctl_rpc::{limits, memory};
use k8sctl_types::logs::grep::GrepError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::clock::Offset;

pub use frames::Frames;

/// Frames on their way.
const FRAMES: usize = 4;

/// Reading logs failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The reader could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Its path.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What it says, or a file, could not be read.
    #[error("cannot read {what}")]
    Read {
        /// Path, or "the output of journalctl".
        what: String,
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
        program: String,
        /// Its last words.
        says: String,
    },
    /// It ended while it should have followed.
    #[error("journalctl has ended by itself")]
    Ended,
    /// No position to go on from.
    #[error("the position to go on from cannot be read: {reason}")]
    Cursor {
        /// What is wrong with it.
        reason: String,
    },
    /// No regular expression.
    #[error("the regular expression cannot be used")]
    Grep(#[source] GrepError),
}

/// Where log lines come from.
#[async_trait]
pub trait LogSources: Send + Sync {
    /// Sends the selected lines, oldest first, until there are no more or nobody receives; `Ok` tells the host that all
    /// were sent. With `follow` there are always more, and one frame says when what there was has been sent.
    async fn read(&self, selector: LogSelector, frames: &mut Frames) -> Result<(), LogError>;
}

/// The places for log streams, of one session's connection.
pub fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(limits::LOG_STREAMS))
}

/// One log stream, from the host's request to its end. Without a place it only says that there is none.
pub async fn stream(
    channel: Channel,
    sources: Arc<dyn LogSources>,
    offset: Offset,
    place: Option<OwnedSemaphorePermit>,
    start: StartLogStream,
) {
    let (frames, outgoing) = mpsc::channel(FRAMES);
    let has_place = place.is_some();
    let produce = async {
        if has_place {
            memory::keep();
            produce(sources, offset, start.clone(), frames).await;
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

async fn produce(
    sources: Arc<dyn LogSources>,
    offset: Offset,
    start: StartLogStream,
    sender: mpsc::Sender<LogFrame>,
) {
    let first = LogFrame { stream_id: start.stream_id, says_whole: true, ..LogFrame::default() };
    if sender.send(first).await.is_err() {
        return;
    }
    let mut frames = Frames::new(sender, offset);
    let selector = frames.localised(start.selector.unwrap_or_default());
    let last = match sources.read(selector, &mut frames).await {
        // The end of the call alone is no sign of it: a call that is cut off may end as well as any.
        Ok(()) => LogFrame { whole: true, ..LogFrame::default() },
        Err(error) => {
            let error = k8sctl_rpc::chain(&error).to_string();
            tracing::warn!(error, "log stream failed");
            LogFrame { error, ..LogFrame::default() }
        }
    };
    // The host may be gone already.
    let _ = frames.send(last).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8sctl_proto::node::v1::LogLine;

    #[tokio::test]
    async fn a_source_that_has_sent_all_says_so_in_the_last_frame() {
        struct Empty;
        #[async_trait]
        impl LogSources for Empty {
            async fn read(&self, _: LogSelector, _: &mut Frames) -> Result<(), LogError> {
                Ok(())
            }
        }
        let (frames, mut outgoing) = mpsc::channel(FRAMES);
        let start = StartLogStream { stream_id: "s".into(), selector: None };
        produce(Arc::new(Empty), Offset::default(), start, frames).await;
        let first = outgoing.recv().await.expect("the first");
        assert_eq!(first, LogFrame { stream_id: "s".into(), says_whole: true, ..LogFrame::default() });
        let last = outgoing.recv().await.expect("the last");
        assert_eq!(last, LogFrame { whole: true, ..LogFrame::default() });
        assert!(outgoing.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_failing_source_says_so_in_the_last_frame() {
        struct Broken;
        #[async_trait]
        impl LogSources for Broken {
            async fn read(&self, _: LogSelector, frames: &mut Frames) -> Result<(), LogError> {
                let lines = vec![LogLine { text: "one".into(), ..LogLine::default() }];
                assert!(frames.send(LogFrame { lines, ..LogFrame::default() }).await, "taken");
                Err(LogError::Failed { program: "journalctl".into(), says: "no journal".into() })
            }
        }
        let (frames, mut outgoing) = mpsc::channel(FRAMES);
        let start = StartLogStream { stream_id: "s".into(), selector: None };
        produce(Arc::new(Broken), Offset::default(), start, frames).await;
        assert_eq!(outgoing.recv().await.expect("the first").stream_id, "s");
        assert_eq!(outgoing.recv().await.expect("the lines").lines[0].text, "one");
        let last = outgoing.recv().await.expect("the error");
        assert_eq!((last.error.as_str(), last.whole), ("journalctl failed: no journal", false));
    }
}
