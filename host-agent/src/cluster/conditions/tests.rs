//! What is told of a cluster that is well, and of one thing after the other that is not.

use std::collections::BTreeSet;
use std::sync::Arc;

use host_plugins::PluginStatus;
use k8sctl_proto::node::v1::{Hello, StatusReport, StepState, StepStatus};
use k8sctl_types::failure::Failure;

use super::*;
use crate::cluster::fake::SPEC;
use crate::cluster::node_requirements::tests::{flannel, pinned};
use crate::cluster::progress::VmView;
use crate::cluster::status::keep_since;
use crate::kubernetes::KubernetesNode;
use crate::nodes::registry::{NodeView, Refused};

fn time(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn pod(node: &str, ready: bool) -> PodState {
    let why = if ready { "Running" } else { "CrashLoopBackOff" };
    PodState { node: node.to_owned(), ready, why: why.to_owned(), ended: false }
}

/// Two nodes, and nothing is wrong with them.
fn well() -> (ClusterRecord, Observed) {
    let spec = k8sctl_types::spec::parse(SPEC).expect("a sound spec").spec;
    let cluster = ClusterRecord::planned(&spec, None, "image", "v1.29.0");
    let mut observed = Observed::default();
    for node in &cluster.nodes {
        let vm = VmView {
            state: "running".to_owned(),
            powered_on: Some(time(0)),
            started: Some(time(0)),
            starts: 1,
        };
        observed.vms.insert(node.id.clone(), vm);
        let step = |name: &str| StepStatus {
            name: name.to_owned(),
            state: StepState::Done.into(),
            ..StepStatus::default()
        };
        let view = NodeView {
            connected: true,
            hello: Some(Hello::default()),
            report: Arc::new(StatusReport { steps: vec![step("kubeadm")], ..StatusReport::default() }),
            last_seen: Some(time(30)),
            joined: Some(time(20)),
            refused: None,
            rebooted: false,
        };
        observed.agents.insert(node.id.clone(), view);
        observed.generations.insert(node.id.clone(), 0);
        let seen = KubernetesNode {
            ready: true,
            since: Some(time(60)),
            pod_cidr: Some("10.244.0.0/24".to_owned()),
            ..KubernetesNode::default()
        };
        observed.kubernetes.nodes.insert(node.name.clone(), seen);
        let proxy = format!("{}{}", progress::PROXY, node.name);
        observed.kubernetes.system_pods.insert(proxy, pod(&node.name, true));
    }
    observed.kubernetes.system_pods.insert("etcd-control".to_owned(), pod("control", true));
    observed.kubernetes.system_pods.insert("coredns-a".to_owned(), pod("worker", true));
    observed.kubernetes.reachable = true;
    (cluster, observed)
}

fn with_dns() -> ImageFacts {
    ImageFacts { coredns: true, ..ImageFacts::default() }
}

fn said(kind: &str, status: ConditionStatus, reason: &str) -> Condition {
    wire::condition(kind, status, reason, "", time(0))
}

/// All of the cluster and of its worker that are not True: type, status and reason.
fn untrue(cluster: &ClusterRecord, observed: &Observed) -> Vec<String> {
    let all = of_cluster(cluster, Some(&with_dns()), observed, time(100));
    let worker = of_node(&cluster.nodes[1], observed, time(100));
    let shown = |it: &Condition| {
        let status = if it.status() == ConditionStatus::False { "False" } else { "Unknown" };
        format!("{}={status} {}", it.r#type, it.reason)
    };
    let all = all.iter().chain(&worker);
    all.filter(|it| it.status() != ConditionStatus::True).map(shown).collect()
}

fn message(conditions: &[Condition], kind: &str) -> String {
    let found = conditions.iter().find(|it| it.r#type == kind).expect("it is there");
    found.message.clone()
}

#[test]
fn a_cluster_that_is_well_has_all_conditions_and_all_are_true() {
    let (cluster, observed) = well();
    assert_eq!(untrue(&cluster, &observed), Vec::<String>::new());
    let types: Vec<String> = of_cluster(&cluster, Some(&with_dns()), &observed, time(0))
        .into_iter()
        .chain(of_node(&cluster.nodes[0], &observed, time(0)))
        .map(|it| it.r#type)
        .collect();
    let page = include_str!("../../../../docs/health.md");
    let section = page.split("\n## Conditions\n").nth(1).expect("the page has the section");
    let table =
        section.split("\n\n").find(|part| part.contains("| `Ready` |")).expect("a table of the host's");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), types);
}

#[test]
fn plugins_that_are_not_ready_are_named_with_what_blocks_them() {
    let (mut cluster, mut observed) = well();
    let plugin = |name: &str, state: PluginState, message: &str| PluginStatus {
        name: name.to_owned(),
        state,
        message: message.to_owned(),
        ..PluginStatus::default()
    };
    let told = |cluster: &ClusterRecord, observed: &Observed| {
        let all = of_cluster(cluster, None, observed, time(0));
        let found = all.into_iter().find(|it| it.r#type == "PluginsReady").expect("it is there");
        (found.reason, found.message)
    };
    let said = |reason: &str, message: &str| (reason.to_owned(), message.to_owned());
    assert_eq!(told(&cluster, &observed), said("NoPlugins", ""));
    observed.plugins = vec![plugin("hello", PluginState::Ready, "")];
    assert_eq!(told(&cluster, &observed), said("AllReady", ""));
    observed.plugins.push(plugin("metallb", PluginState::Degraded, "a speaker is away"));
    cluster.plugins = vec![pinned("flannel", Vec::new())];
    let all = "metallb: Degraded: a speaker is away, flannel: it is not installed yet";
    assert_eq!(told(&cluster, &observed), said("NotReady", all));
    assert_eq!(untrue(&cluster, &observed), ["Ready=False NotAsDesired", "PluginsReady=False NotReady"]);
    // The agents of this cluster say nothing of their protocol.
    cluster.plugins = vec![flannel()];
    let (reason, message) = told(&cluster, &observed);
    assert_eq!(reason, "AgentTooOld");
    assert!(message.starts_with("the agent of node control speaks protocol 0.0"), "{message}");
}

#[test]
fn a_vm_that_is_off_is_told_of_at_the_node_and_of_the_cluster() {
    let (cluster, mut observed) = well();
    observed.vms.get_mut(&cluster.nodes[1].id).expect("its VM").state = "crashed".to_owned();
    let expected = ["Ready=False NotAsDesired", "VMsRunning=False NotRunning", "VMRunning=False NotRunning"];
    assert_eq!(untrue(&cluster, &observed), expected);
    let all = of_cluster(&cluster, None, &observed, time(0));
    assert_eq!(message(&all, "VMsRunning"), "worker: the VM is crashed");
    // libvirt that is silent says neither.
    observed.vms.clear();
    let expected = ["VMsRunning=Unknown NotSeen", "VMRunning=Unknown NotSeen"];
    assert_eq!(untrue(&cluster, &observed), expected);
}

#[test]
fn an_agent_without_a_session_is_missed() {
    let (cluster, mut observed) = well();
    let view = observed.agents.get_mut(&cluster.nodes[1].id).expect("its view");
    Arc::make_mut(&mut view.report).conditions.push(said("DiskOK", ConditionStatus::False, "Full"));
    view.connected = false;
    let expected = ["Ready=False NotAsDesired", "AgentsReady=False NoSession", "AgentReady=False NoSession"];
    assert_eq!(untrue(&cluster, &observed), expected, "what it said before is not counted as well");
    observed.agents.get_mut(&cluster.nodes[1].id).expect("its view").rebooted = true;
    let expected =
        ["Ready=False NotAsDesired", "AgentsReady=False VMRebooted", "AgentReady=False VMRebooted"];
    assert_eq!(untrue(&cluster, &observed), expected);
    observed.agents.get_mut(&cluster.nodes[1].id).expect("its view").refused = Some(Refused {
        reason: "too old".to_owned(),
        can_be_replaced: true,
        called: tokio::time::Instant::now(),
    });
    let expected = ["Ready=False NotAsDesired", "AgentsReady=False Refused", "AgentReady=False Refused"];
    assert_eq!(untrue(&cluster, &observed), expected, "it calls, and is told why not");
    observed.agents.clear();
    let expected = ["Ready=False NotAsDesired", "ControlPlaneReady=False NodeNotReady"];
    let silent = ["AgentsReady=Unknown NeverSeen", "AgentReady=Unknown NeverSeen"];
    assert_eq!(untrue(&cluster, &observed), [expected, silent].concat());
    let all = of_cluster(&cluster, None, &observed, time(0));
    let never = "control: its agent has not called home, worker: its agent has not called home";
    assert_eq!(message(&all, "AgentsReady"), never);
}

#[test]
fn an_agent_speaks_for_itself_and_for_its_machine() {
    let (cluster, mut observed) = well();
    let view = observed.agents.get_mut(&cluster.nodes[1].id).expect("its view");
    Arc::make_mut(&mut view.report).conditions = vec![
        said("DiskOK", ConditionStatus::True, "Enough"),
        said("ClockOK", ConditionStatus::Unknown, "NotMeasured"),
        said("VMRunning", ConditionStatus::False, "Claimed"),
    ];
    assert_eq!(untrue(&cluster, &observed), ["NodesHealthy=Unknown NotKnown"]);
    let view = observed.agents.get_mut(&cluster.nodes[1].id).expect("its view");
    Arc::make_mut(&mut view.report).conditions.push(said("MemoryOK", ConditionStatus::False, "Pressure"));
    Arc::make_mut(&mut view.report).conditions.push(said(AGENT_READY, ConditionStatus::Unspecified, "Odd"));
    let expected = ["AgentsReady=Unknown Odd", "NodesHealthy=False NotWell", "AgentReady=Unknown Odd"];
    assert_eq!(untrue(&cluster, &observed), expected);
    let all = of_cluster(&cluster, None, &observed, time(0));
    assert_eq!(message(&all, "NodesHealthy"), "worker: MemoryOK (Pressure)");
}

/// Types in the first cells of a page's table of what agents report.
fn of_agents(page: &str) -> BTreeSet<&str> {
    let is_it = |part: &&str| part.contains("\n| `ContainerdReady`, `KubeletReady` |");
    let table = page.split("\n\n").find(is_it).expect("a table of the agents'");
    let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn all_that_an_agent_reports_counts_and_both_pages_have_it() {
    let mut reported = of_agents(include_str!("../../../../docs/reliability.md"));
    let mut on_page = of_agents(include_str!("../../../../docs/health.md"));
    // The one is among the host's own, the other is the host's word on a report.
    assert!(reported.remove(AGENT_READY) && on_page.remove("ReportWhole"));
    assert_eq!((&reported, reported.len()), (&on_page, 13));
    for kind in reported {
        let (cluster, mut observed) = well();
        let view = observed.agents.get_mut(&cluster.nodes[0].id).expect("its view");
        Arc::make_mut(&mut view.report).conditions.push(said(kind, ConditionStatus::False, "Bad"));
        let mut expected = vec!["ControlPlaneReady=False PartNotHealthy", "NodesHealthy=False NotWell"];
        expected.retain(|line| PARTS.contains(&kind) || line.starts_with("NodesHealthy"));
        assert_eq!(untrue(&cluster, &observed), expected, "{kind}");
    }
}

#[test]
fn an_alarm_of_etcd_is_told_of_the_control_plane() {
    let (cluster, mut observed) = well();
    let alarm = wire::condition("EtcdReady", ConditionStatus::False, "Unhealthy", "ALARM NOSPACE", time(0));
    let view = observed.agents.get_mut(&cluster.nodes[0].id).expect("its view");
    Arc::make_mut(&mut view.report).conditions.push(alarm.clone());
    let all = of_cluster(&cluster, None, &observed, time(0));
    assert_eq!(message(&all, "ControlPlaneReady"), "node control: EtcdReady: ALARM NOSPACE");
    // Of what is not known nothing is claimed, and a worker has no such parts.
    let view = observed.agents.get_mut(&cluster.nodes[0].id).expect("its view");
    Arc::make_mut(&mut view.report).conditions =
        vec![said("EtcdReady", ConditionStatus::Unknown, "NoManifest")];
    let view = observed.agents.get_mut(&cluster.nodes[1].id).expect("its view");
    Arc::make_mut(&mut view.report).conditions.push(alarm);
    let all = of_cluster(&cluster, None, &observed, time(0));
    assert_eq!(message(&all, "ControlPlaneReady"), "");
}

#[test]
fn a_worker_is_no_part_of_the_control_plane() {
    let (cluster, mut observed) = well();
    observed.kubernetes.nodes.get_mut("worker").expect("its node").ready = false;
    let expected =
        ["Ready=False NotAsDesired", "NodeReady=False KubeletNotReady", "NodeOK=Unknown NodeNotReady"];
    assert_eq!(untrue(&cluster, &observed), expected);
    observed.kubernetes.nodes.get_mut("worker").expect("its node").ready = true;
    observed.kubernetes.system_pods.insert("etcd-control".to_owned(), pod("control", false));
    assert_eq!(
        untrue(&cluster, &observed),
        ["Ready=False NotAsDesired", "ControlPlaneReady=False PodNotReady"]
    );
    let all = of_cluster(&cluster, None, &observed, time(0));
    assert_eq!(message(&all, "ControlPlaneReady"), "pod kube-system/etcd-control: CrashLoopBackOff");
}

#[test]
fn without_an_api_nothing_is_claimed_of_what_only_it_knows() {
    let (cluster, mut observed) = well();
    observed.kubernetes.reachable = false;
    observed.kubernetes.error = "connection refused".to_owned();
    let expected = [
        "Ready=False NotAsDesired",
        "ControlPlaneReady=False NodeNotReady",
        "KubernetesAPI=False NoAnswer",
        "ClusterDNS=Unknown APINoAnswer",
        "NodeReady=Unknown APINoAnswer",
        "NodeOK=Unknown NodeNotReady",
    ];
    assert_eq!(untrue(&cluster, &observed), expected);
}

#[test]
fn names_are_served_where_a_pod_of_coredns_is_ready() {
    let (cluster, mut observed) = well();
    let dns = |image: Option<&ImageFacts>, observed: &Observed| {
        let all = of_cluster(&cluster, image, observed, time(0));
        let found = all.into_iter().find(|it| it.r#type == "ClusterDNS").expect("it is there");
        (found.status(), found.reason)
    };
    let (bad, reason) = (ConditionStatus::False, |reason: &str| reason.to_owned());
    observed.kubernetes.system_pods.insert("coredns-b".to_owned(), pod("worker", false));
    assert_eq!(dns(Some(&with_dns()), &observed), (ConditionStatus::True, reason("PodReady")));
    observed.kubernetes.system_pods.remove("coredns-a");
    assert_eq!(dns(Some(&with_dns()), &observed), (bad, reason("PodNotReady")));
    let evicted = PodState { ended: true, ..pod("worker", true) };
    observed.kubernetes.system_pods.insert("coredns-b".to_owned(), evicted);
    assert_eq!(dns(Some(&with_dns()), &observed), (bad, reason("PodNotReady")));
    assert_eq!(dns(Some(&ImageFacts::default()), &observed), (bad, reason("NotInBundle")));
    assert_eq!(dns(None, &observed), (ConditionStatus::Unknown, reason("ImageUnreadable")));
}

#[test]
fn trouble_with_the_host_has_its_own_id() {
    let (cluster, mut observed) = well();
    let trouble = Failure::new("LIBVIRT-UNREACHABLE", "libvirt", "it does not answer", "start it");
    observed.trouble = Some(trouble);
    assert_eq!(untrue(&cluster, &observed), ["HostOK=False LIBVIRT-UNREACHABLE"]);
}

#[test]
fn nodes_that_leave_are_not_expected_to_run() {
    let (mut cluster, mut observed) = well();
    cluster.nodes[1].state = NodeState::Draining;
    observed.vms.get_mut(&cluster.nodes[1].id).expect("its VM").state = "shut off".to_owned();
    observed.agents.clear();
    let all = of_cluster(&cluster, None, &observed, time(0));
    assert_eq!(message(&all, "VMsRunning"), "");
    assert_eq!(message(&all, "AgentsReady"), "control: its agent has not called home");
}

#[test]
fn since_moves_with_the_status_only() {
    let (cluster, mut observed) = well();
    let at = |observed: &Observed, old: &[Condition], seconds: i64| {
        let mut new = of_node(&cluster.nodes[1], observed, time(seconds));
        keep_since(old, &mut new);
        new
    };
    let since = |conditions: &[Condition]| {
        let seconds = |it: &Condition| it.since.expect("a time").seconds - time(0).as_second();
        conditions.iter().map(seconds).collect::<Vec<_>>()
    };
    let first = at(&observed, &[], 100);
    // Kubernetes knows since when the node is Ready.
    assert_eq!(since(&first), [100, 100, 60, 100]);
    assert_eq!(since(&at(&observed, &first, 200)), [100, 100, 60, 100]);
    observed.vms.get_mut(&cluster.nodes[1].id).expect("its VM").state = "paused".to_owned();
    let paused = at(&observed, &first, 300);
    assert_eq!(since(&paused), [300, 100, 60, 100]);
    observed.vms.get_mut(&cluster.nodes[1].id).expect("its VM").state = "shut off".to_owned();
    assert_eq!(since(&at(&observed, &paused, 400)), [300, 100, 60, 100], "it is another reason, and as bad");
}

#[test]
fn long_lists_are_cut() {
    let names = |count: usize| listed((1..=count).map(|number| format!("w{number}")));
    assert_eq!(names(0), None);
    assert_eq!(names(2).as_deref(), Some("w1, w2"));
    assert_eq!(names(7).as_deref(), Some("w1, w2, w3, w4, w5 and 2 more"));
}

#[test]
fn whatever_else_kubernetes_complains_of_is_told() {
    let (cluster, mut observed) = well();
    let seen = observed.kubernetes.nodes.get_mut("worker").expect("its node");
    seen.troubles = vec!["DiskPressure: kubelet has disk pressure".to_owned(), "KernelDeadlock: ".to_owned()];
    let expected = ["NodesHealthy=False NotWell", "NodeOK=False DiskPressure"];
    assert_eq!(untrue(&cluster, &observed), expected);
    let all = of_cluster(&cluster, None, &observed, time(0));
    assert_eq!(message(&all, "NodesHealthy"), "worker: NodeOK (DiskPressure)");
    let worker = of_node(&cluster.nodes[1], &observed, time(0));
    assert_eq!(message(&worker, "NodeOK"), "DiskPressure: kubelet has disk pressure, KernelDeadlock: ");
}
