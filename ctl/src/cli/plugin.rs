//! Platform services: what `plugin` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use super::{named, parse_deadline};

/// `plugin …`.
#[derive(Debug, Subcommand)]
pub enum PluginVerb {
    /// List the installed plugins, or with --all those too that could be
    List(PluginListArgs),
    /// Show all that is known of a plugin: package, permissions, config, objects, revisions
    Show(PluginNameArgs),
    /// Install a plugin, after showing what it asks for
    Add(PluginAddArgs),
    /// Show or change the config of an installed plugin, or give it a secret
    Config(PluginConfigArgs),
    /// Give a plugin another version, after showing what that one asks for
    Upgrade(PluginUpgradeArgs),
    /// Give a plugin the revision back that it had before
    Rollback(PluginRollbackArgs),
    /// Remove a plugin and its objects
    Remove(PluginRemoveArgs),
    /// Show how the plugins are, and what blocks them
    Status(PluginStatusArgs),
    /// Show what a plugin's program said, or the logs of its pods
    Logs(PluginLogsArgs),
    /// Show what a change would do to each object, and do nothing
    Diff(PluginDiffArgs),
    /// Get the manifests that plugins fetch into the host's store, so that they work offline
    Vendor(PluginVendorArgs),
    /// Check every digest and signature: of the host's plugins, or of a folder or archive
    Verify(PluginVerifyArgs),
    /// Write a new plugin that builds and passes its tests
    New(PluginNewArgs),
    /// Make a package folder of a plugin's source
    Build(PluginBuildArgs),
    /// Put a package into one file
    Package(PluginPackageArgs),
    /// Sign a package, or make a key for that
    Sign(PluginSignArgs),
    /// Check that a plugin behaves as plugins must
    Test(PluginTestArgs),
}

/// A config for a plugin.
#[derive(Args, Clone, Debug, Default)]
pub struct ValueArgs {
    /// The plugin's config: a .toml, .yaml or .json file (the host agent's goes before the verb)
    #[arg(id = "plugin_config", long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// One value of its config, like replicas=2 or ingress.host=x; after the file
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ValueArgs {
    /// Nothing is said of the config.
    pub fn is_empty(&self) -> bool {
        self.config.is_none() && self.set.is_empty()
    }
}

/// `plugin list`.
#[derive(Args, Debug)]
pub struct PluginListArgs {
    /// Also those in the host's plugin path that are not installed
    #[arg(short, long)]
    pub all: bool,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// Keep looking, until Ctrl-C
    #[arg(short, long, conflicts_with = "all")]
    pub watch: bool,
}

/// `plugin show`.
#[derive(Args, Debug)]
pub struct PluginNameArgs {
    /// Name of the plugin
    #[arg(value_parser = named())]
    pub name: String,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
}

/// `plugin add`.
#[derive(Args, Debug)]
pub struct PluginAddArgs {
    /// Name in the host's plugin path, or the path of a plugin's folder or archive
    #[arg(value_name = "NAME|PATH", value_parser = named())]
    pub name: String,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// Its config.
    #[command(flatten)]
    pub values: ValueArgs,
    /// Take what nobody signed; a source folder is built first
    #[arg(long)]
    pub dev: bool,
    /// Take over objects of these names that others made
    #[arg(long)]
    pub adopt: bool,
    /// Start its program although it is in quarantine
    #[arg(long)]
    pub lift_quarantine: bool,
    /// Longest that it may take until all is ready, like 90s or 10m [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    pub deadline: Option<Duration>,
    /// Agree to the permissions that it asks for
    #[arg(short, long)]
    pub yes: bool,
}

/// `plugin config`.
#[derive(Args, Debug)]
pub struct PluginConfigArgs {
    /// Name of the plugin
    #[arg(value_parser = named())]
    pub name: String,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// A file is the whole config; values alone change the one that is there.
    #[command(flatten)]
    pub values: ValueArgs,
    /// Keep a secret for it, from a file or with - from standard input, like admin.password=@FILE; an empty one forgets it
    #[arg(long, value_name = "HANDLE.KEY=@FILE|-")]
    #[arg(conflicts_with_all = ["plugin_config", "set", "adopt", "lift_quarantine", "prune_many"])]
    pub secret: Vec<String>,
    /// Take over objects of these names that others made
    #[arg(long)]
    pub adopt: bool,
    /// Start its program although it is in quarantine
    #[arg(long)]
    pub lift_quarantine: bool,
    /// Agree to delete many objects at once
    #[arg(long)]
    pub prune_many: bool,
    /// Longest that it may take until all is ready, like 90s or 10m [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    pub deadline: Option<Duration>,
    /// Agree to the permissions that it asks for
    #[arg(short, long)]
    pub yes: bool,
}

/// `plugin upgrade`.
#[derive(Args, Debug)]
pub struct PluginUpgradeArgs {
    /// Name of the plugin; with --file: only this one [default with --file: all]
    #[arg(value_parser = named(), required_unless_present = "file")]
    pub name: Option<String>,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named(), conflicts_with = "file")]
    pub cluster: Option<String>,
    /// Path of the new folder or archive [default: what the host's plugin path has]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub to: Option<PathBuf>,
    /// The config for the new version, as a whole [default: the one that is there]
    #[arg(id = "plugin_config", long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// For plugins of a cluster file: take what the host has now into k8sctl.lock beside it, and bring the cluster up
    #[arg(short, long, conflicts_with_all = ["to", "plugin_config", "dev", "adopt", "lift_quarantine", "prune_many"])]
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Take what nobody signed; a source folder is built first
    #[arg(long)]
    pub dev: bool,
    /// Take over objects of these names that others made
    #[arg(long)]
    pub adopt: bool,
    /// Start its program although it is in quarantine
    #[arg(long)]
    pub lift_quarantine: bool,
    /// Agree to delete many objects at once
    #[arg(long)]
    pub prune_many: bool,
    /// Longest that it may take until all is ready, like 90s or 10m [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    pub deadline: Option<Duration>,
    /// Agree to the permissions that it asks for
    #[arg(short, long)]
    pub yes: bool,
}

