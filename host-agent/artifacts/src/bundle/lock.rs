//! One writer of a bundle store at a time: a lock on the store's directory.
//!
//! Called by the store's import and by [`crate::fetch`]. Readers take no lock: a bundle appears by rename. The
//! kernel takes the lock from a holder that dies.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use super::BundleError;

/// What a second fetch or import says while it waits.
pub(crate) const WAITING: &str = "another fetch or import is under way; waiting for it";

/// Names of what is being written to the store begin so.
const UNDER_WAY: [&str; 2] = [".fetch-", ".import-"];

/// The lock of a store; clones hold it together, and the last one gives it back.
#[derive(Clone, Debug)]
pub(crate) struct StoreLock {
    _dir: Arc<File>,
}

impl StoreLock {
    /// Takes the lock of the store in `dir` and removes what killed writers left there. Where another one has it,
    /// calls `waiting` and waits. Blocking.
    pub(crate) fn take(dir: &Path, waiting: impl FnOnce()) -> Result<Self, BundleError> {
        fs::create_dir_all(dir).map_err(BundleError::io("make", dir))?;
        let file = File::open(dir).map_err(BundleError::io("open", dir))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(BundleError::io("lock", dir))?;
            }
            Err(TryLockError::Error(error)) => return Err(BundleError::io("lock", dir)(error)),
        }
        sweep(dir);
        Ok(Self { _dir: Arc::new(file) })
    }
}

/// Removes what killed fetches and imports left: nobody else writes while the lock is held.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !UNDER_WAY.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "a killed fetch's or import's leftover stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_the_rest_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path(".fetch-aaaa/bin")).expect("it is made");
        fs::create_dir_all(path("partial")).expect("it is made");
        for name in [".fetch-bbbb", ".import-cccc", "partial/d.part", "kubernetes-v1.30.0.k8sbundle"] {
            fs::write(path(name), "x").expect("it is written");
        }
        let _lock = StoreLock::take(dir.path(), || panic!("nobody has it")).expect("it is free");
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .expect("it is there")
            .flatten()
            .map(|entry| entry.file_name().into_string().expect("a name"))
            .collect();
        left.sort();
        assert_eq!(left, ["kubernetes-v1.30.0.k8sbundle", "partial"]);
        assert!(path("partial/d.part").exists());
    }

    #[test]
    fn the_second_says_that_it_waits_and_gets_it_when_all_clones_are_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = StoreLock::take(dir.path(), || panic!("nobody has it")).expect("it is free");
        let clone = first.clone();
        drop(first);
        let mut waited = false;
        let second = StoreLock::take(dir.path(), || {
            waited = true;
            drop(clone);
        });
        assert!(second.is_ok() && waited);
    }
}
