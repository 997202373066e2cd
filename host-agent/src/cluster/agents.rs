//! Gives the nodes of a cluster the node agent that this host has, one after the other.
//!
//! What is wanted is in the node's desired state as long as this waits for it. It is in no record: after a restart of the
//! host agent a node on trial goes on by itself, and the command, given again, finds out how far each one is.

use std::sync::Arc;
use std::time::Duration;

use k8sctl_proto::control::v1::{UpgradeAgentsResponse, UpgradeState};
use k8sctl_proto::node::v1::{AgentProgram, AgentReplacement, ReplacementState};
use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;
use k8sctl_types::protocol::Protocol;
use k8sctl_types::spec::Role;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::Instant;
use tonic::Status;

use super::manager::RequestError;
use super::shared::Shared;
use crate::events::NewEvent;
use crate::nodes::agent_file::AgentFile;
use crate::nodes::registry::NodeView;
use crate::records::{ClusterRecord, NodeRecord, NodeState};
use crate::wire;

/// How long a new agent may take until it has a session, unless the caller says otherwise.
const SESSION: Duration = Duration::from_secs(90);
/// The longest that it may.
const MOST_SESSION: Duration = Duration::from_secs(60 * 60);
/// Longest that the program may be on its way to a node, and what comes around it may take.
const FETCH: Duration = Duration::from_secs(12 * 60);
/// Two restarts of the agent, and the way of its words.
const SLACK: Duration = Duration::from_secs(60);
/// How long a node that has not begun to try its new agent may say nothing: a boot on a slow machine.
const AWAY: Duration = Duration::from_secs(4 * 60);
/// An agent that was refused a session dials again within that.
const CALLS_WITHIN: Duration = Duration::from_secs(3 * 60);

/// Which nodes get which agent. Held by one caller at a time.
pub struct AgentUpgrade {
    shared: Arc<Shared>,
    cluster: String,
    nodes: Vec<NodeRecord>,
    program: AgentProgram,
    session: Duration,
    _alone: OwnedMutexGuard<()>,
}

/// How a node stands towards the program that its agent shall be.
#[derive(Debug, PartialEq)]
enum Standing {
    /// It is that.
    Done,
    /// It goes on.
    Going(String),
    /// It did not become that.
    Failed { id: &'static str, reason: String, next_step: &'static str },
}

impl AgentUpgrade {
    /// Decides on the nodes; they become what `file` is. `names` empty means: all of them.
    pub async fn plan(
        shared: &Arc<Shared>,
        record: &ClusterRecord,
        names: &[String],
        session: Option<Duration>,
        file: &AgentFile,
        alone: Arc<tokio::sync::Mutex<()>>,
    ) -> Result<Self, RequestError> {
        let object = || format!("cluster {}", record.name);
        if shared.running_operation(&record.id).await?.is_some() {
            let next = "wait for its end with `k8sctl status -w`, then run the command again";
            let reason = "an operation changes it now; agents are replaced when none does";
            return Err(Failure::new("OPERATION-RUNNING", object(), reason, next).into());
        }
        let alone = alone.try_lock_owned().map_err(|_| {
            let next = "watch it with `k8sctl events -f`, and run the command again when it has ended";
            Failure::new(
                "OPERATION-RUNNING",
                object(),
                "agents of this host's nodes are being replaced",
                next,
            )
        })?;
        let nodes = select(record, names)?;
        let program = file.look().await?;
        let session = session.filter(|session| !session.is_zero()).unwrap_or(SESSION).min(MOST_SESSION);
        let shared = Arc::clone(shared);
        Ok(Self { shared, cluster: record.name.clone(), nodes, program, session, _alone: alone })
    }

    /// Does it. Whoever asked may go meanwhile.
    pub async fn run(
        self,
        sender: mpsc::Sender<Result<UpgradeAgentsResponse, Status>>,
    ) -> Result<(), Status> {
        let mut failed = None;
        for node in &self.nodes {
            let response = match &failed {
                Some(before) => UpgradeAgentsResponse {
                    state: UpgradeState::Skipped.into(),
                    message: format!("not tried, since the agent of {before} was not replaced"),
                    ..UpgradeAgentsResponse::default()
                },
                None => self.upgrade(node, &sender).await,
            };
            // A node that is away, or whose agent cannot be replaced, says nothing of the program; one on which it failed
            // does.
            let was_tried = response.failure.as_ref().is_some_and(|it| !is_untried(&it.id));
            if response.state() == UpgradeState::Failed && was_tried {
                failed = Some(node.name.clone());
            }
            say(&sender, node, response).await;
        }
        Ok(())
    }

