//! `k8sctl help [VERB…|exit-codes]`.

use k8sctl_types::failure::Failure;

use crate::cli::{Cli, HelpArgs};
use crate::ended::Ended;
use crate::exit::{self, Exit};
use crate::terminal::Context;

pub(super) fn run(context: &Context, args: &HelpArgs) -> Result<Exit, Ended> {
    if args.topic == ["exit-codes"] {
        context.out.raw(exit::TABLE)?;
        return Ok(Exit::Ok);
    }
    let mut command = Cli::full_command();
    command.build();
    let mut found = &mut command;
    for word in &args.topic {
        found = found.find_subcommand_mut(word).ok_or_else(|| {
            let failure = Failure::new(
                "HOST-NO-TOPIC",
                format!("topic {}", args.topic.join(" ")),
                "there is no help on that",
                "k8sctl --help lists the verbs; exit-codes is a topic too",
            );
            Ended::with(Exit::Usage, failure)
        })?;
    }
    let help = found.render_help();
    context.out.raw(if context.out.color { help.ansi().to_string() } else { help.to_string() })?;
    Ok(Exit::Ok)
}
