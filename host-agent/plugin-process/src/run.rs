//! What a run of a plugin's program brings: an answer, or how it failed, as a person meets it. Made by [`crate::Runner`];
//! whoever keeps records of runs reads it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use k8sctl_rpc::chain;
use k8sctl_types::failure::Failure;

use crate::conversation::ConversationError;
use crate::launch::{Broken, Ceilings, Deadlines, Excess, LaunchError, ProgramError};

/// What a person does whose plugin does not behave.
const REPORT: &str =
    "nothing was changed on the cluster; report this to the plugin's author with what it said";

/// A run that brought an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Run<T> {
    /// The answer.
    pub answer: T,
    /// The end of what the program said on standard error, at most 8 KiB.
    pub stderr: String,
    /// From before the program was read until its process was gone.
    pub took: Duration,
}

/// A run that brought none.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{failure}")]
pub struct RunError {
    /// Of what kind.
    pub kind: RunErrorKind,
    /// As a person meets it.
    pub failure: Failure,
    /// The end of what the program said on standard error, at most 8 KiB.
    pub stderr: String,
    /// From before the program was read until its process was gone.
    pub took: Duration,
}

/// How a run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunErrorKind {
    /// The program or the sandbox could not be made: says nothing of the plugin's behaviour.
    Launch,
    /// It ended by itself: signal or exit status.
    Crashed,
    /// It had not answered in time.
    Deadline,
    /// It took more memory than it may, or got no more.
    Memory,
    /// It said more on standard error than it may.
    Output,
    /// It was ended by the system call filter.
    Breach,
    /// It broke the protocol.
    Contract,
    /// Two runs gave two plans.
    Unstable,
}

/// Why a program or its process could not be made.
pub(crate) fn launch_failure(plugin: &str, error: &LaunchError) -> Failure {
    let (object, reason) = (object(plugin), chain(error).to_string());
    match error {
        LaunchError::Sandbox(_) => Failure::new(
            "PLUGIN-SANDBOX",
            object,
            reason,
            "plugins need a Linux kernel 5.13 or later with Landlock and seccomp: see `k8sctl doctor`",
        ),
        LaunchError::Group(_) => Failure::new(
            "PLUGIN-SANDBOX",
            object,
            reason,
            "restart the host agent; if this stays, its unit must have Delegate=memory pids cpu",
        ),
        LaunchError::Spawn(..) => {
            Failure::new("PLUGIN-START", object, reason, "see the host agent's log; nothing was changed")
        }
    }
}

/// Why a program cannot be one of a plugin's.
pub(crate) fn program_failure(plugin: &str, error: &ProgramError) -> Failure {
    let (id, next) = match error {
        ProgramError::Dynamic(_) => (
            "PLUGIN-DYNAMIC",
            "link it statically: RUSTFLAGS='-C target-feature=+crt-static', or CGO_ENABLED=0 for Go",
        ),
        ProgramError::Digest { .. } => (
            "PLUGIN-DIGEST",
            "take the package anew from where it came, or build it again: `k8sctl plugin build`",
        ),
        ProgramError::Seal(..) => (
            "PLUGIN-START",
            "plugins run from sealed memory files: `sysctl vm.memfd_noexec` must be 0 or 1; nothing was changed",
        ),
        _ => ("PLUGIN-PROGRAM", "put the plugin's program into its package: `k8sctl plugin build`"),
    };
    Failure::new(id, object(plugin), chain(error).to_string(), next)
}

/// Why a process did not hold the conversation.
pub(crate) fn broken_failure(
    plugin: &str,
    broken: &Broken<ConversationError>,
    deadlines: Deadlines,
    ceilings: Ceilings,
) -> (RunErrorKind, Failure) {
    let (kind, id, reason) = match broken {
        Broken::Crashed(status) => (
            RunErrorKind::Crashed,
            "PLUGIN-CRASHED",
            format!("its process ended with {} before it had answered", how(*status)),
        ),
        Broken::Excess(Excess::Time) => late(&format!("{:?}", deadlines.conversation)),
        Broken::Answer(ConversationError::Late { call, after }) => {
            late(&format!("{after:?}, {call} being asked,"))
        }
        Broken::Processor(seconds) => late(&format!("{seconds} s of processor time")),
        Broken::Excess(Excess::Memory(bytes)) => memory(&format!("it had {} MiB", bytes >> 20), ceilings),
        Broken::NoMemory => memory("it got no more memory", ceilings),
        Broken::Excess(Excess::Output(bytes)) => {
            let most = ceilings.stderr_bytes;
            let reason =
                format!("it said {bytes} bytes on standard error, expected at most {most}, and was ended");
            (RunErrorKind::Output, "PLUGIN-OUTPUT", reason)
        }
        Broken::Filter => (
            RunErrorKind::Breach,
            "PLUGIN-BREACH",
            "it tried a system call that no plugin may try, and was ended".to_owned(),
        ),
        Broken::Answer(error) => (RunErrorKind::Contract, "PLUGIN-PROTOCOL", chain(error).to_string()),
    };
    (kind, Failure::new(id, object(plugin), reason, REPORT))
}

