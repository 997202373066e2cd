//! Whether VMs run on KVM or emulated. Read once per observation.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

/// What executes a VM's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The processor, through KVM.
    Kvm,
    /// QEMU's translator: works everywhere, several times slower.
    #[default]
    Tcg,
}

impl Accelerator {
    /// libvirt's domain type.
    pub fn domain_type(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "qemu",
        }
    }

    /// By libvirt's domain type; `None` for VMs of other kinds.
    pub fn of_domain_type(kind: &str) -> Option<Self> {
        [Self::Kvm, Self::Tcg].into_iter().find(|it| it.domain_type() == kind)
    }

    /// libvirt's CPU mode: all that the processor, or the translator, can do.
    pub fn cpu_mode(self) -> &'static str {
        match self {
            Self::Kvm => "host-passthrough",
            Self::Tcg => "maximum",
        }
    }

    /// Features that a VM runs faster without. A translator's `rep movsb` goes byte by byte, so a kernel told that
    /// this is the fast way to copy and clear memory does both five times slower; and a fifth level of page tables
    /// is one more load on each miss, for addresses that no home machine has.
    pub fn cpu_features_off(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &[],
            Self::Tcg => &["erms", "la57"],
        }
    }

    /// Room for what QEMU has translated, in MiB: the most that it can use. Once its own 1024 are full, which a control
    /// plane's `up` comes to, it throws all away and translates it again. libvirt before 8.0 passes over it.
    pub fn translations_mib(self) -> Option<u64> {
        match self {
            Self::Kvm => None,
            Self::Tcg => Some(2048),
        }
    }

    /// What a VM's kernel command line gets beyond the image's own. Emulation runs a guest in its own
    /// address space: the kernel's defences against leaks between address spaces cost a tenth of the boot there and
    /// defend nothing. And its time stamp counter is the host's, one for all virtual CPUs, but a kernel trusts that
    /// only when told to: else each look at the clock leaves the translator for an emulated HPET.
    pub fn cmdline(self) -> &'static str {
        match self {
            Self::Kvm => "",
            Self::Tcg => "mitigations=off tsc=reliable",
        }
    }
}

/// The accelerator of this host.
pub fn detect() -> Accelerator {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    decide(device_opens(Path::new("/dev/kvm")), &cpuinfo)
}

/// How many processors of emulated VMs run at once, as many as this host has; 0 where VMs are not emulated.
pub fn at_once() -> u32 {
    match detect() {
        Accelerator::Kvm => 0,
        Accelerator::Tcg => {
            available_parallelism().map_or(0, |count| u32::try_from(count.get()).unwrap_or(0))
        }
    }
}

fn device_opens(device: &Path) -> bool {
    OpenOptions::new().read(true).write(true).open(device).is_ok()
}

/// KVM needs both: a `/dev/kvm` without `vmx` or `svm` in the flags cannot boot a stock kernel.
pub fn decide(device_opens: bool, cpuinfo: &str) -> Accelerator {
    let virtualises = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .any(|(_, flags)| flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"));
    if device_opens && virtualises { Accelerator::Kvm } else { Accelerator::Tcg }
}

#[cfg(test)]
mod tests {
    use super::{Accelerator, decide};

    #[test]
    fn kvm_needs_device_and_flag() {
        let with = "processor\t: 0\nflags\t\t: fpu vme svm aes\n";
        let without = "processor\t: 0\nflags\t\t: fpu vme aes\nbugs : vmx\n";
        assert_eq!(decide(true, with), Accelerator::Kvm);
        assert_eq!(decide(false, with), Accelerator::Tcg);
        assert_eq!(decide(true, without), Accelerator::Tcg);
    }
}
