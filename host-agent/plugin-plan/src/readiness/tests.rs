//! Readiness of each kind, ready and not.

use serde_json::json;

use super::*;

fn key(api_version: &str, kind: &str) -> ObjectKey {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let (group, version) = (group.to_owned(), version.to_owned());
    ObjectKey { group, version, kind: kind.to_owned(), namespace: "n".to_owned(), name: "o".to_owned() }
}

fn decide(api_version: &str, kind: &str, object: &Value) -> Readiness {
    decide_ready(&key(api_version, kind), object, &[], &ReadyContext::default())
}

fn waiting(why: &str) -> Readiness {
    Readiness::Waiting(why.to_owned())
}

fn deployment(observed: i64, updated: i64, replicas: i64, available: i64) -> Value {
    json!({
        "metadata": {"generation": 2}, "spec": {"replicas": 2},
        "status": {"observedGeneration": observed, "updatedReplicas": updated, "replicas": replicas,
                   "availableReplicas": available},
    })
}

#[test]
fn a_deployment_is_ready_when_this_generation_is_available_and_the_last_one_gone() {
    let decide = |observed, updated, replicas, available| {
        decide("apps/v1", "Deployment", &deployment(observed, updated, replicas, available))
    };
    assert_eq!(decide(2, 2, 2, 2), Readiness::Ready);
    assert_eq!(decide(1, 2, 2, 2), waiting("its controller has not seen it yet"));
    assert_eq!(decide(2, 1, 2, 2), waiting("1 of 2 pods updated"));
    assert_eq!(decide(2, 2, 3, 2), waiting("3 of 2 pods left, old ones included"));
    assert_eq!(decide(2, 2, 2, 1), waiting("1 of 2 pods available"));
    let late = json!({"status": {"conditions": [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too late"}]}});
    assert_eq!(
        super::decide_ready(&key("apps/v1", "Deployment"), &late, &[], &ReadyContext::default()),
        Readiness::Failed("too late".to_owned())
    );
}

#[test]
fn an_old_copy_of_what_we_wrote_is_not_taken_for_it() {
    let context = ReadyContext { generation: Some(3), ..ReadyContext::default() };
    let live = deployment(2, 2, 2, 2);
    let readiness = decide_ready(&key("apps/v1", "Deployment"), &live, &[], &context);
    assert_eq!(readiness, waiting("its controller has not seen it yet"));
    let context = ReadyContext { generation: Some(2), ..ReadyContext::default() };
    assert_eq!(decide_ready(&key("apps/v1", "Deployment"), &live, &[], &context), Readiness::Ready);
}

#[test]
fn a_daemon_set_runs_on_some_node_unless_it_says_otherwise() {
    let object = |desired: i64, updated: i64, available: i64| {
        json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "desiredNumberScheduled": desired,
            "updatedNumberScheduled": updated, "numberAvailable": available}})
    };
    let decide = |object: &Value, may_be_empty: bool| {
        let context = ReadyContext { may_be_empty, ..ReadyContext::default() };
        decide_ready(&key("apps/v1", "DaemonSet"), object, &[], &context)
    };
    assert_eq!(decide(&object(3, 3, 3), false), Readiness::Ready);
    assert_eq!(decide(&object(3, 2, 3), false), waiting("2 of 3 pods updated"));
    assert_eq!(decide(&object(3, 3, 2), false), waiting("2 of 3 pods available"));
    assert_eq!(decide(&object(0, 0, 0), false), waiting("no node is to run it"));
    assert_eq!(decide(&object(0, 0, 0), true), Readiness::Ready);
    let mut by_hand = object(3, 0, 3);
    by_hand["spec"] = json!({"updateStrategy": {"type": "OnDelete"}});
    assert_eq!(decide(&by_hand, false), Readiness::Ready);
}

#[test]
fn a_stateful_set_is_ready_when_its_last_pod_is_updated() {
    let object = |updated: i64, ready: i64, partition: i64, current: &str| {
        json!({"metadata": {"generation": 1}, "spec": {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": partition}}},
            "status": {"observedGeneration": 1, "updatedReplicas": updated, "readyReplicas": ready,
                       "currentRevision": current, "updateRevision": "b"}})
    };
    let decide = |object: &Value| decide("apps/v1", "StatefulSet", object);
    assert_eq!(decide(&object(3, 3, 0, "b")), Readiness::Ready);
    assert_eq!(decide(&object(2, 3, 0, "a")), waiting("2 of 3 pods updated"));
    assert_eq!(decide(&object(3, 2, 0, "b")), waiting("2 of 3 pods ready"));
    assert_eq!(decide(&object(3, 3, 0, "a")), waiting("its update is not finished"));
    assert_eq!(decide(&object(1, 3, 2, "a")), Readiness::Ready, "two of them stay as they are");
}

#[test]
fn a_pod_that_has_done_its_work_is_ready() {
    let object = |phase: &str, restarts: &str| json!({"spec": {"restartPolicy": restarts}, "status": {"phase": phase}});
    assert_eq!(decide("v1", "Pod", &object("Succeeded", "Never")), Readiness::Ready);
    assert_eq!(decide("v1", "Pod", &object("Succeeded", "Always")), waiting("it has no condition Ready yet"));
    assert!(matches!(decide("v1", "Pod", &object("Failed", "Never")), Readiness::Failed(_)));
    let running =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(decide("v1", "Pod", &running), Readiness::Ready);
}

#[test]
fn a_running_job_is_not_ready_and_a_failed_one_never_will_be() {
    assert!(matches!(decide("batch/v1", "Job", &json!({"status": {"active": 1}})), Readiness::Waiting(_)));
    let ended =
        |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True", "message": "m"}]}});
    assert_eq!(decide("batch/v1", "Job", &ended("Failed")), Readiness::Failed("m".to_owned()));
    assert_eq!(decide("batch/v1", "Job", &ended("Complete")), Readiness::Ready);
}

#[test]
fn a_claim_whose_class_waits_for_a_pod_is_not_waited_for() {
    let claim = |phase: &str| json!({"status": {"phase": phase}});
    let decide = |phase: &str, waits_for_consumer: bool| {
        let context = ReadyContext { waits_for_consumer, ..ReadyContext::default() };
        decide_ready(&key("v1", "PersistentVolumeClaim"), &claim(phase), &[], &context)
    };
    assert_eq!(decide("Bound", false), Readiness::Ready);
    assert_eq!(decide("Pending", false), waiting("its phase is Pending, expected Bound"));
    assert_eq!(decide("Pending", true), Readiness::Ready);
    assert!(matches!(decide("Lost", true), Readiness::Failed(_)));
}

#[test]
fn a_load_balancer_needs_an_address() {
    let mut object = json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.7"}});
    assert!(matches!(decide("v1", "Service", &object), Readiness::Waiting(_)));
    object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.168.122.100"}]}});
    assert_eq!(decide("v1", "Service", &object), Readiness::Ready);
    assert_eq!(decide("v1", "Service", &json!({"spec": {"type": "ExternalName"}})), Readiness::Ready);
    assert!(matches!(decide("v1", "Service", &json!({"spec": {}})), Readiness::Waiting(_)));
}

#[test]
fn a_definition_needs_its_names_and_to_be_established() {
    let object = |names: &str, established: &str| {
        json!({"status": {"conditions": [
            {"type": "NamesAccepted", "status": names, "reason": "Conflict", "message": "taken"},
            {"type": "Established", "status": established, "reason": "Installing"}]}})
    };
    let decide = |object: &Value| decide("apiextensions.k8s.io/v1", "CustomResourceDefinition", object);
    assert_eq!(decide(&object("True", "True")), Readiness::Ready);
    assert_eq!(decide(&object("False", "False")), waiting("NamesAccepted is not True: Conflict: taken"));
    assert_eq!(decide(&object("True", "False")), waiting("Established is not True: Installing"));
}

#[test]
fn a_kind_without_a_rule_is_refused_and_never_ready() {
    let issuer = key("cert-manager.io/v1", "ClusterIssuer");
    assert!(!has_readiness(&issuer, &[]));
    assert!(matches!(decide("cert-manager.io/v1", "ClusterIssuer", &json!({})), Readiness::Failed(_)));
    let other_version = [rule("cert-manager.io/v1beta1", ReadyWhen::Exists)];
    assert!(!has_readiness(&issuer, &other_version));
}

fn rule(api_version: &str, is: ReadyWhen) -> ReadinessRule {
    ReadinessRule { api_version: api_version.to_owned(), kind: "ClusterIssuer".to_owned(), is }
}

#[test]
fn a_rule_of_the_plan_counts_for_the_generation_that_was_written() {
    let issuer = key("cert-manager.io/v1", "ClusterIssuer");
    let context = ReadyContext { generation: Some(2), ..ReadyContext::default() };
    let decide = |rules: &[ReadinessRule], object: &Value| decide_ready(&issuer, object, rules, &context);
    let ready = [rule("cert-manager.io/v1", ReadyWhen::Condition("Ready".to_owned()))];
    assert!(has_readiness(&issuer, &ready));
    let object = |generation: i64| json!({"status": {"conditions": [{"type": "Ready", "status": "True", "observedGeneration": generation}]}});
    assert_eq!(decide(&ready, &object(2)), Readiness::Ready);
    assert_eq!(decide(&ready, &object(1)), waiting("its condition Ready is of an earlier generation"));
    assert_eq!(decide(&ready, &json!({})), waiting("it has no condition Ready yet"));
    let unsaid = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(decide(&ready, &unsaid), Readiness::Ready, "many controllers say nothing of generations");
    let behind =
        json!({"status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(decide(&ready, &behind), waiting("its controller has not seen the change yet"));

    let field = ReadyWhen::Field { pointer: "/status/state".to_owned(), value: json!("up") };
    let field = [rule("cert-manager.io/v1", field)];
    assert_eq!(decide(&field, &json!({"status": {"state": "up"}})), Readiness::Ready);
    assert_eq!(
        decide(&field, &json!({"status": {"state": "down"}})),
        waiting("its /status/state is \"down\", expected \"up\"")
    );
    assert_eq!(decide(&field, &json!({})), waiting("it has no /status/state yet, expected \"up\""));
    assert_eq!(decide(&[rule("cert-manager.io/v1", ReadyWhen::Exists)], &json!({})), Readiness::Ready);
}

#[test]
fn what_is_being_deleted_is_not_ready() {
    let dying = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    assert_eq!(decide("v1", "ConfigMap", &dying), waiting("it is being deleted"));
    assert_eq!(
        decide("v1", "ConfigMap", &json!({"metadata": {"deletionTimestamp": null}})),
        Readiness::Ready
    );
}

#[test]
fn what_runs_is_looked_at_twice() {
    assert!(
        may_waver(&key("apps/v1", "Deployment")) && may_waver(&key("metallb.io/v1beta1", "IPAddressPool"))
    );
    assert!(!may_waver(&key("v1", "ConfigMap")) && !may_waver(&key("batch/v1", "Job")));
}
