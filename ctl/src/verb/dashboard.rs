//! `k8sctl dashboard`: everything of a cluster at once, live, in the terminal or in a browser.

use k8sctl_types::failure::Failure;
use tokio::sync::watch;

use crate::agent;
use crate::cli::DashboardArgs;
use crate::dashboard::model::{Model, News};
use crate::dashboard::{source, tui, web};
use crate::ended::Ended;
use crate::exit::Exit;
use crate::terminal::Context;

pub(super) async fn run(context: &Context, args: &DashboardArgs) -> Result<Exit, Ended> {
    if !args.web {
        on_a_terminal(context, args.name.as_deref())?;
    }
    let agent = agent::connect(context).await?;
    let name = agent.cluster_name(context, args.name.as_deref()).await?;
    // What cannot be seen at all ends it here, with the reason; later nothing does.
    let status = agent.status(&name).await?;
    let mut model = Model::new(&name);
    model.apply(News::Status(status), jiff::Timestamp::now());
    let models = watch::Sender::new(model);
    let sources = source::run(&agent, &name, &models);
    match args.web {
        true => web::run(context, &name, args.port, models.subscribe(), sources).await,
        false => tui::run(context.out.color, models.subscribe(), sources).await,
    }
}

/// It is drawn for a person who has keys.
fn on_a_terminal(context: &Context, name: Option<&str>) -> Result<(), Ended> {
    let watch: Vec<&str> = ["status", "-w"].into_iter().chain(name).collect();
    let watch = |more: &[&str]| context.source.command(&[&watch[..], more].concat());
    let (reason, next) = if context.format.is_structured() {
        let reason = "it is drawn for people and has no JSON or YAML";
        (reason, format!("programs get the same from: {}", watch(&["-o", "json"])))
    } else if context.out.tty {
        return Ok(());
    } else {
        let reason = match context.out.terminal {
            true => "nothing can be drawn on this terminal: TERM is dumb",
            false => "standard output is no terminal",
        };
        (reason, format!("watch the cluster with: {}; or in a browser, with --web", watch(&[])))
    };
    Err(Ended::with(Exit::Usage, Failure::new("HOST-TERMINAL", "dashboard", reason, next)))
}
