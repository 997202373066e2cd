//! The gRPC service that node agents call once they have a certificate: session, renewal, log streams.
//!
//! It moves messages between the wire and the [`NodeRegistry`]; what a node shall be is decided elsewhere.

use std::sync::Arc;
use std::time::Duration;

use host_pki::join::JoinAuthority;
use host_pki::service::{authenticated_node, join_status};
use k8sctl_proto::node::v1::node_service_server::NodeService;
use k8sctl_proto::node::v1::{
    AgentMessage, Goodbye, Hello, HostMessage, HostTime, LogFrame, PushLogsResponse, RenewCertificateRequest,
    RenewCertificateResponse, agent_message, host_message,
};
use k8sctl_rpc::status::status;
use k8sctl_types::failure::Failure;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};

use super::registry::{NodeRegistry, SessionGuard};
use crate::wire;

/// The session protocol that this host agent speaks.
pub const PROTOCOL: u32 = 1;
/// How long a peer may take to introduce itself.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// How often an agent is told the host's time.
const HOST_TIME_INTERVAL: Duration = Duration::from_secs(30);
/// How often an agent is heard. One of this release waits as long between two reports; another's wait in its own
/// memory, since HTTP/2 takes no more than is read.
const MESSAGE_PAUSE: Duration = Duration::from_millis(100);
/// Messages on their way to one agent.
const OUTBOUND: usize = 8;

/// See [`NodeService`].
#[derive(Clone, Debug)]
pub struct NodeSessions {
    /// Nodes of all clusters.
    pub registry: Arc<NodeRegistry>,
    /// Certificates and who may still use one.
    pub authority: Arc<JoinAuthority>,
}

