//! A sound message of every method of the node port and of the control socket, and what must never be made of it: what is
//! asked for here comes to nothing, also when some of it was changed, since the cluster that is well is to stay so.

use k8sctl_proto::control::v1 as control;
use k8sctl_proto::node::v1 as node;
use k8sctl_proto::node::v1::agent_message::Message;
use prost::Message as _;

/// A method, and what is sent to it.
#[derive(Clone, Debug)]
pub struct Method {
    /// `/package.Service/Method`
    pub path: &'static str,
    /// Sound messages, in their order where it takes several.
    pub messages: Vec<Vec<u8>>,
    /// Nothing that could be decoded is sent: what it asks for would leave this machine.
    pub is_spoiled: bool,
}

/// A request for a certificate, PKCS#10. Whoever had its key could use what is made of it; nobody has.
const CSR: &str = "3081c93071020100300f310d300b06035504030c0466757a7a3059301306072a8648ce3d020106082a8648ce3d0301070342\
                   000491720325f4f658f0ecc8de2cbb855638f1304b3091305e1c03a0c1b12aaf493a6cf0f43070de73c87c3876344b334a9d\
                   7cacdc7f65ebba87483db2abf5071a89a000300a06082a8648ce3d040302034800304502210084bb25f1e1fdd73e477d4554\
                   ce734d6d73689b49ae28f9a01a892a31879ab03002207060317436a09f6a1f8f4d70229ce07ffef17b0e27c0c15fd135f32a\
                   1cadb322";
/// Of no cluster, node, plugin or file.
const NONE: &str = "there-is-none";
/// A file of a cluster in which much is wrong, whatever becomes of it: it has no nodes.
const SPEC: &str = "name = \"malformed\"\nunknown = 1\n\n[network]\ncidr = \"10.99.0.0/16\"\npods = \"10.99.0.0/8\"\n\n\
                    [labels]\n\"a/b\" = [[1, 2], { c = 1979-05-27 }]\n";

fn method(path: &'static str, messages: Vec<Vec<u8>>) -> Method {
    Method { path, messages, is_spoiled: false }
}

