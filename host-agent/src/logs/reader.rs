//! One reader: the logs of all its nodes, merged, and what it should know of them.
//!
//! While the nodes send what there was when the stream began, the order is exact, and everybody waits for the slowest.
//! Then a line waits as long as the window is for lines of other nodes that were written before it. Without `follow`
//! there is no window: a node that goes away is waited for, and what is missing in the end is told as a failure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8sctl_proto::control::v1::{ClusterLogLine, ClusterStatus, LogNotice, LogPosition, StreamLogsResponse};
use k8sctl_proto::node::v1::{LogFrame, LogLine, LogSelector};
use k8sctl_rpc::limits::{LOG_FRAME_BYTES, LOG_FRAME_LINES};
use k8sctl_rpc::status::status;
use k8sctl_types::failure::Failure;
use k8sctl_types::logs::merge::{Merge, Micros, Next, State};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};

use super::Clock;
use super::asked::Asked;
use super::node::{Missing, NodeEvent, NodeLog};
use super::position::{Position, Tracker};
use super::request::Wanted;
use crate::control::refused;
use crate::nodes::registry::NodeRegistry;

/// How long a line waits for lines of other nodes.
const WINDOW: Duration = Duration::from_millis(250);
/// How long after it was written a line may arrive as a rule: journald tells of it up to a quarter of a second later.
const LAG: Duration = Duration::from_millis(300);
/// How long a reader who follows waits for a node that sends nothing while others have sent lines.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Longest wait that is asked for.
const FAR: Duration = Duration::from_secs(3600);

type Sender = mpsc::Sender<Result<StreamLogsResponse, Status>>;
type Receiver = mpsc::Receiver<NodeEvent>;

/// A node as one reader sees it.
struct Node {
    name: String,
    id: String,
    tracker: Tracker,
    /// It has said what it knows.
    has_answered: bool,
    /// It cannot be read at the moment, and why; the reader has been told.
    away: Option<String>,
    /// It will not be read on, and why.
    failed: Option<(String, Missing)>,
    is_over: bool,
    is_removed: bool,
}

/// A stream of logs that is about to begin.
pub struct LogStream {
    registry: Arc<NodeRegistry>,
    selector: LogSelector,
    positions: HashMap<String, Position>,
    goes_on: bool,
    clock: Clock,
    asked: Asked,
    nodes: Vec<Node>,
    merge: Merge<LogLine>,
    /// Inputs whose next event is waited for.
    coming: FuturesUnordered<BoxFuture<'static, (usize, Option<NodeEvent>, Receiver)>>,
    /// Inputs that have lines waiting.
    resting: Vec<(usize, Receiver)>,
    members: Option<watch::Receiver<ClusterStatus>>,
    response: StreamLogsResponse,
    bytes: usize,
    moved: BTreeSet<usize>,
    /// A frame came since the last look.
    has_progress: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for LogStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStream").field("selector", &self.selector).finish_non_exhaustive()
    }
}

/// The reader is gone.
struct NoReader;

impl LogStream {
    /// Of these nodes, names and ids, and, with `members`, of all that come later.
    pub(super) fn new(
        registry: Arc<NodeRegistry>,
        wanted: Wanted,
        nodes: Vec<(String, String)>,
        members: Option<watch::Receiver<ClusterStatus>>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let goes_on = !wanted.positions.is_empty();
        let mut it = Self {
            registry,
            asked: Asked::of(&wanted.selector, goes_on),
            selector: wanted.selector,
            positions: wanted.positions,
            goes_on,
            clock: Clock::new(),
            nodes: Vec::new(),
            merge: Merge::new(WINDOW, LAG),
            coming: FuturesUnordered::new(),
            resting: Vec::new(),
            members,
            response: StreamLogsResponse::default(),
            bytes: 0,
            moved: BTreeSet::new(),
            has_progress: false,
            _place: place,
        };
        for (name, id) in nodes {
            // Who goes on has seen them all: after a start of the host agent they come back one after the other.
            let is_there = it.registry.is_connected(&id) == Some(true);
            let waits = is_there || it.goes_on || !it.selector.follow;
            let selector = it.selector.clone();
            it.add(name, id, selector, if waits { State::Loading } else { State::Away });
        }
        it
    }

