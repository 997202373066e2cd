//! How a run ends badly, and how that is shown: id, object, reason, evidence, next step.

use std::io;
use std::time::Duration;

use clap::error::ErrorKind;
use k8sctl_rpc::status::failure_from;
use k8sctl_types::failure::Failure;
use tonic::{Code, Status};

use crate::exit::Exit;
use crate::terminal::{Printer, styles, visible};
use crate::view::FailureView;

/// Between two tries to reach a host agent that went away.
pub const LOST_INTERVAL: Duration = Duration::from_millis(500);
/// Said once meanwhile.
pub const LOST: &str = "the host agent went away; trying to reach it again";

/// Why a verb did not come to its good end.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// To be printed.
    #[error("{}", .0.failure)]
    Problem(Box<Problem>),
    /// Everything was said already.
    #[error("ended with exit code {}", *.0 as u8)]
    Reported(Exit),
    /// Standard output could not be written.
    #[error("cannot write standard output")]
    Output(#[from] io::Error),
}

/// A failure with the exit code that belongs to it.
#[derive(Debug)]
pub struct Problem {
    /// What is shown.
    pub failure: Failure,
    /// What scripts see.
    pub exit: Exit,
}

impl Ended {
    /// Ends with this failure and exit code.
    pub fn with(exit: Exit, failure: Failure) -> Self {
        Self::Problem(Box::new(Problem { failure, exit }))
    }
}

/// The exit code follows the id.
impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::with(exit_of(&failure, None), failure)
    }
}

/// What the host agent refused or failed, or what became of the connection to it.
impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        match failure_from(&status) {
            Some(failure) => Self::with(exit_of(&failure, Some(status.code())), failure),
            None => Self::with(exit_without_failure(status.code()), foreign(&status)),
        }
    }
}

/// Whether the connection was lost, so that asking again makes sense.
pub fn is_lost(status: &Status) -> bool {
    let transport =
        matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled);
    transport && failure_from(status).is_none()
}

fn exit_of(failure: &Failure, code: Option<Code>) -> Exit {
    if matches!(code, Some(Code::PermissionDenied | Code::Unauthenticated)) {
        return Exit::Denied;
    }
    match failure.id.as_str() {
        "PLAN-CONSENT" => Exit::NoConsent,
        "PLUGIN-LOCK" => Exit::InvalidSpec,
        id if id.starts_with("SPEC-") => Exit::InvalidSpec,
        _ => Exit::Failed,
    }
}

fn exit_without_failure(code: Code) -> Exit {
    match code {
        Code::Unavailable => Exit::Unreachable,
        Code::PermissionDenied | Code::Unauthenticated => Exit::Denied,
        _ => Exit::Failed,
    }
}

/// A status that the transport or a strange server made.
fn foreign(status: &Status) -> Failure {
    let reason = chain(status);
    let object = "host agent";
    match status.code() {
        Code::Unimplemented => Failure::new(
            "HOST-AGENT-VERSION",
            object,
            format!("it does not know this request: {reason}"),
            "compare the versions with `k8sctl version` and restart the host agent after an update",
        ),
        Code::PermissionDenied | Code::Unauthenticated => Failure::new(
            "AUTH-DENIED",
            object,
            reason,
            "run it with sudo, or ask for the group k8sctl or k8sctl-admin",
        ),
        _ => Failure::new(
            "HOST-AGENT-LOST",
            object,
            format!("it did not answer to the end: {reason}"),
            "try again; an operation that runs goes on by itself, and `k8sctl status` shows it",
        ),
    }
}

fn chain(status: &Status) -> String {
    let cause = std::error::Error::source(status).map(|cause| k8sctl_rpc::chain(cause).to_string());
    match (status.message(), cause) {
        ("", None) => status.code().to_string(),
        ("", Some(cause)) => cause,
        (message, None) => message.to_owned(),
        (message, Some(cause)) => format!("{message}: {cause}"),
    }
}

/// What clap does not take. Its first lines say why, the others are of use to people.
pub fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let (reason, rest) = match error.kind() {
        // It is the whole help.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => ("no verb is given", ""),
        _ => text.split_once("\n\n").unwrap_or((&text, "")),
    };
    let reason = reason.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    let next = "k8sctl --help lists the verbs, and each verb has a --help of its own";
    Failure::new("HOST-USAGE", "command line", reason, next)
        .with_evidence(rest.split("For more information").next().unwrap_or_default().trim())
}

/// Prints a failure for a tired person. `word` is `error`, or `warning` where the run goes on.
pub fn print(printer: &Printer, word: &str, failure: &Failure) -> io::Result<()> {
    let style = if word == "error" { styles::BAD } else { styles::WARN };
    let head = printer.paint(style, format!("{word} {}", visible(&failure.id)));
    let object = printer.paint(styles::STRONG, visible(&failure.object));
    printer.line(format!("{head}: {object}: {}", visible(&failure.reason)))?;
    for line in evidence(printer, &failure.evidence) {
        printer.line(line)?;
    }
    if !failure.next_step.is_empty() {
        printer.line(format!(
            "{}: {}",
            printer.paint(styles::STRONG, "next"),
            visible(&failure.next_step)
        ))?;
    }
    Ok(())
}

/// The lines of what a failure has as evidence, each behind a bar.
pub fn evidence(printer: &Printer, text: &str) -> Vec<String> {
    let bar = printer.paint(styles::DIM, "  |");
    text.trim_end().lines().map(|line| format!("{bar} {}", visible(line))).collect()
}

/// Prints what is wrong with some rows of a table, below it.
pub fn print_all<'a>(printer: &Printer, problems: impl Iterator<Item = &'a FailureView>) -> io::Result<()> {
    for problem in problems {
        printer.line("")?;
        print(printer, "warning", &problem.into())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(ended: Ended) -> Exit {
        match ended {
            Ended::Problem(problem) => problem.exit,
            other => panic!("no problem: {other}"),
        }
    }

    #[test]
    fn exit_codes_follow_code_and_id() {
        let failure = |id| Failure::new(id, "o", "r", "n");
        let status = k8sctl_rpc::status::status;
        assert_eq!(exit(status(Code::PermissionDenied, &failure("AUTH-ROLE")).into()), Exit::Denied);
        assert_eq!(exit(status(Code::FailedPrecondition, &failure("PLAN-CONSENT")).into()), Exit::NoConsent);
        assert_eq!(exit(status(Code::Unavailable, &failure("HOST-BUSY")).into()), Exit::Failed);
        assert_eq!(exit(failure("SPEC-UNREADABLE").into()), Exit::InvalidSpec);
        assert_eq!(exit(failure("PLUGIN-LOCK").into()), Exit::InvalidSpec);
    }

    #[test]
    fn only_a_lost_connection_is_worth_another_try() {
        let failure = Failure::new("HOST-BUSY", "o", "r", "n");
        assert!(!is_lost(&k8sctl_rpc::status::status(Code::Unavailable, &failure)));
        // The tests may make what the transport makes.
        assert!(is_lost(&Status::from_error(Box::new(io::Error::from(io::ErrorKind::BrokenPipe)))));
    }
}
