//! What `up` and `down` share: waiting for an operation and telling how it ended.

use jiff::Timestamp;
use k8sctl_types::failure::Failure;

use crate::agent::Agent;
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::progress;
use crate::terminal::{Context, duration};
use crate::view::OperationView;

/// The failure of an operation that has given way to a newer one.
const SUPERSEDED: &str = "OPERATION-SUPERSEDED";

/// Watches the operation. A failed one is shown here; the caller sees it in the state.
pub(super) async fn wait(
    context: &Context,
    agent: &Agent,
    id: &str,
    again: &str,
) -> Result<OperationView, Ended> {
    let operation = progress::watch(context, agent, id, again).await?;
    if operation.state == "failed" {
        let failure = operation.failure.as_ref().map_or_else(
            || Failure::new("HOST-INTERNAL", format!("operation {id}"), "it failed without a reason", ""),
            Failure::from,
        );
        context.err.line("")?;
        ended::print(&context.err, "error", &failure)?;
        // To run it again would undo what has replaced it.
        if failure.id != SUPERSEDED {
            context.err.line(format!("what was done is kept; go on from there with: {again}"))?;
        }
    }
    Ok(operation)
}

/// How long it took, `4m12s`.
pub(super) fn took(operation: &OperationView) -> String {
    let parse = |time: &Option<String>| time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
    let Some(started) = parse(&operation.started) else { return "an unknown time".to_owned() };
    let finished = parse(&operation.finished).unwrap_or_else(Timestamp::now);
    duration(finished.as_second() - started.as_second())
}

/// The exit code of an operation that ended.
pub(super) fn exit(operation: &OperationView) -> Exit {
    if operation.state == "succeeded" { Exit::Ok } else { Exit::Failed }
}
