//! Every limit of every gRPC server and client, in one place. Servers begin with [`server`]; generated services
//! take [`CONTROL_DECODE_BYTES`], [`NODE_DECODE_BYTES`] or [`JOIN_DECODE_BYTES`] by `max_decoding_message_size`. How many
//! parts a message may have stands with the messages, in `k8sctl_proto::parts`.

use std::time::Duration;

use tonic::transport::{Endpoint, Server};

/// Streams that a peer may have open on one connection. The libraries' default is no limit.
pub const CONCURRENT_STREAMS: u32 = 64;
/// Requests of one connection that wait for their response to begin; more are refused at once.
pub const CONCURRENT_REQUESTS: usize = 32;
/// Calls of one node, over all of its connections, that wait for their response to begin; without certificate, of one
/// address. Of each an unfinished message is kept.
pub const CALLS_PER_NODE: usize = 32;
/// How long a call to join or to renew a certificate may take, its message included.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the message of a call on the control socket may take to come.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same as [`CALLS_PER_NODE`] of one user of the control socket, over all of its connections.
pub const CALLS_PER_USER: usize = 48;
/// And of one process.
pub const CALLS_PER_PROCESS: usize = 32;
/// Calls of one user of the control socket whose response was not read to its end; those that wait for its begin included.
/// A connection may be read by nobody, and what follows a cluster costs something at each change of it.
pub const ANSWERS_PER_USER: usize = 256;
/// And of one process.
pub const ANSWERS_PER_PROCESS: usize = 128;
// All readers of logs may be one process's, which calls as well.
const _: () = assert!(LOG_READERS + CALLS_PER_PROCESS <= ANSWERS_PER_PROCESS);
// A process that takes all it can leaves some to the user's others.
const _: () = assert!(CALLS_PER_PROCESS < CALLS_PER_USER && ANSWERS_PER_PROCESS < ANSWERS_PER_USER);
/// Calls of one node but for logs, over all of its connections, whose response was not read to its end; those that wait for
/// its begin included.
pub const ANSWERS_PER_NODE: usize = CALLS_PER_NODE;

/// How many calls of one kind are worked on at a time. Further ones wait for their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtOnce {
    /// Of one user.
    pub of_user: usize,
    /// Of all users together.
    pub of_all: usize,
}

