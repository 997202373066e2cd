//! The agent against a fake host agent: a Unix socket that hands out secrets, and join and node services over
//! plain HTTP/2 on loopback, with a fixed exporter in the place of TLS.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use k8sctl_proto::node::v1::join_service_server::{JoinService, JoinServiceServer};
use k8sctl_proto::node::v1::node_service_server::{NodeService, NodeServiceServer};
use k8sctl_proto::node::v1::{
    AgentMessage, ConditionStatus, DesiredState, FetchAgentRequest, FetchAgentResponse, Goodbye, HostMessage,
    JoinRequest, JoinResponse, LogFrame, LogLine, LogSelector, PushLogsResponse, RenewCertificateRequest,
    RenewCertificateResponse, StartLogStream, StepState, Target, agent_message, host_message,
};
use k8sctl_rpc::limits;
use node_agent::bootstrap::identity::{Identity, Store};
use node_agent::bootstrap::port::RealSecretPort;
use node_agent::bootstrap::wire::Offer;
use node_agent::bootstrap::{Bootstrap, Connection, DialError, Dialer, JoinError, proof};
use node_agent::clock;
use node_agent::config::{Config, Simulation, Steps};
use node_agent::converge::Converge;
use node_agent::converge::simulated::{self, NoJournal};
use node_agent::logs::simulated::SimulatedLogs;
use node_agent::logs::{Frames, LogError, LogSources};
use node_agent::machine::Machine;
use node_agent::repair::Repairs;
use node_agent::replace::Replacements;
use node_agent::session::Session;
use node_agent::status::Board;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const EXPORTER: [u8; 32] = [7; 32];
const WAIT: Duration = Duration::from_secs(60);

/// Dials without TLS.
struct FakeDialer;

async fn dial(address: &str) -> Result<Connection, DialError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect().await;
    let channel =
        channel.map_err(|source| DialError { address: address.into(), source: Box::new(source) })?;
    Ok(Connection { channel, exporter: EXPORTER.to_vec() })
}

#[async_trait]
impl Dialer for FakeDialer {
    async fn dial_to_join(&self, offer: &Offer) -> Result<Connection, DialError> {
        dial(&offer.host_address).await
    }

    async fn dial(&self, identity: &Identity) -> Result<Connection, DialError> {
        dial(&identity.host_address).await
    }
}

/// What the fake host knows and was told.
#[derive(Default)]
struct Host {
    secrets: Mutex<Vec<[u8; 32]>>,
    /// Requests of all joins.
    csrs: Mutex<Vec<Vec<u8>>>,
    /// Joins that still end with `Unavailable`, as if the answer were lost.
    lost_answers: AtomicU32,
    /// Sessions that still are refused.
    refused_sessions: AtomicU32,
    /// Those that still are refused once a certificate was renewed.
    refused_renewed: AtomicU32,
    /// Counts sessions.
    newest: watch::Sender<u64>,
    /// Sessions that ended with no newer one in their place: the node went away.
    lost: AtomicU32,
    renewals: AtomicU32,
    /// Renewals that still are refused, as those with an expired certificate are.
    refused_renewals: AtomicU32,
    /// Life of certificates in seconds.
    life: AtomicU32,
    /// Sent to every session.
    desired: Mutex<Vec<HostMessage>>,
    heard: Mutex<Option<mpsc::UnboundedSender<AgentMessage>>>,
    frames: Mutex<Option<mpsc::UnboundedSender<LogFrame>>>,
    /// Log streams whose readers stop after the first frame.
    stopped_readers: Mutex<HashSet<String>>,
}

impl Host {
    fn not_after(&self) -> Option<prost_types::Timestamp> {
        let life = u64::from(self.life.load(Ordering::SeqCst));
        Some(clock::timestamp(SystemTime::now() + Duration::from_secs(life)))
    }

