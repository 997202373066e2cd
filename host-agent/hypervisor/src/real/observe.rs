//! Looking at libvirt and the host.
//!
//! Objects may go between being listed and being read; those are left out.

use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use virt::connect::Connect;
use virt::domain::{
    Domain, DomainPausedReason, DomainState as VirtState, DomainStateEnum, DomainStateReason,
    DomainStateReasonEnum,
};
use virt::enumutil::Enum;
use virt::network::Network;
use virt::sys;

use super::daemons::is_local_system;
use super::error::{Context, LibvirtError, Result, is_absent, optional};
use super::network::network_xml;
use super::qcow2::{Header, read_header};
use super::share::PID_FILES;
use crate::accelerator::{self, Accelerator};
use crate::counter;
use crate::desired::{DesiredPool, is_image_part};
use crate::observed::{
    DomainState, HostInterface, ObservedDomain, ObservedHost, ObservedNetwork, ObservedPool, ObservedVolume,
};
use crate::xml::XmlError;
use crate::xml::domain::read_domain;
use crate::xml::network::read_network;
use crate::xml::owner::owner_of;
use crate::xml::storage::{read_pool_path, read_volume_backing};

pub(super) fn observe_impl(connect: &Connect, pool: &DesiredPool) -> Result<ObservedHost> {
    let networks = connect.list_all_networks(0).call("list", "networks of", "libvirt")?;
    let domains = connect.list_all_domains(0).call("list", "domains of", "libvirt")?;
    let node = connect.node_info().call("read", "facts of", "the host")?;
    let (observed_pool, volumes) = observe_pool(connect, pool)?;
    let accelerator = accelerator::detect();
    // Files of another libvirt's are not where ours has them.
    let pid_files = connect.uri().is_ok_and(|uri| is_local_system(&uri)).then_some(Path::new(PID_FILES));
    Ok(ObservedHost {
        networks: present(networks.iter().map(|network| observe_network(network, pid_files.is_some())))?,
        pool: observed_pool,
        volumes,
        domains: present(domains.iter().map(|domain| observe_domain(domain, pid_files)))?,
        interfaces: interfaces(),
        links: links(),
        accelerator,
        counter_khz: (accelerator == Accelerator::Tcg).then(counter::khz).flatten(),
        libvirt_version: connect.lib_version().map(version).unwrap_or_default(),
        pool_free_bytes: free_bytes(&pool.path),
        host_cpus: node.cpus,
        host_memory_bytes: node.memory << 10,
    })
}

/// libvirt's number for a version: 9000001 is 9.0.1.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}

fn present<T>(items: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    let gone = |item: &Result<T>| matches!(item, Err(LibvirtError::Call { source, .. }) if is_absent(source));
    items.filter(|item| !gone(item)).collect()
}

/// One whose bridge somebody has removed from this host does not run, whatever libvirt says; of another host, nothing is
/// known of that.
pub(super) fn observe_network(network: &Network, is_here: bool) -> Result<ObservedNetwork> {
    let name = network.name().call("read the name of", "a", "network")?;
    let active = network.is_active().call("read", "network", &name)?;
    // A transient network has no persistent configuration; what runs is all there is.
    let persistent = network.is_persistent().call("read", "network", &name)?;
    let inactive = network_xml(network, persistent).call("read", "network", &name)?;
    let live = active.then(|| network.xml_desc(0)).transpose().call("read", "network", &name)?;
    let autostart = persistent && network.autostart().unwrap_or(false);
    let seen = read_network(&inactive, live.as_deref(), autostart).call("read", "network", &name)?;
    // One that is not defined would be gone with its stop.
    let active =
        seen.active && !(is_here && persistent && lacks_bridge(&seen.forward, seen.bridge.as_deref()));
    Ok(ObservedNetwork { persistent, active, ..seen })
}

fn lacks_bridge(forward: &str, bridge: Option<&str>) -> bool {
    // Others are on a bridge that libvirt did not make.
    let is_libvirts = ["", "nat", "route", "open"].contains(&forward);
    is_libvirts && bridge.is_some_and(|bridge| if_nametoindex(bridge).is_err())
}

