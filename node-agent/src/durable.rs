//! Files that are there whole or not at all: written beside, synced, renamed.
//!
//! Called by everything that writes to the node's disk. Blocking: the files are small.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// The directory that stands for `/`: `/` itself, or a temporary one in tests.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// Everything is written below this directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Whether this is the machine's own root, so that the live system may be touched.
    pub fn is_live(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// The real place of an absolute path. `..` never leads out of the root.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let mut real = self.0.clone();
        real.extend(path.as_ref().components().filter(|part| matches!(part, Component::Normal(_))));
        real
    }

    /// Content of a file; `None` means: not there. Something else in its place has none: a pipe would be waited for, and
    /// a device may have no end.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(path);
        let read = || -> io::Result<Option<Vec<u8>>> {
            if fs::metadata(&path)?.is_file() { fs::read(&path).map(Some) } else { Ok(None) }
        };
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read,
        }
    }

    /// Text of a file; empty when it is not there.
    pub fn read_text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(path)?.unwrap_or_default()).into_owned())
    }

    /// When a file was written last.
    pub fn written(&self, path: impl AsRef<Path>) -> io::Result<SystemTime> {
        fs::metadata(self.path(path))?.modified()
    }

    /// Whether there is a file or directory.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// Permission bits of a file.
    pub fn mode(&self, path: impl AsRef<Path>) -> io::Result<u32> {
        Ok(fs::metadata(self.path(path))?.mode() & 0o7777)
    }

    /// Whether the file is as [`Self::write`] leaves it: a file and no link to one, of this process's user and group, with
    /// exactly this content and these permission bits.
    pub fn is(&self, path: impl AsRef<Path>, content: &[u8], mode: u32) -> io::Result<bool> {
        let path = path.as_ref();
        let data = match fs::symlink_metadata(self.path(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            data => data?,
        };
        let is_ours = data.uid() == rustix::process::geteuid().as_raw()
            && data.gid() == rustix::process::getegid().as_raw();
        if !data.is_file() || !is_ours || data.mode() & 0o7777 != mode {
            return Ok(false);
        }
        Ok(self.read(path)?.as_deref() == Some(content))
    }

    /// Writes a file whole, making its directories.
    pub fn write(&self, path: impl AsRef<Path>, content: &[u8], mode: u32) -> io::Result<()> {
        write(&self.path(path), content, mode)
    }

    /// Puts on the disk what others have written: each directory, and the files right in it. Those that are not there
    /// are left out.
    pub fn sync_dirs(&self, dirs: &[&str]) -> io::Result<()> {
        dirs.iter().try_for_each(|dir| sync_dir(&self.path(dir)))
    }

    /// Removes a file if it is there.
    pub fn remove(&self, path: impl AsRef<Path>) -> io::Result<()> {
        remove(&self.path(path))
    }
}

/// Writes a file whole: a crash leaves the old or the new one. Directories that it needs get 0755,
/// or 0700 when the file is for its owner only.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir_mode = if mode & 0o077 == 0 { 0o700 } else { 0o755 };
    DirBuilder::new().recursive(true).mode(dir_mode).create(parent)?;
    let temporary = beside(path);
    remove(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    // The umask may have taken bits away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(parent)?.sync_all()
}

/// Where a file is written before it takes its place; a crash may leave it.
pub fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let entries = match fs::read_dir(dir) {
        Err(error) if gone(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        // Whoever writes here may remove as well.
        match File::open(entry.path()).and_then(|file| file.sync_all()) {
            Err(error) if !gone(&error) => return Err(error),
            _ => {}
        }
    }
    File::open(dir)?.sync_all()
}

/// Removes a file if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_content_and_mode_and_never_outside_the_root() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        root.write("/etc/a/key", b"secret", 0o600).expect("written");
        assert!(root.is("/etc/a/key", b"secret", 0o600).expect("read"));
        assert!(!root.is("/etc/a/key", b"secret", 0o644).expect("read"));
        assert!(!root.is("/etc/a/other", b"", 0o600).expect("read"));
        assert!(root.path("/../../etc/passwd").starts_with(dir.path()));
    }

    #[test]
    fn what_is_in_a_files_place_is_no_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        root.write("/etc/same", b"x", 0o600).expect("written");
        for target in ["same", "place", "/dev/zero", "/nowhere"] {
            std::os::unix::fs::symlink(target, root.path("/etc/place")).expect("linked");
            assert!(!root.is("/etc/place", b"x", 0o600).expect("looked at"), "{target}");
            root.write("/etc/place", b"x", 0o600).expect("written");
            assert!(root.is("/etc/place", b"x", 0o600).expect("looked at"), "{target}");
            root.remove("/etc/place").expect("removed");
        }
        assert_eq!(root.read("/etc").expect("looked at"), None, "a directory");
        std::os::unix::fs::symlink("/dev/zero", root.path("/etc/place")).expect("linked");
        assert_eq!(root.read("/etc/place").expect("looked at"), None, "a device");
    }

    #[test]
    fn what_others_wrote_is_synced_and_what_is_not_there_left_out() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        root.write("/etc/a/file", b"x", 0o600).expect("written");
        std::os::unix::fs::symlink("/nowhere", root.path("/etc/a/link")).expect("linked");
        root.sync_dirs(&["/etc/a", "/etc", "/etc/none"]).expect("synced");
        root.sync_dirs(&["/etc/a/file"]).expect_err("no directory");
    }

    #[test]
    fn a_leftover_of_a_crash_is_no_obstacle() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join(".f.new"), "half").expect("written");
        write(&dir.path().join("f"), b"whole", 0o644).expect("written");
        assert_eq!(fs::read(dir.path().join("f")).expect("read"), b"whole");
    }
}
