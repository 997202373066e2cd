//! The real hypervisor: libvirt through the `virt` crate. Dumb: it observes, and does one op at a
//! time as it is told. Everything that blocks runs in `spawn_blocking`.
//!
//! - [`daemons`]: libvirt's own daemons, started where they do not run
//! - `link`: the connection that comes back by itself; `events`: libvirt's callbacks; `reboots`: what only those tell
//! - `observe`: libvirt and host into [`ObservedHost`]; `qcow2`: what a disk's own header tells
//! - `documents`: what libvirt says of what is ours, as it says it
//! - `network`, `leases`, `storage`, `domain`, `taps`: executing; `share`: of the host's processors

pub mod daemons;
mod documents;
mod domain;
pub mod error;
mod events;
mod leases;
mod link;
#[cfg(test)]
mod namespace;
mod network;
mod observe;
mod qcow2;
mod reboots;
mod share;
mod storage;
mod taps;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use k8sctl_types::failure::Failure;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use virt::connect::Connect;

use self::daemons::Daemons;
use self::error::{LibvirtError, Result};
use self::link::Link;
use crate::change::{DomainRef, HostOp, Outcome};
use crate::desired::DesiredPool;
use crate::documents::{Document, Documents, Wanted};
use crate::hypervisor::Hypervisor;
use crate::observed::ObservedHost;

/// How the real hypervisor is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HypervisorConfig {
    /// libvirt's URI: `qemu:///system`, `test+unix:///default?socket=…`.
    pub uri: String,
    /// Directory of the VMs' console logs; absolute, made where it does not exist.
    pub console_dir: PathBuf,
    /// Starts libvirt's daemons where `uri` is this host's system libvirt and they do not run.
    pub start_daemons: bool,
}

/// Whether libvirt answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// A connection is open.
    pub is_open: bool,
    /// How often one was lost.
    pub losses: u64,
}

/// libvirt on this host.
#[derive(Debug)]
pub struct RealHypervisor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    config: HypervisorConfig,
}

impl RealHypervisor {
    /// Begins to connect; a libvirt that is away is no error here but one of the calls.
    pub fn start(config: HypervisorConfig) -> std::result::Result<Self, Failure> {
        let ours = config.start_daemons && daemons::is_local_system(&config.uri);
        let link = Link::start(&config.uri, ours.then(Daemons::of_this_host))?;
        Ok(Self { inner: Arc::new(Inner { link, config }) })
    }

    /// Whether libvirt answers, from now on.
    pub fn answers(&self) -> watch::Receiver<Answers> {
        self.inner.link.answers()
    }

    /// Runs `work` with the open connection where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connect, &HypervisorConfig) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Failure> {
        let inner = Arc::clone(&self.inner);
        let done = spawn_blocking(move || {
            let connect = inner.link.get()?;
            let result = work(&connect, &inner.config);
            // An error on a connection that broke meanwhile is the break, not the call's fault.
            match result {
                Err(error) if !connect.is_alive().unwrap_or(false) => Err(LibvirtError::Unreachable {
                    uri: inner.link.uri().to_owned(),
                    reason: format!("the connection broke: {error}"),
                }),
                result => result,
            }
        });
        let result = done.await.unwrap_or_else(|error| {
            let reason = format!("the call did not end: {error}");
            Err(LibvirtError::Unreachable { uri: self.inner.link.uri().to_owned(), reason })
        });
        Ok(result?)
    }
}

#[async_trait]
impl Hypervisor for RealHypervisor {
    async fn observe(&self, pool: &DesiredPool) -> std::result::Result<ObservedHost, Failure> {
        let pool = pool.clone();
        let mut host = self.blocking(move |connect, _| observe::observe_impl(connect, &pool)).await?;
        taps::observe_masters(&mut host.domains).await;
        self.inner.link.reboots().observe(&mut host.domains);
        Ok(host)
    }