/// `plugin rollback`.
#[derive(Args, Debug)]
pub struct PluginRollbackArgs {
    /// Name of the plugin
    #[arg(value_parser = named())]
    pub name: String,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// Agree to delete many objects at once
    #[arg(long)]
    pub prune_many: bool,
    /// Longest that it may take until all is ready, like 90s or 10m [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    pub deadline: Option<Duration>,
    /// Agree to the permissions that it asks for
    #[arg(short, long)]
    pub yes: bool,
}

/// `plugin remove`.
#[derive(Args, Debug)]
pub struct PluginRemoveArgs {
    /// Name of the plugin
    #[arg(value_parser = named())]
    pub name: String,
    /// Also its volume claims, definitions of which others have objects, and namespaces with all that others have in them: data is lost
    #[arg(long)]
    pub purge: bool,
    /// Agree to lose what --purge deletes; without it, naming the plugin is consent
    #[arg(short, long)]
    pub yes: bool,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// Longest that it may take until all is gone, like 90s or 10m [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    pub deadline: Option<Duration>,
}

/// `plugin status`.
#[derive(Args, Debug)]
pub struct PluginStatusArgs {
    /// Name of a plugin [default: all that are installed]
    #[arg(value_parser = named())]
    pub name: Option<String>,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// Keep looking, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `plugin logs`.
#[derive(Args, Debug)]
pub struct PluginLogsArgs {
    /// Name of the plugin
    #[arg(value_parser = named())]
    pub name: String,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// The logs of its pods, instead of what its program said
    #[arg(long)]
    pub pods: bool,
    /// Go on with the lines that come, until Ctrl-C
    #[arg(short, long, requires = "pods")]
    pub follow: bool,
    /// Only the last N runs of its program; of pods, the last N lines of each node
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
}

/// `plugin diff`.
#[derive(Args, Debug)]
pub struct PluginDiffArgs {
    /// Name of the plugin
    #[arg(value_parser = named())]
    pub name: String,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// The config that it would get [default: the one that it has].
    #[command(flatten)]
    pub values: ValueArgs,
    /// As an upgrade to this folder or archive
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, conflicts_with = "set")]
    pub to: Option<PathBuf>,
    /// Take what nobody signed; a source folder is built first
    #[arg(long, requires = "to")]
    pub dev: bool,
}

/// `plugin vendor`.
#[derive(Args, Debug)]
pub struct PluginVendorArgs {
    /// Name of a plugin, or the path of a folder or archive [default: all that are installed or in the plugin path]
    #[arg(value_name = "NAME|PATH", value_parser = named())]
    pub name: Option<String>,
    /// Take them from this directory, by their digests, instead of from upstream
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub from: Option<PathBuf>,
    /// Name of the cluster whose plugins are meant [default: the only one, where there is one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
}

