//! An `up` and the plugins of its spec, on a host in memory with agents that say what the test wants.

use host_plugins::{Handover, NodeNeed};
use k8sctl_proto::node::v1::{CniMode, Hello, StatusReport, StepState, StepStatus};
use k8sctl_types::failure::Failure;

use super::*;
use crate::cluster::fake::{FakeHostAgent, SPEC};
use crate::cluster::node_requirements::tests::{flannel, need, pinned};
use crate::events::Selection;
use crate::nodes::registry::SessionGuard;
use crate::records::OperationState;

/// A session of each node, whose agent has done all that it is told.
fn sessions(agent: &FakeHostAgent, cluster: &ClusterRecord) -> Vec<SessionGuard> {
    let open = |node: &NodeRecord| {
        let hello = Hello { protocol: 1, protocol_minor: 2, ..Hello::default() };
        let session = agent.shared.registry.open_session(&node.id, hello);
        let done = |name: &str| StepStatus {
            name: name.to_owned(),
            state: StepState::Done.into(),
            ..StepStatus::default()
        };
        let steps = ["cni", "kubeadm"].map(done).to_vec();
        let report = StatusReport { observed_generation: u64::MAX, steps, ..StatusReport::default() };
        assert!(session.report(report));
        session
    };
    cluster.nodes.iter().map(open).collect()
}

async fn state(agent: &FakeHostAgent, operation: &OperationRecord) -> OperationState {
    agent.shared.records.operation(&operation.id).await.expect("reads").expect("is there").state
}

async fn look(task: &mut ClusterTask) {
    let looked = task.look().await;
    assert!(
        matches!(looked, Ok(true)),
        "{}",
        looked.err().map(|it| it.failure().to_string()).unwrap_or_default()
    );
}

fn tries(agent: &FakeHostAgent) -> Vec<(Gate, String)> {
    agent.plugins.state().tries.clone()
}

/// How many events of this type there are of the cluster.
async fn told(agent: &FakeHostAgent, kind: EventType) -> Vec<String> {
    let selection = Selection { types: vec![kind], ..Selection::of_cluster("home") };
    let page = agent.shared.events.page(0, &selection).await.expect("reads");
    page.events.into_iter().map(|event| format!("{}: {}", event.object, event.message)).collect()
}

const WITH_HELLO: &str = "[plugins.hello]\n";
const WITH_FLANNEL: &str = "[plugins.flannel]\n";

#[tokio::test]
async fn an_up_waits_for_nodes_then_for_plugins_and_ends_with_them() {
    let agent = FakeHostAgent::new().await;
    let why = "apps/v1 Deployment hello/hello: 0 of 1 available".to_owned();
    agent.plugins.state().stuck = Some(("hello".to_owned(), why));
    let up = agent.begin(agent.generation(&format!("{SPEC}{WITH_HELLO}")).await).await;
    let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
    look(&mut task).await;
    assert_eq!(tries(&agent), [(Gate::Network, up.id.clone())], "its nodes are not Ready");
    let _sessions = sessions(&agent, &cluster);
    // The worker is told to go on when the control plane is up.
    look(&mut task).await;
    look(&mut task).await;
    assert_eq!(tries(&agent).last(), Some(&(Gate::Everything, up.id.clone())));
    assert_eq!(state(&agent, &up).await, OperationState::Running);
    let line = {
        let operations = agent.shared.operations.borrow();
        let lines = &operations[&up.id].progress;
        lines.iter().find(|line| line.object == "plugin hello").cloned().expect("a line of it")
    };
    assert!(!line.done && line.message.contains("0 of 1 available"), "{line:?}");
    agent.plugins.state().stuck = None;
    look(&mut task).await;
    assert_eq!(state(&agent, &up).await, OperationState::Succeeded);
    assert_eq!(task.status.borrow().plugins[0].name, "hello");
    // Nobody wants anything any more.
    let before = tries(&agent).len();
    look(&mut task).await;
    assert_eq!(tries(&agent).len(), before);
}

