//! `k8sctl down`: show what would be removed, get consent, remove, watch, and tidy up the user's kubeconfig.

use std::time::Duration;

use k8sctl_proto::control::v1::{DestroyRequest, PlanDestroyRequest};
use serde::Serialize;

use super::{operation, plan};
use crate::agent::{self, Agent};
use crate::cli::DownArgs;
use crate::consent::{self, Question};
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::kubeconfig::{self, Removed};
use crate::output;
use crate::progress;
use crate::spec_file::SpecFile;
use crate::terminal::{Context, styles, visible};
use crate::view::{OperationView, PlanView};

/// `down -o json`.
#[derive(Debug, Serialize)]
struct Document {
    /// What was to be removed.
    plan: PlanView,
    /// Id of the operation; `null` where nothing was to do.
    operation_id: Option<String>,
    /// The operation as it ended; `null` with `--no-wait`.
    operation: Option<OperationView>,
    /// What was removed from the user's kubeconfig files; `null` with `--no-wait` and `--no-kubeconfig`.
    kubeconfig: Option<Removed>,
}

pub(super) async fn run(context: &Context, args: &DownArgs) -> Result<Exit, Ended> {
    let from_file = match &args.file {
        Some(path) => Some(SpecFile::read(path)?.cluster_name(context)?),
        None => None,
    };
    let agent = agent::connect(context).await?;
    let name = agent.cluster_name(context, args.name.as_deref().or(from_file.as_deref())).await?;
    let again = again(context, args, &name);
    let story = context.story();
    let (plan, id) = begin(context, &agent, &name, args, &again).await?;
    let operation_id = Some(id.clone()).filter(|id| !id.is_empty());
    let mut document = Document { plan, operation_id, operation: None, kubeconfig: None };
    let mut exit = Exit::Ok;
    if document.operation_id.is_some() && args.no_wait {
        let watch = context.source.command(&["events", "-f"]);
        story.line(format!("operation {} began; watch it with: {watch}", visible(&id)))?;
        if !args.no_kubeconfig {
            story.line(format!("its kubeconfig entries stay until: {}", kubeconfig::by_hand(&name)))?;
        }
    } else if document.operation_id.is_some() {
        let ended = operation::wait(context, &agent, &id, &again).await?;
        exit = operation::exit(&ended);
        document.operation = Some(ended);
    }
    if exit == Exit::Ok {
        let left = if args.no_kubeconfig {
            format!("left: cluster {} is gone", visible(&name))
        } else {
            format!("left: its kubeconfig entries stay until: {}", kubeconfig::by_hand(&name))
        };
        progress::interruptible(context, tidy(context, args, &name, &mut document), &left).await?;
    }
    if context.format.is_structured() {
        output::document(context, &document)?;
    }
    Ok(exit)
}

/// The command that does the same again, and asks again.
fn again(context: &Context, args: &DownArgs, name: &str) -> String {
    let deadline = args.deadline.map(|deadline| humantime::format_duration(deadline).to_string());
    let mut words = vec!["down", name];
    words.extend(deadline.iter().flat_map(|deadline| ["--deadline", deadline.as_str()]));
    words.extend(args.no_wait.then_some("--no-wait"));
    words.extend(args.no_kubeconfig.then_some("--no-kubeconfig"));
    context.source.command(&words)
}

/// Says that it is gone, and removes what the user's kubeconfig has of it.
async fn tidy(context: &Context, args: &DownArgs, name: &str, document: &mut Document) -> Result<(), Ended> {
    let story = context.story();
    if let Some(ended) = &document.operation {
        let line = format!("cluster {} is gone after {}", visible(name), operation::took(ended));
        story.line(format!("\n{}", story.paint(styles::GOOD, line)))?;
    }
    if !args.no_wait && !args.no_kubeconfig {
        document.kubeconfig = remove_kubeconfig(context, name).await?;
    }
    Ok(())
}

/// A kubeconfig that cannot be changed is no failure of the removal: it is said, and the run goes on.
async fn remove_kubeconfig(context: &Context, cluster: &str) -> Result<Option<Removed>, Ended> {
    let removed = match kubeconfig::remove(&context.source, cluster).await {
        Ok(removed) => removed,
        Err(failure) => {
            ended::print(&context.err, "warning", &failure)?;
            return Ok(None);
        }
    };
    if !removed.paths.is_empty() {
        let paths: Vec<_> = removed.paths.iter().map(|path| path.display().to_string()).collect();
        let line = format!("removed context {} from {}", removed.context, paths.join(", "));
        context.story().line(visible(&line))?;
    }
    Ok(Some(removed))
}

/// Shows the plan, asks, and begins it. While VMs of a running `up` start, the plan changes under our hands.
async fn begin(
    context: &Context,
    agent: &Agent,
    name: &str,
    args: &DownArgs,
    again: &str,
) -> Result<(PlanView, String), Ended> {
    for last in (0..plan::ROUNDS).rev() {
        let request = PlanDestroyRequest { cluster_name: name.to_owned() };
        let answer = agent.clusters().plan_destroy(request).await?.into_inner();
        let mut plan = PlanView::from(answer.plan.unwrap_or_default());
        // What is removed needs no warning about its bundle.
        plan.notices.retain(|notice| !crate::view::is_trial_notice(notice));
        let story = context.story();
        story.line(format!(
            "{} what is ours of cluster {}:",
            story.paint(styles::BAD, "Removing"),
            visible(name)
        ))?;
        plan::show(story, &plan)?;
        let question = Question {
            object: &format!("cluster {name}"),
            what: "all data in this cluster will be lost",
            agree: &format!("{again} --yes"),
        };
        // What is under way has been agreed to.
        consent::require(context, args.yes || plan.operation_id.is_some(), &question)?;
        let request = DestroyRequest {
            cluster_name: name.to_owned(),
            plan_digest: plan.digest.clone(),
            deadline: args.deadline.and_then(|deadline: Duration| deadline.try_into().ok()),
        };
        match agent.clusters().destroy(request).await {
            Ok(answer) => return Ok((plan, answer.into_inner().operation_id)),
            Err(status) if last > 0 && plan::has_changed(&status) => {
                story.line("the plan has changed meanwhile; making it again")?;
            }
            Err(status) => return Err(status.into()),
        }
    }
    unreachable!("the last round returns")
}