    fn take(counter: &AtomicU32) -> bool {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

struct Services(Arc<Host>);

#[tonic::async_trait]
impl JoinService for Services {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let secret = *self.0.secrets.lock().expect("lock").last().expect("an offer came first");
        let mac = proof::mac(&secret, &EXPORTER, "node-1", &request.csr_der);
        self.0.csrs.lock().expect("lock").push(request.csr_der);
        if mac != request.mac {
            return Err(Status::unauthenticated("wrong proof"));
        }
        if Host::take(&self.0.lost_answers) {
            return Err(Status::unavailable("lost"));
        }
        Ok(Response::new(JoinResponse { certificate_der: vec![1, 2, 3], not_after: self.0.not_after() }))
    }
}

type HostStream = Pin<Box<dyn futures::Stream<Item = Result<HostMessage, Status>> + Send>>;

#[tonic::async_trait]
impl NodeService for Services {
    type SessionStream = HostStream;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<HostStream>, Status> {
        let is_renewed = self.0.renewals.load(Ordering::SeqCst) > 0;
        if Host::take(&self.0.refused_sessions) || (is_renewed && Host::take(&self.0.refused_renewed)) {
            return Err(Status::unauthenticated("unknown certificate"));
        }
        let mut inbox = request.into_inner();
        let (sender, receiver) = mpsc::channel(8);
        let messages = self.0.desired.lock().expect("lock").clone();
        let heard = self.0.heard.lock().expect("lock").clone();
        let host = Arc::clone(&self.0);
        host.newest.send_modify(|number| *number += 1);
        let mut newest = host.newest.subscribe();
        k8sctl_rpc::task::spawn("fake-session", async move {
            for message in messages {
                sender.send(Ok(message)).await.expect("the agent listens");
            }
            loop {
                tokio::select! {
                    biased;
                    // It ends when a newer one has its place, as a real one does.
                    _ = newest.changed() => break,
                    message = inbox.message() => {
                        let Ok(Some(message)) = message else {
                            host.lost.fetch_add(1, Ordering::SeqCst);
                            break;
                        };
                        if let Some(heard) = &heard {
                            let _ = heard.send(message);
                        }
                    }
                }
            }
            drop(sender);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type FetchAgentStream = Pin<Box<dyn futures::Stream<Item = Result<FetchAgentResponse, Status>> + Send>>;

    async fn fetch_agent(
        &self,
        _: Request<FetchAgentRequest>,
    ) -> Result<Response<Self::FetchAgentStream>, Status> {
        Err(Status::not_found("this host has no other agent"))
    }

    async fn renew_certificate(
        &self,
        _: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        if Host::take(&self.0.refused_renewals) {
            return Err(Status::unauthenticated("the certificate has expired"));
        }
        self.0.renewals.fetch_add(1, Ordering::SeqCst);
        self.0.life.store(3600, Ordering::SeqCst);
        Ok(Response::new(RenewCertificateResponse {
            certificate_der: vec![9],
            not_after: self.0.not_after(),
        }))
    }

    async fn push_logs(
        &self,
        request: Request<Streaming<LogFrame>>,
    ) -> Result<Response<PushLogsResponse>, Status> {
        let mut inbox = request.into_inner();
        while let Some(frame) = inbox.message().await? {
            let stops = self.0.stopped_readers.lock().expect("lock").contains(&frame.stream_id);
            if let Some(frames) = &*self.0.frames.lock().expect("lock") {
                let _ = frames.send(frame);
            }
            if stops {
                std::future::pending::<()>().await;
            }
        }
        Ok(Response::new(PushLogsResponse {}))
    }
}

/// The fake host, listening.
async fn listen(host: &Arc<Host>, dir: &Path) -> SocketAddr {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = incoming.local_addr().expect("bound");
    let server = limits::server()
        .add_service(JoinServiceServer::new(Services(Arc::clone(host))))
        .add_service(NodeServiceServer::new(Services(Arc::clone(host))));
    k8sctl_rpc::task::spawn("fake-host", server.serve_with_incoming(incoming));
    let listener = UnixListener::bind(dir.join("port")).expect("a socket");
    let host = Arc::clone(host);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer_port(&host, address, stream);
        }
    });
    address
}

/// One connection of the port: a late answer and noise first, then the right one.
fn answer_port(host: &Host, address: SocketAddr, stream: std::os::unix::net::UnixStream) {
    let mut writer = stream.try_clone().expect("cloned");
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let request: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let sequence = request["sequence"].as_u64().expect("a sequence");
        assert_eq!(
            (request["version"].as_u64(), request["machine_uuid"].as_str()),
            (Some(1), Some("uuid-1"))
        );
        let secret: [u8; 32] = std::array::from_fn(|at| (sequence as u8).wrapping_add(at as u8));
        host.secrets.lock().expect("lock").push(secret);
        let offer = |sequence: u64| {
            serde_json::json!({
                "version": 1, "sequence": sequence, "cluster_id": "c", "node_id": "node-1",
                "secret": hex::encode(secret), "host_address": address.to_string(), "ca_der": "00",
                "server_name": "host", "host_time": "2026-01-01T00:00:00Z",
            })
        };
        if write!(writer, "noise\n{}\n{}\n", offer(sequence - 1), offer(sequence)).is_err() {
            return;
        }
    }
}

