//! What follows when a cluster's task has ended. Where its cluster is still there, or there again, it is taken up anew;
//! a task that panics judges nothing, so that its operation is told of here, and ends at its deadline.

use std::sync::Weak;
use std::time::Duration;

use k8sctl_rpc::task::{Exit, Outcome};
use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;
use tokio::sync::mpsc;

use super::Manager;
use crate::cluster::progress::trouble_line;
use crate::events::NewEvent;
use crate::records::{OperationRecord, OperationState, RecordError};

/// Pause before a cluster's task that panicked is begun anew, and before another try where the records fail.
const PAUSE: Duration = Duration::from_secs(5);

const PREFIX: &str = "cluster-";

/// Name of the task of a cluster.
pub(super) fn task_name(cluster: &str) -> String {
    format!("{PREFIX}{cluster}")
}

/// Takes clusters up again whose task has ended, so that no operation hangs for ever.
pub(super) async fn take_up_again(manager: Weak<Manager>, mut exits: mpsc::UnboundedReceiver<Exit>) {
    while let Some(exit) = exits.recv().await {
        if let Outcome::Panicked(why) = &exit.outcome {
            let Some(manager) = manager.upgrade() else { return };
            let cluster = exit.name.strip_prefix(PREFIX).unwrap_or_default();
            if let Err(error) = manager.tell_of_panic(cluster, why).await {
                tracing::error!(cluster.name = cluster, error = %k8sctl_rpc::chain(&error), "cannot tell of a panic");
            }
            drop(manager);
            tokio::time::sleep(PAUSE).await;
        }
        // One that is done has ended with its cluster. Another of that name may have begun before it was gone itself,
        // and have told it, instead of a task of its own.
        loop {
            let Some(manager) = manager.upgrade() else { return };
            let Err(error) = manager.take_up_all().await else { break };
            tracing::error!(task.name = %exit.name, error = %k8sctl_rpc::chain(&error), "cannot take it up again");
            drop(manager);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Manager {
    pub(super) async fn tell_of_panic(&self, cluster: &str, why: &str) -> Result<(), RecordError> {
        let Some((_, Some(running))) = self.shared.records.at_work(cluster).await? else { return Ok(()) };
        if self.shared.has_ended(&running.id) {
            return Ok(());
        }
        let failure = Failure::new(
            "HOST-INTERNAL",
            format!("cluster {cluster}"),
            format!("the host agent's task of it broke off: {why}"),
            "look into the host agent's log, and report it",
        );
        if jiff::Timestamp::now() < running.deadline {
            // It is tried again; whoever watches sees what is waited for.
            self.shared.publish_record(&running, vec![trouble_line(&failure)]);
            return Ok(());
        }
        let event = NewEvent {
            cluster: cluster.to_owned(),
            object: failure.object.clone(),
            kind: EventType::OperationFailed,
            message: failure.to_string(),
            warning: true,
        };
        self.shared.record_end(&running.id, event).await;
        let written = self.shared.records.finish_operation(&running.id, Some(&failure)).await;
        let (state, finished) = (OperationState::Failed(failure), Some(jiff::Timestamp::now()));
        // Told also where it cannot be written: nobody waits for ever.
        self.shared.publish_record(&OperationRecord { state, finished, ..running }, Vec::new());
        written
    }
}
