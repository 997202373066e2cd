//! Commands of a lab for its tests: `k8sctl`, `kubectl`, `virsh` and the host agent, each with a deadline and with
//! all that it printed in the error.
//!
//! A test that is not inside of a lab (`tests/lab/run`) fails at once and says how to run it.

pub mod canary;
pub mod faults;
pub mod host;
pub mod lines;
pub mod pace;
pub mod processes;
pub mod simulated;
pub mod tap;
pub mod vm;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// Between two looks at a condition. Level-triggered: only how often, never whether.
const LOOK: Duration = Duration::from_millis(500);
/// How long an API server may be away: its kubelet starts one anew that has not answered for minutes.
const API_SERVER_AWAY: Duration = Duration::from_secs(15 * 60);
/// What kubectl prints when its request did not come through.
const UNHEARD: [&str; 9] = [
    "Unable to connect to the server",
    "The connection to the server",
    "error dialing backend",
    "etcdserver: ",
    "http2: ",
    "InternalError",
    "ServiceUnavailable",
    "Timeout",
    "unexpected EOF",
];

/// An open lab.
#[derive(Clone, Debug)]
pub struct Lab {
    dir: PathBuf,
    config: PathBuf,
    repo: PathBuf,
}

/// What a command printed.
#[derive(Debug)]
pub struct Printed {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A command that runs in the background; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    out: PathBuf,
}

impl Lab {
    /// The lab that this process runs in.
    pub fn here() -> Result<Self> {
        let dir = std::env::var_os("LAB_DIR")
            .context("this test needs a lab: run it with `tests/lab/run cargo test -p lab-tests`")?;
        let config = std::env::var_os("K8SCTL_CONFIG").context("the lab sets K8SCTL_CONFIG")?;
        // Not the directory at build time: clones share cargo's target directory.
        let repo = std::env::var_os("LAB_REPO").context("the lab sets LAB_REPO")?;
        Ok(Self { dir: dir.into(), config: config.into(), repo: repo.into() })
    }

    /// What `LAB_PHASES` says of the cluster test; nothing where it is not set.
    pub fn phases(&self) -> String {
        std::env::var("LAB_PHASES").unwrap_or_default()
    }

    /// A file of the repository.
    pub fn repo(&self, path: &str) -> PathBuf {
        self.repo.join(path)
    }

    /// A file of the lab's own directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Runs a program to its end, whatever its exit status.
    pub fn try_run(&self, program: &str, args: &[&str], deadline: Duration) -> Result<Printed> {
        self.try_run_with(program, args, &[], deadline)
    }

    /// The same with these variables.
    pub fn try_run_with(
        &self,
        program: &str,
        args: &[&str],
        env: &[(&str, &str)],
        deadline: Duration,
    ) -> Result<Printed> {
        let name = format!("{program} {}", args.join(" "));
        let mut running = self.spawn(program, args, env)?;
        let status = running.wait(deadline).with_context(|| name.clone())?;
        running.printed(status)
    }

    /// Runs a program that must succeed; gives its standard output.
    pub fn run(&self, program: &str, args: &[&str], deadline: Duration) -> Result<String> {
        let printed = self.try_run(program, args, deadline)?;
        ensure!(
            printed.status.success(),
            "`{program} {}` ended with {}\n{}\n{}",
            args.join(" "),
            printed.status,
            printed.out,
            printed.err
        );
        Ok(printed.out)
    }

    /// Runs a program that must succeed and print JSON.
    pub fn json(&self, program: &str, args: &[&str]) -> Result<Value> {
        let out = self.run(program, args, Duration::from_secs(120))?;
        serde_json::from_str(&out)
            .with_context(|| format!("`{program} {}` printed no JSON: {out}", args.join(" ")))
    }

    /// Runs `kubectl`, which must succeed. An API server on a busy machine is away for a moment now and then: what it
    /// did not hear is said again.
    pub fn kubectl(&self, args: &[&str], deadline: Duration) -> Result<String> {
        let end = Instant::now() + API_SERVER_AWAY;
        loop {
            let printed = self.try_run("kubectl", args, deadline)?;
            let is_away = UNHEARD.iter().any(|said| printed.err.contains(said));
            if printed.status.success() {
                return Ok(printed.out);
            }
            ensure!(is_away && Instant::now() < end, "`kubectl {}`: {printed:?}", args.join(" "));
            thread::sleep(LOOK);
        }
    }

    /// `kubectl get ARGS -o json`.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["get"];
        all.extend(args);
        all.extend(["-o", "json"]);
        let out = self.kubectl(&all, Duration::from_secs(120))?;
        serde_json::from_str(&out)
            .with_context(|| format!("`kubectl {}` printed no JSON: {out}", all.join(" ")))
    }

    /// Starts a program in the background.
    pub fn spawn(&self, program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Running> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let out = self.dir.join(format!("command-{number}"));
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's background program has no deadline; Running ends it"
        )]
        let child = Command::new(program)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(out.with_extension("out"))?)
            .stderr(File::create(out.with_extension("err"))?)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Running { child, name: format!("{program} {}", args.join(" ")), out })
    }

    /// Starts a host agent; with `crash_at` it ends itself with SIGKILL at that point.
    pub fn host_agent(&self, crash_at: Option<&str>) -> Result<Running> {
        let config = self.config.to_string_lossy().into_owned();
        let env: Vec<(&str, &str)> = crash_at.iter().map(|point| ("K8SCTL_CRASH_AT", *point)).collect();
        let mut agent = self.spawn("k8s-host-agent", &["--config", &config], &env)?;
        let socket = Path::new("/run/k8s-myhome/api.sock");
        wait_until("the host agent's socket answers", Duration::from_secs(60), || {
            let has_crashed = crash_at.is_some() && agent.has_ended()?;
            Ok(has_crashed || std::os::unix::net::UnixStream::connect(socket).is_ok())
        })?;
        Ok(agent)
    }
}

impl Running {
    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                let printed = self.read()?;
                bail!(
                    "`{}` still runs after {deadline:?}; it printed\n{}\n{}",
                    self.name,
                    printed.0,
                    printed.1
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with SIGKILL and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What it printed up to now, out and err.
    pub fn read(&self) -> Result<(String, String)> {
        let read = |extension| -> Result<String> {
            let mut bytes = Vec::new();
            File::open(self.out.with_extension(extension))?.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok((read("out")?, read("err")?))
    }

    /// All that it printed, once it has ended.
    pub fn printed(&self, status: ExitStatus) -> Result<Printed> {
        let (out, err) = self.read()?;
        Ok(Printed { status, out, err })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until the condition holds; an error of the look itself counts as "not yet" until the deadline.
pub fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + deadline;
    loop {
        let looked = holds();
        if matches!(looked, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= end {
            looked.with_context(|| format!("{what}: not within {deadline:?}"))?;
            bail!("{what}: not within {deadline:?}");
        }
        thread::sleep(LOOK);
    }
}

/// Prints where a long test is, and how long it has run.
pub fn phase(what: &str) {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let seconds = BEGAN.elapsed().as_secs();
    println!("lab: {:02}:{:02} {what}", seconds / 60, seconds % 60);
}
