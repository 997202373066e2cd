//! Readiness of what runs: workloads of Kubernetes' own, by what their controllers say of the generation that was written.

use serde_json::Value;

use super::{Readiness, ReadyContext, condition, find_condition, number, wanted_generation};

/// Controllers of workloads always say what they saw, so nothing said means not seen.
fn unseen(object: &Value, context: &ReadyContext) -> Option<Readiness> {
    let observed = number(object, "/status/observedGeneration");
    (observed < wanted_generation(object, context))
        .then(|| Readiness::Waiting("its controller has not seen it yet".to_owned()))
}

fn counts(pairs: &[(&str, i64, i64)]) -> Readiness {
    match pairs.iter().find(|(_, got, wanted)| got != wanted) {
        Some((what, got, wanted)) => Readiness::Waiting(format!("{got} of {wanted} pods {what}")),
        None => Readiness::Ready,
    }
}

fn replicas(object: &Value) -> i64 {
    object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

pub(super) fn deployment(object: &Value, context: &ReadyContext) -> Readiness {
    if let Some(waiting) = unseen(object, context) {
        return waiting;
    }
    if let Some(progressing) = find_condition(object, "Progressing")
        && progressing["reason"] == "ProgressDeadlineExceeded"
    {
        let message = progressing["message"].as_str().unwrap_or("its progress deadline has passed");
        return Readiness::Failed(message.to_owned());
    }
    let wanted = replicas(object);
    counts(&[
        ("updated", number(object, "/status/updatedReplicas"), wanted),
        ("left, old ones included", number(object, "/status/replicas"), wanted),
        ("available", number(object, "/status/availableReplicas"), wanted),
    ])
}

pub(super) fn daemon_set(object: &Value, context: &ReadyContext) -> Readiness {
    if let Some(waiting) = unseen(object, context) {
        return waiting;
    }
    let wanted = number(object, "/status/desiredNumberScheduled");
    if wanted == 0 && !context.may_be_empty {
        return Readiness::Waiting("no node is to run it".to_owned());
    }
    let available = ("available", number(object, "/status/numberAvailable"), wanted);
    // Such pods are new when somebody deletes the old ones.
    if object.pointer("/spec/updateStrategy/type").and_then(Value::as_str) == Some("OnDelete") {
        return counts(&[available]);
    }
    counts(&[("updated", number(object, "/status/updatedNumberScheduled"), wanted), available])
}

pub(super) fn stateful_set(object: &Value, context: &ReadyContext) -> Readiness {
    if let Some(waiting) = unseen(object, context) {
        return waiting;
    }
    let wanted = replicas(object);
    let ready = ("ready", number(object, "/status/readyReplicas"), wanted);
    if object.pointer("/spec/updateStrategy/type").and_then(Value::as_str) == Some("OnDelete") {
        return counts(&[ready]);
    }
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition");
    let to_update = (wanted - partition).max(0);
    let updated = number(object, "/status/updatedReplicas").min(to_update);
    let revision = |which: &str| object.pointer(&format!("/status/{which}")).and_then(Value::as_str);
    match counts(&[("updated", updated, to_update), ready]) {
        // The count of updated ones is right a moment before the controller has finished with the last one.
        Readiness::Ready if partition == 0 && revision("currentRevision") != revision("updateRevision") => {
            Readiness::Waiting("its update is not finished".to_owned())
        }
        readiness => readiness,
    }
}

pub(super) fn replica_set(object: &Value, context: &ReadyContext) -> Readiness {
    if let Some(waiting) = unseen(object, context) {
        return waiting;
    }
    let wanted = replicas(object);
    counts(&[
        ("there", number(object, "/status/replicas"), wanted),
        ("ready", number(object, "/status/readyReplicas"), wanted),
    ])
}

pub(super) fn job(object: &Value) -> Readiness {
    match find_condition(object, "Failed") {
        Some(failed) if failed["status"] == "True" => {
            Readiness::Failed(failed["message"].as_str().unwrap_or("the job failed").to_owned())
        }
        _ => condition(object, "Complete"),
    }
}

/// A pod that has done its work is as ready as it gets; one that runs again and again is not.
pub(super) fn pod(object: &Value) -> Readiness {
    let restarts = object.pointer("/spec/restartPolicy").and_then(Value::as_str).unwrap_or("Always");
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Succeeded") if restarts != "Always" => Readiness::Ready,
        Some("Failed") => {
            let message = object.pointer("/status/message").and_then(Value::as_str);
            Readiness::Failed(message.unwrap_or("its containers ended with an error").to_owned())
        }
        _ => condition(object, "Ready"),
    }
}
