//! What an operation may destroy: what a person saw in its plan and agreed to, and nodes that leave. Pure.
//!
//! What was agreed to is kept with the operation, so that each of its looks, and the next host agent, go by it.

use host_hypervisor::change::{HostChange, HostPlan, Kind};
use host_hypervisor::desired::volume_name;
use k8sctl_proto::control::v1 as control;
use k8sctl_types::failure::Failure;

use super::planning::{plan_changed, shown_name};
use crate::records::{Agreed, ClusterRecord, NodeState, OperationRecord};

/// Refuses a plan that is not the one seen, or that destroys without leave.
pub(super) fn consent(
    plan: &control::Plan,
    seen_digest: &str,
    allow_destructive: bool,
) -> Result<(), Failure> {
    if !seen_digest.is_empty() && seen_digest != plan.digest {
        return Err(plan_changed(&plan.cluster_name));
    }
    let Some(change) = plan.changes.iter().find(|change| change.destructive) else { return Ok(()) };
    if allow_destructive {
        return Ok(());
    }
    Err(Failure::new(
        "PLAN-CONSENT",
        format!("{} {}", change.kind, change.name),
        format!("the plan would {} it: {}", wire_action_word(change.action()), change.reason),
        "look at `k8sctl plan`, then say so with `k8sctl up --yes`",
    ))
}

fn wire_action_word(action: control::Action) -> &'static str {
    match action {
        control::Action::Delete => "delete",
        control::Action::Replace => "replace",
        _ => "change",
    }
}

/// What a person agrees to with a plan.
pub(super) fn destroyed(plan: &HostPlan) -> Vec<Agreed> {
    let mut agreed: Vec<Agreed> = Vec::new();
    for change in plan.changes.iter().filter(|change| change.destructive) {
        if !agreed.iter().any(|it| is_about(it, change)) {
            agreed.push(Agreed { kind: change.kind, name: change.name.clone() });
        }
    }
    agreed
}

/// Refuses changes that destroy what nobody agreed to lose: somebody changed the host while the operation ran.
///
/// An object that was agreed to is given up as a whole, so that after a kill in the middle of its replacement, where
/// the plan has another reason, the rest is still done. What goes with a node that leaves was agreed to with the node.
pub(super) fn refuse_unagreed(
    cluster: &ClusterRecord,
    operation: &OperationRecord,
    changes: &[HostChange],
) -> Result<(), Failure> {
    let leaves = |change: &HostChange| {
        cluster.nodes.iter().filter(|node| node.state != NodeState::Present).any(|node| match change.kind {
            Kind::Domain => change.name == node.name,
            Kind::Volume => change.name == volume_name(&cluster.id, &node.name),
            _ => false,
        })
    };
    let is_agreed = |change: &HostChange| operation.agreed.iter().any(|it| is_about(it, change));
    let unagreed = changes.iter().find(|change| change.destructive && !leaves(change) && !is_agreed(change));
    let Some(change) = unagreed else { return Ok(()) };
    let HostChange { action, kind, reason, .. } = change;
    Err(Failure::new(
        "PLAN-CONSENT",
        format!("{kind} {}", shown_name(&change.name, &cluster.id)),
        format!("it changed while this ran, and to {action} it was not agreed to: {reason}"),
        "put it back as it was, or run `k8sctl up` again: it shows what would be lost, and asks",
    ))
}

fn is_about(agreed: &Agreed, change: &HostChange) -> bool {
    agreed.kind == change.kind && agreed.name == change.name
}

#[cfg(test)]
mod tests {
    use host_hypervisor::change::{Action, HostOp};

    use super::*;
    use crate::cluster::fake::SPEC;
    use crate::records::OperationKind;

    fn change(kind: Kind, name: &str, destructive: bool) -> HostChange {
        // What is done does not matter here.
        let op = HostOp::StartNetwork { name: name.to_owned() };
        HostChange {
            action: Action::Replace,
            kind,
            name: name.to_owned(),
            reason: "why".to_owned(),
            destructive,
            op,
        }
    }

    #[test]
    fn only_what_was_agreed_to_and_what_leaves_may_go() {
        let spec = k8sctl_types::spec::parse(SPEC).expect("a sound spec").spec;
        let before = ClusterRecord::planned(&spec, None, "image", "v1.29.0");
        let mut smaller = spec.clone();
        smaller.nodes.retain(|node| node.name != "worker");
        let cluster = ClusterRecord::planned(&smaller, Some(&before), "image", "v1.29.0");
        let volume = |node: &str| volume_name(&cluster.id, node);
        let operation = OperationRecord {
            id: String::new(),
            cluster_id: cluster.id.clone(),
            cluster: cluster.name.clone(),
            kind: OperationKind::Up,
            generation: 2,
            state: crate::records::OperationState::Running,
            started: jiff::Timestamp::UNIX_EPOCH,
            deadline: jiff::Timestamp::UNIX_EPOCH,
            finished: None,
            agreed: destroyed(&HostPlan {
                changes: vec![
                    change(Kind::Domain, "control", true),
                    change(Kind::Domain, "control", true),
                    change(Kind::Volume, "made", false),
                ],
                ..HostPlan::default()
            }),
        };
        assert_eq!(operation.agreed, [Agreed { kind: Kind::Domain, name: "control".to_owned() }]);
        let refused = |change: HostChange| {
            let failure = refuse_unagreed(&cluster, &operation, &[change]).err()?;
            assert_eq!(failure.id, "PLAN-CONSENT");
            Some(failure.object)
        };
        assert_eq!(refused(change(Kind::Domain, "control", true)), None);
        assert_eq!(refused(change(Kind::Domain, "worker", true)), None, "it leaves");
        assert_eq!(refused(change(Kind::Volume, &volume("worker"), true)), None, "it leaves");
        assert_eq!(refused(change(Kind::Network, "k8s-home", false)), None, "nothing is lost");
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(refused(change(Kind::Volume, &volume("control"), true)), named("volume control.qcow2"));
        assert_eq!(refused(change(Kind::Volume, "control", true)), named("volume control"));
        assert_eq!(refused(change(Kind::Domain, "other", true)), named("domain other"));
        assert_eq!(refused(change(Kind::Network, "worker", true)), named("network worker"));
    }
}