#[tokio::test]
async fn a_plugin_that_fails_ends_the_up_once_and_the_next_one_tries_again() {
    let agent = FakeHostAgent::new().await;
    let spec = format!("{SPEC}{WITH_HELLO}");
    let up = agent.begin(agent.generation(&spec).await).await;
    let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
    look(&mut task).await;
    let _sessions = sessions(&agent, &cluster);
    let broken =
        Failure::new("PLUGIN-REFUSED", "plugin hello", "its plan exceeds its permissions", "report it");
    agent.plugins.state().failing = Some(("hello".to_owned(), broken.clone()));
    look(&mut task).await;
    look(&mut task).await;
    assert_eq!(state(&agent, &up).await, OperationState::Failed(broken));
    look(&mut task).await;
    assert_eq!(told(&agent, EventType::OperationFailed).await.len(), 1);
    agent.plugins.state().failing = None;
    let again = agent.begin(agent.generation(&spec).await).await;
    look(&mut task).await;
    assert_eq!(state(&agent, &again).await, OperationState::Succeeded);
    assert_eq!(tries(&agent).last().map(|(_, attempt)| attempt.clone()), Some(again.id.clone()));
}

#[tokio::test]
async fn what_leaves_the_file_leaves_the_cluster_and_what_a_command_added_stays() {
    let agent = FakeHostAgent::new().await;
    agent.begin(agent.generation(&format!("{SPEC}{WITH_HELLO}")).await).await;
    let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
    look(&mut task).await;
    let _sessions = sessions(&agent, &cluster);
    look(&mut task).await;
    look(&mut task).await;
    let mut other = agent.plugins.state().installed[0].clone();
    (other.name, other.origin) = ("other".to_owned(), "command".to_owned());
    agent.plugins.state().installed.push(other);
    let smaller = agent.begin(agent.generation(SPEC).await).await;
    look(&mut task).await;
    assert_eq!(state(&agent, &smaller).await, OperationState::Succeeded);
    let names: Vec<String> = agent.plugins.state().installed.iter().map(|it| it.name.clone()).collect();
    assert_eq!(names, ["other"]);
}

fn mode(session: &SessionGuard) -> CniMode {
    let desired = session.desired.borrow();
    desired
        .as_ref()
        .and_then(|desired| desired.own.requirements.as_ref())
        .map(|it| it.cni())
        .unwrap_or_default()
}

fn ready_flannel() -> Vec<NodeNeed> {
    flannel().node.into_iter().map(|requirement| need("flannel", requirement.what, true)).collect()
}

#[tokio::test]
async fn a_new_cluster_begins_with_the_pod_network_of_its_plugin() {
    let agent = FakeHostAgent::new().await;
    agent.plugins.state().known = vec![flannel()];
    agent.begin(agent.generation(&format!("{SPEC}{WITH_FLANNEL}")).await).await;
    let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
    let sessions = sessions(&agent, &cluster);
    look(&mut task).await;
    assert!(sessions.iter().all(|session| mode(session) == CniMode::External));
    agent.plugins.state().needs = ready_flannel();
    look(&mut task).await;
    assert!(task.restart.is_none());
    assert_eq!(
        told(&agent, EventType::PodNetworkChanged).await,
        Vec::<String>::new(),
        "no pod was on another one"
    );
}

#[tokio::test]
async fn a_living_cluster_is_handed_over_node_by_node_and_back() {
    let agent = FakeHostAgent::new().await;
    let first = agent.begin(agent.generation(SPEC).await).await;
    let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
    look(&mut task).await;
    let sessions = sessions(&agent, &cluster);
    look(&mut task).await;
    look(&mut task).await;
    assert_eq!(state(&agent, &first).await, OperationState::Succeeded);

    agent.plugins.state().known = vec![flannel()];
    agent.plugins.state().stuck = Some(("flannel".to_owned(), "its pods come up".to_owned()));
    let up = agent.begin(agent.generation(&format!("{SPEC}{WITH_FLANNEL}")).await).await;
    look(&mut task).await;
    assert!(sessions.iter().all(|session| mode(session) == CniMode::Handover));
    let needed = told(&agent, EventType::NodeRequirementsChanged).await;
    let what = "plugins need of its nodes: the pod network flannel, kernel module vxlan";
    assert_eq!(needed, [format!("cluster home: {what}")]);
    assert_eq!(state(&agent, &up).await, OperationState::Running);

    agent.plugins.state().stuck = None;
    agent.plugins.state().needs = ready_flannel();
    let networks = async || -> Vec<String> {
        agent.cluster("home").await.nodes.iter().map(|node| node.pod_network.clone()).collect()
    };
    look(&mut task).await;
    assert!(sessions.iter().all(|session| mode(session) == CniMode::External));
    assert_eq!(networks().await, ["flannel", ""], "one after the other");
    assert_eq!(state(&agent, &up).await, OperationState::Running);
    look(&mut task).await;
    assert_eq!(networks().await, ["flannel", "flannel"]);
    look(&mut task).await;
    assert_eq!(state(&agent, &up).await, OperationState::Succeeded);
    let moved = told(&agent, EventType::PodNetworkChanged).await;
    assert_eq!(moved.len(), 2, "{moved:?}");
    assert!(moved[0].starts_with("node control: its pod network is flannel now"), "{moved:?}");

    let back = agent.begin(agent.generation(SPEC).await).await;
    agent.plugins.state().needs = Vec::new();
    for _ in 0..3 {
        look(&mut task).await;
    }
    assert!(sessions.iter().all(|session| mode(session) == CniMode::Unspecified));
    assert_eq!(networks().await, ["", ""]);
    assert_eq!(state(&agent, &back).await, OperationState::Succeeded);
    assert_eq!(told(&agent, EventType::PodNetworkChanged).await.len(), 4);
}

