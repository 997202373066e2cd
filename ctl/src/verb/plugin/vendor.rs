//! `k8sctl plugin vendor`: gets the manifests that plugins fetch into the host agent's store, by their digests, so that
//! they can be installed where there is no network.

use k8sctl_proto::control::v1::VendorPluginRequest;
use k8sctl_types::failure::Failure;

use super::source;
use crate::agent::{self, Agent};
use crate::cli::PluginVendorArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::progress::Ticker;
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, styles};
use crate::view::VendoredView;

pub(super) async fn run(context: &Context, args: &PluginVendorArgs) -> Result<Exit, Ended> {
    let plugin = match &args.name {
        Some(name) => source::for_the_host(context, name, false).await?,
        None => String::new(),
    };
    let from = match &args.from {
        Some(dir) => source::absolute(dir)?,
        None => String::new(),
    };
    let agent = agent::connect(context).await?;
    let cluster_name = cluster(context, &agent, args).await?;
    let request = VendorPluginRequest { plugin, from, cluster_name };
    let mut stream = agent.plugins().vendor_plugin(request).await?.into_inner();
    let mut ticker = Ticker::new(context.story());
    let mut manifests = Vec::new();
    while let Some(message) = stream.message().await? {
        ticker.show(&message.progress)?;
        manifests.extend(message.manifests.into_iter().map(VendoredView::from));
    }
    drop(ticker);
    if context.format.is_structured() {
        output::document(context, &manifests)?;
    } else if manifests.is_empty() {
        context.out.line("no manifest is fetched by any of them")?;
    } else {
        table(&manifests).print(&context.out)?;
    }
    let missing = manifests.iter().filter(|manifest| !manifest.present).count();
    Ok(if missing == 0 { Exit::Ok } else { Exit::Failed })
}

/// Plugins can be vendored before there is a cluster.
async fn cluster(context: &Context, agent: &Agent, args: &PluginVendorArgs) -> Result<String, Ended> {
    match agent.cluster_name(context, args.cluster.as_deref()).await {
        Err(Ended::Problem(problem)) if is_about_clusters(&problem.failure) => Ok(String::new()),
        name => name,
    }
}

fn is_about_clusters(failure: &Failure) -> bool {
    matches!(failure.id.as_str(), "CLUSTER-NONE" | "CLUSTER-WHICH")
}

fn table(manifests: &[VendoredView]) -> Table {
    let mut table = Table::new(&["MANIFEST", "SHA256", "STORED", "PROBLEM"]);
    for manifest in manifests {
        let stored = if manifest.present { styled(styles::GOOD, "yes") } else { styled(styles::BAD, "no") };
        table.row(vec![
            cell(&manifest.url),
            cell(manifest.sha256.chars().take(12).collect::<String>()),
            stored,
            cell(manifest.problem.as_deref().unwrap_or_default()),
        ]);
    }
    table
}
