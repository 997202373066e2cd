//! `k8sctl plugin diff`: what a change would do to each object, asked of the API server, which stores nothing.

use k8sctl_proto::control::v1::{PluginChange, PluginWish};
use serde::Serialize;

use super::values::Values;
use super::{change, config, upgrade};
use crate::agent;
use crate::cli::PluginDiffArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, Printer, styles, visible};
use crate::view::{ObjectDiffView, OfferView};

/// `plugin diff -o json`.
#[derive(Debug, Serialize)]
struct Document {
    offer: OfferView,
    diffs: Vec<ObjectDiffView>,
}

pub(super) async fn run(context: &Context, args: &PluginDiffArgs) -> Result<Exit, Ended> {
    // Before there is a connection: it may build.
    let upgrade = match &args.to {
        Some(to) => {
            let file = args.values.config.as_deref();
            Some(upgrade::wish(context, &args.name, file, Some(to), args.dev).await?)
        }
        None => None,
    };
    let agent = agent::connect(context).await?;
    let cluster_name = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let (wish, values) = match upgrade {
        Some((wish, values)) => (PluginWish { cluster_name, ..wish }, values),
        None => {
            let there = config::present(&agent, &cluster_name, &args.name).await?;
            let values = Values::over(&args.values, &args.name, there)?;
            let wish = PluginWish {
                config_json: values.to_json(),
                config_name: values.name().to_owned(),
                ..change::wish(cluster_name, PluginChange::Configure, args.name.clone())
            };
            (wish, values)
        }
    };
    let (offer, diffs) = change::propose(context, &agent, &wish, &values, true).await?;
    if context.format.is_structured() {
        output::document(context, &Document { offer, diffs })?;
    } else {
        show(&context.out, &offer, &diffs)?;
    }
    Ok(Exit::Ok)
}

fn show(out: &Printer, offer: &OfferView, diffs: &[ObjectDiffView]) -> std::io::Result<()> {
    for line in &offer.new_permissions {
        out.line(format!("{} {}", out.paint(styles::WARN, "asks for"), visible(line)))?;
    }
    for one in diffs {
        let style = match one.action {
            "create" => styles::GOOD,
            "delete" | "replace" => styles::BAD,
            "keep" => styles::DIM,
            _ => styles::WARN,
        };
        out.line(format!(
            "{} {}",
            out.paint(style, one.action),
            out.paint(styles::STRONG, visible(&one.object))
        ))?;
        for line in one.diff.iter().flat_map(|text| text.lines()) {
            let shown = visible(line);
            let shown = match line.as_bytes().first() {
                Some(b'+') => out.paint(styles::GOOD, shown),
                Some(b'-') => out.paint(styles::BAD, shown),
                Some(b'@') => out.paint(styles::NAME, shown),
                _ => shown,
            };
            out.line(format!("  {shown}"))?;
        }
    }
    if !diffs.is_empty() && diffs.iter().all(|one| one.action == "keep") {
        out.line("no differences")?;
    }
    offer.remarks.iter().try_for_each(|remark| out.line(visible(remark)))
}
