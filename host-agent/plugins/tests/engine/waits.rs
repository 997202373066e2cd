//! Readiness: what is waited for, for how long, and what is told meanwhile.

use std::time::Duration;

use host_plugins::Blocking;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{Patch, PatchParams};
use plugin_plan::Handling;
use serde_json::{Value, json};

use crate::Bench;
use crate::common::plans::{claim, daemon_set, deployment, job, plan};
use crate::common::scenarios::wait_for;

const SHORT: Duration = Duration::from_secs(2);

pub async fn a_wait_that_fails_says_what_blocks_and_the_next_one_goes_on(bench: &mut Bench) {
    bench.kubelet.leave_alone("waits");
    let mut waits = bench.installation("waits");
    waits.limits.ready = SHORT;
    let wanted = plan("waits").object(deployment("default", "waits", 1)).checked();
    let (applied, said) = waits.lines(waits.apply(&wanted)).await;
    let failure = applied.expect_err("nobody runs it");
    assert_eq!(failure.id, "PLUGIN-NOT-READY", "{failure}");
    assert!(failure.reason.contains("apps/v1 Deployment default/waits"), "{failure}");
    assert!(said.iter().any(|line| line == "created apps/v1 Deployment default/waits"), "{said:?}");
    let (_, blocking) = waits.progress.follow();
    let blocks = blocking.borrow().clone().expect("it is told");
    assert_eq!(blocks.object, "apps/v1 Deployment default/waits");

    // The same, by a host agent that was started anew, goes on.
    bench.kubelet.care_for("waits");
    waits.limits.ready = Duration::from_secs(60);
    assert_eq!(waits.apply(&wanted).await.expect("it goes on").written, 0);
    assert_eq!(*waits.progress.follow().1.borrow(), None, "nothing blocks any more");
}

/// What a controller says of a Deployment of one replica.
async fn report(api: &Api<Deployment>, name: &str, available: i32) {
    let status = json!({"status": {
        "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": available,
        "availableReplicas": available,
    }});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.expect("it is reported");
}

pub async fn what_is_ready_for_a_moment_only_is_not_ready(bench: &mut Bench) {
    bench.kubelet.leave_alone("wavers");
    let mut wavers = bench.installation("wavers");
    wavers.limits.ready = Duration::from_secs(5);
    wavers.limits.stable = Duration::from_millis(1500);
    let wanted = plan("wavers").object(deployment("default", "wavers", 1)).checked();
    let api: Api<Deployment> = Api::namespaced(bench.people().clone(), "default");
    let plays = async {
        wait_for("the Deployment", async || api.get_opt("wavers").await.ok().flatten()).await;
        report(&api, "wavers", 1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        report(&api, "wavers", 0).await;
    };
    let (applied, ()) = tokio::join!(wavers.apply(&wanted), plays);
    let failure = applied.expect_err("it was available for half a second");
    assert_eq!(failure.id, "PLUGIN-NOT-READY", "{failure}");
    report(&api, "wavers", 1).await;
    wavers.apply(&wanted).await.expect("now it stays");
}

pub async fn a_job_that_failed_fails_at_once(bench: &mut Bench) {
    bench.kubelet.fail("fails");
    let fails = bench.installation("fails");
    let begun = std::time::Instant::now();
    let failure = fails.apply(&plan("fails").object(job("default", "fails", "none:1")).checked()).await;
    let failure = failure.expect_err("it failed");
    assert_eq!(failure.id, "PLUGIN-NOT-READY", "{failure}");
    assert!(failure.reason.contains("it was told to fail"), "{failure}");
    assert!(begun.elapsed() < Duration::from_secs(20), "nobody waits for what has failed");
}

pub async fn a_daemon_set_without_nodes_is_ready_where_the_plan_says_so(bench: &mut Bench) {
    let mut empty = bench.installation("empty");
    empty.limits.ready = SHORT;
    let mut object = daemon_set("default", "empty");
    object["spec"]["template"]["spec"]["nodeSelector"] = json!({"nobody": "has-it"});
    let failure =
        empty.apply(&plan("empty").object(object.clone()).checked()).await.expect_err("no node runs it");
    assert_eq!(failure.id, "PLUGIN-NOT-READY", "{failure}");
    let handling = Handling { may_be_empty: true, ..Handling::default() };
    let wanted = plan("empty").with(object, handling).checked();
    assert_eq!(empty.apply(&wanted).await.expect("that is meant").written, 0);
}

pub async fn a_claim_that_waits_for_a_pod_holds_up_nothing(bench: &mut Bench) {
    for (class, mode) in [("waiting", "WaitForFirstConsumer"), ("at-once", "Immediate")] {
        bench
            .put(json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
                "provisioner": "example.org/none", "volumeBindingMode": mode,
            }))
            .await;
    }
    bench.kubelet.leave_alone("never-bound");
    let mut claims = bench.installation("claims");
    claims.limits.ready = SHORT;
    let waits = claim("default", "waits-for-a-pod", "waiting");
    let bound = claim("default", "bound", "at-once");
    claims.apply(&plan("claims").objects([waits, bound]).checked()).await.expect("the pod comes later");
    let never = plan("claims").object(claim("default", "never-bound", "at-once")).checked();
    let failure = claims.apply(&never).await.expect_err("nobody binds it");
    assert_eq!(failure.id, "PLUGIN-NOT-READY", "{failure}");
    assert!(failure.reason.contains("PersistentVolumeClaim default/never-bound"), "{failure}");
}

