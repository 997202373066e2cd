//! `k8sctl plugin show`: all that is known of a plugin. Starts none.

use std::io;

use k8sctl_proto::control::v1::ShowPluginRequest;

use super::{sentences, style};
use crate::agent;
use crate::cli::PluginNameArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, Printer, styles, visible};
use crate::view::PluginDetailsView;

pub(super) async fn run(context: &Context, args: &PluginNameArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let cluster_name = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let request = ShowPluginRequest { cluster_name, plugin: args.name.clone() };
    let details = PluginDetailsView::from(agent.plugins().show_plugin(request).await?.into_inner());
    if context.format.is_structured() {
        output::document(context, &details)?;
    } else {
        show(&context.out, &details)?;
    }
    Ok(Exit::Ok)
}

fn show(out: &Printer, details: &PluginDetailsView) -> io::Result<()> {
    let status = &details.status;
    let field = |name: &str, value: &str| match value {
        "" => Ok(()),
        value => out.line(format!("{} {value}", out.paint(styles::DIM, format!("{name:<10}")))),
    };
    let optional = |text: &Option<String>| text.as_deref().map(visible).unwrap_or_default();
    field("plugin", &out.paint(styles::STRONG, visible(&status.name)))?;
    field("version", &visible(&status.version))?;
    field("newer", &optional(&status.newer_version))?;
    field("state", &out.paint(style(&status.state), visible(&status.state)))?;
    field("message", &optional(&status.message))?;
    field("trust", &optional(&status.trust))?;
    field("from", &optional(&status.origin))?;
    field("installed", &optional(&status.installed))?;
    field("package", &visible(&details.package_path))?;
    field("sha256", &visible(&details.package_sha256))?;
    for line in sentences(out, std::slice::from_ref(status)) {
        out.line(line)?;
    }
    block(out, "what it may do", details.permissions.iter().map(|line| visible(line)))?;
    let config = match details.config.as_object() {
        Some(config) if !config.is_empty() => {
            let text = crate::yaml::to_string(config).map_err(io::Error::other)?;
            text.lines().map(visible).collect()
        }
        _ => Vec::new(),
    };
    block(out, "config", config.into_iter())?;
    let outputs =
        details.outputs.iter().map(|output| visible(&format!("{} = {}", output.name, output.value)));
    block(out, "outputs", outputs)?;
    block(out, "objects", details.objects.iter().map(|line| visible(line)))?;
    if details.revisions.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let mut table = Table::new(&["REVISION", "VERSION", "ASKED FOR", "APPLIED", "NOW"]);
    for revision in &details.revisions {
        table.row(vec![
            cell(revision.revision.to_string()),
            cell(&revision.version),
            cell(revision.created.as_deref().unwrap_or_default()),
            cell(revision.applied.as_deref().unwrap_or_default()),
            styled(styles::GOOD, if revision.current { "current" } else { "" }),
        ]);
    }
    table.print(out)
}

fn block(out: &Printer, head: &str, lines: impl Iterator<Item = String>) -> io::Result<()> {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return Ok(());
    }
    out.line("")?;
    out.line(out.paint(styles::DIM, format!("{head}:")))?;
    lines.try_for_each(|line| out.line(format!("  {line}")))
}
