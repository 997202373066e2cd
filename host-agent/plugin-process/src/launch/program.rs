//! A plugin's program as it is executed: read once, hashed, copied into a sealed memory file. What was hashed is what
//! runs, whatever happens to the file afterwards. The last few copies are kept: the same package is asked again and again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest, Sha256};

use super::child::away_from_fd_3;

/// Largest program, in bytes.
const SIZE_LIMIT: u64 = 128 * 1024 * 1024;
/// Copies that are kept.
const KEPT: usize = 8;

/// The file is not a program that can be run as a plugin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// It cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// It is too large.
    #[error("{0} has {1} bytes, expected at most {SIZE_LIMIT}")]
    Large(PathBuf, u64),
    /// It is something else than a 64-bit Linux program.
    #[error("{0} is not an ELF program for 64-bit Linux on x86-64")]
    NotElf(PathBuf),
    /// It wants a loader and libraries, which the sandbox hides.
    #[error("{0} is linked to shared libraries, which its sandbox does not show")]
    Dynamic(PathBuf),
    /// It is another one than its plugin.toml lists.
    #[error("{path} has the digest {got}, plugin.toml says {expected}")]
    Digest {
        /// The program.
        path: PathBuf,
        /// Its SHA-256.
        got: String,
        /// What was expected.
        expected: String,
    },
    /// The copy cannot be made.
    #[error("cannot make a sealed copy of {0}")]
    Seal(PathBuf, #[source] io::Error),
}

/// A program that was read and found runnable, in a copy that nobody can change any more.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    path: PathBuf,
    sha256: String,
    file: Arc<OwnedFd>,
}

impl Sealed {
    /// Reads the whole file. Blocks.
    fn read(path: &Path) -> Result<Self, ProgramError> {
        let error = |source| ProgramError::Read(path.to_owned(), source);
        // Opening a pipe that came under this name does not wait for who writes to it.
        let patient = OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(patient).open(path).map_err(error)?;
        if !file.metadata().map_err(error)?.is_file() {
            return Err(error(io::Error::other("it is no regular file")));
        }
        let mut bytes = Vec::new();
        file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(error)?;
        if bytes.len() as u64 > SIZE_LIMIT {
            return Err(ProgramError::Large(path.to_owned(), bytes.len() as u64));
        }
        match wants_a_loader(&bytes) {
            None => Err(ProgramError::NotElf(path.to_owned())),
            Some(true) => Err(ProgramError::Dynamic(path.to_owned())),
            Some(false) => {
                let sha256 = hex::encode(Sha256::digest(&bytes));
                let file = seal(&bytes).map_err(|source| ProgramError::Seal(path.to_owned(), source))?;
                Ok(Self { path: path.to_owned(), sha256, file: Arc::new(file) })
            }
        }
    }

    /// Where it was read, for messages.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The copy; its number is not 3.
    pub(super) fn file(&self) -> Arc<OwnedFd> {
        self.file.clone()
    }
}

fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know EXEC, and need it not.
    let copy = memfd_create("k8sctl-plugin", flags | MemfdFlags::EXEC)
        .or_else(|_| memfd_create("k8sctl-plugin", flags))?;
    let mut file = File::from(copy);
    file.write_all(bytes)?;
    let copy = OwnedFd::from(file);
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    away_from_fd_3(copy)
}

/// The last few programs, by their digest; the one that was used last is the last.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    kept: Mutex<Vec<Sealed>>,
}

impl Programs {
    /// The program of this digest: one that is kept, else read from here, in which case its digest is checked. An empty
    /// digest stands for any, and is read each time. Blocks.
    pub(crate) fn get(&self, path: &Path, sha256: &str) -> Result<Sealed, ProgramError> {
        if sha256.is_empty() {
            return Sealed::read(path);
        }
        if let Some(sealed) = self.used(sha256) {
            return Ok(sealed);
        }
        let sealed = Sealed::read(path)?;
        if sealed.sha256 != sha256 {
            let (path, got) = (path.to_owned(), sealed.sha256);
            return Err(ProgramError::Digest { path, got, expected: sha256.to_owned() });
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push(sealed.clone());
        Ok(sealed)
    }

    fn used(&self, sha256: &str) -> Option<Sealed> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|sealed| sealed.sha256 == sha256)?;
        let sealed = kept.remove(place);
        kept.push(sealed.clone());
        Some(sealed)
    }
}

/// Does an ELF program name an interpreter? `None`: it is none, or a broken one.
fn wants_a_loader(bytes: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    const X86_64: u64 = 62;
    let word = |at: usize, size: usize| {
        let field = bytes.get(at..at.checked_add(size)?)?;
        Some(field.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    // The kernel would only say that it cannot execute it.
    if word(18, 2)? != X86_64 {
        return None;
    }
    let table = usize::try_from(word(32, 8)?).ok()?;
    let (size, count) = (word(54, 2)? as usize, word(56, 2)? as usize);
    for index in 0..count {
        if word(table.checked_add(index * size)?, 4)? == u64::from(INTERPRETER) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// The head of a 64-bit ELF file without a loader, and something by which it differs.
    fn program(folder: &Path, number: u8) -> (PathBuf, String) {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        bytes[18] = 62;
        bytes.push(number);
        let path = folder.join(format!("program-{number}"));
        std::fs::write(&path, &bytes).expect("written");
        (path, hex::encode(Sha256::digest(&bytes)))
    }

    #[test]
    fn the_last_ones_are_kept_and_not_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let programs = Programs::default();
        let all: Vec<_> = (0..=KEPT as u8).map(|number| program(folder.path(), number)).collect();
        for (path, digest) in &all[..KEPT] {
            programs.get(path, digest).expect("read");
        }
        // The first one is used, so that the second one goes.
        for place in [0, KEPT] {
            programs.get(&all[place].0, &all[place].1).expect("read");
        }
        for (place, (path, digest)) in all.iter().enumerate() {
            std::fs::remove_file(path).expect("removed");
            assert_eq!(programs.get(path, digest).is_ok(), place != 1, "{place}");
        }
    }

    #[test]
    fn another_digest_is_refused_and_none_is_any() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, digest) = program(folder.path(), 7);
        let programs = Programs::default();
        let refused = programs.get(&path, &"0".repeat(64)).expect_err("it is another one").to_string();
        assert!(refused.contains(&digest) && refused.contains(&"0".repeat(64)), "{refused}");
        programs.get(&path, "").expect("any is fine");
    }

    #[test]
    fn what_is_no_static_program_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").expect("written");
        assert!(matches!(Sealed::read(&script), Err(ProgramError::NotElf(_))));
        let (elsewhere, _) = program(folder.path(), 1);
        let mut bytes = std::fs::read(&elsewhere).expect("read");
        bytes[18] = 183;
        std::fs::write(&elsewhere, bytes).expect("written");
        assert!(matches!(Sealed::read(&elsewhere), Err(ProgramError::NotElf(_))), "it is for arm64");
        assert!(matches!(Sealed::read(Path::new("/bin/true")), Err(ProgramError::Dynamic(_))));
        assert!(matches!(Sealed::read(&folder.path().join("none")), Err(ProgramError::Read(..))));
        // Nobody is waited for.
        let pipe = folder.path().join("pipe");
        mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).expect("a pipe");
        assert!(matches!(Sealed::read(&pipe), Err(ProgramError::Read(..))));
    }

    #[test]
    fn the_copy_cannot_be_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, _) = program(folder.path(), 1);
        let sealed = Sealed::read(&path).expect("read");
        let copy = sealed.file().try_clone().expect("another descriptor");
        let mut file = File::from(copy);
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
    }
}
