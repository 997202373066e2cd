//! Reading from folders of strangers: regular files only, and no link on the way below the folder. What a file is, is asked
//! of what was opened, and never of its name before: whoever may write there could put something else under that name
//! between the two. Called by [`crate::folder`] and whoever makes packages.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, statat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::error::PackageError;
use crate::folder::PACKAGE_FILES;

/// Most folders within each other.
const DEPTH: usize = 8;
/// To read it. Opening a pipe does not wait for who writes to it.
const READ: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);
/// To know of it, also where it must not be read.
const LOOK: OFlags = OFlags::PATH;

/// A file's content, if it has at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, PackageError> {
    let file = open(path, READ | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let (file, _) = plain(path, file.map_err(|errno| refused(path, errno))?)?;
    bounded(file, path, limit)
}

/// The same of a file below a folder, which is named as packages name their files.
pub(crate) fn read_below(folder: &Path, name: &str, limit: u64) -> Result<Vec<u8>, PackageError> {
    bounded(open_below(folder, name)?, &folder.join(name), limit)
}

/// A file below a folder, to be read.
pub(crate) fn open_below(folder: &Path, name: &str) -> Result<File, PackageError> {
    Ok(reach(folder, name, READ)?.0)
}

/// Size of a file below a folder, in bytes.
pub(crate) fn size_below(folder: &Path, name: &str) -> Result<u64, PackageError> {
    Ok(reach(folder, name, LOOK)?.1.len())
}

