//! `k8sctl plugin list`: the plugins of a cluster, and those that could be. Starts none.

use k8sctl_proto::control::v1::ListPluginsRequest;

use super::{status, style};
use crate::agent;
use crate::cli::PluginListArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, styles};
use crate::view::PluginView;

pub(super) async fn run(context: &Context, args: &PluginListArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let cluster_name = agent.cluster_name(context, args.cluster.as_deref()).await?;
    if args.watch {
        return status::watch(context, &agent, &cluster_name, None).await;
    }
    let request = ListPluginsRequest { cluster_name, available: Some(args.all) };
    let plugins = agent.plugins().list_plugins(request).await?.into_inner().plugins;
    let plugins: Vec<_> = plugins.into_iter().map(PluginView::from).collect();
    if context.format.is_structured() {
        output::document(context, &plugins)?;
    } else if plugins.is_empty() && args.all {
        context.out.line("no plugin is installed, and the host's plugin path has none")?;
    } else if plugins.is_empty() {
        let add = context.source.command(&["plugin", "add", "NAME"]);
        let all = context.source.command(&["plugin", "list", "--all"]);
        context.out.line(format!("no plugin is installed; see which there are with: {all}"))?;
        context.out.line(format!("add one with: {add}"))?;
    } else {
        table(&plugins).print(&context.out)?;
    }
    Ok(Exit::Ok)
}

fn table(plugins: &[PluginView]) -> Table {
    let mut table =
        Table::new(&["PLUGIN", "VERSION", "STATE", "OBJECTS", "NEWER", "TRUST", "FROM", "MESSAGE"]);
    for plugin in plugins {
        let trust = plugin.trust.as_deref().unwrap_or_default();
        // Whoever looks is to see at once what nobody has signed.
        let trust = if trust == "dev" { styled(styles::WARN, trust) } else { cell(trust) };
        table.row(vec![
            styled(styles::STRONG, &plugin.name),
            cell(&plugin.version),
            styled(style(&plugin.state), &plugin.state),
            cell(if plugin.objects == 0 { String::new() } else { plugin.objects.to_string() }),
            styled(styles::WARN, plugin.newer_version.as_deref().unwrap_or_default()),
            trust,
            cell(plugin.origin.as_deref().unwrap_or_default()),
            cell(plugin.message.as_deref().unwrap_or_default()),
        ]);
    }
    table
}