fn observe_domain(domain: &Domain, pid_files: Option<&Path>) -> Result<ObservedDomain> {
    let name = domain.name().call("read the name of", "a", "domain")?;
    let (state, reason) = domain.state().call("read", "domain", &name)?;
    let state = domain_state(state, reason);
    let persistent = domain.is_persistent().call("read", "domain", &name)?;
    let flags = if persistent { sys::VIR_DOMAIN_XML_INACTIVE } else { 0 };
    let inactive = domain.xml_desc(flags).call("read", "domain", &name)?;
    let live = domain.is_active().call("read", "domain", &name)?;
    let live = live.then(|| domain.xml_desc(0)).transpose().call("read", "domain", &name)?;
    let autostart = persistent && domain.autostart().unwrap_or(false);
    let has_managed_save = persistent && domain.has_managed_save(0).unwrap_or(false);
    match read_domain(&inactive, live.as_deref(), state, autostart) {
        Err(error) => {
            let uuid = domain.uuid_string().call("read", "domain", &name)?;
            let seen = ObservedDomain { name, uuid, state, ..ObservedDomain::default() };
            without_document(&inactive, error, seen)
        }
        Ok(seen) => {
            let started = pid_files.filter(|_| live.is_some()).and_then(|dir| started(dir, &name));
            Ok(ObservedDomain { has_managed_save, started, ..seen })
        }
    }
}

/// libvirt writes the file when it has started the VM's process, and never again.
fn started(pid_files: &Path, name: &str) -> Option<SystemTime> {
    fs::metadata(pid_files.join(format!("{name}.pid"))).and_then(|file| file.modified()).ok()
}

/// A VM whose document is like none that we know: one of ours would be changed blindly, but a stranger's is in nobody's
/// way because of that. What `seen` has is known of it without the document.
fn without_document(xml: &str, error: XmlError, seen: ObservedDomain) -> Result<ObservedDomain> {
    if matches!(owner_of(xml, &seen.uuid), Ok(None)) {
        tracing::warn!(libvirt.domain = %seen.name, error = %error, "cannot read the document of somebody else's VM");
        return Ok(seen);
    }
    Err(error).call("read", "domain", &seen.name)
}

pub(super) fn domain_state(state: DomainStateEnum, reason: DomainStateReasonEnum) -> DomainState {
    use DomainPausedReason as Why;
    if let Enum::Known(DomainStateReason::Paused(why)) = reason {
        match why.known() {
            Some(Why::IOError) => DomainState::IoError,
            // libvirt is at work on it, and lets it go on, or ends it, by itself.
            Some(
                Why::Migration
                | Why::Save
                | Why::Dump
                | Why::Snapshot
                | Why::StartingUp
                | Why::ShuttingDown
                | Why::PostCopy,
            ) => DomainState::Running,
            _ => DomainState::Paused,
        }
    } else if state == VirtState::Paused.into() || state == VirtState::PMSuspended.into() {
        DomainState::Paused
    } else if state == VirtState::Shutoff.into() {
        DomainState::Off
    } else if state == VirtState::Crashed.into() {
        DomainState::Crashed
    } else {
        DomainState::Running
    }
}

fn observe_pool(
    connect: &Connect,
    wanted: &DesiredPool,
) -> Result<(Option<ObservedPool>, Vec<ObservedVolume>)> {
    let mut volumes = Vec::new();
    let found =
        optional(connect.lookup_storage_pool_by_name(&wanted.name)).call("look up", "pool", &wanted.name)?;
    let pool = match found {
        None => None,
        Some(pool) => {
            let xml = pool.xml_desc(0).call("read", "pool", &wanted.name)?;
            let path = read_pool_path(&xml).call("read", "pool", &wanted.name)?;
            let active = pool.is_active().call("read", "pool", &wanted.name)?;
            let autostart = pool.autostart().unwrap_or(false);
            if active && path.as_ref() == Some(&wanted.path) {
                let all = pool.list_all_volumes(0).call("list volumes of", "pool", &wanted.name)?;
                volumes = present(all.iter().map(observe_volume))?.into_iter().flatten().collect();
            }
            Some(ObservedPool { path, active, autostart })
        }
    };
    // Files that libvirt has not seen yet, such as an image put there a moment ago, and all of a pool that does not run.
    for entry in fs::read_dir(&wanted.path).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && !volumes.iter().any(|volume| volume.name == name) {
            volumes.push(observe_file(&entry, name));
        }
    }
    volumes.retain(|volume| !volume.name.starts_with('.') || is_image_part(&volume.name));
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((pool, volumes))
}

/// A file that libvirt does not list, as it would be listed.
fn observe_file(entry: &fs::DirEntry, name: String) -> ObservedVolume {
    match File::open(entry.path()).and_then(|mut file| read_header(&mut file)) {
        Ok(Some(Header { capacity, backing })) => ObservedVolume { name, capacity, backing },
        header => {
            if let Err(error) = header {
                tracing::warn!(path = %entry.path().display(), error = %error, "cannot read a file of the pool");
            }
            let capacity = entry.metadata().map(|meta| meta.len()).unwrap_or_default();
            ObservedVolume { name, capacity, backing: None }
        }
    }
}

