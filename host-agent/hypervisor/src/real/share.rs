//! A VM's share of the host's processors: how much it gets of them while more is wanted than there is.
//!
//! libvirt gives every VM a control group of its own, all with the same weight, however many virtual processors they
//! have; the weight of a running one is changed through libvirt. Where libvirt has no control groups (hosts without
//! systemd, most containers), the kernel groups processes by session, and a VM is a session of its own: sched(7), "The
//! autogroup feature". Neither is part of the definition, where a host without control groups could not start it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use virt::connect::Connect;
use virt::domain::{Domain, SchedulerInfo};
use virt::error::ErrorNumber;
use virt::sys;

use super::HypervisorConfig;
use super::daemons::is_local_system;
use super::domain::find_ours;
use super::error::{Context, Result};
use crate::change::{DomainRef, Outcome};

/// A group's weight in control groups v2 and v1 where nobody has set another one.
const UNSET_WEIGHTS: [u64; 2] = [100, 1024];
/// A preferred VM counts as twelve fifths of another: nearly what [`AUTOGROUP_NICE`] makes it, where each step is a
/// factor of 1.25.
const PREFERENCE: (u64, u64) = (12, 5);
const AUTOGROUP_NICE: &str = "-4";
/// Where the system's libvirt has a file with the process id of each VM.
pub(super) const PID_FILES: &str = "/run/libvirt/qemu";

pub(super) fn execute_prefer(
    connect: &Connect,
    config: &HypervisorConfig,
    reference: &DomainRef,
) -> Result<Outcome> {
    let name = &reference.name;
    let Some(domain) = find_ours(connect, reference)? else { return Ok(Outcome::AlreadySo) };
    if !domain.is_active().call("read", "domain", name)? {
        return Ok(Outcome::AlreadySo);
    }
    let done = match set_weight(&domain) {
        Err(error) if has_no_group(&error) => None,
        set => set.call("set the processor share of", "domain", name)?,
    };
    if done.is_none() && is_local_system(&config.uri) {
        return Ok(prefer_process(Path::new(PID_FILES), Path::new("/proc"), reference));
    }
    Ok(done.unwrap_or(Outcome::AlreadySo))
}

/// What libvirt says where it has no control groups, or where the hypervisor is one without.
fn has_no_group(error: &virt::error::Error) -> bool {
    [ErrorNumber::OperationInvalid, ErrorNumber::NoSupport, ErrorNumber::ConfigUnsupported]
        .into_iter()
        .any(|number| error.code() == number.into())
}

/// `None` where the VM has no weight of its own.
fn set_weight(domain: &Domain) -> std::result::Result<Option<Outcome>, virt::error::Error> {
    let now = domain.scheduler_parameters_flags(sys::VIR_DOMAIN_AFFECT_LIVE)?;
    let Some(weight) = now.cpu_shares else { return Ok(None) };
    if !UNSET_WEIGHTS.contains(&weight) {
        return Ok(Some(Outcome::AlreadySo));
    }
    let preferred = weight * PREFERENCE.0 / PREFERENCE.1;
    let change = SchedulerInfo { cpu_shares: Some(preferred), ..SchedulerInfo::default() };
    domain.set_scheduler_parameters_flags(&change, sys::VIR_DOMAIN_AFFECT_LIVE)?;
    Ok(Some(Outcome::Done))
}

/// Sets the weight of the VM's process group, if the kernel has such groups and the process is there.
fn prefer_process(pid_files: &Path, proc: &Path, reference: &DomainRef) -> Outcome {
    let name = &reference.name;
    let set = || {
        let pid = fs::read_to_string(pid_files.join(format!("{name}.pid")))?;
        let pid: u32 = pid.trim().parse().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let process = proc.join(pid.to_string());
        // The file may be of a VM that has ended, and its number another's by now.
        let command = fs::read(process.join("cmdline"))?;
        let is_its = command.windows(reference.uuid.len()).any(|part| part == reference.uuid.as_bytes());
        // `/autogroup-42 nice 0`; a kernel that does not group processes has no such file.
        let group = process.join("autogroup");
        if !is_its || !fs::read_to_string(&group)?.trim_end().ends_with(" nice 0") {
            return Ok(Outcome::AlreadySo);
        }
        fs::write(group, AUTOGROUP_NICE).map(|()| Outcome::Done)
    };
    set().unwrap_or_else(|error| {
        tracing::debug!(domain = %name, %error, "the weight of its processes stays");
        Outcome::AlreadySo
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_of_the_vm_meant_is_preferred() {
        let dir = tempfile::tempdir().expect("a directory");
        let (run, proc) = (dir.path().join("run"), dir.path().join("proc"));
        let uuid = "00000000-0000-4000-8000-000000000001";
        for (pid, command) in [("7", format!("qemu\0-uuid\0{uuid}\0")), ("8", "sleep\x001".to_owned())] {
            fs::create_dir_all(proc.join(pid)).expect("a directory");
            fs::write(proc.join(pid).join("cmdline"), command).expect("writes");
            fs::write(proc.join(pid).join("autogroup"), "/autogroup-1 nice 0\n").expect("writes");
        }
        fs::create_dir(&run).expect("a directory");
        let set = |pid_file: &str| {
            fs::write(run.join("cp.pid"), pid_file).expect("writes");
            let of = DomainRef { name: "cp".into(), uuid: uuid.into(), cluster_id: "c".into() };
            prefer_process(&run, &proc, &of)
        };
        let seen = |pid: &str| fs::read_to_string(proc.join(pid).join("autogroup")).expect("reads");
        for strange in ["", "none", "8", "9"] {
            assert_eq!(set(strange), Outcome::AlreadySo);
            assert_eq!(
                (&*seen("7"), &*seen("8")),
                ("/autogroup-1 nice 0\n", "/autogroup-1 nice 0\n"),
                "{strange}"
            );
        }
        assert_eq!(set("7\n"), Outcome::Done);
        assert_eq!((&*seen("7"), &*seen("8")), (AUTOGROUP_NICE, "/autogroup-1 nice 0\n"));
        let by_a_person = "/autogroup-1 nice 10\n";
        fs::write(proc.join("7/autogroup"), by_a_person).expect("writes");
        assert_eq!(set("7\n"), Outcome::AlreadySo);
        assert_eq!(seen("7"), by_a_person);
        fs::remove_file(proc.join("7/autogroup")).expect("removes");
        assert_eq!(set("7\n"), Outcome::AlreadySo);
        assert!(!proc.join("7/autogroup").exists());
    }
}
