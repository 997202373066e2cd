//! Every verb and flag. What they do is in [`crate::verb`].

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Arg, ArgMatches, Args, Command, CommandFactory as _, FromArgMatches as _};
use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use host_artifacts::fetch::DEFAULT_RELEASE;
use host_artifacts::fetch::releases::supported;
use k8sctl_types::event::EventType;

use crate::moment;
use crate::output::Format;

mod dashboard;
mod health;
mod logs;
mod plugin;
mod upkeep;

pub use dashboard::DashboardArgs;
pub use health::{HealthArgs, NodeDescribeArgs, NodeVerb};
pub use logs::{LogSource, LogsArgs, PodName};
pub use plugin::{
    PluginAddArgs, PluginBuildArgs, PluginConfigArgs, PluginDiffArgs, PluginListArgs, PluginLogsArgs,
    PluginNameArgs, PluginNewArgs, PluginPackageArgs, PluginRemoveArgs, PluginRollbackArgs, PluginSignArgs,
    PluginStatusArgs, PluginTestArgs, PluginUpgradeArgs, PluginVendorArgs, PluginVerb, PluginVerifyArgs,
    ValueArgs,
};
pub use upkeep::{SupportBundleArgs, UpgradeAgentsArgs, UpgradeVerb};

/// Turns this host into a home Kubernetes platform: `k8sctl up`, and `k8sctl status` to look at it.
#[derive(Debug, Parser)]
#[command(name = "k8sctl", version, disable_help_subcommand = true, subcommand_required = true)]
#[command(arg_required_else_help = true, max_term_width = 110)]
#[command(after_help = "Exit codes: k8sctl help exit-codes")]
pub struct Cli {
    /// Control socket of the host agent [default: api.sock in the config's run_dir]
    #[arg(long, global = true, env = "K8SCTL_SOCKET", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// The host agent's config file [default: /etc/k8s-myhome/host-agent.toml where it exists]
    #[arg(long, env = "K8SCTL_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Colours; auto means: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Nobody waits longer, and no clock of ours ends before.
const LONGEST_DEADLINE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn parse_deadline(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(deadline) if deadline.is_zero() => {
            Err("that is no time at all; write it like 30m or 1h30m".to_owned())
        }
        Ok(deadline) if deadline > LONGEST_DEADLINE => Err("the longest is 365days".to_owned()),
        Ok(deadline) => Ok(deadline),
        Err(error) => Err(format!("{error}; write it like 30m or 1h30m")),
    }
}

/// An empty name is a variable that is not set, as in `down "$CLUSTER"`; it must not mean: the only one.
fn named() -> NonEmptyStringValueParser {
    NonEmptyStringValueParser::new()
}

/// `--config` behind a verb. It cannot be a global argument of clap, since some verbs have a `--config` of their own.
const LATE_CONFIG: &str = "late_config";
/// Those verbs: theirs is a plugin's config.
const WITH_A_CONFIG: [&str; 4] = [" plugin add", " plugin config", " plugin diff", " plugin upgrade"];

impl Cli {
    /// Parses this process's arguments. What is asked for with `--help` and `--version` is an error too, as clap has it.
    pub fn from_process() -> Result<Self, clap::Error> {
        let command = Self::full_command();
        let is_verb = |word: &OsStr| command.get_subcommands().any(|verb| word == verb.get_name());
        let meant = upkeep::with_file_for_output(std::env::args_os().collect(), is_verb);
        let matches = command.try_get_matches_from(meant)?;
        let late = late_config(&matches);
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.config = late.or(cli.config);
        Ok(cli)
    }

    /// The command with all that parsing, help and completion need.
    pub fn full_command() -> Command {
        with_late_config(Self::command(), "")
    }
}

fn with_late_config(command: Command, path: &str) -> Command {
    let names: Vec<_> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    if names.is_empty() && !WITH_A_CONFIG.contains(&path) {
        let config = Arg::new(LATE_CONFIG).long("config").hide(true).value_name("FILE");
        let parser = clap::value_parser!(PathBuf);
        return command.arg(config.value_parser(parser).value_hint(ValueHint::FilePath));
    }
    names.into_iter().fold(command, |command, name| {
        let path = format!("{path} {name}");
        command.mut_subcommand(name, |sub| with_late_config(sub, &path))
    })
}

fn late_config(matches: &ArgMatches) -> Option<PathBuf> {
    let here = matches.try_get_one::<PathBuf>(LATE_CONFIG).ok().flatten().cloned();
    here.or_else(|| matches.subcommand().and_then(|(_, sub)| late_config(sub)))
}

