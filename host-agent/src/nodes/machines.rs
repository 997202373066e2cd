//! Whether the VM behind a node runs, for the join authority: a secret is only good for the machine that this host
//! agent started.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use host_hypervisor::Hypervisor;
use host_hypervisor::desired::DesiredPool;
use host_hypervisor::observed::{DomainState, ObservedHost};
use host_pki::join::Machines;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a VM that was seen running counts as running, unless libvirt tells of a change: many nodes join at once, and
/// a look is at all VMs.
const FRESH: Duration = Duration::from_secs(1);

/// Asks libvirt. That a VM does not run is asked anew each time.
pub struct RunningMachines {
    hypervisor: Arc<dyn Hypervisor>,
    pool: DesiredPool,
    seen: Mutex<Option<Seen>>,
}

/// The last look.
struct Seen {
    at: Instant,
    version: u64,
    host: ObservedHost,
}

impl RunningMachines {
    /// Machines of this hypervisor.
    pub fn new(hypervisor: Arc<dyn Hypervisor>, pool: DesiredPool) -> Self {
        Self { hypervisor, pool, seen: Mutex::default() }
    }
}

#[async_trait]
impl Machines for RunningMachines {
    async fn is_ours_running(&self, node_id: &str, machine_uuid: &str) -> bool {
        // Held during the look: whoever comes meanwhile takes it too.
        let mut seen = self.seen.lock().await;
        let version = *self.hypervisor.changes().borrow();
        let is_fresh = |it: &&Seen| it.version == version && it.at.elapsed() < FRESH;
        if seen.as_ref().filter(is_fresh).is_some_and(|it| is_running(&it.host, node_id, machine_uuid)) {
            return true;
        }
        let host = match self.hypervisor.observe(&self.pool).await {
            Ok(host) => host,
            Err(failure) => {
                tracing::warn!(error = %failure, "cannot see whether a joining VM runs");
                return false;
            }
        };
        let runs = is_running(&host, node_id, machine_uuid);
        *seen = Some(Seen { at: Instant::now(), version, host });
        runs
    }
}

fn is_running(host: &ObservedHost, node_id: &str, machine_uuid: &str) -> bool {
    host.domains.iter().any(|domain| {
        domain.ours.as_ref().is_some_and(|owner| owner.node_id == node_id)
            && domain.uuid.eq_ignore_ascii_case(machine_uuid)
            && domain.state == DomainState::Running
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use host_hypervisor::fake::FakeHypervisor;
    use host_hypervisor::observed::ObservedDomain;
    use host_hypervisor::xml::owner::Owner;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_running_is_looked_at_again_after_a_moment_or_a_change() {
        let owner = Owner {
            cluster_id: "home".to_owned(),
            node_id: "a".to_owned(),
            generation: 1,
            ip: "192.168.122.10".to_owned(),
        };
        let domain = ObservedDomain {
            uuid: "u".to_owned(),
            ours: Some(owner),
            state: DomainState::Off,
            ..ObservedDomain::default()
        };
        let hypervisor = Arc::new(FakeHypervisor::default());
        hypervisor.host().observed.domains.push(domain);
        let pool = DesiredPool { name: "pool".to_owned(), path: PathBuf::from("/pool") };
        let machines = RunningMachines::new(hypervisor.clone(), pool);
        let switch = |state| hypervisor.host().observed.domains[0].state = state;
        assert!(!machines.is_ours_running("a", "u").await);
        switch(DomainState::Running);
        assert!(machines.is_ours_running("a", "U").await, "a machine that was just started may join at once");
        assert!(!machines.is_ours_running("b", "u").await && !machines.is_ours_running("a", "v").await);
        switch(DomainState::Off);
        hypervisor.notify();
        assert!(!machines.is_ours_running("a", "u").await, "libvirt told of it");
        switch(DomainState::Running);
        assert!(machines.is_ours_running("a", "u").await);
        switch(DomainState::Off);
        tokio::time::advance(FRESH).await;
        assert!(!machines.is_ours_running("a", "u").await, "libvirt told of nothing");
    }
}
