//! What is asked of plugins, and how it is answered.

use futures::FutureExt as _;
use host_plugins::{Ended, Follow, Offer, Progress, Trust, WishKind};
use k8sctl_rpc::status::failure_from;
use tokio::sync::{mpsc, oneshot};
use tonic::Code;

use super::change::{read_wish, tell, wire_offer};
use super::*;
use crate::cluster::fake::{FakeHostAgent, SPEC};

#[test]
fn an_offer_brings_the_remarks_of_the_plugin() {
    let warning = Diagnostic {
        code: String::new(),
        path: "/replicas".to_owned(),
        message: "one replica stands still while its node does".to_owned(),
        hint: "2".to_owned(),
        warning: true,
    };
    let own = Diagnostic { code: "HELLO-LATE".to_owned(), ..warning.clone() };
    let offer = Offer {
        name: "hello".to_owned(),
        version: "1.0.0".to_owned(),
        from_version: None,
        trust: Trust::BuiltIn,
        permissions: vec!["one".to_owned(), "two".to_owned()],
        new_permissions: vec!["two".to_owned()],
        permissions_digest: "digest".to_owned(),
        objects: Vec::new(),
        node: vec!["loads the kernel module vxlan".to_owned()],
        remarks: vec!["create 3, change 1, delete 0".to_owned()],
        plan_digest: "plan".to_owned(),
        warnings: vec![warning, own],
        diffs: Vec::new(),
    };
    let sent = wire_offer(offer);
    let ids: Vec<&str> = sent.diagnostics.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["PLUGIN-CONFIG", "HELLO-LATE"]);
    assert!(sent.diagnostics.iter().all(|it| it.warning && it.field == "/replicas"));
    let offer = sent.offer.expect("the offer");
    assert_eq!((offer.trust.as_str(), offer.from_version.as_str()), ("built-in", ""));
    assert_eq!((&offer.new_permissions[..], offer.node_requirements.len()), (&["two".to_owned()][..], 1));
}

#[test]
fn only_an_upgrade_leaves_a_config_as_it_is() {
    let read = |change: control::PluginChange, config: &str| {
        let wish = control::PluginWish {
            cluster_name: "home".to_owned(),
            change: change.into(),
            plugin: "hello".to_owned(),
            config_json: config.to_owned(),
            ..control::PluginWish::default()
        };
        read_wish(wish)
    };
    let config = |change, config: &str| read(change, config).expect("it is known").1.config_json;
    use control::PluginChange::{Add, Configure, RollBack, Unspecified, Upgrade};
    assert_eq!(
        [Add, Configure].map(|change| config(change, "")),
        [Some("{}".to_owned()), Some("{}".to_owned())]
    );
    assert_eq!([Upgrade, RollBack].map(|change| config(change, "")), [None, None]);
    assert_eq!(config(Upgrade, "{\"a\":1}").as_deref(), Some("{\"a\":1}"));
    let (cluster, wish) = read(RollBack, "").expect("it is known");
    assert_eq!((cluster.as_str(), wish.change, wish.to), ("home", WishKind::RollBack, None));
    let refused = read(Unspecified, "").expect_err("nobody knows what is meant");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn who_follows_hears_of_the_end_and_who_leaves_stops_nothing() {
    let (end, ends) = oneshot::channel();
    let ended = async move { ends.await.expect("it ends") }.boxed().shared();
    let follow = || Follow { progress: Progress::new(), ended: ended.clone() };
    let (sender, receiver) = mpsc::channel::<Result<(), Status>>(4);
    drop(receiver);
    assert_eq!(tell(follow(), &sender, |_, _| ()).await, None, "it goes on");

    let (sender, _receiver) = mpsc::channel::<Result<(), Status>>(4);
    let gone = Ended::Gone { kept: vec!["v1 Namespace hello".to_owned()] };
    let finish = async {
        tokio::task::yield_now().await;
        end.send(gone.clone()).expect("somebody follows");
    };
    let (told, ()) = tokio::join!(tell(follow(), &sender, |_, _| ()), finish);
    assert_eq!(told, Some(gone));
}

#[tokio::test]
async fn plugins_of_a_cluster_that_is_not_there_are_asked_for_in_vain() {
    let agent = FakeHostAgent::new().await;
    let plugins = Plugins { manager: agent.start().await, queues: Queues::default() };
    let asked = control::ListPluginsRequest { cluster_name: "home".to_owned(), available: Some(false) };
    let refused = plugins.list_plugins(Request::new(asked.clone())).await.expect_err("it is not there");
    assert_eq!(failure_from(&refused).map(|failure| failure.id).as_deref(), Some("CLUSTER-UNKNOWN"));
    agent.begin(agent.generation(SPEC).await).await;
    let listed = plugins.list_plugins(Request::new(asked)).await.expect("it is there").into_inner();
    assert_eq!(listed.plugins, Vec::new());
    // For this the cluster's API, which is not there, need not answer.
    let (cluster_name, plugin) = ("home".to_owned(), "nosuch".to_owned());
    let logs = control::GetPluginLogsRequest { cluster_name, plugin, pods: false };
    let refused = plugins.get_plugin_logs(Request::new(logs)).await.expect_err("nobody knows it");
    assert_eq!(failure_from(&refused).map(|failure| failure.id).as_deref(), Some("PLUGIN-UNKNOWN"));
}
