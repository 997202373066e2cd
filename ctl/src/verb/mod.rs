//! One file per verb. Each takes the [`Context`] and its own arguments, asks the host agent, and prints.

mod bundle;
mod completion;
mod dashboard;
mod doctor;
mod down;
mod events;
mod health;
mod help;
mod image;
mod kubeconfig;
mod logs;
mod node;
mod operation;
mod plan;
mod plugin;
pub(crate) mod status;
mod support_bundle;
mod up;
mod upgrade;
mod version;

use crate::cli::{Cli, Verb};
use crate::ended::Ended;
use crate::exit::Exit;
use crate::terminal::Context;

/// Runs the verb.
pub async fn run(context: &Context, cli: Cli) -> Result<Exit, Ended> {
    match cli.verb {
        Verb::Up(args) => up::run(context, &args).await,
        Verb::Down(args) => down::run(context, &args).await,
        Verb::Plan(args) => plan::run(context, &args).await,
        Verb::Status(args) => status::run(context, &args).await,
        Verb::Dashboard(args) => dashboard::run(context, &args).await,
        Verb::Health(args) => health::run(context, &args).await,
        Verb::Node(verb) => node::run(context, verb).await,
        Verb::Events(args) => events::run(context, &args).await,
        Verb::Logs(args) => logs::run(context, &args).await,
        Verb::Kubeconfig(args) => kubeconfig::run(context, &args).await,
        Verb::Doctor => doctor::run(context).await,
        Verb::Bundle(verb) => bundle::run(context, verb).await,
        Verb::Image(verb) => image::run(context, verb).await,
        Verb::Plugin(verb) => plugin::run(context, verb).await,
        Verb::Upgrade(verb) => upgrade::run(context, verb).await,
        Verb::SupportBundle(args) => support_bundle::run(context, args).await,
        Verb::Completion(args) => completion::run(context, &args),
        Verb::Version { client } => version::run(context, client).await,
        Verb::Help(args) => help::run(context, &args),
    }
}
