//! `k8sctl plugin remove`. Naming the plugin is consent to its removal; what `--purge` loses is asked for.

use k8sctl_proto::control::v1::RemovePluginRequest;
use k8sctl_rpc::status::failure_from;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::change::{self, AWAY_LIMIT};
use crate::agent;
use crate::cli::PluginRemoveArgs;
use crate::consent::{self, Question};
use crate::ended::{Ended, LOST, LOST_INTERVAL, is_lost};
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
    let kept = progress::interruptible(context, follow(context, &agent, &request), &visible(&left)).await?;
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

/// What stays behind when it is gone. Where the host agent goes away meanwhile, the same request attaches to what goes on.
async fn follow(
    context: &Context,
    agent: &agent::Agent,
    request: &RemovePluginRequest,
) -> Result<Vec<String>, Ended> {
    let mut ticker = Ticker::new(context.story());
    let (mut has_begun, mut was_lost) = (false, false);
    let mut away: Option<Instant> = None;
    loop {
        let mut is_heard = false;
        let followed = follow_once(agent, request, &mut ticker, &mut is_heard).await?;
        if is_heard {
            (has_begun, away) = (true, None);
        }
        let status = match followed {
            Followed::Gone(kept) => return Ok(kept),
            Followed::Refused(status) => status,
        };
        if was_lost && failure_from(&status).is_some_and(|failure| failure.id == "PLUGIN-NOT-INSTALLED") {
            drop(ticker);
            let events = context.source.command(&["events"]);
            let line = format!("it went while the host agent was away; what stays, if anything: {events}");
            context.story().line(visible(&line))?;
            return Ok(Vec::new());
        }
        let is_patient = away.is_none_or(|since| since.elapsed() <= AWAY_LIMIT);
        if !(has_begun && is_lost(&status) && is_patient) {
            return Err(status.into());
        }
        if away.is_none() {
            ticker.show(LOST)?;
        }
        away.get_or_insert_with(Instant::now);
        was_lost = true;
        sleep(LOST_INTERVAL).await;
    }
}

enum Followed {
    /// With what stays.
    Gone(Vec<String>),
    Refused(Status),
}

async fn follow_once(
    agent: &agent::Agent,
    request: &RemovePluginRequest,
    ticker: &mut Ticker,
    is_heard: &mut bool,
) -> Result<Followed, Ended> {
    let mut stream = match agent.plugins().remove_plugin(request.clone()).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Ok(Followed::Refused(status)),
    };
    let mut kept = Vec::new();
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Followed::Gone(kept)),
            Err(status) => return Ok(Followed::Refused(status)),
        };
        *is_heard = true;
        ticker.show(&message.progress)?;
        if let Some(blocking) = BlockingView::of(message.blocking) {
            ticker.show(&format!("waits for {}", blocking.line()))?;
        }
        kept.extend(message.kept);
    }
}
