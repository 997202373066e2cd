//! The trait through which the cluster controller reaches a hypervisor.

use std::path::PathBuf;

use async_trait::async_trait;
use k8sctl_types::failure::Failure;
use tokio::sync::watch;

use crate::change::{DomainRef, HostOp, Outcome};
use crate::desired::DesiredPool;
use crate::observed::ObservedHost;

/// A host with VMs: the real libvirt, or a host in memory for tests.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// Everything a plan is made from, read anew. `LIBVIRT-UNREACHABLE` while libvirt is away.
    async fn observe(&self, pool: &DesiredPool) -> Result<ObservedHost, Failure>;

    /// Makes sure of one effect. An effect that is there already is a success.
    async fn execute(&self, op: &HostOp) -> Result<Outcome, Failure>;

    /// Counts up on every domain and network event, reboots included, and when the connection was lost or came back.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The last `bytes` of the domain's serial console; empty where there is none yet. `LIBVIRT-NOT-OURS` of another
    /// domain of that name, as below.
    async fn console_tail(&self, domain: &DomainRef, bytes: usize) -> Result<String, Failure>;

    /// The unix socket of a running domain's join channel; `None` while it has none.
    async fn join_channel(&self, domain: &DomainRef) -> Result<Option<PathBuf>, Failure>;
}
