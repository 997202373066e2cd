//! An accepted connection as tonic takes it: a stream, and what is known of the peer, which every request then
//! carries. Made by the listeners of [`crate::tls`] and [`crate::unix`]; knows nothing of either.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

use crate::limits::{PREFACE_BYTES, TURN_BYTES};

/// How long a connection may last.
#[derive(Debug)]
pub(crate) enum Life {
    /// For ever.
    Unbounded,
    /// For ever, once it has begun to speak.
    Spoken(Pin<Box<Sleep>>),
    /// So long.
    Bounded(Pin<Box<Sleep>>),
}

impl Life {
    /// It may stay, once it has begun to speak within this time.
    pub fn spoken_within(time: Duration) -> Self {
        Self::Spoken(Box::pin(sleep(time)))
    }

    /// It ends after this time.
    pub fn bounded(time: Duration) -> Self {
        Self::Bounded(Box::pin(sleep(time)))
    }
}

/// A connection with a peer of which `I` is known. `H` is given back when it ends.
#[derive(Debug)]
pub struct Connection<S, I, H = ()> {
    stream: S,
    info: I,
    life: Life,
    /// Bytes read while it has not begun to speak.
    heard: usize,
    /// Bytes read since others had their turn.
    taken: usize,
    held: H,
}

impl<S, I, H> Connection<S, I, H> {
    /// Reading and writing fail when its life is over.
    pub(crate) fn new(stream: S, info: I, life: Life, held: H) -> Self {
        Self { stream, info, life, heard: 0, taken: 0, held }
    }

    /// What it holds while it is open.
    pub fn held(&self) -> &H {
        &self.held
    }

    /// An error once the time is over; until then the task is woken when it is.
    fn check_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Life::Spoken(deadline) | Life::Bounded(deadline) = &mut self.life
            && deadline.as_mut().poll(context).is_ready()
        {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl<S, I: Clone + Send + Sync + 'static, H> Connected for Connection<S, I, H> {
    type ConnectInfo = I;

    fn connect_info(&self) -> I {
        self.info.clone()
    }
}

impl<S: AsyncRead + Unpin, I: Unpin, H: Unpin> AsyncRead for Connection<S, I, H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        if self.taken >= TURN_BYTES {
            // HTTP/2 reads for as long as there is something: whatever is small to send and dear to read would be the
            // only thing that this thread does.
            self.taken = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        match polled {
            Poll::Ready(_) => self.taken += buffer.filled().len().saturating_sub(before),
            Poll::Pending => self.taken = 0,
        }
        if matches!(self.life, Life::Spoken(_)) {
            self.heard += buffer.filled().len().saturating_sub(before);
            if self.heard >= PREFACE_BYTES {
                self.life = Life::Unbounded;
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, I: Unpin, H: Unpin> AsyncWrite for Connection<S, I, H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One that reads no answer is not kept for it.
        self.check_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_time(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Reads until it must wait, and gives how much that was.
    fn turn(connection: &mut Connection<&[u8], ()>) -> usize {
        let mut context = Context::from_waker(Waker::noop());
        let (mut bytes, mut count) = ([0; 8 * 1024], 0);
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *connection).poll_read(&mut context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => count += buffer.filled().len(),
                _ => return count,
            }
        }
    }

    #[tokio::test]
    async fn others_have_their_turn_and_nothing_is_lost() {
        let sent = vec![7; 3 * TURN_BYTES + 5];
        let mut connection = Connection::new(sent.as_slice(), (), Life::Unbounded, ());
        for _ in 0..3 {
            assert_eq!(turn(&mut connection), TURN_BYTES);
        }
        assert_eq!(turn(&mut connection), 5, "the rest, without waiting");
        let mut connection = Connection::new(sent.as_slice(), (), Life::Unbounded, ());
        let mut read = Vec::new();
        connection.read_to_end(&mut read).await.expect("reads");
        assert!(read == sent, "{} bytes", read.len());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_does_not_stay() {
        const LIFE: Duration = Duration::from_secs(10);
        let connect = || {
            let (ours, theirs) = tokio::io::duplex(64);
            (Connection::new(ours, (), Life::spoken_within(LIFE), ()), theirs)
        };
        let (mut connection, mut silent) = connect();
        // Not enough to be anything.
        silent.write_all(&[7; PREFACE_BYTES - 1]).await.expect("it is taken");
        let mut read = Vec::new();
        let error = connection.read_to_end(&mut read).await.expect_err("it is over");
        assert_eq!((error.kind(), read.len()), (io::ErrorKind::TimedOut, PREFACE_BYTES - 1));

        let (mut connection, mut speaks) = connect();
        speaks.write_all(&[7; PREFACE_BYTES]).await.expect("it is taken");
        connection.read_exact(&mut [0; PREFACE_BYTES]).await.expect("reads");
        let waits = tokio::time::timeout(100 * LIFE, connection.read_u8()).await;
        waits.expect_err("it may be silent from now on");
    }
}
