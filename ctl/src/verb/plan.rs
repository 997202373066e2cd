//! `k8sctl plan`: what `up` would do. Also how `up` and `down` show a plan.

use std::io;

use anstyle::{AnsiColor, Style};
use k8sctl_proto::control::v1::PlanRequest;
use k8sctl_rpc::status::failure_from;
use tonic::Status;

use super::plugin::is_loud;
use crate::agent::{self, Agent};
use crate::cli::PlanArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::lock_file;
use crate::output;
use crate::spec_file::{self, SpecFile};
use crate::terminal::{Context, Printer, styles, visible};
use crate::view::{ChangeView, PlanView, is_trial_notice};

/// How often a plan that changed between looking and applying is made again.
pub(super) const ROUNDS: usize = 3;

const ADD: Style = AnsiColor::Green.on_default();
const MODIFY: Style = AnsiColor::Yellow.on_default();

pub(super) async fn run(context: &Context, args: &PlanArgs) -> Result<Exit, Ended> {
    let (file, _) = lock_file::with_file(&args.file.file, args.locked)?;
    file.check(context)?;
    let agent = agent::connect(context).await?;
    let plan = make(context, &agent, &file).await?;
    spec_file::warn(context, &file.name, &file.text, &plan.warnings)?;
    if context.format.is_structured() {
        output::document(context, &plan)?;
    } else {
        show(&context.out, &plan)?;
    }
    Ok(if args.exit_code && !plan.changes.is_empty() { Exit::Changes } else { Exit::Ok })
}

/// The host changed since the plan was shown.
pub(super) fn has_changed(status: &Status) -> bool {
    failure_from(status).is_some_and(|failure| failure.id == "PLAN-CHANGED")
}

/// Asks for the plan; mistakes in the file end the run, warnings are the caller's to show.
pub(super) async fn make(context: &Context, agent: &Agent, file: &SpecFile) -> Result<PlanView, Ended> {
    let request = PlanRequest { spec: Some(file.to_wire()) };
    let answer = agent.clusters().plan(request).await?.into_inner();
    let warnings = spec_file::judge(context, file, answer.diagnostics)?;
    Ok(PlanView { warnings, ..answer.plan.unwrap_or_default().into() })
}

/// Shows a plan.
pub(super) fn show(printer: &Printer, plan: &PlanView) -> io::Result<()> {
    let cluster = printer.paint(styles::STRONG, visible(&plan.cluster_name));
    let version = &plan.kubernetes_version;
    let version =
        if version.is_empty() { String::new() } else { format!(", Kubernetes {}", visible(version)) };
    if plan.changes.is_empty() {
        printer.line(format!("cluster {cluster}{version}: no changes"))?;
    } else {
        printer.line(format!("cluster {cluster}{version}:"))?;
    }
    let width = |part: fn(&ChangeView) -> &str| {
        plan.changes.iter().map(|change| visible(part(change)).chars().count()).max().unwrap_or(0)
    };
    let (kinds, names) = (width(|change| &change.kind), width(|change| &change.name));
    for change in &plan.changes {
        let (style, mark) = sign(change);
        let action = printer.paint(style, format!("{mark} {:<7}", change.action));
        let object = format!("{:<kinds$} {:<names$}", visible(&change.kind), visible(&change.name));
        let loss =
            if change.destructive { printer.paint(styles::BAD, " (destructive)") } else { String::new() };
        let reason = printer.paint(styles::DIM, visible(&change.reason));
        printer.line(format!("  {action} {object}  {reason}{loss}"))?;
        for permission in &change.permissions {
            let style = if is_loud(permission) { styles::BAD } else { Style::new() };
            printer.line(format!(
                "      {} {}",
                printer.paint(styles::WARN, "asks for"),
                printer.paint(style, visible(permission))
            ))?;
        }
    }
    if !plan.changes.is_empty() {
        printer.line(summary(&plan.changes))?;
    }
    // Whoever changes something is to stop at the box; whoever only looks again is told in a line.
    let with_box = plan.is_trial() && !plan.changes.is_empty();
    for notice in plan.notices.iter().filter(|notice| !(with_box && is_trial_notice(notice))) {
        printer.line(format!("{} {}", printer.paint(styles::WARN, "note:"), visible(notice)))?;
    }
    if with_box { trial_box(printer, &plan.kubernetes_version) } else { Ok(()) }
}

fn sign(change: &ChangeView) -> (Style, &'static str) {
    match change.action {
        "create" => (ADD, "+"),
        "adopt" => (ADD, "*"),
        "update" => (MODIFY, "~"),
        "release" => (MODIFY, "*"),
        "replace" => (styles::BAD, "±"),
        "delete" => (styles::BAD, "-"),
        _ => (Style::new(), "?"),
    }
}

fn summary(changes: &[ChangeView]) -> String {
    let actions = ["create", "adopt", "update", "replace", "delete", "release"];
    let count = |action: &&str| changes.iter().filter(|change| *change.action == **action).count();
    let parts: Vec<_> = actions
        .iter()
        .map(|action| (count(action), action))
        .filter(|(count, _)| *count > 0)
        .map(|(count, action)| format!("{count} to {action}"))
        .collect();
    format!("{} change{}: {}", changes.len(), if changes.len() == 1 { "" } else { "s" }, parts.join(", "))
}

/// `v1.20.2` → `1.20`.
pub(super) fn minor(version: &str) -> String {
    let mut parts = version.trim_start_matches('v').splitn(3, '.');
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        _ => version.to_owned(),
    }
}

/// A box that cannot be missed.
pub(super) fn trial_box(printer: &Printer, version: &str) -> io::Result<()> {
    let lines = [
        format!("trial bundle, Kubernetes {}", visible(&minor(version))),
        "It was built for trying this out: old, unsupported, without security fixes.".to_owned(),
        "Keep no data in this cluster. For a real one: k8sctl bundle fetch, k8sctl image build, k8sctl down, k8sctl up."
            .to_owned(),
    ];
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let paint = |text: String| printer.paint(styles::BOX, text);
    printer.line("")?;
    printer.line(paint(format!("╔{}╗", "═".repeat(width + 4))))?;
    for line in lines {
        printer.line(paint(format!("║  {line:<width$}  ║")))?;
    }
    printer.line(paint(format!("╚{}╝", "═".repeat(width + 4))))?;
    printer.line("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions() {
        assert_eq!(["v1.20.2", "1.29", "x"].map(minor), ["1.20", "1.29", "x"]);
    }
}
