//! Starts a plugin's program: reads and hashes it, seals the copy, and executes that copy in a sandbox with one
//! connected socket as fd 3. Called by [`crate::host`] through [`Launcher::run`], which also ends the process.
//! What is said over the socket is `conversation`'s.
//!
//! - [`program`]: the sealed copy
//! - [`sandbox`]: the rules, made before the fork
//! - [`child`]: the few calls between fork and exec

mod child;
mod program;
mod sandbox;

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use k8sctl_command::last_lines;
use k8sctl_types::failure::Failure;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

pub(crate) use program::{Program, ProgramError};

/// How much of the end of a plugin's standard error is kept, in bytes.
const TAIL_LIMIT: usize = 8 * 1024;
/// Lines of it that are logged; the rest is only kept as the tail.
const LOGGED_LINES: usize = 200;

/// How long a plugin process may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For everything that is asked of it in one operation.
    pub conversation: Duration,
    /// For it to end by itself after the socket is closed, or after it broke the connection.
    pub goodbye: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { conversation: Duration::from_secs(30), goodbye: Duration::from_secs(2) }
    }
}

/// The process could not be started or did not hold the conversation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The program is not one that can be run.
    #[error("the program cannot be used")]
    Program(#[from] ProgramError),
    /// A layer of the sandbox is missing on this kernel.
    #[error("the sandbox cannot be made")]
    Sandbox(#[from] sandbox::SandboxError),
    /// The socket or the process could not be made.
    #[error("the program {0} cannot be started in the sandbox")]
    Spawn(String, #[source] std::io::Error),
}

/// How a run ended that did not bring an answer.
#[derive(Debug)]
pub(crate) enum Broken<E> {
    /// The process ended by itself before it had answered.
    Crashed {
        /// How.
        status: ExitStatus,
        /// The end of its standard error.
        stderr: String,
    },
    /// It was ended at the deadline.
    Deadline {
        /// The end of its standard error.
        stderr: String,
    },
    /// It lives and answered wrongly.
    Answer {
        /// What was wrong.
        error: E,
        /// The end of its standard error.
        stderr: String,
    },
}

/// Starts plugin processes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Launcher {
    pub(crate) deadlines: Deadlines,
}

impl Launcher {
    /// Starts the program, holds one conversation with it, and sees to its end: when this returns, or is dropped,
    /// the process is gone.
    pub(crate) async fn run<T, E, F>(
        &self,
        plugin: &str,
        program: &Program,
        conversation: impl FnOnce(UnixStream) -> F,
    ) -> Result<Result<T, Broken<E>>, LaunchError>
    where
        F: Future<Output = Result<T, E>>,
    {
        let spawn_error = |error| LaunchError::Spawn(program.name(), error);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(spawn_error)?;
        ours.set_nonblocking(true).map_err(spawn_error)?;
        let ours = UnixStream::from_std(ours).map_err(spawn_error)?;
        let mut child = spawn(program, theirs.into())?;
        let stderr = child.stderr.take().expect("standard error is a pipe");

        let talk = async {
            let result = tokio::time::timeout(self.deadlines.conversation, conversation(ours)).await;
            let ended = tokio::time::timeout(self.deadlines.goodbye, child.wait()).await;
            if ended.is_err() {
                // tokio signals through the handle it waits on, so the number cannot be another process's by now.
                let _ = child.start_kill();
                let _ = child.wait().await;
            }
            let ended = ended.ok().and_then(Result::ok);
            (result, ended)
        };
        let ((result, ended), stderr) = tokio::join!(talk, read_tail(plugin, stderr));
        Ok(match (result, ended) {
            (Ok(Ok(answer)), _) => Ok(answer),
            (Err(_), _) => Err(Broken::Deadline { stderr }),
            (Ok(Err(_)), Some(status)) if !status.success() => Err(Broken::Crashed { status, stderr }),
            (Ok(Err(error)), _) => Err(Broken::Answer { error, stderr }),
        })
    }
}

fn spawn(program: &Program, socket: OwnedFd) -> Result<Child, LaunchError> {
    let spawn_error = |error| LaunchError::Spawn(program.name(), error);
    let root = rustix::process::geteuid().is_root();
    let setup = child::Setup {
        socket: child::away_from_fd_3(socket).map_err(spawn_error)?,
        program: child::away_from_fd_3(program.sealed().map_err(spawn_error)?).map_err(spawn_error)?,
        rules: sandbox::Rules::new(root)?,
    };
    // The path is never used: the child executes the sealed copy by its descriptor.
    #[expect(
        clippy::disallowed_methods,
        reason = "a plugin is started from a sealed copy, by descriptor, with a sandbox before exec"
    )]
    let mut command = Command::new(Path::new("/nonexistent/k8sctl-plugin"));
    command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if root {
        command.uid(sandbox::PLUGIN_USER).gid(sandbox::PLUGIN_USER);
    }
    child::enter_before_exec(&mut command, setup);
    command.spawn().map_err(spawn_error)
}