pub async fn a_pod_that_cannot_pull_is_named_while_it_blocks(bench: &mut Bench) {
    bench.kubelet.leave_alone("pulls");
    let accounts: Api<ServiceAccount> = Api::namespaced(bench.people().clone(), "default");
    // Its controller makes it a moment after the namespace.
    wait_for("the account of pods", async || accounts.get_opt("default").await.ok().flatten()).await;
    let pods: Api<Pod> = Api::namespaced(bench.people().clone(), "default");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pulls-1", "labels": {"app": "pulls"}},
        "spec": {
            "nodeName": "k8s-worker-1", "automountServiceAccountToken": false,
            "containers": [{"name": "pulls", "image": "lab.k8s-myhome/none:1"}],
        },
    });
    pods.patch("pulls-1", &PatchParams::apply("people"), &Patch::Apply(&pod)).await.expect("it is made");
    let waiting =
        json!({"reason": "ImagePullBackOff", "message": "Back-off pulling image \"lab.k8s-myhome/none:1\""});
    let container = json!({
        "name": "pulls", "image": "lab.k8s-myhome/none:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": waiting},
    });
    let status: Value = json!({"status": {"phase": "Pending", "containerStatuses": [container]}});
    pods.patch_status("pulls-1", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .expect("it is reported");

    let mut pulls = bench.installation("pulls");
    pulls.limits.ready = Duration::from_secs(4);
    let (_, mut blocking) = pulls.progress.follow();
    let wanted = plan("pulls").object(deployment("default", "pulls", 1)).checked();
    let told = async {
        let says_it = |blocking: &Option<Blocking>| blocking.as_ref().is_some_and(|one| one.pod.is_some());
        let told = blocking.wait_for(says_it).await.expect("the engine runs");
        (*told).clone().expect("it blocks")
    };
    let (applied, told) = tokio::join!(pulls.apply(&wanted), told);
    let pod = told.pod.expect("a pod");
    for part in ["pod pulls-1", "k8s-worker-1", "ImagePullBackOff", "lab.k8s-myhome/none:1"] {
        assert!(pod.contains(part), "{part}: {pod}");
    }
    let failure = applied.expect_err("it never runs");
    assert!(failure.reason.contains("ImagePullBackOff"), "{failure}");
}
