//! How an operation ends, and what becomes of a look that failed.

use std::time::{Duration, Instant};

use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;

use super::report::progress_lines;
use super::{ClusterTask, RESYNC, is_one};
use crate::cluster::desired::domain_ref;
use crate::cluster::manager::RequestError;
use crate::cluster::progress::{self, Observed};
use crate::kubernetes::KubernetesError;
use crate::records::{ClusterRecord, OperationRecord, OperationState, RecordError};

/// A passing failure may last so long before it ends an operation.
const GRACE: Duration = Duration::from_secs(60);
/// Pause after a passing failure.
const RETRY: Duration = Duration::from_secs(2);
/// Between two looks at pods that leave.
const DRAIN_LOOK: Duration = Duration::from_secs(1);

/// Why a look at the cluster did not come to its end.
pub(super) enum Trouble {
    /// May pass by itself.
    Passing(Failure),
    /// Somebody must act.
    Final(Failure),
}

impl Trouble {
    pub(super) fn failure(&self) -> &Failure {
        match self {
            Self::Passing(failure) | Self::Final(failure) => failure,
        }
    }
}

impl From<RecordError> for Trouble {
    fn from(error: RecordError) -> Self {
        Self::Passing(error.failure())
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        // What went between looking and acting is seen by the next look, which plans anew.
        let passes = matches!(failure.id.as_str(), "LIBVIRT-UNREACHABLE" | "LIBVIRT-GONE");
        if passes { Self::Passing(failure) } else { Self::Final(failure) }
    }
}

impl From<RequestError> for Trouble {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(failure) => failure.into(),
            RequestError::Records(error) => error.into(),
            RequestError::Diagnostics(_) => unreachable!("the task parses no spec"),
        }
    }
}

impl From<KubernetesError> for Trouble {
    fn from(error: KubernetesError) -> Self {
        Self::Passing(Failure::new(
            "KUBERNETES-API",
            "Kubernetes API",
            k8sctl_rpc::chain(&error).to_string(),
            "see what `k8sctl status` says of the control plane, then run the command again",
        ))
    }
}

impl ClusterTask {
    /// Ends the operation when it has reached its goal, or when it cannot.
    pub(super) async fn judge(
        &mut self,
        cluster: &ClusterRecord,
        observed: &Observed,
        operation: &OperationRecord,
    ) -> Result<(), Trouble> {
        // Also a host that stood still in this look is taken in only by the next one.
        let now = self.pace.now();
        let limit = self.shared.config.silence_deadline;
        let since = self.woke.map_or(operation.started, |woke| woke.max(operation.started));
        let silence = progress::Silence { since, limit };
        if progress::missing(cluster, observed).is_none() {
            let (object, kind) = (format!("cluster {}", cluster.name), EventType::OperationSucceeded);
            self.end_event(&operation.id, &object, kind, "all is as the file says", false).await;
            self.succeed(cluster, observed, operation).await?;
        } else if let Some((node_id, failure)) = progress::failure(cluster, observed, silence, now) {
            let failure = match node_id {
                Some(id) => self.with_console(cluster, &id, failure).await,
                None => failure,
            };
            self.fail(Some((cluster, observed)), operation, &failure).await;
        } else if now >= operation.deadline {
            let (node_id, failure) = progress::deadline_failure(cluster, observed);
            let failure = match node_id {
                Some(id) => self.with_console(cluster, &id, failure).await,
                None => failure,
            };
            self.fail(Some((cluster, observed)), operation, &failure).await;
        } else {
            let silent = progress::next_silence(cluster, observed, silence);
            let evicts = !self.drains.is_empty() || self.restart.is_some();
            let drain = now.checked_add(DRAIN_LOOK).ok().filter(|_| evicts);
            self.next_deadline = silent.into_iter().chain(drain).chain([operation.deadline]).min();
            return Ok(());
        }
        self.wake.notify_one();
        Ok(())
    }

    async fn with_console(&self, cluster: &ClusterRecord, node_id: &str, failure: Failure) -> Failure {
        let node = cluster.nodes.iter().find(|node| node.id == node_id);
        let Some(node) = node.filter(|_| failure.evidence.is_empty()) else { return failure };
        match self.shared.hypervisor.console_tail(&domain_ref(cluster, node), 4096).await {
            Ok(console) if console.trim().is_empty() => {
                failure.with_evidence("(its console has printed nothing)")
            }
            Ok(console) => failure.with_evidence(format!("-- end of the console --\n{console}")),
            Err(error) => failure.with_evidence(format!("(no console: {})", error.reason)),
        }
    }

    /// The status first: who sees the operation end, and looks, sees how it ended.
    async fn succeed(
        &mut self,
        cluster: &ClusterRecord,
        observed: &Observed,
        operation: &OperationRecord,
    ) -> Result<(), RecordError> {
        self.shared.records.finish_operation(&operation.id, None).await?;
        if let Err(error) = self.publish(cluster, observed, None).await {
            let error = k8sctl_rpc::chain(&error);
            tracing::error!(cluster.name = %self.name, error = %error, "cannot publish a cluster's status");
        }
        let (state, finished) = (OperationState::Succeeded, Some(jiff::Timestamp::now()));
        self.shared.publish_end(&OperationRecord { state, finished, ..operation.clone() }).await;
        Ok(())
    }

