//! The one session with the host agent: desired state in, status out, dialled again forever. With a renewed certificate
//! there are two for a moment: the next one takes the place of the one before.
//!
//! [`Session::run`] owns bootstrap, so that nobody else dials. It hands desired state to converge through a
//! `watch` and starts log streams; it converges nothing itself.

pub mod remembered;
mod renew;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8sctl_proto::node::v1::host_message::Message as FromHost;
use k8sctl_proto::node::v1::node_service_client::NodeServiceClient;
use k8sctl_proto::node::v1::{
    AgentMessage, ConditionStatus, DesiredState, Hello, HostMessage, NodeFacts, StartLogStream, StatusReport,
    agent_message,
};
use k8sctl_types::protocol;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::bootstrap::identity::Identity;
use crate::bootstrap::{Bootstrap, DialError, Dialer, PROTOCOL};
use crate::clock;
use crate::config::Config;
use crate::logs::LogSources;
use crate::repair::{self, Repairs};
use crate::replace::Replacements;
use crate::retry::{self, Backoff};
use crate::status::Board;

/// Shortest time between two reports.
const REPORT_PAUSE: Duration = Duration::from_millis(100);
/// A report goes out at least this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Failed dials in a row after which the port is asked for a fresh secret: the certificate may be refused in a way
/// that looks like a broken connection, or the host agent may have another address.
const DIALS_BEFORE_REJOIN: u32 = 8;
/// How long a session is kept while the one with the renewed certificate does not open.
const HAND_OVER: Duration = Duration::from_secs(30);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No connection.
    #[error("cannot open a session")]
    Dial(#[from] DialError),
    /// The certificate is no longer accepted.
    #[error("the host agent refuses this node's certificate: {}", .0.message())]
    Refused(Box<tonic::Status>),
    /// The connection broke.
    #[error("the session broke ({:?}): {}", .0.code(), .0.message())]
    Broken(Box<tonic::Status>),
    /// The host ended the call.
    #[error("the host agent ended the session")]
    Ended,
}

enum End {
    /// With the session that goes on, if one opened in time.
    Renewed(Identity, Option<Open>),
    Removed,
    Drained,
}

/// A session that is open.
struct Open {
    outbox: mpsc::Sender<AgentMessage>,
    inbox: Streaming<HostMessage>,
    host: Host,
    /// What was told of the machine last.
    facts: Option<NodeFacts>,
}

/// The other end of a session.
struct Host {
    channel: Channel,
    /// Of this connection: streams of one before end with it, and take no place here.
    log_places: Arc<Semaphore>,
    /// How far ahead of its time the clock was at the last message, unless that was set since.
    clock_offset: Option<i64>,
}

impl Host {
    fn new(channel: Channel) -> Self {
        Self { channel, log_places: crate::logs::places(), clock_offset: None }
    }
}

/// The session and all that it needs.
pub struct Session {
    /// Gets the identity.
    pub bootstrap: Bootstrap,
    /// Opens connections.
    pub dialer: Arc<dyn Dialer>,
    /// What the host wants, for converge.
    pub desired: watch::Sender<Option<DesiredState>>,
    /// What is reported.
    pub board: Board,
    /// Where logs come from.
    pub logs: Arc<dyn LogSources>,
    /// What the clock is off, kept here.
    pub offset: clock::Offset,
    /// Hears which program the host wants.
    pub replacements: Replacements,
    /// Setting the clock is one.
    pub repairs: Repairs,
    /// The agent's settings.
    pub config: Config,
    /// Asks the session to end.
    pub shutdown: CancellationToken,
}

