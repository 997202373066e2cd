//! Units that have failed: `UnitsOK`. systemd tells of no such list by a signal, so that it is asked now and then.

use std::time::Duration;

use k8sctl_proto::node::v1::ConditionStatus::{False, True, Unknown};
use tokio::time::sleep;

use crate::retry::{self, Backoff};
use crate::status::Board;
use crate::systemd::{Systemd, SystemdError};

const CONDITION: &str = "UnitsOK";
/// How often.
const LOOK: Duration = Duration::from_secs(30);
/// Names in a message.
const NAMED: usize = 8;

/// Looks until the runtime ends.
pub async fn watch(board: Board) {
    let mut backoff = Backoff::new(retry::WATCH);
    loop {
        let error = match Systemd::connect().await {
            Ok(systemd) => {
                backoff.reset();
                follow(&board, &systemd).await
            }
            Err(error) => error,
        };
        board.condition(CONDITION, Unknown, "SystemdSilent", k8sctl_rpc::chain(&error).to_string());
        sleep(backoff.next_pause()).await;
    }
}

/// Until the connection ends.
async fn follow(board: &Board, systemd: &Systemd) -> SystemdError {
    loop {
        let mut failed = match systemd.failed_units().await {
            Ok(failed) => failed,
            Err(error) => return error,
        };
        failed.sort();
        if failed.is_empty() {
            board.condition(CONDITION, True, "NoneFailed", "");
        } else {
            board.condition(CONDITION, False, "Failed", name(&failed));
        }
        sleep(LOOK).await;
    }
}

fn name(failed: &[String]) -> String {
    let mut names = failed[..failed.len().min(NAMED)].join(", ");
    if failed.len() > NAMED {
        names.push_str(&format!(" and {} more", failed.len() - NAMED));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_named_and_the_rest_counted() {
        let units = |count: usize| (0..count).map(|at| format!("{at}.service")).collect::<Vec<_>>();
        assert_eq!(name(&units(2)), "0.service, 1.service");
        assert!(name(&units(20)).ends_with("7.service and 12 more"));
    }
}
