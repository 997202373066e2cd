//! `k8sctl plugin add`.

use k8sctl_proto::control::v1::{PluginChange, PluginWish};

use super::change::{self, Change};
use super::source;
use super::values::Values;
use crate::agent;
use crate::cli::PluginAddArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::terminal::Context;

pub(super) async fn run(context: &Context, args: &PluginAddArgs) -> Result<Exit, Ended> {
    let values = Values::of(&args.values, &args.name)?;
    let plugin = source::for_the_host(context, &args.name, args.dev).await?;
    let agent = agent::connect(context).await?;
    let cluster = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let wish = PluginWish {
        config_json: values.to_json(),
        config_name: values.name().to_owned(),
        dev: args.dev,
        lift_quarantine: args.lift_quarantine,
        adopt: args.adopt,
        ..change::wish(cluster, PluginChange::Add, plugin)
    };
    let change = Change {
        wish,
        values: &values,
        again: again(args),
        yes: args.yes,
        prune_many: false,
        deadline: args.deadline,
    };
    change::run(context, &agent, &change).await
}

/// The same command, without the consent.
fn again(args: &PluginAddArgs) -> Vec<String> {
    let mut words = ["plugin", "add", args.name.as_str()].map(str::to_owned).to_vec();
    change::option(&mut words, "--cluster", args.cluster.clone());
    change::option(
        &mut words,
        "--config",
        args.values.config.as_ref().map(|file| file.display().to_string()),
    );
    for pair in &args.values.set {
        change::option(&mut words, "--set", Some(pair.clone()));
    }
    change::option(&mut words, "--deadline", change::deadline(args.deadline));
    let flags = [("--dev", args.dev), ("--adopt", args.adopt), ("--lift-quarantine", args.lift_quarantine)];
    change::flags(&mut words, &flags);
    words
}