    /// One node, to its end.
    async fn upgrade(
        &self,
        node: &NodeRecord,
        sender: &mpsc::Sender<Result<UpgradeAgentsResponse, Status>>,
    ) -> UpgradeAgentsResponse {
        let view = self.shared.registry.view(&node.id);
        if let Some(standing) = before(&view, &self.program.sha256) {
            return ended(node, standing, "it runs this host's agent already");
        }
        let program = AgentProgram {
            attempt: uuid::Uuid::new_v4().to_string(),
            session_deadline: prost_types::Duration::try_from(self.session).ok(),
            ..self.program.clone()
        };
        self.shared.registry.set_agent(&node.id, Some(program.clone()));
        let standing = self.wait(node, &program, sender).await;
        self.shared.registry.set_agent(&node.id, None);
        let response = ended(node, standing, "it runs this host's agent now");
        let is_done = response.failure.is_none();
        let message = match &response.failure {
            None => format!("its agent is this host's now, {}", short(&program.sha256)),
            Some(failure) => format!("its agent was not replaced: {}", failure.reason),
        };
        let event = NewEvent {
            cluster: self.cluster.clone(),
            object: format!("node {}", node.name),
            kind: if is_done { EventType::AgentReplaced } else { EventType::AgentNotReplaced },
            message,
            warning: !is_done,
        };
        self.shared.events.record(event).await;
        response
    }

    async fn wait(
        &self,
        node: &NodeRecord,
        program: &AgentProgram,
        sender: &mpsc::Sender<Result<UpgradeAgentsResponse, Status>>,
    ) -> Standing {
        let end = Instant::now() + FETCH + self.session + SLACK;
        let (mut version, mut told) = (self.shared.registry.version(), String::new());
        let (mut heard, mut last_seen) = (Instant::now(), None);
        let mut was_tried = false;
        loop {
            version.mark_unchanged();
            if self.shared.registry.is_connected(&node.id).is_none() {
                return Standing::Failed {
                    id: "NODE-NOT-CONNECTED",
                    reason: "the node was removed".to_owned(),
                    next_step: "nothing: it has no agent any more",
                };
            }
            let view = self.shared.registry.view(&node.id);
            let mut text = match judge(&view, program) {
                Standing::Going(text) => text,
                standing => return standing,
            };
            // One that is too old for a session is seen all the same.
            let called = view.refused.as_ref().map(|refused| refused.called);
            if view.connected || view.last_seen != last_seen {
                (heard, last_seen) = (Instant::now(), view.last_seen);
            }
            heard = heard.max(called.unwrap_or(heard));
            // On trial it goes on by itself, and may lose its power in between.
            was_tried |= is_on_trial(&view, program);
            let until = if was_tried { end } else { end.min(heard + AWAY) };
            if until < end && Instant::now() >= until {
                return away();
            }
            if until < end && !view.connected && view.refused.is_none() {
                text.push_str("; it has no session now");
            }
            if text != told {
                let message = text.clone();
                let state = UpgradeState::Running.into();
                say(sender, node, UpgradeAgentsResponse { state, message, ..Default::default() }).await;
                told = text;
            }
            // Cancel-safe: an unseen change stays unseen.
            match tokio::time::timeout_at(until, version.changed()).await {
                Ok(Ok(())) => {}
                Err(_) if Instant::now() < end => {}
                Ok(Err(_)) | Err(_) => {
                    return Standing::Failed {
                        id: "NODE-AGENT-DEADLINE",
                        reason: format!("it did not come to an end in time; last it was: {told}"),
                        next_step: "look at the node with `k8sctl node describe NAME`, then run the command again",
                    };
                }
            }
        }
    }
}

/// Workers first: what goes wrong goes wrong there.
fn select(record: &ClusterRecord, names: &[String]) -> Result<Vec<NodeRecord>, Failure> {
    let present = || record.nodes.iter().filter(|node| node.state == NodeState::Present);
    for name in names {
        if !present().any(|node| node.name == *name) {
            let known: Vec<&str> = present().map(|node| node.name.as_str()).collect();
            return Err(Failure::new(
                "NODE-UNKNOWN",
                format!("node {name}"),
                format!("cluster {} has no node of that name", record.name),
                format!("the nodes are: {}", known.join(", ")),
            ));
        }
    }
    let is_wanted = |node: &&NodeRecord| names.is_empty() || names.contains(&node.name);
    let mut nodes: Vec<NodeRecord> = present().filter(is_wanted).cloned().collect();
    nodes.sort_by_key(|node| node.spec.role == Role::ControlPlane);
    Ok(nodes)
}

/// Whether a failure of this id says that the program was not tried on the node.
fn is_untried(id: &str) -> bool {
    ["NODE-NOT-CONNECTED", "NODE-AGENT-FIXED"].contains(&id)
}

/// Whether it has begun to try the program.
fn is_on_trial(view: &NodeView, program: &AgentProgram) -> bool {
    let replacement = view.report.replacement.as_ref().filter(|it| it.attempt == program.attempt);
    replacement.is_some_and(|it| it.state() != ReplacementState::Fetching)
}

fn away() -> Standing {
    Standing::Failed {
        id: "NODE-NOT-CONNECTED",
        reason: format!("its agent has had no session for {} minutes", AWAY.as_secs() / 60),
        next_step: "see why with `k8sctl status`, then run the command again for this node",
    }
}

