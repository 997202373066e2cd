//! Files with secrets: mode 0600 from the first byte, replaced in one step, durable when the call returns.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::PkiError;

/// Reads a file; `None` means that it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read { path: path.to_owned(), source }),
    }
}

/// Writes a file, or leaves the old one as it is.
pub(crate) fn write(path: &Path, content: &str) -> Result<(), PkiError> {
    let run = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let early = path.with_extension("new");
        // One that a killed run left could have another mode.
        match std::fs::remove_file(&early) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&early)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&early, path)?;
        File::open(directory)?.sync_all()
    };
    run().map_err(|source| PkiError::Write { path: path.to_owned(), source })
}
