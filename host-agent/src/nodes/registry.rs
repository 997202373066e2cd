//! The state of every node agent. Desired state goes in, reports come out; both are whole values, so a reader
//! that missed one has lost nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use k8sctl_proto::node::v1::{
    AgentProgram, Condition, Hello, LogFrame, LogSelector, StartLogStream, StatusReport,
};
use tokio::sync::{mpsc, watch};

use super::caps::{cut_hello, cut_report};
use super::changes::ChangeSender;
use super::traffic::Traffic;
use super::wanted::Wanted;

mod agents;

/// Frames in flight between a node's log stream and its reader.
const LOG_FRAMES: usize = 4;

/// What is known of a node agent.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// A session is open now.
    pub connected: bool,
    /// First message of the newest session.
    pub hello: Option<Hello>,
    /// Newest report; steps and conditions in it are whole. Repairs stay when the VM is started anew: they are of its
    /// disk. Whoever looks at all nodes shares it.
    pub report: Arc<StatusReport>,
    /// When the newest message came.
    pub last_seen: Option<jiff::Timestamp>,
    /// When the first session since the VM's start opened.
    pub joined: Option<jiff::Timestamp>,
    /// Why its agent was refused a session, until it has one.
    pub refused: Option<Refused>,
    /// Its VM was rebooted after its last session had opened.
    pub rebooted: bool,
}

/// An agent was refused a session for the protocol that it speaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// With what a person can do.
    pub reason: String,
    /// It can be told to become another one all the same.
    pub can_be_replaced: bool,
    /// When it called last.
    pub called: tokio::time::Instant,
}

/// A change worth an event.
#[derive(Clone, Debug)]
pub enum NodeChange {
    /// A session opened.
    Connected(Box<Hello>),
    /// The session ended.
    Disconnected,
    /// The VM was rebooted, in the run that it was in.
    Rebooted,
    /// A report came; the previous one is given for comparison.
    Reported {
        /// The report before.
        before: Arc<StatusReport>,
        /// The report now.
        now: Arc<StatusReport>,
    },
    /// The host judges the node otherwise than before.
    Judged(Condition),
}

#[derive(Debug)]
struct Entry {
    desired: watch::Sender<Option<Wanted>>,
    /// The program that its agent shall be; a part of every desired state.
    agent: Option<AgentProgram>,
    view: NodeView,
    /// Counts sessions, so that the end of an old one does not disconnect a new one. The old one hears of it.
    session: watch::Sender<u64>,
    /// When the newest one opened.
    opened: Option<Instant>,
    log_requests: Option<mpsc::Sender<Box<StartLogStream>>>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            desired: watch::Sender::new(None),
            agent: None,
            view: NodeView::default(),
            session: watch::Sender::new(0),
            opened: None,
            log_requests: None,
        }
    }
}

/// All nodes of all clusters, by node id.
#[derive(Debug)]
pub struct NodeRegistry {
    nodes: Mutex<HashMap<String, Entry>>,
    /// By stream id; with the node that was asked.
    logs: Mutex<HashMap<String, (String, LogSender)>>,
    version: watch::Sender<u64>,
    changes: ChangeSender,
    traffic: Traffic,
}

/// An open session. Dropping it disconnects the node unless a newer session took its place.
#[derive(Debug)]
pub struct SessionGuard {
    registry: Arc<NodeRegistry>,
    node_id: String,
    session: u64,
    newest: watch::Receiver<u64>,
    /// Desired states to send.
    pub desired: watch::Receiver<Option<Wanted>>,
    /// Log streams to ask for.
    pub log_requests: mpsc::Receiver<Box<StartLogStream>>,
}

/// Why a session is over before either end ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceLost {
    /// A newer one has its place, or the VM was started anew or rebooted.
    Replaced,
    /// The node was removed.
    Removed,
}

/// A log stream broke off before its end, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLost(pub String);

/// The end of a log stream at which its frames come in.
pub type LogSender = mpsc::Sender<Result<LogFrame, LogLost>>;

/// No log stream can be opened on a node.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogsError {
    /// No session.
    #[error("the node agent is not connected")]
    NotConnected,
    /// Too many requests at once.
    #[error("the node agent has too many log streams to open")]
    Busy,
}

/// A log stream that a node will push. Dropping it ends the stream.
#[derive(Debug)]
pub struct LogReader {
    registry: Arc<NodeRegistry>,
    stream_id: String,
    /// Of the node, when it was asked.
    session: u64,
    newest: watch::Receiver<u64>,
    /// Frames in order. After one that could not be had nothing comes. A log that was read to its end ends with one that
    /// is `whole`; without it, it was cut off.
    pub frames: mpsc::Receiver<Result<LogFrame, LogLost>>,
}

