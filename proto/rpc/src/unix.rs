//! The control socket: who calls is told by the kernel, and is in every request's extensions as
//! [`PeerCredentials`]. Roles are made of them elsewhere.
//!
//! Everybody may connect, so that whoever has a role, by whatever group, can use it and whoever has none is told so.
//! Strangers have few places and little time, which are theirs alone: they cannot take the socket from the others. Each
//! user with a role has places of its own, so that none of them can either.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::places::{Place, Places};
use crate::{connection, directory, limits};

/// Who is at the other end of a control connection, as the kernel saw it when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, for the log only: it may be gone and its number used again.
    pub pid: Option<i32>,
}

/// The control socket could not be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    /// A living program listens there.
    #[error("another program already listens on {path}")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is something else at this path.
    #[error("{path} exists and is no socket: remove it or choose another path")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket could not be made.
    #[error("cannot make the socket {path}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Nobody answers.
    #[error("cannot connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The connection speaks no HTTP/2.
    #[error("HTTP/2 on {path} failed")]
    Http {
        /// The socket.
        path: PathBuf,
        /// The transport's reason.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Makes the socket, mode 0666, and the directory it is in, mode 0755, unless that exists. A socket that a dead program
/// left is replaced.
/// Whom `is_known` does not know has one of the strangers' places; what anybody may call is not decided here. It may block:
/// it is asked off the runtime's threads, by a few at a time. Who `needs_no_look_up`, root for example, is let in without,
/// however many others wait for theirs. The stream is for `serve_with_incoming_shutdown`.
pub fn listen(
    path: &Path,
    needs_no_look_up: fn(&PeerCredentials) -> bool,
    is_known: impl Fn(&PeerCredentials) -> bool + Send + Sync + 'static,
) -> Result<Incoming, UnixError> {
    let bind_error = |source| UnixError::Bind { path: path.to_owned(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        directory::make(parent, 0o755).map_err(bind_error)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(UnixError::NoSocket { path: path.to_owned() });
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(UnixError::InUse { path: path.to_owned() });
        }
        _ => {}
    }
    // Made under another name, and renamed when its mode is right: there is no moment without a socket, and none
    // with one that some may not open.
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let early = path.with_file_name(name);
    let _ = std::fs::remove_file(&early);
    let listener = UnixListener::bind(&early).map_err(bind_error)?;
    std::fs::set_permissions(&early, std::fs::Permissions::from_mode(0o666))
        .and_then(|()| std::fs::rename(&early, path))
        .map_err(bind_error)?;
    let strangers = Arc::new(Semaphore::new(limits::STRANGERS));
    let users = Places::new(limits::CONNECTIONS_PER_USER);
    let deciding = JoinSet::new();
    let (is_known, waiting) = (Arc::new(is_known), VecDeque::new());
    Ok(Incoming { listener, pause: None, needs_no_look_up, is_known, deciding, waiting, strangers, users })
}

/// Stream of control connections. It never yields an error.
pub struct Incoming {
    listener: UnixListener,
    /// Until then nothing is accepted.
    pause: Option<Pin<Box<Sleep>>>,
    needs_no_look_up: fn(&PeerCredentials) -> bool,
    is_known: Arc<dyn Fn(&PeerCredentials) -> bool + Send + Sync>,
    /// Accepted, and not known yet whether their user is.
    deciding: JoinSet<(UnixStream, PeerCredentials, bool)>,
    /// Accepted, and not asked yet.
    waiting: VecDeque<(UnixStream, PeerCredentials)>,
    strangers: Arc<Semaphore>,
    /// By user.
    users: Places<u32>,
}

impl Incoming {
    /// Asks for those who wait, a few at a time.
    fn look_up(&mut self) {
        while self.deciding.len() < limits::UNDECIDED
            && let Some((stream, peer)) = self.waiting.pop_front()
        {
            let is_known = Arc::clone(&self.is_known);
            self.deciding.spawn_blocking(move || {
                let known = is_known(&peer);
                (stream, peer, known)
            });
        }
    }

    /// `None` means: there is no place.
    fn admit(&self, stream: UnixStream, peer: PeerCredentials, is_known: bool) -> Option<Connection> {
        if is_known {
            let place = self.users.take(peer.uid)?;
            return Some(Connection::new(stream, peer, None, Held::User(place)));
        }
        let place = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        Some(Connection::new(stream, peer, Some(sleep(limits::STRANGER_LIFETIME)), Held::Stranger(place)))
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            self.look_up();
            match self.deciding.poll_join_next(context) {
                Poll::Ready(Some(Ok((stream, peer, is_known)))) => {
                    if let Some(connection) = self.admit(stream, peer, is_known) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                    too_many(&peer);
                    continue;
                }
                // It panicked. Whoever cannot be looked up is not served.
                Poll::Ready(Some(Err(error))) => {
                    tracing::error!(error = %error, "cannot look up who made a control connection");
                    continue;
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let (stream, _) = match ready!(self.listener.poll_accept(context)) {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Without free file descriptors the next try would fail as well, and at once.
                    tracing::warn!(error = %error, "cannot accept a control connection");
                    self.pause = Some(Box::pin(sleep(limits::ACCEPT_PAUSE)));
                    continue;
                }
            };
            match stream.peer_cred() {
                Ok(peer) => {
                    let peer = PeerCredentials { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() };
                    if (self.needs_no_look_up)(&peer) {
                        if let Some(connection) = self.admit(stream, peer, true) {
                            return Poll::Ready(Some(Ok(connection)));
                        }
                        too_many(&peer);
                    } else if self.waiting.len() < limits::WAITING {
                        self.waiting.push_back((stream, peer));
                    } else {
                        too_many(&peer);
                    }
                }
                // Whoever cannot be told is not served.
                Err(error) => tracing::warn!(error = %error, "a control connection without credentials"),
            }
        }
    }
}

/// Told of a connection that is closed.
fn too_many(peer: &PeerCredentials) {
    tracing::debug!(
        peer.uid = peer.uid,
        "too many control connections: of this user, of users without a role, or of users that are being looked up"
    );
}

/// The place that a control connection has while it is open.
#[derive(Debug)]
pub enum Held {
    /// One of those of its user.
    User(Place<u32>),
    /// One of those that all users without a role have together.
    Stranger(OwnedSemaphorePermit),
}

/// One control connection; a stranger's has a deadline.
pub type Connection = connection::Connection<UnixStream, PeerCredentials, Held>;

/// A channel to the host agent. It reconnects when the host agent was restarted.
pub async fn connect_unix(path: &Path) -> Result<Channel, UnixError> {
    // The first connection is made here, so that "missing" and "may not" keep the system's own words.
    let first = timeout(limits::CONNECT_TIMEOUT, UnixStream::connect(path))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| UnixError::Connect { path: path.to_owned(), source })?;
    let mut first = Some(first);
    let target = path.to_owned();
    let connector = service_fn(move |_| {
        let (first, target) = (first.take(), target.clone());
        async move {
            let stream = match first {
                Some(stream) => stream,
                None => UnixStream::connect(&target).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    limits::control_endpoint(Endpoint::from_static("http://host-agent"))
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|source| UnixError::Http { path: path.to_owned(), source })
}