    /// Ends an operation badly. Records that cannot be written hold up nobody who waits for its end: the failure is
    /// told, and written down by a later look.
    async fn fail(
        &mut self,
        seen: Option<(&ClusterRecord, &Observed)>,
        operation: &OperationRecord,
        failure: &Failure,
    ) {
        let kind = EventType::OperationFailed;
        self.end_event(&operation.id, &failure.object, kind, &failure.to_string(), true).await;
        let ended = OperationRecord {
            state: OperationState::Failed(failure.clone()),
            finished: Some(jiff::Timestamp::now()),
            ..operation.clone()
        };
        if let Err(error) = self.shared.records.finish_operation(&operation.id, Some(failure)).await {
            self.note_unwritten(&error);
            self.unwritten = Some(ended.clone());
        }
        if let Some((cluster, observed)) = seen
            && let Err(error) = self.publish(cluster, observed, None).await
        {
            self.note_unwritten(&error);
        }
        if self.unwritten.is_none() {
            self.shared.publish_end(&ended).await;
        } else {
            self.shared.publish_record(&ended, Vec::new());
        }
    }

    /// Writes down how an operation failed, where that was not possible then.
    pub(super) async fn write_down_failure(&mut self) {
        let Some(OperationRecord { id, state: OperationState::Failed(failure), .. }) = &self.unwritten else {
            return;
        };
        let written = async {
            self.shared.records.finish_operation(id, Some(failure)).await?;
            self.shared.publish_operation(id, Vec::new()).await
        };
        match written.await {
            Ok(()) => self.unwritten = None,
            Err(error) => self.note_unwritten(&error),
        }
    }

    fn note_unwritten(&self, error: &RecordError) {
        tracing::error!(cluster.name = %self.name, error = %k8sctl_rpc::chain(error), "cannot record a failure");
    }

    pub(super) async fn take_trouble(&mut self, trouble: Trouble) -> Duration {
        let (cluster, running) = match self.shared.records.at_work(&self.name).await {
            Ok(Some((cluster, running))) => (Some(cluster), running),
            Ok(None) => (None, None),
            // Whoever waits for the operation of the last look hears of it nevertheless.
            Err(_) => (None, self.operation.clone()),
        };
        // What was in the way of one operation is not in the way of another that has begun meanwhile.
        let running = running.filter(|it| is_one(&self.operation, it) && !self.shared.has_ended(&it.id));
        // Each operation has its own patience.
        let id = running.as_ref().map(|operation| operation.id.clone()).unwrap_or_default();
        let since = match self.troubled_since.take() {
            Some((since, whose)) if whose == id => since,
            _ => Instant::now(),
        };
        self.troubled_since = Some((since, id));
        let (failure, is_final) = match trouble {
            Trouble::Passing(failure) => (failure, since.elapsed() >= GRACE),
            Trouble::Final(failure) => (failure, true),
        };
        tracing::warn!(cluster.name = %self.name, error = ?failure.to_string(), last = is_final, "cannot converge");
        self.observe_anew().await;
        if let Some(operation) = running {
            let seen = cluster.as_ref().map(|cluster| (cluster, self.observed(cluster)));
            if is_final || self.pace.now() >= operation.deadline {
                let seen = seen.as_ref().map(|(cluster, observed)| (*cluster, observed));
                self.fail(seen, &operation, &failure).await;
            } else {
                // Whoever watches sees what is waited for.
                let mut lines =
                    seen.map(|(cluster, observed)| progress_lines(cluster, &observed)).unwrap_or_default();
                lines.push(progress::trouble_line(&failure));
                if self.shared.publish_operation(&operation.id, lines.clone()).await.is_err() {
                    self.shared.publish_record(&operation, lines);
                }
            }
        }
        // The next try goes by what is there then.
        self.host = None;
        // What only a person can mend is looked at no more often than all else.
        if is_final { RESYNC } else { RETRY }
    }
}

#[cfg(test)]
mod tests {
    use host_hypervisor::fake::{FAULT, Fault};

    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC};
    use crate::cluster::progress::VM_UNKNOWN;

    #[tokio::test]
    async fn vms_are_unknown_only_while_libvirt_is_away() {
        let agent = FakeHostAgent::new().await;
        agent.begin(agent.generation(SPEC).await).await;
        let mut task = agent.task("home");
        let states = |task: &ClusterTask| -> Vec<String> {
            task.status.borrow().nodes.iter().map(|node| node.vm_state.clone()).collect()
        };
        agent.hypervisor.host().fault = Some((0, Fault::Before));
        let Err(trouble) = task.look().await else { panic!("nothing goes wrong") };
        assert_eq!(trouble.failure().id, FAULT);
        assert_eq!(states(&task), ["missing", "missing"]);
        task.take_trouble(trouble).await;
        assert_eq!(states(&task), ["missing", "missing"], "its operation has failed");

        agent.hypervisor.host().unreachable = true;
        let Err(trouble) = task.look().await else { panic!("nothing goes wrong") };
        assert_eq!(trouble.failure().id, "LIBVIRT-UNREACHABLE");
        assert_eq!(states(&task), [VM_UNKNOWN, VM_UNKNOWN]);
    }
}
