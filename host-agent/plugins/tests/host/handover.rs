//! A plugin that brings the pod network, and nodes that make way for it. Whoever tells nodes is played by the test.

use std::time::Duration;

use host_plugins::{Ended, Given, Handover, PluginState, WishKind};
use serde_json::json;

use crate::bench::{Bench, kill_at, was_killed, wish};
use crate::shelf::Data;

fn network() -> Data {
    Data {
        provides: &["cni"],
        manifest: "[node]\nexternal_cni = true\n",
        data: "[[node]]\ncni = { config_file = \"05-net.conflist\" }\n",
        ..Data::new("net")
    }
}

/// Says which nodes have not made way.
fn say(bench: &Bench, waiting: &[&str]) {
    let why = "its agent has no session".to_owned();
    let waiting = waiting.iter().map(|&name| (name.to_owned(), why.clone())).collect();
    bench.host.nodes_make_way(&bench.access.cluster_id, Handover { plugin: "net".to_owned(), waiting });
}

/// What keeps it from being ready.
async fn blocking(bench: &Bench) -> Option<String> {
    Some(bench.status("net").await?.blocking?.object)
}

#[tokio::test]
async fn nothing_of_a_pod_network_is_written_before_every_node_has_made_way() {
    let made = Bench::start(async |shelf| vec![shelf.data("path/net", &network())]);
    let Some(mut bench) = made.await else { return };
    let add = wish(WishKind::Add, "net", Some(&json!({"message": "one"})));

    // What was said before it began counts for nothing.
    say(&bench, &[]);
    let approved_digest = bench.offer(&add).await.expect("an offer").permissions_digest;
    let deadline = Some(Duration::from_secs(8));
    let given = Given { approved_digest, by_uid: 1000, deadline, ..Given::default() };
    let follow = bench.host.begin(&bench.access, &add, &given).await.expect("it begins");
    let (_, mut blocked) = follow.progress.follow();
    let waits = blocked.wait_for(|now| now.as_ref().is_some_and(|it| it.object == "the nodes"));
    waits.await.expect("it runs");
    say(&bench, &["k8s-worker-1"]);
    let waits = blocked.wait_for(|now| now.as_ref().is_some_and(|it| it.object == "node k8s-worker-1"));
    waits.await.expect("it runs");
    let status = bench.status("net").await.expect("it is there");
    let reason = status.blocking.map(|blocking| blocking.reason);
    assert_eq!(
        (status.state, reason.as_deref()),
        (PluginState::Installing, Some("its agent has no session"))
    );
    let Ended::Failed(late) = follow.ended.await else { panic!("its deadline passes") };
    assert_eq!(late.id, "PLUGIN-HANDOVER", "{late}");
    assert!(late.reason.contains("node k8s-worker-1") && late.reason.contains("no session"), "{late}");
    assert!(!bench.has_namespace("net").await, "nothing was written");
    assert_eq!(bench.status("net").await.map(|status| status.state), Some(PluginState::Failed));
    // Nodes are told of it until it is removed, and then have the network of before.
    let cluster = bench.access.cluster_id.clone();
    let needs = bench.host.node_requirements(&cluster).await.expect("it reads");
    assert_eq!((needs.len(), needs[0].was_ready), (1, false));
    assert_eq!(bench.remove("net").await.expect("it goes"), Vec::<String>::new());
    assert!(bench.host.node_requirements(&cluster).await.expect("it reads").is_empty());

    // Added again it waits again; a host agent that is killed meanwhile goes on with waiting.
    kill_at("after-begin");
    let ended = bench.begin(&add).await.expect("it begins").ended.await;
    assert!(was_killed() && matches!(ended, Ended::Failed(_)), "{ended:?}");
    bench.restart();
    bench
        .keep_until("it waits for the node", async |bench: &Bench| {
            let now = blocking(bench).await;
            if now.as_deref() == Some("the nodes") {
                say(bench, &["k8s-worker-1"]);
            }
            now.as_deref() == Some("node k8s-worker-1")
        })
        .await;
    assert!(!bench.has_namespace("net").await, "nothing was written");
    say(&bench, &[]);
    let is_ready = async |bench: &Bench| {
        bench.status("net").await.is_some_and(|status| status.state == PluginState::Ready)
    };
    bench.keep_until("it is ready", is_ready).await;
    assert_eq!(bench.text("net").await.map(|(text, _)| text).as_deref(), Some("one"));

    // From then on the network is its own: no node is waited for.
    say(&bench, &["k8s-worker-1"]);
    let configure = wish(WishKind::Configure, "net", Some(&json!({"message": "two"})));
    bench.wish(&configure).await.expect("it is configured");
    assert_eq!(bench.text("net").await.map(|(text, _)| text).as_deref(), Some("two"));
}