    async fn execute(&self, op: &HostOp) -> std::result::Result<Outcome, Failure> {
        if let HostOp::CheckAddresses { network, addresses } = op {
            let name = network.clone();
            let bridge = self.blocking(move |connect, _| network::bridge_impl(connect, &name)).await?;
            let outcome = network::execute_check_addresses(&bridge, addresses).await?;
            // What is leased elsewhere does not stand in this host's files.
            if daemons::is_local_system(&self.inner.config.uri) {
                leases::execute_give_back(&bridge, addresses).await?;
            }
            return Ok(outcome);
        }
        if let HostOp::AttachTap { domain, device, bridge } = op {
            let (reference, wanted) = (domain.clone(), device.clone());
            let is_its =
                self.blocking(move |connect, _| domain::has_tap_impl(connect, &reference, &wanted)).await?;
            return if is_its {
                Ok(taps::execute_attach(device, bridge).await?)
            } else {
                Ok(Outcome::AlreadySo)
            };
        }
        if let HostOp::RestartDomain { domain } | HostOp::ShutDownDomain { domain } = op {
            return domain::execute_graceful(self, domain, matches!(op, HostOp::RestartDomain { .. })).await;
        }
        let op = op.clone();
        self.blocking(move |connect, config| execute_impl(connect, config, &op)).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.link.changes()
    }

    async fn console_tail(&self, domain: &DomainRef, bytes: usize) -> std::result::Result<String, Failure> {
        let domain = domain.clone();
        self.blocking(move |connect, _| domain::console_tail_impl(connect, &domain, bytes)).await
    }

    async fn join_channel(&self, domain: &DomainRef) -> std::result::Result<Option<PathBuf>, Failure> {
        let domain = domain.clone();
        self.blocking(move |connect, _| domain::join_channel_impl(connect, &domain)).await
    }
}

#[async_trait]
impl Documents for RealHypervisor {
    async fn documents(&self, wanted: &Wanted) -> std::result::Result<Vec<Document>, Failure> {
        let wanted = wanted.clone();
        self.blocking(move |connect, _| documents::documents_impl(connect, &wanted)).await
    }
}

fn execute_impl(connect: &Connect, config: &HypervisorConfig, op: &HostOp) -> Result<Outcome> {
    match op {
        HostOp::DefineNetwork { network } => network::execute_define(connect, network),
        HostOp::StartNetwork { name } => network::execute_start(connect, name),
        HostOp::StopNetwork { name } => network::execute_stop(connect, name),
        HostOp::SetDhcpRanges { network, ranges } => network::execute_ranges(connect, network, ranges),
        HostOp::AddDhcpHost { network, host } => network::execute_host(connect, network, host, true),
        HostOp::RemoveDhcpHost { network, host } => network::execute_host(connect, network, host, false),
        HostOp::DeleteNetwork { name, cluster_id } => network::execute_delete(connect, name, cluster_id),
        HostOp::DefinePool { name, path } => storage::execute_define_pool(connect, name, path),
        HostOp::StartPool { name } => storage::execute_start_pool(connect, name),
        HostOp::DeletePool { name } => storage::execute_delete_pool(connect, name),
        HostOp::InstallFile { pool, source, target } => {
            storage::execute_install(connect, pool, source, target)
        }
        HostOp::RemoveFile { pool, target } => storage::execute_remove(connect, pool, target),
        HostOp::CreateVolume { pool, name, capacity, backing } => {
            storage::execute_create_volume(connect, pool, name, *capacity, backing)
        }
        HostOp::GrowVolume { pool, name, capacity, domain } => {
            storage::execute_grow_volume(connect, pool, name, *capacity, domain)
        }
        HostOp::DeleteVolume { pool, name } => storage::execute_delete_volume(connect, pool, name),
        HostOp::DefineDomain { domain } => domain::execute_define(connect, config, domain),
        HostOp::StartDomain { domain } => domain::execute_start(connect, domain),
        HostOp::PreferDomain { domain } => share::execute_prefer(connect, config, domain),
        HostOp::PowerOffDomain { domain } => domain::execute_power_off(connect, domain),
        HostOp::DeleteDomain { domain } => domain::execute_delete(connect, domain),
        // These wait, and are done above, outside of the blocking threads.
        HostOp::CheckAddresses { .. }
        | HostOp::AttachTap { .. }
        | HostOp::RestartDomain { .. }
        | HostOp::ShutDownDomain { .. } => Ok(Outcome::AlreadySo),
    }
}
