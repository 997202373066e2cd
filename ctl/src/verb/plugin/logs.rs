//! `k8sctl plugin logs`: what a plugin's program said and how it ended; or, with `--pods`, the logs of the pods that run
//! for it, which come from the nodes as all logs do.

use std::io;

use k8sctl_proto::control::v1::GetPluginLogsRequest;
use k8sctl_types::failure::Failure;

use crate::agent;
use crate::cli::{LogsArgs, PluginLogsArgs, PodName};
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, Printer, styles, visible};
use crate::verb::logs;
use crate::view::RunView;

pub(super) async fn run(context: &Context, args: &PluginLogsArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let cluster_name = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let request = GetPluginLogsRequest {
        cluster_name: cluster_name.clone(),
        plugin: args.name.clone(),
        pods: args.pods,
    };
    let answer = agent.plugins().get_plugin_logs(request).await?.into_inner();
    if args.pods {
        let pods = answer.pods.into_iter().map(|pod| PodName { namespace: pod.namespace, name: pod.name });
        return of_pods(context, args, cluster_name, pods.collect()).await;
    }
    let mut runs: Vec<_> = answer.runs.into_iter().map(RunView::from).collect();
    // Oldest first, as with all logs.
    runs.sort_by(|a, b| a.time.cmp(&b.time));
    if let Some(tail) = args.tail.and_then(|tail| usize::try_from(tail).ok()) {
        runs.drain(..runs.len().saturating_sub(tail));
    }
    if context.format.is_structured() {
        context.out.raw(output::items(context, runs)?)?;
    } else if runs.is_empty() {
        let line = format!("its program has not run lately; its pods: {}", pods_of(context, args));
        context.out.line(line)?;
    } else {
        runs.iter().try_for_each(|run| show(&context.out, run))?;
    }
    Ok(Exit::Ok)
}

fn pods_of(context: &Context, args: &PluginLogsArgs) -> String {
    let mut words = vec!["plugin", "logs", args.name.as_str(), "--pods"];
    words.extend(args.cluster.iter().flat_map(|cluster| ["--cluster", cluster.as_str()]));
    context.source.command(&words)
}

fn show(out: &Printer, run: &RunView) -> io::Result<()> {
    let time = out.paint(styles::DIM, run.time.as_deref().unwrap_or("-"));
    let took = run.took_seconds.map(|took| format!(" after {:.0} ms", took * 1000.0)).unwrap_or_default();
    let style = if run.outcome == "ok" { styles::GOOD } else { styles::BAD };
    let outcome = out.paint(style, visible(&run.outcome));
    out.line(format!("{time} {}: {outcome}{took}", visible(&run.purpose)))?;
    let said = run.stderr.as_deref().unwrap_or_default();
    said.trim_end().lines().try_for_each(|line| out.line(format!("  {}", visible(line))))
}

async fn of_pods(
    context: &Context,
    args: &PluginLogsArgs,
    cluster: String,
    pods: Vec<PodName>,
) -> Result<Exit, Ended> {
    if pods.is_empty() {
        let look = context.source.command(&["plugin", "status", &args.name, "--cluster", &cluster]);
        let reason = "no pod runs for it";
        let next = format!("see how it is with: {look}");
        return Err(Failure::new("NODE-POD-UNKNOWN", format!("plugin {}", args.name), reason, next).into());
    }
    let of_pods = LogsArgs {
        nodes: Vec::new(),
        cluster: Some(cluster),
        source: Vec::new(),
        unit: Vec::new(),
        pod: pods,
        container: None,
        follow: args.follow,
        tail: args.tail,
        since: None,
        until: None,
        grep: None,
        timestamps: true,
    };
    logs::run(context, &of_pods).await
}
