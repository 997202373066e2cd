//! The gRPC side: [`JoinServer`] answers peers that have no certificate yet, [`authenticated_node`] tells who is
//! behind a request that needs one. Decides nothing: it carries between the wire and [`crate::join`].

use std::sync::Arc;

use jiff::Timestamp;
use k8sctl_proto::node::v1::join_service_server::JoinService;
use k8sctl_proto::node::v1::{JoinRequest, JoinResponse};
use k8sctl_rpc::status::status;
use k8sctl_rpc::tls::PeerInfo;
use k8sctl_types::failure::Failure;
use tonic::{Code, Request, Response, Status};

use crate::ca::NodeIdentity;
use crate::join::{IdentifyError, JoinAuthority, JoinError, Refusal};

/// What an agent does when its secret is of no use.
const ASK_AGAIN: &str = "the node agent asks for a new secret over virtio-serial by itself; if it never succeeds, \
                         see `k8sctl events` and restart the node";

/// The join service of every node port.
#[derive(Clone, Debug)]
pub struct JoinServer {
    authority: Arc<JoinAuthority>,
}

impl JoinServer {
    /// A service on this authority.
    pub fn new(authority: Arc<JoinAuthority>) -> Self {
        Self { authority }
    }
}

#[tonic::async_trait]
impl JoinService for JoinServer {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let Some(peer) = request.extensions().get::<PeerInfo>().cloned() else {
            return Err(no_certificate());
        };
        let request = request.into_inner();
        match self.authority.join(&request, &peer.exporter, peer.remote).await {
            Ok(signed) => Ok(Response::new(JoinResponse {
                certificate_der: signed.certificate_der,
                not_after: Some(timestamp(signed.not_after)),
            })),
            Err(error) => Err(join_status(&error)),
        }
    }
}

/// The node behind a request, checked anew for every call: its certificate is valid, of our CA, and neither replaced
/// nor revoked.
pub fn authenticated_node<'a, T>(
    authority: &'a JoinAuthority,
    request: &Request<T>,
) -> impl Future<Output = Result<NodeIdentity, Status>> + Send + use<'a, T> {
    // Taken out before the first await: a request with a stream in it cannot be shared between threads.
    let certificate = request.extensions().get::<PeerInfo>().and_then(|peer| peer.client_certificate.clone());
    async move {
        let certificate = certificate.ok_or_else(no_certificate)?;
        match authority.identify(&certificate).await {
            Ok(identity) => Ok(identity),
            Err(IdentifyError::Join(error)) => Err(join_status(&error)),
            Err(error @ IdentifyError::Certificate(_)) => Err(status(
                Code::Unauthenticated,
                &Failure::new(
                    "AUTH-CERTIFICATE",
                    "node certificate",
                    k8sctl_rpc::chain(&error).to_string(),
                    "the node agent asks for a new join secret by itself",
                ),
            )),
        }
    }
}

/// The status of a refused or failed join, renewal or session.
pub fn join_status(error: &JoinError) -> Status {
    let (code, id, object, next_step) = match error {
        JoinError::Refused { node_id, refusal } => {
            let (code, id, next_step) = refusal_words(*refusal);
            (code, id, format!("node {}", shown(node_id)), next_step)
        }
        JoinError::Csr { node_id, .. } => (
            Code::InvalidArgument,
            "JOIN-CSR",
            format!("node {}", shown(node_id)),
            "use the node agent of this release",
        ),
        JoinError::NotCurrent { node_id, .. } => {
            (Code::PermissionDenied, "AUTH-REVOKED", format!("node {}", shown(node_id)), ASK_AGAIN)
        }
        JoinError::NoCluster { cluster_id } => (
            Code::NotFound,
            "JOIN-NO-CLUSTER",
            format!("cluster {}", shown(cluster_id)),
            "the cluster was removed: its VMs can be deleted",
        ),
        JoinError::Pki(_) | JoinError::Store(_) => {
            // What exactly is wrong with our keys or disk is not the peer's business.
            tracing::error!(error = %k8sctl_rpc::chain(error), "the join authority failed");
            let failure = Failure::new(
                "JOIN-INTERNAL",
                "join authority",
                "the host agent could not issue or check a certificate",
                "see the host agent's log; the node agent tries again by itself",
            );
            return status(Code::Unavailable, &failure);
        }
    };
    status(code, &Failure::new(id, object, k8sctl_rpc::chain(error).to_string(), next_step))
}

fn refusal_words(refusal: Refusal) -> (Code, &'static str, &'static str) {
    match refusal {
        Refusal::Rate => (Code::ResourceExhausted, "JOIN-RATE", "wait: the node agent tries again by itself"),
        Refusal::Protocol => (
            Code::FailedPrecondition,
            "JOIN-PROTOCOL",
            "build a new image with `k8sctl image build` and run `k8sctl up` again",
        ),
        Refusal::Removed => {
            (Code::PermissionDenied, "JOIN-REMOVED", "nothing: the node was removed, its VM can be deleted")
        }
        Refusal::Proof => (Code::PermissionDenied, "JOIN-PROOF", ASK_AGAIN),
        Refusal::Expired => (Code::PermissionDenied, "JOIN-EXPIRED", ASK_AGAIN),
        Refusal::Machine => (
            Code::PermissionDenied,
            "JOIN-MACHINE",
            "only the VM that the host agent started can join: start it with `k8sctl up`",
        ),
        Refusal::Csr => (Code::InvalidArgument, "JOIN-CSR", "use the node agent of this release"),
        Refusal::OtherKey | Refusal::Used => (Code::PermissionDenied, "JOIN-USED", ASK_AGAIN),
    }
}

/// The status for a peer that showed no certificate where one is needed.
pub fn no_certificate() -> Status {
    status(
        Code::Unauthenticated,
        &Failure::new(
            "AUTH-NO-CERTIFICATE",
            "node port",
            "the caller showed no client certificate",
            "join first: only the join service answers without a certificate",
        ),
    )
}

/// A stranger's text, short and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: 0 }
}
