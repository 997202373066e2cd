//! `k8sctl plugin upgrade` and `rollback`: another version of an installed plugin, and the one before. Of a plugin that
//! stands in a cluster file, an upgrade is a change of `k8sctl.lock`, and the cluster is brought up with that.

use std::path::Path;

use k8sctl_proto::control::v1::{PluginChange, PluginWish};

use super::change::{self, Change};
use super::source;
use super::values::Values;
use crate::agent;
use crate::cli::{FileArgs, PluginRollbackArgs, PluginUpgradeArgs, UpArgs, ValueArgs};
use crate::ended::Ended;
use crate::exit::Exit;
use crate::lock_file;
use crate::terminal::Context;
use crate::verb::up;

pub(super) async fn run(context: &Context, args: &PluginUpgradeArgs) -> Result<Exit, Ended> {
    if let Some(file) = &args.file {
        return in_file(context, args, file).await;
    }
    let name = args.name.as_deref().unwrap_or_default();
    let (wish, values) = wish(context, name, args.config.as_deref(), args.to.as_deref(), args.dev).await?;
    let agent = agent::connect(context).await?;
    let cluster_name = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let change = Change {
        wish: PluginWish { cluster_name, lift_quarantine: args.lift_quarantine, adopt: args.adopt, ..wish },
        values: &values,
        again: again(args, name),
        yes: args.yes,
        prune_many: args.prune_many,
        deadline: args.deadline,
    };
    change::run(context, &agent, &change).await
}

/// An upgrade of a plugin to what the path holds, or the host's plugin path; `diff` looks at the same. The cluster is still
/// to be filled in.
pub(super) async fn wish(
    context: &Context,
    name: &str,
    config: Option<&Path>,
    to: Option<&Path>,
    dev: bool,
) -> Result<(PluginWish, Values), Ended> {
    let to = match to {
        None => String::new(),
        Some(path) => source::path_for_the_host(context, path, dev).await?,
    };
    let values = match config {
        None => Values::none(name),
        Some(_) => {
            let args = ValueArgs { config: config.map(Path::to_owned), set: Vec::new() };
            Values::of(&args, name)?
        }
    };
    let wish = PluginWish {
        // Without one, the config stays as it is.
        config_json: config.map(|_| values.to_json()).unwrap_or_default(),
        config_name: values.name().to_owned(),
        to,
        dev,
        ..change::wish(String::new(), PluginChange::Upgrade, name.to_owned())
    };
    Ok((wish, values))
}

fn again(args: &PluginUpgradeArgs, name: &str) -> Vec<String> {
    let mut words = ["plugin", "upgrade", name].map(str::to_owned).to_vec();
    change::option(&mut words, "--cluster", args.cluster.clone());
    change::option(&mut words, "--to", args.to.as_ref().map(|path| path.display().to_string()));
    change::option(&mut words, "--config", args.config.as_ref().map(|path| path.display().to_string()));
    change::option(&mut words, "--deadline", change::deadline(args.deadline));
    let flags = [
        ("--dev", args.dev),
        ("--adopt", args.adopt),
        ("--lift-quarantine", args.lift_quarantine),
        ("--prune-many", args.prune_many),
    ];
    change::flags(&mut words, &flags);
    words
}

/// What the lock file has of the plugin is left out, so that the host agent takes what it has now.
async fn in_file(context: &Context, args: &PluginUpgradeArgs, file: &Path) -> Result<Exit, Ended> {
    let (spec, lock) = lock_file::with_file(file, false)?;
    let lock = lock.ok_or_else(lock_file::of_standard_input)?;
    let spec = spec.with_lock(&lock.without(args.name.as_deref())?, false);
    let mut words = ["plugin", "upgrade", "-f"].map(str::to_owned).to_vec();
    words.push(file.display().to_string());
    words.extend(args.name.clone());
    change::option(&mut words, "--deadline", change::deadline(args.deadline));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let up = UpArgs {
        file: FileArgs { file: file.to_owned() },
        yes: args.yes,
        deadline: args.deadline,
        no_wait: false,
        no_kubeconfig: true,
        locked: false,
    };
    up::run_file(context, &up, &context.source.command(&words), spec, Some(lock)).await
}

/// `plugin rollback`.
pub(super) async fn roll_back(context: &Context, args: &PluginRollbackArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let cluster = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let mut again = ["plugin", "rollback", args.name.as_str()].map(str::to_owned).to_vec();
    change::option(&mut again, "--cluster", args.cluster.clone());
    change::option(&mut again, "--deadline", change::deadline(args.deadline));
    change::flags(&mut again, &[("--prune-many", args.prune_many)]);
    let change = Change {
        wish: change::wish(cluster, PluginChange::RollBack, args.name.clone()),
        values: &Values::none(&args.name),
        again,
        yes: args.yes,
        prune_many: args.prune_many,
        deadline: args.deadline,
    };
    change::run(context, &agent, &change).await
}
