//! Domains: executing, their console and their join channel.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_types::failure::Failure;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::{Domain, DomainState};
use virt::sys;

use super::error::{Context, LibvirtError, Result, missing, not_ours, optional};
use super::{HypervisorConfig, RealHypervisor, observe};
use crate::change::{DomainRef, Outcome};
use crate::hypervisor::Hypervisor;
use crate::observed::DomainState as ObservedState;
use crate::xml::domain::{DomainPlan, read_console_log, read_domain, read_join_channel};
use crate::xml::owner::owner_of;

/// How long a VM may take to shut down before it is ended by force.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(120);
/// How often it is looked at meanwhile, besides on events.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The domain, if it is there. One of that name which is not the one meant is an error.
pub(super) fn find_ours(connect: &Connect, reference: &DomainRef) -> Result<Option<Domain>> {
    let name = &reference.name;
    let Some(domain) = optional(connect.lookup_domain_by_name(name)).call("look up", "domain", name)? else {
        return Ok(None);
    };
    let uuid = domain.uuid().call("read", "domain", name)?;
    let xml = domain.xml_desc(0).call("read", "domain", name)?;
    let owner = owner_of(&xml, &uuid.to_string()).call("read", "domain", name)?;
    let ours = owner.is_some_and(|owner| owner.cluster_id == reference.cluster_id);
    if ours && Uuid::parse_str(&reference.uuid).is_ok_and(|wanted| wanted == uuid) {
        Ok(Some(domain))
    } else {
        Err(not_ours("domain", name).into())
    }
}

fn get_ours(connect: &Connect, reference: &DomainRef) -> Result<Domain> {
    find_ours(connect, reference)?.ok_or_else(|| missing("domain", &reference.name).into())
}

/// Directory and file of a domain's console log.
fn console_log(config: &HypervisorConfig, name: &str) -> PathBuf {
    config.console_dir.join(format!("{name}.log"))
}

pub(super) fn execute_define(
    connect: &Connect,
    config: &HypervisorConfig,
    plan: &DomainPlan,
) -> Result<Outcome> {
    let name = &plan.name;
    let reference =
        DomainRef { name: name.clone(), uuid: plan.uuid.clone(), cluster_id: plan.owner.cluster_id.clone() };
    let before = find_ours(connect, &reference)?.map(|domain| domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE));
    let before = before.transpose().call("read", "domain", name)?;

    // The log daemon opens the file as root; nobody else reads it.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&config.console_dir);
    made.map_err(|source| LibvirtError::File { what: "make", path: config.console_dir.clone(), source })?;
    let log = console_log(config, name);
    if before.is_none() {
        // The console of a VM of the past says nothing about this one.
        remove_logs(&log)?;
    }
    if let Some(before) = &before {
        let seen = read_domain(before, None, ObservedState::Off, true).call("read", "domain", name)?;
        if (seen.vcpus, seen.memory_bytes, seen.accelerator)
            != (plan.vcpus, plan.memory_bytes, Some(plan.accelerator))
        {
            // Before the difference is gone, which is how the next plan would know of it.
            drop_saved_state(connect, &reference)?;
        }
    }
    let xml = plan.to_xml(&log).call("write", "domain", name)?;
    let domain = connect.define_domain_xml(&xml).call("define", "domain", name)?;
    let starts = domain.autostart().call("read", "domain", name)?;
    if starts != plan.autostart {
        domain.set_autostart(plan.autostart).call("autostart", "domain", name)?;
    }
    let after = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).call("read", "domain", name)?;
    let is_so = before.as_ref() == Some(&after) && starts == plan.autostart;
    Ok(if is_so { Outcome::AlreadySo } else { Outcome::Done })
}

