//! What the agent sees of its own machine: identity for joining, facts for `Hello`.
//!
//! Reads `/proc` and `/sys`; never fails: what cannot be read is left empty.

use std::path::Path;
use std::time::Duration;

use k8sctl_proto::node::v1::NodeFacts;

/// Who this machine is, from the kernel and the firmware.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Changes with every boot.
    pub boot_id: String,
    /// DMI product UUID, lower case.
    pub machine_uuid: String,
    /// From power-on to the start of this agent.
    pub boot_to_agent: Duration,
}

impl Machine {
    /// Reads them, at the agent's start.
    pub fn read() -> Self {
        let booted = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self {
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            machine_uuid: line("/sys/class/dmi/id/product_uuid").to_lowercase(),
            boot_to_agent: Duration::try_from(booted).unwrap_or_default(),
        }
    }
}

impl Machine {
    /// Facts as of now: the root file system grows, the host name comes.
    pub fn facts(&self, root: &Path) -> NodeFacts {
        let disk = rustix::fs::statvfs(root).map(|stat| stat.f_blocks * stat.f_frsize).unwrap_or_default();
        NodeFacts {
            vcpus: processors(),
            memory_bytes: meminfo("MemTotal"),
            disk_bytes: disk,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            os: pretty_name(),
            hostname: line("/proc/sys/kernel/hostname"),
            boot_to_agent: prost_types::Duration::try_from(self.boot_to_agent).ok(),
        }
    }
}

/// How many processors the machine has, whichever of them this process may use.
pub fn processors() -> u32 {
    count_processors(&line("/sys/devices/system/cpu/online"))
}

/// Of a list as the kernel writes it, `0-3,6`.
fn count_processors(list: &str) -> u32 {
    let count = |range: &str| -> Option<u32> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').filter_map(count).sum()
}

/// A value of `/proc/meminfo` in bytes; 0 when it is not there.
pub fn meminfo(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

fn pretty_name() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_as_the_kernel_lists_them() {
        let counts = ["0-3", "0", "0-3,6", "0,2-3,8-9", "", "x", "3-1"].map(count_processors);
        assert_eq!(counts, [4, 1, 5, 5, 0, 0, 0]);
    }

    #[test]
    fn this_machine_has_processors_and_memory() {
        let facts = Machine::read().facts(Path::new("/"));
        assert!(facts.vcpus > 0 && facts.memory_bytes > 0 && facts.disk_bytes > 0, "{facts:?}");
    }
}