/// Plans, of which each asks libvirt for all that it has. Whoever asks for as many as he can has one processor at most.
pub const PLANS: AtOnce = AtOnce { of_user: 1, of_all: 2 };
/// Checks of the host, of which each starts programs as well.
pub const CHECKS: AtOnce = AtOnce { of_user: 1, of_all: 2 };
/// What is read of the records, of images and bundles, and what is made of a request for logs.
pub const READS: AtOnce = AtOnce { of_user: 2, of_all: 4 };
/// Users whose groups are looked up, which the host's user database may take long for.
pub const LOOK_UPS: AtOnce = AtOnce { of_user: 1, of_all: 4 };
/// How long a call waits for its turn; one that waits longer is refused.
pub const TURN_PATIENCE: Duration = Duration::from_secs(30);
/// Largest message of a user: the largest cluster file, and what stands around it.
pub const CONTROL_DECODE_BYTES: usize = 1024 * 1024 + 64 * 1024;
/// Largest message of a node agent: a frame of a log is sent with [`LOG_FRAME_BYTES`] of text, to which come a last line,
/// some twenty bytes for each line and a cursor.
pub const NODE_DECODE_BYTES: usize = 512 * 1024;
/// Largest message that the join service, open to strangers, decodes.
pub const JOIN_DECODE_BYTES: usize = 64 * 1024;
/// Largest header list, failures in trailers included.
pub const HEADER_LIST_BYTES: u32 = 16 * 1024;
/// Largest HTTP/2 frame: with its header of nine bytes it fills four records of TLS, and costs one call of the system.
pub const FRAME_BYTES: u32 = 64 * 1024 - 9;
/// HTTP/2 window of a stream: what a peer may send ahead of its reader. Two frames of a log: one is read while the next
/// is on its way.
pub const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// HTTP/2 window of a connection, which all its streams share.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// The same of a stream of answers, for a client of the control socket: it keeps what it has not printed yet.
pub const ANSWER_WINDOW_BYTES: u32 = 512 * 1024;
/// And of all its answers together.
pub const ANSWERS_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Log streams that a node agent has open on the connection of its session. Their readers may stop reading.
pub const LOG_STREAMS: usize = 24;
// Whatever lies unread of logs, all other calls have their whole windows: status, desired state and renewals.
const _: () = assert!(CONCURRENT_REQUESTS as u32 * STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
// A log stream waits for its response until its end: some calls must be left for the session and renewals.
const _: () = assert!(LOG_STREAMS + 8 <= CONCURRENT_REQUESTS && LOG_STREAMS + 8 <= CALLS_PER_NODE);
/// Times that a node may be sent its agent's program at once: once, and once more where it lost that connection.
pub const FETCHES_PER_NODE: usize = 2;
/// Readers of logs of one host agent, each of any number of nodes.
pub const LOG_READERS: usize = 64;
/// Longest cursor of a log, in bytes: some hundred for the journal and for each container.
pub const LOG_CURSOR_BYTES: usize = 64 * 1024;
/// Units and pods that one request for logs names.
pub const LOG_NAMES: usize = 64;
/// Longest name of what a line of a log is from: that of a unit, or of a container with its pod.
pub const LOG_SOURCE_BYTES: usize = 1024;
/// Text and names in a frame of a log, in bytes, at which it is sent. With what stands around a line of some kibibytes
/// it fits into one frame of HTTP/2.
pub const LOG_FRAME_BYTES: usize = 60 * 1024;
/// Lines of a frame of a log. An empty line takes two bytes on the wire and some seventy in memory.
pub const LOG_FRAME_LINES: usize = 4096;
/// Streams reset by the peer before they were accepted, before the connection is closed.
pub const PENDING_ACCEPT_RESETS: usize = 20;
/// Streams reset for the peer's errors before the connection is closed.
pub const LOCAL_ERROR_RESETS: usize = 100;
/// What is read of one connection before others have their turn: whoever sends without end must not hold a thread.
pub const TURN_BYTES: usize = 64 * 1024;
/// How often a quiet peer is pinged.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long it has for the answer.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a TCP connection and its TLS handshake may take to be made, by the dialler.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first message of a stream of messages may take. Until then nothing else ends it.
pub const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take, by the listener.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between the beginnings of two TLS handshakes, of all listeners of a program together: 41 a second. Each takes the host
/// about a millisecond of a processor, and after its restart all agents come at once.
pub const HANDSHAKES_APART: Duration = Duration::from_millis(24);
/// How long a connection may wait for its handshake to begin; one that would wait longer is closed.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(8);
// Whoever waits is still there when its turn comes.
const _: () = assert!(HANDSHAKE_PATIENCE.as_millis() + 1_000 < CONNECT_TIMEOUT.as_millis());
/// Pause after the system refused to accept, for example without free file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections without client certificate, handshakes included, from one address; further ones are closed.
pub const UNAUTHENTICATED_PER_ADDRESS: usize = 8;
/// Such connections from addresses of no node of the cluster, all of these addresses together; further ones are closed.
pub const STRANGE_ADDRESSES: usize = 32;
/// Connections of one node, which has shown its certificate: one, and those that it lost and that are not yet known to
/// be lost. What it sends and does not finish is kept for each.
pub const CONNECTIONS_PER_NODE: usize = 8;
/// How long a connection without client certificate may live: long enough to join, too short to squat.
pub const UNAUTHENTICATED_LIFETIME: Duration = Duration::from_secs(60);
/// Connections to the control socket of users without any role, all of them together; further ones are closed.
pub const STRANGERS: usize = 32;
/// How long such a connection may live: long enough to be told no.
pub const STRANGER_LIFETIME: Duration = Duration::from_secs(10);
/// Users of whom it is being looked up whether they have a role, because they have connected to a unix socket; further
/// ones wait.
pub const UNDECIDED: usize = 4;
/// Connections that wait for it; further ones are closed, but for users that need no look-up.
pub const WAITING: usize = 256;
/// Those of one user.
pub const WAITING_PER_USER: usize = 32;
// A user who opens as many as he can leaves most of the places to others.
const _: () = assert!(4 * WAITING_PER_USER <= WAITING);
/// Connections of one user with a role to a unix socket; further ones are closed.
pub const CONNECTIONS_PER_USER: usize = 256;
/// And of one process.
pub const CONNECTIONS_PER_PROCESS: usize = 128;
// All readers of logs may be one process's, which looks at the status as well.
const _: () = assert!(LOG_READERS + 32 <= CONNECTIONS_PER_PROCESS);
const _: () = assert!(CONNECTIONS_PER_PROCESS < CONNECTIONS_PER_USER);
/// Bytes by which a connection to a unix socket begins to speak: HTTP/2's preface, RFC 9113, section 3.4.
pub const PREFACE_BYTES: usize = 24;
/// How long such a connection may take for these.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take nothing of what is written to it: as long as one that answers no ping.
pub const WRITE_PATIENCE: Duration =
    Duration::from_secs(KEEPALIVE_INTERVAL.as_secs() + KEEPALIVE_TIMEOUT.as_secs());
/// Connections of one listener that have shown no certificate, or none yet; further ones are closed.
pub const CONNECTIONS: usize = 1024;
/// Those that have shown one.
pub const NODE_CONNECTIONS: usize = 4096;

/// A server with all limits that belong to connections.
pub fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(CONCURRENT_STREAMS)
        .concurrency_limit_per_connection(CONCURRENT_REQUESTS)
        .load_shed(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_ACCEPT_RESETS))
        .http2_max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// A client's side of the same limits.
pub(crate) fn endpoint(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// The same for a client of the control socket, whose answers may be long.
pub(crate) fn control_endpoint(bare: Endpoint) -> Endpoint {
    endpoint(bare)
        .initial_stream_window_size(ANSWER_WINDOW_BYTES)
        .initial_connection_window_size(ANSWERS_WINDOW_BYTES)
}