pub(super) fn execute_start(connect: &Connect, reference: &DomainRef) -> Result<Outcome> {
    let name = &reference.name;
    let domain = get_ours(connect, reference)?;
    let (state, reason) = domain.state().call("read", "domain", name)?;
    let is_paused =
        matches!(observe::domain_state(state, reason), ObservedState::Paused | ObservedState::IoError);
    let (what, error) = if state == DomainState::PMSuspended.into() {
        ("wake", domain.pm_wakeup(0).err())
    } else if is_paused {
        ("resume", domain.resume().err())
    } else if domain.is_active().call("read", "domain", name)? {
        return Ok(Outcome::AlreadySo);
    } else {
        ("start", domain.create().err())
    };
    match error {
        None => Ok(Outcome::Done),
        // Somebody else may have done it in between, as libvirt does when a snapshot has been taken.
        Some(_) if runs(&domain, name)? => Ok(Outcome::AlreadySo),
        Some(error) => Err(error).call(what, "domain", name),
    }
}

/// Whether this link is, by now, the host's end of one of the running VM's interfaces.
pub(super) fn has_tap_impl(connect: &Connect, reference: &DomainRef, device: &str) -> Result<bool> {
    let name = &reference.name;
    let Some(domain) = find_ours(connect, reference)? else { return Ok(false) };
    if !domain.is_active().call("read", "domain", name)? {
        return Ok(false);
    }
    let live = domain.xml_desc(0).call("read", "domain", name)?;
    let seen = read_domain(&live, Some(&live), ObservedState::Running, true).call("read", "domain", name)?;
    Ok(seen.taps.iter().any(|tap| tap.device == device))
}

pub(super) fn execute_power_off(connect: &Connect, reference: &DomainRef) -> Result<Outcome> {
    match find_ours(connect, reference)? {
        Some(domain) => power_off(&domain, &reference.name),
        None => Ok(Outcome::AlreadySo),
    }
}

