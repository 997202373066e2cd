//! What of a cluster its plugins keep from being as desired: plugins that are not Ready, agents that are too old for what
//! they need of nodes, and pods that are still on another pod network. Pure.

use host_plugins::{Handover, PluginState, PluginStatus};
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1::StepState;
use k8sctl_types::failure::Failure;
use k8sctl_types::protocol::Protocol;

use super::{Missing, Observed, step};
use crate::cluster::node_requirements::{of_node, pod_network};
use crate::nodes::registry::NodeView;
use crate::records::{ClusterRecord, NodeRecord, NodeState};

/// What still keeps the cluster from being as desired; `None` means: nothing.
pub(super) fn missing(cluster: &ClusterRecord, observed: &Observed) -> Option<Missing> {
    agent_missing(cluster, observed)
        .or_else(|| plugin_missing(cluster, observed))
        .or_else(|| network_missing(cluster, observed))
}

/// Why an operation ends badly now, if its plugins are a reason. Agents are replaced when no operation runs: one that is too
/// old would only be waited for until the deadline.
pub(super) fn failure(cluster: &ClusterRecord, observed: &Observed) -> Option<Failure> {
    let of_plugin = observed.converged.as_ref().and_then(|converged| converged.failed.as_ref());
    if let Some((_, failure)) = of_plugin {
        return Some(failure.clone());
    }
    let (node, protocol) = too_old(cluster, observed)?;
    let reason =
        format!("its agent speaks protocol {protocol} and passes over what plugins need of its node");
    let next = "give it this host's with `k8sctl upgrade agents`, then run `k8sctl up` again";
    Some(Failure::new("NODE-AGENT-OLD", format!("node {}", node.name), reason, next))
}

/// The first node whose agent passes over what plugins need of it, with the protocol that it speaks.
pub fn too_old<'c>(cluster: &'c ClusterRecord, observed: &Observed) -> Option<(&'c NodeRecord, Protocol)> {
    present(cluster).find_map(|node| {
        of_node(&cluster.plugins, &observed.needs, false)?;
        let protocol = protocol(observed.agents.get(&node.id)?)?;
        (!protocol.takes_requirements()).then_some((node, protocol))
    })
}

/// What an agent speaks, once it has said so.
fn protocol(view: &NodeView) -> Option<Protocol> {
    let hello = view.hello.as_ref()?;
    Some(Protocol { major: hello.protocol, minor: hello.protocol_minor })
}

/// Whether an agent has done what it was told last of the pod network, in this generation of its desired state.
pub fn has_settled(view: &NodeView, wanted: Option<u64>) -> bool {
    unsettled(view, wanted).is_none()
}

/// Why it has not, in one line. One that does not see what it is told has not, whatever it says of its steps.
fn unsettled(view: &NodeView, wanted: Option<u64>) -> Option<String> {
    if !view.connected {
        return Some("its agent has no session".to_owned());
    }
    let sees_it = protocol(view).filter(|protocol| protocol.takes_requirements());
    if sees_it.is_none() {
        let reason = "its agent is too old to be told: give it this host's with `k8sctl upgrade agents`";
        return Some(reason.to_owned());
    }
    if wanted.is_none_or(|wanted| view.report.observed_generation < wanted) {
        return Some("its agent takes in the desired state".to_owned());
    }
    let cni = step(view, "cni");
    if cni.is_some_and(|step| step.state() == StepState::Done) {
        return None;
    }
    let message = cni.map(|step| step.message.as_str()).filter(|message| !message.is_empty());
    Some(message.map_or_else(|| "its step cni is not done".to_owned(), |message| format!("cni: {message}")))
}

/// How far nodes are with making way for the pod network of a plugin. `wanted`: the generation that a node shall have
/// reached, by its id. A node that begins with that network has no routes of another, unless it is a member already: it may
/// have been told to go back in between.
pub fn handover(
    cluster: &ClusterRecord,
    observed: &Observed,
    wanted: impl Fn(&str) -> Option<u64>,
) -> Handover {
    let Some(network) = pod_network(&cluster.plugins, &observed.needs) else { return Handover::default() };
    let is_awaited = |node: &&NodeRecord| {
        node.pod_network != network.plugin || observed.kubernetes.nodes.contains_key(&node.name)
    };
    let unseen = NodeView::default();
    let waiting = |node: &NodeRecord| {
        let view = observed.agents.get(&node.id).unwrap_or(&unseen);
        Some((node.name.clone(), unsettled(view, wanted(&node.id))?))
    };
    let waiting = present(cluster).filter(is_awaited).filter_map(waiting).collect();
    Handover { plugin: network.plugin, waiting }
}

