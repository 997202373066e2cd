//! Refuses calls of node agents, and writes it to the host agent's own log within an allowance for each node: whoever is
//! root in a VM can be refused as often as it likes.

use std::sync::{Arc, Mutex, PoisonError};

use k8sctl_rpc::allowance::Allowance;
use k8sctl_rpc::status::status;
use k8sctl_types::failure::Failure;
use tokio::time::Instant;
use tonic::{Code, Status};

/// What helps an agent of another release: the image of a cluster that lives, and with it the agent, stays.
pub(super) const OTHER_RELEASE: &str = "build a new image with `k8sctl image build -f FILE`, then `k8sctl down` and \
                                        `k8sctl up`; or use the host agent of the image's release";
/// What helps an agent that is too old and can replace itself.
pub(super) const UPGRADE: &str = "give it this host's agent with `k8sctl upgrade agents`";
/// Warnings about one node at once.
const BURST: u32 = 20;
/// Warnings about one node a minute after that.
const PER_MINUTE: u32 = 2;
/// Nodes with an allowance of their own.
const NODES: usize = 4096;

/// Refuses; clones share the allowances.
#[derive(Clone, Debug)]
pub struct Refusals(Arc<Mutex<Allowance<String>>>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Allowance::new(BURST, PER_MINUTE, NODES))))
    }
}

impl Refusals {
    /// The status for a node that is refused.
    pub fn refuse(&self, code: Code, node_id: &str, reason: &str, next_step: &str) -> Status {
        let failure = Failure::new("NODE-SESSION-REFUSED", format!("node {node_id}"), reason, next_step);
        let (is_told, left_out) = {
            let now = Instant::now().into_std();
            // Counters: what a panic leaves behind is a little wrong at worst.
            let mut allowance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let left_out = allowance.over(now);
            (allowance.take(&node_id.to_owned(), now), left_out)
        };
        for (node_id, count) in left_out {
            let node_id = node_id.unwrap_or_default();
            tracing::warn!(node.id = node_id, count, "refused node agents more often than was logged");
        }
        if is_told {
            tracing::warn!(node.id = %node_id, error = %failure, "refused a node agent");
        } else {
            tracing::debug!(node.id = %node_id, error = %failure, "refused a node agent");
        }
        status(code, &failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_lines;
    use std::time::Duration;
    use tracing::Level;

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_refused_in_a_loop_does_not_fill_the_log() {
        let (warnings, _guard) = log_lines::collect(Level::WARN);
        let refusals = Refusals::default();
        let refuse = |node: &str| refusals.refuse(Code::NotFound, node, "nobody reads it", "read again");
        for _ in 0..10_000 {
            assert_eq!(refuse("bad").code(), Code::NotFound, "it is refused each time");
        }
        let burst = BURST as usize;
        assert_eq!(warnings.count(), burst);
        refuse("good");
        assert_eq!(warnings.count(), burst + 1, "another node is heard");
        tokio::time::advance(Duration::from_secs(61)).await;
        refuse("bad");
        assert_eq!(warnings.count(), burst + 3, "how many there were, and the new one");
    }
}
