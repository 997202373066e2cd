//! The control socket of a host agent that is not root's has no admin. Where a bench is not run by root, as on a
//! developer's machine, it runs itself again through sudo, as the lab does.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{getegid, geteuid};

/// Variables that a bench needs again: sudo drops them.
const KEPT: [&str; 10] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "RUST_BACKTRACE",
    "LD_LIBRARY_PATH",
    "CARGO_MANIFEST_DIR",
    "CARGO_TARGET_DIR",
    "BENCH_PAIRS",
    "BENCH_AGENTS",
    "BENCH_JOURNAL_MIB",
];

/// `true`: go on, this is root. `false`: the same was run as root, to a good end; what it wrote in `dirs` is the
/// caller's.
pub fn is_root(dirs: &[&Path]) -> Result<bool> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        return Ok(true);
    }
    let kept = KEPT.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)));
    let status = Command::new("sudo")
        .args(["-n", "env"])
        .args(kept)
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .status()
        .context("this needs root, and there is no sudo")?;
    let owned = Command::new("sudo")
        .args(["-n", "chown", "-R", "--from=0", &format!("{user}:{group}")])
        .args(dirs.iter().filter(|dir| dir.exists()))
        .status()?;
    ensure!(status.success(), "as root, through sudo, it ended with {status} (run `sudo -v` first)");
    ensure!(owned.success(), "chown of the results ended with {owned}");
    Ok(false)
}
