//! `k8sctl plugin status`: how the plugins of a cluster are and what blocks them, or that watched.

use std::io;

use k8sctl_proto::control::v1::{WatchPluginsRequest, WatchPluginsResponse};
use k8sctl_types::failure::Failure;
use tokio::time::sleep;

use super::{sentences, table};
use crate::agent::{self, Agent};
use crate::cli::PluginStatusArgs;
use crate::ended::{Ended, LOST, LOST_INTERVAL, is_lost};
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, Printer, visible};
use crate::view::PluginView;

/// Back to the top, and clear what is below.
const HOME: &str = "\x1b[H\x1b[J";

pub(super) async fn run(context: &Context, args: &PluginStatusArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let cluster = agent.cluster_name(context, args.cluster.as_deref()).await?;
    if args.watch {
        return watch(context, &agent, &cluster, args.name.as_deref()).await;
    }
    let request = WatchPluginsRequest { cluster_name: cluster, watch: false };
    let mut stream = agent.plugins().watch_plugins(request).await?.into_inner();
    let plugins = named(stream.message().await?.unwrap_or_default(), args.name.as_deref());
    if let (Some(name), true) = (&args.name, plugins.is_empty()) {
        let list = context.source.command(&["plugin", "list"]);
        let next = format!("see which there are with: {list}");
        let object = format!("plugin {name}");
        return Err(Failure::new("PLUGIN-NOT-INSTALLED", object, "it is not installed", next).into());
    }
    if context.format.is_structured() {
        output::document(context, &plugins)?;
    } else {
        context.out.raw(text(&context.out, &plugins, None))?;
    }
    Ok(Exit::Ok)
}

/// Until the user leaves, through restarts of the host agent.
pub(super) async fn watch(
    context: &Context,
    agent: &Agent,
    cluster: &str,
    name: Option<&str>,
) -> Result<Exit, Ended> {
    let request = WatchPluginsRequest { cluster_name: cluster.to_owned(), watch: true };
    let mut watcher = Watcher { context, name, is_away: false, is_first: true };
    context.out.while_read(watcher.follow(agent, &request)).await
}

struct Watcher<'a> {
    context: &'a Context,
    name: Option<&'a str>,
    is_away: bool,
    is_first: bool,
}

enum End {
    Whole,
    Lost,
}

impl Watcher<'_> {
    async fn follow(&mut self, agent: &Agent, request: &WatchPluginsRequest) -> Result<Exit, Ended> {
        loop {
            match self.follow_once(agent, request).await? {
                End::Whole => return Ok(Exit::Ok),
                End::Lost => {
                    if !self.is_away {
                        self.context.err.line(LOST)?;
                    }
                    self.is_away = true;
                    sleep(LOST_INTERVAL).await;
                }
            }
        }
    }

    async fn follow_once(&mut self, agent: &Agent, request: &WatchPluginsRequest) -> Result<End, Ended> {
        let mut stream = match agent.plugins().watch_plugins(request.clone()).await {
            Ok(response) => response.into_inner(),
            Err(status) if is_lost(&status) => return Ok(End::Lost),
            Err(status) => return Err(status.into()),
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => self.show(message).await?,
                Ok(None) => return Ok(End::Whole),
                Err(status) if is_lost(&status) => return Ok(End::Lost),
                Err(status) => return Err(status.into()),
            }
        }
    }

    /// Over the last one on a terminal, else one after the other.
    async fn show(&mut self, message: WatchPluginsResponse) -> io::Result<()> {
        self.is_away = false;
        let (context, plugins) = (self.context, named(message, self.name));
        let shown = if context.format.is_structured() {
            output::items(context, [plugins])?
        } else {
            let before = match (context.out.tty, self.is_first) {
                (true, _) => HOME,
                (false, true) => "",
                (false, false) => "\n",
            };
            format!("{before}{}", text(&context.out, &plugins, self.name)).into_bytes()
        };
        self.is_first = false;
        context.out.patiently(shown).await
    }
}

fn named(message: WatchPluginsResponse, name: Option<&str>) -> Vec<PluginView> {
    let plugins = message.plugins.into_iter().map(PluginView::from);
    plugins.filter(|plugin| name.is_none_or(|name| plugin.name == name)).collect()
}

/// The table, and below it what is not as it should be. `name`: of the only one that is looked at.
fn text(out: &Printer, plugins: &[PluginView], name: Option<&str>) -> String {
    if plugins.is_empty() {
        return match name {
            Some(name) => format!("plugin {} is not installed\n", visible(name)),
            None => "no plugin is installed\n".to_owned(),
        };
    }
    let mut lines = table(plugins).lines(out);
    lines.extend(sentences(out, plugins));
    lines.join("\n") + "\n"
}
