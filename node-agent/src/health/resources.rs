//! Disk and memory: `DiskOK`, `MemoryOK`.

use std::path::Path;
use std::time::Duration;

use k8sctl_proto::node::v1::ConditionStatus::{self, False, True, Unknown};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::pressure::{self, Pressure};
use crate::durable::Root;
use crate::machine;
use crate::status::Board;

/// How often both are looked at.
const LOOK: Duration = Duration::from_secs(15);
/// How often, and how many times, memory is looked at after the kernel told of pressure: its average lags.
const LOOK_CLOSELY: Duration = Duration::from_secs(2);
const CLOSE_LOOKS: u32 = 6;
/// The file systems that must have room; those that are the same one count once.
const FILE_SYSTEMS: [&str; 2] = ["/", "/var/lib/containerd"];
/// Least free share of a file system's bytes and inodes, in percent.
const DISK_FREE: u64 = 10;
const INODES_FREE: u64 = 5;
/// Free share of the bytes at which nothing more is removed: some way from the limit, or it would be reached again soon.
const ROOMY: u64 = 20;
/// Share of ten seconds in which everything waited for memory, in percent.
const MEMORY_STALL: f64 = 10.0;

/// A file system. Each pair is free and all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Disk {
    path: &'static str,
    /// Names the file system.
    id: u64,
    blocks: (u64, u64),
    inodes: (u64, u64),
    block_size: u64,
}

/// All of them, or why they cannot be looked at.
#[derive(Clone, Debug)]
pub struct Disks(Result<Vec<Disk>, String>);

impl Disks {
    /// Looks at them.
    pub fn look(root: &Root) -> Self {
        let mut disks: Vec<Disk> = Vec::new();
        for path in FILE_SYSTEMS {
            match rustix::fs::statvfs(root.path(path)) {
                Ok(stat) if disks.iter().any(|disk| disk.id == stat.f_fsid) => {}
                Ok(stat) => disks.push(Disk {
                    path,
                    id: stat.f_fsid,
                    blocks: (stat.f_bavail, stat.f_blocks),
                    inodes: (stat.f_favail, stat.f_files),
                    block_size: stat.f_frsize,
                }),
                // Before containerd's first start.
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Self(Err(error.to_string())),
            }
        }
        Self(Ok(disks))
    }

    /// `Err` says how full they are.
    pub fn is_well(&self) -> Result<(), String> {
        let (status, _, message) = self.judge();
        if status == False { Err(message) } else { Ok(()) }
    }

    /// Whether there is more room than is needed.
    pub fn is_roomy(&self) -> bool {
        let roomy = |disk: &Disk| percent(disk.blocks) >= ROOMY && percent(disk.inodes) >= INODES_FREE * 2;
        self.0.as_ref().is_ok_and(|disks| disks.iter().all(roomy))
    }

    fn judge(&self) -> (ConditionStatus, &'static str, String) {
        let disks = match &self.0 {
            Ok(disks) => disks,
            Err(error) => return (Unknown, "Unreadable", error.clone()),
        };
        let bad = disks.iter().map(Disk::judge).find(|(status, _, _)| *status == False);
        let all = || disks.iter().map(Disk::message).collect::<Vec<_>>().join(", ");
        bad.unwrap_or_else(|| (True, "Free", all()))
    }
}

impl Disk {
    fn judge(&self) -> (ConditionStatus, &'static str, String) {
        if percent(self.blocks) < DISK_FREE {
            (False, "DiskFull", self.message())
        } else if percent(self.inodes) < INODES_FREE {
            (False, "InodesUsedUp", self.message())
        } else {
            (True, "Free", self.message())
        }
    }

    /// Changes only with the whole percent, so that it wakes nobody for nothing.
    fn message(&self) -> String {
        let all = self.blocks.1 * self.block_size / (1 << 30);
        let (bytes, inodes) = (percent(self.blocks), percent(self.inodes));
        format!("{}: {bytes} % of {all} GiB and {inodes} % of the inodes are free", self.path)
    }
}

fn percent((free, all): (u64, u64)) -> u64 {
    (free * 100).checked_div(all).unwrap_or(100)
}

