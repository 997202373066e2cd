//! Leaves alone the virtual processors that the host cannot run at once, while an emulated node becomes a member.
//!
//! Virtual processors that share a real one wait for each other: with four on two, an emulated control plane costs a
//! tenth more of the host's time than with two. What the node shall use comes with its desired state. Its slices are
//! bound to that many from the first desired state on until the last step is done; then they have all. The kubelet
//! counts them in `/sys`, where they stay.

use std::time::Duration;

use k8sctl_proto::node::v1::{DesiredState, StatusReport, StepState};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::durable::Root;
use crate::machine;
use crate::status::Board;
use crate::systemd::{Systemd, SystemdError};

/// Where containerd and the kubelet are, and where the kubelet puts its pods.
const SLICES: [&str; 2] = ["system.slice", "kubepods.slice"];
/// The last step.
const LAST: &str = "kubelet";
/// Longest that a node which does not become a member is bound.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// Between two tries to reach systemd, which begins to answer a moment after this agent does.
const AGAIN: Duration = Duration::from_millis(500);
/// Longest that one try may take: the bus itself sets no end to a call.
const ONE_TRY: Duration = Duration::from_secs(25);
/// Tries; then the node uses what it uses.
const TRIES: u32 = 240;

/// Binds and lets go; ends then.
pub async fn run(root: Root, board: Board, mut wanted: watch::Receiver<Option<DesiredState>>) {
    if !root.is_live() {
        return;
    }
    let Ok(desired) = wanted.wait_for(Option::is_some).await.map(|desired| desired.clone()) else { return };
    let all = machine::processors();
    let Some(some) = fewer(desired.map_or(0, |desired| desired.processors), all) else { return };
    let mut report = board.subscribe();
    if !is_done(&report.borrow()) {
        bind(some).await;
        // Either way it is let go.
        let _ = timeout(LONGEST, report.wait_for(is_done)).await;
    }
    // An agent before this one may have bound it, too.
    bind(all).await;
}

/// How many to use, where that is not all of them.
fn fewer(wanted: u32, all: u32) -> Option<u32> {
    (1..all).contains(&wanted).then_some(wanted)
}

fn is_done(report: &StatusReport) -> bool {
    report.steps.iter().any(|step| step.name == LAST && step.state() == StepState::Done)
}

/// The first `count` processors and no others.
async fn bind(count: u32) {
    for _ in 0..TRIES {
        match timeout(ONE_TRY, try_bind(count)).await {
            Ok(Ok(())) => {
                tracing::info!(count, "processors in use");
                return;
            }
            Ok(Err(error)) => tracing::debug!(count, error = %k8sctl_rpc::chain(&error), "cannot bind"),
            Err(_) => tracing::debug!(count, "systemd does not answer"),
        }
        sleep(AGAIN).await;
    }
    tracing::warn!(count, "systemd does not bind the slices to so many processors");
}

async fn try_bind(count: u32) -> Result<(), SystemdError> {
    let systemd = Systemd::connect().await?;
    for slice in SLICES {
        systemd.allow_processors(slice, mask(count)).await?;
    }
    Ok(())
}

/// systemd's form of a set: one bit each, from the lowest of the first byte on.
fn mask(count: u32) -> Vec<u8> {
    let mut mask = vec![0; count.div_ceil(8) as usize];
    for processor in 0..count {
        mask[(processor / 8) as usize] |= 1 << (processor % 8);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_bound_to_fewer_than_it_has_and_to_one_at_least() {
        let bound = [(0, 4), (1, 4), (2, 4), (4, 4), (8, 4), (2, 2), (2, 0)].map(|(n, all)| fewer(n, all));
        assert_eq!(bound, [None, Some(1), Some(2), None, None, None, None]);
    }

    #[test]
    fn a_set_is_a_bit_for_each() {
        assert_eq!(
            [1, 2, 4, 8, 9, 12].map(mask),
            [vec![1], vec![0b11], vec![0b1111], vec![0xff], vec![0xff, 1], vec![0xff, 0b1111]]
        );
    }

    #[test]
    fn it_is_let_go_with_the_last_step() {
        let board = Board::default();
        board.observe(1, &["kubeadm", LAST], false);
        board.step("kubeadm", |step| step.set_state(StepState::Done));
        assert!(!is_done(&board.subscribe().borrow()));
        board.step(LAST, |step| step.set_state(StepState::Done));
        assert!(is_done(&board.subscribe().borrow()));
    }
}
