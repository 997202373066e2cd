//! On whose behalf a look acts: it reads the operation, then waits for other clusters, for an image, for VMs. An
//! operation that has given way meanwhile acts no more.

use host_hypervisor::change::HostChange;

use super::trouble::Trouble;
use super::{ClusterTask, is_one};
use crate::cluster::execute::execute_change;
use crate::records::{ClusterRecord, OperationRecord, RecordError};

impl ClusterTask {
    /// The running operation, but for one that failed and could not be recorded as such.
    pub(super) fn unless_it_failed(&self, running: Option<OperationRecord>) -> Option<OperationRecord> {
        running.filter(|it| !is_one(&self.unwritten, it))
    }

    /// Whether the cluster's running operation, or that there is none, is what the look began with. Every new spec, and
    /// every removal, comes with an operation of its own.
    pub(super) async fn is_at_work(
        &self,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
    ) -> Result<bool, RecordError> {
        let running = self.unless_it_failed(self.shared.records.running_operation(&cluster.id).await?);
        let holds = running.map(|it| it.id) == operation.map(|it| it.id.clone());
        if !holds {
            self.wake.notify_one();
        }
        Ok(holds)
    }

    /// Executes the changes in order; stops at the first that fails. `false` means: the operation has given way.
    pub(super) async fn carry_out(
        &mut self,
        cluster: &ClusterRecord,
        operation: Option<&OperationRecord>,
        changes: &[HostChange],
    ) -> Result<bool, Trouble> {
        for change in changes {
            if !self.is_at_work(cluster, operation).await? {
                return Ok(false);
            }
            execute_change(&*self.shared.hypervisor, &self.shared.events, &cluster.name, change).await?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8sctl_proto::control::v1 as control;
    use tokio::sync::{Notify, watch};

    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC};
    use crate::records::{Begun, NewGeneration};

    #[tokio::test]
    async fn what_was_read_before_the_wait_for_other_clusters_may_be_overtaken() {
        let agent = FakeHostAgent::new().await;
        let begin = async |text: &str| {
            let before = agent.shared.records.cluster("home").await.expect("reads");
            let generation = NewGeneration {
                spec: k8sctl_types::spec::parse(text).expect("a sound spec").spec,
                image_id: agent.image_id(),
                kubernetes: "v1.29.0".to_owned(),
                trial: false,
                deadline: jiff::Timestamp::MAX,
                planned_on: before.as_ref().map(ClusterRecord::version),
                agreed: Vec::new(),
            };
            let begun = agent.shared.records.begin_up(generation).await.expect("answers");
            let Begun::New(operation, _) = begun else { panic!("it does not begin: {begun:?}") };
            (agent.shared.records.cluster("home").await.expect("reads").expect("is there"), operation)
        };
        let image = agent.shared.images.list().expect("reads").remove(0);
        let (status, _) = watch::channel(control::ClusterStatus::default());
        let shared = Arc::clone(&agent.shared);
        let mut task = ClusterTask::new(shared, "home".to_owned(), Arc::new(Notify::new()), status);

        let (older, first) = begin(SPEC).await;
        let (newer, second) = begin(&SPEC.replace("122.11", "122.21")).await;
        for operation in [Some(&first), None] {
            let acted = task.converge_host(&older, &image, operation).await;
            assert!(matches!(acted, Ok(false)), "{:?}", operation.map(|it| &it.id));
        }
        assert!(agent.hypervisor.host().effects.is_empty(), "{:?}", agent.hypervisor.host().effects);
        assert!(matches!(task.converge_host(&newer, &image, Some(&second)).await, Ok(true)));
        assert_eq!(agent.hypervisor.host().observed.domains.len(), 2);
    }
}
