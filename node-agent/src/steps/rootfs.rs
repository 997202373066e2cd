//! Whether the root file system is smaller than its block device: an image that was put on a larger disk.
//!
//! Reads ext4's superblock, which is exact; other file systems are left alone.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file system that can grow.
#[derive(Debug, PartialEq, Eq)]
pub struct Growth {
    /// `/dev/vda`
    pub device: String,
    /// Size of the file system in bytes.
    pub used: u64,
    /// Size of its device in bytes.
    pub available: u64,
}

/// Looks at `/`. `None` means: nothing to grow, or nothing that is understood.
pub fn observe() -> Option<Growth> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let device_number = root_device(&mounts)?;
    let sys = Path::new("/sys/dev/block").join(device_number);
    let sectors: u64 = fs::read_to_string(sys.join("size")).ok()?.trim().parse().ok()?;
    let uevent = fs::read_to_string(sys.join("uevent")).ok()?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    let device = format!("/dev/{name}");
    let mut superblock = [0; 1024];
    File::open(&device).ok()?.read_exact_at(&mut superblock, 1024).ok()?;
    let (used, block) = ext4_size(&superblock)?;
    let available = sectors * 512;
    (available >= used + block).then_some(Growth { device, used, available })
}

/// `254:0` of the line that mounts `/`.
fn root_device(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let mut words = line.split(' ');
        let number = words.nth(2)?;
        (words.nth(1)? == "/").then_some(number)
    })
}

/// Bytes of the file system and of one block.
fn ext4_size(superblock: &[u8; 1024]) -> Option<(u64, u64)> {
    let word = |at: usize| {
        u64::from(u32::from_le_bytes([
            superblock[at],
            superblock[at + 1],
            superblock[at + 2],
            superblock[at + 3],
        ]))
    };
    if superblock[0x38..0x3a] != [0x53, 0xef] {
        return None;
    }
    let block = 1024u64.checked_shl(u32::try_from(word(0x18)).ok()?)?;
    // The high half counts only with the 64bit feature.
    let high = if word(0x60) & 0x80 != 0 { word(0x150) } else { 0 };
    Some((((high << 32) | word(0x4)).checked_mul(block)?, block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_mount_is_found() {
        let mounts = "22 1 0:21 / /proc rw - proc proc rw\n26 1 254:0 / / rw - ext4 /dev/vda rw\n";
        assert_eq!(root_device(mounts), Some("254:0"));
    }

    #[test]
    fn sizes_are_read_from_the_superblock() {
        let mut superblock = [0; 1024];
        superblock[0x4..0x8].copy_from_slice(&1000u32.to_le_bytes());
        superblock[0x18] = 2;
        superblock[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(ext4_size(&superblock), Some((4_096_000, 4096)));
        superblock[0x38] = 0;
        assert_eq!(ext4_size(&superblock), None);
    }
}
