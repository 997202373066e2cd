//! Which program a node's agent shall be, and how far it is with becoming that.

use std::sync::Arc;

use k8sctl_proto::node::v1::{AgentProgram, AgentReplacement};

use tokio::time::Instant;

use super::{Entry, NodeRegistry, Refused, lock};
use crate::nodes::caps::cut_replacement;

impl NodeRegistry {
    /// Sets the program that a node's agent shall be; `None` means: whichever runs. It is part of the node's desired state,
    /// from now on and in every later one.
    pub fn set_agent(&self, node_id: &str, agent: Option<AgentProgram>) {
        let mut nodes = lock(&self.nodes);
        if agent.is_none() && !nodes.contains_key(node_id) {
            // One that was removed is not to be known again.
            return;
        }
        let Entry { desired, agent: wanted, .. } = nodes.entry(node_id.to_owned()).or_default();
        wanted.clone_from(&agent);
        desired.send_if_modified(|current| {
            let Some(state) = current.as_mut().filter(|state| state.own.agent != agent) else { return false };
            state.own.agent = agent;
            state.own.generation += 1;
            true
        });
    }

    /// The program that a node's agent shall be.
    pub fn wanted_agent(&self, node_id: &str) -> Option<AgentProgram> {
        lock(&self.nodes).get(node_id)?.agent.clone()
    }

    /// The node's agent was refused a session, and why; and whether it can be replaced all the same.
    pub fn refused(&self, node_id: &str, reason: &str, can_be_replaced: bool) {
        let now = Refused { reason: reason.to_owned(), can_be_replaced, called: Instant::now() };
        let mut nodes = lock(&self.nodes);
        let view = &mut nodes.entry(node_id.to_owned()).or_default().view;
        let before = view.refused.replace(now);
        if before.is_some_and(|it| it.reason == reason && it.can_be_replaced == can_be_replaced) {
            return;
        }
        drop(nodes);
        self.touch();
    }

    /// An agent that is too old for a session says how far it is with being replaced.
    pub fn replacing(&self, node_id: &str, mut replacement: AgentReplacement) {
        cut_replacement(&mut replacement);
        let mut nodes = lock(&self.nodes);
        let Some(entry) = nodes.get_mut(node_id) else { return };
        entry.view.last_seen = Some(jiff::Timestamp::now());
        if entry.view.report.replacement.as_ref() == Some(&replacement) {
            return;
        }
        Arc::make_mut(&mut entry.view.report).replacement = Some(replacement);
        drop(nodes);
        self.touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::changes::changes;
    use crate::nodes::wanted::Wanted;
    use k8sctl_proto::node::v1::{DesiredState, Hello};

    fn program(attempt: &str) -> AgentProgram {
        AgentProgram { sha256: "ab".repeat(32), attempt: attempt.to_owned(), ..AgentProgram::default() }
    }

    #[test]
    fn the_program_stays_in_every_desired_state_until_it_is_taken_out() {
        let (sender, _changes) = changes();
        let registry = NodeRegistry::new(sender);
        let named = |name: &str| {
            let own = DesiredState { node_name: name.to_owned(), ..DesiredState::default() };
            Wanted::new(own, Arc::default())
        };
        registry.set_desired("a", named("one"));
        let session = registry.open_session("a", Hello::default());
        let told = || session.desired.borrow().clone().expect("a desired state").own;
        let before = told().generation;
        registry.set_agent("a", Some(program("first")));
        assert_eq!((told().agent, told().generation > before), (Some(program("first")), true));
        let before = told().generation;
        registry.set_agent("a", Some(program("first")));
        assert_eq!(told().generation, before, "the same is no change");
        registry.set_desired("a", named("two"));
        assert_eq!((told().node_name.as_str(), told().agent), ("two", Some(program("first"))));
        registry.set_agent("a", None);
        assert_eq!((told().agent, registry.wanted_agent("a")), (None, None));
    }

    #[test]
    fn a_refusal_is_told_until_there_is_a_session() {
        let (sender, _changes) = changes();
        let registry = NodeRegistry::new(sender);
        let version = registry.version();
        registry.refused("a", "too old", true);
        let once = *version.borrow();
        registry.refused("a", "too old", true);
        assert_eq!(*version.borrow(), once, "it dials again and again");
        let refused = registry.view("a").refused.expect("it was");
        assert_eq!((refused.reason.as_str(), refused.can_be_replaced), ("too old", true));
        let _session = registry.open_session("a", Hello::default());
        assert_eq!(registry.view("a").refused, None);
    }
}
