//! How a cluster or a node is: what `health` and `node` take.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{named, parse_deadline};

/// `health`.
#[derive(Args, Debug)]
pub struct HealthArgs {
    /// Name of the cluster [default: the only one]
    #[arg(value_parser = named())]
    pub name: Option<String>,
    /// Wait until it is well
    #[arg(short, long)]
    pub wait: bool,
    /// Longest that it may take to become well, like 90s or 5m
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "wait", value_parser = parse_deadline)]
    pub timeout: Duration,
}

/// `node …`.
#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// Show everything that is known of a node: machine, conditions, steps, repairs, last events
    Describe(NodeDescribeArgs),
}

/// `node describe`.
#[derive(Args, Debug)]
pub struct NodeDescribeArgs {
    /// Name of the node
    #[arg(value_parser = named())]
    pub name: String,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
}
