//! Waiting for this cluster's turn on the host: no longer than the operation may take, and not in silence.

use std::pin::pin;

use k8sctl_types::failure::Failure;

use super::report::progress_lines;
use super::trouble::Trouble;
use super::{ClusterTask, RESYNC, until};
use crate::cluster::progress::trouble_line;
use crate::cluster::shared::Shared;
use crate::cluster::turns::Turn;
use crate::records::{ClusterRecord, OperationRecord};

impl ClusterTask {
    /// The host for this cluster alone. What is waited for is in the operation's progress. `None` means: another
    /// operation has begun meanwhile, and the rest is left to its look.
    pub(super) async fn turn<'a>(
        &self,
        shared: &'a Shared,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
    ) -> Result<Option<Turn<'a>>, Trouble> {
        if let Some(turn) = shared.turns.try_take(&cluster.name) {
            return Ok(Some(turn));
        }
        if let Some(operation) = operation {
            let mut lines = progress_lines(cluster, &self.observed(cluster));
            lines.push(trouble_line(&busy(cluster, shared.turns.holder().as_deref())));
            shared.publish_record(operation, lines);
        }
        // Without an operation a cluster is being removed, after one for that has failed. Another may have begun since.
        let patience = operation.map_or(RESYNC, |operation| until(operation.deadline));
        let mut take = pin!(shared.turns.take(&cluster.name));
        let mut end = pin!(tokio::time::sleep(patience));
        loop {
            tokio::select! {
                // Cancel-safe: whoever gives up waiting has had no turn.
                turn = &mut take => {
                    if let Some(operation) = operation {
                        shared.publish_record(operation, progress_lines(cluster, &self.observed(cluster)));
                    }
                    return Ok(Some(turn));
                }
                () = self.wake.notified() => if !self.is_at_work(cluster, operation).await? {
                    return Ok(None);
                },
                () = &mut end => break,
            }
        }
        let holder = shared.turns.holder();
        Err(match operation {
            Some(_) => Trouble::Final(too_late(cluster, holder.as_deref())),
            None => Trouble::Passing(busy(cluster, holder.as_deref())),
        })
    }
}

fn busy(cluster: &ClusterRecord, holder: Option<&str>) -> Failure {
    let reason = format!("it waits for {}", changes_of(holder));
    Failure::new("OPERATION-RUNNING", format!("cluster {}", cluster.name), reason, next_step(holder))
}

fn too_late(cluster: &ClusterRecord, holder: Option<&str>) -> Failure {
    let reason = format!("the deadline passed while it waited for {}", changes_of(holder));
    let next = format!("{}, then run the command again", next_step(holder));
    Failure::new("OPERATION-DEADLINE", format!("cluster {}", cluster.name), reason, next)
}

fn changes_of(holder: Option<&str>) -> String {
    let whose = holder.map_or_else(|| "another cluster".to_owned(), |name| format!("cluster {name}"));
    format!("the changes that {whose} makes to this host")
}

fn next_step(holder: Option<&str>) -> String {
    match holder {
        Some(name) => format!("see with `k8sctl status {name}` how far those are"),
        None => "see with `k8sctl status` how far those are".to_owned(),
    }
}