/// Reads to the end, logs the first lines, keeps the last whole lines with control characters made visible.
async fn read_tail(plugin: &str, mut stderr: impl AsyncRead + Unpin) -> String {
    let (mut tail, mut chunk, mut logged) = (Vec::new(), [0; 4096], 0);
    loop {
        let read = stderr.read(&mut chunk).await.unwrap_or_default();
        if read == 0 {
            break;
        }
        for line in String::from_utf8_lossy(&chunk[..read]).lines() {
            if logged < LOGGED_LINES {
                tracing::info!(plugin.name = plugin, plugin.stderr = %visible(line), "a plugin said something");
                logged += 1;
            }
        }
        tail.extend_from_slice(&chunk[..read]);
        // With the byte before the limit, which tells whether the line behind it is whole.
        tail.drain(..tail.len().saturating_sub(TAIL_LIMIT + 1));
    }
    last_lines(&String::from_utf8_lossy(&tail), TAIL_LIMIT)
        .lines()
        .map(visible)
        .collect::<Vec<_>>()
        .join("\n")
}

fn visible(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// What a person meets when a plugin's process could not be started.
pub(crate) fn launch_failure(plugin: &str, error: &LaunchError) -> Failure {
    let object = format!("plugin {plugin}");
    let mut reasons = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reasons.push(cause.to_string());
        source = cause.source();
    }
    let reason = reasons.join(": ");
    match error {
        LaunchError::Program(ProgramError::Dynamic(_)) => Failure::new(
            "PLUGIN-DYNAMIC",
            object,
            reason,
            "link it statically: RUSTFLAGS='-C target-feature=+crt-static', or CGO_ENABLED=0 for Go",
        ),
        LaunchError::Program(_) => {
            Failure::new("PLUGIN-PROGRAM", object, reason, "put the plugin's program beside its plugin.toml")
        }
        LaunchError::Sandbox(_) => Failure::new(
            "PLUGIN-SANDBOX",
            object,
            reason,
            "plugins need a Linux kernel 5.13 or later with Landlock and seccomp: see `k8sctl doctor`",
        ),
        LaunchError::Spawn(..) => {
            Failure::new("PLUGIN-START", object, reason, "see the host agent's log; nothing was changed")
        }
    }
}

/// What a person meets when a plugin's process did not hold the conversation.
pub(crate) fn broken_failure<E: std::fmt::Display>(
    plugin: &str,
    broken: Broken<E>,
    deadlines: Deadlines,
) -> Failure {
    let object = format!("plugin {plugin}");
    let next = "nothing was changed on the cluster; report this to the plugin's author with what it said";
    match broken {
        Broken::Crashed { status, stderr } => {
            let how = match (status.signal(), status.code()) {
                (Some(signal), _) => format!("signal {signal}"),
                (None, code) => format!("exit status {}", code.unwrap_or_default()),
            };
            Failure::new(
                "PLUGIN-CRASHED",
                object,
                format!("its process ended with {how} before it had answered"),
                next,
            )
            .with_evidence(stderr)
        }
        Broken::Deadline { stderr } => {
            let reason = format!("it had not answered after {:?} and was ended", deadlines.conversation);
            Failure::new("PLUGIN-DEADLINE", object, reason, next).with_evidence(stderr)
        }
        Broken::Answer { error, stderr } => {
            Failure::new("PLUGIN-PROTOCOL", object, error.to_string(), next).with_evidence(stderr)
        }
    }
}