/// Looks until the runtime ends.
pub async fn watch(board: Board, root: Root, full: watch::Sender<Option<String>>) {
    let pressure = Pressure::watch(Path::new(pressure::FILE));
    let (mut disks_seen, mut close_looks) = (None::<Instant>, 0u32);
    loop {
        if disks_seen.is_none_or(|seen| seen.elapsed() >= LOOK) {
            look_at_disks(&board, &Disks::look(&root), &full);
            disks_seen = Some(Instant::now());
        }
        look_at_memory(&board);
        let pause = if close_looks > 0 { LOOK_CLOSELY } else { LOOK };
        close_looks = close_looks.saturating_sub(1);
        // Cancel-safe: both only wake. Pressure that lasts is told again and again, and is looked at now and then.
        tokio::select! {
            () = sleep(pause) => {}
            () = pressure.rises(), if close_looks == 0 => close_looks = CLOSE_LOOKS,
        }
    }
}

fn look_at_disks(board: &Board, disks: &Disks, full: &watch::Sender<Option<String>>) {
    let (status, reason, message) = disks.judge();
    board.condition("DiskOK", status, reason, message);
    let now = disks.is_well().err();
    full.send_if_modified(|known| {
        let modified = *known != now;
        *known = now;
        modified
    });
}

fn look_at_memory(board: &Board) {
    let file = std::fs::read_to_string(pressure::FILE).unwrap_or_default();
    let (status, reason, message) =
        judge_memory(&file, machine::meminfo("MemAvailable"), machine::meminfo("MemTotal"));
    board.condition("MemoryOK", status, reason, message);
}

/// `full avg10=0.00 …` of the kernel's pressure file; without one, by what is available.
fn judge_memory(pressure: &str, available: u64, all: u64) -> (ConditionStatus, &'static str, String) {
    let stall = pressure
        .lines()
        .find_map(|line| line.strip_prefix("full avg10="))
        .and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    if let Some(stall) = stall.filter(|stall| *stall >= MEMORY_STALL) {
        return (False, "Pressure", format!("everything waited for memory {stall:.0} % of the last 10 s"));
    }
    if available * 100 < all * 3 {
        return (False, "Low", format!("{} MiB available", available / (1 << 20)));
    }
    (True, "Available", String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(blocks: u64, inodes: (u64, u64)) -> Disk {
        Disk { path: "/", id: 1, blocks: (blocks, 100), inodes, block_size: 4096 }
    }

    fn judged(disks: &[Disk]) -> (ConditionStatus, &'static str, String) {
        Disks(Ok(disks.to_vec())).judge()
    }

    #[test]
    fn little_disk_or_few_inodes_are_not_ok() {
        assert_eq!(judged(&[disk(50, (50, 100))]).0, True);
        assert_eq!(judged(&[disk(9, (50, 100))]).1, "DiskFull");
        assert_eq!(judged(&[disk(50, (4, 100))]).1, "InodesUsedUp");
        assert_eq!(judged(&[disk(50, (0, 0))]).0, True);
        assert_eq!(Disks(Err("no".into())).judge().1, "Unreadable");
    }

    #[test]
    fn one_full_file_system_of_two_is_named() {
        let other = Disk { path: "/var/lib/containerd", ..disk(3, (50, 100)) };
        let (status, reason, message) = judged(&[disk(50, (50, 100)), other.clone()]);
        assert_eq!((status, reason), (False, "DiskFull"));
        assert!(message.starts_with("/var/lib/containerd: 3 % of"), "{message}");
        assert!(!Disks(Ok(vec![other])).is_roomy());
        assert!(Disks(Ok(vec![disk(20, (50, 100))])).is_roomy());
        assert!(!Disks(Ok(vec![disk(19, (50, 100))])).is_roomy());
    }

    #[test]
    fn this_machines_file_system_counts_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        assert_eq!(Disks::look(&root).0.expect("looked").len(), 1);
        std::fs::create_dir_all(root.path("/var/lib/containerd")).expect("made");
        assert_eq!(Disks::look(&root).0.expect("looked").len(), 1);
    }

    #[test]
    fn pressure_and_little_memory_are_not_ok() {
        let file = |full: &str| format!("some avg10=50.00 avg60=0\nfull avg10={full} avg60=0\n");
        assert_eq!(judge_memory(&file("0.00"), 50, 100).0, True);
        assert_eq!(judge_memory(&file("12.50"), 50, 100).1, "Pressure");
        assert_eq!(judge_memory("", 2, 100).1, "Low");
    }
}
