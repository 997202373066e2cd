//! Whether the VM behind a node runs, for the join authority: a secret is only good for the machine that this host
//! agent started.

use std::sync::Arc;

use async_trait::async_trait;
use host_hypervisor::Hypervisor;
use host_hypervisor::desired::DesiredPool;
use host_hypervisor::observed::DomainState;
use host_pki::join::Machines;

/// Asks libvirt, anew each time.
pub struct RunningMachines {
    hypervisor: Arc<dyn Hypervisor>,
    pool: DesiredPool,
}

impl RunningMachines {
    /// Machines of this hypervisor.
    pub fn new(hypervisor: Arc<dyn Hypervisor>, pool: DesiredPool) -> Self {
        Self { hypervisor, pool }
    }
}

#[async_trait]
impl Machines for RunningMachines {
    async fn is_ours_running(&self, node_id: &str, machine_uuid: &str) -> bool {
        let observed = match self.hypervisor.observe(&self.pool).await {
            Ok(observed) => observed,
            Err(failure) => {
                tracing::warn!(error = %failure, "cannot see whether a joining VM runs");
                return false;
            }
        };
        observed.domains.iter().any(|domain| {
            domain.ours.as_ref().is_some_and(|owner| owner.node_id == node_id)
                && domain.uuid.eq_ignore_ascii_case(machine_uuid)
                && domain.state == DomainState::Running
        })
    }
}
