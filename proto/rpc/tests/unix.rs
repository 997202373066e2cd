//! The control socket: credentials, modes, strangers, stale and busy sockets.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use k8sctl_proto::node::v1::join_service_client::JoinServiceClient;
use k8sctl_proto::node::v1::join_service_server::{JoinService, JoinServiceServer};
use k8sctl_proto::node::v1::{JoinRequest, JoinResponse};
use k8sctl_rpc::unix::{Held, PeerCredentials, UnixError, connect_unix, listen};
use k8sctl_rpc::{limits, task};
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};

struct WhoAmI;

#[tonic::async_trait]
impl JoinService for WhoAmI {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let peer = request.extensions().get::<PeerCredentials>().expect("the listener gives it");
        let text = format!("{}", peer.pid.unwrap_or_default());
        Ok(Response::new(JoinResponse { certificate_der: text.into_bytes(), not_after: None }))
    }
}

fn serve(path: &Path, is_known: bool) -> oneshot::Sender<()> {
    let incoming = listen(path, |_| false, move |_| is_known).expect("listens");
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = limits::server()
        .add_service(JoinServiceServer::new(WhoAmI))
        .serve_with_incoming_shutdown(incoming, async { drop(stopped.await) });
    task::spawn("server", serve);
    stop
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("exists").permissions().mode() & 0o777
}

#[tokio::test]
async fn the_caller_is_told_by_the_kernel_and_everybody_may_connect() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("run/api.sock");
    let _stop = serve(&path, true);
    assert_eq!((mode(&path), mode(&dir.path().join("run"))), (0o666, 0o755));
    let channel = connect_unix(&path).await.expect("connects");
    let answer = JoinServiceClient::new(channel).join(JoinRequest::default()).await.expect("answers");
    assert_eq!(answer.into_inner().certificate_der, std::process::id().to_string().into_bytes());
}

/// Whether a fresh connection is served or closed.
async fn is_served(path: &Path) -> Option<tokio::net::UnixStream> {
    let mut stream = tokio::net::UnixStream::connect(path).await.expect("connects");
    // An HTTP/2 server greets first.
    let mut greeting = [0; 9];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut greeting).await.ok().map(|_| stream)
}

#[tokio::test]
async fn strangers_have_few_places() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    let _stop = serve(&path, false);
    let mut places = Vec::new();
    for _ in 0..limits::STRANGERS {
        places.push(is_served(&path).await.expect("a place"));
    }
    assert!(is_served(&path).await.is_none(), "one more than there are places");
    drop(places);
    // The server sees the ends of those connections in its own time.
    let again = async { while is_served(&path).await.is_none() {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), again).await.expect("places are given back");
}

#[tokio::test]
async fn whoever_is_known_has_places_of_its_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    let _stop = serve(&path, true);
    let mut connections = Vec::new();
    for _ in 0..limits::CONNECTIONS_PER_PROCESS {
        connections.push(is_served(&path).await.expect("served"));
    }
    assert!(is_served(&path).await.is_none(), "one more than a process has");
    connections.clear();
    // The server sees the ends of those connections in its own time.
    let again = async { while is_served(&path).await.is_none() {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), again).await.expect("places are given back");
}

#[tokio::test]
async fn a_strangers_time_ends() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    let _stop = serve(&path, false);
    let mut silent = is_served(&path).await.expect("a place");
    let mut rest = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut rest);
    let limit = limits::STRANGER_LIFETIME * 2;
    tokio::time::timeout(limit, ended).await.expect("closed in time").expect("its end is read");
}

