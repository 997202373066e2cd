//! What `add`, `config`, `upgrade` and `rollback` share: the plan is shown with what it asks for, agreed to, carried out
//! and followed, through restarts of the host agent. It goes on when the client goes.

use std::time::Duration;

use k8sctl_proto::control::v1::{
    ChangePluginRequest, ChangePluginResponse, PlanPluginRequest, PluginChange, PluginWish,
    WatchPluginsRequest,
};
use k8sctl_rpc::status::failure_from;
use k8sctl_types::failure::Failure;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::offer;
use super::values::Values;
use super::{is_bad, style};
use crate::agent::Agent;
use crate::consent::{self, Question};
use crate::ended::{Ended, LOST, LOST_INTERVAL, is_lost};
use crate::exit::Exit;
use crate::output;
use crate::progress::{self, Ticker};
use crate::terminal::{Context, visible};
use crate::verb::plan;
use crate::view::{BlockingView, ObjectDiffView, OfferView, PluginView};

/// How long a host agent may be away before following it is given up.
pub(super) const AWAY_LIMIT: Duration = Duration::from_secs(120);

/// How long a change may take where nobody says otherwise.
const DEADLINE: Duration = Duration::from_secs(600);

/// A change that a person asks for.
#[derive(Debug)]
pub(super) struct Change<'a> {
    /// What is wanted.
    pub(super) wish: PluginWish,
    /// The config in it, for what the plugin says of that.
    pub(super) values: &'a Values,
    /// The words of the same command, without consent.
    pub(super) again: Vec<String>,
    /// The consent is given.
    pub(super) yes: bool,
    /// Also to delete many objects at once.
    pub(super) prune_many: bool,
    /// Longest that it may take.
    pub(super) deadline: Option<Duration>,
}

/// A wish about a plugin of this cluster; whatever else it holds is the caller's to fill in.
pub(super) fn wish(cluster: String, change: PluginChange, plugin: String) -> PluginWish {
    PluginWish { cluster_name: cluster, change: change.into(), plugin, ..PluginWish::default() }
}

/// Adds flags to the words of a command.
pub(super) fn flags(words: &mut Vec<String>, flags: &[(&str, bool)]) {
    words.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| (*flag).to_owned()));
}

/// Adds a flag with its value, where there is one.
pub(super) fn option(words: &mut Vec<String>, flag: &str, value: Option<String>) {
    if let Some(value) = value {
        words.extend([flag.to_owned(), value]);
    }
}

/// A deadline as it is written on a command line.
pub(super) fn deadline(time: Option<Duration>) -> Option<String> {
    time.map(|time| humantime::format_duration(time).to_string())
}

/// What the change would do. Mistakes in the config end the run.
pub(super) async fn propose(
    context: &Context,
    agent: &Agent,
    wish: &PluginWish,
    values: &Values,
    diff: bool,
) -> Result<(OfferView, Vec<ObjectDiffView>), Ended> {
    let request = PlanPluginRequest { wish: Some(wish.clone()), diff };
    let answer = agent.plugins().plan_plugin(request).await?.into_inner();
    values.judge(context, answer.diagnostics)?;
    let offer = answer.offer.ok_or_else(|| no_answer(context, wish))?;
    Ok((offer.into(), answer.diffs.into_iter().map(Into::into).collect()))
}

/// Shows it, gets consent, carries it out, and tells how the plugin is then.
pub(super) async fn run(context: &Context, agent: &Agent, change: &Change<'_>) -> Result<Exit, Ended> {
    for last in (0..plan::ROUNDS).rev() {
        let (offer, _) = propose(context, agent, &change.wish, change.values, false).await?;
        offer::show(context.story(), &offer)?;
        let approves = !offer.new_permissions.is_empty();
        if approves {
            let words: Vec<&str> = change.again.iter().map(String::as_str).chain(["--yes"]).collect();
            let question = Question {
                object: &format!("plugin {}", offer.name),
                what: "the plugin asks for the permissions above",
                agree: &context.source.command(&words),
            };
            consent::require(context, change.yes, &question)?;
        }
        let request = ChangePluginRequest {
            wish: Some(change.wish.clone()),
            approved_permissions: if approves { offer.permissions_digest.clone() } else { String::new() },
            plan_digest: offer.plan_digest.clone(),
            prune_many: change.prune_many,
            deadline: change.deadline.and_then(|deadline| deadline.try_into().ok()),
        };
        let look = status_of(context, &change.wish, &offer.name);
        let left =
            format!("left: the change of plugin {} goes on without you; see it with: {look}", offer.name);
        let followed = follow(context, agent, &request, change, &offer.name);
        match progress::interruptible(context, followed, &visible(&left)).await? {
            Ending::Plugin(plugin) => return tell(context, &plugin),
            Ending::Refused(status) if last > 0 && has_changed(&status) => {
                context.story().line("the plan has changed meanwhile; making it again")?;
            }
            Ending::Refused(status) => return Err(status.into()),
        }
    }
    unreachable!("the last round returns")
}

/// It plans something else than was shown, or asks for more than was agreed to.
fn has_changed(status: &Status) -> bool {
    plan::has_changed(status)
        || failure_from(status).is_some_and(|failure| failure.id == "PLUGIN-NOT-APPROVED")
}

