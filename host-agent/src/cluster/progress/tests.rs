//! When an operation ends badly, and what it then says.

use std::sync::Arc;

use k8sctl_proto::node::v1::{Evidence, Hello, StatusReport};

use host_plugins::{Blocking, Handover, PluginState};

use super::*;
use crate::cluster::fake::SPEC;
use crate::cluster::node_requirements::tests::{flannel, need, pinned};
use crate::kubernetes::{KubernetesNode, PodState};

const LIMIT: Duration = Duration::from_secs(900);

pub(in crate::cluster) fn time(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

pub(in crate::cluster) fn cluster() -> ClusterRecord {
    let spec = k8sctl_types::spec::parse(SPEC).expect("a sound spec").spec;
    ClusterRecord::planned(&spec, None, "image", "v1.29.0")
}

/// All VMs run since 0, all agents have called, the desired generation is 7.
pub(in crate::cluster) fn running(cluster: &ClusterRecord) -> Observed {
    let mut observed = Observed::default();
    for node in &cluster.nodes {
        let vm = VmView {
            state: "running".to_owned(),
            powered_on: Some(time(0)),
            started: Some(time(0)),
            starts: 1,
        };
        observed.vms.insert(node.id.clone(), vm);
        let view = NodeView {
            connected: true,
            hello: Some(Hello::default()),
            joined: Some(time(20)),
            report: Arc::new(StatusReport { observed_generation: 7, ..StatusReport::default() }),
            ..NodeView::default()
        };
        observed.agents.insert(node.id.clone(), view);
        observed.generations.insert(node.id.clone(), 7);
    }
    observed
}

fn report_of<'a>(observed: &'a mut Observed, node_id: &str) -> &'a mut StatusReport {
    Arc::make_mut(&mut observed.agents.get_mut(node_id).expect("its view").report)
}

fn judged(cluster: &ClusterRecord, observed: &Observed, began: i64, now: i64) -> Option<Failure> {
    let silence = Silence { since: time(began), limit: LIMIT };
    failure(cluster, observed, silence, time(now)).map(|(_, failure)| failure)
}

#[test]
fn silence_counts_from_power_on_and_anew_with_each_operation() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    observed.agents.remove(&cluster.nodes[1].id);
    assert_eq!(judged(&cluster, &observed, -5, 899), None);
    let failure = judged(&cluster, &observed, -5, 900).expect("too long");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("NODE-SILENT", "node worker"));
    assert!(failure.reason.contains("15m"), "{}", failure.reason);
    // The same VM, and `up` again after an hour.
    assert_eq!(judged(&cluster, &observed, 3600, 3601), None);
    assert!(judged(&cluster, &observed, 3600, 4500).is_some());
    let silence = Silence { since: time(3600), limit: LIMIT };
    assert_eq!(next_silence(&cluster, &observed, silence), Some(time(4500)));
    assert_eq!(next_silence(&cluster, &running(&cluster), silence), None);
}

#[test]
fn only_failures_of_the_newest_desired_state_count() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    let step = StepStatus {
        name: "kubeadm".to_owned(),
        state: StepState::Failed.into(),
        attempts: 3,
        evidence: Some(Evidence {
            argv: vec!["kubeadm".to_owned(), "init".to_owned()],
            exit_status: Some(1),
            output_tail: "[preflight] no\n".to_owned(),
            journal_tail: "kubelet says\n".to_owned(),
        }),
        ..StepStatus::default()
    };
    report_of(&mut observed, &cluster.nodes[0].id).steps = vec![step];
    let failure = judged(&cluster, &observed, 0, 60).expect("it failed three times");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("KUBEADM-FAILED", "node control"));
    assert_eq!(
        failure.evidence,
        "$ kubeadm init\n[preflight] no\n(exit status 1)\n-- journal --\nkubelet says\n"
    );
    // `up` again: what is reported is of the time before.
    observed.generations.insert(cluster.nodes[0].id.clone(), 8);
    assert_eq!(judged(&cluster, &observed, 0, 60), None);
}

#[test]
fn a_deadline_names_what_is_in_the_way() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    observed.vms.get_mut(&cluster.nodes[0].id).expect("it is there").state = "shut off".to_owned();
    let (node, failure) = deadline_failure(&cluster, &observed);
    assert_eq!(node, Some(cluster.nodes[0].id.clone()));
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("OPERATION-DEADLINE", "node control"));
    assert_eq!(failure.reason, "the deadline passed; it was last seen as VM: the VM is shut off");
}

