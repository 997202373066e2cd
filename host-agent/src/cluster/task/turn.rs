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
        let mut deadline = operation.map(|operation| operation.deadline);
        // Without an operation a cluster is being removed, after one for that has failed. Another may have begun since.
        let patience = deadline.map_or(RESYNC, until);
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
                () = &mut end => {
                    let now = match operation {
                        Some(operation) => Some(self.deadline(operation).await?),
                        None => None,
                    };
                    if now <= deadline {
                        break;
                    }
                    deadline = now;
                    end.set(tokio::time::sleep(now.map_or(RESYNC, until)));
                }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC};

    /// Somebody re-attached to it, with a longer deadline, since the look read it.
    #[tokio::test(start_paused = true)]
    async fn the_turn_is_waited_for_until_a_deadline_that_was_put_off() {
        let agent = FakeHostAgent::new().await;
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let (cluster, task) = (agent.cluster("home").await, agent.task("home"));
        let as_read = OperationRecord { deadline: jiff::Timestamp::UNIX_EPOCH, ..operation };
        let others = agent.shared.turns.try_take("other").expect("nobody has it");
        let end = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(others);
        };
        let (turn, ()) = tokio::join!(task.turn(&agent.shared, &cluster, Some(&as_read)), end);
        assert!(matches!(turn, Ok(Some(_))));
    }
}
