//! What keeps an installation well: what `upgrade` and `support-bundle` take.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use super::{named, parse_deadline};

/// `upgrade …`.
#[derive(Debug, Subcommand)]
pub enum UpgradeVerb {
    /// Give nodes the node agent that this host has, one after the other; one that gets no session goes back by itself
    Agents(UpgradeAgentsArgs),
}

/// `upgrade agents`.
#[derive(Args, Debug)]
pub struct UpgradeAgentsArgs {
    /// Names of nodes [default: all of the cluster]
    #[arg(value_name = "NODE", value_parser = named())]
    pub nodes: Vec<String>,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// Longest that a new agent may take until it has a session, like 90s
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = parse_deadline)]
    pub session_deadline: Duration,
}

/// `support-bundle`.
#[derive(Args, Debug)]
pub struct SupportBundleArgs {
    /// Name of the cluster [default: all of them]
    #[arg(value_parser = named())]
    pub name: Option<String>,
    /// The file to be made [default: k8sctl-support-TIME.tar.zst, here]
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Longest that it may take; what is missing by then is named in it
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = parse_deadline)]
    pub deadline: Duration,
    /// Lines of the logs of each node
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub lines: u64,
}