#[test]
fn a_worker_joins_when_what_it_reads_is_there() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    let targets = |observed: &Observed| {
        cluster.nodes.iter().map(|node| node_target(&cluster, node, observed)).collect::<Vec<_>>()
    };
    observed.kubernetes.reachable = true;
    observed.kubernetes.configs.insert("kubeadm-config".to_owned(), ());
    assert_eq!(targets(&observed), [Target::Member, Target::Prepared]);
    // The kubelet's has had no version in its name since 1.24.
    observed.kubernetes.configs.insert("kubelet-config-1.29".to_owned(), ());
    assert_eq!(targets(&observed), [Target::Member, Target::Prepared]);
    observed.kubernetes.configs.insert("kubelet-config".to_owned(), ());
    assert_eq!(targets(&observed), [Target::Member, Target::Member]);

    // A host agent that has not seen the API yet goes by what kubeadm itself said.
    observed.kubernetes = KubernetesView::default();
    let done =
        StepStatus { name: "kubeadm".to_owned(), state: StepState::Done.into(), ..StepStatus::default() };
    report_of(&mut observed, &cluster.nodes[0].id).steps.push(done);
    assert_eq!(targets(&observed), [Target::Member, Target::Member]);
}

#[test]
fn a_worker_that_was_let_join_is_not_held_back_while_it_waits() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    let worker = &cluster.nodes[1];
    let mut target = |state: StepState| {
        let step = StepStatus { name: "kubeadm".to_owned(), state: state.into(), ..StepStatus::default() };
        report_of(&mut observed, &worker.id).steps = vec![step];
        node_target(&cluster, worker, &observed)
    };
    assert_eq!(target(StepState::Pending), Target::Prepared);
    for state in [StepState::Running, StepState::Failed, StepState::Done] {
        assert_eq!(target(state), Target::Member, "{state:?}");
    }
}

#[test]
fn a_deadline_shows_what_the_open_step_said_last() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    let step = |name: &str, state: StepState, said: &str| StepStatus {
        name: name.to_owned(),
        state: state.into(),
        evidence: Some(Evidence { output_tail: said.to_owned(), ..Evidence::default() }),
        ..StepStatus::default()
    };
    report_of(&mut observed, &cluster.nodes[0].id).steps = vec![
        step("kubelet", StepState::Done, "long ago"),
        step("kubeadm", StepState::Running, "waiting for etcd"),
    ];
    let (_, failure) = deadline_failure(&cluster, &observed);
    assert_eq!(failure.evidence, "waiting for etcd");
}

#[test]
fn an_agent_that_went_away_is_missed_as_one_that_never_came() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    let view = observed.agents.get_mut(&cluster.nodes[1].id).expect("its view");
    (view.connected, view.last_seen) = (false, Some(time(100)));
    assert_eq!(judged(&cluster, &observed, 0, 999), None);
    let failure = judged(&cluster, &observed, 0, 1000).expect("too long");
    assert_eq!(failure.id, "NODE-SILENT");
    assert!(failure.reason.contains("no session for 15m"), "{}", failure.reason);
    // So is one that boots again and again: a reboot is no word of it.
    let phase = |observed: &Observed| node_phase(&cluster.nodes[1], observed).phase;
    assert_eq!(phase(&observed), "Disconnected");
    observed.agents.get_mut(&cluster.nodes[1].id).expect("its view").rebooted = true;
    assert_eq!(phase(&observed), "Booting");
    assert_eq!(
        judged(&cluster, &observed, 0, 1000).map(|failure| failure.id).as_deref(),
        Some("NODE-SILENT")
    );
}

#[test]
fn a_vm_that_stops_again_and_again_is_given_up() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    let vm = observed.vms.get_mut(&cluster.nodes[1].id).expect("its VM");
    (vm.state, vm.starts) = (VM_IO_ERROR.to_owned(), VM_STARTS - 1);
    assert_eq!(judged(&cluster, &observed, 0, 60), None);
    observed.vms.get_mut(&cluster.nodes[1].id).expect("its VM").starts = VM_STARTS;
    let failure = judged(&cluster, &observed, 0, 60).expect("given up");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("VM-STOPS", "node worker"));
    assert!(failure.reason.contains(VM_IO_ERROR), "{}", failure.reason);
}

