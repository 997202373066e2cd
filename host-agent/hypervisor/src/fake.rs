//! A host in memory with the rules of the real one, for the tests of this crate and of the cluster
//! controller. Fails, or "dies" with or without the effect made, where a test wants it to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use k8sctl_types::failure::Failure;
use tokio::sync::watch;

use crate::adoption::{DhcpHost, DhcpRange};
use crate::change::{DomainRef, HostOp, Outcome};
use crate::desired::DesiredPool;
use crate::documents::{Document, Documents, Wanted};
use crate::hypervisor::Hypervisor;
use crate::observed::{
    DomainState, ObservedDomain, ObservedHost, ObservedNetwork, ObservedPool, ObservedTap, ObservedVolume,
};
use crate::plan::{disk_full, left_disk};
use crate::real::error::{missing, not_ours};
use crate::xml::domain::DomainPlan;

/// Id of the failure that a fault makes.
pub const FAULT: &str = "FAKE-FAULT";

/// Where an executed op goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and nothing was done.
    Before,
    /// It fails although its effect was made: as if the agent had died right after it.
    After,
}

/// A host in memory.
#[derive(Debug)]
pub struct FakeHypervisor {
    host: Mutex<FakeHost>,
    changes: watch::Sender<u64>,
}

/// What is behind the lock.
#[derive(Debug, Default)]
pub struct FakeHost {
    /// What [`Hypervisor::observe`] shows; tests put strangers' objects here.
    pub observed: ObservedHost,
    /// Console texts by domain.
    pub consoles: BTreeMap<String, String>,
    /// Join channel sockets by domain.
    pub join_channels: BTreeMap<String, PathBuf>,
    /// Addresses that somebody answers for, with the MAC address that does.
    pub answering: BTreeMap<std::net::Ipv4Addr, String>,
    /// Names and runs of the domains that have the greater share of the processors.
    pub preferred: Vec<(String, u32)>,
    /// What [`Documents::documents`] gives, whatever is wanted.
    pub documents: Vec<Document>,
    /// libvirt is away.
    pub unreachable: bool,
    /// How often each op's effect was made, by name.
    pub effects: BTreeMap<&'static str, u32>,
    /// The nth executed op from now on, from 0, goes wrong.
    pub fault: Option<(u32, Fault)>,
}

impl Default for FakeHypervisor {
    fn default() -> Self {
        Self::new(ObservedHost {
            pool_free_bytes: 1 << 40,
            host_cpus: 8,
            host_memory_bytes: 64 << 30,
            ..ObservedHost::default()
        })
    }
}

impl FakeHypervisor {
    /// A host on which this is there already.
    pub fn new(observed: ObservedHost) -> Self {
        let host = Mutex::new(FakeHost { observed, ..FakeHost::default() });
        Self { host, changes: watch::Sender::new(0) }
    }

    /// The host itself, for looking and for meddling.
    pub fn host(&self) -> MutexGuard<'_, FakeHost> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reboots a domain that runs, as its guest does, or `virsh reset`.
    pub fn reboot(&self, name: &str) {
        let mut host = self.host();
        let mut running = host.observed.domains.iter_mut().filter(|it| it.state == DomainState::Running);
        let domain = running.find(|it| it.name == name).expect("it runs");
        domain.rebooted = Some(Instant::now());
        drop(host);
        self.notify();
    }