/// What is known of a node without asking it for anything; `None` means: it is to be asked.
fn before(view: &NodeView, sha256: &str) -> Option<Standing> {
    let Some(hello) = view.hello.as_ref().filter(|_| view.connected) else {
        // One that is too old for a session calls all the same, as long as it runs.
        let calls = view.refused.as_ref().filter(|refused| refused.called.elapsed() < CALLS_WITHIN);
        if let Some(refused) = calls {
            return (!refused.can_be_replaced).then(|| Standing::Failed {
                id: "NODE-AGENT-FIXED",
                reason: "its agent cannot replace itself by one that this host agent speaks with".to_owned(),
                next_step: "see what it speaks with `k8sctl node describe NAME`; for this host's agent, build a new image \
                            with `k8sctl image build -f FILE`, then `k8sctl down` and `k8sctl up`",
            });
        }
        return Some(Standing::Failed {
            id: "NODE-NOT-CONNECTED",
            reason: "its agent has no session".to_owned(),
            next_step: "see why with `k8sctl status`, then run the command again for this node",
        });
    };
    if hello.program_sha256 == sha256 {
        return Some(Standing::Done);
    }
    let protocol = Protocol { major: hello.protocol, minor: hello.protocol_minor };
    if !protocol.can_be_replaced() || hello.program_sha256.is_empty() {
        return Some(Standing::Failed {
            id: "NODE-AGENT-FIXED",
            reason: format!("its agent (protocol {protocol}) cannot replace itself"),
            next_step: "it goes on as it is; for this host's, build a new image with `k8sctl image build -f FILE`, then \
                        `k8sctl down` and `k8sctl up`",
        });
    }
    None
}

/// How far a node is.
fn judge(view: &NodeView, program: &AgentProgram) -> Standing {
    let ours = view.report.replacement.as_ref().filter(|it| it.attempt == program.attempt);
    let runs = view.hello.as_ref().is_some_and(|hello| hello.program_sha256 == program.sha256);
    let Some(ours) = ours else {
        // An attempt before this one went on by itself, and ended well.
        let before = view.report.replacement.as_ref().map(AgentReplacement::state);
        if view.connected && runs && before == Some(ReplacementState::Replaced) {
            return Standing::Done;
        }
        return Standing::Going("waiting for its agent".to_owned());
    };
    match ours.state() {
        ReplacementState::Replaced if view.connected && runs => Standing::Done,
        // Whose copy was gone cannot come back.
        ReplacementState::RolledBack if runs => Standing::Failed {
            id: "NODE-AGENT-NOT-BACK",
            reason: format!("{}; it runs on", ours.message),
            next_step: "see what it said with `k8sctl logs NODE --unit k8s-node-agent.service`, then run the command again \
                        with an agent that is well",
        },
        ReplacementState::RolledBack => Standing::Failed {
            id: "NODE-AGENT-ROLLED-BACK",
            reason: format!("{}; the agent before it is back", ours.message),
            next_step: "see what it said with `k8sctl logs NODE --unit k8s-node-agent.service`; the other nodes keep theirs",
        },
        ReplacementState::Failed => Standing::Failed {
            id: "NODE-AGENT-FAILED",
            reason: format!("{}; the agent that ran goes on", ours.message),
            next_step: "mend that, then run the command again",
        },
        ReplacementState::Fetching => Standing::Going(format!("fetching {}", ours.message)),
        ReplacementState::OnTrial if ours.message.is_empty() => {
            Standing::Going("on trial, until it has a session".to_owned())
        }
        ReplacementState::OnTrial => Standing::Going(format!("going back: {}", ours.message)),
        ReplacementState::Replaced | ReplacementState::Unspecified => {
            Standing::Going("waiting for its session".to_owned())
        }
    }
}

fn ended(node: &NodeRecord, standing: Standing, done: &str) -> UpgradeAgentsResponse {
    match standing {
        Standing::Failed { id, reason, next_step } => {
            let failure = Failure::new(id, format!("node {}", node.name), reason, next_step);
            UpgradeAgentsResponse {
                state: UpgradeState::Failed.into(),
                message: failure.reason.clone(),
                failure: Some(wire::failure(&failure)),
                ..UpgradeAgentsResponse::default()
            }
        }
        Standing::Done | Standing::Going(_) => UpgradeAgentsResponse {
            state: UpgradeState::Done.into(),
            message: done.to_owned(),
            ..UpgradeAgentsResponse::default()
        },
    }
}

async fn say(
    sender: &mpsc::Sender<Result<UpgradeAgentsResponse, Status>>,
    node: &NodeRecord,
    response: UpgradeAgentsResponse,
) {
    // The client may be gone; the nodes are not.
    let _ = sender.send(Ok(UpgradeAgentsResponse { node_name: node.name.clone(), ..response })).await;
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests;
