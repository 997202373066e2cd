//! The control socket: who calls is told by the kernel, and is in every request's extensions as
//! [`PeerCredentials`]. Roles are made of them elsewhere.
//!
//! Everybody may connect, so that whoever has a role, by whatever group, can use it and whoever has none is told so.
//! Strangers have few places and little time, which are theirs alone: they cannot take the socket from the others. Each
//! user with a role has places of its own, so that none of them can either; and so has each while it is being looked up
//! whether there is a role.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
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

use crate::connection::Life;
use crate::patient::Patient;
use crate::places::{UserPlace, UserPlaces};
use crate::{connection, directory, limits};

/// Who is at the other end of a control connection, as the kernel saw it when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, for the log and for counting: it may be gone and its number used again.
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
/// it is asked off the runtime's threads, of a few users at a time, and its answer is for all connections of the same user
/// and group that wait then. Who `needs_no_look_up`, root for example, is let in without, however many others wait for
/// theirs. The stream is for `serve_with_incoming_shutdown`.
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
    let users = UserPlaces::new(limits::CONNECTIONS_PER_USER, limits::CONNECTIONS_PER_PROCESS);
    Ok(Incoming {
        listener,
        pause: None,
        needs_no_look_up,
        is_known: Arc::new(is_known),
        look_ups: JoinSet::new(),
        queue: Queue::new(),
        decided: VecDeque::new(),
        strangers,
        users,
    })
}

/// Stream of control connections. It never yields an error.
pub struct Incoming {
    listener: UnixListener,
    /// Until then nothing is accepted.
    pause: Option<Pin<Box<Sleep>>>,
    needs_no_look_up: fn(&PeerCredentials) -> bool,
    is_known: Arc<dyn Fn(&PeerCredentials) -> bool + Send + Sync>,
    /// What is found; `None` where that broke off.
    look_ups: JoinSet<(PeerCredentials, Option<bool>)>,
    /// Accepted, and not known yet whether their user is.
    queue: Queue<UnixStream>,
    /// Accepted, and whether their user is known; not let in yet.
    decided: VecDeque<(PeerCredentials, UnixStream, bool)>,
    strangers: Arc<Semaphore>,
    users: UserPlaces,
}

impl Incoming {
    /// Asks for those who wait.
    fn look_up(&mut self) {
        while let Some(peer) = self.queue.next_look_up() {
            let is_known = Arc::clone(&self.is_known);
            self.look_ups.spawn_blocking(move || {
                // Whoever waits for it must hear of its end, also where that is a panic.
                let known = catch_unwind(AssertUnwindSafe(|| is_known(&peer)));
                (peer, known.ok())
            });
        }
    }

    /// `None` means: there is no place.
    fn admit(&self, stream: UnixStream, peer: PeerCredentials, is_known: bool) -> Option<Connection> {
        let stream = Patient::new(stream);
        if is_known {
            let place = self.users.take(peer.uid, peer.pid)?;
            let life = Life::spoken_within(limits::PREFACE_TIMEOUT);
            return Some(Connection::new(stream, peer, life, Held::User(place)));
        }
        let place = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        Some(Connection::new(stream, peer, Life::bounded(limits::STRANGER_LIFETIME), Held::Stranger(place)))
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
            if let Some((peer, stream, is_known)) = self.decided.pop_front() {
                if let Some(connection) = self.admit(stream, peer, is_known) {
                    return Poll::Ready(Some(Ok(connection)));
                }
                too_many(&peer);
                continue;
            }
            self.look_up();
            match self.look_ups.poll_join_next(context) {
                Poll::Ready(Some(Ok((peer, is_known)))) => {
                    let answered = self.queue.answered(&peer);
                    match is_known {
                        Some(is_known) => {
                            let answered = answered.into_iter();
                            self.decided.extend(answered.map(|(peer, stream)| (peer, stream, is_known)));
                        }
                        // Whoever cannot be looked up is not served.
                        None => {
                            tracing::error!(
                                peer.uid = peer.uid,
                                "cannot look up who made a control connection"
                            );
                        }
                    }
                    continue;
                }
                // The runtime ends.
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
                    } else if !self.queue.push(peer, stream) {
                        too_many(&peer);
                    }
                }
                // Whoever cannot be told is not served.
                Err(error) => tracing::warn!(error = %error, "a control connection without credentials"),
            }
        }
    }
}

