//! The control socket: credentials, modes, stale and busy sockets.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use k8sctl_proto::node::v1::join_service_client::JoinServiceClient;
use k8sctl_proto::node::v1::join_service_server::{JoinService, JoinServiceServer};
use k8sctl_proto::node::v1::{JoinRequest, JoinResponse};
use k8sctl_rpc::unix::{PeerCredentials, UnixError, connect_unix, listen};
use k8sctl_rpc::{limits, task};
use tokio::sync::oneshot;
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

fn serve(path: &Path) -> oneshot::Sender<()> {
    let incoming = listen(path, None).expect("listens");
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
async fn the_caller_is_known_and_the_socket_closed_to_others() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("run/api.sock");
    let _stop = serve(&path);
    assert_eq!((mode(&path), mode(&dir.path().join("run"))), (0o660, 0o755));
    let channel = connect_unix(&path).await.expect("connects");
    let answer = JoinServiceClient::new(channel).join(JoinRequest::default()).await.expect("answers");
    assert_eq!(answer.into_inner().certificate_der, std::process::id().to_string().into_bytes());
}

#[tokio::test]
async fn a_busy_socket_is_kept_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    let incoming = listen(&path, None).expect("listens");
    assert!(matches!(listen(&path, None), Err(UnixError::InUse { .. })));
    drop(incoming);
    assert!(path.exists(), "a dead program leaves its socket");
    let _again = listen(&path, None).expect("replaces it");
}

#[tokio::test]
async fn what_is_no_socket_is_never_replaced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    std::fs::write(&path, "precious").expect("writes");
    assert!(matches!(listen(&path, None), Err(UnixError::NoSocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).expect("reads"), "precious");
}

#[tokio::test]
async fn a_missing_host_agent_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = connect_unix(&dir.path().join("none.sock")).await.expect_err("nobody listens");
    assert!(matches!(error, UnixError::Connect { .. }), "{error:?}");
}
