//! What a process costs, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Ticks of a second in `/proc`: part of the kernel's interface.
const TICKS: f64 = 100.0;

/// Resident memory now, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// The most that was resident since [`forget_peak`], in bytes.
pub fn peak(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

/// The peak counts from now on.
pub fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak of the memory")
}

/// How many files it has open.
pub fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Time on a processor since its start, of all its threads.
pub fn processor(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks(&text).map(|ticks| Duration::from_secs_f64(ticks as f64 / TICKS)).context("its processor time")
}

fn status(pid: u32, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    kib(&text, key).map(|kib| kib * 1024).with_context(|| format!("{key} of process {pid}"))
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

/// User's and system's time of a line of `/proc/PID/stat`. The name before may have anything in it.
fn ticks(text: &str) -> Option<u64> {
    let (_, behind) = text.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_found() {
        let status = "Name:\tk8s-host-agent\nVmHWM:\t   51200 kB\nVmRSS:\t   40960 kB\n";
        assert_eq!((kib(status, "VmRSS:"), kib(status, "VmHWM:")), (Some(40_960), Some(51_200)));
        assert_eq!(kib(status, "VmSwap:"), None);
        let stat = "42 (a) b) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 200\n";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("42 (a"), None);
    }

    #[test]
    fn this_process_costs_something() {
        let pid = std::process::id();
        assert!(resident(pid).expect("read") > 0 && peak(pid).expect("read") > 0);
        processor(pid).expect("read");
        assert!(descriptors(pid).expect("read") > 2);
    }
}
