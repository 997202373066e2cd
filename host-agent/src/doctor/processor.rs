//! What VMs run on: KVM with its processor flags, nesting, control groups.

use std::fs::OpenOptions;
use std::io;

use host_hypervisor::accelerator::{self, Accelerator};
use k8sctl_proto::control::v1::Check;

use super::{Host, ok, warning};

/// Controllers that libvirt limits VMs with.
const CONTROLLERS: [&str; 2] = ["cpu", "memory"];

/// All checks of this file.
pub fn examine(host: &Host) -> Vec<Check> {
    let cpuinfo = host.read("/proc/cpuinfo").unwrap_or_default();
    let device = OpenOptions::new().read(true).write(true).open(host.file("/dev/kvm")).map(drop);
    vec![
        decide_kvm(device, &cpuinfo),
        decide_nested(&cpuinfo),
        decide_cgroups(host.read("/sys/fs/cgroup/cgroup.controllers").as_deref()),
    ]
}

fn has_flag(cpuinfo: &str, wanted: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .any(|(_, flags)| flags.split_whitespace().any(|flag| flag == wanted))
}

/// KVM needs both its device and the processor's flag.
pub fn decide_kvm(device: io::Result<()>, cpuinfo: &str) -> Check {
    const SLOW: &str = "VMs are emulated, several times slower";
    let virtualises = accelerator::decide(true, cpuinfo) == Accelerator::Kvm;
    let vendor = if cpuinfo.contains("AuthenticAMD") { "kvm_amd" } else { "kvm_intel" };
    let (reason, hint) = match (device, virtualises) {
        (Ok(()), true) => return ok("HOST-KVM", "VMs run on KVM"),
        (Ok(()), false) => (
            "/dev/kvm is there, but the processor has neither vmx nor svm: it cannot boot a stock kernel"
                .to_owned(),
            "enable nested virtualisation on the outer host".to_owned(),
        ),
        (Err(_), false) => (
            "the processor shows neither vmx nor svm".to_owned(),
            "enable virtualisation in the firmware, or nested virtualisation on the outer host".to_owned(),
        ),
        (Err(error), true) if error.kind() == io::ErrorKind::NotFound => {
            ("there is no /dev/kvm".to_owned(), format!("modprobe {vendor}"))
        }
        (Err(error), true) => (
            format!("/dev/kvm cannot be opened: {error}"),
            "check its owner and mode: ls -l /dev/kvm".to_owned(),
        ),
    };
    warning("HOST-KVM", format!("{reason}; {SLOW}"), hint)
}

/// Whether a host that is a VM itself may have VMs that run on its processor.
pub fn decide_nested(cpuinfo: &str) -> Check {
    let is_vm = has_flag(cpuinfo, "hypervisor");
    match (is_vm, accelerator::decide(true, cpuinfo)) {
        (false, _) => ok("HOST-NESTED", "this host is no VM: nested virtualisation is not needed"),
        (true, Accelerator::Kvm) => ok("HOST-NESTED", "this host is a VM with nested virtualisation"),
        (true, Accelerator::Tcg) => warning(
            "HOST-NESTED",
            "this host is a VM without nested virtualisation",
            "on the outer host load kvm_intel or kvm_amd with nested=1, and give this VM the host's CPU model",
        ),
    }
}

/// Control groups, version 2.
pub fn decide_cgroups(controllers: Option<&str>) -> Check {
    const HINT: &str = "boot with systemd.unified_cgroup_hierarchy=1";
    let Some(controllers) = controllers else {
        return warning(
            "HOST-CGROUPS",
            "this host has no control groups of version 2: VMs are not limited",
            HINT,
        );
    };
    let there: Vec<&str> = controllers.split_whitespace().collect();
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|wanted| !there.contains(wanted)).collect();
    if missing.is_empty() {
        ok("HOST-CGROUPS", "control groups of version 2")
    } else {
        let message = format!("control groups lack {}: VMs are not limited", missing.join(" and "));
        warning("HOST-CGROUPS", message, HINT)
    }
}
