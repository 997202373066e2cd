//! A hypervisor whose calls are measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use host_hypervisor::Hypervisor;
use host_hypervisor::change::{DomainRef, HostOp, Outcome};
use host_hypervisor::desired::DesiredPool;
use host_hypervisor::observed::ObservedHost;
use k8sctl_types::failure::Failure;
use tokio::sync::watch;

use super::Meters;
use super::text::labels;

/// Another one, measured.
pub struct Measured {
    inner: Arc<dyn Hypervisor>,
    meters: Meters,
}

impl Measured {
    /// Counts in these meters.
    pub fn new(inner: Arc<dyn Hypervisor>, meters: Meters) -> Self {
        Self { inner, meters }
    }

    async fn call<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let result = work.await;
        let key = labels([("call", name)]);
        self.meters.libvirt_calls.get_or_create(&key).observe(begun.elapsed().as_secs_f64());
        // There from the first call on, so that the first error is an increase.
        self.meters.libvirt_errors.get_or_create(&key).inc_by(u64::from(result.is_err()));
        result
    }
}

#[async_trait]
impl Hypervisor for Measured {
    async fn observe(&self, pool: &DesiredPool) -> Result<ObservedHost, Failure> {
        self.call("observe", self.inner.observe(pool)).await
    }

    async fn execute(&self, op: &HostOp) -> Result<Outcome, Failure> {
        self.call(op.name(), self.inner.execute(op)).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }

    async fn console_tail(&self, domain: &DomainRef, bytes: usize) -> Result<String, Failure> {
        self.call("console-tail", self.inner.console_tail(domain, bytes)).await
    }

    async fn join_channel(&self, domain: &DomainRef) -> Result<Option<PathBuf>, Failure> {
        self.call("join-channel", self.inner.join_channel(domain)).await
    }
}
