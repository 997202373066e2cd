//! What is shown of nodes, and what of it is told.

use std::sync::Arc;

use k8sctl_proto::node::v1::{Repair, StatusReport, StepStatus};

use super::*;
use crate::cluster::conditions::{AGENT_READY, NODE_READY, VM_RUNNING};
use crate::cluster::progress::VmView;
use crate::cluster::progress::tests::{cluster, running, time};
use crate::kubernetes::KubernetesNode;
use crate::records::{OperationKind, OperationState};

fn status_of(condition: &str, node: &control::NodeStatus) -> ConditionStatus {
    node.conditions.iter().find(|it| it.r#type == condition).expect("it is shown").status()
}

/// Both agents say that all is well.
fn all_well(cluster: &ClusterRecord) -> Observed {
    let mut observed = running(cluster);
    for view in observed.agents.values_mut() {
        let well = |kind| wire::condition(kind, ConditionStatus::True, "AllWell", "", time(20));
        let conditions = [AGENT_READY, "ContainerdReady", "DiskOK"].map(well).to_vec();
        view.report = Arc::new(StatusReport { conditions, ..(*view.report).clone() });
    }
    observed
}

#[test]
fn what_an_agent_said_last_is_not_known_any_more_when_its_session_ends() {
    let cluster = cluster();
    let mut observed = all_well(&cluster);
    let shown = |observed: &Observed| node_status(&cluster.nodes[1], observed, time(60));
    let before = shown(&observed);
    assert_eq!(status_of(AGENT_READY, &before), ConditionStatus::True);
    observed.agents.get_mut(&cluster.nodes[1].id).expect("its view").connected = false;
    let mut after = shown(&observed);
    assert_eq!(status_of(AGENT_READY, &after), ConditionStatus::False);
    for kind in ["ContainerdReady", "DiskOK"] {
        assert_eq!(status_of(kind, &after), ConditionStatus::Unknown, "{kind}");
    }
    keep_since(&before.conditions, &mut after.conditions);
    let disk = after.conditions.iter().find(|it| it.r#type == "DiskOK").expect("it is shown");
    assert_eq!(disk.since, Some(wire::timestamp(time(60))));
    assert_eq!(
        status_of(AGENT_READY, &node_status(&cluster.nodes[0], &observed, time(60))),
        ConditionStatus::True
    );
}

/// Which `up` ends; Kubernetes may find all of it Ready meanwhile.
#[test]
fn a_node_whose_agent_may_rest_leaves_something_to_ask_for() {
    let ready = |node: control::NodeStatus| {
        let condition = wire::condition(READY, ConditionStatus::True, "AsDesired", "", time(20));
        control::ClusterStatus { conditions: vec![condition], nodes: vec![node], ..Default::default() }
    };
    let node = |state: StepState, kind: &str, status: ConditionStatus| control::NodeStatus {
        steps: vec![StepStatus { state: state.into(), ..StepStatus::default() }],
        conditions: vec![wire::condition(kind, status, "x", "", time(20))],
        ..control::NodeStatus::default()
    };
    use ConditionStatus::{False, True};
    assert!(leaves_nothing_to_ask_for(&ready(node(StepState::Done, "DiskOK", True))));
    // Nobody repairs that, and nobody rests from it.
    assert!(leaves_nothing_to_ask_for(&ready(node(StepState::Done, "MemoryOK", False))));
    assert!(!leaves_nothing_to_ask_for(&ready(node(StepState::Failed, "DiskOK", True))));
    assert!(!leaves_nothing_to_ask_for(&ready(node(StepState::Done, "DiskOK", False))));
    assert!(!leaves_nothing_to_ask_for(&control::ClusterStatus::default()));
}

#[test]
fn a_node_that_speaks_for_the_host_is_not_heard() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    let claim = |kind: &str| wire::condition(kind, ConditionStatus::True, "Claimed", "", time(0));
    let view = observed.agents.get_mut(&cluster.nodes[1].id).expect("its view");
    let report = Arc::make_mut(&mut view.report);
    report.conditions = ["DiskOK", NODE_READY, VM_RUNNING].map(claim).to_vec();
    report.repairs.push(Repair { number: 7, ..Repair::default() });
    let status = cluster_status(&cluster, &observed, None, None, None);
    let worker = &status.nodes[1];
    let claimed: Vec<&str> =
        worker.conditions.iter().filter(|it| it.reason == "Claimed").map(|it| it.r#type.as_str()).collect();
    assert_eq!((claimed.as_slice(), worker.repairs[0].number), (["DiskOK"].as_slice(), 7));
    let first = first_status(&cluster);
    assert!(first.conditions.is_empty() && first.nodes.iter().all(|node| node.conditions.is_empty()));
}

#[test]
fn what_the_host_judges_is_told_once_each_time_it_changes() {
    let cluster = cluster();
    let worker = cluster.nodes[1].clone();
    let mut observed = all_well(&cluster);
    let mut told = ToldConditions::default();
    let mut look = |observed: &Observed| -> Vec<String> {
        let nodes: Vec<_> = cluster.nodes.iter().map(|node| node_status(node, observed, time(60))).collect();
        let changes = told.changes(&nodes).into_iter();
        let line = |(node, it): (&control::NodeStatus, &Condition)| {
            format!("{} {}={:?} {}", node.name, it.r#type, it.status(), it.reason)
        };
        changes.map(line).collect()
    };
    assert!(look(&observed).is_empty(), "an API that does not answer says nothing");
    observed.kubernetes.reachable = true;
    assert!(look(&observed).is_empty(), "the first that is known is no change");
    let ready = KubernetesNode { ready: true, ..KubernetesNode::default() };
    observed.kubernetes.nodes.insert(worker.name.clone(), ready);
    assert_eq!(look(&observed), ["worker NodeReady=True KubeletReady"]);
    assert!(look(&observed).is_empty());

    observed.kubernetes.reachable = false;
    observed.agents.get_mut(&worker.id).expect("its view").connected = false;
    assert_eq!(look(&observed), ["worker AgentReady=False NoSession"]);
    observed.kubernetes.reachable = true;
    observed.kubernetes.nodes.get_mut(&worker.name).expect("it is there").ready = false;
    observed.agents.get_mut(&worker.id).expect("its view").connected = true;
    assert_eq!(look(&observed), ["worker AgentReady=True AllWell", "worker NodeReady=False KubeletNotReady"]);

    observed.vms.clear();
    assert!(look(&observed).is_empty(), "a libvirt that does not answer says nothing");
    let off = VmView { state: "shut off".to_owned(), ..VmView::default() };
    observed.vms.insert(worker.id.clone(), off);
    assert_eq!(look(&observed), ["worker VMRunning=False NotRunning"]);
}

#[test]
fn since_when_a_cluster_is_not_ready_stays_when_an_operation_begins() {
    let cluster = cluster();
    let operation = |id: &str| OperationRecord {
        id: id.to_owned(),
        cluster_id: cluster.id.clone(),
        cluster: cluster.name.clone(),
        kind: OperationKind::Up,
        generation: cluster.generation,
        state: OperationState::Running,
        started: time(0),
        deadline: time(600),
        finished: None,
        agreed: None,
    };
    let well = |kind| wire::condition(kind, ConditionStatus::True, "AllWell", "", time(20));
    let mut status = control::ClusterStatus {
        conditions: [READY, "KubernetesAPI"].map(well).to_vec(),
        last_failure: Some(control::Failure::default()),
        ..control::ClusterStatus::default()
    };
    announce(&mut status, &cluster, &operation("1"), time(60));
    let told = |status: &control::ClusterStatus| {
        let shown = status.conditions.iter().map(|it| (it.r#type.clone(), it.status(), it.since));
        shown.collect::<Vec<_>>()
    };
    let since = |seconds| Some(wire::timestamp(time(seconds)));
    let expected = [
        (READY.to_owned(), ConditionStatus::False, since(60)),
        ("KubernetesAPI".to_owned(), ConditionStatus::True, since(20)),
    ];
    assert_eq!(told(&status), expected);
    assert_eq!((status.operation_id.as_str(), status.last_failure.is_none()), ("1", true));
    announce(&mut status, &cluster, &operation("2"), time(80));
    assert_eq!(told(&status), expected, "it was not ready all the time");
}