/// Of node ports.
pub fn of_node_port(node_id: &str, machine_uuid: &str) -> Vec<Method> {
    let csr_der = csr();
    let join = node::JoinRequest {
        node_id: node_id.to_owned(),
        machine_uuid: machine_uuid.to_owned(),
        boot_id: "boot".to_owned(),
        csr_der: csr_der.clone(),
        mac: vec![7; 32],
        protocol: 1,
    };
    let facts = node::NodeFacts { vcpus: 2, hostname: NONE.to_owned(), ..node::NodeFacts::default() };
    let hello = node::Hello {
        protocol: 1,
        machine_uuid: machine_uuid.to_owned(),
        facts: Some(facts.clone()),
        ..node::Hello::default()
    };
    let evidence = node::Evidence {
        argv: vec!["kubeadm".to_owned(); 8],
        exit_status: Some(-1),
        output_tail: "out\u{1b}[31m\n".repeat(200),
        journal_tail: "journal\n".repeat(200),
    };
    let step =
        node::StepStatus { name: "kubeadm".to_owned(), evidence: Some(evidence), ..Default::default() };
    let condition =
        node::Condition { r#type: "KubeletReady".to_owned(), status: 2, ..node::Condition::default() };
    let report = node::StatusReport {
        observed_generation: u64::MAX,
        steps: vec![step; 6],
        conditions: vec![condition; 14],
        repairs: (1..=32).map(|number| node::Repair { number, ..node::Repair::default() }).collect(),
        facts: Some(facts),
        replacement: Some(node::AgentReplacement { state: 4, ..node::AgentReplacement::default() }),
    };
    let said = |message| node::AgentMessage { message: Some(message) }.encode_to_vec();
    let line = node::LogLine { source: "agent".to_owned(), text: "line".to_owned(), time: None };
    let named = node::LogFrame { stream_id: NONE.to_owned(), ..node::LogFrame::default() };
    let frame = node::LogFrame { lines: vec![line; 64], cursor: "c".repeat(64), ..Default::default() };
    vec![
        method("/k8sctl.node.v1.JoinService/Join", vec![join.encode_to_vec()]),
        method(
            "/k8sctl.node.v1.NodeService/Session",
            vec![
                said(Message::Hello(hello)),
                said(Message::Status(report.clone())),
                said(Message::Status(report)),
            ],
        ),
        method(
            "/k8sctl.node.v1.NodeService/RenewCertificate",
            vec![node::RenewCertificateRequest { csr_der }.encode_to_vec()],
        ),
        method(
            "/k8sctl.node.v1.NodeService/PushLogs",
            vec![named.encode_to_vec(), frame.encode_to_vec(), frame.encode_to_vec()],
        ),
        method(
            "/k8sctl.node.v1.NodeService/FetchAgent",
            vec![node::FetchAgentRequest { sha256: "0".repeat(64) }.encode_to_vec()],
        ),
    ]
}

/// Of the control socket.
pub fn of_control() -> Vec<Method> {
    let none = || NONE.to_owned();
    let file = |text: &str| {
        Some(control::SpecFile {
            name: "cluster.toml".to_owned(),
            text: text.to_owned(),
            ..Default::default()
        })
    };
    let selector = node::LogSelector {
        sources: vec![1, 2, 3],
        tail: Some(3),
        units: vec!["kubelet.service".to_owned()],
        pods: vec![node::PodLogs { namespace: "default".to_owned(), name: none(), container: String::new() }],
        grep: "(a|b)*c{1,20}[[:alpha:]]".to_owned(),
        ..node::LogSelector::default()
    };
    let logs = control::StreamLogsRequest {
        node_names: vec![none()],
        selector: Some(selector),
        positions: vec![control::LogPosition { node_name: none(), cursor: "c".to_owned() }],
        ..control::StreamLogsRequest::default()
    };
    let events = control::StreamEventsRequest {
        tail: Some(5),
        node_name: none(),
        types: vec!["NodeJoined".to_owned()],
        ..control::StreamEventsRequest::default()
    };
    let apply = control::ApplyRequest {
        spec: file(SPEC),
        plan_digest: "0".repeat(64),
        ..control::ApplyRequest::default()
    };
    let destroy =
        control::DestroyRequest { cluster_name: none(), plan_digest: "0".repeat(64), deadline: None };
    let upgrade = control::UpgradeAgentsRequest {
        cluster_name: none(),
        node_names: vec![none()],
        ..control::UpgradeAgentsRequest::default()
    };
    let build = control::BuildImageRequest { bundle: none(), suite: none(), ..Default::default() };
    let support = control::CollectSupportRequest { cluster_name: none(), deadline: None };
    let fetch = control::FetchBundleRequest { kubernetes_version: "v0.0.0".to_owned() };
    let import = control::ImportBundleRequest { path: "/there/is/none".to_owned() };
    let status = control::WatchStatusRequest { cluster_name: none(), watch: false };
    let mut methods = vec![
        method("/k8sctl.control.v1.HostService/GetVersion", vec![Vec::new()]),
        method("/k8sctl.control.v1.HostService/Doctor", vec![Vec::new()]),
        method("/k8sctl.control.v1.HostService/CollectSupport", vec![support.encode_to_vec()]),
        method(
            "/k8sctl.control.v1.ClusterService/Plan",
            vec![control::PlanRequest { spec: file(SPEC) }.encode_to_vec()],
        ),
        method("/k8sctl.control.v1.ClusterService/Apply", vec![apply.encode_to_vec()]),
        method(
            "/k8sctl.control.v1.ClusterService/PlanDestroy",
            vec![control::PlanDestroyRequest { cluster_name: none() }.encode_to_vec()],
        ),
        method("/k8sctl.control.v1.ClusterService/Destroy", vec![destroy.encode_to_vec()]),
        method(
            "/k8sctl.control.v1.ClusterService/WatchOperation",
            vec![control::WatchOperationRequest { operation_id: none() }.encode_to_vec()],
        ),
        method("/k8sctl.control.v1.ClusterService/ListClusters", vec![Vec::new()]),
        method("/k8sctl.control.v1.ClusterService/WatchStatus", vec![status.encode_to_vec()]),
        method("/k8sctl.control.v1.ClusterService/StreamEvents", vec![events.encode_to_vec()]),
        method(
            "/k8sctl.control.v1.ClusterService/GetKubeconfig",
            vec![control::GetKubeconfigRequest { cluster_name: none() }.encode_to_vec()],
        ),
        method("/k8sctl.control.v1.ClusterService/StreamLogs", vec![logs.encode_to_vec()]),
        method("/k8sctl.control.v1.ClusterService/UpgradeAgents", vec![upgrade.encode_to_vec()]),
        method("/k8sctl.control.v1.ImageService/BuildImage", vec![build.encode_to_vec()]),
        method("/k8sctl.control.v1.ImageService/ListImages", vec![Vec::new()]),
        method(
            "/k8sctl.control.v1.ImageService/RemoveImage",
            vec![control::RemoveImageRequest { id: "f".repeat(64) }.encode_to_vec()],
        ),
        Method {
            is_spoiled: true,
            ..method("/k8sctl.control.v1.BundleService/FetchBundle", vec![fetch.encode_to_vec()])
        },
        method("/k8sctl.control.v1.BundleService/ImportBundle", vec![import.encode_to_vec()]),
        method("/k8sctl.control.v1.BundleService/ListBundles", vec![Vec::new()]),
    ];
    methods.extend(of_plugins());
    methods
}

/// Of what is about plugins. A folder is named, never one that is there.
fn of_plugins() -> Vec<Method> {
    let none = || NONE.to_owned();
    let wish = control::PluginWish {
        cluster_name: none(),
        change: 1,
        plugin: "/there/is/none".to_owned(),
        config_json: "{\"a\":[[[{}]]]}".to_owned(),
        to: "/there/is/none".to_owned(),
        ..control::PluginWish::default()
    };
    let plan = control::PlanPluginRequest { wish: Some(wish.clone()), diff: true };
    let change = control::ChangePluginRequest {
        wish: Some(wish),
        approved_permissions: "0".repeat(64),
        plan_digest: "0".repeat(64),
        ..control::ChangePluginRequest::default()
    };
    let remove = control::RemovePluginRequest { cluster_name: none(), plugin: none(), ..Default::default() };
    let list = control::ListPluginsRequest { cluster_name: none(), available: Some(true) };
    let show = control::ShowPluginRequest { cluster_name: none(), plugin: none() };
    let watch = control::WatchPluginsRequest { cluster_name: none(), watch: false };
    let logs = control::GetPluginLogsRequest { cluster_name: none(), plugin: none(), pods: true };
    let vendor = control::VendorPluginRequest {
        plugin: none(),
        from: "/there/is/none".to_owned(),
        cluster_name: none(),
    };
    let verify = control::VerifyPluginsRequest {
        plugin: none(),
        lock_text: "format = 1\n[[plugin]]\nname = \"x\"\n".to_owned(),
    };
    let secret = control::SetPluginSecretRequest {
        cluster_name: none(),
        plugin: none(),
        handle: none(),
        key: "../../key".to_owned(),
        value: vec![7; 64],
    };
    let of = |path: &'static str, message: Vec<u8>| method(path, vec![message]);
    vec![
        of("/k8sctl.control.v1.PluginService/PlanPlugin", plan.encode_to_vec()),
        of("/k8sctl.control.v1.PluginService/ChangePlugin", change.encode_to_vec()),
        of("/k8sctl.control.v1.PluginService/RemovePlugin", remove.encode_to_vec()),
        of("/k8sctl.control.v1.PluginService/ListPlugins", list.encode_to_vec()),
        of("/k8sctl.control.v1.PluginService/ShowPlugin", show.encode_to_vec()),
        of("/k8sctl.control.v1.PluginService/WatchPlugins", watch.encode_to_vec()),
        of("/k8sctl.control.v1.PluginService/GetPluginLogs", logs.encode_to_vec()),
        // A changed message may name nothing, which means: all of them, from upstream.
        Method {
            is_spoiled: true,
            ..of("/k8sctl.control.v1.PluginService/VendorPlugin", vendor.encode_to_vec())
        },
        of("/k8sctl.control.v1.PluginService/VerifyPlugins", verify.encode_to_vec()),
        of("/k8sctl.control.v1.PluginService/SetPluginSecret", secret.encode_to_vec()),
    ]
}

/// Messages of many empty parts, with the method that takes them.
pub fn of_many_parts(parts: usize) -> Vec<(&'static str, Vec<u8>)> {
    let steps = node::StatusReport {
        steps: vec![node::StepStatus::default(); parts],
        ..node::StatusReport::default()
    };
    let lines = node::LogFrame { lines: vec![node::LogLine::default(); parts], ..Default::default() };
    let positions = control::StreamLogsRequest {
        positions: vec![control::LogPosition::default(); parts],
        ..control::StreamLogsRequest::default()
    };
    vec![
        (
            "/k8sctl.node.v1.NodeService/Session",
            node::AgentMessage { message: Some(Message::Status(steps)) }.encode_to_vec(),
        ),
        ("/k8sctl.node.v1.NodeService/PushLogs", lines.encode_to_vec()),
        ("/k8sctl.control.v1.ClusterService/StreamLogs", positions.encode_to_vec()),
    ]
}

fn csr() -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
    CSR.as_bytes()
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |value, byte| (value << 4) | digit(*byte)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8sctl_proto::roles::CONTROL_METHODS;

    use super::*;

    #[test]
    fn every_method_has_a_message() {
        let control: BTreeSet<_> = of_control().iter().map(|method| method.path).collect();
        let known: BTreeSet<_> = CONTROL_METHODS.iter().map(|(path, _)| *path).collect();
        assert_eq!(control, known);
        let proto = include_str!("../../../../proto/k8sctl/node/v1/node.proto");
        let calls = proto.lines().filter(|line| line.trim_start().starts_with("rpc ")).count();
        assert_eq!(of_node_port("a", "b").len(), calls);
    }

    #[test]
    fn what_is_planned_is_no_cluster() {
        k8sctl_types::spec::parse(SPEC).expect_err("much is wrong with it");
        assert_eq!(csr().len(), 204);
    }

    #[test]
    fn many_parts_are_small_on_the_wire() {
        for (path, message) in of_many_parts(1_000) {
            assert!(message.len() < 2_100, "{path}: {}", message.len());
        }
    }
}
