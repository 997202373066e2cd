//! `k8sctl up`: check the file, show the plan, get consent where something is lost, apply, watch, summarise.

use std::time::Duration;

use k8sctl_proto::control::v1::{ApplyRequest, ApplyResponse, GetKubeconfigRequest};
use k8sctl_types::failure::Failure;
use serde::Serialize;

use super::{operation, plan};
use crate::agent::{self, Agent};
use crate::cli::UpArgs;
use crate::consent::{self, Question};
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::kubeconfig::{self, Installed};
use crate::lock_file::{self, Lock};
use crate::output;
use crate::progress;
use crate::spec_file::{self, SpecFile};
use crate::terminal::{Context, styles, visible};
use crate::view::{ClusterView, OperationView, PlanView};

/// `up -o json`.
#[derive(Debug, Serialize)]
struct Document {
    /// The plan that was applied.
    plan: PlanView,
    /// Everything was as it should be.
    no_changes: bool,
    /// The operation was already running.
    attached: bool,
    /// Id of the operation; `null` where nothing was to do.
    operation_id: Option<String>,
    /// The operation as it ended; `null` where nothing was to do, and with `--no-wait`.
    operation: Option<OperationView>,
    /// Where the kubeconfig went.
    kubeconfig: Option<Installed>,
}

pub(super) async fn run(context: &Context, args: &UpArgs) -> Result<Exit, Ended> {
    let (file, lock) = lock_file::with_file(&args.file.file, args.locked)?;
    run_file(context, args, &again(context, args), file, lock).await
}

/// The same with what is to be taken for the lock file, and the command that does the same again: `plugin upgrade -f`.
pub(super) async fn run_file(
    context: &Context,
    args: &UpArgs,
    again: &str,
    file: SpecFile,
    lock: Option<Lock>,
) -> Result<Exit, Ended> {
    file.check(context)?;
    let agent = agent::connect(context).await?;
    let (plan, applied) = apply(context, &agent, &file, args, again).await?;
    if let Some(lock) = &lock {
        lock.keep(context, plan.lock.as_deref())?;
    }
    let id = Some(applied.operation_id.clone()).filter(|id| !id.is_empty());
    let mut document = Document {
        no_changes: applied.no_changes,
        attached: applied.attached,
        operation_id: id.clone(),
        operation: None,
        kubeconfig: None,
        plan,
    };
    let story = context.story();
    if let Some(id) = &id {
        let how = if applied.attached { "already runs; watching it" } else { "began" };
        story.line(format!("operation {} {how}", visible(id)))?;
        if args.no_wait {
            let watch = [&["status", "-w"], &["events", "-f"]].map(|words| context.source.command(words));
            story.line(format!("watch it with: {}", watch.join(", or ")))?;
            return finish(context, &document, Exit::Ok);
        }
        let ended = operation::wait(context, &agent, id, again).await?;
        let exit = operation::exit(&ended);
        document.operation = Some(ended);
        if exit != Exit::Ok {
            return finish(context, &document, exit);
        }
    }
    let cluster = document.plan.cluster_name.clone();
    let left = if args.no_kubeconfig {
        "left: the cluster is up".to_owned()
    } else {
        let get = context.source.command(&["kubeconfig", &cluster]);
        format!("left: the cluster is up; get its kubeconfig with: {get}")
    };
    let rest = async {
        if !args.no_kubeconfig {
            document.kubeconfig = install_kubeconfig(context, &agent, &cluster).await?;
        }
        summarise(context, &agent, &cluster, &document).await?;
        finish(context, &document, Exit::Ok)
    };
    progress::interruptible(context, rest, &left).await
}

/// The command that does the same again. What was agreed to is not in it: the next plan may destroy something else.
fn again(context: &Context, args: &UpArgs) -> String {
    let file = args.file.file.display().to_string();
    let deadline = args.deadline.map(|deadline| humantime::format_duration(deadline).to_string());
    let mut words = vec!["up", "-f", file.as_str()];
    words.extend(deadline.iter().flat_map(|deadline| ["--deadline", deadline.as_str()]));
    words.extend(args.no_wait.then_some("--no-wait"));
    words.extend(args.no_kubeconfig.then_some("--no-kubeconfig"));
    words.extend(args.locked.then_some("--locked"));
    context.source.command(&words)
}

fn finish(context: &Context, document: &Document, exit: Exit) -> Result<Exit, Ended> {
    if context.format.is_structured() {
        output::document(context, document)?;
    }
    Ok(exit)
}