/// The format that a command line asks for which clap does not take as a whole: `-o json`, `-ojson`, `-wo=json` or
/// `--output json`, wherever it stands.
pub fn format_wanted<'a>(mut arguments: impl Iterator<Item = &'a str>) -> Format {
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            break;
        }
        let value = match argument.strip_prefix("--output") {
            Some(rest) if rest.is_empty() || rest.starts_with('=') => rest,
            Some(_) => continue,
            None => {
                let Some(flags) = argument.strip_prefix('-') else { continue };
                // Before it stand short flags that take no value: -w, -f, -y.
                let Some(rest) = flags.trim_start_matches(['w', 'f', 'y']).strip_prefix('o') else {
                    continue;
                };
                rest
            }
        };
        let value = value.strip_prefix('=').unwrap_or(value);
        let value = if value.is_empty() { arguments.next().unwrap_or_default() } else { value };
        if let Ok(format) = Format::from_str(value, false) {
            return format;
        }
    }
    Format::default()
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal.
    #[default]
    Auto,
    /// Even into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make the cluster as the file says, and wait until it is
    Up(UpArgs),
    /// Remove a cluster and all that is ours of it
    Down(DownArgs),
    /// Show what `up` would do, and do nothing
    Plan(PlanArgs),
    /// Show a cluster: nodes, conditions, plugins, what runs and what failed last
    Status(StatusArgs),
    /// Look at a cluster as a whole, live: in the terminal, or in a browser
    Dashboard(DashboardArgs),
    /// Say whether a cluster is well, by its conditions; or wait until it is
    #[command(after_help = "Exit codes: 0 well, 8 not well, 9 waited in vain; all: k8sctl help exit-codes")]
    Health(HealthArgs),
    /// One node at a time
    #[command(subcommand)]
    Node(NodeVerb),
    /// Show what happened, to a cluster or to all of them
    Events(EventsArgs),
    /// Show the logs of the nodes, merged by time
    Logs(LogsArgs),
    /// Get a cluster's administrator kubeconfig
    Kubeconfig(KubeconfigArgs),
    /// Check everything that this host must provide
    Doctor,
    /// Kubernetes releases as files
    #[command(subcommand)]
    Bundle(BundleVerb),
    /// Node images
    #[command(subcommand)]
    Image(ImageVerb),
    /// Platform services on a running cluster, and how to make one
    #[command(subcommand)]
    Plugin(PluginVerb),
    /// Bring what runs in the nodes up to what this host has
    #[command(subcommand)]
    Upgrade(UpgradeVerb),
    /// Gather all that somebody who is to help would ask for into one file, without secrets
    SupportBundle(SupportBundleArgs),
    /// Print a completion script: source <(k8sctl completion bash)
    Completion(CompletionArgs),
    /// Show the versions of k8sctl and of the host agent
    Version {
        /// Do not ask the host agent
        #[arg(long)]
        client: bool,
    },
    /// Show help on a verb, or on: exit-codes
    Help(HelpArgs),
}

/// A cluster file.
#[derive(Args, Clone, Debug)]
pub struct FileArgs {
    /// The cluster file; - means standard input
    #[arg(short, long, default_value = "cluster.toml", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// `up`.
#[derive(Args, Debug)]
pub struct UpArgs {
    /// The cluster file.
    #[command(flatten)]
    pub file: FileArgs,
    /// Agree to changes that destroy data or stop workloads
    #[arg(short, long)]
    pub yes: bool,
    /// Longest that it may take, like 30m or 1h30m [default: the host agent's]
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    pub deadline: Option<Duration>,
    /// Begin it and do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
    /// Leave the kubeconfig of the user alone
    #[arg(long)]
    pub no_kubeconfig: bool,
    /// Refuse plugins that k8sctl.lock beside the file does not have
    #[arg(long)]
    pub locked: bool,
}

/// `down`.
#[derive(Args, Debug)]
pub struct DownArgs {
    /// Name of the cluster [default: the only one]
    #[arg(conflicts_with = "file", value_parser = named())]
    pub name: Option<String>,
    /// Take the name from this cluster file
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Agree to it without being asked
    #[arg(short, long)]
    pub yes: bool,
    /// Longest that it may take, like 30m or 1h30m [default: the host agent's]
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    pub deadline: Option<Duration>,
    /// Begin it and do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
    /// Leave the kubeconfig of the user alone
    #[arg(long)]
    pub no_kubeconfig: bool,
}

/// `plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// The cluster file.
    #[command(flatten)]
    pub file: FileArgs,
    /// End with 7 where there are changes and with 0 where there are none (not 2, which means: wrong command line)
    #[arg(long)]
    pub exit_code: bool,
    /// Refuse plugins that k8sctl.lock beside the file does not have
    #[arg(long)]
    pub locked: bool,
}

/// `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Name of the cluster [default: the only one]
    #[arg(value_parser = named())]
    pub name: Option<String>,
    /// Keep looking, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `events`.
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// Name of the cluster [default: all, and the host itself]
    #[arg(value_parser = named())]
    pub name: Option<String>,
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with this event's number
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub from: u64,
    /// Begin at this moment: 10m (ago), 2h, 1d, today, 18:00 or "2026-11-24 18:00" (here), or 2026-11-24T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment::past, allow_hyphen_values = true)]
    pub since: Option<jiff::Timestamp>,
    /// Only the last N that fit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub tail: Option<u64>,
    /// Only of this node, its VM and its disk
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub node: Option<String>,
    /// Only of these types, like NodeJoined,StepFailed
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    #[arg(value_parser = event_types(), hide_possible_values = true)]
    pub types: Vec<String>,
}