impl LogReader {
    /// Waits until the session that was asked is the node's no more: what is to come comes better from the next one.
    pub fn place_lost(&self) -> impl Future<Output = PlaceLost> + Send + use<> {
        place_lost(self.session, self.newest.clone())
    }

    /// The node has not begun to push.
    pub fn is_unclaimed(&self) -> bool {
        lock(&self.registry.logs).contains_key(&self.stream_id)
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        lock(&self.registry.logs).remove(&self.stream_id);
        self.registry.traffic.log_closed();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section here only moves values, so what a panic leaves behind is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NodeRegistry {
    /// An empty registry that tells of changes on `changes`.
    pub fn new(changes: ChangeSender) -> Arc<Self> {
        Arc::new(Self {
            nodes: Mutex::default(),
            logs: Mutex::default(),
            version: watch::Sender::new(0),
            changes,
            traffic: Traffic::default(),
        })
    }

    /// Counts up with every change of any node.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// How much all nodes have sent.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What is known of a node.
    pub fn view(&self, node_id: &str) -> NodeView {
        lock(&self.nodes).get(node_id).map(|entry| entry.view.clone()).unwrap_or_default()
    }

    /// Whether a session of the node is open; `None` for one of which nothing is known.
    pub fn is_connected(&self, node_id: &str) -> Option<bool> {
        lock(&self.nodes).get(node_id).map(|entry| entry.view.connected)
    }

    /// Sets what a node shall be. The generation is counted up here, only when something else changed.
    pub fn set_desired(&self, node_id: &str, mut desired: Wanted) {
        let mut nodes = lock(&self.nodes);
        let entry = nodes.entry(node_id.to_owned()).or_default();
        desired.own.agent.clone_from(&entry.agent);
        entry.desired.send_if_modified(|current| {
            desired.own.generation = current.as_ref().map_or_else(first_generation, Wanted::generation);
            if current.as_ref() == Some(&desired) {
                return false;
            }
            desired.own.generation += 1;
            *current = Some(desired);
            true
        });
    }

    /// The generation that a node shall have reached.
    pub fn desired_generation(&self, node_id: &str) -> Option<u64> {
        lock(&self.nodes)
            .get(node_id)
            .and_then(|entry| entry.desired.borrow().as_ref().map(Wanted::generation))
    }

    /// Forgets a node that was removed; its session ends.
    pub fn remove(&self, node_id: &str) {
        lock(&self.nodes).remove(node_id);
        self.touch();
    }

    /// A VM was started anew: what its agent reported before is void, and a session of then ends. An agent that is
    /// still at its other end opens another.
    pub fn reset(&self, node_id: &str) {
        let mut was_connected = false;
        if let Some(entry) = lock(&self.nodes).get_mut(node_id) {
            entry.session.send_modify(|session| *session += 1);
            entry.log_requests = None;
            was_connected = std::mem::replace(&mut entry.view.connected, false);
            entry.view.rebooted = false;
            entry.view.joined = None;
            let repairs = entry.view.report.repairs.clone();
            entry.view.report = Arc::new(StatusReport { repairs, ..StatusReport::default() });
        }
        if was_connected {
            self.changes.tell(node_id, &NodeChange::Disconnected);
        }
        self.touch();
    }

    /// A VM was rebooted then, without that its agent, or its kernel, could say so: a session of before ends. What was
    /// reported stays as it does behind any session; one that has opened since is the new boot's, and goes on.
    pub fn rebooted(&self, node_id: &str, at: Instant) {
        let mut was_connected = false;
        let is_of_before = |entry: &&mut Entry| entry.opened.is_none_or(|opened| opened <= at);
        if let Some(entry) = lock(&self.nodes).get_mut(node_id).filter(is_of_before) {
            entry.session.send_modify(|session| *session += 1);
            entry.log_requests = None;
            was_connected = std::mem::replace(&mut entry.view.connected, false);
            entry.view.rebooted = true;
        }
        self.changes.tell(node_id, &NodeChange::Rebooted);
        if was_connected {
            self.changes.tell(node_id, &NodeChange::Disconnected);
        }
        self.touch();
    }

    /// Tells that the host itself judges a node otherwise than before. Who judges needs not be woken by it.
    pub fn judged(&self, node_id: &str, condition: &Condition) {
        self.changes.tell(node_id, &NodeChange::Judged(condition.clone()));
    }

    /// Opens the session of a node, in place of an older one, which ends.
    pub fn open_session(self: &Arc<Self>, node_id: &str, mut hello: Hello) -> SessionGuard {
        cut_hello(&mut hello);
        let (log_sender, log_requests) = mpsc::channel(8);
        let mut nodes = lock(&self.nodes);
        let entry = nodes.entry(node_id.to_owned()).or_default();
        entry.session.send_modify(|session| *session += 1);
        entry.opened = Some(Instant::now());
        entry.log_requests = Some(log_sender);
        let now = jiff::Timestamp::now();
        let rebooted = entry.view.hello.as_ref().is_some_and(|old| old.boot_id != hello.boot_id);
        if rebooted || entry.view.joined.is_none() {
            entry.view.joined = Some(now);
        }
        entry.view.connected = true;
        (entry.view.refused, entry.view.rebooted) = (None, false);
        entry.view.last_seen = Some(now);
        entry.view.hello = Some(hello.clone());
        let guard = SessionGuard {
            registry: Arc::clone(self),
            node_id: node_id.to_owned(),
            session: *entry.session.borrow(),
            newest: entry.session.subscribe(),
            desired: entry.desired.subscribe(),
            log_requests,
        };
        drop(nodes);
        self.traffic.session_opened();
        self.tell(node_id, NodeChange::Connected(Box::new(hello)));
        guard
    }

    /// Asks a node for a log stream.
    pub fn open_logs(
        self: &Arc<Self>,
        node_id: &str,
        selector: LogSelector,
    ) -> Result<LogReader, OpenLogsError> {
        let nodes = lock(&self.nodes);
        let entry = nodes.get(node_id).filter(|entry| entry.view.connected);
        let (entry, requests) = entry
            .and_then(|entry| Some((entry, entry.log_requests.as_ref()?)))
            .ok_or(OpenLogsError::NotConnected)?;
        let stream_id = uuid::Uuid::new_v4().to_string();
        let (sender, frames) = mpsc::channel(LOG_FRAMES);
        lock(&self.logs).insert(stream_id.clone(), (node_id.to_owned(), sender));
        self.traffic.log_opened();
        let reader = LogReader {
            registry: Arc::clone(self),
            stream_id: stream_id.clone(),
            session: *entry.session.borrow(),
            newest: entry.session.subscribe(),
            frames,
        };
        let asked = requests.try_send(Box::new(StartLogStream { stream_id, selector: Some(selector) }));
        asked.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OpenLogsError::Busy,
            mpsc::error::TrySendError::Closed(_) => OpenLogsError::NotConnected,
        })?;
        Ok(reader)
    }