fn power_off(domain: &Domain, name: &str) -> Result<Outcome> {
    if !domain.is_active().call("read", "domain", name)? {
        return Ok(Outcome::AlreadySo);
    }
    if let Err(error) = domain.destroy() {
        // It may have ended by itself in between.
        if domain.is_active().call("read", "domain", name)? {
            return Err(error).call("power off", "domain", name);
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn execute_delete(connect: &Connect, reference: &DomainRef) -> Result<Outcome> {
    let name = &reference.name;
    let Some(domain) = find_ours(connect, reference)? else { return Ok(Outcome::AlreadySo) };
    let xml = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).call("read", "domain", name)?;
    power_off(&domain, name)?;
    let all = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
    // Drivers that know none of the flags have nothing that they would remove.
    if domain.undefine_flags(all).is_err() {
        domain.undefine().call("undefine", "domain", name)?;
    }
    if let Some(log) = read_console_log(&xml).call("read", "domain", name)? {
        remove_logs(&log)?;
    }
    Ok(Outcome::Done)
}

/// The log and its rotated predecessors.
fn remove_logs(log: &Path) -> Result<()> {
    let rotated = (0..3).map(|number| PathBuf::from(format!("{}.{number}", log.display())));
    for path in std::iter::once(log.to_owned()).chain(rotated) {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(LibvirtError::File { what: "remove", path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Asks the VM to shut down, ends it after the grace, and starts it again if that is wanted. One that
/// is paused hears nothing, and is ended at once.
pub(super) async fn execute_graceful(
    hypervisor: &RealHypervisor,
    reference: &DomainRef,
    restart: bool,
) -> std::result::Result<Outcome, Failure> {
    let mut changes = hypervisor.changes();
    let asked = reference.clone();
    let needed = hypervisor
        .blocking(move |connect, _| {
            let domain = get_ours(connect, &asked)?;
            let active = domain.is_active().call("read", "domain", &asked.name)?;
            if !active || (restart && has_its_sizes(&domain, &asked.name)?) {
                return Ok(false);
            }
            // A VM that does not listen yet, or no more, is ended below.
            if runs(&domain, &asked.name)?
                && let Err(error) = domain.shutdown()
            {
                tracing::debug!(domain = %asked.name, error = error.message(), "cannot ask the VM to shut down");
            }
            Ok(true)
        })
        .await?;
    if needed {
        let deadline = Instant::now() + SHUTDOWN_GRACE;
        while ask(hypervisor, reference, runs).await? && Instant::now() < deadline {
            // An event, or the time to look again: either way the state decides.
            let _ = timeout_at(deadline.min(Instant::now() + LOOK_AGAIN), changes.changed()).await;
        }
        let forced = reference.clone();
        hypervisor.blocking(move |connect, _| execute_power_off(connect, &forced)).await?;
        if ask(hypervisor, reference, is_active).await? {
            return Err(LibvirtError::StillRuns { domain: reference.name.clone() }.into());
        }
    }
    if !restart {
        return Ok(if needed { Outcome::Done } else { Outcome::AlreadySo });
    }
    let reference = reference.clone();
    let start = move |connect: &Connect, _: &HypervisorConfig| {
        drop_saved_state(connect, &reference)?;
        execute_start(connect, &reference)
    };
    hypervisor.blocking(start).await
}

/// A VM that goes on from its saved state has the sizes that it had then.
fn drop_saved_state(connect: &Connect, reference: &DomainRef) -> Result<()> {
    let (domain, name) = (get_ours(connect, reference)?, &reference.name);
    // Drivers that save nothing do not know the question.
    if domain.has_managed_save(0).unwrap_or(false) {
        domain.managed_save_remove(0).call("remove the saved state of", "domain", name)?;
    }
    Ok(())
}

fn has_its_sizes(domain: &Domain, name: &str) -> Result<bool> {
    let inactive = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).call("read", "domain", name)?;
    let live = domain.xml_desc(0).call("read", "domain", name)?;
    let seen =
        read_domain(&inactive, Some(&live), ObservedState::Running, true).call("read", "domain", name)?;
    Ok(seen.live_vcpus == Some(seen.vcpus) && seen.live_memory_bytes == Some(seen.memory_bytes))
}

fn is_active(domain: &Domain, name: &str) -> Result<bool> {
    domain.is_active().call("read", "domain", name)
}

/// Whether the VM's guest can do what it is asked for: one that is off or paused cannot, whoever paused it.
fn runs(domain: &Domain, name: &str) -> Result<bool> {
    let (state, reason) = domain.state().call("read", "domain", name)?;
    Ok(observe::domain_state(state, reason) == ObservedState::Running)
}

/// Whether that is so of the domain; of one that is gone it is not.
async fn ask(
    hypervisor: &RealHypervisor,
    reference: &DomainRef,
    question: fn(&Domain, &str) -> Result<bool>,
) -> std::result::Result<bool, Failure> {
    let reference = reference.clone();
    let look = move |connect: &Connect, _: &HypervisorConfig| match find_ours(connect, &reference)? {
        Some(domain) => question(&domain, &reference.name),
        None => Ok(false),
    };
    hypervisor.blocking(look).await
}

pub(super) fn console_tail_impl(connect: &Connect, reference: &DomainRef, bytes: usize) -> Result<String> {
    let Some(domain) = find_ours(connect, reference)? else { return Ok(String::new()) };
    let name = &reference.name;
    let xml = domain.xml_desc(0).call("read", "domain", name)?;
    let Some(log) = read_console_log(&xml).call("read", "domain", name)? else { return Ok(String::new()) };
    let mut text = tail(&log, bytes)?;
    if text.len() < bytes {
        // The log daemon moves a full log aside.
        let mut before = tail(&PathBuf::from(format!("{}.0", log.display())), bytes - text.len())?;
        before.append(&mut text);
        text = before;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn tail(path: &Path, bytes: usize) -> Result<Vec<u8>> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes as u64)))?;
        let mut text = Vec::new();
        file.take(bytes as u64).read_to_end(&mut text)?;
        Ok(text)
    };
    match read() {
        Err(error) if std::io::Error::kind(&error) == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(LibvirtError::File { what: "read", path: path.to_owned(), source }),
        Ok(text) => Ok(text),
    }
}

pub(super) fn join_channel_impl(connect: &Connect, reference: &DomainRef) -> Result<Option<PathBuf>> {
    let Some(domain) = find_ours(connect, reference)? else { return Ok(None) };
    let name = &reference.name;
    if !domain.is_active().call("read", "domain", name)? {
        return Ok(None);
    }
    let xml = domain.xml_desc(0).call("read", "domain", name)?;
    read_join_channel(&xml).call("read", "domain", name)
}
