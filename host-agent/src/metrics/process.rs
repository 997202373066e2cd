//! The host agent's own process.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};
use rustix::time::{ClockId, clock_gettime};

use super::text::{Value, value};

/// What the kernel says of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
    open_fds: u64,
    began_seconds: f64,
}

impl Process {
    /// As it is now. What cannot be read is 0.
    pub(super) fn read(began: jiff::Timestamp) -> Self {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        // One of them is for reading this.
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, |found| found.count().saturating_sub(1));
        Self {
            cpu_seconds: used.tv_sec as f64 + used.tv_nsec as f64 / 1e9,
            resident_bytes: resident.unwrap_or_default().saturating_mul(1024),
            open_fds: open as u64,
            began_seconds: began.as_millisecond() as f64 / 1e3,
        }
    }

    pub(super) fn register(self, registry: &mut Registry) {
        let cpu = Counter::<f64, AtomicU64>::default();
        cpu.inc_by(self.cpu_seconds);
        let help = "Time that the processors spent on it";
        registry.register_with_unit("process_cpu", help, Unit::Seconds, cpu);
        let memory = value(self.resident_bytes);
        registry.register_with_unit("process_resident_memory", "Memory that it holds", Unit::Bytes, memory);
        registry.register("process_open_fds", "File descriptors that it holds", value(self.open_fds));
        let began = Value::default();
        began.set(self.began_seconds);
        registry.register_with_unit("process_start_time", "When it began", Unit::Seconds, began);
    }
}
