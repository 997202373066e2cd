//! All that an agent gets that is too old for a session: it is told to become this host's, and heard on how far that is.

use std::sync::Arc;

use k8sctl_proto::node::v1::{AgentMessage, AgentProgram, HostMessage, agent_message, host_message};
use tokio::time::sleep;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::registry::NodeRegistry;
use super::service::{MESSAGE_PAUSE, Outbound};

/// Until either end goes, or nobody wants it to be replaced any more.
pub(super) async fn replace(
    registry: Arc<NodeRegistry>,
    node_id: String,
    program: AgentProgram,
    mut inbound: impl Stream<Item = Result<AgentMessage, Status>> + Unpin,
    outbound: Outbound,
) {
    tracing::info!(node.id = %node_id, "an agent that is too old is told to be replaced");
    let attempt = program.attempt.clone();
    let message = Some(host_message::Message::ReplaceAgent(program));
    if outbound.send(Box::new(HostMessage { message })).await.is_err() {
        return;
    }
    // It reports at least every ten seconds.
    while let Some(Ok(AgentMessage { message })) = inbound.next().await {
        if registry.wanted_agent(&node_id).is_none_or(|wanted| wanted.attempt != attempt) {
            return;
        }
        if let Some(agent_message::Message::Status(report)) = message
            && let Some(replacement) = report.replacement
        {
            registry.replacing(&node_id, replacement);
        }
        sleep(MESSAGE_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::changes::changes;
    use k8sctl_proto::node::v1::{AgentReplacement, ReplacementState, StatusReport};
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn it_is_told_one_thing_and_heard_on_that_alone() {
        let (sender, _changes) = changes();
        let registry = NodeRegistry::new(sender);
        let program = AgentProgram { attempt: "one".to_owned(), ..AgentProgram::default() };
        registry.set_agent("a", Some(program.clone()));
        let (outbound, mut sent) = mpsc::channel(4);
        let replacement = AgentReplacement {
            attempt: "one".to_owned(),
            state: ReplacementState::OnTrial.into(),
            ..AgentReplacement::default()
        };
        let report = StatusReport {
            observed_generation: 7,
            replacement: Some(replacement.clone()),
            ..StatusReport::default()
        };
        let message = Some(agent_message::Message::Status(report));
        let reports = tokio_stream::iter([Ok(AgentMessage { message })]);
        replace(Arc::clone(&registry), "a".to_owned(), program.clone(), reports, outbound).await;
        let told = sent.recv().await.expect("a message").message;
        assert_eq!(told, Some(host_message::Message::ReplaceAgent(program)));
        assert!(sent.recv().await.is_none());
        let view = registry.view("a");
        assert!(!view.connected, "it has no session");
        assert_eq!(
            (view.report.replacement.as_ref(), view.report.observed_generation),
            (Some(&replacement), 0)
        );
    }
}