#[tonic::async_trait]
impl NodeService for NodeSessions {
    type SessionStream = ReceiverStream<Result<HostMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = authenticated_node(&self.authority, &request).await?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO_DEADLINE, inbound.message()).await;
        let hello = match first {
            Ok(Ok(Some(AgentMessage { message: Some(agent_message::Message::Hello(hello)) }))) => hello,
            _ => {
                return Err(refuse(
                    Code::InvalidArgument,
                    &identity.node_id,
                    "its agent did not say hello",
                    "an agent of this release dials again by itself; for another one, build a new image with `k8sctl image build` and run `k8sctl up` again",
                ));
            }
        };
        check_protocol(&identity.node_id, &hello)?;
        self.authority.session_started(&identity).await.map_err(|error| join_status(&error))?;
        let guard = self.registry.open_session(&identity.node_id, hello);
        let (outbound, receiver) = mpsc::channel(OUTBOUND);
        k8sctl_rpc::task::spawn("node-session", run_session(guard, inbound, outbound));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let identity = authenticated_node(&self.authority, &request).await?;
        let signed = self
            .authority
            .renew(&identity, &request.get_ref().csr_der)
            .await
            .map_err(|error| join_status(&error))?;
        Ok(Response::new(RenewCertificateResponse {
            certificate_der: signed.certificate_der,
            not_after: Some(wire::timestamp(signed.not_after)),
        }))
    }

    async fn push_logs(
        &self,
        request: Request<Streaming<LogFrame>>,
    ) -> Result<Response<PushLogsResponse>, Status> {
        let identity = authenticated_node(&self.authority, &request).await?;
        let mut frames = request.into_inner();
        let first = frames.message().await?.unwrap_or_default();
        let Some(reader) = self.registry.claim_logs(&identity.node_id, &first.stream_id) else {
            return Err(refuse(
                Code::NotFound,
                &identity.node_id,
                "nobody reads this log stream",
                "nothing is lost: the reader has left; read again with `k8sctl logs`",
            ));
        };
        // Sending waits for the reader, and not reading frames makes HTTP/2 hold the agent back.
        let forward = async {
            loop {
                let frame = match frames.message().await {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return Ok(()),
                    Err(status) => {
                        // The reader must not take this for the end of the log.
                        let error = format!("its agent went away: {}", status.message());
                        let _ = reader.send(LogFrame { error, ..LogFrame::default() }).await;
                        return Err(status);
                    }
                };
                if reader.send(frame).await.is_err() {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            // Both are cancel-safe to end here: the stream ends with either of them.
            result = forward => result?,
            () = reader.closed() => {}
        }
        Ok(Response::new(PushLogsResponse {}))
    }
}

async fn run_session(
    mut guard: SessionGuard,
    mut inbound: impl Stream<Item = Result<AgentMessage, Status>> + Unpin,
    outbound: mpsc::Sender<Result<HostMessage, Status>>,
) {
    guard.desired.mark_changed();
    let mut not_before = Instant::now();
    let mut clock = tokio::time::interval(HOST_TIME_INTERVAL);
    loop {
        let message = tokio::select! {
            // Cancel-safe: the pause begins where it was, and tonic keeps a half-read message in the stream.
            received = after(not_before, inbound.next()) => {
                not_before = Instant::now() + MESSAGE_PAUSE;
                match received {
                    Some(Ok(AgentMessage { message: Some(agent_message::Message::Status(report)) })) => {
                        if guard.report(report) { continue } else { return }
                    }
                    Some(Ok(_)) => continue,
                    None | Some(Err(_)) => return,
                }
            }
            // Cancel-safe: an unseen change stays unseen.
            changed = guard.desired.changed() => match changed {
                Ok(()) => match guard.desired.borrow_and_update().clone() {
                    Some(desired) => host_message::Message::Desired(desired),
                    None => continue,
                },
                Err(_) => host_message::Message::Goodbye(Goodbye { reason: "this node was removed".to_owned() }),
            },
            // Cancel-safe: a tick that was not returned comes again.
            _ = clock.tick() => {
                let now = Some(wire::timestamp(jiff::Timestamp::now()));
                host_message::Message::HostTime(HostTime { now })
            }
            // Cancel-safe: recv takes a message only when it returns it.
            Some(request) = guard.log_requests.recv() => host_message::Message::StartLogStream(request),
        };
        let last = matches!(message, host_message::Message::Goodbye(_));
        if outbound.send(Ok(HostMessage { message: Some(message) })).await.is_err() || last {
            return;
        }
    }
}

async fn after<F: Future>(time: Instant, future: F) -> F::Output {
    tokio::time::sleep_until(time).await;
    future.await
}

fn check_protocol(node_id: &str, hello: &Hello) -> Result<(), Status> {
    if hello.protocol == PROTOCOL {
        return Ok(());
    }
    Err(refuse(
        Code::FailedPrecondition,
        node_id,
        &format!("its agent speaks protocol {}, this host agent speaks {PROTOCOL}", hello.protocol),
        "build a new image with `k8sctl image build` and run `k8sctl up` again",
    ))
}

fn refuse(code: Code, node_id: &str, reason: &str, next_step: &str) -> Status {
    let failure = Failure::new("NODE-SESSION-REFUSED", format!("node {node_id}"), reason, next_step);
    tracing::warn!(node.id = %node_id, error = %failure, "refused a node agent");
    status(code, &failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::changes::changes;
    use k8sctl_proto::node::v1::StatusReport;

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_heard_ten_times_a_second_and_its_last_word_counts() {
        let (sender, _changes) = changes();
        let registry = NodeRegistry::new(sender);
        let guard = registry.open_session("a", Hello::default());
        let (outbound, mut sent) = mpsc::channel(OUTBOUND);
        let reports = (1..=3_000).map(|observed_generation| {
            let report = StatusReport { observed_generation, ..StatusReport::default() };
            Ok(AgentMessage { message: Some(agent_message::Message::Status(report)) })
        });
        let started = Instant::now();
        let read = async { while sent.recv().await.is_some() {} };
        tokio::join!(run_session(guard, tokio_stream::iter(reports), outbound), read);
        let took = started.elapsed();
        assert!(took >= MESSAGE_PAUSE * 3_000, "{took:?}");
        assert!(took < MESSAGE_PAUSE * 3_100, "{took:?}");
        assert_eq!(registry.view("a").report.observed_generation, 3_000);
    }
}
