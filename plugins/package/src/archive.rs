//! A package as one file: `NAME-VERSION.tar.zst` with one folder `NAME-VERSION/` in it. The same package gives the same
//! bytes, whoever packs it and when. An archive may come from a stranger: sizes, names and kinds of entries are bounded
//! before anything is written, and what is written lies below a new folder.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tar::EntryType;

use crate::error::PackageError;
use crate::folder::{MANIFEST_FILE, PACKAGE_BYTES, PACKAGE_FILES, Package, SIGNATURE_FILE};
use crate::manifest::is_path;
use crate::plain::read_below;
use crate::signature::TrustPolicy;

/// How hard it is compressed: programs once, read often.
const LEVEL: i32 = 12;
/// Most bytes of a compressed archive.
const ARCHIVE_BYTES: u64 = PACKAGE_BYTES;
/// Most entries: files, their folders, the two that list them.
const ENTRIES: usize = 2 * PACKAGE_FILES + 8;
/// What the format adds to an entry: its head, its long name, and what fills the last block.
const ENTRY_OVERHEAD: u64 = 4 << 10;

/// Packs a package folder into `file`, which is there as a whole or not at all.
pub fn pack(folder: &Path, file: &Path) -> Result<(), PackageError> {
    let package = Package::open(folder, &TrustPolicy::default(), true)?;
    let manifest = &package.manifest;
    // A source folder opens as well; it has no digests that could be checked.
    if manifest.binaries.iter().any(|binary| binary.sha256.is_empty()) {
        return Err(PackageError::NotBuilt { folder: folder.to_owned() });
    }
    package.verify()?;
    let mut paths = vec![(MANIFEST_FILE, 0o644)];
    if folder.join(SIGNATURE_FILE).exists() {
        paths.push((SIGNATURE_FILE, 0o644));
    }
    paths.extend(manifest.binaries.iter().map(|binary| (binary.path.as_str(), 0o755)));
    paths.extend(manifest.files.iter().map(|file| (file.path.as_str(), 0o644)));
    paths.sort();

    let failed = |error: io::Error| PackageError::Build { path: file.to_owned(), reason: error.to_string() };
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = fs::Permissions::from_mode(0o644);
    let temporary =
        tempfile::Builder::new().prefix(".package-").permissions(mode).tempfile_in(parent).map_err(failed)?;
    let top = format!("{}-{}", manifest.name, manifest.version);
    let encoder = zstd::Encoder::new(temporary.as_file(), LEVEL).map_err(failed)?;
    let mut tar = tar::Builder::new(encoder);
    for (path, mode) in paths {
        let content = read_below(folder, path, PACKAGE_BYTES)?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, format!("{top}/{path}"), content.as_slice()).map_err(failed)?;
    }
    tar.into_inner().and_then(zstd::Encoder::finish).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(file).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Unpacks an archive into a new folder below `into`; gives that folder. Nothing of it has been compared with its digests:
/// [`Package::open`] and [`Package::verify`] do that.
pub fn unpack(file: &Path, into: &Path) -> Result<PathBuf, PackageError> {
    let refused = |reason: String| PackageError::Archive { path: file.to_owned(), reason };
    let system = |error: io::Error| refused(error.to_string());
    // A pipe may have come under its name: opening that does not wait for who writes to it.
    let patient = OFlags::NONBLOCK.bits().cast_signed();
    let input = File::options().read(true).custom_flags(patient).open(file).map_err(system)?;
    let data = input.metadata().map_err(system)?;
    if !data.is_file() || data.len() > ARCHIVE_BYTES {
        return Err(refused(format!("expected a file of at most {ARCHIVE_BYTES} bytes")));
    }
    let decoder = zstd::Decoder::new(input).map_err(system)?;
    fs::create_dir_all(into).map_err(system)?;
    let folder = tempfile::Builder::new().prefix("package-").tempdir_in(into).map_err(system)?;
    let most = PACKAGE_BYTES + ENTRIES as u64 * ENTRY_OVERHEAD;
    extract(decoder.take(most), folder.path()).map_err(refused)?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(system)?;
    Ok(folder.keep())
}

/// Writes the entries below `root`, without their top folder. The error is a reason.
fn extract(input: impl Read, root: &Path) -> Result<(), String> {
    let mut archive = tar::Archive::new(input);
    let entries = archive.entries().map_err(|error| error.to_string())?;
    let mut seen = Seen::default();
    for entry in entries {
        let mut entry = entry.map_err(|error| format!("it cannot be read: {error}"))?;
        let name = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| "a name in it is no text".to_owned())?;
        let kind = entry.header().entry_type();
        let size = entry.size();
        let Some(path) = seen.admit(&name, kind, size)? else { continue };
        let mode = entry.header().mode().unwrap_or(0o644);
        let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
        let written = write_entry(&mut entry, size, &root.join(path), mode);
        written.map_err(|error| format!("{name:?}: {error}"))?;
    }
    // The end of the compressed stream tells of what is missing before it.
    io::copy(&mut archive.into_inner(), &mut io::sink())
        .map_err(|error| format!("it cannot be read: {error}"))?;
    if seen.files.is_empty() { Err("there is no file in it".to_owned()) } else { Ok(()) }
}

/// What was let in so far.
#[derive(Default)]
struct Seen {
    top: Option<String>,
    files: BTreeSet<String>,
    entries: usize,
    bytes: u64,
}

impl Seen {
    /// The path below the top folder at which a file may be written; `None`: a folder, which needs nothing.
    fn admit(&mut self, name: &str, kind: EntryType, size: u64) -> Result<Option<String>, String> {
        self.entries += 1;
        if self.entries > ENTRIES {
            return Err(format!("it has more than {ENTRIES} entries"));
        }
        let is_folder = match kind {
            EntryType::Directory => true,
            EntryType::Regular => false,
            _ => {
                return Err(format!(
                    "{name:?} is neither a file nor a folder, but a link, a device or the like"
                ));
            }
        };
        let plain = if is_folder { name.trim_end_matches('/') } else { name };
        let (top, path) = plain.split_once('/').unwrap_or((plain, ""));
        if !is_path(top) || !path.is_empty() && !is_path(path) {
            return Err(format!("{name:?}: expected a plain path below one folder"));
        }
        if !is_folder && path.is_empty() {
            return Err(format!("{name:?} lies in no folder"));
        }
        if self.top.get_or_insert_with(|| top.to_owned()).as_str() != top {
            return Err(format!("{name:?} does not lie in the folder that the other entries are in"));
        }
        if is_folder {
            return Ok(None);
        }
        if !self.files.insert(path.to_owned()) {
            return Err(format!("{name:?} is there twice"));
        }
        // Two more: the file with the digests, and its signature.
        if self.files.len() > PACKAGE_FILES + 2 {
            return Err(format!("it has more than {PACKAGE_FILES} files"));
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > PACKAGE_BYTES {
            return Err(format!("it has more than {PACKAGE_BYTES} bytes unpacked"));
        }
        Ok(Some(path.to_owned()))
    }
}

fn write_entry(entry: &mut impl Read, size: u64, path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    let copied = io::copy(&mut entry.take(size), &mut file)?;
    if copied != size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short"));
    }
    file.flush()?;
    // The mode above passed the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))
}
