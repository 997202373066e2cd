//! Which lines of which nodes: what `logs` takes.

use clap::{ArgAction, Args, ValueEnum, ValueHint};

use super::named;
use crate::moment;

/// `logs`.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// Names of nodes [default: all of the cluster, also those that come]
    #[arg(value_name = "NODE", value_parser = named())]
    pub nodes: Vec<String>,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// Where from [default: kubelet,containerd,agent, unless units or pods are named]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub source: Vec<LogSource>,
    /// Also from this systemd unit; may be given several times
    #[arg(long, value_parser = named())]
    pub unit: Vec<String>,
    /// Also from the containers of this pod, also when the Kubernetes API is down; may be given several times
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_pod)]
    pub pod: Vec<PodName>,
    /// Only from this container of the pods
    #[arg(long, value_name = "NAME", requires = "pod", value_parser = named())]
    pub container: Option<String>,
    /// Go on with the lines that come, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines of each node
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub tail: Option<u64>,
    /// Only from this moment on: 10m (ago), 2h, 1d, today, 18:00 or "2026-11-24 18:00" (here), or 2026-11-24T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    pub since: Option<jiff::Timestamp>,
    /// Only up to this moment, it included
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    pub until: Option<jiff::Timestamp>,
    /// Only lines that match this regular expression; (?i) before it takes capitals for small letters
    #[arg(long, value_name = "REGEX", value_hint = ValueHint::Other, allow_hyphen_values = true)]
    pub grep: Option<String>,
    /// Show the time of each line; false leaves it out
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub timestamps: bool,
}

/// A pod by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name in there.
    pub name: String,
}

fn parse_pod(text: &str) -> Result<PodName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(PodName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("write it as NAMESPACE/NAME, like default/web-0".to_owned()),
    }
}

/// Where log lines come from.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogSource {
    /// The kubelet.
    Kubelet,
    /// The container runtime.
    Containerd,
    /// The node agent.
    Agent,
    /// The kernel of the VM.
    Kernel,
    /// etcd, on the control plane.
    Etcd,
    /// The API server, on the control plane.
    Apiserver,
    /// The controller manager, on the control plane.
    ControllerManager,
    /// The scheduler, on the control plane.
    Scheduler,
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::cli::{Cli, Verb};

    #[test]
    fn values_may_begin_with_a_dash() {
        let parse = |words: &[&str]| Cli::full_command().try_get_matches_from(words);
        for (option, value, why) in [
            ("--tail", "-1", "invalid value '-1' for '--tail <N>'"),
            ("--since", "-10m", "write it like 10m"),
            ("--until", "-1h", "write it like 10m"),
        ] {
            let error = parse(&["k8sctl", "logs", option, value]).expect_err(value).to_string();
            assert!(error.contains(why), "{error}");
        }
        let matches = parse(&["k8sctl", "logs", "--grep", "--- FAIL", "a"]).expect("a regular expression");
        let Verb::Logs(args) = Cli::from_arg_matches(&matches).expect("it is one").verb else { panic!() };
        assert_eq!((args.grep.as_deref(), args.nodes), (Some("--- FAIL"), vec!["a".to_owned()]));
    }

    #[test]
    fn times_of_lines_are_shown_unless_it_is_said_otherwise() {
        let shown = |line: &str| {
            let cli = Cli::from_arg_matches(&Cli::full_command().get_matches_from(line.split(' ')));
            let Verb::Logs(args) = cli.expect("it is one").verb else { panic!("{line}") };
            (args.timestamps, args.nodes)
        };
        assert_eq!(shown("k8sctl logs a"), (true, vec!["a".to_owned()]));
        assert_eq!(shown("k8sctl logs --timestamps a b"), (true, vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(shown("k8sctl logs --timestamps=false"), (false, Vec::new()));
        assert_eq!(parse_pod("kube-system/x").map(|pod| pod.name), Ok("x".to_owned()));
        for wrong in ["x", "/x", "x/", "a/b/c"] {
            parse_pod(wrong).expect_err(wrong);
        }
    }
}