/// That others are not held up by a user whom it takes long for is seen beside the listener: here there is one user.
#[tokio::test]
async fn all_connections_of_a_user_wait_for_one_answer() {
    static ACCEPTED: AtomicUsize = AtomicUsize::new(0);
    static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    let (answer, answered) = mpsc::channel::<()>();
    let answered = Mutex::new(answered);
    let needs_none: fn(&PeerCredentials) -> bool = |_| {
        ACCEPTED.fetch_add(1, Ordering::SeqCst);
        false
    };
    let mut incoming = listen(&path, needs_none, move |_| {
        LOOKED_UP.fetch_add(1, Ordering::SeqCst);
        // Until the test says so, or has ended.
        answered.lock().is_ok_and(|answered| answered.recv().is_ok())
    })
    .expect("listens");
    let connect = async || tokio::net::UnixStream::connect(&path).await.expect("connects");
    let _clients = (connect().await, connect().await);
    let wait = async {
        let both_wait = async {
            while ACCEPTED.load(Ordering::SeqCst) < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            connection = incoming.next() => panic!("nothing is known of its user: {connection:?}"),
            () = both_wait => {}
        }
        answer.send(()).expect("it is looked up");
        for _ in 0..2 {
            let connection = incoming.next().await.expect("the stream does not end").expect("a connection");
            assert!(matches!(connection.held(), Held::User(_)));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("in time");
    assert_eq!(LOOKED_UP.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_cannot_be_looked_up_is_closed_and_may_come_again() {
    static HAS_FAILED: AtomicBool = AtomicBool::new(false);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    let mut incoming = listen(
        &path,
        |_| false,
        |_| {
            assert!(HAS_FAILED.swap(true, Ordering::SeqCst), "the first look-up is to fail");
            true
        },
    )
    .expect("listens");
    let wait = async {
        let mut first = tokio::net::UnixStream::connect(&path).await.expect("connects");
        let mut rest = Vec::new();
        tokio::select! {
            connection = incoming.next() => panic!("it is let in: {connection:?}"),
            read = tokio::io::AsyncReadExt::read_to_end(&mut first, &mut rest) => {
                read.expect("its end is read");
            }
        }
        let _second = tokio::net::UnixStream::connect(&path).await.expect("connects");
        let connection = incoming.next().await.expect("the stream does not end").expect("a connection");
        assert!(matches!(connection.held(), Held::User(_)));
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("in time");
}

#[tokio::test]
async fn who_needs_no_look_up_waits_for_nobodys() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    // More than are looked up at a time, which takes until the test has ended.
    let others = limits::UNDECIDED + 2;
    let (end, ended) = mpsc::channel::<()>();
    let ended = Mutex::new(ended);
    let needs_none: fn(&PeerCredentials) -> bool =
        |_| ASKED.fetch_add(1, Ordering::SeqCst) == limits::UNDECIDED + 2;
    let mut incoming =
        listen(&path, needs_none, move |_| ended.lock().is_ok_and(|ended| ended.recv().is_ok()))
            .expect("listens");
    let mut clients = Vec::new();
    for _ in 0..=others {
        clients.push(tokio::net::UnixStream::connect(&path).await.expect("connects"));
    }
    let next = tokio::time::timeout(Duration::from_secs(60), incoming.next()).await.expect("in time");
    let connection = next.expect("the stream does not end").expect("a connection");
    assert!(matches!(connection.held(), Held::User(_)));
    assert_eq!(ASKED.load(Ordering::SeqCst), others + 1);
    drop(end);
}

#[tokio::test]
async fn a_busy_socket_is_kept_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    let incoming = listen(&path, |_| false, |_| true).expect("listens");
    assert!(matches!(listen(&path, |_| false, |_| true), Err(UnixError::InUse { .. })));
    drop(incoming);
    assert!(path.exists(), "a dead program leaves its socket");
    let _again = listen(&path, |_| false, |_| true).expect("replaces it");
}

#[tokio::test]
async fn what_is_no_socket_is_never_replaced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    std::fs::write(&path, "precious").expect("writes");
    assert!(matches!(listen(&path, |_| false, |_| true), Err(UnixError::NoSocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).expect("reads"), "precious");
}

#[tokio::test]
async fn a_missing_host_agent_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = connect_unix(&dir.path().join("none.sock")).await.expect_err("nobody listens");
    assert!(matches!(error, UnixError::Connect { .. }), "{error:?}");
}
