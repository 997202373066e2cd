//! What is said of records that a starting host agent cannot use: they are all that is known of its clusters, so what to
//! do next depends on what is wrong with them. Called by `main`.

use std::path::Path;

use host_store::StoreError;
use k8sctl_types::failure::Failure;
use rusqlite::ErrorCode;

use crate::records::RecordError;

/// Of a database that cannot be opened, or read.
pub fn store_failure(database: &Path, error: &StoreError) -> Failure {
    let reason = k8sctl_rpc::chain(error).to_string();
    Failure::new("HOST-RECORDS", format!("file {}", database.display()), reason, next_step(error))
}

/// Of records that cannot be taken up.
pub fn record_failure(database: &Path, error: &RecordError) -> Failure {
    match error {
        RecordError::Store(error) => store_failure(database, error),
        RecordError::Damaged { .. } => error.failure(),
    }
}

fn next_step(error: &StoreError) -> &'static str {
    let code = match error {
        StoreError::Newer { .. } => {
            return "install the newer k8s-host-agent again; the file is sound, leave it where it is";
        }
        StoreError::Open { source, .. } | StoreError::Migrate { source, .. } | StoreError::Query(source) => {
            source.sqlite_error_code()
        }
        StoreError::Closing => None,
    };
    match code {
        // Only what is lost anyway may be moved aside.
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "restore it from a backup; without one, take the VMs away with virsh and move the file aside"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            "see with `fuser -v` what else has it open, end that, and start the host agent again"
        }
        Some(ErrorCode::DiskFull) => "free some space on its disk, then start the host agent again",
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure,
        ) => {
            "check owner and mode of the file and its directory, and their disk, then start the host agent again"
        }
        _ => "keep the file, look into the host agent's log, and report it",
    }
}

#[cfg(test)]
mod tests {
    use host_store::{Schema, Store};

    use super::*;

    fn opened(path: &Path, steps: &'static [&'static str]) -> Result<Store, StoreError> {
        Store::open(path, &[Schema { room: "things", steps }])
    }

    fn said(path: &Path, error: &StoreError) -> String {
        let failure = store_failure(path, error);
        assert_eq!(failure.id, "HOST-RECORDS");
        assert!(failure.object.contains(&path.display().to_string()), "{failure}");
        failure.next_step
    }

    const ONE: &[&str] = &["CREATE TABLE thing (name TEXT) STRICT"];
    const TWO: &[&str] =
        &["CREATE TABLE thing (name TEXT) STRICT", "ALTER TABLE thing ADD COLUMN size INTEGER"];

    #[test]
    fn what_to_do_depends_on_what_is_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let newer = dir.path().join("newer.db");
        drop(opened(&newer, TWO).expect("opens"));
        let next = said(&newer, &opened(&newer, ONE).expect_err("it is newer"));
        assert!(next.contains("install the newer k8s-host-agent again"), "{next}");
        assert!(!next.contains("aside"), "{next}");

        let strange = dir.path().join("strange.db");
        std::fs::write(&strange, "no database at all".repeat(100)).expect("writes");
        let next = said(&strange, &opened(&strange, ONE).expect_err("it is none"));
        assert!(next.contains("backup") && next.contains("aside"), "{next}");

        // Not a file that can be opened.
        let next = said(dir.path(), &opened(dir.path(), ONE).expect_err("it is a directory"));
        assert!(next.contains("owner and mode") && !next.contains("aside"), "{next}");
    }

    #[test]
    fn what_sqlite_says_later_is_told_apart_too() {
        let said_of = |code| {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let failure = record_failure(Path::new("/state/db"), &RecordError::from(error));
            assert_eq!((failure.id.as_str(), failure.object.as_str()), ("HOST-RECORDS", "file /state/db"));
            failure.next_step
        };
        for (code, expected) in [
            (rusqlite::ffi::SQLITE_PERM, "owner and mode"),
            (rusqlite::ffi::SQLITE_READONLY, "owner and mode"),
            (rusqlite::ffi::SQLITE_BUSY, "fuser"),
            (rusqlite::ffi::SQLITE_FULL, "space"),
            (rusqlite::ffi::SQLITE_MISUSE, "keep the file"),
        ] {
            let next = said_of(code);
            assert!(next.contains(expected) && !next.contains("aside"), "{code}: {next}");
        }
        assert!(said_of(rusqlite::ffi::SQLITE_CORRUPT).contains("backup"));
    }
}