    /// Tells the watchers that something changed.
    pub fn notify(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Documents for FakeHypervisor {
    async fn documents(&self, _wanted: &Wanted) -> Result<Vec<Document>, Failure> {
        let host = self.host();
        host.reachable()?;
        Ok(host.documents.clone())
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    async fn observe(&self, _pool: &DesiredPool) -> Result<ObservedHost, Failure> {
        let host = self.host();
        host.reachable()?;
        Ok(host.observed.clone())
    }

    async fn execute(&self, op: &HostOp) -> Result<Outcome, Failure> {
        let outcome = self.host().execute(op);
        self.notify();
        outcome
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn console_tail(&self, domain: &DomainRef, bytes: usize) -> Result<String, Failure> {
        let mut host = self.host();
        host.domain(domain)?;
        let text = host.consoles.get(&domain.name).map(String::as_str).unwrap_or_default();
        let start = (text.len().saturating_sub(bytes)..=text.len()).find(|&at| text.is_char_boundary(at));
        Ok(text[start.unwrap_or(0)..].to_owned())
    }

    async fn join_channel(&self, domain: &DomainRef) -> Result<Option<PathBuf>, Failure> {
        let mut host = self.host();
        let running = host.domain(domain)?.is_some_and(|it| it.state == DomainState::Running);
        Ok(host.join_channels.get(&domain.name).filter(|_| running).cloned())
    }
}

impl FakeHost {
    fn reachable(&self) -> Result<(), Failure> {
        if self.unreachable {
            return Err(Failure::new(
                "LIBVIRT-UNREACHABLE",
                "libvirt fake:///",
                "the test switched it off",
                "switch it on",
            ));
        }
        Ok(())
    }

    /// Executes one op, or goes wrong where a fault says so.
    pub fn execute(&mut self, op: &HostOp) -> Result<Outcome, Failure> {
        self.reachable()?;
        let fault = match self.fault.take() {
            Some((0, fault)) => Some(fault),
            later => {
                self.fault = later.map(|(ops, fault)| (ops - 1, fault));
                None
            }
        };
        let failure = || Failure::new(FAULT, op.name(), "the test wants it to fail", "go on");
        if fault == Some(Fault::Before) {
            return Err(failure());
        }
        let outcome = self.apply(op)?;
        if outcome == Outcome::Done {
            *self.effects.entry(op.name()).or_default() += 1;
        }
        if fault == Some(Fault::After) { Err(failure()) } else { Ok(outcome) }
    }

    fn apply(&mut self, op: &HostOp) -> Result<Outcome, Failure> {
        match op {
            HostOp::DefineNetwork { .. }
            | HostOp::StartNetwork { .. }
            | HostOp::SetDhcpRanges { .. }
            | HostOp::AddDhcpHost { .. }
            | HostOp::RemoveDhcpHost { .. }
            | HostOp::StopNetwork { .. }
            | HostOp::DeleteNetwork { .. }
            | HostOp::CheckAddresses { .. } => self.apply_network(op),
            HostOp::DefineDomain { .. }
            | HostOp::StartDomain { .. }
            | HostOp::PreferDomain { .. }
            | HostOp::AttachTap { .. }
            | HostOp::RestartDomain { .. }
            | HostOp::ShutDownDomain { .. }
            | HostOp::PowerOffDomain { .. }
            | HostOp::DeleteDomain { .. } => self.apply_domain(op),
            _ => self.apply_storage(op),
        }
    }

    fn network(&mut self, name: &str) -> Result<&mut ObservedNetwork, Failure> {
        let found = self.observed.networks.iter_mut().find(|it| it.name == name);
        found.ok_or_else(|| missing("network", name))
    }

    fn apply_network(&mut self, op: &HostOp) -> Result<Outcome, Failure> {
        let hosts_of = |network: &mut ObservedNetwork, edit: &dyn Fn(&mut Vec<DhcpHost>)| {
            edit(&mut network.hosts);
            network.live_hosts.as_mut().map(edit);
        };
        match op {
            HostOp::DefineNetwork { network: plan } => {
                if let Ok(there) = self.network(&plan.name) {
                    if there.ours.as_ref().is_none_or(|owner| owner.cluster_id != plan.owner.cluster_id) {
                        return Err(not_ours("network", &plan.name));
                    }
                    let is_so = there.persistent && there.autostart;
                    (there.persistent, there.autostart) = (true, true);
                    return Ok(if is_so { Outcome::AlreadySo } else { Outcome::Done });
                }
                self.observed.networks.push(ObservedNetwork {
                    name: plan.name.clone(),
                    uuid: format!("uuid-of-{}", plan.name),
                    ours: Some(plan.owner.clone()),
                    cidr: Some(plan.cidr),
                    gateway: Some(plan.gateway),
                    forward: "nat".into(),
                    bridge: Some(plan.bridge.clone()),
                    active: false,
                    autostart: true,
                    persistent: true,
                    ranges: plan.ranges.clone(),
                    hosts: plan.hosts.clone(),
                    live_ranges: None,
                    live_hosts: None,
                });
                Ok(Outcome::Done)
            }
            HostOp::StartNetwork { name } => {
                let network = self.network(name)?;
                network.live_ranges.get_or_insert_with(|| network.ranges.clone());
                network.live_hosts.get_or_insert_with(|| network.hosts.clone());
                Ok(flag(&mut network.active, true))
            }
            HostOp::StopNetwork { name } => {
                let network = self.network(name)?;
                (network.live_ranges, network.live_hosts) = (None, None);
                let (outcome, stays) = (flag(&mut network.active, false), network.persistent);
                self.observed.networks.retain(|it| stays || it.name != *name);
                self.cut_off(name);
                Ok(outcome)
            }
            HostOp::SetDhcpRanges { network, ranges } => {
                let network = self.network(network)?;
                let set = |there: &mut Vec<DhcpRange>| there.clone_from(ranges);
                set(&mut network.ranges);
                network.live_ranges.as_mut().map(set);
                Ok(Outcome::Done)
            }
            HostOp::AddDhcpHost { network, host } => {
                let there = self.network(network)?;
                let same = |it: &&DhcpHost| it.mac == host.mac || it.ip == host.ip || it.name == host.name;
                let all = there.hosts.iter().chain(there.live_hosts.iter().flatten());
                if let Some(clash) = all.filter(same).find(|it| *it != host) {
                    return Err(Failure::new(
                        "LIBVIRT-OPERATION-FAILED",
                        format!("network {network}"),
                        format!("there is an entry for {:?} already", clash.ip),
                        "plan the removal of that entry first",
                    ));
                }
                hosts_of(there, &|hosts| {
                    if !hosts.contains(host) {
                        hosts.push(host.clone());
                    }
                });
                Ok(Outcome::Done)
            }
            HostOp::RemoveDhcpHost { network, host } => {
                hosts_of(self.network(network)?, &|hosts| hosts.retain(|it| it != host));
                Ok(Outcome::Done)
            }
            HostOp::DeleteNetwork { name, cluster_id } => {
                let Some(there) = self.observed.network(name) else { return Ok(Outcome::AlreadySo) };
                if there.ours.as_ref().is_none_or(|owner| owner.cluster_id != *cluster_id) {
                    return Err(not_ours("network", name));
                }
                self.observed.networks.retain(|it| it.name != *name);
                self.cut_off(name);
                Ok(Outcome::Done)
            }
            HostOp::CheckAddresses { network, addresses } => {
                for (ip, mac) in addresses {
                    if let Some(other) =
                        self.answering.get(ip).filter(|other| !other.eq_ignore_ascii_case(mac))
                    {
                        return Err(crate::address::in_use(*ip, other, network));
                    }
                }
                Ok(Outcome::AlreadySo)
            }
            _ => Ok(Outcome::AlreadySo),
        }
    }

    /// The bridge goes with the network; it does not take its ports back when it comes again.
    fn cut_off(&mut self, network: &str) {
        let taps = self.observed.domains.iter_mut().flat_map(|it| &mut it.taps);
        taps.filter(|tap| tap.network == network).for_each(|tap| tap.master = None);
    }

    fn apply_storage(&mut self, op: &HostOp) -> Result<Outcome, Failure> {
        match op {
            HostOp::DefinePool { path, .. } => {
                if self.observed.pool.is_some() {
                    return Ok(Outcome::AlreadySo);
                }
                self.observed.pool =
                    Some(ObservedPool { path: Some(path.clone()), active: false, autostart: false });
                Ok(Outcome::Done)
            }
            HostOp::StartPool { name } => {
                let pool = self.observed.pool.as_mut().ok_or_else(|| missing("pool", name))?;
                pool.autostart = true;
                Ok(flag(&mut pool.active, true))
            }
            HostOp::DeletePool { .. } => {
                Ok(if self.observed.pool.take().is_some() { Outcome::Done } else { Outcome::AlreadySo })
            }
            HostOp::InstallFile { target, pool, .. } => {
                let name =
                    target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                self.add_volume(pool, ObservedVolume { name, capacity: 1 << 20, backing: None })
            }
            HostOp::CreateVolume { pool, name, capacity, backing } => {
                let volume = ObservedVolume {
                    name: name.clone(),
                    capacity: *capacity,
                    backing: Some(backing.clone()),
                };
                let base =
                    backing.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if self.observed.volume(&base).is_none() {
                    return Err(missing("volume", &base));
                }
                if self.observed.volume(name).is_some_and(|there| there.backing != volume.backing) {
                    return Err(left_disk(name.as_ref(), "it is on another image"));
                }
                self.add_volume(pool, volume)
            }
            HostOp::RemoveFile { target, .. } => {
                let name =
                    target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                Ok(self.remove_volume(&name))
            }
            HostOp::DeleteVolume { name, pool } => match &self.observed.pool {
                None => Ok(Outcome::AlreadySo),
                Some(there) if !there.active => Err(missing("pool", pool)),
                Some(_) => Ok(self.remove_volume(name)),
            },
            HostOp::GrowVolume { name, capacity, .. } => {
                let volume = self.observed.volumes.iter_mut().find(|it| it.name == *name);
                let volume = volume.ok_or_else(|| missing("volume", name))?;
                let grows = volume.capacity < *capacity;
                volume.capacity = volume.capacity.max(*capacity);
                Ok(if grows { Outcome::Done } else { Outcome::AlreadySo })
            }
            _ => Ok(Outcome::AlreadySo),
        }
    }

    fn add_volume(&mut self, pool: &str, volume: ObservedVolume) -> Result<Outcome, Failure> {
        let path = self.observed.pool.as_ref().filter(|pool| pool.active).and_then(|pool| pool.path.clone());
        let path = path.ok_or_else(|| missing("pool", pool))?;
        if self.observed.volume(&volume.name).is_some() {
            return Ok(Outcome::AlreadySo);
        }
        if self.observed.pool_free_bytes == 0 {
            return Err(disk_full(&path, 1, 0));
        }
        self.observed.volumes.push(volume);
        Ok(Outcome::Done)
    }

    fn remove_volume(&mut self, name: &str) -> Outcome {
        let before = self.observed.volumes.len();
        self.observed.volumes.retain(|it| it.name != name);
        if self.observed.volumes.len() < before { Outcome::Done } else { Outcome::AlreadySo }
    }

    fn domain(&mut self, reference: &DomainRef) -> Result<Option<&mut ObservedDomain>, Failure> {
        let found = self.observed.domains.iter_mut().find(|it| it.name == reference.name);
        let Some(domain) = found else { return Ok(None) };
        let ours = domain.ours.as_ref().is_some_and(|owner| owner.cluster_id == reference.cluster_id);
        if ours && domain.uuid == reference.uuid {
            Ok(Some(domain))
        } else {
            Err(not_ours("domain", &reference.name))
        }
    }

    /// A disk without its file, as far as that is known: what is in other directories than the pool's is not.
    fn lost_disk(&self, domain: &str) -> Option<PathBuf> {
        let pool = self.observed.pool.as_ref()?.path.as_ref()?;
        let files: Vec<_> = self.observed.volumes.iter().map(|it| pool.join(&it.name)).collect();
        let is_lost = |disk: &&PathBuf| disk.parent() == Some(pool) && !files.contains(disk);
        self.observed.domain(domain)?.disks.iter().find(is_lost).cloned()
    }

    fn set_state(&mut self, reference: &DomainRef, state: DomainState) -> Result<Outcome, Failure> {
        let next_run = self.observed.domains.iter().filter_map(|it| it.run).max().unwrap_or_default() + 1;
        let networks = self.observed.networks.clone();
        let lost = self.lost_disk(&reference.name);
        let domain = self.domain(reference)?.ok_or_else(|| missing("domain", &reference.name))?;
        let running = state == DomainState::Running;
        let changed = domain.state != state;
        let is_resumed = running && matches!(domain.state, DomainState::Paused | DomainState::IoError);
        if let Some(disk) = lost.filter(|_| running && changed && !is_resumed) {
            let (object, reason) =
                (format!("domain {}", reference.name), format!("{} is not there", disk.display()));
            return Err(Failure::new("LIBVIRT-OPERATION-FAILED", object, reason, "plan its disk first"));
        }
        if changed && !is_resumed {
            domain.has_managed_save = false;
            domain.run = running.then_some(next_run);
            domain.live_vcpus = running.then_some(domain.vcpus);
            domain.live_memory_bytes = running.then_some(domain.memory_bytes);
            let tap = |network: &ObservedNetwork| ObservedTap {
                device: format!("vnet{next_run}"),
                network: network.name.clone(),
                master: network.bridge.clone(),
            };
            let its = networks.iter().filter(|it| running && domain.networks.contains(&it.name));
            domain.taps = its.map(tap).collect();
        }
        domain.state = state;
        Ok(if changed { Outcome::Done } else { Outcome::AlreadySo })
    }

    fn apply_domain(&mut self, op: &HostOp) -> Result<Outcome, Failure> {
        match op {
            HostOp::DefineDomain { domain } => self.define(domain),
            HostOp::StartDomain { domain } => self.set_state(domain, DomainState::Running),
            HostOp::AttachTap { domain, device, bridge } => {
                let is_up = |it: &ObservedNetwork| it.active && it.bridge.as_ref() == Some(bridge);
                if !self.observed.networks.iter().any(is_up) {
                    return Err(missing("bridge", bridge));
                }
                let taps = self.domain(domain)?.map(|it| it.taps.as_mut_slice()).unwrap_or_default();
                let tap =
                    taps.iter_mut().find(|tap| tap.device == *device && tap.master.as_ref() != Some(bridge));
                Ok(match tap {
                    None => Outcome::AlreadySo,
                    Some(tap) => {
                        tap.master = Some(bridge.clone());
                        Outcome::Done
                    }
                })
            }
            HostOp::RestartDomain { domain: reference } => {
                let domain = self.domain(reference)?.ok_or_else(|| missing("domain", &reference.name))?;
                if domain.live_vcpus != Some(domain.vcpus)
                    || domain.live_memory_bytes != Some(domain.memory_bytes)
                {
                    self.set_state(reference, DomainState::Off)?;
                }
                self.set_state(reference, DomainState::Running)
            }
            HostOp::PreferDomain { domain } => {
                let run = self.domain(domain)?.and_then(|seen| seen.run);
                let run = run.map(|run| (domain.name.clone(), run));
                let Some(run) = run.filter(|run| !self.preferred.contains(run)) else {
                    return Ok(Outcome::AlreadySo);
                };
                self.preferred.push(run);
                Ok(Outcome::Done)
            }
            HostOp::ShutDownDomain { domain } => self.set_state(domain, DomainState::Off),
            HostOp::PowerOffDomain { domain } => match self.domain(domain)? {
                None => Ok(Outcome::AlreadySo),
                Some(_) => self.set_state(domain, DomainState::Off),
            },
            HostOp::DeleteDomain { domain } => {
                if self.domain(domain)?.is_none() {
                    return Ok(Outcome::AlreadySo);
                }
                self.observed.domains.retain(|it| it.name != domain.name);
                Ok(Outcome::Done)
            }
            _ => Ok(Outcome::AlreadySo),
        }
    }

    fn define(&mut self, plan: &DomainPlan) -> Result<Outcome, Failure> {
        let reference = DomainRef {
            name: plan.name.clone(),
            uuid: plan.uuid.clone(),
            cluster_id: plan.owner.cluster_id.clone(),
        };
        self.network(&plan.network)?;
        let before = self.domain(&reference)?.cloned();
        let defined = ObservedDomain {
            name: plan.name.clone(),
            uuid: plan.uuid.clone(),
            ours: Some(plan.owner.clone()),
            state: before.as_ref().map(|it| it.state).unwrap_or_default(),
            run: before.as_ref().and_then(|it| it.run),
            rebooted: before.as_ref().and_then(|it| it.rebooted),
            started: before.as_ref().and_then(|it| it.started),
            autostart: plan.autostart,
            accelerator: Some(plan.accelerator),
            has_managed_save: before.as_ref().is_some_and(|it| it.has_managed_save),
            vcpus: plan.vcpus,
            memory_bytes: plan.memory_bytes,
            live_vcpus: before.as_ref().and_then(|it| it.live_vcpus),
            live_memory_bytes: before.as_ref().and_then(|it| it.live_memory_bytes),
            mac: plan.mac.clone(),
            networks: vec![plan.network.clone()],
            disks: vec![plan.disk.clone()],
            kernel: Some(plan.kernel.clone()),
            initrd: Some(plan.initrd.clone()),
            cmdline: plan.cmdline.clone(),
            taps: before.as_ref().map(|it| it.taps.clone()).unwrap_or_default(),
        };
        if before.as_ref() == Some(&defined) {
            return Ok(Outcome::AlreadySo);
        }
        self.observed.domains.retain(|it| it.name != plan.name);
        self.observed.domains.push(defined);
        Ok(Outcome::Done)
    }
}

fn flag(flag: &mut bool, wanted: bool) -> Outcome {
    if std::mem::replace(flag, wanted) == wanted { Outcome::AlreadySo } else { Outcome::Done }
}
