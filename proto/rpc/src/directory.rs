//! Makes directories of a mode whatever the umask is: the host agent runs with one that closes all it makes, and some of
//! that is for others. Called by `unix` and by the host agent's `main`.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

/// Mode of the directories above: whom the last one is for must be able to pass through them.
const ABOVE: u32 = 0o755;

/// Makes the directory with this mode, and those above it that are missing with 0755. One that exists keeps its own.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make(above, ABOVE)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        // The mode above passed the umask.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::Mode;
    use rustix::process::umask;

    use super::*;

    #[test]
    fn the_umask_closes_nothing_that_is_for_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("there")).expect("it is made");
        fs::set_permissions(at("there"), Permissions::from_mode(0o711)).expect("a mode");
        let before = umask(Mode::from(0o077));
        let made = [("there/a/run", 0o755), ("there/a/state", 0o700), ("there", 0o755)]
            .map(|(name, mode)| make(&at(name), mode));
        umask(before);
        made.into_iter().collect::<io::Result<()>>().expect("they are made");
        let modes = ["there", "there/a", "there/a/run", "there/a/state"]
            .map(|name| fs::metadata(at(name)).expect("it is there").permissions().mode() & 0o777);
        assert_eq!(modes, [0o711, 0o755, 0o755, 0o700]);

        fs::write(at("file"), "").expect("it is written");
        make(&at("file/run"), 0o755).expect_err("no directory can be made there");
    }
}
