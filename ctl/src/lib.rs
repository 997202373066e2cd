//! `k8sctl`, the command line of the host agent.
//!
//! ```text
//!  argv ─► cli ─► verb/<verb>.rs ─► agent (unix socket; starts the host agent where none runs)
//!                      │                 │
//!                      │◄── messages ────┘
//!                      ├─► view      what is shown, as documented serde structs
//!                      ├─► dashboard a cluster as a whole, live: in the terminal or in a browser
//!                      ├─► progress  a running operation: live on a terminal, plain lines off it
//!                      └─► terminal  colours, and control characters of strangers made visible
//! ```
//!
//! - [`cli`]: every verb and flag
//! - [`verb`]: one file per verb
//! - [`agent`]: the connection to the host agent, and how one is started
//! - [`moment`]: times as people write them
//! - [`spec_file`], [`lock_file`]: the user's file and the mistakes in it; which plugins it means, exactly
//! - [`view`]: the shapes of `-o json` and `-o yaml`, made of wire messages
//! - [`progress`]: how an operation is watched
//! - [`dashboard`]: what is known of a cluster, and the two ways to look at it
//! - [`kubeconfig`]: how a cluster's kubeconfig is merged into the user's
//! - [`terminal`], [`output`], [`yaml`], [`table`]: how things are printed
//! - [`ended`], [`exit`]: how a run ends; [`signals`]: what ends it from outside
//!
//! Nothing here decides anything about clusters: that is the host agent's.

pub mod agent;
pub mod cli;
pub mod consent;
pub mod dashboard;
pub mod ended;
pub mod exit;
pub mod kubeconfig;
pub mod lock_file;
pub mod moment;
pub mod output;
pub mod progress;
pub mod resume;
pub mod signals;
pub mod spec_file;
pub mod table;
pub mod terminal;
pub mod verb;
pub mod view;
pub mod yaml;

use std::process::ExitCode;

use crate::ended::Ended;
use crate::exit::Exit;
use crate::terminal::Context;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match cli::Cli::from_process() {
        Ok(cli) => cli,
        Err(error) => return wrong_command_line(&error),
    };
    let context = Context::of(&cli);
    if std::env::var_os("K8SCTL_LOG").is_some() {
        // Only on request: what a person needs is printed by the verbs.
        k8sctl_rpc::telemetry::init("k8sctl");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error HOST-RUNTIME: k8sctl: cannot start: {error}");
            return Exit::Failed.into();
        }
    };
    let ended = runtime.block_on(verb::run(&context, cli));
    // A blocking read of the terminal must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ok(exit) | Err(Ended::Reported(exit)) => exit.into(),
        Err(Ended::Problem(problem)) => {
            // Nobody is left to be told when these fail.
            let _ = output::error(&context, &problem.failure);
            let _ = ended::print(&context.err, "error", &problem.failure);
            problem.exit.into()
        }
        Err(Ended::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Exit::ReaderGone.into()
        }
        Err(Ended::Output(error)) => {
            let _ = context.err.line(format!("error HOST-OUTPUT: standard output: cannot write: {error}"));
            Exit::Failed.into()
        }
    }
}

/// Shows what clap says: help and versions are asked for, all else is a mistake, which programs get as a document.
fn wrong_command_line(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told when these fail.
    let _ = error.print();
    if !error.use_stderr() {
        return Exit::Ok.into();
    }
    let arguments: Vec<_> =
        std::env::args_os().skip(1).map(|one| one.to_string_lossy().into_owned()).collect();
    let context = Context::without_command(cli::format_wanted(arguments.iter().map(String::as_str)));
    let _ = output::error(&context, &ended::usage(error));
    Exit::Usage.into()
}
