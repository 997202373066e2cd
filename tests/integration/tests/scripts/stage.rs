//! Where a script is tried: beside `common.sh`, with stubs first on the PATH, and a cache of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::root::is_root;

/// A stub that notes its call.
pub const NOTE: &str = "#!/bin/bash\necho \"${0##*/} $*\" >>\"$STUBS/calls\"\n";
/// How long anything may take that takes a moment.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at a condition: only how often, never whether.
const LOOK: Duration = Duration::from_millis(20);

/// The checkout.
pub fn repo() -> Result<PathBuf> {
    // Not the directory at build time: clones share cargo's target directory.
    let ours = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").context("cargo sets it for tests")?);
    Ok(ours.parent().and_then(Path::parent).context("the workspace")?.to_owned())
}

fn program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
}

/// See the module.
pub struct Stage {
    dir: TempDir,
}

impl Stage {
    /// With these scripts of `tests/lab`.
    pub fn new(scripts: &[&str]) -> Result<Self> {
        let stage = Self { dir: TempDir::new()? };
        for folder in ["tests/lab", "bin", "cache"] {
            fs::create_dir_all(stage.at(folder))?;
        }
        for name in scripts.iter().chain(&["common.sh"]) {
            let script = format!("tests/lab/{name}");
            fs::copy(repo()?.join(&script), stage.at(&script))?;
        }
        Ok(stage)
    }

    /// Something in the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, with the folders above it.
    pub fn file(&self, name: &str, text: &str) -> Result<()> {
        let path = self.at(name);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        Ok(fs::write(path, text)?)
    }

    /// A program anywhere in the folder.
    pub fn program(&self, name: &str, text: &str) -> Result<()> {
        self.file(name, text)?;
        program(&self.at(name), text)
    }

    /// Programs that are found first.
    pub fn stubs(&self, stubs: &[(&str, &str)]) -> Result<()> {
        stubs.iter().try_for_each(|(name, text)| self.program(&format!("bin/{name}"), text))
    }

    /// A script with the stubs on its PATH; `$STUBS` is the folder.
    pub fn command(&self, script: &str) -> Result<Command> {
        let path = std::env::var("PATH")?;
        let mut command = Command::new(self.at("tests/lab").join(script));
        command
            .env("STUBS", self.dir.path())
            .env("K8S_MYHOME_CACHE", self.at("cache"))
            .env("TMPDIR", self.dir.path())
            .env("PATH", format!("{}:{path}", self.at("bin").display()));
        Ok(command)
    }

    /// What the stubs noted until now, since the last time.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.at("calls")).unwrap_or_default();
        // It is not there where none was called.
        let _ = fs::remove_file(self.at("calls"));
        text.lines().map(str::to_owned).collect()
    }
}

/// Standard error of a script.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Looks until it is so.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        ensure!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Runs a test's script as root of a mount namespace; it gets the checkout and an empty folder, and says at its end
/// that all is so. `test` is the test's own name.
pub fn in_namespace(test: &str, script: &str) -> Result<()> {
    if !is_root(test)? {
        return Ok(());
    }
    let work = TempDir::new()?;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "bash", "-c", script, "bash"])
        .arg(repo()?)
        .arg(work.path())
        .output()?;
    let out = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && out.ends_with("all is so\n"),
        "{}\n{out}\n{}",
        output.status,
        said(&output)
    );
    Ok(())
}
