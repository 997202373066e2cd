//! `k8sctl completion SHELL`.

use crate::cli::{Cli, CompletionArgs};
use crate::ended::Ended;
use crate::exit::Exit;
use crate::terminal::Context;

pub(super) fn run(context: &Context, args: &CompletionArgs) -> Result<Exit, Ended> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::full_command(), "k8sctl", &mut script);
    context.out.raw(script)?;
    Ok(Exit::Ok)
}
