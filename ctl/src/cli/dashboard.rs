//! What `dashboard` takes.

use clap::Args;

use super::named;

/// `dashboard`.
#[derive(Args, Debug)]
pub struct DashboardArgs {
    /// Name of the cluster [default: the only one]
    #[arg(value_parser = named())]
    pub name: Option<String>,
    /// Serve it to a browser of this host, at a URL with a secret in it, until Ctrl-C
    #[arg(long)]
    pub web: bool,
    /// The port on 127.0.0.1 [default: any that is free]
    #[arg(long, value_name = "N", requires = "web", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}
