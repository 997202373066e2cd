//! `k8sctl doctor`: everything that this host must provide.

use k8sctl_proto::control::v1::DoctorRequest;

use crate::agent;
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, Printer, styles, visible};
use crate::view::CheckView;

pub(super) async fn run(context: &Context) -> Result<Exit, Ended> {
    let agent = match agent::connect(context).await {
        Ok(agent) => agent,
        Err(Ended::Problem(problem)) => {
            let check = CheckView {
                id: "host-agent".to_owned(),
                state: "failed",
                message: problem.failure.reason.clone(),
                hint: Some(problem.failure.next_step.clone()),
            };
            if context.format.is_structured() {
                output::document(context, &[check])?;
            } else {
                print(&context.out, &check)?;
            }
            ended::print(&context.err, "error", &problem.failure)?;
            return Err(Ended::Reported(problem.exit));
        }
        Err(other) => return Err(other),
    };
    let checks = agent.host().doctor(DoctorRequest {}).await?.into_inner().checks;
    let checks: Vec<_> = checks.into_iter().map(CheckView::from).collect();
    let count = |state: &str| checks.iter().filter(|check| check.state == state).count();
    let (failed, warnings) = (count("failed"), count("warning"));
    if context.format.is_structured() {
        output::document(context, &checks)?;
    } else {
        checks.iter().try_for_each(|check| print(&context.out, check))?;
        let (style, verdict) = match (failed, warnings) {
            (0, 0) => (styles::GOOD, "all is well".to_owned()),
            (0, n) => (styles::WARN, format!("usable, with {n} warning(s)")),
            (n, _) => (
                styles::BAD,
                format!("{n} check(s) failed: `k8sctl up` will not work before they are mended"),
            ),
        };
        context.out.line(format!("\n{}", context.out.paint(style, verdict)))?;
    }
    Ok(if failed > 0 { Exit::Failed } else { Exit::Ok })
}

fn print(out: &Printer, check: &CheckView) -> std::io::Result<()> {
    let (style, mark) = match check.state {
        "ok" => (styles::GOOD, "✓"),
        "warning" => (styles::WARN, "!"),
        "failed" => (styles::BAD, "✗"),
        _ => (styles::DIM, "-"),
    };
    out.line(format!("{} {:<28} {}", out.paint(style, mark), visible(&check.id), visible(&check.message)))?;
    match &check.hint {
        Some(hint) if check.state != "ok" => out.line(format!("  {:<28} next: {}", "", visible(hint))),
        _ => Ok(()),
    }
}
