//! `k8sctl upgrade agents`: nodes get the node agent that this host has, one after the other, and each is told of.

use k8sctl_proto::control::v1::{UpgradeAgentsRequest, UpgradeAgentsResponse, UpgradeState};
use k8sctl_types::failure::Failure;

use crate::agent;
use crate::cli::{UpgradeAgentsArgs, UpgradeVerb};
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, styles, visible};
use crate::view::UpgradeView;

pub(super) async fn run(context: &Context, verb: UpgradeVerb) -> Result<Exit, Ended> {
    match verb {
        UpgradeVerb::Agents(args) => agents(context, args).await,
    }
}

async fn agents(context: &Context, args: UpgradeAgentsArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let request = UpgradeAgentsRequest {
        cluster_name: agent.cluster_name(context, args.cluster.as_deref()).await?,
        node_names: args.nodes,
        session_deadline: prost_types::Duration::try_from(args.session_deadline).ok(),
    };
    let mut stream = agent.clusters().upgrade_agents(request).await?.into_inner();
    let (mut failures, mut is_whole) = (Vec::new(), true);
    let told: Result<(), Ended> = async {
        while let Some(response) = stream.message().await? {
            is_whole &= !matches!(response.state(), UpgradeState::Failed | UpgradeState::Skipped);
            print(context, response, &mut failures).await?;
        }
        Ok(())
    }
    .await;
    // Also where the host agent went away in the middle: these nodes have their next steps.
    for failure in &failures {
        context.err.line("")?;
        ended::print(&context.err, "error", failure)?;
    }
    told?;
    Ok(if is_whole { Exit::Ok } else { Exit::Failed })
}

async fn print(
    context: &Context,
    response: UpgradeAgentsResponse,
    failures: &mut Vec<Failure>,
) -> std::io::Result<()> {
    let style = match response.state() {
        UpgradeState::Done => styles::GOOD,
        UpgradeState::Failed => styles::BAD,
        UpgradeState::Skipped => styles::WARN,
        UpgradeState::Running | UpgradeState::Unspecified => styles::DIM,
    };
    let view = UpgradeView::from(response);
    failures.extend(view.failure.as_ref().map(Failure::from));
    let text = if context.format.is_structured() {
        output::items(context, [view])?
    } else {
        let state = context.out.paint(style, format!("{:<8}", view.state));
        format!("{:<24} {state} {}\n", visible(&view.node), visible(&view.message)).into_bytes()
    };
    context.out.patiently(text).await
}
