//! Without an operation: what of a cluster is there already and shall run is started, and nothing else is done.
//!
//! Nobody looks at what comes of it, so that one node's obstacle must not keep the others from being started.

use k8sctl_types::failure::Failure;
use k8sctl_types::spec::Role;

use super::{network, nodes, storage, taps};
use crate::adoption::Adoption;
use crate::change::{HostChange, HostOp};
use crate::desired::{DesiredHost, DesiredNode};
use crate::observed::ObservedHost;

/// What is to be started, and what is not.
#[derive(Clone, Debug, PartialEq)]
pub struct StartPlan {
    /// Starts of what is defined already; running VMs back onto their bridge. Empty means: all that can run does.
    pub changes: Vec<HostChange>,
    /// What stands in the way of a node that is left out: of the first one.
    pub refused: Option<Failure>,
}

/// The changes that start what of the cluster is there already. A node in whose way something stands is left out; what
/// stands in the way of all of them is a failure.
pub fn plan_starts(
    desired: &DesiredHost,
    observed: &ObservedHost,
    adopted: &Adoption,
) -> Result<StartPlan, Failure> {
    let plan = |nodes: &[&DesiredNode]| plan_there(&with_nodes(desired, nodes), observed, adopted);
    // As a rule nothing stands in any node's way, and then one plan of all of them is enough.
    let all: Vec<&DesiredNode> = desired.nodes.iter().collect();
    if let Ok(changes) = plan(&all) {
        return Ok(StartPlan { changes: starts(desired, observed, changes), refused: None });
    }
    let (mut able, mut refused) = (Vec::new(), None);
    for node in &desired.nodes {
        match plan(&[node]) {
            Ok(_) => able.push(node),
            Err(failure) => refused = refused.or(Some(failure)),
        }
    }
    Ok(StartPlan { changes: starts(desired, observed, plan(&able)?), refused })
}

/// What of these only starts something, the control plane's VM before all others: these need it.
fn starts(desired: &DesiredHost, observed: &ObservedHost, mut changes: Vec<HostChange>) -> Vec<HostChange> {
    changes.retain(|change| only_starts(&change.op, observed));
    let is_control_plane = |name: &str| {
        let node = desired.nodes.iter().find(|node| node.spec.name == name);
        node.is_some_and(|node| node.spec.role == Role::ControlPlane)
    };
    let waits = |op: &HostOp| matches!(op, HostOp::StartDomain { domain } if !is_control_plane(&domain.name));
    changes.sort_by_key(|change| waits(&change.op));
    changes
}

/// The same with these of its nodes; what there is of the others stays as it is.
fn with_nodes(desired: &DesiredHost, nodes: &[&DesiredNode]) -> DesiredHost {
    let others = desired.nodes.iter().filter(|node| !nodes.iter().any(|it| it.node_id == node.node_id));
    let leaving = desired.leaving.iter().cloned().chain(others.map(|node| node.spec.clone())).collect();
    let nodes = nodes.iter().map(|node| (*node).clone()).collect();
    DesiredHost { nodes, leaving, ..desired.clone() }
}

/// What an `up` would do, but for image files and the room that they and new disks need: nothing is made here.
fn plan_there(
    desired: &DesiredHost,
    observed: &ObservedHost,
    adopted: &Adoption,
) -> Result<Vec<HostChange>, Failure> {
    let network = network::plan_network_there(desired, observed, adopted)?;
    let nodes = nodes::plan_nodes(desired, observed)?;
    let mut changes = storage::plan_pool(desired, observed)?;
    let taps = taps::plan_taps(desired, observed, &network.changes, &nodes.deletes);
    changes.extend(network.changes);
    changes.extend(taps);
    changes.extend(nodes.creates);
    Ok(changes)
}

/// Whether an effect only starts what is defined already, or plugs it in again.
fn only_starts(op: &HostOp, host: &ObservedHost) -> bool {
    match op {
        // One that an `up` would replace is another machine.
        HostOp::StartDomain { domain } => {
            host.domain(&domain.name).is_some_and(|seen| seen.uuid.eq_ignore_ascii_case(&domain.uuid))
        }
        HostOp::StartNetwork { name } => host.network(name).is_some(),
        HostOp::StartPool { .. } => host.pool.is_some(),
        // A network that was undefined comes back with an `up` only; until then there is no bridge.
        HostOp::AttachTap { bridge, .. } => {
            host.networks.iter().any(|network| network.bridge.as_ref() == Some(bridge))
        }
        _ => false,
    }
}
