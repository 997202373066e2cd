//! What an operation may destroy: what a person saw in its plan and agreed to, and nodes that leave; and what plugins get
//! that they ask for. Pure.
//!
//! What was agreed to is kept with the operation, so that each of its looks, and the next host agent, go by it.

use host_hypervisor::change::{Action, HostChange, HostPlan, Kind};
use host_hypervisor::desired::volume_name;
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::roles::Role;
use k8sctl_types::failure::Failure;

use super::planning::{plan_changed, shown_name};
use crate::control::roles::ADMIN_GROUP;
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
    if allow_destructive {
        return Ok(());
    }
    let is_asked = |change: &&control::Change| change.destructive || !change.permissions.is_empty();
    let Some(change) = plan.changes.iter().find(is_asked) else { return Ok(()) };
    let reason = if change.destructive {
        format!("the plan would {} it: {}", wire_action_word(change.action()), change.reason)
    } else {
        format!("it asks for {} that nobody has approved", permissions(change))
    };
    Err(Failure::new(
        "PLAN-CONSENT",
        format!("{} {}", change.kind, change.name),
        reason,
        "look at `k8sctl plan`, then say so with `k8sctl up --yes`",
    )
    .with_evidence(change.permissions.join("\n")))
}

/// Refuses what plugins ask for and nobody has approved, where whoever consents to it is no administrator.
pub(super) fn approval(plan: &control::Plan, by: Role) -> Result<(), Failure> {
    if by == Role::Admin {
        return Ok(());
    }
    let Some(change) = plan.changes.iter().find(|change| !change.permissions.is_empty()) else {
        return Ok(());
    };
    let next = format!(
        "have a member of {ADMIN_GROUP} run `k8sctl up` once, or add it with `k8sctl plugin add {}`",
        change.name
    );
    Err(Failure::new(
        "PLUGIN-APPROVE-ADMIN",
        format!("plugin {}", change.name),
        format!("it asks for {} that nobody has approved, which takes an administrator", permissions(change)),
        next,
    )
    .with_evidence(change.permissions.join("\n")))
}

fn permissions(change: &control::Change) -> String {
    match change.permissions.len() {
        1 => "1 permission".to_owned(),
        count => format!("{count} permissions"),
    }
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
        if !agreed.iter().any(|it| covers(it, change)) {
            agreed.push(Agreed { action: change.action, kind: change.kind, name: change.name.clone() });
        }
    }
    agreed
}

