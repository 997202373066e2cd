//! Takes over the socket that the host agent left on fd 3. Called once by [`crate::main`], before any other file
//! is opened; decides nothing else.
#![allow(unsafe_code)] // A raw descriptor number has no owner until somebody claims it.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// The descriptor that a plugin inherits.
const PLUGIN_FD: RawFd = 3;

/// The connected socket, or `None` if this program was not started by a host agent.
pub(crate) fn take() -> Option<UnixStream> {
    // SAFETY: only asked about, never used after this function; an unused number answers EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(PLUGIN_FD) };
    let kind = rustix::net::sockopt::socket_type(borrowed).ok()?;
    if kind != rustix::net::SocketType::STREAM {
        return None;
    }
    // SAFETY: it is open and a stream socket; this is the program's first act, so nothing else in it owns fd 3.
    let owned = unsafe { OwnedFd::from_raw_fd(PLUGIN_FD) };
    let stream = UnixStream::from(owned);
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}