async fn apply(
    context: &Context,
    agent: &Agent,
    file: &SpecFile,
    args: &UpArgs,
    again: &str,
) -> Result<(PlanView, ApplyResponse), Ended> {
    for last in (0..plan::ROUNDS).rev() {
        let plan = plan::make(context, agent, file).await?;
        if !plan.changes.is_empty() {
            // They were shown when the file was applied.
            spec_file::warn(context, &file.name, &file.text, &plan.warnings)?;
        }
        plan::show(context.story(), &plan)?;
        // What is under way has been agreed to.
        let asked = what_is_asked(&plan).filter(|_| plan.operation_id.is_none());
        if let Some(what) = &asked {
            let question = Question {
                object: &format!("cluster {}", plan.cluster_name),
                what,
                agree: &format!("{again} --yes"),
            };
            consent::require(context, args.yes, &question)?;
        }
        let request = ApplyRequest {
            spec: Some(file.to_wire()),
            plan_digest: plan.digest.clone(),
            // What is under way may have ended by then.
            allow_destructive: asked.is_some() || args.yes,
            deadline: args.deadline.and_then(|deadline: Duration| deadline.try_into().ok()),
        };
        match agent.clusters().apply(request).await {
            Ok(answer) => {
                let mut answer = answer.into_inner();
                let mistakes = std::mem::take(&mut answer.diagnostics);
                // Warnings were shown with the plan.
                spec_file::judge(context, file, mistakes)?;
                return Ok((plan, answer));
            }
            Err(status) if last > 0 && plan::has_changed(&status) => {
                context.story().line("the plan has changed meanwhile; making it again")?;
            }
            Err(status) => return Err(status.into()),
        }
    }
    unreachable!("the last round returns")
}

/// What a person has to agree to: what is lost, and what plugins ask for.
fn what_is_asked(plan: &PlanView) -> Option<String> {
    let destructive = plan.changes.iter().filter(|change| change.destructive).count();
    let lost = match destructive {
        0 => None,
        1 => Some("1 change destroys data or stops workloads".to_owned()),
        many => Some(format!("{many} changes destroy data or stop workloads")),
    };
    let names: Vec<_> = plan.asking().map(|change| visible(&change.name)).collect();
    let wanted = match names.as_slice() {
        [] => None,
        [one] => Some(format!("plugin {one} asks for the permissions above")),
        many => Some(format!("plugins {} ask for the permissions above", many.join(", "))),
    };
    match (lost, wanted) {
        (Some(lost), Some(wanted)) => Some(format!("{lost}, and {wanted}")),
        (lost, wanted) => lost.or(wanted),
    }
}

/// A kubeconfig that could not be had or written is no failure of the cluster: it is said, and the run goes on.
async fn install_kubeconfig(
    context: &Context,
    agent: &Agent,
    cluster: &str,
) -> Result<Option<Installed>, Ended> {
    let request = GetKubeconfigRequest { cluster_name: cluster.to_owned() };
    let installed = match agent.clusters().get_kubeconfig(request).await {
        Ok(answer) => {
            kubeconfig::install(&context.source, &answer.into_inner().kubeconfig_yaml, cluster, false)
                .await
                .map_err(Ended::from)
        }
        Err(status) => Err(status.into()),
    };
    match installed {
        Ok(installed) => Ok(Some(installed)),
        Err(Ended::Problem(problem)) => {
            let failure = Failure {
                object: format!("kubeconfig of {cluster}: {}", problem.failure.object),
                ..problem.failure
            };
            ended::print(&context.err, "warning", &failure)?;
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

async fn summarise(
    context: &Context,
    agent: &Agent,
    cluster: &str,
    document: &Document,
) -> Result<(), Ended> {
    let story = context.story();
    // The cluster is up; that it cannot be shown now does not change that.
    let status: Option<ClusterView> = agent.status(cluster).await.ok();
    let name = visible(cluster);
    let nodes = status.as_ref().map_or(0, |status| status.nodes.len());
    let ready = status.as_ref().map_or(0, |s| s.nodes.iter().filter(|node| node.phase == "Ready").count());
    let how = match &document.operation {
        Some(operation) => format!("cluster {name} is up after {}", operation::took(operation)),
        None => format!("cluster {name} is as it should be"),
    };
    story.line("")?;
    story.line(story.paint(styles::GOOD, format!("{how}: {ready} of {nodes} nodes Ready")))?;
    if let Some(status) = status.filter(|status| status.trial_bundle) {
        // The plan's notices showed it already, except where the host agent gives none.
        if !document.plan.is_trial() && !document.plan.changes.is_empty() {
            plan::trial_box(story, &status.kubernetes_version)?;
        }
    }
    let look = context.source.command(&["status", cluster]);
    let Some(installed) = &document.kubeconfig else {
        return Ok(story.line(format!("  {look}"))?);
    };
    story.line(format!("kubeconfig: context {} in {}", installed.context, installed.path.display()))?;
    let context_flag =
        if installed.current { String::new() } else { format!(" --context {}", installed.context) };
    story.line("next:")?;
    story.line(format!("  kubectl{context_flag} get nodes"))?;
    story.line(format!("  {look}"))?;
    Ok(())
}
