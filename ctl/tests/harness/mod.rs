//! Runs the real `k8sctl` against the fake host agent, off any terminal.

#![allow(dead_code, clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test looks at the exit status and the output of the program itself"
)]

pub mod programs;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8sctl_types::failure::Failure;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tonic::Code;

use crate::fake::{Answers, FakeHostAgent};

/// Longest that something takes which takes a moment.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A directory, and in it a served socket and a home.
pub struct Bench {
    pub dir: TempDir,
    pub fake: FakeHostAgent,
    server: Option<AbortHandle>,
    /// What serves where it can leave.
    apart: Option<Runtime>,
}

/// What a run left.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    /// It ended with this code; gives standard output.
    #[track_caller]
    pub fn expect(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        self.out
    }

    /// It ended with this code and said all this on standard error.
    #[track_caller]
    pub fn fails(self, code: i32, said: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        for text in said {
            assert!(self.err.contains(text), "{text:?} is not in:\n{}", self.err);
        }
        self
    }
}

impl Bench {
    pub fn new(answers: Answers) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = FakeHostAgent::new(answers);
        let serving = fake.clone();
        let socket = dir.path().join("api.sock");
        // Listening begins before the first await of the server, and the runs wait for the task to begin.
        let server = tokio::spawn(async move { serving.serve(&socket).await }).abort_handle();
        Self { dir, fake, server: Some(server), apart: None }
    }

    /// The same, but it can leave: it serves from a runtime of its own, with which all ends that it has open, as with a
    /// process.
    pub fn apart(answers: Answers) -> Self {
        let (dir, fake) = (tempfile::tempdir().unwrap(), FakeHostAgent::new(answers));
        let mut bench = Self { dir, fake, server: None, apart: None };
        bench.come_back();
        bench
    }

    /// The host agent is gone when this returns.
    pub async fn leave(&mut self) {
        let runtime = self.apart.take().expect("it serves apart, and has not left");
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
    }

    /// Another host agent serves on the same socket, and answers the same.
    pub fn come_back(&mut self) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let (serving, socket) = (self.fake.clone(), self.path("api.sock"));
        runtime.spawn(async move { serving.serve(&socket).await });
        self.apart = Some(runtime);
    }

    pub fn failing(code: Code, failure: Failure) -> Self {
        Self::new(Answers { failure: Some((code, failure)), ..Answers::default() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    /// By the environment, so that what is told to type next is short.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = bare(self.dir.path());
        command.env("K8SCTL_SOCKET", self.path("api.sock")).args(args);
        command
    }

    /// The same, as the leader of a session of its own, whose terminal is its standard input: whoever runs the tests has
    /// another one, of any size.
    pub fn command_in_a_session(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setsid");
        // It becomes the program: the process is the same.
        command.args(["--ctty", env!("CARGO_BIN_EXE_k8sctl")]).args(args);
        heeds_nothing(&mut command, self.dir.path());
        command.env("K8SCTL_SOCKET", self.path("api.sock"));
        command
    }

    /// Lets the server begin to listen.
    pub async fn listening(&self) {
        let is_there = async {
            while !self.path("api.sock").exists() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, is_there).await.expect("the host agent listens in time");
    }

    pub async fn run(&self, args: &[&str]) -> Run {
        self.listening().await;
        finish(self.command(args)).await
    }

    /// Begins `dashboard --web`; gives what runs, and the URL that was printed.
    pub async fn served(&self) -> (Child, String) {
        self.listening().await;
        let mut command = self.command(&["dashboard", "--web"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().expect("it says where");
        let url = line.split_once("dashboard of cluster home: ").expect("the URL").1.to_owned();
        let second = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
        assert!(second.contains("Ctrl-C ends it"), "{second}");
        (child, url)
    }

    /// Runs what goes on for ever until it has printed so many lines, and ends it then.
    pub async fn follow(&self, args: &[&str], count: usize) -> Run {
        self.listening().await;
        let mut command = self.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut out = String::new();
        while out.lines().count() < count {
            let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap();
            out.push_str(&line.expect("it goes on"));
            out.push('\n');
        }
        child.kill().await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        Run { code: -1, out, err: String::from_utf8(output.stderr).unwrap() }
    }

    pub async fn json(&self, args: &[&str]) -> serde_json::Value {
        let out = self.run(&[args, &["-o", "json"]].concat()).await.expect(0);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Everything that the fake was asked, in words.
    pub fn calls(&self) -> String {
        self.fake.calls.lock().unwrap().join("\n")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
        // Not dropped: that waits, and a test's runtime may not.
        if let Some(runtime) = self.apart.take() {
            runtime.shutdown_background();
        }
    }
}

/// `k8sctl` with nothing of this process's environment that it heeds.
pub fn bare(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_k8sctl"));
    heeds_nothing(&mut command, home);
    command
}

/// It gets nothing of this process's environment that `k8sctl` heeds.
pub fn heeds_nothing(command: &mut Command, home: &Path) {
    for name in ["K8SCTL_SOCKET", "K8SCTL_CONFIG", "K8SCTL_LOG", "KUBECONFIG", "NO_COLOR"] {
        command.env_remove(name);
    }
    command.env("HOME", home).stdin(Stdio::null()).kill_on_drop(true);
}

/// A terminal that is nobody's yet: the side of who looks and types, and the side of a program.
pub fn terminal() -> (File, File) {
    let ours = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap());
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NOCTTY.bits() as i32)
        .open(Path::new(OsStr::from_bytes(name.as_bytes())))
        .unwrap();
    (ours, theirs)
}

pub async fn finish(mut command: Command) -> Run {
    let output = timeout(DEADLINE * 5, command.output()).await.expect("it ends in time").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

pub fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    kill_process(pid, signal).unwrap();
}
