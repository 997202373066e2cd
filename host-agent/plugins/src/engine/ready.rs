//! Is an object ready, by the rule of its kind? Pure. A kind without a rule is never ready, so a plan with one is
//! refused before anything is written.

use serde_json::Value;

use crate::plan::{ObjectKey, ReadinessRule};

/// How far an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It serves.
    Ready,
    /// Not yet, and why.
    Waiting(String),
    /// It will not become ready by itself, and why.
    Failed(String),
}

/// Kinds that are ready as soon as they exist.
fn exists_is_enough(key: &ObjectKey) -> bool {
    match key.group.as_str() {
        "" => matches!(
            key.kind.as_str(),
            "ConfigMap" | "Secret" | "ServiceAccount" | "ResourceQuota" | "LimitRange" | "PersistentVolume"
        ),
        "rbac.authorization.k8s.io"
        | "admissionregistration.k8s.io"
        | "scheduling.k8s.io"
        | "node.k8s.io" => true,
        "storage.k8s.io" => matches!(key.kind.as_str(), "StorageClass" | "CSIDriver"),
        "networking.k8s.io" => matches!(key.kind.as_str(), "NetworkPolicy" | "IngressClass" | "Ingress"),
        "policy" => key.kind == "PodDisruptionBudget",
        "autoscaling" => key.kind == "HorizontalPodAutoscaler",
        "batch" => key.kind == "CronJob",
        _ => false,
    }
}

/// Is there a rule that says when objects of this kind are ready?
pub(crate) fn has_readiness(key: &ObjectKey, rules: &[ReadinessRule]) -> bool {
    exists_is_enough(key) || built_in(key).is_some() || given(key, rules).is_some()
}

fn given<'a>(key: &ObjectKey, rules: &'a [ReadinessRule]) -> Option<&'a ReadinessRule> {
    rules.iter().find(|rule| rule.kind == key.kind && rule.api_version == key.api_version())
}

type Rule = fn(&Value) -> Readiness;

fn built_in(key: &ObjectKey) -> Option<Rule> {
    Some(match (key.group.as_str(), key.kind.as_str()) {
        ("", "Namespace") => |object| phase(object, "Active"),
        ("", "Service") => service,
        ("", "PersistentVolumeClaim") => |object| phase(object, "Bound"),
        ("", "Pod") => |object| condition(object, "Ready"),
        ("apps", "Deployment") => deployment,
        ("apps", "DaemonSet") => daemon_set,
        ("apps", "StatefulSet") => stateful_set,
        ("batch", "Job") => job,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition,
        ("apiregistration.k8s.io", "APIService") => |object| condition(object, "Available"),
        _ => return None,
    })
}

/// Judges one live object.
pub(crate) fn decide_ready(key: &ObjectKey, object: &Value, rules: &[ReadinessRule]) -> Readiness {
    if object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null()) {
        return Readiness::Waiting("it is being deleted".to_owned());
    }
    if let Some(rule) = built_in(key) {
        return rule(object);
    }
    if exists_is_enough(key) {
        return Readiness::Ready;
    }
    match given(key, rules) {
        Some(rule) => observed(object).unwrap_or_else(|| condition(object, &rule.condition)),
        None => Readiness::Failed("there is no rule that says when it is ready".to_owned()),
    }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// `Some`: the controller has not seen the current generation.
fn observed(object: &Value) -> Option<Readiness> {
    let (generation, observed) =
        (number(object, "/metadata/generation"), object.pointer("/status/observedGeneration"));
    let behind = observed.and_then(Value::as_i64).is_some_and(|observed| observed < generation);
    behind.then(|| Readiness::Waiting("its controller has not seen the change yet".to_owned()))
}

/// Controllers of workloads always say what they saw, so nothing said means not seen.
fn seen_by_controller(object: &Value) -> Option<Readiness> {
    let (generation, observed) =
        (number(object, "/metadata/generation"), number(object, "/status/observedGeneration"));
    (observed < generation).then(|| Readiness::Waiting("its controller has not seen it yet".to_owned()))
}

fn find_condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == name)
}

fn condition(object: &Value, name: &str) -> Readiness {
    match find_condition(object, name) {
        Some(condition) if condition["status"] == "True" => Readiness::Ready,
        Some(condition) => {
            let (reason, message) = (condition["reason"].as_str(), condition["message"].as_str());
            let why = [reason, message].into_iter().flatten().collect::<Vec<_>>().join(": ");
            Readiness::Waiting(format!("{name} is not True: {why}"))
        }
        None => Readiness::Waiting(format!("it has no condition {name} yet")),
    }
}

fn phase(object: &Value, wanted: &str) -> Readiness {
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some(phase) if phase == wanted => Readiness::Ready,
        phase => {
            Readiness::Waiting(format!("its phase is {}, expected {wanted}", phase.unwrap_or("not set")))
        }
    }
}

fn service(object: &Value) -> Readiness {
    let spec = &object["spec"];
    let given = |list: Option<&Value>| list.and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    match spec["type"].as_str() {
        Some("ExternalName") => Readiness::Ready,
        Some("LoadBalancer") if !given(object.pointer("/status/loadBalancer/ingress")) => {
            Readiness::Waiting("no load balancer has given it an address".to_owned())
        }
        _ if spec["clusterIP"].as_str().is_some_and(|ip| !ip.is_empty()) => Readiness::Ready,
        _ => Readiness::Waiting("it has no cluster IP yet".to_owned()),
    }
}