#[tokio::test]
async fn a_plugin_hears_which_nodes_have_not_made_way_for_its_pod_network() {
    let agent = FakeHostAgent::new().await;
    agent.begin(agent.generation(SPEC).await).await;
    let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
    let mut open = sessions(&agent, &cluster);
    let said = || agent.shared.plugins.handover(&cluster.id);
    look(&mut task).await;
    assert_eq!(said(), Some(Handover::default()), "none takes over");
    drop(open.pop());
    let begun = flannel().node.into_iter().map(|requirement| need("flannel", requirement.what, false));
    agent.plugins.state().needs = begun.collect();
    look(&mut task).await;
    assert_eq!(mode(&open[0]), CniMode::Handover);
    let waiting = vec![("worker".to_owned(), "its agent has no session".to_owned())];
    assert_eq!(said(), Some(Handover { plugin: "flannel".to_owned(), waiting }));
    let open = sessions(&agent, &cluster);
    look(&mut task).await;
    assert_eq!(said(), Some(Handover { plugin: "flannel".to_owned(), waiting: Vec::new() }));
    // It was never ready, and is removed: the nodes have theirs back, and no pod has moved.
    agent.plugins.state().needs = Vec::new();
    look(&mut task).await;
    assert!(open.iter().all(|session| mode(session) == CniMode::Unspecified));
    assert_eq!(said(), Some(Handover::default()));
    assert_eq!(told(&agent, EventType::PodNetworkChanged).await, Vec::<String>::new());
}

/// Its agent may be away for as long as it likes: its pods stay where they are.
#[tokio::test]
async fn pods_of_a_node_are_not_made_anew_before_its_agent_has_done_its_part() {
    let agent = FakeHostAgent::new().await;
    let mut living = agent.generation(SPEC).await;
    living.plugins = vec![pinned("hello", Vec::new())];
    agent.begin(living).await;
    let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
    agent.plugins.state().needs = ready_flannel();
    look(&mut task).await;
    assert_eq!(agent.cluster("home").await.nodes[0].pod_network, "");
    let _sessions = sessions(&agent, &cluster);
    look(&mut task).await;
    assert_eq!(agent.cluster("home").await.nodes[0].pod_network, "flannel");
}

/// Pods of the others share addresses until they are made anew.
#[tokio::test]
async fn a_node_whose_agent_is_away_keeps_no_other_waiting_and_every_move_is_told() {
    let agent = FakeHostAgent::new().await;
    agent.begin(agent.generation(SPEC).await).await;
    let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
    let mut sessions = sessions(&agent, &cluster);
    drop(sessions.remove(0));
    let networks = async || -> Vec<String> {
        agent.cluster("home").await.nodes.iter().map(|node| node.pod_network.clone()).collect()
    };
    // There, back, and there again, of one and the same spec.
    for (needs, of_worker) in [(ready_flannel(), "flannel"), (Vec::new(), ""), (ready_flannel(), "flannel")] {
        agent.plugins.state().needs = needs;
        look(&mut task).await;
        assert_eq!(networks().await, ["", of_worker]);
    }
    let moved = told(&agent, EventType::PodNetworkChanged).await;
    assert_eq!(moved.len(), 3, "{moved:?}");
    assert!(moved.iter().all(|line| line.starts_with("node worker: ")), "{moved:?}");
}