#[test]
fn without_libvirt_a_node_is_judged_by_its_agent() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    observed
        .vms
        .values_mut()
        .for_each(|vm| *vm = VmView { state: VM_UNKNOWN.to_owned(), ..VmView::default() });
    observed.trouble = Some(Failure::new("LIBVIRT-UNREACHABLE", "libvirt", "it does not answer", "start it"));
    assert_eq!(node_phase(&cluster.nodes[1], &observed).phase, "Configuring");
}

#[test]
fn a_cluster_is_up_when_each_node_has_its_proxy() {
    let cluster = cluster();
    let mut observed = running(&cluster);
    for node in &cluster.nodes {
        let done =
            StepStatus { name: "kubeadm".to_owned(), state: StepState::Done.into(), ..StepStatus::default() };
        report_of(&mut observed, &node.id).steps.push(done);
        let pod_cidr = Some("10.244.0.0/24".to_owned());
        let seen = KubernetesNode { ready: true, pod_cidr, ..KubernetesNode::default() };
        observed.kubernetes.nodes.insert(node.name.clone(), seen);
    }
    observed.kubernetes.reachable = true;
    let missing_now = |observed: &Observed| missing(&cluster, observed).map(|missing| missing.to_string());
    let pod = |node: &str, ready: bool| PodState {
        node: node.to_owned(),
        ready,
        why: if ready { String::new() } else { "ContainerCreating".to_owned() },
        ended: false,
    };
    observed.kubernetes.system_pods.insert("kube-proxy-aaaaa".to_owned(), pod("control", true));
    assert_eq!(missing_now(&observed).as_deref(), Some("node worker: no pod of kube-proxy is on it yet"));
    observed.kubernetes.system_pods.insert("kube-proxy-bbbbb".to_owned(), pod("worker", false));
    assert_eq!(
        missing_now(&observed).as_deref(),
        Some("pod kube-system/kube-proxy-bbbbb: ContainerCreating on worker")
    );
    observed.kubernetes.system_pods.insert("kube-proxy-bbbbb".to_owned(), pod("worker", true));
    assert_eq!(missing_now(&observed), None);
    // A Job's pod that is done, or one that was evicted, will never be ready.
    let ended = PodState { ended: true, why: "Succeeded".to_owned(), ..pod("worker", false) };
    observed.kubernetes.system_pods.insert("backup-ccccc".to_owned(), ended.clone());
    assert_eq!(missing_now(&observed), None);
    observed.kubernetes.system_pods.insert("kube-proxy-bbbbb".to_owned(), ended);
    assert_eq!(missing_now(&observed).as_deref(), Some("node worker: no pod of kube-proxy is on it yet"));
}

/// All nodes are Ready, and so are their pods.
fn ready(cluster: &ClusterRecord) -> Observed {
    let mut observed = running(cluster);
    for node in &cluster.nodes {
        let done = ["cni", "kubeadm"].map(|name| StepStatus {
            name: name.to_owned(),
            state: StepState::Done.into(),
            ..StepStatus::default()
        });
        let view = observed.agents.get_mut(&node.id).expect("its view");
        view.report.steps = done.to_vec();
        view.hello = Some(Hello { protocol: 1, protocol_minor: 2, ..Hello::default() });
        let pod_cidr = Some("10.244.0.0/24".to_owned());
        let seen = KubernetesNode { ready: true, pod_cidr, ..KubernetesNode::default() };
        observed.kubernetes.nodes.insert(node.name.clone(), seen);
        let proxy = PodState { node: node.name.clone(), ready: true, ..PodState::default() };
        observed.kubernetes.system_pods.insert(format!("{PROXY}{}", node.name), proxy);
    }
    observed.kubernetes.reachable = true;
    observed
}

fn status(name: &str, state: PluginState) -> PluginStatus {
    PluginStatus { name: name.to_owned(), state, ..PluginStatus::default() }
}

