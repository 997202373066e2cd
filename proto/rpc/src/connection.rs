//! An accepted connection as tonic takes it: a stream, and what is known of the peer, which every request then
//! carries. Made by the listeners of [`crate::tls`] and [`crate::unix`]; knows nothing of either.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use crate::limits::TURN_BYTES;

/// A connection with a peer of which `I` is known. `H` is given back when it ends.
#[derive(Debug)]
pub struct Connection<S, I, H = ()> {
    stream: S,
    info: I,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes read since others had their turn.
    taken: usize,
    held: H,
}

impl<S, I, H> Connection<S, I, H> {
    /// Reading and writing fail when `deadline` has passed; `None` means that it may stay.
    pub(crate) fn new(stream: S, info: I, deadline: Option<Sleep>, held: H) -> Self {
        Self { stream, info, deadline: deadline.map(Box::pin), taken: 0, held }
    }

    /// What it holds while it is open.
    pub fn held(&self) -> &H {
        &self.held
    }

    /// An error once the time is over; until then the task is woken when it is.
    fn check_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(deadline) = &mut self.deadline
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

    use tokio::io::AsyncReadExt as _;

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
        let mut connection = Connection::new(sent.as_slice(), (), None, ());
        for _ in 0..3 {
            assert_eq!(turn(&mut connection), TURN_BYTES);
        }
        assert_eq!(turn(&mut connection), 5, "the rest, without waiting");
        let mut connection = Connection::new(sent.as_slice(), (), None, ());
        let mut read = Vec::new();
        connection.read_to_end(&mut read).await.expect("reads");
        assert!(read == sent, "{} bytes", read.len());
    }
}
