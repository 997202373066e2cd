//! `k8sctl` as it is installed: beside it the program of plugins that are data, static, by the script that `make build`
//! calls. In a folder of their own, in which plugins are made.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8sctl_command::Program;
use tempfile::TempDir;
use tokio::process::Command;

use super::{Run, finish, heeds_nothing};

/// See the module.
pub struct Workbench {
    dir: TempDir,
    bin: PathBuf,
    target: PathBuf,
}

/// The checkout. Asked for when the test runs: checkouts that share a target directory share its programs.
pub fn root() -> PathBuf {
    let ours = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    ours.parent().unwrap().to_owned()
}

impl Workbench {
    /// Below the checkout, where its SDK is found.
    pub async fn new() -> Self {
        let test = std::env::current_exe().unwrap();
        let target = test.ancestors().nth(3).expect("TARGET/PROFILE/deps/TEST").to_owned();
        Program::new(root().join("tests/lab/cargo-build"), Duration::from_secs(1800))
            .arg("--locked")
            .env("CARGO_TARGET_DIR", &target)
            .run()
            .await
            .expect("the programs are built");
        let below = root().join("target");
        std::fs::create_dir_all(&below).unwrap();
        let dir = tempfile::Builder::new().prefix("workbench-").tempdir_in(below).unwrap();
        let bin = dir.path().join(".bin");
        std::fs::create_dir(&bin).unwrap();
        place(Path::new(env!("CARGO_BIN_EXE_k8sctl")), &bin.join("k8sctl"));
        place(&target.join("release/data-plugin"), &bin.join("data-plugin"));
        Self { dir, bin, target }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `k8sctl` in the folder; no host agent is to be found.
    pub async fn k8sctl(&self, args: &[&str]) -> Run {
        let mut command = Command::new(self.bin.join("k8sctl"));
        command.args(args);
        self.finish(command).await
    }

    /// Runs a script of bash in the folder, with what is installed on the PATH.
    pub async fn script(&self, script: &str) -> Run {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]);
        self.finish(command).await
    }

    async fn finish(&self, mut command: Command) -> Run {
        let home = std::env::var_os("HOME").unwrap_or_default();
        heeds_nothing(&mut command, Path::new(&home));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(self.bin.clone()).chain(std::env::split_paths(&path));
        command
            .current_dir(self.dir.path())
            .env("PATH", std::env::join_paths(all).unwrap())
            .env("K8SCTL_SOCKET", self.path("no.sock"))
            .env("CARGO_TARGET_DIR", &self.target)
            // What is needed is there: whoever runs the tests has built the workspace.
            .env("CARGO_NET_OFFLINE", "true")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finish(command).await
    }
}

/// A program under another name: by a link, where that can be, for they are large.
fn place(from: &Path, to: &Path) {
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
}