fn machine() -> Machine {
    Machine { boot_id: "boot-1".into(), machine_uuid: "uuid-1".into(), boot_to_agent: Duration::ZERO }
}

fn bootstrap(dir: &Path) -> Bootstrap {
    let port = Box::new(RealSecretPort::new(dir.join("port")));
    Bootstrap::new(Store::new(dir.join("state")), port, Arc::new(FakeDialer), machine(), false)
}

fn host(life: u32) -> Arc<Host> {
    let host = Host::default();
    host.life.store(life, Ordering::SeqCst);
    Arc::new(host)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_survives_lost_answers_with_one_key() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = host(3600);
    host.lost_answers.store(4, Ordering::SeqCst);
    listen(&host, dir.path()).await;
    let first = bootstrap(dir.path()).try_join().await.expect_err("three answers are lost");
    assert!(matches!(first, JoinError::Refused(_)), "{first:?}");
    // Another process: the agent was restarted meanwhile.
    let identity = tokio::time::timeout(WAIT, bootstrap(dir.path()).identity()).await.expect("joined");
    assert_eq!((identity.node_id.as_str(), identity.certificate_der.as_slice()), ("node-1", &[1, 2, 3][..]));
    let csrs = host.csrs.lock().expect("lock").clone();
    assert_eq!((csrs.len(), csrs.iter().collect::<HashSet<_>>().len()), (5, 1));
    // After that nobody is asked: the identity is kept.
    assert_eq!(bootstrap(dir.path()).identity().await, identity);
    assert_eq!(host.csrs.lock().expect("lock").len(), 5);
}

#[tokio::test]
async fn a_missing_port_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = bootstrap(dir.path()).try_join().await.expect_err("no port");
    let text = k8sctl_rpc::chain(&error).to_string();
    assert!(text.contains("cannot open the port"), "{text}");
}

struct Agent {
    heard: mpsc::UnboundedReceiver<AgentMessage>,
    frames: mpsc::UnboundedReceiver<LogFrame>,
    shutdown: CancellationToken,
    ended: tokio::sync::oneshot::Receiver<()>,
}

fn start(host: &Arc<Host>, dir: &Path) -> Agent {
    start_with(host, dir, Arc::new(SimulatedLogs::default()), Board::default())
}

fn start_with(host: &Arc<Host>, dir: &Path, logs: Arc<dyn LogSources>, board: Board) -> Agent {
    let (heard_sender, heard) = mpsc::unbounded_channel();
    let (frame_sender, frames) = mpsc::unbounded_channel();
    *host.heard.lock().expect("lock") = Some(heard_sender);
    *host.frames.lock().expect("lock") = Some(frame_sender);
    let config = Config {
        port: dir.join("port"),
        state_dir: dir.join("state"),
        root: dir.to_owned(),
        steps: Steps::Simulated(Simulation::default()),
        step_clock: false,
        machine: machine(),
    };
    let (desired, wanted) = watch::channel(None);
    let shutdown = CancellationToken::new();
    let steps = simulated::steps(&Simulation::default(), dir.join("simulated"));
    let converge = Converge::new(steps, wanted, board.clone(), Arc::new(NoJournal), shutdown.clone());
    k8sctl_rpc::task::spawn("converge", converge.run());
    let session = Session {
        bootstrap: bootstrap(dir),
        dialer: Arc::new(FakeDialer),
        desired,
        repairs: Repairs::in_memory(board.clone()),
        board,
        logs,
        offset: clock::Offset::default(),
        replacements: Replacements::default(),
        config,
        shutdown: shutdown.clone(),
    };
    let (end, ended) = tokio::sync::oneshot::channel();
    k8sctl_rpc::task::spawn("session", async move {
        session.run().await;
        let _ = end.send(());
    });
    Agent { heard, frames, shutdown, ended }
}

impl Agent {
    async fn hear<T>(&mut self, mut find: impl FnMut(agent_message::Message) -> Option<T>) -> T {
        let found = async {
            loop {
                let message = self.heard.recv().await.expect("the host lives").message.expect("a message");
                if let Some(found) = find(message) {
                    return found;
                }
            }
        };
        tokio::time::timeout(WAIT, found).await.expect("heard in time")
    }
}

