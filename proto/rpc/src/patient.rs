//! A stream whose peer must take what is written to it. It stands right on the system's: what a layer above keeps for the
//! peer, as TLS does, would else wait for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limits::WRITE_PATIENCE;

/// Writing fails where the peer has taken nothing for [`WRITE_PATIENCE`]. The library pings a quiet peer, but a ping that
/// cannot be written ends nothing.
#[derive(Debug)]
pub struct Patient<S> {
    stream: S,
    /// Until then something must have been written: nothing could be since.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// Of a stream of the system.
    pub fn new(stream: S) -> Self {
        Self { stream, stalled: None }
    }

    /// Takes in how a try to write went.
    fn tried(
        &mut self,
        tried: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if tried.is_ready() {
            self.stalled = None;
            return tried;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_PATIENCE)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.tried(tried, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of a stream of the system there is nothing to flush, so that it says nothing of the peer.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.tried(tried, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_stays_and_who_takes_nothing_does_not() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut stream = Patient::new(ours);
        // Slowly, and then not at all.
        let reads = async {
            for _ in 0..10 {
                sleep(WRITE_PATIENCE / 2).await;
                theirs.read_exact(&mut [0; 32]).await.expect("there is more");
            }
            Instant::now()
        };
        let many = [7; 1024];
        let (last, written) = tokio::join!(reads, stream.write_all(&many));
        assert_eq!(written.expect_err("nobody reads it").kind(), io::ErrorKind::TimedOut);
        assert!(last.elapsed() >= WRITE_PATIENCE, "{:?} behind the last that it read", last.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn reading_has_no_time() {
        let (ours, theirs) = tokio::io::duplex(64);
        let mut stream = Patient::new(ours);
        let waits = tokio::time::timeout(Duration::from_secs(24 * 3600), stream.read_u8()).await;
        waits.expect_err("nothing was sent");
        drop(theirs);
    }
}
