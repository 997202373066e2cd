//! Taking away: what goes, what stays, in which order, and what is told of what holds it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use plugin_plan::Handling;
use serde_json::{Value, json};

use crate::Bench;
use crate::common::faults::{Fault, Faults};
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

pub async fn what_takes_the_place_of_ours_before_it_is_deleted_is_left_alone(bench: &mut Bench) {
    let faults = Faults::none();
    let mut races = bench.installation("races");
    races.client = bench.cluster.client_with(&faults);
    let map = config_map("default", "races", "1");
    races.apply(&plan("races").object(map.clone()).checked()).await.expect("it installs");
    faults.follow(|_, request| (request.method() == http::Method::DELETE).then_some(Fault::Held));
    let replaces = async {
        // Ours was looked at, and is about to be deleted.
        faults.held().await;
        bench.maps("default").delete("races", &DeleteParams::default()).await.expect("ours goes");
        let theirs = bench.put(map.clone()).await;
        faults.let_go();
        theirs
    };
    let engine = races.engine();
    let (removed, theirs) = tokio::join!(engine.remove(false), replaces);
    assert!(removed.expect("ours is gone").kept.is_empty());
    let left = bench.live(&map).await.expect("theirs is still there");
    assert_eq!(left["metadata"]["uid"].as_str(), theirs.metadata.uid.as_deref());
    assert!(races.inventory().entries().await.expect("they are read").is_empty());
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
    // The same again, by a host agent that was killed before it could tell.
    assert_eq!(keeps.engine().remove(false).await.expect("again").kept, kept);
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

/// Until the kind is served in this version, or is not any more.
async fn wait_served(bench: &Bench, group: &str, version: &str, is_served: bool) {
    let kind = GroupVersionKind::gvk(group, version, "Pool");
    wait_for("discovery", async || {
        let found = kube::discovery::pinned_kind(bench.people(), &kind).await.is_ok();
        (found == is_served).then_some(())
    })
    .await;
}

pub async fn a_kind_is_gone_when_its_definition_is_and_not_before(bench: &mut Bench) {
    let group = "lags.example.org";
    let (kind, pool) = (definition(group, "Pool", "pools"), custom(group, "Pool", "default", "lags", 1));
    // Another plugin's.
    bench.put(kind.clone()).await;
    wait_served(bench, group, "v1", true).await;
    let faults = Faults::none();
    let mut lags = bench.installation("lags");
    lags.client = bench.cluster.client_with(&faults);
    let wanted = plan("lags").object(pool.clone()).ready_when_there(&format!("{group}/v1"), "Pool").checked();
    lags.apply(&wanted).await.expect("it installs");
    let entries = async || lags.inventory().entries().await.expect("they are read").len();

    // The server says that it is ready, and discovery does not have the kind.
    let hide = |requests: usize| {
        let path = format!("/apis/{group}/v1");
        faults.follow(move |asked, request| {
            (asked < requests && request.uri().path() == path).then_some(Fault::Answer(404, "NotFound"))
        });
    };
    hide(usize::MAX);
    let mut impatient = lags.clone();
    impatient.limits.kind = Duration::from_secs(2);
    let failure = impatient.engine().remove(false).await.expect_err("nobody can say whether it is there");
    assert_eq!(failure.id, "PLUGIN-DEFINITION", "{failure}");
    assert!(failure.reason.contains("its definition pools.lags.example.org is there"), "{failure}");
    assert!(entries().await == 1 && bench.live(&pool).await.is_some());

    // It comes a while later.
    hide(12);
    assert!(lags.engine().remove(false).await.expect("it is removed").kept.is_empty());
    assert!(entries().await == 0 && bench.live(&pool).await.is_none());

    // Objects of others that cannot be listed now hold their namespace.
    let mut holds = bench.installation("holds-pools");
    (holds.client, holds.limits.kind) = (lags.client.clone(), impatient.limits.kind);
    hide(0);
    holds.apply(&plan("holds-pools").object(namespace("holds-pools")).checked()).await.expect("it installs");
    let theirs = custom(group, "Pool", "holds-pools", "theirs", 1);
    bench.put(theirs.clone()).await;
    for (requests, why) in [(usize::MAX, "pools.lags.example.org: defined"), (0, "Pool theirs")] {
        hide(requests);
        let kept = holds.engine().remove(false).await.expect("it is kept").kept;
        assert!(kept.len() == 1 && kept[0].contains(why), "{why}: {kept:?}");
    }
    bench.api_of(&theirs).await.delete("theirs", &DeleteParams::default()).await.expect("it goes");
    assert!(holds.engine().remove(false).await.expect("it is removed").kept.is_empty());

    // With its definition go all objects, whoever looks.
    lags.apply(&wanted).await.expect("it installs again");
    let name = "pools.lags.example.org";
    bench.api_of(&kind).await.delete(name, &DeleteParams::default()).await.expect("it begins to go");
    wait_for("the definition to go", async || bench.live(&kind).await.is_none().then_some(())).await;
    assert!(lags.engine().remove(false).await.expect("nothing is left to remove").kept.is_empty());
    assert_eq!(entries().await, 0);
}

pub async fn an_object_is_found_in_the_version_that_is_served_now(bench: &mut Bench) {
    let group = "moves.example.org";
    let mut kind = definition(group, "Pool", "pools");
    bench.put(kind.clone()).await;
    wait_served(bench, group, "v1", true).await;
    let moves = bench.installation("moves");
    let mut pool = custom(group, "Pool", "default", "moves", 1);
    let wanted =
        plan("moves").object(pool.clone()).ready_when_there(&format!("{group}/v1"), "Pool").checked();
    moves.apply(&wanted).await.expect("it installs");

    let mut next = kind["spec"]["versions"][0].clone();
    (next["name"], next["storage"]) = (json!("v2"), json!(false));
    kind["spec"]["versions"][0]["served"] = json!(false);
    kind["spec"]["versions"].as_array_mut().expect("versions").push(next);
    bench.put(kind).await;
    wait_served(bench, group, "v2", true).await;
    wait_served(bench, group, "v1", false).await;
    pool["apiVersion"] = json!(format!("{group}/v2"));
    assert!(bench.live(&pool).await.is_some());
    assert!(moves.engine().remove(false).await.expect("it is removed").kept.is_empty());
    assert!(bench.live(&pool).await.is_none());
    assert!(moves.inventory().entries().await.expect("they are read").is_empty());
}
