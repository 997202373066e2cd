//! The way of changes from the registry to the event log: what is to be told of a node is made out at once, so that no
//! report waits in a queue, and each node has an allowance, so that none fills it. What is left out is counted, and told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8sctl_rpc::allowance::Allowance;
use k8sctl_types::event::EventType;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::node_events::{Line, lines};
use super::registry::NodeChange;

/// Lines of one node at once. Its whole way into a cluster makes some sixty.
const BURST: u32 = 300;
/// Lines of one node a minute after that: they push older events out of the log.
const PER_MINUTE: u32 = 30;
/// Nodes with an allowance of their own: those of eight clusters, each as large as one can be.
const NODES: usize = 8192;
/// Lines of all nodes on their way.
const QUEUE: usize = 8192;
/// How often it is asked what was left out.
const LOOK: Duration = Duration::from_secs(10);

type Shared = Arc<Mutex<Allowance<String>>>;

/// The end that tells.
#[derive(Clone, Debug)]
pub struct ChangeSender {
    lines: mpsc::Sender<(String, Line)>,
    allowance: Shared,
}

/// The end that listens.
#[derive(Debug)]
pub struct Changes {
    lines: mpsc::Receiver<(String, Line)>,
    allowance: Shared,
    left_out: VecDeque<(Option<String>, Line)>,
}

/// Both ends.
pub fn changes() -> (ChangeSender, Changes) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let allowance = Arc::new(Mutex::new(Allowance::new(BURST, PER_MINUTE, NODES)));
    let changes = Changes { lines: receiver, allowance: Arc::clone(&allowance), left_out: VecDeque::new() };
    (ChangeSender { lines: sender, allowance }, changes)
}

impl ChangeSender {
    /// Tells what the change says, as far as the node is allowed to.
    pub(super) fn tell(&self, node_id: &str, change: &NodeChange) {
        let now = Instant::now().into_std();
        let node_id = node_id.to_owned();
        let mut allowance = lock(&self.allowance);
        for line in lines(change, jiff::Timestamp::now()) {
            if !allowance.take(&node_id, now) {
                continue;
            }
            // If it is closed, nobody listens any more: the host agent drains.
            if let Err(mpsc::error::TrySendError::Full(_)) = self.lines.try_send((node_id.clone(), line)) {
                allowance.left_out(now);
            }
        }
    }
}

impl Changes {
    /// The next line, and the node that it is about; `None` there means several. `None` at all means that the registry
    /// is gone.
    pub(super) async fn next(&mut self) -> Option<(Option<String>, Line)> {
        // The first tick is at once: lines may come so fast that no call lasts until a later one.
        let mut look = tokio::time::interval(LOOK);
        loop {
            if let Some(line) = self.left_out.pop_front() {
                return Some(line);
            }
            // Both are cancel-safe: a line is taken only when it is returned, a tick only looks.
            tokio::select! {
                line = self.lines.recv() => return line.map(|(node_id, line)| (Some(node_id), line)),
                _ = look.tick() => self.look(Instant::now()),
            }
        }
    }

    /// Looks what was left out until now; it is among the next lines.
    fn look(&mut self, now: Instant) {
        for (node_id, count) in lock(&self.allowance).over(now.into_std()) {
            let message =
                format!("{count} changes within a minute or more were left out: there were too many");
            self.left_out.push_back((node_id, Line::new(EventType::EventsLeftOut, message, true)));
        }
    }

    /// What is there now.
    #[cfg(test)]
    pub(super) fn drain(&mut self) -> Vec<(Option<String>, Line)> {
        let left_out = std::mem::take(&mut self.left_out).into_iter();
        let lines = std::iter::from_fn(|| self.lines.try_recv().ok());
        left_out.chain(lines.map(|(node_id, line)| (Some(node_id), line))).collect()
    }
}

fn lock(allowance: &Shared) -> MutexGuard<'_, Allowance<String>> {
    // Counters: what a panic leaves behind is a little wrong at worst.
    allowance.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::registry::NodeRegistry;
    use k8sctl_proto::node::v1::{Condition, ConditionStatus, Hello, StatusReport, StepState, StepStatus};

    fn of<'a>(lines: &'a [(Option<String>, Line)], node: &str) -> Vec<&'a Line> {
        lines.iter().filter(|(id, _)| id.as_deref() == Some(node)).map(|(_, line)| line).collect()
    }

    /// Two reports in turn, each as unlike the other and as large as a message may be.
    fn flood(number: usize) -> StatusReport {
        let status = if number.is_multiple_of(2) { ConditionStatus::True } else { ConditionStatus::False };
        let condition = |at: usize| Condition {
            r#type: format!("Condition{at}"),
            status: status.into(),
            message: "x".repeat(9_000),
            ..Condition::default()
        };
        StatusReport { conditions: (0..100).map(condition).collect(), ..StatusReport::default() }
    }

    #[test]
    fn a_node_that_floods_fills_nothing_and_others_are_heard() {
        let (sender, mut changes) = changes();
        let registry = NodeRegistry::new(sender);
        let bad = registry.open_session("bad", Hello::default());
        for number in 0..3_000 {
            assert!(bad.report(flood(number)));
        }
        let good = registry.open_session("good", Hello::default());
        for attempts in 1..=100 {
            let step = |state: StepState| StepStatus {
                name: "kubeadm".into(),
                state: state.into(),
                attempts,
                ..StepStatus::default()
            };
            for state in [StepState::Running, StepState::Failed] {
                assert!(good.report(StatusReport { steps: vec![step(state)], ..StatusReport::default() }));
            }
        }
        let queued = changes.drain();
        assert_eq!(of(&queued, "bad").len(), BURST as usize);
        assert_eq!(of(&queued, "good").len(), 201, "a session and a hundred tries, none left out");
        let bytes: usize = queued.iter().map(|(_, line)| line.message.len()).sum();
        assert!(bytes < 1024 * 1024, "{bytes} bytes wait");
        let kept: usize =
            registry.view("bad").report.conditions.iter().map(|condition| condition.message.len()).sum();
        assert!(kept < 256 * 1024, "{kept} bytes are kept");

        changes.look(Instant::now() + Duration::from_secs(61));
        let later = changes.drain();
        assert_eq!(later.len(), 1, "one line says how many were left out: {later:?}");
        let Line { kind, message, warning, .. } = of(&later, "bad")[0];
        // The session, 64 conditions and the mark at first, and from then on 64 that change.
        let left_out = 1 + 65 + 2_999 * 64 - BURST as usize;
        assert!(*kind == EventType::EventsLeftOut && *warning);
        assert!(message.starts_with(&format!("{left_out} changes")), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_left_out_is_told_without_another_change() {
        let (sender, mut changes) = changes();
        for _ in 0..=BURST {
            sender.tell("a", &NodeChange::Disconnected);
        }
        for _ in 0..BURST {
            assert_eq!(changes.next().await.expect("a line").1.kind, EventType::NodeDisconnected);
        }
        assert_eq!(changes.next().await.expect("a line").1.kind, EventType::EventsLeftOut);
    }
}
