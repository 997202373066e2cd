//! The kernel, and an initrd of one static busybox, the few modules of the root disk and one script.
//!
//! initramfs-tools' initrd is 16 MB and spends seconds under emulation; this one is 2 MB and mounts
//! `/dev/vda`. Called by [`super::store`].

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_command::Program;

use super::rootfs::make_dir;
use super::{ImageError, run};

/// What the root disk needs, where it is not built into the kernel. And what every node needs at once:
/// here each costs one system call, later a round through udev.
const MODULES: [&str; 7] =
    ["virtio_pci", "crc32c_generic", "crc32c-intel", "virtio_blk", "ext4", "virtio_console", "virtio_net"];

/// How kernel modules are compressed: suffix, the program that undoes it and its Debian package. Debian 13 takes xz,
/// Ubuntu 24.04 zstd.
pub(super) const DECOMPRESSORS: [(&str, &str, &str); 3] =
    [("xz", "xz", "xz-utils"), ("zst", "zstd", "zstd"), ("gz", "gzip", "gzip")];

/// Takes the kernel out of `root` and writes it and the initrd to `kernel` and `initrd`.
pub(super) async fn make(root: &Path, kernel: &Path, initrd: &Path) -> Result<(), ImageError> {
    let missing = |what: &str| ImageError::Incomplete { what: what.to_owned() };
    let modules = root.join("usr/lib/modules");
    let modules = if modules.exists() { modules } else { root.join("lib/modules") };
    let version = newest(&modules).ok_or_else(|| missing("kernel modules"))?;
    let boot = root.join("boot");
    let image = boot.join(format!("vmlinuz-{version}"));
    fs::copy(&image, kernel).map_err(ImageError::io("copy", &image))?;

    let busybox =
        ["usr/bin/busybox", "bin/busybox"].map(|path| root.join(path)).into_iter().find(|path| path.exists());
    let busybox = busybox.ok_or_else(|| missing("static busybox"))?;
    let dir = modules.join(&version);
    let dependencies = dir.join("modules.dep");
    let dependencies = fs::read_to_string(&dependencies).map_err(ImageError::io("read", &dependencies))?;
    let mut archive = Cpio::default();
    for path in ["bin", "modules", "proc", "sys", "dev", "root"] {
        archive.add(path, 0o040_755, &[]);
    }
    let content = fs::read(&busybox).map_err(ImageError::io("read", &busybox))?;
    archive.add("bin/busybox", 0o100_755, &content);
    archive.add("init", 0o100_755, include_bytes!("files/init"));
    let mut order = String::new();
    for path in plan_modules(&dependencies, &MODULES) {
        let name = file_name(&path).to_owned();
        let content = module(&dir.join(&path)).await?;
        archive.add(&format!("modules/{name}"), 0o100_644, &content);
        order += &format!("{name}\n");
    }
    archive.add("modules/order", 0o100_644, order.as_bytes());
    fs::write(initrd, archive.finish()).map_err(ImageError::io("write", initrd))?;

    // Direct kernel boot: nothing in the VM reads these.
    let clear = || -> io::Result<()> {
        fs::remove_dir_all(&boot)?;
        make_dir(&boot, 0o755)?;
        for name in ["vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old"] {
            let _ = fs::remove_file(root.join(name));
        }
        Ok(())
    };
    clear().map_err(ImageError::io("clear", &boot))
}

fn newest(dir: &Path) -> Option<String> {
    let names = fs::read_dir(dir).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.max()
}

fn file_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain = |suffix| name.strip_suffix(suffix)?.strip_suffix('.');
    DECOMPRESSORS.iter().find_map(|(suffix, ..)| plain(*suffix)).unwrap_or(name)
}

/// The content of a module that busybox can load: decompressed.
async fn module(path: &PathBuf) -> Result<Vec<u8>, ImageError> {
    let compressed = |(suffix, ..): &&(&str, &str, &str)| path.extension().is_some_and(|its| its == *suffix);
    let Some((_, program, _)) = DECOMPRESSORS.iter().find(compressed) else {
        return fs::read(path).map_err(ImageError::io("read", path));
    };
    let copy = tempfile::Builder::new().suffix(".ko").tempfile().map_err(ImageError::io("write", path))?;
    // Through a file: a program's output is text to the runner.
    let command = format!("{program} -dc -- \"$1\" >\"$2\"");
    let program = Program::new("sh", Duration::from_secs(60)).args(["-c", &command, "sh"]);
    run("decompress a kernel module", program.args([path.as_path(), copy.path()])).await?;
    fs::read(copy.path()).map_err(ImageError::io("read", copy.path()))
}

/// The files to load, dependencies first, for those of `wanted` that `modules.dep` knows; what it does
/// not know is built in or not needed.
fn plan_modules(dependencies: &str, wanted: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    for name in wanted {
        let line = dependencies.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| {
            let stem = file_name(path).trim_end_matches(".ko");
            stem.replace('-', "_") == name.replace('-', "_")
        });
        let Some((path, needs)) = line else { continue };
        // modules.dep lists what is needed last first.
        for path in needs.split_whitespace().rev().chain([path]) {
            if seen.insert(path.to_owned()) {
                files.push(path.to_owned());
            }
        }
    }
    files
}

/// A `newc` archive in the making; the kernel unpacks it.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let (inode, size, name) = (self.inode, content.len(), path.len() + 1);
        // magic, inode, mode, uid, gid, links, mtime, size, device ×2, special ×2, name's size, check.
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name:08x}{0:08x}",
            0, 1
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        // Writing to a vector cannot fail.
        let _ = self.bytes.write_all(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let dependencies = "kernel/drivers/virtio/virtio_ring.ko:\n\
            kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko\n\
            kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n";
        let files = plan_modules(dependencies, &["virtio_blk", "ext4"]);
        let names: Vec<_> = files.iter().map(|path| file_name(path)).collect();
        assert_eq!(names, ["virtio_ring.ko", "virtio.ko", "virtio_blk.ko"]);
    }

    #[test]
    fn the_archive_is_padded_and_ended() {
        let mut archive = Cpio::default();
        archive.add("init", 0o100_755, b"abc");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"070701") && bytes.len().is_multiple_of(4));
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
