use super::eviction::{is_networked, must_leave};
use super::*;

fn pod(value: serde_json::Value) -> Pod {
    serde_json::from_value(value).expect("a pod")
}

#[test]
fn daemons_and_static_pods_stay() {
    let daemon = pod(json!({ "metadata": { "name": "a", "ownerReferences": [
        { "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "1", "controller": true }] } }));
    let mirror = pod(json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } } }));
    let done = pod(json!({ "metadata": {}, "status": { "phase": "Succeeded" } }));
    let plain = pod(json!({ "metadata": { "name": "p" } }));
    assert_eq!([&daemon, &mirror, &done, &plain].map(must_leave), [false, false, false, true]);
}

/// Those of DaemonSets, too: they come back on the same node.
#[test]
fn pods_with_an_address_of_the_pod_network_are_restarted_for_another_one() {
    let daemon = pod(json!({ "metadata": { "name": "a", "ownerReferences": [
        { "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "1", "controller": true }] } }));
    let of_host = pod(json!({ "metadata": {}, "spec": { "hostNetwork": true, "containers": [] } }));
    let mirror = pod(json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } } }));
    let done = pod(json!({ "metadata": {}, "status": { "phase": "Failed" } }));
    let plain = pod(json!({ "metadata": { "name": "p" }, "spec": { "containers": [] } }));
    assert_eq!(
        [&daemon, &of_host, &mirror, &done, &plain].map(is_networked),
        [true, false, false, false, true]
    );
}

#[test]
fn nobody_waits_for_a_pod_that_has_ended() {
    let of = |phase: &str, annotations: serde_json::Value| {
        pod_view(&pod(json!({ "metadata": { "annotations": annotations }, "status": { "phase": phase } })))
    };
    for (phase, ended) in [("Succeeded", true), ("Failed", true), ("Pending", false), ("Running", false)] {
        assert_eq!((of(phase, json!({})).ended, of(phase, json!({})).ready), (ended, false), "{phase}");
    }
    // A static pod comes back from its file, so one that failed is missed.
    assert!(!of("Failed", json!({ "kubernetes.io/config.mirror": "x" })).ended);
}

#[test]
fn a_node_gets_the_labels_that_its_kubelet_may_not_give_it() {
    let mut node = NodeSpec {
        name: "n".to_owned(),
        role: Role::Worker,
        vcpus: 2,
        memory_bytes: 0,
        disk_bytes: 0,
        ip: [192, 168, 122, 11].into(),
        mac: String::new(),
        labels: vec![
            ("topology.kubernetes.io/zone".to_owned(), "a".to_owned()),
            ("node-role.kubernetes.io/storage".to_owned(), String::new()),
            ("node-restriction.kubernetes.io/team".to_owned(), "x".to_owned()),
        ],
        taints: Vec::new(),
    };
    let patch = introduction(&node, "10.244.1.0/24");
    let labels = json!({ "node-role.kubernetes.io/storage": "", "node-restriction.kubernetes.io/team": "x",
        WORKER_LABEL: "" });
    assert_eq!(patch["metadata"]["labels"], labels);
    assert_eq!(patch["spec"]["podCIDR"], "10.244.1.0/24");
    (node.role, node.labels) = (Role::ControlPlane, Vec::new());
    assert_eq!(introduction(&node, "10.244.0.0/24")["metadata"]["labels"], json!({}));
}

#[test]
fn a_node_without_conditions_is_not_ready() {
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": "n" } })).expect("a node");
    let view = node_view(&node);
    assert!(!view.ready && view.why.contains("not reported"), "{view:?}");
}

#[test]
fn the_nodes_own_time_is_kept() {
    let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": "2026-11-28T18:00:00Z" });
    let node = json!({ "metadata": { "name": "n" }, "status": { "conditions": [ready] } });
    let view = node_view(&serde_json::from_value(node).expect("a node"));
    assert!(view.ready && view.since == "2026-11-28T18:00:00Z".parse().ok(), "{view:?}");
}

#[test]
fn what_else_is_wrong_with_a_node_is_kept() {
    let condition = |kind: &str, status: &str, message: &str| json!({ "type": kind, "status": status, "message": message });
    let conditions = [
        condition("Ready", "True", "kubelet is posting ready status"),
        condition("DiskPressure", "True", "kubelet has disk pressure"),
        condition("MemoryPressure", "False", "kubelet has sufficient memory available"),
        condition("PIDPressure", "Unknown", "Kubelet stopped posting node status."),
    ];
    let node = json!({ "metadata": { "name": "n" }, "status": { "conditions": conditions } });
    let view = node_view(&serde_json::from_value(node).expect("a node"));
    assert_eq!(view.troubles, ["DiskPressure: kubelet has disk pressure"]);
}

#[tokio::test]
async fn an_interruption_is_seen_and_healed() {
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": "n" },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }))
    .expect("a node");
    let view = watch::Sender::new(KubernetesView::default());
    let list = || vec![Ok(Event::Init), Ok(Event::InitApply(node.clone())), Ok(Event::InitDone)];
    let events = futures::stream::iter(list());
    mirror(events, &view, |view| &mut view.nodes, node_view, true).await;
    assert!(view.borrow().reachable && view.borrow().nodes["n"].ready);
    // Whatever a watch would bring after an interruption, it says nothing of what was missed.
    let broken = vec![Err(watcher::Error::NoResourceVersion), Ok(Event::Delete(node.clone()))];
    mirror(futures::stream::iter(broken), &view, |view| &mut view.nodes, node_view, true).await;
    assert!(!view.borrow().reachable && !view.borrow().error.is_empty());
    assert!(view.borrow().nodes.contains_key("n"));
    mirror(futures::stream::iter(list()), &view, |view| &mut view.nodes, node_view, true).await;
    assert!(view.borrow().reachable && view.borrow().error.is_empty());
}
