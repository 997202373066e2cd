//! Answers that nobody may read. HTTP/2 takes a piece of an answer whole as soon as its reader takes one byte, and keeps
//! it until the reader takes the rest; the answer itself may be over by then.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// An answer, and something of its caller's that is kept until all of it is sent or dropped: a place, for example.
#[derive(Debug)]
pub struct Answer<P> {
    body: Body,
    kept: Arc<P>,
}

impl<P: Send + Sync + 'static> Answer<P> {
    /// The body for a response.
    pub fn body(body: Body, kept: P) -> Body {
        Body::new(Self { body, kept: Arc::new(kept) })
    }
}

/// A piece of an answer.
struct Piece<P> {
    bytes: Bytes,
    _kept: Arc<P>,
}

impl<P> AsRef<[u8]> for Piece<P> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<P: Send + Sync + 'static> HttpBody for Answer<P> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let kept = Arc::clone(&self.kept);
        let keep = |bytes| Bytes::from_owner(Piece { bytes, _kept: kept });
        Pin::new(&mut self.body).poll_frame(context).map_ok(|frame| frame.map_data(keep))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