fn counts(pairs: &[(&str, i64, i64)]) -> Readiness {
    match pairs.iter().find(|(_, got, wanted)| got != wanted) {
        Some((what, got, wanted)) => Readiness::Waiting(format!("{got} of {wanted} pods {what}")),
        None => Readiness::Ready,
    }
}

fn deployment(object: &Value) -> Readiness {
    if let Some(waiting) = seen_by_controller(object) {
        return waiting;
    }
    if let Some(progressing) = find_condition(object, "Progressing")
        && progressing["reason"] == "ProgressDeadlineExceeded"
    {
        let message = progressing["message"].as_str().unwrap_or("its progress deadline has passed");
        return Readiness::Failed(message.to_owned());
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    counts(&[
        ("updated", number(object, "/status/updatedReplicas"), wanted),
        ("left, old ones included", number(object, "/status/replicas"), wanted),
        ("available", number(object, "/status/availableReplicas"), wanted),
    ])
}

fn daemon_set(object: &Value) -> Readiness {
    if let Some(waiting) = seen_by_controller(object) {
        return waiting;
    }
    let wanted = number(object, "/status/desiredNumberScheduled");
    if wanted == 0 {
        return Readiness::Waiting("no node is to run it".to_owned());
    }
    counts(&[
        ("updated", number(object, "/status/updatedNumberScheduled"), wanted),
        ("available", number(object, "/status/numberAvailable"), wanted),
    ])
}

fn stateful_set(object: &Value) -> Readiness {
    if let Some(waiting) = seen_by_controller(object) {
        return waiting;
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition");
    let to_update = (wanted - partition).max(0);
    counts(&[
        ("updated", number(object, "/status/updatedReplicas").min(to_update), to_update),
        ("ready", number(object, "/status/readyReplicas"), wanted),
    ])
}

fn job(object: &Value) -> Readiness {
    match find_condition(object, "Failed") {
        Some(failed) if failed["status"] == "True" => {
            Readiness::Failed(failed["message"].as_str().unwrap_or("the job failed").to_owned())
        }
        _ => condition(object, "Complete"),
    }
}

fn definition(object: &Value) -> Readiness {
    match condition(object, "NamesAccepted") {
        Readiness::Ready => condition(object, "Established"),
        waiting => waiting,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(api_version: &str, kind: &str) -> ObjectKey {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let (group, version) = (group.to_owned(), version.to_owned());
        ObjectKey { group, version, kind: kind.to_owned(), namespace: "n".to_owned(), name: "o".to_owned() }
    }

    fn deployment(observed: i64, updated: i64, replicas: i64, available: i64) -> Readiness {
        let object = json!({
            "metadata": {"generation": 2}, "spec": {"replicas": 2},
            "status": {"observedGeneration": observed, "updatedReplicas": updated, "replicas": replicas,
                       "availableReplicas": available},
        });
        decide_ready(&key("apps/v1", "Deployment"), &object, &[])
    }

    #[test]
    fn a_deployment_is_ready_when_this_generation_is_available_and_the_last_one_gone() {
        assert_eq!(deployment(2, 2, 2, 2), Readiness::Ready);
        let waiting = |why: &str| Readiness::Waiting(why.to_owned());
        assert_eq!(deployment(1, 2, 2, 2), waiting("its controller has not seen it yet"));
        assert_eq!(deployment(2, 1, 2, 2), waiting("1 of 2 pods updated"));
        assert_eq!(deployment(2, 2, 3, 2), waiting("3 of 2 pods left, old ones included"));
        assert_eq!(deployment(2, 2, 2, 1), waiting("1 of 2 pods available"));
    }

    #[test]
    fn a_kind_without_a_rule_is_refused_and_never_ready() {
        let issuer = key("cert-manager.io/v1", "ClusterIssuer");
        assert!(!has_readiness(&issuer, &[]));
        assert!(matches!(decide_ready(&issuer, &json!({}), &[]), Readiness::Failed(_)));
        let rules = [ReadinessRule {
            api_version: "cert-manager.io/v1".to_owned(),
            kind: "ClusterIssuer".to_owned(),
            condition: "Ready".to_owned(),
        }];
        assert!(has_readiness(&issuer, &rules));
        assert!(matches!(decide_ready(&issuer, &json!({}), &rules), Readiness::Waiting(_)));
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(decide_ready(&issuer, &ready, &rules), Readiness::Ready);
    }

    #[test]
    fn a_running_job_is_not_ready_and_a_failed_one_never_will_be() {
        let job = key("batch/v1", "Job");
        assert!(matches!(decide_ready(&job, &json!({"status": {"active": 1}}), &[]), Readiness::Waiting(_)));
        let failed =
            json!({"status": {"conditions": [{"type": "Failed", "status": "True", "message": "m"}]}});
        assert_eq!(decide_ready(&job, &failed, &[]), Readiness::Failed("m".to_owned()));
    }

    #[test]
    fn a_load_balancer_needs_an_address() {
        let mut object = json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.7"}});
        assert!(matches!(decide_ready(&key("v1", "Service"), &object, &[]), Readiness::Waiting(_)));
        object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.168.122.100"}]}});
        assert_eq!(decide_ready(&key("v1", "Service"), &object, &[]), Readiness::Ready);
    }
}
