//! Tests that change users or mount something need root. Where the test runner is not root, as on a developer's
//! machine, the test runs itself again through sudo, like the lab does.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Variables that the test needs again: sudo drops them.
const KEPT: [&str; 7] = [
    "PATH",
    "TMPDIR",
    "RUST_BACKTRACE",
    "LD_LIBRARY_PATH",
    "CARGO_MANIFEST_DIR",
    "FUZZ_SEED",
    "FUZZ_SECONDS",
];

/// `true`: go on, this is root. `false`: the same test was run as root, and succeeded.
pub fn is_root(test: &str) -> Result<bool> {
    if nix::unistd::geteuid().is_root() {
        return Ok(true);
    }
    let kept = KEPT.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)));
    let output = Command::new("sudo")
        .args(["-n", "env"])
        .args(kept)
        .arg(std::env::current_exe()?)
        .args([test, "--exact", "--nocapture"])
        .output()
        .context("this test needs root, and there is no sudo")?;
    let (status, out) = (output.status, String::from_utf8_lossy(&output.stdout));
    println!("{out}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(status.success(), "as root, through sudo, the test ended with {status} (run `sudo -v` first)");
    // A runner that finds no test of that name ends well, too.
    ensure!(out.contains("1 passed"), "as root, no test {test} was run");
    Ok(false)
}