#[test]
fn a_cluster_is_as_its_file_says_when_its_plugins_are_ready() {
    let mut cluster = cluster();
    let mut observed = ready(&cluster);
    let missing_now = |cluster: &ClusterRecord, observed: &Observed| {
        missing(cluster, observed).map(|missing| missing.to_string())
    };
    assert_eq!(missing_now(&cluster, &observed), None);
    // One that a command added is not what the file says.
    observed.plugins = vec![status("other", PluginState::Failed)];
    assert_eq!(missing_now(&cluster, &observed), None);
    cluster.plugins = vec![pinned("hello", Vec::new())];
    assert_eq!(missing_now(&cluster, &observed).as_deref(), Some("plugin hello: it is not installed yet"));
    let waiting = vec![("hello".to_owned(), "nodes are not ready yet".to_owned())];
    observed.converged = Some(Converged { waiting, failed: None });
    assert_eq!(missing_now(&cluster, &observed).as_deref(), Some("plugin hello: nodes are not ready yet"));
    observed.converged = Some(Converged::default());
    let blocking = Blocking {
        object: "apps/v1 Deployment hello/hello".to_owned(),
        reason: "0 of 1 available".to_owned(),
        pod: Some("pod hello-1: ImagePullBackOff".to_owned()),
        since: std::time::UNIX_EPOCH,
    };
    let installing = status("hello", PluginState::Installing);
    observed.plugins.push(PluginStatus { blocking: Some(blocking), ..installing });
    assert_eq!(
        missing_now(&cluster, &observed).as_deref(),
        Some(
            "plugin hello: Installing: apps/v1 Deployment hello/hello: 0 of 1 available (pod hello-1: ImagePullBackOff)"
        )
    );
    let (node, failure) = deadline_failure(&cluster, &observed);
    assert_eq!((node, failure.object.as_str()), (None, "plugin hello"));
    let line = plugin_progress(&cluster, &observed).next().expect("a line of it");
    assert_eq!((line.object.as_str(), line.phase.as_str(), line.done), ("plugin hello", "Installing", false));
    observed.plugins = vec![status("hello", PluginState::Ready)];
    assert_eq!(missing_now(&cluster, &observed), None);
}

#[test]
fn a_plugin_that_fails_ends_the_operation_and_no_node_is_to_blame() {
    let cluster = cluster();
    let mut observed = ready(&cluster);
    let broken = Failure::new("PLUGIN-REFUSED", "plugin hello", "it asks for too much", "report it");
    observed.converged =
        Some(Converged { failed: Some(("hello".to_owned(), broken.clone())), ..Converged::default() });
    let silence = Silence { since: time(0), limit: LIMIT };
    assert_eq!(failure(&cluster, &observed, silence, time(60)), Some((None, broken)));
}

#[test]
fn nodes_are_on_the_pod_network_of_the_cluster_one_after_the_other() {
    let mut cluster = cluster();
    let mut observed = ready(&cluster);
    cluster.plugins = vec![flannel()];
    observed.plugins = vec![status("flannel", PluginState::Ready)];
    let missing_now = |cluster: &ClusterRecord, observed: &Observed| {
        missing(cluster, observed).map(|missing| missing.to_string())
    };
    let cni = flannel().node[0].what.clone();
    observed.needs = vec![need("flannel", cni.clone(), true)];
    assert_eq!(
        missing_now(&cluster, &observed).as_deref(),
        Some("node control: its pods are still to be made anew for the pod network flannel")
    );
    let why = "Cannot evict pod as it would violate the pod's disruption budget".to_owned();
    let left = Remaining { count: 2, first: "default/web".to_owned(), why };
    observed.restart = Some((cluster.nodes[0].id.clone(), left));
    let told = missing_now(&cluster, &observed).expect("pods are left");
    assert!(
        told.starts_with("node control: 2 pods of it are on the pod network of before, first default/web: "),
        "{told}"
    );
    for node in &mut cluster.nodes {
        node.pod_network = "flannel".to_owned();
    }
    assert_eq!(missing_now(&cluster, &observed), None);
    // While the other one is not ready, nothing is made anew for it: the plugin itself is waited for.
    cluster.nodes[1].pod_network.clear();
    observed.needs = vec![need("flannel", cni, false)];
    assert_eq!(missing_now(&cluster, &observed), None);
    // And back.
    (cluster.plugins, observed.needs, observed.restart) = (Vec::new(), Vec::new(), None);
    let told = missing_now(&cluster, &observed).expect("control is on flannel's");
    assert!(told.ends_with("for the built-in pod network"), "{told}");
    let view = &observed.agents[&cluster.nodes[0].id];
    assert!(has_settled(view, Some(7)));
    assert!(!has_settled(view, Some(8)), "its agent has not taken it in");
    assert!(!has_settled(view, None) && !has_settled(&NodeView::default(), Some(0)));
    let mut older = view.clone();
    older.hello = Some(Hello { protocol: 1, protocol_minor: 1, ..Hello::default() });
    assert!(!has_settled(&older, Some(7)), "it does not see what it is told");
}