/// State and reason of a plugin, in one line.
pub fn plugin_line(status: &PluginStatus) -> String {
    let mut line = status.state.as_str().to_owned();
    if !status.message.is_empty() {
        line = format!("{line}: {}", status.message);
    }
    if let Some(blocking) = &status.blocking {
        let pod = blocking.pod.as_ref().map(|pod| format!(" ({pod})")).unwrap_or_default();
        line = format!("{line}: {}: {}{pod}", blocking.object, blocking.reason);
    }
    line
}

/// A line of each plugin of the spec in the progress of an operation.
pub fn plugin_progress(
    cluster: &ClusterRecord,
    observed: &Observed,
) -> impl Iterator<Item = control::Progress> {
    cluster.plugins.iter().map(move |pinned| {
        let status = observed.plugins.iter().find(|status| status.name == pinned.name);
        let waits =
            observed.converged.iter().flat_map(|it| &it.waiting).find(|(name, _)| *name == pinned.name);
        let state = status.map_or(PluginState::Pending, |status| status.state);
        let line = status.map(plugin_line).unwrap_or_default();
        let line = line.strip_prefix(state.as_str()).map(|line| line.trim_start_matches(": ").to_owned());
        control::Progress {
            object: format!("plugin {}", pinned.name),
            phase: state.as_str().to_owned(),
            message: line
                .filter(|line| !line.is_empty())
                .or_else(|| waits.map(|(_, why)| why.clone()))
                .unwrap_or_default(),
            done: state == PluginState::Ready && waits.is_none(),
            ..control::Progress::default()
        }
    })
}

fn agent_missing(cluster: &ClusterRecord, observed: &Observed) -> Option<Missing> {
    let (node, protocol) = too_old(cluster, observed)?;
    let reason = format!(
        "its agent speaks protocol {protocol} and knows nothing of what plugins need of it: give it this host's with \
         `k8sctl upgrade agents`"
    );
    Some(Missing { object: format!("node {}", node.name), reason })
}

fn plugin_missing(cluster: &ClusterRecord, observed: &Observed) -> Option<Missing> {
    let of = |name: &str, reason: String| Some(Missing { object: format!("plugin {name}"), reason });
    if let Some((name, why)) = observed.converged.as_ref().and_then(|converged| converged.waiting.first()) {
        return of(name, why.clone());
    }
    cluster.plugins.iter().find_map(|pinned| {
        match observed.plugins.iter().find(|status| status.name == pinned.name) {
            None => of(&pinned.name, "it is not installed yet".to_owned()),
            Some(status) if status.state == PluginState::Ready => None,
            Some(status) => of(&pinned.name, plugin_line(status)),
        }
    })
}

/// While the network that is wanted is not ready, the plugin that brings it is waited for.
fn network_missing(cluster: &ClusterRecord, observed: &Observed) -> Option<Missing> {
    let network = pod_network(&cluster.plugins, &observed.needs);
    let (plugin, can_be) = network.map_or((String::new(), true), |it| (it.plugin, it.was_ready));
    let node = present(cluster).find(|node| node.pod_network != plugin).filter(|_| can_be)?;
    let of_it = observed.restart.as_ref().filter(|(node_id, _)| *node_id == node.id);
    let reason = match of_it {
        Some((_, left)) => format!(
            "{} pods of it are on the pod network of before, first {}: {}",
            left.count, left.first, left.why
        ),
        None if plugin.is_empty() => {
            "its pods are still to be made anew for the built-in pod network".to_owned()
        }
        None => format!("its pods are still to be made anew for the pod network {plugin}"),
    };
    Some(Missing { object: format!("node {}", node.name), reason })
}

fn present(cluster: &ClusterRecord) -> impl Iterator<Item = &NodeRecord> {
    cluster.nodes.iter().filter(|node| node.state == NodeState::Present)
}
