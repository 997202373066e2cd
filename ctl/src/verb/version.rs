//! `k8sctl version`: of this program, and of the host agent where one runs. Starts none.

use k8sctl_proto::control::v1::GetVersionRequest;

use crate::agent;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, visible};
use crate::view::{ProgramView, VersionView};

/// Control protocol that this program speaks.
const PROTOCOL: u32 = 1;

pub(super) async fn run(context: &Context, client_only: bool) -> Result<Exit, Ended> {
    let k8sctl = ProgramView { version: env!("CARGO_PKG_VERSION").to_owned(), protocol: PROTOCOL };
    let asked = if client_only { None } else { Some(ask(context).await) };
    let host_agent = asked.as_ref().and_then(|asked| asked.as_ref().ok()).cloned();
    let version = VersionView { k8sctl, host_agent };
    if context.format.is_structured() {
        output::document(context, &version)?;
        return Ok(Exit::Ok);
    }
    let line = |name: &str, program: &ProgramView| {
        context.out.line(format!("{name:<11} {} (protocol {})", visible(&program.version), program.protocol))
    };
    line("k8sctl", &version.k8sctl)?;
    match asked {
        None => {}
        Some(Ok(host_agent)) => line("host agent", &host_agent)?,
        Some(Err(Ended::Problem(problem))) => {
            context.out.line(format!("host agent  - ({})", visible(&problem.failure.reason)))?
        }
        Some(Err(other)) => return Err(other),
    }
    Ok(Exit::Ok)
}

async fn ask(context: &Context) -> Result<ProgramView, Ended> {
    let agent = agent::connect_running(context).await?;
    let answer = agent.host().get_version(GetVersionRequest {}).await?.into_inner();
    Ok(ProgramView { version: answer.version, protocol: answer.protocol })
}