/// Refuses changes that destroy what nobody agreed to lose: somebody changed the host while the operation ran.
///
/// An object whose replacement was agreed to is given up as a whole, so that after a kill in the middle of it, where the
/// plan has another reason, the rest is still done. Who agreed to a restart gave up no disk. `unsettled` is what the
/// operation before did after this one's plan was made: nobody counts on that. What goes with a node that leaves was agreed to with the node.
pub(super) fn refuse_unagreed(
    cluster: &ClusterRecord,
    operation: &OperationRecord,
    unsettled: &[Agreed],
    changes: &[HostChange],
) -> Result<(), Failure> {
    let leaves = |change: &HostChange| {
        cluster.nodes.iter().filter(|node| node.state != NodeState::Present).any(|node| match change.kind {
            Kind::Domain => change.name == node.name,
            Kind::Volume => change.name == volume_name(&cluster.id, &node.name),
            _ => false,
        })
    };
    let Some(agreed) = &operation.agreed else { return Ok(()) };
    let is_agreed = |change: &HostChange| agreed.iter().chain(unsettled).any(|it| covers(it, change));
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

fn covers(agreed: &Agreed, change: &HostChange) -> bool {
    let is_enough = agreed.action == change.action || agreed.action != Action::Update;
    agreed.kind == change.kind && agreed.name == change.name && is_enough
}

#[cfg(test)]
mod tests {
    use host_hypervisor::change::HostOp;

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

    /// What plugins ask for anew takes consent, and an administrator's at that.
    #[test]
    fn who_may_consent_to_what() {
        let change = |destructive: bool, permissions: &[&str]| control::Change {
            kind: "plugin".to_owned(),
            name: "metallb".to_owned(),
            destructive,
            permissions: permissions.iter().map(|line| (*line).to_owned()).collect(),
            ..control::Change::default()
        };
        let plan =
            |change: control::Change| control::Plan { changes: vec![change], ..control::Plan::default() };
        let asked = |plan: &control::Plan, yes: bool, by: Role| {
            let refused = consent(plan, "", yes).and_then(|()| approval(plan, by)).err();
            refused.map(|failure| failure.id).unwrap_or_default()
        };
        let (plain, loss) = (plan(change(false, &[])), plan(change(true, &[])));
        let (asks, both) = (plan(change(false, &["get pods"])), plan(change(true, &["get pods"])));
        for by in [Role::Operator, Role::Admin] {
            assert_eq!([false, true].map(|yes| asked(&plain, yes, by)), ["", ""], "{by:?}");
            assert_eq!([false, true].map(|yes| asked(&loss, yes, by)), ["PLAN-CONSENT", ""], "{by:?}");
        }
        for plan in [&asks, &both] {
            let of = |by| [false, true].map(|yes| asked(plan, yes, by));
            assert_eq!(of(Role::Operator), ["PLAN-CONSENT", "PLUGIN-APPROVE-ADMIN"]);
            assert_eq!(of(Role::Admin), ["PLAN-CONSENT", ""]);
        }
        let refused = consent(&asks, "", false).expect_err("nobody said so");
        assert_eq!((refused.object.as_str(), refused.evidence.as_str()), ("plugin metallb", "get pods"));
        assert!(refused.reason.contains("it asks for 1 permission"), "{}", refused.reason);
        let refused = approval(&asks, Role::Operator).expect_err("an operator");
        assert!(refused.next_step.contains("k8sctl-admin"), "{}", refused.next_step);
    }

    #[test]
    fn only_what_was_agreed_to_and_what_leaves_may_go() {
        let spec = k8sctl_types::spec::parse(SPEC).expect("a sound spec").spec;
        let before = ClusterRecord::planned(&spec, None, "image", "v1.29.0");
        let mut smaller = spec.clone();
        smaller.nodes.retain(|node| node.name != "worker");
        let cluster = ClusterRecord::planned(&smaller, Some(&before), "image", "v1.29.0");
        let volume = |node: &str| volume_name(&cluster.id, node);
        let mut operation = OperationRecord {
            id: String::new(),
            cluster_id: cluster.id.clone(),
            cluster: cluster.name.clone(),
            kind: OperationKind::Up,
            generation: 2,
            state: crate::records::OperationState::Running,
            started: jiff::Timestamp::UNIX_EPOCH,
            deadline: jiff::Timestamp::UNIX_EPOCH,
            finished: None,
            agreed: Some(destroyed(&HostPlan {
                changes: vec![
                    change(Kind::Domain, "control", true),
                    change(Kind::Domain, "control", true),
                    change(Kind::Volume, "made", false),
                ],
                ..HostPlan::default()
            })),
        };
        let agreed = |action| Some(vec![Agreed { action, kind: Kind::Domain, name: "control".to_owned() }]);
        assert_eq!(operation.agreed, agreed(Action::Replace));
        let refused_by = |operation: &OperationRecord, change: HostChange| {
            let failure = refuse_unagreed(&cluster, operation, &[], &[change]).err()?;
            assert_eq!(failure.id, "PLAN-CONSENT");
            Some(failure.object)
        };
        let refused = |change: HostChange| refused_by(&operation, change);
        assert_eq!(refused(change(Kind::Domain, "control", true)), None);
        assert_eq!(refused(change(Kind::Domain, "worker", true)), None, "it leaves");
        assert_eq!(refused(change(Kind::Volume, &volume("worker"), true)), None, "it leaves");
        assert_eq!(refused(change(Kind::Network, "k8s-home", false)), None, "nothing is lost");
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(refused(change(Kind::Volume, &volume("control"), true)), named("volume control.qcow2"));
        assert_eq!(refused(change(Kind::Volume, "control", true)), named("volume control"));
        assert_eq!(refused(change(Kind::Domain, "other", true)), named("domain other"));
        assert_eq!(refused(change(Kind::Network, "worker", true)), named("network worker"));

        let restart = HostChange { action: Action::Update, ..change(Kind::Domain, "control", true) };
        assert_eq!(refused(restart.clone()), None, "all of it was given up");
        operation.agreed = agreed(Action::Update);
        let refused = |change: HostChange| refused_by(&operation, change);
        assert_eq!(refused(restart), None);
        let rebuilt = change(Kind::Domain, "control", true);
        assert_eq!(refused(rebuilt.clone()), named("domain control"), "a restart was agreed to");
        operation.agreed = None;
        assert_eq!(refused_by(&operation, rebuilt), None, "nobody knows what was agreed to");
    }
}