    fn add(&mut self, name: String, id: String, mut selector: LogSelector, state: State) {
        let position = self.positions.remove(&name);
        if let Some(position) = &position {
            selector.after_cursor.clone_from(&position.behind);
        }
        // One, so that of what a node has sent little is kept here, and the rest holds it back.
        let (events, receiver) = mpsc::channel(1);
        let known = self.registry.is_connected(&id).is_some();
        let (registry, clock) = (Arc::clone(&self.registry), self.clock);
        let log = NodeLog { registry, id: id.clone(), selector, clock, events, known, caught_up: false };
        k8sctl_rpc::task::spawn(format!("logs-{name}"), log.run());
        let input = self.merge.add(state);
        debug_assert_eq!(input, self.nodes.len());
        self.nodes.push(Node {
            name,
            id,
            tracker: Tracker::at(position),
            has_answered: false,
            away: None,
            failed: None,
            is_over: false,
            is_removed: false,
        });
        self.await_event(input, receiver);
    }

    fn await_event(&mut self, input: usize, mut receiver: Receiver) {
        self.coming.push(Box::pin(async move {
            let event = receiver.recv().await;
            (input, event, receiver)
        }));
    }

    /// Reads until all is read, or until nobody takes it.
    pub async fn run(mut self, sender: Sender) -> Result<(), Status> {
        match self.flow(&sender).await {
            Ok(Some(failure)) if self.has_broken() => Err(status(Code::Internal, &failure)),
            Ok(Some(failure)) => Err(refused(&failure)),
            Ok(None) | Err(NoReader) => Ok(()),
        }
    }

    /// The reading of some node broke off, which is nothing that the reader could mend.
    fn has_broken(&self) -> bool {
        let is_broken = |node: &Node| matches!(&node.failed, Some((_, Missing::Broken)));
        self.nodes.iter().any(is_broken)
    }