/// A directory, such as that of the consoles, is none.
fn observe_volume(volume: &virt::storage_vol::StorageVol) -> Result<Option<ObservedVolume>> {
    let name = volume.name().call("read the name of", "a", "volume")?;
    let info = volume.info().call("read", "volume", &name)?;
    if info.kind == sys::VIR_STORAGE_VOL_DIR {
        return Ok(None);
    }
    let capacity = info.capacity;
    let xml = volume.xml_desc(0).call("read", "volume", &name)?;
    let backing = read_volume_backing(&xml).call("read", "volume", &name)?;
    Ok(Some(ObservedVolume { name, capacity, backing }))
}

pub(super) fn interfaces() -> Vec<HostInterface> {
    let addresses = getifaddrs().into_iter().flatten();
    addresses
        .filter_map(|it| {
            let address = it.address?.as_sockaddr_in()?.ip();
            let mask = it.netmask?.as_sockaddr_in()?.ip();
            let address = Ipv4Net::new(address, ipnet::ipv4_mask_to_prefix(mask).ok()?).ok()?;
            (!address.addr().is_loopback()).then_some(HostInterface { name: it.interface_name, address })
        })
        .collect()
}

fn links() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Bytes free for root at `path`, or where its nearest existing parent is.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    path.ancestors()
        .find_map(|path| rustix::fs::statvfs(path).ok())
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use virt::domain::{DomainPMSuspendedReason, DomainRunningReason, DomainShutoffReason};

    use super::*;

    #[test]
    fn a_network_whose_bridge_is_gone_does_not_run() {
        assert_eq!(["lo", "k8s-nowhere"].map(|bridge| lacks_bridge("nat", Some(bridge))), [false, true]);
        assert!(!lacks_bridge("bridge", Some("k8s-nowhere")), "that is not libvirt's to make");
        assert!(!lacks_bridge("nat", None));
    }

    #[test]
    fn a_vm_that_libvirt_is_at_work_on_is_not_one_that_a_person_paused() {
        use DomainPausedReason as Why;
        let paused =
            |why: Why| domain_state(VirtState::Paused.into(), DomainStateReason::Paused(why.into()).into());
        for passing in [
            Why::Migration,
            Why::Save,
            Why::Dump,
            Why::Snapshot,
            Why::StartingUp,
            Why::ShuttingDown,
            Why::PostCopy,
        ] {
            assert_eq!(paused(passing), DomainState::Running, "{passing:?}");
        }
        for lasting in [
            Why::Unknown,
            Why::User,
            Why::Watchdog,
            Why::FromSnapshot,
            Why::Crashed,
            Why::PostCopyFailed,
            Why::APIError,
        ] {
            assert_eq!(paused(lasting), DomainState::Paused, "{lasting:?}");
        }
        assert_eq!(paused(Why::IOError), DomainState::IoError);
        let (asleep, off) = (DomainPMSuspendedReason::Unknown.into(), DomainShutoffReason::Saved.into());
        for (state, reason, expected) in [
            (VirtState::PMSuspended, DomainStateReason::PMSuspended(asleep), DomainState::Paused),
            (VirtState::Shutoff, DomainStateReason::Shutoff(off), DomainState::Off),
            (
                VirtState::Running,
                DomainStateReason::Running(DomainRunningReason::Booted.into()),
                DomainState::Running,
            ),
        ] {
            assert_eq!(domain_state(state.into(), reason.into()), expected);
        }
    }

    #[test]
    fn a_document_of_a_stranger_that_cannot_be_read_is_no_obstacle() {
        let look = |metadata: &str| {
            let xml = format!("<domain><name>w</name><uuid>u</uuid>{metadata}<vcpu>many</vcpu></domain>");
            let error = read_domain(&xml, None, DomainState::Off, false).expect_err("many is no number");
            let seen = ObservedDomain { name: "w".into(), uuid: "u".into(), ..ObservedDomain::default() };
            without_document(&xml, error, seen)
        };
        assert_eq!(look("").expect("it is a stranger's").uuid, "u");
        let mark = |object: &str| {
            format!(
                "<metadata><m:owner xmlns:m='{}' cluster='c' object='{object}'/></metadata>",
                crate::xml::owner::NAMESPACE
            )
        };
        assert_eq!(look(&mark("of-another")).expect("it is a copy").name, "w");
        look(&mark("u")).expect_err("it is ours");
    }
}