    /// Takes the reader's end of a log stream that this node was asked for and begins to push.
    pub fn claim_logs(&self, node_id: &str, stream_id: &str) -> Option<LogSender> {
        let mut logs = lock(&self.logs);
        logs.get(stream_id).filter(|(asked, _)| asked == node_id)?;
        logs.remove(stream_id).map(|(_, reader)| reader)
    }

    fn tell(&self, node_id: &str, change: NodeChange) {
        self.changes.tell(node_id, &change);
        self.touch();
    }

    fn touch(&self) {
        self.version.send_modify(|version| *version += 1);
    }
}

impl SessionGuard {
    /// Waits until this is the node's session no more.
    pub fn place_lost(&self) -> impl Future<Output = PlaceLost> + Send + use<> {
        place_lost(self.session, self.newest.clone())
    }

    /// The node was removed.
    pub fn is_removed(&self) -> bool {
        self.newest.has_changed().is_err()
    }

    /// Takes in a report, cut to a size that can be kept. `false` means: a newer session took this one's place.
    pub fn report(&self, mut report: StatusReport) -> bool {
        cut_report(&mut report);
        let mut nodes = lock(&self.registry.nodes);
        let Some(entry) =
            nodes.get_mut(&self.node_id).filter(|entry| *entry.session.borrow() == self.session)
        else {
            return false;
        };
        entry.view.last_seen = Some(jiff::Timestamp::now());
        let facts = report.facts.take();
        let is_new = facts.is_some();
        if let (true, Some(hello)) = (is_new, entry.view.hello.as_mut()) {
            hello.facts = facts;
        }
        if *entry.view.report == report && !is_new {
            return true;
        }
        let now = Arc::new(report);
        let before = std::mem::replace(&mut entry.view.report, Arc::clone(&now));
        drop(nodes);
        let change = NodeChange::Reported { before, now };
        self.registry.tell(&self.node_id, change);
        true
    }
}

async fn place_lost(session: u64, mut newest: watch::Receiver<u64>) -> PlaceLost {
    match newest.wait_for(|newest| *newest != session).await {
        Ok(_) => PlaceLost::Replaced,
        Err(_) => PlaceLost::Removed,
    }
}