#[test]
fn another_pod_network_waits_for_every_node_that_may_have_routes_of_the_one_before() {
    let mut cluster = cluster();
    let mut observed = ready(&cluster);
    let ids: Vec<String> = cluster.nodes.iter().map(|node| node.id.clone()).collect();
    let waiting = |cluster: &ClusterRecord, observed: &Observed, wanted: u64| {
        let Handover { plugin, waiting } = handover(cluster, observed, |_| Some(wanted));
        let lines: Vec<String> = waiting.into_iter().map(|(name, why)| format!("{name}: {why}")).collect();
        (plugin, lines.join("; "))
    };
    let shown = |waits: &str| ("flannel".to_owned(), waits.to_owned());
    let (plugin, waits) = waiting(&cluster, &observed, 8);
    assert_eq!((plugin.as_str(), waits.as_str()), ("", ""), "no other one takes over");
    cluster.plugins = vec![flannel()];
    assert_eq!(waiting(&cluster, &observed, 7), shown(""));
    let taking_in =
        "control: its agent takes in the desired state; worker: its agent takes in the desired state";
    assert_eq!(waiting(&cluster, &observed, 8), shown(taking_in));

    let view = observed.agents.get_mut(&ids[1]).expect("its view");
    view.report.steps[0].state = StepState::Running.into();
    assert_eq!(waiting(&cluster, &observed, 7), shown("worker: its step cni is not done"));
    let view = observed.agents.get_mut(&ids[1]).expect("its view");
    view.report.steps[0].message = "waiting for the node's address".to_owned();
    assert_eq!(waiting(&cluster, &observed, 7), shown("worker: cni: waiting for the node's address"));
    let view = observed.agents.get_mut(&ids[1]).expect("its view");
    view.hello = Some(Hello { protocol: 1, protocol_minor: 1, ..Hello::default() });
    let (_, old) = waiting(&cluster, &observed, 7);
    assert!(old.starts_with("worker: its agent is too old") && old.contains("upgrade agents"), "{old}");
    observed.agents.remove(&ids[1]);
    assert_eq!(waiting(&cluster, &observed, 7), shown("worker: its agent has no session"));

    // A member may have been told to go back, and been given the network again; a node that is none yet begins with it.
    cluster.nodes.iter_mut().for_each(|node| node.pod_network = "flannel".to_owned());
    assert_eq!(waiting(&cluster, &observed, 7), shown("worker: its agent has no session"));
    observed.kubernetes.nodes.remove("worker");
    assert_eq!(waiting(&cluster, &observed, 7), shown(""));
    // One that leaves is waited for no more.
    cluster.nodes[1].pod_network.clear();
    assert_eq!(waiting(&cluster, &observed, 7), shown("worker: its agent has no session"));
    cluster.nodes[1].state = NodeState::Draining;
    assert_eq!(waiting(&cluster, &observed, 7), shown(""));
}

#[test]
fn an_agent_that_does_not_know_what_plugins_need_is_replaced_first() {
    let mut cluster = cluster();
    cluster.plugins = vec![flannel()];
    cluster.nodes.iter_mut().for_each(|node| node.pod_network = "flannel".to_owned());
    let mut observed = ready(&cluster);
    observed.plugins = vec![status("flannel", PluginState::Ready)];
    assert_eq!(missing(&cluster, &observed), None);
    let view = observed.agents.get_mut(&cluster.nodes[1].id).expect("its view");
    view.hello = Some(Hello { protocol: 1, protocol_minor: 1, ..Hello::default() });
    let told = missing(&cluster, &observed).expect("it is too old").to_string();
    assert!(told.starts_with("node worker: its agent speaks protocol 1.1"), "{told}");
    assert!(told.contains("`k8sctl upgrade agents`"), "{told}");
    // While the operation runs nobody can do that.
    let silence = Silence { since: time(0), limit: LIMIT };
    let (node, failed) = failure(&cluster, &observed, silence, time(60)).expect("it ends");
    assert_eq!((node, failed.id.as_str(), failed.object.as_str()), (None, "NODE-AGENT-OLD", "node worker"));
    cluster.plugins.clear();
    cluster.nodes.iter_mut().for_each(|node| node.pod_network.clear());
    assert_eq!(missing(&cluster, &observed), None, "nothing is needed of it");
    assert_eq!(failure(&cluster, &observed, silence, time(60)), None);
}
