//! The gRPC service that node agents call once they have a certificate: session, renewal, log streams.
//!
//! It moves messages between the wire and the [`NodeRegistry`]; what a node shall be is decided elsewhere.

use std::sync::Arc;
use std::time::Duration;

use host_pki::join::JoinAuthority;
use host_pki::service::{authenticated_node, join_status};
use k8sctl_proto::node::v1::node_service_server::NodeService;
use k8sctl_proto::node::v1::{
    AgentMessage, AgentProgram, FetchAgentRequest, FetchAgentResponse, Goodbye, Hello, HostMessage, HostTime,
    LogFrame, PushLogsResponse, RenewCertificateRequest, RenewCertificateResponse, agent_message,
    host_message,
};
use k8sctl_rpc::limits::{FETCHES_PER_NODE, FIRST_MESSAGE_TIMEOUT};
use k8sctl_rpc::places::Places;
use k8sctl_types::protocol::{self, Fit, Protocol};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::adapters::Map;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};

use super::agent_file::{self, AgentFile};
use super::log_push::push;
use super::old_agent;
use super::refusals::{OTHER_RELEASE, Refusals, UPGRADE};
use super::registry::{NodeRegistry, PlaceLost, SessionGuard};
use super::wanted::Wanted;
use crate::wire;

/// How often an agent is told the host's time: a clock that is ahead takes two messages, and is right within a minute.
const HOST_TIME_INTERVAL: Duration = Duration::from_secs(25);
/// The first few times, so that one message that was held up on its way does not tell it wrong for long.
const FIRST_HOST_TIME_INTERVAL: Duration = Duration::from_secs(5);
const FIRST_HOST_TIMES: u32 = 4;
/// How often an agent is heard. One of this release waits as long between two reports; another's wait in its own
/// memory, since HTTP/2 takes no more than is read.
pub(super) const MESSAGE_PAUSE: Duration = Duration::from_millis(100);
/// How long a removed node's agent may take to read the messages before the last one.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(10);
/// Messages on their way to one agent.
const OUTBOUND: usize = 8;

/// See [`NodeService`].
#[derive(Clone, Debug)]
pub struct NodeSessions {
    /// Nodes of all clusters.
    pub registry: Arc<NodeRegistry>,
    /// Certificates and who may still use one.
    pub authority: Arc<JoinAuthority>,
    agent_file: AgentFile,
    refusals: Refusals,
    /// Programs on their way, by node: of each some chunks are kept.
    fetches: Places<String>,
}

impl NodeSessions {
    /// Sessions of the nodes in `registry`, for those whom `authority` knows. `agent_file` is what their agents can be made.
    pub fn new(registry: Arc<NodeRegistry>, authority: Arc<JoinAuthority>, agent_file: AgentFile) -> Self {
        let fetches = Places::new(FETCHES_PER_NODE);
        Self { registry, authority, agent_file, refusals: Refusals::default(), fetches }
    }

    /// What is to become of an agent by the protocol that it speaks.
    fn admit(&self, node_id: &str, hello: &Hello) -> Admission {
        let theirs = Protocol { major: hello.protocol, minor: hello.protocol_minor };
        let fit = protocol::NODE.judge(theirs);
        let next_step = match fit {
            Fit::Speaks => return Admission::Whole,
            Fit::TooOld { can_be_replaced: true } => {
                if let Some(program) = self.registry.wanted_agent(node_id) {
                    return Admission::ToBeReplaced(program);
                }
                UPGRADE
            }
            Fit::TooOld { can_be_replaced: false } | Fit::TooNew => OTHER_RELEASE,
        };
        let reason = format!("its agent speaks protocol {theirs}, this host agent speaks {}", protocol::NODE);
        self.registry.refused(
            node_id,
            &format!("{reason}; {next_step}"),
            fit == Fit::TooOld { can_be_replaced: true },
        );
        Admission::Refused(self.refusals.refuse(Code::FailedPrecondition, node_id, &reason, next_step))
    }
}

/// The way to an agent. In boxes, for a channel has room for 32 of what goes through it, however few it lets in, and each
/// agent has one.
pub(super) type Outbound = mpsc::Sender<Box<HostMessage>>;
type Sent = Map<ReceiverStream<Box<HostMessage>>, fn(Box<HostMessage>) -> Result<HostMessage, Status>>;

fn sent(receiver: mpsc::Receiver<Box<HostMessage>>) -> Sent {
    ReceiverStream::new(receiver).map(|message| Ok(*message))
}

/// What becomes of an agent that has said hello.
enum Admission {
    /// It gets a session.
    Whole,
    /// It is too old for one, and is told only to become this.
    ToBeReplaced(AgentProgram),
    /// It gets none.
    Refused(Status),
}

