//! A judgement of workloads for plugins that know no better one: as the host agent judges them.

use serde_json::Value;

use crate::plugin::{Assessment, Health};

/// How far one workload is.
enum Standing {
    Ready,
    /// On its way, and why.
    Waiting(String),
    /// It will not get there by itself, and why.
    Failed(String),
}

/// Judges Deployments, DaemonSets, StatefulSets and Jobs as the host does, for plugins without a better idea. Other objects
/// are not looked at.
pub fn assess_workloads(objects: &[Value]) -> Assessment {
    let judged: Vec<(String, Standing)> =
        objects.iter().filter_map(|object| Some((name_of(object), judge(object)?))).collect();
    let ready = judged.iter().filter(|(_, standing)| matches!(standing, Standing::Ready)).count();
    let count = format!("{ready} of {} workloads ready", judged.len());
    let failed = judged.iter().find_map(|(name, standing)| match standing {
        Standing::Failed(why) => Some(format!("{count}; {name}: {why}")),
        _ => None,
    });
    let waiting = judged.iter().find_map(|(name, standing)| match standing {
        Standing::Waiting(why) => Some(format!("{count}; {name}: {why}")),
        _ => None,
    });
    match (failed, waiting) {
        (Some(message), _) => Assessment::new(Health::Failed, message),
        (None, Some(message)) => Assessment::new(Health::Progressing, message),
        (None, None) if judged.is_empty() => Assessment::new(Health::Ready, "there are no workloads"),
        (None, None) => Assessment::new(Health::Ready, count),
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn name_of(object: &Value) -> String {
    let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
    match text(object, "/metadata/namespace") {
        "" => format!("{kind} {name}"),
        namespace => format!("{kind} {namespace}/{name}"),
    }
}

/// `None`: no workload.
fn judge(object: &Value) -> Option<Standing> {
    let judge = match (text(object, "/apiVersion"), text(object, "/kind")) {
        ("apps/v1", "Deployment") => deployment,
        ("apps/v1", "DaemonSet") => daemon_set,
        ("apps/v1", "StatefulSet") => stateful_set,
        ("batch/v1", "Job") => job,
        _ => return None,
    };
    Some(judge(object))
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == name)
}

/// Controllers of workloads say which generation they saw.
fn is_unseen(object: &Value) -> bool {
    number(object, "/status/observedGeneration") < number(object, "/metadata/generation")
        || object.get("status").is_none()
}

fn counts(object: &Value, pairs: &[(&str, i64, i64)]) -> Standing {
    if is_unseen(object) {
        return Standing::Waiting("its controller has not seen it yet".to_owned());
    }
    match pairs.iter().find(|(_, got, wanted)| got != wanted) {
        Some((what, got, wanted)) => Standing::Waiting(format!("{got} of {wanted} pods {what}")),
        None => Standing::Ready,
    }
}

fn replicas(object: &Value) -> i64 {
    object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

fn deployment(object: &Value) -> Standing {
    if let Some(progressing) = condition(object, "Progressing")
        && progressing["reason"] == "ProgressDeadlineExceeded"
    {
        let message = progressing["message"].as_str().unwrap_or("its progress deadline has passed");
        return Standing::Failed(message.to_owned());
    }
    let wanted = replicas(object);
    counts(
        object,
        &[
            ("updated", number(object, "/status/updatedReplicas"), wanted),
            ("left, old ones included", number(object, "/status/replicas"), wanted),
            ("available", number(object, "/status/availableReplicas"), wanted),
        ],
    )
}

fn daemon_set(object: &Value) -> Standing {
    let wanted = number(object, "/status/desiredNumberScheduled");
    counts(
        object,
        &[
            ("updated", number(object, "/status/updatedNumberScheduled"), wanted),
            ("available", number(object, "/status/numberAvailable"), wanted),
        ],
    )
}

fn stateful_set(object: &Value) -> Standing {
    let wanted = replicas(object);
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition");
    let to_update = (wanted - partition).max(0);
    counts(
        object,
        &[
            ("updated", number(object, "/status/updatedReplicas").min(to_update), to_update),
            ("ready", number(object, "/status/readyReplicas"), wanted),
        ],
    )
}

fn job(object: &Value) -> Standing {
    let is_true = |name: &str| condition(object, name).is_some_and(|condition| condition["status"] == "True");
    if is_true("Failed") {
        let message = condition(object, "Failed").and_then(|condition| condition["message"].as_str());
        return Standing::Failed(message.unwrap_or("the job failed").to_owned());
    }
    if is_true("Complete") { Standing::Ready } else { Standing::Waiting("it is not complete".to_owned()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment_with(status: Value) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "generation": 2},
            "spec": {"replicas": 2}, "status": status,
        })
    }

    fn ready() -> Value {
        let status =
            json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        deployment_with(status)
    }

    #[test]
    fn workloads_are_ready_when_all_of_them_are() {
        let daemons = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d", "generation": 1},
            "status": {
                "observedGeneration": 1, "desiredNumberScheduled": 3,
                "updatedNumberScheduled": 3, "numberAvailable": 2,
            },
        });
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}});
        let assessment = assess_workloads(&[ready(), service.clone()]);
        assert_eq!(assessment, Assessment::new(Health::Ready, "1 of 1 workloads ready"));
        let assessment = assess_workloads(&[ready(), daemons]);
        let wanted = "1 of 2 workloads ready; DaemonSet d: 2 of 3 pods available";
        assert_eq!(assessment, Assessment::new(Health::Progressing, wanted));
        assert_eq!(assess_workloads(&[service]).health, Health::Ready);
    }

    #[test]
    fn what_the_controller_has_not_seen_is_not_ready() {
        let old =
            json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        for object in [deployment_with(old), deployment_with(json!({}))] {
            let assessment = assess_workloads(&[object]);
            assert_eq!(assessment.health, Health::Progressing);
            assert!(assessment.message.contains("Deployment shop/web"), "{}", assessment.message);
        }
        let planned = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"}});
        assert_eq!(assess_workloads(&[planned]).health, Health::Progressing, "without a status");
    }

    #[test]
    fn what_will_not_get_there_has_failed() {
        let status = json!({
            "observedGeneration": 2,
            "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too late"}],
        });
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
            "status": {"conditions": [{"type": "Failed", "status": "True", "message": "too often"}]},
        });
        for (object, why) in [(deployment_with(status), "too late"), (job, "too often")] {
            let assessment = assess_workloads(&[ready(), object]);
            assert_eq!(assessment.health, Health::Failed);
            assert!(assessment.message.ends_with(why), "{}", assessment.message);
        }
    }
}
