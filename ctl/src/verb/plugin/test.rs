//! `k8sctl plugin test`: whether a plugin behaves as plugins must, in the sandbox of a host and without one. With
//! `--cluster` its objects are shown to a real API server, too, which stores none of them.

use std::fs;
use std::io;
use std::time::Duration;

use k8sctl_proto::control::v1::{PlanPluginRequest, PluginChange, PluginWish};
use k8sctl_types::failure::Failure;
use plugin_conformance::{CheckResult, Effort, Subject, junit};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{change, source};
use crate::agent::{self, Agent};
use crate::cli::PluginTestArgs;
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, Printer, styles, visible};
use crate::view::DiagnosticView;

/// Behind the numbers of all others.
const CLUSTER_CHECK: u8 = 100;
/// What a failed check says, at most; the report has all of it.
const TOLD: usize = 10;

/// `plugin test -o json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    plugin: &'a str,
    version: String,
    passed: bool,
    checks: &'a [CheckResult],
}

pub(super) async fn run(context: &Context, args: &PluginTestArgs) -> Result<Exit, Ended> {
    let opened = source::open(context, &args.path).await?;
    // Before minutes of checks: whether there is somebody to ask at all.
    let agent = match &args.cluster {
        Some(_) => Some(agent::connect(context).await?),
        None => None,
    };
    let subject = Subject::read(opened.package.clone(), &args.path).map_err(|reason| {
        let next = "correct that file; docs/plugins/writing.md says what the tests of a plugin are";
        Failure::new("PLUGIN-TEST", format!("plugin {}", opened.package.manifest.name), reason, next)
    })?;
    let (name, version) =
        (subject.package.manifest.name.clone(), subject.package.manifest.version.to_string());
    let story = *context.story();
    story.line(format!("testing plugin {} {}", visible(&name), visible(&version)))?;
    let effort = Effort { plans: args.plans, configs: args.configs, seed: args.seed };
    // Whoever reads may be gone; that is no reason to leave a check in the middle.
    let mut shown = Ok(());
    let mut tell = |result: &CheckResult| {
        if shown.is_ok() {
            shown = show(&story, result);
        }
    };
    let mut results = plugin_conformance::run(&subject, &effort, &mut tell).await;
    shown?;
    if let (Some(agent), Some(cluster)) = (&agent, &args.cluster) {
        let result = on_cluster(agent, cluster, &subject).await?;
        show(&story, &result)?;
        results.push(result);
    }
    finish(context, args, &name, version, &results)
}

fn finish(
    context: &Context,
    args: &PluginTestArgs,
    plugin: &str,
    version: String,
    results: &[CheckResult],
) -> Result<Exit, Ended> {
    if let Some(file) = &args.junit {
        fs::write(file, junit(plugin, results)).map_err(|error| {
            let reason = format!("cannot write it: {error}");
            let object = format!("file {}", file.display());
            Failure::new("PLUGIN-TEST", object, reason, "name another file with --junit FILE")
        })?;
    }
    let failed: Vec<_> = results.iter().filter(|result| !result.passed).collect();
    if context.format.is_structured() {
        output::document(context, &Document { plugin, version, passed: failed.is_empty(), checks: results })?;
    }
    if failed.is_empty() {
        let line = format!("all {} checks passed", results.len());
        context.story().line(context.story().paint(styles::GOOD, line))?;
        return Ok(Exit::Ok);
    }
    let names: Vec<_> = failed.iter().map(|result| result.name).collect();
    let reason = format!("{} of {} checks failed: {}", failed.len(), results.len(), names.join(", "));
    let next =
        "docs/plugins/protocol.md says what each part of a plugin must do; correct it, and test it again";
    ended::print(
        &context.err,
        "error",
        &Failure::new("PLUGIN-TEST", format!("plugin {plugin}"), reason, next),
    )?;
    Ok(Exit::Failed)
}

fn show(story: &Printer, result: &CheckResult) -> io::Result<()> {
    let (mark, style) = if result.passed { ("✓", styles::GOOD) } else { ("✗", styles::BAD) };
    let took = story.paint(styles::DIM, format!("{:.1} s", result.took.as_secs_f64()));
    let number = if result.number == CLUSTER_CHECK { String::new() } else { result.number.to_string() };
    story.line(format!("{} {number:>2} {}  {took}", story.paint(style, mark), visible(result.name)))?;
    if result.passed {
        return Ok(());
    }
    for detail in result.details.iter().take(TOLD) {
        story.line(format!("     {}", visible(detail)))?;
    }
    match result.details.len().saturating_sub(TOLD) {
        0 => Ok(()),
        more => story.line(format!("     and {more} more, which -o json and --junit FILE have")),
    }
}

/// Whether the API server of a real cluster would take what the plugin plans, with each config that it must take.
async fn on_cluster(agent: &Agent, cluster: &str, subject: &Subject) -> Result<CheckResult, Ended> {
    let began = Instant::now();
    let plugin = source::absolute(&subject.package.folder)?;
    let none = [Value::Object(serde_json::Map::new())];
    let configs = if subject.valid.is_empty() { &none[..] } else { &subject.valid[..] };
    let mut details = Vec::new();
    for config in configs {
        let wish = PluginWish {
            config_json: config.to_string(),
            dev: true,
            ..change::wish(cluster.to_owned(), PluginChange::Add, plugin.clone())
        };
        let request = PlanPluginRequest { wish: Some(wish), diff: true };
        match agent.plugins().plan_plugin(request).await {
            Ok(answer) => {
                let found = answer.into_inner().diagnostics.into_iter().map(DiagnosticView::from);
                let wrong = found.filter(|one| !one.warning);
                details.extend(wrong.map(|one| format!("{config}: {}: {}", one.field, one.message)));
            }
            Err(status) => match Ended::from(status) {
                Ended::Problem(problem) => {
                    details.push(format!("{config}: {}", problem.failure));
                    details.extend(problem.failure.evidence.lines().map(str::to_owned));
                }
                other => return Err(other),
            },
        }
    }
    let passed = details.is_empty();
    let took: Duration = began.elapsed();
    Ok(CheckResult { number: CLUSTER_CHECK, name: "cluster", passed, details, took })
}
