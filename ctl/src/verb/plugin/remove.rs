//! `k8sctl plugin remove`. Naming the plugin is consent to its removal; what `--purge` loses is asked for.

use k8sctl_proto::control::v1::RemovePluginRequest;
use serde::Serialize;

use super::change;
use crate::agent;
use crate::cli::PluginRemoveArgs;
use crate::consent::{self, Question};
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::progress::{self, Ticker};
use crate::terminal::{Context, styles, visible};
use crate::view::BlockingView;

/// `plugin remove -o json`.
#[derive(Debug, Serialize)]
struct Removed {
    /// Name of the plugin that is gone.
    plugin: String,
    /// The cluster that it was on.
    cluster_name: String,
    /// Objects that stay, each with why.
    kept: Vec<String>,
}

pub(super) async fn run(context: &Context, args: &PluginRemoveArgs) -> Result<Exit, Ended> {
    if args.purge {
        let mut words = ["plugin", "remove", args.name.as_str(), "--purge"].map(str::to_owned).to_vec();
        change::option(&mut words, "--cluster", args.cluster.clone());
        change::option(&mut words, "--deadline", change::deadline(args.deadline));
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--yes"]).collect();
        let question = Question {
            object: &format!("plugin {}", args.name),
            what: "the data in its volume claims, objects of others whose definitions it brought, and all that others have in its \
                   namespaces will be lost",
            agree: &context.source.command(&words),
        };
        consent::require(context, args.yes, &question)?;
    }
    let agent = agent::connect(context).await?;
    let cluster_name = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let request = RemovePluginRequest {
        cluster_name: cluster_name.clone(),
        plugin: args.name.clone(),
        purge: args.purge,
        deadline: args.deadline.and_then(|deadline| deadline.try_into().ok()),
    };
    let look = context.source.command(&["plugin", "status", "--cluster", &cluster_name, "-w"]);
    let left = format!("left: the removal of plugin {} goes on without you; see it with: {look}", args.name);
    let kept = progress::interruptible(context, follow(context, &agent, request), &visible(&left)).await?;
    if context.format.is_structured() {
        output::document(context, &Removed { plugin: args.name.clone(), cluster_name, kept })?;
        return Ok(Exit::Ok);
    }
    let what = format!("removed plugin {}", visible(&args.name));
    context.out.line(context.out.paint(styles::GOOD, what))?;
    if !kept.is_empty() {
        // The plugin is gone: no --purge finds them any more.
        context.out.line("these stay, and are nobody's now; delete with kubectl what you do not need:")?;
        kept.iter().try_for_each(|object| context.out.line(format!("  {}", visible(object))))?;
    }
    Ok(Exit::Ok)
}

/// What stays behind when it is gone.
async fn follow(
    context: &Context,
    agent: &agent::Agent,
    request: RemovePluginRequest,
) -> Result<Vec<String>, Ended> {
    let mut stream = agent.plugins().remove_plugin(request).await?.into_inner();
    let mut ticker = Ticker::new(context.story());
    let mut kept = Vec::new();
    while let Some(message) = stream.message().await? {
        ticker.show(&message.progress)?;
        if let Some(blocking) = BlockingView::of(message.blocking) {
            ticker.show(&format!("waits for {}", blocking.line()))?;
        }
        kept.extend(message.kept);
    }
    Ok(kept)
}
