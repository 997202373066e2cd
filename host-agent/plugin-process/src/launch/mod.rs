//! Starts a plugin's program: seals a copy, executes that copy in a sandbox with one connected socket as fd 3, watches it
//! while somebody talks with it, and ends it. Called by [`crate::Runner`]. What is said over the socket is
//! [`crate::conversation`]'s.
//!
//! - [`program`]: the sealed copies
//! - [`sandbox`]: the rules, made before the fork
//! - [`users`], [`cgroup`]: what a process has of its own where the machine gives it
//! - [`parent`]: the thread whose children the processes are
//! - [`child`]: the few calls between fork and exec
//! - [`process`]: a process until it is gone
//! - [`watch`]: memory, standard error, time

mod cgroup;
mod child;
mod parent;
mod process;
mod program;
mod sandbox;
mod users;
mod watch;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;

pub use cgroup::Cgroups;
pub(crate) use program::{ProgramError, Programs, Sealed};
pub(crate) use watch::Excess;

use process::Process;
use sandbox::{CPU_SECONDS, SandboxError};
use watch::{Heard, tells_of_memory, watch};

/// How long standard error is read on when the process is gone: what it said last is in the pipe.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long a plugin process may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For everything that is asked of it in one operation.
    pub conversation: Duration,
    /// For it to end by itself after the socket is closed, or after it broke the connection.
    pub goodbye: Duration,
    /// For the first answer of all.
    pub handshake: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            conversation: Duration::from_secs(30),
            goodbye: Duration::from_secs(2),
            handshake: Duration::from_secs(5),
        }
    }
}

/// How much a plugin process may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// What it says on standard error, in bytes.
    pub stderr_bytes: usize,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, stderr_bytes: 4 << 20 }
    }
}

