//! What is refused, and that nothing is written where anything is.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use plugin_plan::Handling;
use serde_json::{Value, json};

use crate::Bench;
use crate::common::plans::{
    account, config_map, custom, definition, deployment, job, namespace, plan, service, stateful_set,
};

pub async fn a_field_that_cannot_be_changed_stops_everything(bench: &mut Bench) {
    let fixed = bench.installation("fixed");
    let of = |image: &str| plan("fixed").object(job("default", "fixed", image));
    fixed.apply(&of("lab.k8s-myhome/busybox:1").checked()).await.expect("it installs");
    let writes = bench.cluster.writes().await;
    let other = of("lab.k8s-myhome/busybox:2").object(account("default", "fixed")).checked();
    let refused = fixed.apply(&other).await.expect_err("a Job's pods cannot be changed");
    assert_eq!(refused.id, "PLUGIN-IMMUTABLE", "{refused}");
    assert!(refused.reason.contains("batch/v1 Job default/fixed"), "{refused}");
    assert_eq!(bench.cluster.writes().await, writes, "the account is not made either");
}

/// What people change so that only making it anew helps.
async fn anew(bench: &Bench, plugin: &str, before: Value, after: Value) -> (Value, Value) {
    let installation = bench.installation(plugin);
    let handling = Handling { replace: true, ..Handling::default() };
    let of = |object: &Value| plan(plugin).with(object.clone(), handling.clone()).checked();
    installation.apply(&of(&before)).await.expect("it installs");
    let old = bench.live(&before).await.expect("it is there");
    let (applied, said) = installation.lines(installation.apply(&of(&after))).await;
    assert_eq!(applied.unwrap_or_else(|failure| panic!("{plugin}: {failure}")).written, 1);
    assert!(said.iter().any(|line| line.starts_with("made anew")), "{said:?}");
    let new = bench.live(&after).await.expect("it is there");
    assert_ne!(old["metadata"]["uid"], new["metadata"]["uid"]);
    assert_eq!(installation.apply(&of(&after)).await.expect("again").written, 0);
    (old, new)
}

pub async fn an_object_is_made_anew_where_the_plan_allows_it(bench: &mut Bench) {
    let images = ["lab.k8s-myhome/busybox:1", "lab.k8s-myhome/busybox:2"];
    let [before, after] = images.map(|image| job("default", "anew", image));
    anew(bench, "anew-job", before, after).await;

    let [before, after] = ["127.96.0.71", "127.96.0.72"].map(|address| {
        let mut object = service("default", "anew");
        object["spec"]["clusterIP"] = json!(address);
        object
    });
    anew(bench, "anew-service", before, after).await;

    // The pods of a StatefulSet go on.
    let before = stateful_set("default", "anew", "1Gi");
    let handling = Handling { replace: true, ..Handling::default() };
    let installation = bench.installation("anew-set");
    let of =
        |storage| plan("anew-set").with(stateful_set("default", "anew", storage), handling.clone()).checked();
    installation.apply(&of("1Gi")).await.expect("it installs");
    let set = bench.live(&before).await.expect("it is there");
    let pods: Api<Pod> = Api::namespaced(bench.people().clone(), "default");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "anew-0", "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "anew", "uid": set["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        }]},
        "spec": {"containers": [{"name": "anew", "image": "lab.k8s-myhome/busybox:1"}], "automountServiceAccountToken": false},
    });
    let params = PatchParams::apply("people");
    let pod = pods.patch("anew-0", &params, &Patch::Apply(&pod)).await.expect("its pod is made");
    installation.apply(&of("2Gi")).await.expect("it is made anew");
    let after = bench.live(&before).await.expect("it is there");
    assert_ne!(after["metadata"]["uid"], set["metadata"]["uid"]);
    let left = pods.get("anew-0").await.expect("it is still there");
    assert_eq!(left.metadata.uid, pod.metadata.uid);
    assert!(left.metadata.deletion_timestamp.is_none());
}

pub async fn an_object_of_more_than_a_mebibyte_is_no_plan(_: &mut Bench) {
    let large = config_map("default", "large", &"x".repeat(1_100_000));
    let refused = plan("large").object(large).check().expect_err("it is too large");
    assert_eq!(refused.id, "PLUGIN-REFUSED", "{refused}");
    assert!(refused.evidence.contains("default/large"), "{}", refused.evidence);
}

pub async fn a_field_that_the_server_does_not_know_is_refused_before_any_write(bench: &mut Bench) {
    let unknown = bench.installation("unknown");
    let mut object = deployment("unknown", "unknown", 1);
    object["spec"]["template"]["spec"]["nonsense"] = json!("x");
    let wanted =
        plan("unknown").objects([namespace("unknown"), account("unknown", "unknown"), object]).checked();
    let writes = bench.cluster.writes().await;
    let refused = unknown.apply(&wanted).await.expect_err("nobody knows that field");
    assert_eq!(refused.id, "PLUGIN-OBJECT-INVALID", "{refused}");
    let version = &bench.cluster.version;
    for part in ["apps/v1 Deployment unknown/unknown", "nonsense", version.as_str()] {
        assert!(refused.evidence.contains(part), "{part}: {}", refused.evidence);
    }
    assert_eq!(bench.cluster.writes().await, writes, "the namespace is not made either");
}

pub async fn a_field_that_a_definition_does_not_know_is_refused_before_any_write(bench: &mut Bench) {
    bench.put(definition("drops.example.org", "Pool", "pools")).await;
    let drops = bench.installation("drops");
    let mut pool = custom("drops.example.org", "Pool", "default", "drops", 1);
    pool["spec"]["colour"] = json!("red");
    let wanted = plan("drops")
        .objects([account("default", "drops"), pool])
        .ready_when_there("drops.example.org/v1", "Pool")
        .checked();
    // Served a moment after it was defined.
    crate::common::scenarios::wait_for("the kind", async || {
        let kind = kube::core::GroupVersionKind::gvk("drops.example.org", "v1", "Pool");
        kube::discovery::pinned_kind(bench.people(), &kind).await.ok()
    })
    .await;
    let writes = bench.cluster.writes().await;
    let refused = drops.apply(&wanted).await.expect_err("the definition has no such field");
    assert_eq!(refused.id, "PLUGIN-OBJECT-INVALID", "{refused}");
    assert!(
        refused.evidence.contains("colour") && refused.evidence.contains("default/drops"),
        "{}",
        refused.evidence
    );
    assert_eq!(bench.cluster.writes().await, writes);
}

pub async fn a_kind_and_a_namespace_that_are_not_there_are_refused(bench: &mut Bench) {
    let lost = bench.installation("lost");
    let writes = bench.cluster.writes().await;
    let kind = plan("lost")
        .object(custom("nowhere.example.org", "Pool", "default", "lost", 1))
        .ready_when_there("nowhere.example.org/v1", "Pool");
    let refused = lost.apply(&kind.object(account("default", "lost")).checked()).await;
    let refused = refused.expect_err("nobody serves that kind");
    assert_eq!(refused.id, "PLUGIN-KIND-UNKNOWN", "{refused}");
    assert!(refused.reason.contains("nowhere.example.org/v1 Pool"), "{refused}");
    let place =
        plan("lost").objects([account("default", "lost"), config_map("nowhere", "lost", "1")]).checked();
    let refused = lost.apply(&place).await.expect_err("nobody makes that namespace");
    assert_eq!(refused.id, "PLUGIN-OBJECT-INVALID", "{refused}");
    assert!(refused.reason.contains("nowhere"), "{refused}");
    assert_eq!(bench.cluster.writes().await, writes);
}