    async fn flow(&mut self, sender: &Sender) -> Result<Option<Failure>, NoReader> {
        let mut blocked_since = None;
        loop {
            let next = self.drain(sender).await?;
            // Where all were removed others may come.
            let may_come = self.members.is_some() && self.nodes.iter().all(|node| node.is_removed);
            if next == Next::End && !may_come {
                return Ok(self.missing());
            }
            let is_blocked =
                self.selector.follow && self.merge.has_lines() && self.merge.blocking().next().is_some();
            // Some node is always waited for while older lines are read.
            let since = blocked_since.filter(|_| !std::mem::take(&mut self.has_progress));
            blocked_since = is_blocked.then(|| since.unwrap_or_else(Instant::now));
            let due = match next {
                Next::At(time) => Some(self.instant(time)),
                _ => blocked_since.map(|since| since + CATCH_UP),
            };
            tokio::select! {
                // Cancel-safe: what a node sent stays in its channel until it is returned, an unseen change of members
                // stays unseen, and the others only wait.
                Some((input, event, receiver)) = self.coming.next() => {
                    if let Some(failure) = self.take(input, event, receiver) {
                        return Ok(Some(failure));
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if blocked_since.is_some_and(|since| since.elapsed() >= CATCH_UP) {
                        self.wait_no_longer();
                    }
                }
                is_there = changed(&mut self.members) => {
                    if is_there { self.look_for_members() } else { self.members = None }
                }
                () = sender.closed() => return Err(NoReader),
            }
        }
    }

    fn instant(&self, time: Micros) -> Instant {
        let left = u64::try_from(time.saturating_sub(self.clock.now())).unwrap_or_default();
        Instant::now() + Duration::from_micros(left).min(FAR)
    }

    /// Sends every line whose turn it is, in responses of the size of a node's frames.
    async fn drain(&mut self, sender: &Sender) -> Result<Next<LogLine>, NoReader> {
        let mut now = self.clock.now();
        loop {
            match self.merge.next(now) {
                Next::Line { input, item, late } => {
                    let node = &mut self.nodes[input];
                    self.moved.insert(input);
                    if !node.tracker.line(&item.source) {
                        continue;
                    }
                    self.bytes += item.text.len() + item.source.len();
                    let node_name = node.name.clone();
                    self.response.lines.push(ClusterLogLine { node_name, line: Some(item), late });
                    if self.bytes >= LOG_FRAME_BYTES || self.response.lines.len() >= LOG_FRAME_LINES {
                        self.flush(sender).await?;
                        now = self.clock.now();
                    }
                }
                other => {
                    self.flush(sender).await?;
                    self.go_on();
                    return Ok(other);
                }
            }
        }
    }

    async fn flush(&mut self, sender: &Sender) -> Result<(), NoReader> {
        for input in std::mem::take(&mut self.moved) {
            let node = &self.nodes[input];
            if let Some(position) = node.tracker.position() {
                let (node_name, cursor) = (node.name.clone(), position.to_string());
                self.response.positions.push(LogPosition { node_name, cursor });
            }
        }
        self.bytes = 0;
        let response = std::mem::take(&mut self.response);
        if response == StreamLogsResponse::default() {
            return Ok(());
        }
        sender.send(Ok(response)).await.map_err(|_| NoReader)
    }

    /// Waits for events of those whose lines have all been given out.
    fn go_on(&mut self) {
        let wants = |(input, _): &mut (usize, Receiver)| self.merge.wants(*input);
        let ready: Vec<_> = self.resting.extract_if(.., wants).collect();
        for (input, receiver) in ready {
            self.await_event(input, receiver);
        }
    }

    /// Takes in what a node's log has to say; a failure ends the stream.
    fn take(&mut self, input: usize, event: Option<NodeEvent>, receiver: Receiver) -> Option<Failure> {
        match event {
            Some(NodeEvent::Frame(frame, arrived)) => {
                self.take_frame(input, frame, arrived);
                if self.merge.wants(input) {
                    self.await_event(input, receiver);
                } else {
                    self.resting.push((input, receiver));
                }
            }
            Some(NodeEvent::Away(reason)) => {
                self.go_away(input, reason);
                self.await_event(input, receiver);
            }
            Some(NodeEvent::Ended) => {
                // It knows all that it did not say to be unknown, also where no line of that passes.
                if !std::mem::replace(&mut self.nodes[input].has_answered, true) {
                    self.asked.answer(&[]);
                }
                self.end(input);
            }
            Some(NodeEvent::Failed(reason, why)) => self.fail(input, reason, why),
            Some(NodeEvent::Removed) => {
                self.end(input);
                self.nodes[input].is_removed = true;
                self.notice(input, "it was removed".to_owned());
            }
            // Its task panicked.
            None => {
                self.fail(input, "the host agent's reading of it broke off".to_owned(), Missing::Broken);
                // Whoever follows would wait for lines that never come.
                if self.selector.follow {
                    return self.missing();
                }
            }
        }
        self.settle()
    }

    fn take_frame(&mut self, input: usize, frame: LogFrame, arrived: Micros) {
        self.has_progress = true;
        let node = &mut self.nodes[input];
        if node.away.take().is_some() {
            self.notice(input, "it is read again".to_owned());
            if self.merge.state(input) == State::Away {
                self.merge.set(input, State::Live);
            }
        }
        let says = !frame.lines.is_empty()
            || !frame.unknown.is_empty()
            || !frame.cursor.is_empty()
            || frame.caught_up;
        let node = &mut self.nodes[input];
        if says && !std::mem::replace(&mut node.has_answered, true) {
            self.asked.answer(&frame.unknown);
        }
        if !frame.lines.is_empty() || !frame.cursor.is_empty() {
            node.tracker.frame(frame.lines.len(), &frame.cursor);
            self.moved.insert(input);
        }
        self.merge.push(input, arrived, frame.lines.into_iter().map(|line| (micros(&line), line)));
        if frame.caught_up {
            self.merge.set(input, State::Live);
        }
    }

    fn go_away(&mut self, input: usize, reason: String) {
        // While it is waited for in order, as long as that lasts.
        let is_waited_for = !self.selector.follow || (self.goes_on && !self.nodes[input].has_answered);
        if !is_waited_for {
            self.merge.set(input, State::Away);
        }
        if self.nodes[input].away.as_ref() != Some(&reason) {
            let until =
                if self.selector.follow { "its lines come when it is back" } else { "it is waited for" };
            self.notice(input, format!("{reason}; {until}"));
            self.nodes[input].away = Some(reason);
        }
    }

    fn fail(&mut self, input: usize, reason: String, why: Missing) {
        self.end(input);
        if self.nodes.len() > 1 {
            self.notice(input, format!("its lines are missing: {reason}"));
        }
        self.nodes[input].failed = Some((reason, why));
    }

    fn end(&mut self, input: usize) {
        self.nodes[input].is_over = true;
        self.merge.set(input, State::Ended);
    }

    fn notice(&mut self, input: usize, message: String) {
        let node_name = self.nodes[input].name.clone();
        self.response.notices.push(LogNotice { node_name, message });
    }

    /// Once all have said what they know, or cannot: what nobody knows.
    fn settle(&mut self) -> Option<Failure> {
        // One that is away is waited for, and who does not follow can wait for what it knows.
        let speaks_later = |node: &Node| self.selector.follow && node.away.is_some();
        if !self.nodes.iter().all(|node| node.has_answered || node.is_over || speaks_later(node)) {
            return None;
        }
        let failure = self.asked.unknown()?;
        let away: Vec<String> =
            self.nodes.iter().filter(|it| !it.has_answered).map(|it| it.name.clone()).collect();
        if away.is_empty() {
            return Some(failure);
        }
        let reason = format!("{}; not asked: {}", failure.reason, away.join(", "));
        if !self.selector.follow {
            return Some(Failure { reason, ..failure });
        }
        // It may be on a node that is away.
        if let Some(input) = self.nodes.iter().position(|node| node.has_answered) {
            self.notice(input, reason);
        }
        None
    }

    /// Others have waited long enough.
    fn wait_no_longer(&mut self) {
        let blocking: Vec<usize> = self.merge.blocking().collect();
        for input in blocking {
            if self.nodes[input].away.is_some() {
                self.merge.set(input, State::Away);
                continue;
            }
            self.merge.set(input, State::Live);
            self.notice(
                input,
                format!("it has sent nothing for {CATCH_UP:?}: its older lines may come late"),
            );
        }
    }

    /// Adds the nodes that are new in the cluster.
    fn look_for_members(&mut self) {
        let Some(members) = &mut self.members else { return };
        let mut new = Vec::new();
        for node in &members.borrow_and_update().nodes {
            let is_known = self.nodes.iter().any(|known| known.id == node.id);
            if !is_known && !node.id.is_empty() && !node.name.is_empty() {
                new.push((node.name.clone(), node.id.clone()));
            }
        }
        for (name, id) in new {
            // All its lines are new.
            let selector = LogSelector { tail: None, ..self.selector.clone() };
            self.add(name, id, selector, State::Away);
            let input = self.nodes.len() - 1;
            self.notice(input, "it is new, and is read too".to_owned());
        }
    }

    /// What is missing in a stream that has come to its end.
    fn missing(&self) -> Option<Failure> {
        let missing: Vec<(&Node, &str, Missing)> = self
            .nodes
            .iter()
            .filter_map(|node| node.failed.as_ref().map(|(reason, why)| (node, reason.as_str(), *why)))
            .collect();
        let (first, reason, why) = missing.first()?;
        let is_alike = missing.iter().all(|(_, _, other)| other == why);
        let names: Vec<&str> = missing.iter().map(|(node, ..)| node.name.as_str()).collect();
        let object = format!("node{} {}", if names.len() > 1 { "s" } else { "" }, names.join(", "));
        let others = match self.nodes.len() - missing.len() {
            0 => "",
            _ if self.nodes.iter().any(|node| !node.is_over) => "; the log of the other nodes ends with it",
            _ => "; the lines of the other nodes are complete",
        };
        let reason = if missing.iter().all(|(_, other, _)| other == reason) {
            format!("{reason}{others}")
        } else {
            let each: Vec<String> =
                missing.iter().map(|(node, why, _)| format!("{}: {why}", node.name)).collect();
            format!("{}{others}", each.join("; "))
        };
        Some(match why {
            _ if self.has_broken() => {
                let next = "read it again; look into the host agent's log for a panic, and report it";
                Failure::new("HOST-INTERNAL", object, reason, next)
            }
            Missing::Away if is_alike => {
                let next =
                    "check it with `k8sctl status`; a node that is down keeps its logs until it is back";
                Failure::new("NODE-NOT-CONNECTED", object, reason, next)
            }
            Missing::Busy if is_alike => {
                let next = "end one of the logs that are read of it, or try again in a moment";
                Failure::new("NODE-BUSY", object, reason, next)
            }
            _ => {
                let node = &first.name;
                let next = format!("check the node with `k8sctl status`, then try again: k8sctl logs {node}");
                Failure::new("NODE-LOGS", object, reason, next)
            }
        })
    }
}

/// Waits for a change; `false` means that there will be none. Pending where there is nothing to wait for.
async fn changed(members: &mut Option<watch::Receiver<ClusterStatus>>) -> bool {
    match members {
        Some(members) => members.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

fn micros(line: &LogLine) -> Micros {
    super::micros(&line.time.unwrap_or_default())
}

#[cfg(test)]
mod tests;
