//! How the join authority tells of what happens: anybody can be refused, as often as he likes, so each peer has an
//! allowance and the way to the listener is bounded. What is left out is counted, and told.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8sctl_rpc::allowance::Allowance;
use tokio::sync::mpsc;
use tokio::time::interval;

use super::JoinEvent;

/// Addresses whose refusals are told at a time, one a minute each.
const ADDRESSES: usize = 32;
/// Events of one node: at once, and a minute after that. They need a secret or a certificate.
const NODE: (u32, u32) = (20, 2);
/// Nodes at a time.
const NODES: usize = 4096;
/// Events on their way.
const EVENTS: usize = 1024;
/// How often it is asked what was left out.
const LOOK: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Allowances {
    addresses: Allowance<IpAddr>,
    nodes: Allowance<String>,
}

type Shared = Arc<Mutex<Allowances>>;

/// The end that tells.
#[derive(Clone, Debug)]
pub struct JoinTeller {
    events: mpsc::Sender<JoinEvent>,
    allowances: Shared,
}

/// The end that listens.
#[derive(Debug)]
pub struct JoinEvents {
    events: mpsc::Receiver<JoinEvent>,
    allowances: Shared,
    left_out: VecDeque<JoinEvent>,
}

/// Both ends.
pub fn join_events() -> (JoinTeller, JoinEvents) {
    let (sender, receiver) = mpsc::channel(EVENTS);
    let (addresses, nodes) = (Allowance::new(1, 1, ADDRESSES), Allowance::new(NODE.0, NODE.1, NODES));
    let allowances = Arc::new(Mutex::new(Allowances { addresses, nodes }));
    let events =
        JoinEvents { events: receiver, allowances: Arc::clone(&allowances), left_out: VecDeque::new() };
    (JoinTeller { events: sender, allowances }, events)
}

impl JoinTeller {
    /// Tells of it unless its peer has told too much. `false` means that it was only counted.
    pub(super) fn tell(&self, event: JoinEvent) -> bool {
        let now = Instant::now();
        let mut allowances = lock(&self.allowances);
        let heard = match &event {
            // Only who has the secret can use it a second time, so the node is one of ours.
            JoinEvent::Refused { node_id: Some(node_id), refusal, .. } if refusal.is_second_use() => {
                allowances.nodes.take(node_id, now)
            }
            JoinEvent::Refused { peer, .. } => allowances.addresses.take(peer, now),
            JoinEvent::Joined { node_id, .. } | JoinEvent::Replaced { node_id, .. } => {
                allowances.nodes.take(node_id, now)
            }
            JoinEvent::LeftOut { .. } | JoinEvent::NoRoom { .. } => true,
        };
        if !heard {
            return false;
        }
        let told = self.events.try_send(event);
        if let Err(mpsc::error::TrySendError::Full(_)) = &told {
            allowances.nodes.left_out(now);
        }
        // If closed, nobody listens any more: the program ends.
        told.is_ok()
    }
}

impl JoinEvents {
    /// The next event. `None` means that the authority is gone.
    pub async fn next(&mut self) -> Option<JoinEvent> {
        // The first tick is at once: events may come so fast that no call lasts until a later one.
        let mut look = interval(LOOK);
        loop {
            if let Some(event) = self.left_out.pop_front() {
                return Some(event);
            }
            // Both are cancel-safe: a message is taken only when it is returned, a tick only looks.
            tokio::select! {
                event = self.events.recv() => return event,
                _ = look.tick() => self.look(Instant::now()),
            }
        }
    }

    /// The next event, if one is there.
    pub fn try_next(&mut self) -> Option<JoinEvent> {
        self.left_out.pop_front().or_else(|| self.events.try_recv().ok())
    }

    /// Looks what was left out until now; it is among the next events.
    pub fn look(&mut self, now: Instant) {
        let mut allowances = lock(&self.allowances);
        for (peer, count) in allowances.addresses.over(now) {
            self.left_out.push_back(JoinEvent::LeftOut { node_id: None, peer, count });
        }
        for (node_id, count) in allowances.nodes.over(now) {
            self.left_out.push_back(match node_id {
                Some(_) => JoinEvent::LeftOut { node_id, peer: None, count },
                None => JoinEvent::NoRoom { count },
            });
        }
    }
}

fn lock(allowances: &Shared) -> MutexGuard<'_, Allowances> {
    // Counters: what a panic leaves behind is a little wrong at worst.
    allowances.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_that_find_the_queue_full_are_not_called_refusals() {
        let (teller, mut events) = join_events();
        let joined = |node: usize| JoinEvent::Joined {
            node_id: format!("node-{node}"),
            peer: IpAddr::from([192, 168, 140, 7]),
        };
        let heard = (0..EVENTS + 5).filter(|&node| teller.tell(joined(node))).count();
        assert_eq!(heard, EVENTS);
        events.look(Instant::now() + Duration::from_secs(61));
        assert_eq!(events.try_next(), Some(JoinEvent::NoRoom { count: 5 }));
        let mut rest = std::iter::from_fn(|| events.try_next());
        assert!(rest.all(|event| matches!(event, JoinEvent::Joined { .. })));
    }
}