/// SHA-256 of a file below a folder, of which no more than what it should have is read.
pub(crate) fn digest_below(folder: &Path, name: &str, bytes: u64) -> Result<String, PackageError> {
    let mut input = open_below(folder, name)?.take(bytes.saturating_add(1));
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match input.read(&mut buffer).map_err(read_error(&folder.join(name)))? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// Paths of all files below a folder, relative to it, sorted. Anything but files and folders is refused.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<String>, PackageError> {
    let opened = open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut found = Vec::new();
    collect(&opened.map_err(|errno| refused(folder, errno))?, folder, "", DEPTH, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(
    folder: &OwnedFd,
    path: &Path,
    prefix: &str,
    depth: usize,
    found: &mut Vec<String>,
) -> Result<(), PackageError> {
    for entry in Dir::read_from(folder).map_err(|errno| refused(path, errno))? {
        let entry = entry.map_err(|errno| refused(path, errno))?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let path_of_it = path.join(OsStr::from_bytes(name.to_bytes()));
        let text = name.to_string_lossy();
        let text = if prefix.is_empty() { text.into_owned() } else { format!("{prefix}/{text}") };
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|errno| refused(&path_of_it, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth > 1 => {
                let how = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = openat(folder, name, how, Mode::empty());
                let below = below.map_err(|errno| refused(&path_of_it, errno))?;
                collect(&below, &path_of_it, &text, depth - 1, found)?;
            }
            FileType::RegularFile => found.push(text),
            _ => return Err(PackageError::NotPlain { path: path_of_it }),
        }
        // Two more: the file with the digests, and its signature.
        if found.len() > PACKAGE_FILES + 2 {
            let names = vec![format!("more than {PACKAGE_FILES} files")];
            return Err(PackageError::Unlisted { folder: path.to_owned(), names });
        }
    }
    Ok(())
}

/// Opens what lies below a folder, name after name: one that is a link leads nowhere. The folder itself may be reached over
/// links.
fn reach(folder: &Path, name: &str, how: OFlags) -> Result<(File, Metadata), PackageError> {
    let path = folder.join(name);
    let opened = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut at = opened.map_err(|errno| refused(&path, errno))?;
    let mut parts = name.split('/').peekable();
    while let Some(part) = parts.next() {
        if ["", ".", ".."].contains(&part) {
            return Err(PackageError::NotPlain { path });
        }
        let how = if parts.peek().is_some() { OFlags::PATH | OFlags::DIRECTORY } else { how };
        let next = openat(&at, part, how | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        at = next.map_err(|errno| refused(&path, errno))?;
    }
    plain(&path, at)
}

fn plain(path: &Path, opened: OwnedFd) -> Result<(File, Metadata), PackageError> {
    let file = File::from(opened);
    let data = file.metadata().map_err(read_error(path))?;
    if data.is_file() { Ok((file, data)) } else { Err(PackageError::NotPlain { path: path.to_owned() }) }
}

fn bounded(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, PackageError> {
    let mut content = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(read_error(path))?;
    if content.len() as u64 > limit {
        return Err(PackageError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(content)
}

fn refused(path: &Path, errno: Errno) -> PackageError {
    match errno {
        // A link, a socket, or something in a file as if that were a folder.
        Errno::LOOP | Errno::NXIO | Errno::NOTDIR => PackageError::NotPlain { path: path.to_owned() },
        other => read_error(path)(other.into()),
    }
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> PackageError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => PackageError::Missing { path: path.to_owned() },
        _ => PackageError::Read { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, mkfifoat};

    use super::*;

    fn is_not_plain<T>(result: Result<T, PackageError>) -> bool {
        matches!(result, Err(PackageError::NotPlain { .. }))
    }

    #[test]
    fn a_link_leads_nowhere_wherever_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("package/real")).expect("made");
        fs::write(at("package/real/file"), "text").expect("written");
        symlink("real", at("package/folder")).expect("a link");
        symlink("real/file", at("package/link")).expect("a link");
        symlink("package", at("way")).expect("a link");
        let folder = at("package");
        assert_eq!(read_below(&folder, "real/file", 4).expect("a file"), b"text");
        assert_eq!(read_below(&at("way"), "real/file", 4).expect("over a link to the folder"), b"text");
        assert_eq!(size_below(&folder, "real/file").expect("a file"), 4);
        for name in ["folder/file", "link", "real", "real/file/file", "real/../link", "/real/file", ""] {
            assert!(is_not_plain(read_below(&folder, name, 4)), "{name:?}");
            assert!(is_not_plain(size_below(&folder, name)), "{name:?}");
            assert!(is_not_plain(digest_below(&folder, name, 4)), "{name:?}");
        }
        assert!(is_not_plain(read_bounded(&at("package/link"), 4)));
        assert!(is_not_plain(files_below(&folder)));
        let missing = read_below(&folder, "real/none", 4);
        assert!(matches!(missing, Err(PackageError::Missing { .. })), "{missing:?}");
        let large = read_below(&folder, "real/file", 3);
        assert!(matches!(large, Err(PackageError::TooLarge { limit: 3, .. })), "{large:?}");
    }

    #[test]
    fn nobody_is_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        mkfifoat(CWD, dir.path().join("pipe"), Mode::RUSR | Mode::WUSR).expect("a pipe");
        assert!(is_not_plain(read_below(dir.path(), "pipe", 4)));
        assert!(is_not_plain(read_bounded(&dir.path().join("pipe"), 4)));
    }

    /// A name that is a file in one moment and a link to a secret in the next: it is the one or the other, and the secret
    /// comes out in neither.
    #[test]
    fn what_changes_under_a_name_is_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("package")).expect("made");
        fs::write(at("secret"), "secret").expect("written");
        fs::write(at("package/file"), "public").expect("written");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    symlink(at("secret"), at("next")).expect("a link");
                    fs::rename(at("next"), at("package/file")).expect("renamed");
                    fs::write(at("next"), "public").expect("written");
                    fs::rename(at("next"), at("package/file")).expect("renamed");
                }
            });
            let (mut files, mut links, mut strange) = (0, 0, None);
            while strange.is_none() && (files < 1000 || links < 1000) {
                match read_below(&at("package"), "file", 6) {
                    Ok(content) if content == b"public" => files += 1,
                    Err(PackageError::NotPlain { .. }) => links += 1,
                    other => strange = Some(other),
                }
            }
            is_over.store(true, Ordering::Relaxed);
            assert!(strange.is_none(), "{strange:?}");
        });
    }
}