/// Tells the reader why its stream ends. One that is full or gone has no use for it.
fn end_logs(reader: &LogSender, error: String) {
    let _ = reader.try_send(Err(LogLost(error)));
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let mut nodes = lock(&self.registry.nodes);
        let Some(entry) =
            nodes.get_mut(&self.node_id).filter(|entry| *entry.session.borrow() == self.session)
        else {
            return;
        };
        entry.view.connected = false;
        entry.log_requests = None;
        drop(nodes);
        lock(&self.registry.logs).retain(|_, (asked, reader)| {
            let stays = *asked != self.node_id;
            if !stays {
                end_logs(reader, "its agent went away".to_owned());
            }
            stays
        });
        self.registry.tell(&self.node_id, NodeChange::Disconnected);
    }
}

/// Generations must grow across restarts of the host agent, which keeps no count: the clock does.
fn first_generation() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}

/// The condition of that type in a report.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.r#type == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::changes::{Changes, changes};
    use k8sctl_proto::node::v1::{DesiredState, Repair, RepairOutcome};
    use k8sctl_types::event::EventType;

    fn registry() -> (Arc<NodeRegistry>, Changes) {
        let (sender, receiver) = changes();
        (NodeRegistry::new(sender), receiver)
    }

    fn kinds(changes: &mut Changes) -> Vec<EventType> {
        changes.drain().into_iter().map(|(_, line)| line.kind).collect()
    }

    fn named(name: &str) -> Wanted {
        let own = DesiredState { node_name: name.to_owned(), ..DesiredState::default() };
        Wanted::new(own, Arc::default())
    }

    #[test]
    fn generation_counts_only_changes() {
        let (registry, _changes) = registry();
        registry.set_desired("a", named("one"));
        let first = registry.desired_generation("a");
        registry.set_desired("a", named("one"));
        assert_eq!(registry.desired_generation("a"), first);
        registry.set_desired("a", named("two"));
        assert_eq!(registry.desired_generation("a"), first.map(|generation| generation + 1));
    }

    #[test]
    fn the_end_of_an_old_session_leaves_the_new_one_connected() {
        let (registry, mut changes) = registry();
        let mut told = || kinds(&mut changes);
        let old = registry.open_session("a", Hello::default());
        let new = registry.open_session("a", Hello::default());
        assert!(!old.report(StatusReport { observed_generation: 1, ..StatusReport::default() }));
        drop(old);
        assert!(registry.view("a").connected);
        assert_eq!(told(), [EventType::NodeConnected; 2], "it went nowhere");
        drop(new);
        assert!(!registry.view("a").connected);
        assert_eq!(told(), [EventType::NodeDisconnected]);
    }

    /// As of `virsh reset`: what is at the other end of the connection cannot end it.
    #[tokio::test]
    async fn a_reboot_ends_the_session_that_was_opened_before() {
        let (registry, mut changes) = registry();
        let mut told = || kinds(&mut changes);
        let old = registry.open_session("a", Hello { boot_id: "1".to_owned(), ..Hello::default() });
        assert!(old.report(StatusReport { observed_generation: 7, ..StatusReport::default() }));
        assert_eq!(told(), [EventType::NodeConnected]);
        let version = registry.version();
        let before = *version.borrow();
        let at = Instant::now();
        registry.rebooted("a", at);
        assert!(*version.borrow() > before, "whoever waits for changes hears of it");
        assert_eq!(old.place_lost().await, PlaceLost::Replaced);
        assert!(!old.report(StatusReport::default()));
        drop(old);
        let view = registry.view("a");
        assert_eq!((view.connected, view.rebooted, view.report.observed_generation), (false, true, 7));
        assert_eq!(told(), [EventType::VMRebooted, EventType::NodeDisconnected], "its end is told once");
        assert!(registry.open_logs("a", LogSelector::default()).is_err());

        let new = registry.open_session("a", Hello { boot_id: "2".to_owned(), ..Hello::default() });
        assert!(!registry.view("a").rebooted);
        assert_eq!(told(), [EventType::NodeConnected]);
        // The host agent was busy meanwhile, and hears of it now.
        registry.rebooted("a", at);
        assert!(new.report(StatusReport::default()));
        let view = registry.view("a");
        assert_eq!((view.connected, view.rebooted), (true, false));
        assert_eq!(told(), [EventType::VMRebooted]);
        // Of one that has said good-bye in time there is no session left to end.
        drop(new);
        registry.rebooted("a", Instant::now());
        assert_eq!(told(), [EventType::NodeDisconnected, EventType::VMRebooted]);
        assert!(registry.view("a").rebooted);
        registry.reset("a");
        assert!(!registry.view("a").rebooted, "it was started anew since");
    }

    #[test]
    fn a_reboot_of_a_node_that_never_called_is_no_session_of_it() {
        let (registry, mut changes) = registry();
        registry.rebooted("a", Instant::now());
        assert_eq!(registry.is_connected("a"), None);
        assert_eq!(kinds(&mut changes), [EventType::VMRebooted]);
        registry.set_desired("b", named("one"));
        registry.rebooted("b", Instant::now());
        let session = registry.open_session("b", Hello::default());
        assert!(session.report(StatusReport::default()));
        assert!(registry.view("b").connected);
    }

    #[test]
    fn equal_reports_are_no_change() {
        let (registry, mut changes) = registry();
        let session = registry.open_session("a", Hello::default());
        let condition = Condition { r#type: "DiskOK".to_owned(), ..Condition::default() };
        let report = StatusReport { conditions: vec![condition], ..StatusReport::default() };
        let version = registry.version();
        let before = *version.borrow();
        assert!(session.report(report.clone()) && session.report(report));
        assert_eq!(kinds(&mut changes), [EventType::NodeConnected, EventType::ConditionChanged]);
        assert_eq!(*version.borrow(), before + 1);
    }

    /// Whatever comes between two reports of the same disk.
    #[test]
    fn a_repair_is_told_once() {
        let (registry, mut changes) = registry();
        let report = |numbers: std::ops::RangeInclusive<u64>| {
            let outcome = RepairOutcome::Repaired.into();
            let repair = |number| Repair { number, outcome, ..Repair::default() };
            StatusReport { repairs: numbers.map(repair).collect(), ..StatusReport::default() }
        };
        let mut repairs = |numbers| {
            let session = registry.open_session("a", Hello::default());
            assert!(session.report(report(numbers)));
            let kinds = kinds(&mut changes);
            kinds.into_iter().filter(|kind| *kind == EventType::RepairSucceeded).count()
        };
        assert_eq!((repairs(1..=2), repairs(1..=2), repairs(2..=4)), (2, 0, 2));
        registry.reset("a");
        assert_eq!(registry.view("a").report.repairs.len(), 3, "they are of the disk, not of the run");
        assert_eq!((repairs(2..=4), repairs(2..=5)), (0, 1));
    }

    #[test]
    fn logs_need_a_session_and_end_with_their_reader() {
        let (registry, _changes) = registry();
        assert!(registry.open_logs("a", LogSelector::default()).is_err());
        let mut session = registry.open_session("a", Hello::default());
        let reader = registry.open_logs("a", LogSelector::default()).expect("connected");
        let asked = session.log_requests.try_recv().expect("asked the agent");
        drop(reader);
        assert!(registry.claim_logs("a", &asked.stream_id).is_none());
    }

    #[test]
    fn logs_are_pushed_by_the_node_that_was_asked() {
        let (registry, _changes) = registry();
        let mut session = registry.open_session("a", Hello::default());
        let _reader = registry.open_logs("a", LogSelector::default()).expect("connected");
        let asked = session.log_requests.try_recv().expect("asked the agent");
        assert!(registry.claim_logs("b", &asked.stream_id).is_none());
        assert!(registry.claim_logs("a", &asked.stream_id).is_some());
    }

    #[tokio::test]
    async fn a_reader_hears_when_its_node_has_another_session_and_when_it_is_removed() {
        let (registry, _changes) = registry();
        let _first = registry.open_session("a", Hello::default());
        assert_eq!((registry.is_connected("a"), registry.is_connected("b")), (Some(true), None));
        let reader = registry.open_logs("a", LogSelector::default()).expect("connected");
        let _second = registry.open_session("a", Hello::default());
        assert_eq!(reader.place_lost().await, PlaceLost::Replaced);
        let reader = registry.open_logs("a", LogSelector::default()).expect("connected");
        registry.remove("a");
        assert_eq!(reader.place_lost().await, PlaceLost::Removed);
    }

    #[test]
    fn a_log_that_nobody_will_push_ends_with_a_reason() {
        let (registry, _changes) = registry();
        let session = registry.open_session("a", Hello::default());
        let mut reader = registry.open_logs("a", LogSelector::default()).expect("connected");
        assert!(reader.is_unclaimed());
        drop(session);
        assert!(!reader.is_unclaimed());
        let last = reader.frames.try_recv().expect("the reason");
        assert_eq!(last, Err(LogLost("its agent went away".to_owned())));
        assert!(reader.frames.try_recv().is_err());
    }
}