/// The process could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// A layer of the sandbox is missing on this kernel.
    #[error("the sandbox cannot be made")]
    Sandbox(#[from] SandboxError),
    /// The control group could not be made.
    #[error("the control group for it cannot be made")]
    Group(#[source] std::io::Error),
    /// The socket or the process could not be made.
    #[error("the program {0} cannot be started in the sandbox")]
    Spawn(String, #[source] std::io::Error),
}

/// How a run ended that did not bring an answer.
#[derive(Debug)]
pub(crate) enum Broken<E> {
    /// The process ended by itself before it had answered.
    Crashed(ExitStatus),
    /// It was ended for one of these.
    Excess(Excess),
    /// It was ended by the kernel: so many seconds of processor time.
    Processor(u64),
    /// It got no more memory, and ended.
    NoMemory,
    /// It was ended by the system call filter.
    Filter,
    /// It lives and answered wrongly.
    Answer(E),
}

/// A run from its start to its end.
#[derive(Debug)]
pub(crate) struct Ended<T, E> {
    /// What it brought.
    pub(crate) result: Result<T, Broken<E>>,
    /// The end of its standard error.
    pub(crate) stderr: String,
}

/// A process that was just started.
#[derive(Debug)]
pub struct Started {
    /// Our end of the socket.
    pub stream: UnixStream,
    /// Its number.
    pub pid: u32,
    /// Its user, where it has one of its own.
    pub user: Option<u32>,
}

/// Starts plugin processes.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    pub(crate) deadlines: Deadlines,
    pub(crate) ceilings: Ceilings,
    pub(crate) cgroups: Option<Cgroups>,
}

impl Launcher {
    /// Starts the program, holds one conversation with it, and sees to its end: when this returns, the process is gone;
    /// when it is dropped, it is being ended.
    pub(crate) async fn run<T, E, F>(
        &self,
        plugin: &str,
        program: &Sealed,
        conversation: impl FnOnce(Started) -> F,
    ) -> Result<Ended<T, E>, LaunchError>
    where
        F: Future<Output = Result<T, E>>,
    {
        let spawn_error = |error| LaunchError::Spawn(program.name(), error);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(spawn_error)?;
        ours.set_nonblocking(true).map_err(spawn_error)?;
        let stream = UnixStream::from_std(ours).map_err(spawn_error)?;
        let mut process =
            Process::start(program, theirs.into(), self.ceilings, self.cgroups.as_ref()).await?;
        let deadline = Instant::now() + self.deadlines.conversation;
        let stderr = process.stderr().expect("standard error is a pipe that nobody has taken");
        let started = Started { stream, pid: process.pid(), user: process.user() };

        let heard = Heard::default();
        let mut hearing = std::pin::pin!(heard.listen(plugin, stderr, self.ceilings.stderr_bytes));
        let mut talking = std::pin::pin!(self.talk(process, &heard, deadline, conversation(started)));
        let mut all_heard = false;
        let end = loop {
            // Neither loses anything: both are polled on until they end.
            tokio::select! {
                end = &mut talking => break end,
                () = &mut hearing, if !all_heard => all_heard = true,
            }
        };
        if !all_heard {
            let _ = tokio::time::timeout(LAST_WORDS, &mut hearing).await;
        }
        let stderr = heard.tail();
        Ok(Ended { result: end.judge(&stderr), stderr })
    }

    /// The conversation under watch, and the end of the process.
    async fn talk<T, E>(
        &self,
        mut process: Process,
        heard: &Heard,
        deadline: Instant,
        conversation: impl Future<Output = Result<T, E>>,
    ) -> End<T, E> {
        let result = tokio::select! {
            // Who breaks a bound has not answered in time. Nothing is lost: what the other has not got by then is not
            // wanted any more.
            biased;
            excess = watch(process.pid(), heard, self.ceilings, deadline) => Err(excess),
            result = conversation => Ok(result),
        };
        let goodbye = if result.is_ok() { self.deadlines.goodbye } else { Duration::ZERO };
        let mut status = tokio::time::timeout(goodbye, process.wait()).await.ok().flatten();
        let no_memory = process.ran_out_of_memory();
        let ended = process.end().await;
        // What was ended here says nothing by its status, but that it was ended by somebody else before.
        if status.is_none() {
            status = ended.filter(|status| status.signal() == Some(libc::SIGSYS));
        }
        End { result, status, no_memory }
    }
}

/// What is known of a run when the process is gone.
struct End<T, E> {
    result: Result<Result<T, E>, Excess>,
    /// `None`: it was ended here.
    status: Option<ExitStatus>,
    /// The kernel ended it for its memory.
    no_memory: bool,
}

impl<T, E> End<T, E> {
    fn judge(self, stderr: &str) -> Result<T, Broken<E>> {
        let failed = self.status.filter(|status| !status.success());
        let signal = failed.and_then(|status| status.signal());
        if signal == Some(libc::SIGSYS) {
            // Whatever it has answered.
            return Err(Broken::Filter);
        }
        let error = match self.result {
            Err(excess) => return Err(Broken::Excess(excess)),
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
        };
        match failed {
            None if self.no_memory => Err(Broken::NoMemory),
            None => Err(Broken::Answer(error)),
            Some(_) if signal == Some(libc::SIGXCPU) => Err(Broken::Processor(CPU_SECONDS)),
            Some(_) if self.no_memory || tells_of_memory(stderr) => Err(Broken::NoMemory),
            Some(status) => Err(Broken::Crashed(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(result: Result<Result<(), &'static str>, Excess>, status: Option<i32>) -> End<(), &'static str> {
        End { result, status: status.map(ExitStatus::from_raw), no_memory: false }
    }

    #[test]
    fn an_answer_counts_whatever_comes_after_it_but_the_filter() {
        for status in [None, Some(0), Some(libc::SIGABRT), Some(3 << 8)] {
            end(Ok(Ok(())), status).judge("").expect("it has answered");
        }
        let broken = end(Ok(Ok(())), Some(libc::SIGSYS)).judge("");
        assert!(matches!(broken, Err(Broken::Filter)), "{broken:?}");
    }

    #[test]
    fn the_cause_is_told_and_not_what_follows_from_it() {
        let no_answer = || Ok(Err("the connection broke"));
        let broken = end(Err(Excess::Time), None).judge("");
        assert!(matches!(broken, Err(Broken::Excess(Excess::Time))), "{broken:?}");
        let broken = end(no_answer(), None).judge("");
        assert!(matches!(broken, Err(Broken::Answer("the connection broke"))), "{broken:?}");
        let broken = end(no_answer(), Some(0)).judge("");
        assert!(matches!(broken, Err(Broken::Answer(_))), "{broken:?}");
        let broken = end(no_answer(), Some(libc::SIGABRT)).judge("panicked");
        assert!(matches!(broken, Err(Broken::Crashed(status)) if status.signal() == Some(6)), "{broken:?}");
        let broken = end(no_answer(), Some(libc::SIGXCPU)).judge("");
        assert!(matches!(broken, Err(Broken::Processor(60))), "{broken:?}");
        let broken = end(no_answer(), Some(libc::SIGABRT)).judge("memory allocation of 9 bytes failed");
        assert!(matches!(broken, Err(Broken::NoMemory)), "{broken:?}");
        let mut killed = end(no_answer(), Some(libc::SIGKILL));
        killed.no_memory = true;
        assert!(matches!(killed.judge(""), Err(Broken::NoMemory)));
    }
}