fn event_types() -> PossibleValuesParser {
    PossibleValuesParser::new(EventType::ALL.iter().map(|one| one.as_str()))
}

/// `kubeconfig`.
#[derive(Args, Debug)]
pub struct KubeconfigArgs {
    /// Name of the cluster [default: the only one]
    #[arg(value_parser = named())]
    pub name: Option<String>,
    /// Print it and change no file
    #[arg(long, conflicts_with = "merge")]
    pub print: bool,
    /// Merge it into $KUBECONFIG or ~/.kube/config as context k8s-myhome-NAME (this is the default)
    #[arg(long)]
    pub merge: bool,
    /// Make it the current context even where another one is
    #[arg(long, conflicts_with = "print")]
    pub force_context: bool,
}

/// `bundle …`.
#[derive(Debug, Subcommand)]
pub enum BundleVerb {
    /// Make a bundle from upstream's release hosts and image registries; continues where it was interrupted
    Fetch {
        #[arg(long, value_name = "VERSION", value_parser = named())]
        #[arg(help = format!("The release, {} [default: {DEFAULT_RELEASE}]", supported()))]
        kubernetes: Option<String>,
    },
    /// Show what a bundle file says of itself; checks no content
    Inspect {
        /// The bundle
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Check every digest in a bundle file
    Verify {
        /// The bundle
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// List the installed bundles
    List,
    /// Verify a bundle file and install it
    Import {
        /// The bundle
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// `image …`.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Build the node image, or find it built
    Build {
        /// Of the release and the suite that this cluster file names; - means standard input
        #[arg(short, long, conflicts_with_all = ["bundle", "suite"], value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// Name of the bundle [default: the newest installed]
        #[arg(long, value_name = "NAME", value_parser = named())]
        bundle: Option<String>,
        /// Debian or Ubuntu suite [default: bookworm]
        #[arg(long, value_parser = named())]
        suite: Option<String>,
        /// Take the newest packages of Debian or Ubuntu, as for security updates, where the image has older ones
        #[arg(long)]
        refresh: bool,
        /// Install the lab's debug unit
        #[arg(long, hide = true)]
        debug_unit: bool,
    },
    /// List the images
    List,
    /// Remove an image that no cluster uses
    Remove {
        /// Its id, or a beginning that fits one image only
        #[arg(value_parser = named())]
        id: String,
    },
}

/// `completion`.
#[derive(Args, Debug)]
pub struct CompletionArgs {
    /// For which shell
    pub shell: clap_complete::Shell,
}

/// `help`.
#[derive(Args, Debug)]
pub struct HelpArgs {
    /// A verb, or exit-codes
    pub topic: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::full_command().debug_assert();
    }

    #[test]
    fn event_types_are_those_that_there_are() {
        let types = |given: &str| {
            let matches = Cli::full_command().try_get_matches_from(["k8sctl", "events", "--type", given]);
            Some(matches.ok()?.subcommand()?.1.get_many::<String>("types")?.cloned().collect::<Vec<_>>())
        };
        assert_eq!(types("NodeJoined,StepFailed"), Some(vec!["NodeJoined".into(), "StepFailed".into()]));
        for wrong in ["NodeJoinde", "nodejoined", "NodeJoined,", ""] {
            assert_eq!(types(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_format_of_a_wrong_command_line_is_found() {
        let wanted = |line: &str| format_wanted(line.split(' '));
        for line in [
            "k8sctl -o json nosuch",
            "k8sctl status --nosuch -ojson",
            "k8sctl status -wo json --nosuch",
            "k8sctl status --output=json --nosuch",
            "k8sctl status --nosuch --output json",
        ] {
            assert_eq!(wanted(line), Format::Json, "{line}");
        }
        assert_eq!(wanted("k8sctl status --nosuch -o yaml"), Format::Yaml);
        for line in ["k8sctl nosuch", "k8sctl status -o", "k8sctl status -o xml", "k8sctl logs -- -o json"] {
            assert_eq!(wanted(line), Format::Table, "{line}");
        }
    }

    #[test]
    fn config_goes_before_and_behind_the_verb() {
        let late = |argv: &[&str]| late_config(&Cli::full_command().get_matches_from(argv));
        assert_eq!(late(&["k8sctl", "up", "--config", "x"]), Some("x".into()));
        assert_eq!(late(&["k8sctl", "bundle", "list", "--config", "x"]), Some("x".into()));
        for verb in ["add", "config", "diff", "upgrade"] {
            assert_eq!(late(&["k8sctl", "plugin", verb, "hello", "--config", "x"]), None, "{verb}");
        }
        assert_eq!(late(&["k8sctl", "plugin", "remove", "hello", "--config", "x"]), Some("x".into()));
    }
}