#[tonic::async_trait]
impl NodeService for NodeSessions {
    type SessionStream = Sent;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = authenticated_node(&self.authority, &request).await?;
        let mut inbound = request.into_inner();
        let hello = match first_message(&mut inbound).await {
            Some(AgentMessage { message: Some(agent_message::Message::Hello(hello)) }) => hello,
            _ => {
                return Err(self.refusals.refuse(
                    Code::InvalidArgument,
                    &identity.node_id,
                    "its agent did not say hello",
                    &format!(
                        "an agent of this release dials again by itself; for another one, {OTHER_RELEASE}"
                    ),
                ));
            }
        };
        match self.admit(&identity.node_id, &hello) {
            Admission::Whole => {}
            Admission::ToBeReplaced(program) => {
                self.authority.session_started(&identity).await.map_err(|error| join_status(&error))?;
                let (outbound, receiver) = mpsc::channel(OUTBOUND);
                let registry = Arc::clone(&self.registry);
                let session = old_agent::replace(registry, identity.node_id, program, inbound, outbound);
                k8sctl_rpc::task::spawn("old-agent", session);
                return Ok(Response::new(sent(receiver)));
            }
            Admission::Refused(status) => return Err(status),
        }
        let guard = self.registry.open_session(&identity.node_id, hello);
        // Asked when it is open: who removes the node revokes its certificate first and ends what is open after that.
        self.authority.session_started(&identity).await.map_err(|error| join_status(&error))?;
        let (outbound, receiver) = mpsc::channel(OUTBOUND);
        k8sctl_rpc::task::spawn("node-session", run_session(guard, inbound, outbound));
        Ok(Response::new(sent(receiver)))
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

    type FetchAgentStream = ReceiverStream<Result<FetchAgentResponse, Status>>;