/// Connections of which it is not known yet whether their user is. Those of a user and group wait for one answer, and each
/// user has few places and is looked up once at a time, so that one for whom that takes long holds up nobody else.
struct Queue<T> {
    /// Those that are being looked up, too. Who comes first is looked up first.
    waiting: VecDeque<(PeerCredentials, T)>,
    /// Who is being looked up.
    asked: Vec<PeerCredentials>,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self { waiting: VecDeque::new(), asked: Vec::new() }
    }

    /// `false` means: there is no place, of all or of this user's.
    fn push(&mut self, peer: PeerCredentials, connection: T) -> bool {
        let of_user = self.waiting.iter().filter(|(other, _)| other.uid == peer.uid).count();
        let has_place = self.waiting.len() < limits::WAITING && of_user < limits::WAITING_PER_USER;
        if has_place {
            self.waiting.push_back((peer, connection));
        }
        has_place
    }

    /// Whom to look up now.
    fn next_look_up(&mut self) -> Option<PeerCredentials> {
        if self.asked.len() >= limits::UNDECIDED {
            return None;
        }
        let is_asked = |peer: &PeerCredentials| self.asked.iter().any(|asked| asked.uid == peer.uid);
        let peer = self.waiting.iter().map(|(peer, _)| *peer).find(|peer| !is_asked(peer))?;
        self.asked.push(peer);
        Some(peer)
    }

    /// A look-up has ended: takes out whom its answer is for.
    fn answered(&mut self, asked: &PeerCredentials) -> VecDeque<(PeerCredentials, T)> {
        self.asked.retain(|peer| peer.uid != asked.uid);
        let is_same = |peer: &PeerCredentials| (peer.uid, peer.gid) == (asked.uid, asked.gid);
        let (answered, waiting) = self.waiting.drain(..).partition(|(peer, _)| is_same(peer));
        self.waiting = waiting;
        answered
    }
}

/// Told of a connection that is closed.
fn too_many(peer: &PeerCredentials) {
    tracing::debug!(
        peer.uid = peer.uid,
        "too many control connections: of this user or process, of users without a role, or of users that are being looked up"
    );
}

/// The place that a control connection has while it is open.
#[derive(Debug)]
pub enum Held {
    /// One of those of its user.
    User(UserPlace),
    /// One of those that all users without a role have together.
    Stranger(OwnedSemaphorePermit),
}

/// One control connection; a stranger's has a deadline, and so has one that says nothing.
pub type Connection = connection::Connection<Patient<UnixStream>, PeerCredentials, Held>;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> PeerCredentials {
        PeerCredentials { uid, gid, pid: None }
    }

    /// Users of the look-ups that begin now.
    fn begun(queue: &mut Queue<&str>) -> Vec<u32> {
        std::iter::from_fn(|| queue.next_look_up()).map(|peer| peer.uid).collect()
    }

    #[test]
    fn a_user_whose_look_ups_hang_holds_up_nobody_else() {
        let mut queue = Queue::new();
        let taken = (0..1000).filter(|_| queue.push(peer(1, 1), "his")).count();
        assert_eq!(taken, limits::WAITING_PER_USER);
        assert_eq!(begun(&mut queue), [1], "once for all of them");
        assert!(queue.push(peer(2, 2), "hers"));
        assert_eq!(begun(&mut queue), [2]);
        assert_eq!(queue.answered(&peer(2, 2)), [(peer(2, 2), "hers")]);
        assert!(!queue.push(peer(1, 1), "his") && begun(&mut queue).is_empty());

        assert_eq!(queue.answered(&peer(1, 1)).len(), limits::WAITING_PER_USER);
        assert!(queue.push(peer(1, 1), "his"), "the places are free again");
        assert_eq!(begun(&mut queue), [1]);
    }

    #[test]
    fn an_answer_is_for_all_of_the_same_user_and_group() {
        let mut queue = Queue::new();
        for (gid, connection) in [(1, "first"), (7, "of another group"), (1, "second")] {
            assert!(queue.push(peer(1, gid), connection));
        }
        assert_eq!(begun(&mut queue), [1]);
        let answered: Vec<_> = queue.answered(&peer(1, 1)).into_iter().map(|(_, it)| it).collect();
        assert_eq!(answered, ["first", "second"]);
        assert_eq!(begun(&mut queue), [1]);
        assert_eq!(queue.answered(&peer(1, 7)), [(peer(1, 7), "of another group")]);
        assert!(begun(&mut queue).is_empty());
    }

    #[test]
    fn so_many_users_are_looked_up_at_a_time_and_so_many_connections_wait() {
        let mut queue = Queue::new();
        let taken = (0..1000).filter(|&uid| queue.push(peer(uid, 1), "")).count();
        assert_eq!(taken, limits::WAITING);
        let first: Vec<u32> = (0..).take(limits::UNDECIDED).collect();
        assert_eq!(begun(&mut queue), first);
        assert_eq!(queue.answered(&peer(1, 1)).len(), 1);
        assert_eq!(begun(&mut queue), [limits::UNDECIDED as u32], "who came next");
    }
}
