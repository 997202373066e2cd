//! When an operation ends badly, and what it then says.

use std::sync::Arc;

use k8sctl_proto::node::v1::{Evidence, Hello, StatusReport};

use super::*;
use crate::cluster::fake::SPEC;
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