impl Session {
    /// Runs until shutdown, or until the host says that this node is removed.
    pub async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        let mut backoff = Backoff::new(retry::DIAL);
        // Cancel-safe: bootstrap keeps its state on disk.
        let mut identity = tokio::select! {
            identity = self.bootstrap.identity() => identity,
            () = shutdown.cancelled() => return,
        };
        let mut next = None;
        loop {
            self.report_certificate(&identity);
            let started = Instant::now();
            let error = match self.once(&identity, next.take()).await {
                Ok(End::Renewed(renewed, open)) => {
                    (identity, next) = (renewed, open);
                    backoff.reset();
                    continue;
                }
                Ok(End::Removed | End::Drained) => return,
                Err(error) => error,
            };
            if started.elapsed() > REPORT_INTERVAL {
                backoff.reset();
            }
            tracing::warn!(error = %k8sctl_rpc::chain(&error), "no session");
            let pause = backoff.next_pause();
            let is_answered =
                matches!(&error, SessionError::Broken(status) if status.code() == Code::FailedPrecondition);
            let rejoin = matches!(error, SessionError::Refused(_)) || identity.is_expired(SystemTime::now());
            // Cancel-safe: nothing is in flight, and bootstrap keeps its state on disk.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            let work = async {
                if rejoin {
                    self.bootstrap.join().await
                } else if backoff.failures().is_multiple_of(DIALS_BEFORE_REJOIN) && !is_answered {
                    // A host that refuses this agent's version is there, and knows its certificate.
                    self.bootstrap.try_join().await.unwrap_or(identity.clone())
                } else {
                    identity.clone()
                }
            };
            // Cancel-safe for the same reason.
            identity = tokio::select! {
                identity = work => identity,
                () = shutdown.cancelled() => return,
            };
        }
    }

    /// One session to its end, from Hello on where it is not open yet.
    async fn once(&self, identity: &Identity, open: Option<Open>) -> Result<End, SessionError> {
        let open = match open {
            Some(open) => open,
            None => self.open(identity).await?,
        };
        let ended = self.talk(identity, open).await;
        // One that goes on with a renewed certificate is the same.
        if !matches!(ended, Ok(End::Renewed(_, Some(_)))) {
            self.replacements.lost();
        }
        ended
    }

    /// Dials, and says Hello.
    async fn open(&self, identity: &Identity) -> Result<Open, SessionError> {
        let channel = self.dialer.dial(identity).await?.channel;
        let mut client = NodeServiceClient::new(channel.clone());
        let (outbox, outgoing) = mpsc::channel(4);
        let hello = self.hello();
        let facts = hello.facts.clone();
        send(&outbox, agent_message::Message::Hello(hello)).await?;
        let inbox = client.session(ReceiverStream::new(outgoing)).await.map_err(ended)?.into_inner();
        tracing::info!(node.id = identity.node_id, "session open");
        Ok(Open { outbox, inbox, host: Host::new(channel), facts })
    }

    async fn talk(&self, identity: &Identity, mut open: Open) -> Result<End, SessionError> {
        let mut report = self.board.subscribe();
        report.mark_changed();
        let mut tick = tokio::time::interval_at(Instant::now() + REPORT_INTERVAL, REPORT_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut not_before = Instant::now();
        let renewed = renew::renew_when_due(open.host.channel.clone(), self.bootstrap.store(), identity);
        let mut renewed = std::pin::pin!(renewed);
        let renewed = loop {
            // In order: the host's word first, so that a removed node stops at once. Every arm is cancel-safe:
            // `message` and `changed` lose nothing, `renewed` is pinned outside, sleeps start over.
            tokio::select! {
                biased;
                message = open.inbox.message() => match message.map_err(ended)? {
                    None => return Err(SessionError::Ended),
                    Some(message) => if let Some(end) = self.receive(message, identity, &mut open.host) {
                        return Ok(end);
                    },
                },
                () = self.shutdown.cancelled() => return self.drain(&open.outbox).await,
                renewed = &mut renewed => break renewed.map_err(ended)?,
                () = wait_for_change(&mut report, not_before) => {
                    let now = report.borrow_and_update().clone();
                    self.send_report(&open.outbox, now, &mut open.facts).await?;
                    not_before = Instant::now() + REPORT_PAUSE;
                    tick.reset();
                }
                _ = tick.tick() => {
                    let now = report.borrow_and_update().clone();
                    self.send_report(&open.outbox, now, &mut open.facts).await?;
                }
            }
        };
        self.hand_over(renewed, open).await
    }

    /// Opens the session that goes on with the renewed certificate. The old one is kept for so long: the host agent puts
    /// the new one into its place, and never misses the node. An old one whose successor does not come is let go, since
    /// its certificate ends.
    async fn hand_over(&self, renewed: Identity, mut old: Open) -> Result<End, SessionError> {
        let (mut is_over, mut asked) = (false, Vec::new());
        let next = {
            let mut opening = std::pin::pin!(tokio::time::timeout(HAND_OVER, self.open_soon(&renewed)));
            loop {
                // In order as above: a node that was removed hears of it here. Every arm is cancel-safe: `message` loses
                // nothing, `opening` is pinned outside.
                tokio::select! {
                    biased;
                    message = old.inbox.message(), if !is_over => match message {
                        // With the old certificate no call may begin any more when the new session is open.
                        Ok(Some(HostMessage { message: Some(FromHost::StartLogStream(start)) })) => asked.push(start),
                        Ok(Some(message)) => if let Some(end) = self.receive(message, &renewed, &mut old.host) {
                            return Ok(end);
                        },
                        // The new one has its place, of which this end may hear first.
                        Ok(None) | Err(_) => is_over = true,
                    },
                    () = self.shutdown.cancelled() => return self.drain(&old.outbox).await,
                    opened = &mut opening => break opened,
                }
            }
        };
        let next = match next {
            Ok(Ok(next)) => Some(next),
            Ok(Err(error)) => {
                tracing::warn!(error = %k8sctl_rpc::chain(&error), "no session with the renewed certificate");
                None
            }
            Err(error) => {
                tracing::warn!(error = %k8sctl_rpc::chain(&error), "no session with the renewed certificate");
                None
            }
        };
        if let Some(next) = &next {
            for start in asked {
                self.start_logs(&next.host, start);
            }
        }
        Ok(End::Renewed(renewed, next))
    }

    /// Tries until it works, unless the certificate is refused.
    async fn open_soon(&self, identity: &Identity) -> Result<Open, SessionError> {
        let mut backoff = Backoff::new(retry::DIAL);
        loop {
            match self.open(identity).await {
                Ok(open) => return Ok(open),
                Err(error @ SessionError::Refused(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(error = %k8sctl_rpc::chain(&error), "no session yet with the renewed certificate");
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    /// The last word of an agent that is to end.
    async fn drain(&self, outbox: &mpsc::Sender<AgentMessage>) -> Result<End, SessionError> {
        let last = self.board.subscribe().borrow().clone();
        send(outbox, agent_message::Message::Status(last)).await?;
        Ok(End::Drained)
    }

    async fn send_report(
        &self,
        outbox: &mpsc::Sender<AgentMessage>,
        mut report: StatusReport,
        told: &mut Option<NodeFacts>,
    ) -> Result<(), SessionError> {
        let facts = Some(self.facts());
        if *told != facts {
            told.clone_from(&facts);
            report.facts = facts;
        }
        send(outbox, agent_message::Message::Status(report)).await
    }

    /// Acts on a message; `Some` ends the session.
    fn receive(&self, message: HostMessage, identity: &Identity, host: &mut Host) -> Option<End> {
        let message = message.message?;
        self.replacements.heard();
        match message {
            FromHost::Desired(desired) => {
                tracing::info!(generation = desired.generation, "desired state");
                self.replacements.want(desired.agent.as_ref(), &host.channel);
                let modified = self.desired.send_if_modified(|known| {
                    let modified = known.as_ref() != Some(&desired);
                    if modified {
                        *known = Some(desired.clone());
                    }
                    modified
                });
                if modified {
                    remembered::keep(&self.config.state_dir, &desired);
                }
            }
            FromHost::StartLogStream(start) => self.start_logs(host, start),
            FromHost::ReplaceAgent(program) => {
                tracing::warn!("this agent is too old for its host, which wants another one to run");
                self.replacements.want(Some(&program), &host.channel);
            }
            FromHost::HostTime(time) => {
                self.compare_clock(time.now.as_ref(), &mut host.clock_offset);
                // By the clock that it was compared with, which may have been set.
                self.report_certificate(identity);
            }
            FromHost::Goodbye(goodbye) => {
                tracing::warn!(reason = goodbye.reason, "the host removed this node");
                if let Err(error) = self.bootstrap.store().forget() {
                    tracing::warn!(error = %k8sctl_rpc::chain(&error), "cannot forget the identity");
                }
                remembered::forget(&self.config.state_dir);
                return Some(End::Removed);
            }
        }
        None
    }

    fn start_logs(&self, host: &Host, start: StartLogStream) {
        let name = format!("logs-{}", start.stream_id);
        let (channel, sources) = (host.channel.clone(), Arc::clone(&self.logs));
        let place = Arc::clone(&host.log_places).try_acquire_owned().ok();
        let stream = crate::logs::stream(channel, sources, self.offset.clone(), place, start);
        k8sctl_rpc::task::spawn(name, stream);
    }

    fn compare_clock(&self, host: Option<&prost_types::Timestamp>, before: &mut Option<i64>) {
        let Some(host) = host.map(clock::system_time) else { return };
        let here = SystemTime::now();
        self.offset.observe(here, host);
        let offset = clock::offset_millis(here, host);
        match clock::judge(before.replace(offset), offset) {
            clock::Verdict::InStep => {
                self.board.condition("ClockOK", ConditionStatus::True, "InStep", "within 2 s of the host");
            }
            // What was known of the clock is still all that is known.
            clock::Verdict::Unsure => {
                tracing::debug!(clock.offset_millis = offset, "the clock is ahead, or the message came late");
            }
            clock::Verdict::Off(offset) => {
                let (is, was) =
                    (format!("{offset} ms from the host"), format!("it was {offset} ms from the host"));
                match self.step_clock(offset, &was) {
                    Ok(()) => {
                        *before = None;
                        self.offset.reset();
                        tracing::warn!(clock.offset_millis = offset, "stepped the clock to the host's");
                        self.board.condition("ClockOK", ConditionStatus::True, "Stepped", was);
                    }
                    Err(why) => {
                        let message = if why.is_empty() { is } else { format!("{is}; {why}") };
                        self.board.condition("ClockOK", ConditionStatus::False, "Off", message);
                    }
                }
            }
        }
    }

    /// Sets the clock to the host's; where that is not done, why.
    fn step_clock(&self, offset: i64, reason: &str) -> Result<(), String> {
        if !self.config.step_clock {
            return Err(String::new());
        }
        self.repairs.leave(repair::CLOCK, reason).map_err(|rest| rest.message)?;
        let stepped = clock::step_back(offset).map_err(|error| error.to_string());
        self.repairs.ended(repair::CLOCK, reason, "set it to the host's", stepped.clone());
        stepped
    }

    fn report_certificate(&self, identity: &Identity) {
        let until = jiff::Timestamp::try_from(identity.not_after).unwrap_or_default();
        if identity.is_expired(SystemTime::now()) {
            self.board.condition(
                "CertificateValid",
                ConditionStatus::False,
                "Expired",
                format!("ended {until:.0}"),
            );
        } else {
            self.board.condition(
                "CertificateValid",
                ConditionStatus::True,
                "Valid",
                format!("until {until:.0}"),
            );
        }
    }

    fn facts(&self) -> NodeFacts {
        self.config.machine.facts(&self.config.root)
    }

    fn hello(&self) -> Hello {
        Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            boot_id: self.config.machine.boot_id.clone(),
            machine_uuid: self.config.machine.machine_uuid.clone(),
            facts: Some(self.facts()),
            protocol_minor: protocol::NODE.minor,
            program_sha256: self.replacements.running().unwrap_or_default().to_owned(),
        }
    }
}

async fn wait_for_change(report: &mut watch::Receiver<StatusReport>, not_before: Instant) {
    if report.changed().await.is_err() {
        // The board is gone only when the agent ends.
        return std::future::pending().await;
    }
    // A change is still unseen for the caller, who marks it seen after this pause: changes in between join it.
    report.mark_changed();
    tokio::time::sleep_until(not_before).await;
}

async fn send(
    outbox: &mpsc::Sender<AgentMessage>,
    message: agent_message::Message,
) -> Result<(), SessionError> {
    outbox.send(AgentMessage { message: Some(message) }).await.map_err(|_| SessionError::Ended)
}

fn ended(status: tonic::Status) -> SessionError {
    if renew::is_refused(&status) {
        SessionError::Refused(Box::new(status))
    } else {
        SessionError::Broken(Box::new(status))
    }
}

#[cfg(test)]
mod tests {
    use k8sctl_proto::node::v1::HostTime;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::bootstrap::identity::Store;
    use crate::bootstrap::port::RealSecretPort;
    use crate::config::{Simulation, Steps};
    use crate::dial::RealDialer;
    use crate::logs::simulated::SimulatedLogs;
    use crate::machine::Machine;

    fn session(dir: &std::path::Path) -> Session {
        let machine =
            Machine { boot_id: "b".into(), machine_uuid: "u".into(), boot_to_agent: Duration::ZERO };
        let (port, dialer) = (dir.join("port"), Arc::new(RealDialer));
        let secrets = Box::new(RealSecretPort::new(&port));
        Session {
            bootstrap: Bootstrap::new(Store::new(dir), secrets, dialer.clone(), machine.clone(), false),
            dialer,
            desired: watch::Sender::new(None),
            repairs: Repairs::in_memory(Board::default()),
            board: Board::default(),
            logs: Arc::new(SimulatedLogs::default()),
            offset: clock::Offset::default(),
            replacements: Replacements::default(),
            config: Config {
                port,
                state_dir: dir.to_owned(),
                root: dir.to_owned(),
                steps: Steps::Simulated(Simulation::default()),
                step_clock: false,
                machine,
            },
            shutdown: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn the_hosts_time_has_the_certificate_judged_anew() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let session = session(dir.path());
        let reason = || {
            let conditions = session.board.subscribe().borrow().conditions.clone();
            conditions.into_iter().find(|known| known.r#type == "CertificateValid").expect("told").reason
        };
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        // As it looked to a clock that was ahead.
        session.report_certificate(&Identity::example(now - 2 * hour, now - hour));
        assert_eq!(reason(), "Expired");
        let time = FromHost::HostTime(HostTime { now: Some(clock::now()) });
        let mut host = Host::new(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
        let identity = Identity::example(now, now + hour);
        let ended = session.receive(HostMessage { message: Some(time) }, &identity, &mut host);
        assert!(ended.is_none());
        assert_eq!(reason(), "Valid");
    }

    #[tokio::test]
    async fn what_one_message_of_the_host_says_of_the_clock_takes_another_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let session = session(dir.path());
        let mut host = Host::new(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
        let now = SystemTime::now();
        let identity = Identity::example(now, now + Duration::from_secs(3600));
        let hear = |seconds_late: u64| {
            let then = clock::timestamp(SystemTime::now() - Duration::from_secs(seconds_late));
            let time = FromHost::HostTime(HostTime { now: Some(then) });
            let ended = session.receive(HostMessage { message: Some(time) }, &identity, &mut host);
            assert!(ended.is_none());
            let conditions = session.board.subscribe().borrow().conditions.clone();
            conditions.into_iter().find(|known| known.r#type == "ClockOK").expect("told").reason
        };
        assert_eq!([0, 9, 0, 9, 9].map(hear), ["InStep", "InStep", "InStep", "InStep", "Off"]);
    }
}