/// The command that shows how it goes on.
fn status_of(context: &Context, wish: &PluginWish, plugin: &str) -> String {
    context.source.command(&["plugin", "status", plugin, "--cluster", &wish.cluster_name, "-w"])
}

fn no_answer(context: &Context, wish: &PluginWish) -> Failure {
    let next = format!("look at it with: {}", status_of(context, wish, &wish.plugin));
    let object = format!("plugin {}", wish.plugin);
    Failure::new("PLUGIN-NO-STATUS", object, "the host agent ended without saying how it stands", next)
}

enum Ending {
    Plugin(Box<PluginView>),
    Refused(Status),
}

/// Where the host agent goes away meanwhile, the same request attaches to what goes on when it is back. What ended
/// meanwhile is not begun again: a second rollback would lead back to what the first one left.
async fn follow(
    context: &Context,
    agent: &Agent,
    request: &ChangePluginRequest,
    change: &Change<'_>,
    plugin: &str,
) -> Result<Ending, Ended> {
    let mut ticker = Ticker::new(context.story());
    let (mut has_begun, mut was_lost) = (false, false);
    let mut away: Option<Instant> = None;
    loop {
        let mut is_heard = false;
        let ending = follow_once(context, agent, request, change, &mut ticker, &mut is_heard).await?;
        if is_heard {
            (has_begun, away) = (true, None);
        }
        let status = match ending {
            Ending::Refused(status) if has_begun && is_lost(&status) => status,
            Ending::Refused(status) if was_lost && is_over(&status) => {
                return settled(context, agent, change, plugin, &mut ticker).await;
            }
            ending => return Ok(ending),
        };
        was_lost = true;
        if away.is_none() {
            ticker.show(LOST)?;
        }
        if away.get_or_insert_with(Instant::now).elapsed() > AWAY_LIMIT {
            return Ok(Ending::Refused(status));
        }
        sleep(LOST_INTERVAL).await;
    }
}

/// The same request would do something else by now, or something else is done.
fn is_over(status: &Status) -> bool {
    let ids = ["PLUGIN-BUSY", "PLUGIN-NO-REVISION"];
    has_changed(status) || failure_from(status).is_some_and(|failure| ids.contains(&failure.id.as_str()))
}

/// How the plugin stands as soon as nothing is done to it.
async fn settled(
    context: &Context,
    agent: &Agent,
    change: &Change<'_>,
    plugin: &str,
    ticker: &mut Ticker,
) -> Result<Ending, Ended> {
    let request = WatchPluginsRequest { cluster_name: change.wish.cluster_name.clone(), watch: true };
    let mut stream = agent.plugins().watch_plugins(request).await?.into_inner();
    let longest = change.deadline.unwrap_or(DEADLINE).saturating_add(AWAY_LIMIT);
    while let Ok(message) = timeout(longest, stream.message()).await {
        let Some(message) = message? else { break };
        let Some(status) = message.plugins.into_iter().find(|one| one.name == plugin) else { break };
        if !matches!(status.state.as_str(), "Installing" | "Pending" | "Removing") {
            return Ok(Ending::Plugin(Box::new(status.into())));
        }
        ticker.show(&status.message)?;
    }
    Err(no_answer(context, &change.wish).into())
}

async fn follow_once(
    context: &Context,
    agent: &Agent,
    request: &ChangePluginRequest,
    change: &Change<'_>,
    ticker: &mut Ticker,
    is_heard: &mut bool,
) -> Result<Ending, Ended> {
    let mut stream = match agent.plugins().change_plugin(request.clone()).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Ok(Ending::Refused(status)),
    };
    let (mut last, mut mistakes) = (None, Vec::new());
    loop {
        match stream.message().await {
            Err(status) => return Ok(Ending::Refused(status)),
            Ok(None) => break,
            Ok(Some(message)) => {
                *is_heard = true;
                let ChangePluginResponse { progress, blocking, diagnostics, status } = message;
                ticker.show(&progress)?;
                if let Some(blocking) = BlockingView::of(blocking) {
                    ticker.show(&format!("waits for {}", blocking.line()))?;
                }
                // Warnings were shown with the plan.
                mistakes.extend(diagnostics.into_iter().filter(|one| !one.warning));
                last = status.or(last);
            }
        }
    }
    if !mistakes.is_empty() {
        change.values.judge(context, mistakes)?;
    }
    let plugin = last.ok_or_else(|| no_answer(context, &change.wish))?;
    Ok(Ending::Plugin(Box::new(plugin.into())))
}

fn tell(context: &Context, plugin: &PluginView) -> Result<Exit, Ended> {
    if context.format.is_structured() {
        output::document(context, plugin)?;
    } else {
        let (name, version, state) =
            (visible(&plugin.name), visible(&plugin.version), visible(&plugin.state));
        let what = format!("plugin {name} {version} is {state} ({} objects)", plugin.objects);
        context.out.line(context.out.paint(style(&plugin.state), what))?;
        if let Some(blocking) = &plugin.blocking {
            context.out.line(format!("waits for {}", visible(&blocking.line())))?;
        }
        if let Some(message) = &plugin.message {
            context.out.line(visible(message))?;
        }
    }
    Ok(if is_bad(&plugin.state) { Exit::Failed } else { Exit::Ok })
}