/// Two runs with the same question that did not answer the same; `what` names the first difference.
pub(crate) fn unstable_failure(plugin: &str, what: &str) -> Failure {
    let reason = format!("two runs with the same config and facts gave two plans: {what}");
    Failure::new("PLUGIN-UNSTABLE", object(plugin), reason, REPORT)
}

fn late(what: &str) -> (RunErrorKind, &'static str, String) {
    let reason = format!("it had not answered after {what} and was ended");
    (RunErrorKind::Deadline, "PLUGIN-DEADLINE", reason)
}

fn memory(what: &str, ceilings: Ceilings) -> (RunErrorKind, &'static str, String) {
    let reason = format!("{what}, expected at most {} MiB, and ended", ceilings.memory_bytes >> 20);
    (RunErrorKind::Memory, "PLUGIN-MEMORY", reason)
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("exit status {}", code.unwrap_or_default()),
    }
}

fn object(plugin: &str) -> String {
    format!("plugin {plugin}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(broken: Broken<ConversationError>) -> (RunErrorKind, Failure) {
        broken_failure("p", &broken, Deadlines::default(), Ceilings::default())
    }

    #[test]
    fn each_way_to_fail_has_its_id_and_says_what_was_expected() {
        for (broken, kind, id, says) in [
            (
                Broken::Crashed(ExitStatus::from_raw(libc::SIGSEGV)),
                RunErrorKind::Crashed,
                "PLUGIN-CRASHED",
                "signal 11",
            ),
            (
                Broken::Crashed(ExitStatus::from_raw(7 << 8)),
                RunErrorKind::Crashed,
                "PLUGIN-CRASHED",
                "exit status 7",
            ),
            (Broken::Excess(Excess::Time), RunErrorKind::Deadline, "PLUGIN-DEADLINE", "after 30s"),
            (
                Broken::Answer(ConversationError::Late { call: "Handshake", after: Duration::from_secs(5) }),
                RunErrorKind::Deadline,
                "PLUGIN-DEADLINE",
                "after 5s, Handshake being asked",
            ),
            (Broken::Processor(60), RunErrorKind::Deadline, "PLUGIN-DEADLINE", "60 s of processor time"),
            (
                Broken::Excess(Excess::Memory(600 << 20)),
                RunErrorKind::Memory,
                "PLUGIN-MEMORY",
                "it had 600 MiB, expected at most 512 MiB",
            ),
            (Broken::NoMemory, RunErrorKind::Memory, "PLUGIN-MEMORY", "expected at most 512 MiB"),
            (
                Broken::Excess(Excess::Output(5_000_000)),
                RunErrorKind::Output,
                "PLUGIN-OUTPUT",
                "expected at most 4194304",
            ),
            (Broken::Filter, RunErrorKind::Breach, "PLUGIN-BREACH", "system call"),
            (
                Broken::Answer(ConversationError::Contract("its plan has no end".to_owned())),
                RunErrorKind::Contract,
                "PLUGIN-PROTOCOL",
                "its plan has no end",
            ),
        ] {
            let (got, failure) = failure(broken);
            assert_eq!((got, failure.id.as_str()), (kind, id), "{failure}");
            assert!(failure.reason.contains(says), "{failure}");
            assert_eq!(failure.object, "plugin p");
        }
    }

    #[test]
    fn programs_that_cannot_run_say_what_to_do() {
        let path = std::path::PathBuf::from("/p/bin");
        let digest = ProgramError::Digest { path: path.clone(), got: "a".into(), expected: "b".into() };
        for (error, id) in [
            (ProgramError::Dynamic(path.clone()), "PLUGIN-DYNAMIC"),
            (ProgramError::NotElf(path.clone()), "PLUGIN-PROGRAM"),
            (ProgramError::Large(path.clone(), 1 << 40), "PLUGIN-PROGRAM"),
            (digest, "PLUGIN-DIGEST"),
        ] {
            let failure = program_failure("p", &error);
            assert_eq!(failure.id, id);
            assert!(failure.reason.contains("/p/bin") && !failure.next_step.is_empty(), "{failure:?}");
        }
    }
}