fn from_host(message: host_message::Message) -> HostMessage {
    HostMessage { message: Some(message) }
}

fn desired() -> HostMessage {
    from_host(host_message::Message::Desired(DesiredState {
        generation: 4,
        node_name: "k8s-worker-1".into(),
        target: Target::Member.into(),
        ..DesiredState::default()
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_says_hello_converges_and_streams_logs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = host(3600);
    let selector = k8sctl_proto::node::v1::LogSelector { tail: Some(3), ..Default::default() };
    let logs = StartLogStream { stream_id: "s1".into(), selector: Some(selector) };
    *host.desired.lock().expect("lock") =
        vec![desired(), from_host(host_message::Message::StartLogStream(logs))];
    listen(&host, dir.path()).await;
    let mut agent = start(&host, dir.path());
    let first = agent.heard.recv().await.expect("a message").message;
    let Some(agent_message::Message::Hello(hello)) = first else { panic!("{first:?}") };
    assert_eq!((hello.protocol, hello.protocol_minor, hello.machine_uuid.as_str()), (1, 2, "uuid-1"));
    agent
        .hear(|message| match message {
            agent_message::Message::Status(report) => {
                let done = report.steps.iter().all(|step| step.state() == StepState::Done);
                (report.observed_generation == 4 && done && report.steps.len() == 6).then_some(())
            }
            agent_message::Message::Hello(_) => None,
        })
        .await;
    let mut texts = Vec::new();
    let mut ids = Vec::new();
    while texts.len() < 3 {
        let frame = tokio::time::timeout(WAIT, agent.frames.recv()).await.expect("in time").expect("a frame");
        ids.push(frame.stream_id);
        texts.extend(frame.lines.into_iter().map(|line| line.text));
    }
    assert_eq!(ids[0], "s1");
    let number = |text: &String| text.strip_prefix("simulated line ")?.parse::<u64>().ok();
    let numbers: Vec<u64> = texts.iter().filter_map(number).collect();
    assert_eq!(numbers, (numbers[0]..numbers[0] + 3).collect::<Vec<_>>(), "{texts:?}");
    agent.shutdown.cancel();
    tokio::time::timeout(WAIT, agent.ended).await.expect("drained").expect("ended");
}

/// What a host agent of protocol 1.1 wrote.
fn recorded(text: &str) -> HostMessage {
    let digits: String = text.split_whitespace().collect();
    let bytes = hex::decode(digits).expect("hexadecimal");
    let message = HostMessage::decode(bytes.as_slice()).expect("it is read");
    assert_eq!(message.encode_to_vec(), bytes, "read whole");
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_host_of_the_version_before_is_understood() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = host(3600);
    *host.desired.lock().expect("lock") = vec![
        recorded(include_str!("../../proto/tests/frozen/node-1.1/desired.hex")),
        recorded(include_str!("../../proto/tests/frozen/node-1.1/host_time.hex")),
    ];
    listen(&host, dir.path()).await;
    let mut agent = start(&host, dir.path());
    agent
        .hear(|message| match message {
            agent_message::Message::Status(report) => {
                let done = report.steps.iter().all(|step| step.state() == StepState::Done);
                (report.observed_generation == 4 && done && report.steps.len() == 6).then_some(())
            }
            agent_message::Message::Hello(_) => None,
        })
        .await;
    agent.shutdown.cancel();
    tokio::time::timeout(WAIT, agent.ended).await.expect("drained").expect("ended");
}

/// More lines than anybody reads. Counts those that were taken off its hands.
struct Flood(Arc<AtomicU32>);

#[async_trait]
impl LogSources for Flood {
    async fn read(&self, _: LogSelector, frames: &mut Frames) -> Result<(), LogError> {
        let lines = vec![LogLine { text: "x".repeat(8 * 1024), ..LogLine::default() }];
        let frame = LogFrame { lines, ..LogFrame::default() };
        while frames.send(frame.clone()).await {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Waits until a counter stands still.
async fn settled(counter: &AtomicU32) {
    let mut last = u32::MAX;
    while last != counter.load(Ordering::SeqCst) {
        last = counter.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_logs_who_stop_hold_up_no_report_and_one_too_many_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = host(3600);
    let streams = limits::LOG_STREAMS as u32;
    *host.stopped_readers.lock().expect("lock") = (0..streams).map(|at| format!("s{at}")).collect();
    let ask = |at: u32| {
        let start = StartLogStream { stream_id: format!("s{at}"), selector: None };
        from_host(host_message::Message::StartLogStream(start))
    };
    *host.desired.lock().expect("lock") = (0..=streams).map(ask).collect();
    listen(&host, dir.path()).await;
    let (board, taken) = (Board::default(), Arc::new(AtomicU32::new(0)));
    let mut agent = start_with(&host, dir.path(), Arc::new(Flood(Arc::clone(&taken))), board.clone());
    let refused = async {
        loop {
            let frame = agent.frames.recv().await.expect("the host lives");
            if !frame.error.is_empty() {
                return frame.error;
            }
        }
    };
    let error = tokio::time::timeout(WAIT, refused).await.expect("told in time");
    assert!(error.contains(&format!("{streams} log streams of this node are open already")), "{error}");
    // All that fits on the way is on the way.
    settled(&taken).await;
    assert!(taken.load(Ordering::SeqCst) > streams, "{taken:?}");
    for round in 0..50 {
        // Together far more than a window.
        let message = format!("{round} {}", "y".repeat(64 * 1024));
        board.condition("DiskOK", ConditionStatus::True, "Free", &message);
        let heard = agent.hear(|heard| match heard {
            agent_message::Message::Status(report) => {
                report.conditions.iter().any(|condition| condition.message == message).then_some(())
            }
            agent_message::Message::Hello(_) => None,
        });
        heard.await;
    }
    agent.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_certificate_leads_to_a_fresh_secret() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = host(3600);
    host.refused_sessions.store(1, Ordering::SeqCst);
    listen(&host, dir.path()).await;
    let mut agent = start(&host, dir.path());
    agent.hear(|message| matches!(message, agent_message::Message::Hello(_)).then_some(())).await;
    assert_eq!(host.csrs.lock().expect("lock").iter().collect::<HashSet<_>>().len(), 2);
    agent.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_is_renewed_at_half_its_life() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = host(2);
    listen(&host, dir.path()).await;
    let mut agent = start(&host, dir.path());
    for _ in 0..2 {
        agent.hear(|message| matches!(message, agent_message::Message::Hello(_)).then_some(())).await;
    }
    assert_eq!(host.renewals.load(Ordering::SeqCst), 1);
    let kept = Store::new(dir.path().join("state")).load().expect("read").expect("kept");
    assert_eq!(kept.certificate_der, [9]);
    // The node was there all the time.
    assert_eq!(host.lost.load(Ordering::SeqCst), 0);
    agent.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_that_is_refused_leads_to_a_fresh_secret() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = host(2);
    // Beside the session that is open, and once more when that was let go.
    host.refused_renewed.store(2, Ordering::SeqCst);
    listen(&host, dir.path()).await;
    let mut agent = start(&host, dir.path());
    for _ in 0..2 {
        agent.hear(|message| matches!(message, agent_message::Message::Hello(_)).then_some(())).await;
    }
    assert_eq!(host.renewals.load(Ordering::SeqCst), 1);
    assert_eq!(host.csrs.lock().expect("lock").iter().collect::<HashSet<_>>().len(), 2);
    agent.shutdown.cancel();
}

/// The host slept until the certificate had ended, and its end of the session with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_renewal_leads_to_a_fresh_secret() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = host(2);
    host.refused_renewals.store(1, Ordering::SeqCst);
    listen(&host, dir.path()).await;
    let mut agent = start(&host, dir.path());
    for _ in 0..2 {
        agent.hear(|message| matches!(message, agent_message::Message::Hello(_)).then_some(())).await;
    }
    assert_eq!(host.csrs.lock().expect("lock").iter().collect::<HashSet<_>>().len(), 2);
    agent.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_forgets_and_ends() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = host(3600);
    let goodbye = from_host(host_message::Message::Goodbye(Goodbye { reason: "removed".into() }));
    *host.desired.lock().expect("lock") = vec![desired(), goodbye];
    listen(&host, dir.path()).await;
    let agent = start(&host, dir.path());
    tokio::time::timeout(WAIT, agent.ended).await.expect("in time").expect("ended");
    let names: Vec<_> = std::fs::read_dir(dir.path().join("state")).expect("read").collect();
    assert!(names.is_empty(), "{names:?}");
}