/// `plugin verify`.
#[derive(Args, Debug)]
pub struct PluginVerifyArgs {
    /// Name of a plugin of the host; or the path of a folder or archive, which needs no host agent [default: all]
    #[arg(value_name = "NAME|PATH", value_parser = named())]
    pub name: Option<String>,
    /// Also compare with the k8sctl.lock beside this cluster file
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// `plugin new`.
#[derive(Args, Debug)]
pub struct PluginNewArgs {
    /// Name of the plugin: small letters, digits and dashes; a folder of that name is made here
    #[arg(value_parser = named())]
    pub name: String,
    /// A program in Rust, instead of data that needs no code
    #[arg(long)]
    pub rust: bool,
    /// The folder plugins/sdk of a checkout [default: found above this directory]
    #[arg(long, value_name = "DIR", requires = "rust", value_hint = ValueHint::DirPath)]
    pub sdk: Option<PathBuf>,
}

/// `plugin build`.
#[derive(Args, Debug)]
pub struct PluginBuildArgs {
    /// The plugin's source folder
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Its program, static, for Linux [default: cargo builds it; of a plugin that is data, the one of this release]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub program: Option<PathBuf>,
    /// The schema of its config, instead of asking the program for it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub schema: Option<PathBuf>,
    /// The package folder, which is replaced as a whole [default: target/plugin in the source folder]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

/// `plugin package`.
#[derive(Args, Debug)]
pub struct PluginPackageArgs {
    /// The package folder; a source folder is built first
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// The file to be made, also with -o [default: NAME-VERSION.tar.zst, here]
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// `plugin sign`.
#[derive(Args, Debug)]
pub struct PluginSignArgs {
    /// The package folder or archive
    #[arg(value_name = "PATH", required_unless_present = "new_key", value_hint = ValueHint::AnyPath)]
    pub package: Option<PathBuf>,
    /// The secret key, of `plugin sign --new-key` or of minisign
    #[arg(long, value_name = "FILE", required_unless_present = "new_key", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Make a pair of keys: this file, which stays secret, and FILE.pub for the hosts
    #[arg(long, value_name = "FILE", conflicts_with_all = ["package", "key"], value_hint = ValueHint::FilePath)]
    pub new_key: Option<PathBuf>,
    /// A file whose first line is the key's password; - means standard input [default: asked for on a terminal]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub password_file: Option<PathBuf>,
}

/// `plugin test`.
#[derive(Args, Debug)]
pub struct PluginTestArgs {
    /// The source folder, which is built first and whose tests/valid and tests/invalid are used; or a package or archive
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    /// How many random configs it is given
    #[arg(long, value_name = "N", default_value_t = 12_000)]
    pub configs: u32,
    /// How many times it plans, each in a new process
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    pub plans: u32,
    /// The same number makes the same random configs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Write the results as JUnit XML, too
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub junit: Option<PathBuf>,
    /// Also ask this cluster's API server whether it would take the objects; nothing is written
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn parse(line: &str) -> Result<PluginVerb, clap::Error> {
        let matches = Cli::full_command().try_get_matches_from(line.split(' '))?;
        match Cli::from_arg_matches(&matches)?.verb {
            Verb::Plugin(verb) => Ok(verb),
            _ => panic!("no plugin verb: {line}"),
        }
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        for wrong in [
            "k8sctl plugin upgrade",
            "k8sctl plugin upgrade -f cluster.toml --to x",
            "k8sctl plugin upgrade -f cluster.toml --cluster home",
            "k8sctl plugin config hello --secret a.b=- --set x=1",
            "k8sctl plugin config hello --secret a.b=- --lift-quarantine",
            "k8sctl plugin logs hello -f",
            "k8sctl plugin sign x",
            "k8sctl plugin sign --new-key k x",
            "k8sctl plugin sign",
            "k8sctl plugin list --all -w",
            "k8sctl plugin diff hello --dev",
            "k8sctl plugin new x --sdk y",
            "k8sctl plugin test . --plans 1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_belongs_together_is_taken() {
        for line in [
            "k8sctl plugin upgrade -f cluster.toml metallb --yes",
            "k8sctl plugin upgrade hello --to ./next --dev --config new.toml",
            "k8sctl plugin config hello --secret admin.password=@file --secret a.b=-",
            "k8sctl plugin config hello --lift-quarantine",
            "k8sctl plugin logs hello --pods -f --tail 5",
            "k8sctl plugin sign --new-key mine",
            "k8sctl plugin sign mine.tar.zst --key mine --password-file -",
            "k8sctl plugin test . --configs 100 --plans 5 --junit report.xml --cluster home",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }
}
