//! Taking away: what goes, what stays, in which order, and what is told of what holds it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use plugin_plan::Handling;
use serde_json::{Value, json};

use crate::Bench;
use crate::common::plans::{claim, config_map, custom, definition, deployment, namespace, plan, service};
use crate::common::scenarios::wait_for;

pub async fn what_is_not_ours_is_neither_changed_nor_deleted(bench: &mut Bench) {
    let shared = bench.installation("shared");
    let objects = [namespace("shared"), service("shared", "shared"), config_map("shared", "ours", "1")];
    shared.apply(&plan("shared").objects(objects.clone()).checked()).await.expect("it installs");

    // A Service that somebody made anew under our name and with our marks, and notes in our namespace.
    let ours = bench.live(&objects[1]).await.expect("ours");
    bench.api_of(&objects[1]).await.delete("shared", &DeleteParams::default()).await.expect("ours goes");
    let mut theirs = objects[1].clone();
    theirs["metadata"]["annotations"] = ours["metadata"]["annotations"].clone();
    theirs["metadata"]["labels"] = ours["metadata"]["labels"].clone();
    theirs["spec"]["ports"][0]["protocol"] = json!("TCP");
    let theirs = bench.put(theirs).await;
    bench.put(config_map("shared", "notes", "1")).await;

    let engine = shared.engine();
    let (removed, said) = shared.lines(engine.remove(false)).await;
    let kept = removed.expect("it is removed").kept;
    assert!(said.iter().any(|line| line.starts_with("left v1 Service shared/shared")), "{said:?}");
    let kept = kept.iter().find(|line| line.starts_with("v1 Namespace shared")).expect("it is said");
    assert!(kept.contains("ConfigMap notes") && kept.contains("Service shared"), "{kept}");
    assert!(!kept.contains("kube-root-ca.crt") && !kept.contains("Secret"), "{kept}");
    let left = bench.live(&objects[1]).await.expect("it is still there");
    assert_eq!(left["metadata"]["uid"].as_str(), theirs.metadata.uid.as_deref());
    assert!(bench.live(&objects[2]).await.is_none(), "ours is gone");

    // Installed again it is ours as before, and with --purge it goes with all that is in it.
    shared.apply(&plan("shared").object(objects[0].clone()).checked()).await.expect("it installs again");
    assert!(shared.engine().remove(true).await.expect("it is purged").kept.is_empty());
    assert!(bench.live(&objects[0]).await.is_none());
}

/// A pod that people make; its namespace's account is there a moment after the namespace.
async fn pod(bench: &Bench, namespace: &str, pod: Value) -> Api<Pod> {
    let accounts: Api<ServiceAccount> = Api::namespaced(bench.people().clone(), namespace);
    wait_for("the account of pods", async || accounts.get_opt("default").await.ok().flatten()).await;
    let pods: Api<Pod> = Api::namespaced(bench.people().clone(), namespace);
    let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
    pods.patch(&name, &PatchParams::apply("people"), &Patch::Apply(&pod)).await.expect("it is made");
    pods
}

pub async fn a_namespace_that_stays_says_which_pod_holds_it(bench: &mut Bench) {
    let mut held = bench.installation("held");
    held.limits.gone = Duration::from_secs(3);
    held.apply(&plan("held").object(namespace("held")).checked()).await.expect("it installs");
    let holds = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "held", "finalizers": ["example.com/hold"]},
        "spec": {"containers": [{"name": "held", "image": "held"}], "automountServiceAccountToken": false},
    });
    let pods = pod(bench, "held", holds).await;
    pods.delete("held", &DeleteParams::default().grace_period(0)).await.expect("it is deleted");

    let engine = held.engine();
    let (removed, said) = held.lines(engine.remove(false)).await;
    let failure = removed.expect_err("the pod holds it");
    assert_eq!(failure.id, "PLUGIN-NOT-GONE", "{failure}");
    let why = "pod held has the finalizers example.com/hold";
    assert!(failure.reason.contains(why), "{failure}");
    assert!(said.iter().any(|line| line.contains(why)), "{said:?}");

    // It lets go, and the same command goes on.
    let free = json!({"metadata": {"finalizers": null}});
    pods.patch("held", &PatchParams::default(), &Patch::Merge(&free)).await.expect("it is let go");
    held.limits.gone = Duration::from_secs(60);
    held.engine().remove(false).await.expect("it is removed");
}

