//! Is an object ready, by the rule of its kind? Pure. A kind without a rule is never ready, so a plan with one is refused
//! before anything is written.

mod workload;

use serde_json::Value;

use crate::object::ObjectKey;
use crate::unchecked::{ReadinessRule, ReadyWhen};

/// How far an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It serves.
    Ready,
    /// Not yet, and why.
    Waiting(String),
    /// It will not become ready by itself, and why.
    Failed(String),
}

/// What is known of an object beside itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadyContext {
    /// `metadata.generation` that our write returned; `None`: we did not write it, or its kind has none.
    pub generation: Option<i64>,
    /// Of a claim: its class waits for a pod that uses it.
    pub waits_for_consumer: bool,
    /// Of a DaemonSet: no node has to run it.
    pub may_be_empty: bool,
}

/// Kinds that are ready as soon as they exist.
fn exists_is_enough(group: &str, kind: &str) -> bool {
    match group {
        "" => matches!(
            kind,
            "ConfigMap"
                | "Secret"
                | "ServiceAccount"
                | "ResourceQuota"
                | "LimitRange"
                | "PersistentVolume"
                | "PodTemplate"
                | "Endpoints"
        ),
        "rbac.authorization.k8s.io"
        | "admissionregistration.k8s.io"
        | "scheduling.k8s.io"
        | "node.k8s.io" => true,
        "storage.k8s.io" => matches!(kind, "StorageClass" | "CSIDriver"),
        "networking.k8s.io" => matches!(kind, "NetworkPolicy" | "IngressClass" | "Ingress"),
        "discovery.k8s.io" => kind == "EndpointSlice",
        "coordination.k8s.io" => kind == "Lease",
        "policy" => kind == "PodDisruptionBudget",
        "autoscaling" => kind == "HorizontalPodAutoscaler",
        "batch" => kind == "CronJob",
        _ => false,
    }
}

type Rule = fn(&Value, &ReadyContext) -> Readiness;

fn rule_of(group: &str, kind: &str) -> Option<Rule> {
    Some(match (group, kind) {
        ("", "Namespace") => |object, _| phase(object, "Active"),
        ("", "Service") => |object, _| service(object),
        ("", "PersistentVolumeClaim") => claim,
        ("", "Pod") => |object, _| workload::pod(object),
        ("", "ReplicationController") => workload::replica_set,
        ("apps", "Deployment") => workload::deployment,
        ("apps", "DaemonSet") => workload::daemon_set,
        ("apps", "StatefulSet") => workload::stateful_set,
        ("apps", "ReplicaSet") => workload::replica_set,
        ("batch", "Job") => |object, _| workload::job(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => |object, _| definition(object),
        ("apiregistration.k8s.io", "APIService") => |object, _| condition(object, "Available"),
        _ => return None,
    })
}

/// Whether Kubernetes' own rules say when objects of this kind are ready, so that no plugin may.
pub(crate) fn is_built_in(api_version: &str, kind: &str) -> bool {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    exists_is_enough(group, kind) || rule_of(group, kind).is_some()
}

fn given<'a>(key: &ObjectKey, rules: &'a [ReadinessRule]) -> Option<&'a ReadinessRule> {
    rules.iter().find(|rule| rule.kind == key.kind && rule.api_version == key.api_version())
}

/// Is there a rule that says when objects of this kind are ready?
pub fn has_readiness(key: &ObjectKey, rules: &[ReadinessRule]) -> bool {
    exists_is_enough(&key.group, &key.kind)
        || rule_of(&key.group, &key.kind).is_some()
        || given(key, rules).is_some()
}

/// Judges one live object.
pub fn decide_ready(
    key: &ObjectKey,
    live: &Value,
    rules: &[ReadinessRule],
    context: &ReadyContext,
) -> Readiness {
    if live.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null()) {
        return Readiness::Waiting("it is being deleted".to_owned());
    }
    if let Some(rule) = rule_of(&key.group, &key.kind) {
        return rule(live, context);
    }
    if exists_is_enough(&key.group, &key.kind) {
        return Readiness::Ready;
    }
    match given(key, rules).map(|rule| &rule.is) {
        Some(ReadyWhen::Exists) => Readiness::Ready,
        Some(ReadyWhen::Condition(name)) => {
            behind(live, context).unwrap_or_else(|| current_condition(live, name, context))
        }
        Some(ReadyWhen::Field { pointer, value }) => {
            behind(live, context).unwrap_or_else(|| field(live, pointer, value))
        }
        None => Readiness::Failed("there is no rule that says when it is ready".to_owned()),
    }
}

/// Kinds whose readiness can go away again a moment later: they are looked at twice.
pub fn may_waver(key: &ObjectKey) -> bool {
    match (key.group.as_str(), key.kind.as_str()) {
        ("", "Pod" | "ReplicationController" | "Service") => true,
        ("apps", _) | ("apiregistration.k8s.io", _) => true,
        _ => key.is_custom(),
    }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The generation that counts: what we wrote, or what somebody wrote since.
fn wanted_generation(object: &Value, context: &ReadyContext) -> i64 {
    number(object, "/metadata/generation").max(context.generation.unwrap_or_default())
}

/// `Some`: the controller says that it has not seen the current generation. Many controllers of custom kinds say nothing.
fn behind(object: &Value, context: &ReadyContext) -> Option<Readiness> {
    let observed = object.pointer("/status/observedGeneration").and_then(Value::as_i64)?;
    (observed < wanted_generation(object, context))
        .then(|| Readiness::Waiting("its controller has not seen the change yet".to_owned()))
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

/// A condition may say itself of which generation it is.
fn current_condition(object: &Value, name: &str, context: &ReadyContext) -> Readiness {
    let of = find_condition(object, name).and_then(|condition| condition["observedGeneration"].as_i64());
    match of {
        Some(of) if of < wanted_generation(object, context) => {
            Readiness::Waiting(format!("its condition {name} is of an earlier generation"))
        }
        _ => condition(object, name),
    }
}

fn field(object: &Value, pointer: &str, wanted: &Value) -> Readiness {
    match object.pointer(pointer) {
        Some(value) if value == wanted => Readiness::Ready,
        Some(value) => {
            let value = crate::diagnostic::cut(value.to_string(), 200);
            Readiness::Waiting(format!("its {pointer} is {value}, expected {wanted}"))
        }
        None => Readiness::Waiting(format!("it has no {pointer} yet, expected {wanted}")),
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

/// A class that waits for a pod binds nothing until there is one: that is all there is to wait for.
fn claim(object: &Value, context: &ReadyContext) -> Readiness {
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Pending") if context.waits_for_consumer => Readiness::Ready,
        Some("Lost") => Readiness::Failed("its volume is gone".to_owned()),
        _ => phase(object, "Bound"),
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

fn definition(object: &Value) -> Readiness {
    match condition(object, "NamesAccepted") {
        Readiness::Ready => condition(object, "Established"),
        waiting => waiting,
    }
}

#[cfg(test)]
mod tests;
