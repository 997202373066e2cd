//! `k8sctl kubeconfig`: an administrator's, printed or merged into the user's.

use k8sctl_proto::control::v1::GetKubeconfigRequest;
use k8sctl_types::failure::Failure;

use crate::agent;
use crate::cli::KubeconfigArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::kubeconfig;
use crate::output::{self, Format};
use crate::terminal::Context;

pub(super) async fn run(context: &Context, args: &KubeconfigArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let name = agent.cluster_name(context, args.name.as_deref()).await?;
    let request = GetKubeconfigRequest { cluster_name: name.clone() };
    let own = agent.clusters().get_kubeconfig(request).await?.into_inner().kubeconfig_yaml;
    if args.print {
        let text = kubeconfig::renamed(&context.source, &own, &name)?;
        match context.format {
            // It is YAML by itself, and for people too.
            Format::Json => output::document(context, &parsed(&text)?)?,
            _ => context.out.raw(text)?,
        }
        return Ok(Exit::Ok);
    }
    let installed = kubeconfig::install(&context.source, &own, &name, args.force_context).await?;
    if context.format.is_structured() {
        output::document(context, &installed)?;
        return Ok(Exit::Ok);
    }
    let (context_name, path) = (&installed.context, installed.path.display());
    context.out.line(format!("merged context {context_name} into {path}"))?;
    if installed.current {
        context.out.line("it is the current context: kubectl get nodes")?;
    } else {
        context.out.line(format!(
            "your current context stays; use it with: kubectl --context {context_name} get nodes"
        ))?;
        let force = context.source.command(&["kubeconfig", &name, "--force-context"]);
        context.out.line(format!("or make it the current one with: {force}"))?;
    }
    Ok(Exit::Ok)
}

fn parsed(text: &str) -> Result<serde_json::Value, Failure> {
    serde_yaml_ng::from_str(text)
        .map_err(|error| Failure::new("HOST-INTERNAL", "kubeconfig", error.to_string(), "report this"))
}