pub async fn pods_are_gone_before_their_namespace_is_deleted(bench: &mut Bench) {
    let graceful = bench.installation("graceful");
    let objects = [namespace("graceful"), deployment("graceful", "graceful", 1)];
    graceful.apply(&plan("graceful").objects(objects.clone()).checked()).await.expect("it installs");
    let owned_by = |kind: &str, uid: &Value| json!([{"apiVersion": "apps/v1", "kind": kind, "name": "graceful", "uid": uid, "controller": true}]);
    let uid = bench.live(&objects[1]).await.expect("it is there")["metadata"]["uid"].clone();
    let template = objects[1]["spec"]["template"].clone();
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "graceful", "namespace": "graceful", "labels": {"app": "graceful"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "graceful"}}, "template": template},
    });
    set["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([]);
    set["metadata"]["ownerReferences"] = owned_by("Deployment", &uid);
    let uid = bench.put(set).await.metadata.uid;
    // It is on a node, so that it ends only when its kubelet says so.
    let runs = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "graceful-1", "labels": {"app": "graceful"}, "ownerReferences": owned_by("ReplicaSet", &json!(uid))},
        "spec": {
            "nodeName": "k8s-worker-1", "automountServiceAccountToken": false,
            "containers": [{"name": "graceful", "image": "graceful"}],
        },
    });
    let pods = pod(bench, "graceful", runs).await;

    let ends = async {
        wait_for("the pod to end", async || pods.get("graceful-1").await.ok()?.metadata.deletion_timestamp)
            .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let space = bench.namespaces().get("graceful").await.expect("it is there");
        assert!(space.metadata.deletion_timestamp.is_none(), "nobody has deleted it while the pod is there");
        pods.delete("graceful-1", &DeleteParams::default().grace_period(0))
            .await
            .expect("its kubelet says so");
    };
    let engine = graceful.engine();
    let ((removed, said), ()) = tokio::join!(graceful.lines(engine.remove(false)), ends);
    assert!(removed.expect("it is removed").kept.is_empty());
    let place = |start: &str| said.iter().position(|line| line.starts_with(start));
    let waited =
        place("waiting until the pods of apps/v1 Deployment graceful/graceful are gone: pod graceful-1");
    assert!(waited.is_some() && waited < place("deleted v1 Namespace graceful"), "{said:?}");
}

pub async fn data_and_definitions_with_others_objects_are_kept(bench: &mut Bench) {
    let keeps = bench.installation("keeps");
    let data = claim("default", "keeps", "none");
    let kind = definition("keeps.example.org", "Pool", "pools");
    let wanted_kept = Handling { keep: true, ..Handling::default() };
    bench.kubelet.care_for("keeps");
    let wanted = plan("keeps")
        .objects([data.clone(), kind.clone(), custom("keeps.example.org", "Pool", "default", "ours", 1)])
        .with(config_map("default", "keeps", "1"), wanted_kept)
        .ready_when_there("keeps.example.org/v1", "Pool")
        .checked();
    keeps.apply(&wanted).await.expect("it installs");
    bench.put(custom("keeps.example.org", "Pool", "default", "theirs", 1)).await;

    let kept = keeps.engine().remove(false).await.expect("it is removed").kept;
    let of = |start: &str| kept.iter().find(|line| line.starts_with(start)).expect("it is kept").as_str();
    assert_eq!(
        of("v1 PersistentVolumeClaim default/keeps"),
        "v1 PersistentVolumeClaim default/keeps: it holds data"
    );
    let definition = of("apiextensions.k8s.io/v1 CustomResourceDefinition pools.keeps.example.org");
    assert!(definition.ends_with("others have objects of it: Pool default/theirs"), "{definition}");
    assert!(of("v1 ConfigMap default/keeps").ends_with("the plugin wants it kept"));
    assert!(bench.live(&custom("keeps.example.org", "Pool", "default", "ours", 1)).await.is_none());
    assert!(bench.live(&data).await.is_some() && bench.live(&kind).await.is_some());

    keeps.apply(&wanted).await.expect("it installs again, on what was kept");
    let kept = keeps.engine().remove(true).await.expect("it is purged").kept;
    assert_eq!(kept.len(), 1, "what is to be kept is kept: {kept:?}");
    assert!(bench.live(&data).await.is_none() && bench.live(&kind).await.is_none());
}

pub async fn a_namespace_that_ends_is_waited_for(bench: &mut Bench) {
    let api = bench.namespaces();
    bench.put(namespace("ends")).await;
    let mut holds = config_map("ends", "holds", "1");
    holds["metadata"]["finalizers"] = json!(["example.com/hold"]);
    bench.put(holds).await;
    api.delete("ends", &DeleteParams::default()).await.expect("it begins to end");

    let mut ends = bench.installation("ends");
    ends.limits.ready = Duration::from_secs(3);
    let writes = bench.cluster.writes().await;
    let into = plan("ends").object(config_map("ends", "ends", "1")).checked();
    let failure = ends.apply(&into).await.expect_err("it takes nothing any more");
    assert_eq!(failure.id, "PLUGIN-NAMESPACE-ENDING", "{failure}");
    let whole = plan("ends").objects([namespace("ends"), config_map("ends", "ends", "1")]).checked();
    let failure = ends.apply(&whole).await.expect_err("it is not gone yet");
    assert_eq!(failure.id, "PLUGIN-NAMESPACE-ENDING", "{failure}");
    assert_eq!(bench.cluster.writes().await, writes);

    // It goes, and the same command goes on.
    ends.limits.ready = Duration::from_secs(60);
    let frees = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let free = json!({"metadata": {"finalizers": null}});
        let params = PatchParams::default();
        bench.maps("ends").patch("holds", &params, &Patch::Merge(&free)).await.expect("it is let go");
    };
    let (applied, ()) = tokio::join!(ends.apply(&whole), frees);
    assert_eq!(applied.expect("it installs").written, 2);
}
