//! A plugin's program as it is executed: read once, hashed, copied into a sealed memory file. What was hashed is
//! what runs, whatever happens to the file afterwards.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest, Sha256};

/// Largest program, in bytes.
const SIZE_LIMIT: u64 = 128 * 1024 * 1024;

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
    #[error("{0} is not a 64-bit ELF program for Linux")]
    NotElf(PathBuf),
    /// It wants a loader and libraries, which the sandbox hides.
    #[error("{0} is linked to shared libraries, which its sandbox does not show")]
    Dynamic(PathBuf),
}

/// A program that was read and found runnable.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    bytes: Vec<u8>,
    sha256: String,
}

impl Program {
    /// Reads the whole file. Blocks.
    pub(crate) fn read(path: &Path) -> Result<Self, ProgramError> {
        let error = |source| ProgramError::Read(path.to_owned(), source);
        let file = File::open(path).map_err(error)?;
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
                Ok(Self { path: path.to_owned(), bytes, sha256 })
            }
        }
    }

    /// Digest of what runs.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// A fresh copy that nobody can change any more.
    pub(super) fn sealed(&self) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know EXEC, and need it not.
        let copy = memfd_create("k8sctl-plugin", flags | MemfdFlags::EXEC)
            .or_else(|_| memfd_create("k8sctl-plugin", flags))?;
        let mut file = File::from(copy);
        file.write_all(&self.bytes)?;
        let copy = OwnedFd::from(file);
        fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(copy)
    }
}

/// Does an ELF program name an interpreter? `None`: it is none, or a broken one.
fn wants_a_loader(bytes: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let word = |at: usize, size: usize| {
        let field = bytes.get(at..at.checked_add(size)?)?;
        Some(field.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
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