    async fn fetch_agent(
        &self,
        request: Request<FetchAgentRequest>,
    ) -> Result<Response<Self::FetchAgentStream>, Status> {
        let identity = authenticated_node(&self.authority, &request).await?;
        let asked = &request.get_ref().sha256;
        let wanted = self.registry.wanted_agent(&identity.node_id);
        if wanted.is_none_or(|wanted| wanted.sha256 != *asked) {
            return Err(self.refusals.refuse(
                Code::NotFound,
                &identity.node_id,
                "its agent asks for a program that it is not to become",
                UPGRADE,
            ));
        }
        // Before the file is read, which takes a processor.
        let Some(place) = self.fetches.take(identity.node_id.clone()) else {
            return Err(self.refusals.refuse(
                Code::ResourceExhausted,
                &identity.node_id,
                "its agent is being sent the program that it asks for already",
                "wait: the node agent asks again by itself",
            ));
        };
        let (file, place) = self.agent_file.open(asked, place).await?;
        let (chunks, receiver) = mpsc::channel(OUTBOUND);
        k8sctl_rpc::task::spawn("send-agent", async move {
            let sent = agent_file::send(file, chunks).await;
            drop(place);
            sent
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn push_logs(
        &self,
        request: Request<Streaming<LogFrame>>,
    ) -> Result<Response<PushLogsResponse>, Status> {
        let identity = authenticated_node(&self.authority, &request).await?;
        push(&self.registry, &self.refusals, &identity.node_id, request.into_inner()).await?;
        Ok(Response::new(PushLogsResponse {}))
    }
}

/// Talks until the session is over: by its own end, or since its place was taken.
async fn run_session(
    mut guard: SessionGuard,
    inbound: impl Stream<Item = Result<AgentMessage, Status>> + Unpin,
    outbound: Outbound,
) {
    let lost = guard.place_lost();
    let is_removed = tokio::select! {
        // Cancel-safe: what is half read or half sent belongs to a session that is over, and is let go.
        lost = lost => lost == PlaceLost::Removed,
        // A report that comes together with the removal ends it as well.
        () = talk(&mut guard, inbound, &outbound) => guard.is_removed(),
    };
    // To an agent that was only replaced this would mean to forget who it is.
    if is_removed {
        let goodbye = host_message::Message::Goodbye(Goodbye { reason: "this node was removed".to_owned() });
        let send = outbound.send(Box::new(HostMessage { message: Some(goodbye) }));
        // One that does not read is not waited for: its certificate is refused from now on.
        let _ = tokio::time::timeout(GOODBYE_DEADLINE, send).await;
    }
}

async fn talk(
    guard: &mut SessionGuard,
    mut inbound: impl Stream<Item = Result<AgentMessage, Status>> + Unpin,
    outbound: &Outbound,
) {
    guard.desired.mark_changed();
    let mut not_before = Instant::now();
    let mut clock = ticks(Instant::now(), FIRST_HOST_TIME_INTERVAL);
    let mut host_times = 0;
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
            // Cancel-safe: an unseen change stays unseen. An error means that the node was removed, of which the
            // caller hears too.
            Ok(()) = guard.desired.changed() => match guard.desired.borrow_and_update().as_ref().map(Wanted::to_message) {
                Some(desired) => host_message::Message::Desired(desired),
                None => continue,
            },
            // Cancel-safe: a tick that was not returned comes again.
            _ = clock.tick() => {
                host_times += 1;
                if host_times == FIRST_HOST_TIMES {
                    clock = ticks(Instant::now() + HOST_TIME_INTERVAL, HOST_TIME_INTERVAL);
                }
                let now = Some(wire::timestamp(jiff::Timestamp::now()));
                host_message::Message::HostTime(HostTime { now })
            }
            // Cancel-safe: recv takes a message only when it returns it.
            Some(request) = guard.log_requests.recv() => host_message::Message::StartLogStream(*request),
        };
        let is_large = matches!(message, host_message::Message::Desired(_));
        if outbound.send(Box::new(HostMessage { message: Some(message) })).await.is_err() {
            return;
        }
        // The room in which a message is made is kept for the next one, and is given up only where that comes while the
        // first is still on its way. Without this one each session would keep what a thousand nodes' names and routes take.
        if is_large && outbound.send(Box::default()).await.is_err() {
            return;
        }
    }
}

/// When an agent is told the time. It believes two messages in a row that agree within 2 s, and must not take two for
/// that which have waited for the same thing: they are further apart, also behind a tick that came late.
fn ticks(first: Instant, period: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(first, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The first message of a peer, if it comes in time.
pub(super) async fn first_message<M>(
    inbound: &mut (impl Stream<Item = Result<M, Status>> + Unpin),
) -> Option<M> {
    tokio::time::timeout(FIRST_MESSAGE_TIMEOUT, inbound.next()).await.ok()??.ok()
}

async fn after<F: Future>(time: Instant, future: F) -> F::Output {
    tokio::time::sleep_until(time).await;
    future.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::changes::changes;
    use k8sctl_proto::node::v1::{DesiredState, StatusReport};

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

    /// Whoever holds an old session open says nothing and reads nothing.
    #[tokio::test(start_paused = true)]
    async fn a_session_that_lost_its_place_ends_at_once() {
        type End = fn(&Arc<NodeRegistry>);
        let ends: [(&str, End, bool); 4] = [
            ("replaced", |registry| drop(registry.open_session("a", Hello::default())), false),
            ("started anew", |registry| registry.reset("a"), false),
            ("rebooted", |registry| registry.rebooted("a", std::time::Instant::now()), false),
            ("removed", |registry| registry.remove("a"), true),
        ];
        for (how, end, is_goodbye_said) in ends {
            let (sender, _changes) = changes();
            let registry = NodeRegistry::new(sender);
            registry.set_desired("a", Wanted::new(DesiredState::default(), Arc::default()));
            let guard = registry.open_session("a", Hello::default());
            // Room for what is sent at first, and none that it sends unasked later.
            let (outbound, mut sent) = mpsc::channel(3);
            let session =
                k8sctl_rpc::task::spawn("session", run_session(guard, tokio_stream::pending(), outbound));
            let started = Instant::now();
            for _ in 0..3 {
                sent.recv().await.expect("the desired state, nothing, and the time");
            }
            end(&registry);
            let mut goodbyes = 0;
            while let Some(message) = sent.recv().await {
                assert!(started.elapsed() < HOST_TIME_INTERVAL, "{how}: it goes on");
                goodbyes += u32::from(matches!(message.message, Some(host_message::Message::Goodbye(_))));
            }
            assert_eq!(goodbyes, u32::from(is_goodbye_said), "{how}");
            tokio::task::yield_now().await;
            assert!(session.is_finished(), "{how}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_node_is_told_also_while_it_reports() {
        // Which of the two is seen first is left to chance.
        for _ in 0..32 {
            let (sender, _changes) = changes();
            let registry = NodeRegistry::new(sender);
            let guard = registry.open_session("a", Hello::default());
            registry.remove("a");
            let status = agent_message::Message::Status(StatusReport::default());
            let report = Ok(AgentMessage { message: Some(status) });
            let (outbound, mut sent) = mpsc::channel(OUTBOUND);
            run_session(guard, tokio_stream::iter([report]), outbound).await;
            let mut last = None;
            while let Some(message) = sent.recv().await {
                last = message.message;
            }
            assert!(matches!(last, Some(host_message::Message::Goodbye(_))), "{last:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_whose_agent_does_not_read_ends_as_well() {
        let (sender, _changes) = changes();
        let registry = NodeRegistry::new(sender);
        let guard = registry.open_session("a", Hello::default());
        let (outbound, _unread) = mpsc::channel(1);
        let started = Instant::now();
        let session = run_session(guard, tokio_stream::pending(), outbound);
        let replace = async {
            // The way to the agent is full by then.
            tokio::time::sleep(HOST_TIME_INTERVAL * 3).await;
            registry.open_session("a", Hello::default())
        };
        let both = async { tokio::join!(session, replace) };
        tokio::time::timeout(HOST_TIME_INTERVAL * 10, both).await.expect("it ends");
        assert!(started.elapsed() < HOST_TIME_INTERVAL * 4);
    }
}
