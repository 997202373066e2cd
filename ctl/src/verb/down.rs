//! `k8sctl down`: show what would be removed, get consent, remove, watch.

use k8sctl_proto::control::v1::{DestroyRequest, PlanDestroyRequest};
use serde::Serialize;

use super::{operation, plan};
use crate::agent::{self, Agent};
use crate::cli::DownArgs;
use crate::consent::{self, Question};
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
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
}

pub(super) async fn run(context: &Context, args: &DownArgs) -> Result<Exit, Ended> {
    let from_file = match &args.file {
        Some(path) => Some(SpecFile::read(path)?.check(context)?.spec.name),
        None => None,
    };
    let agent = agent::connect(context).await?;
    let name = agent.cluster_name(args.name.as_deref().or(from_file.as_deref())).await?;
    let again = format!("k8sctl down {name}");
    let story = context.story();
    let (plan, id) = begin(context, &agent, &name, args.yes, &again).await?;
    let mut document =
        Document { plan, operation_id: Some(id.clone()).filter(|id| !id.is_empty()), operation: None };
    let mut exit = Exit::Ok;
    if document.operation_id.is_some() && args.no_wait {
        story.line(format!("operation {} began; watch it with: k8sctl events -f", visible(&id)))?;
    } else if document.operation_id.is_some() {
        let ended = operation::wait(context, &agent, &id, &again).await?;
        exit = operation::exit(&ended);
        if exit == Exit::Ok {
            let line = format!("cluster {} is gone after {}", visible(&name), operation::took(&ended));
            story.line(format!("\n{}", story.paint(styles::GOOD, line)))?;
            let context_name = crate::kubeconfig::context_name(&name);
            story.line(format!(
                "its kubeconfig entry stays until: kubectl config delete-context {context_name}"
            ))?;
        }
        document.operation = Some(ended);
    }
    if context.format.is_structured() {
        output::document(&context.out, context.format, &document)?;
    }
    Ok(exit)
}

/// Shows the plan, asks, and begins it. While VMs of a running `up` start, the plan changes under our hands.
async fn begin(
    context: &Context,
    agent: &Agent,
    name: &str,
    yes: bool,
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
        consent::require(context, yes, &question)?;
        let request = DestroyRequest { cluster_name: name.to_owned(), plan_digest: plan.digest.clone() };
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
