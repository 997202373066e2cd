//! Does it judge what it is shown: nothing, its own objects before anybody has made anything of them, and the same when all
//! is well?

use plugin_plan::limits::ASSESS_BYTES;
use plugin_process::{AssessAsk, ConversationError, Health, Talk};
use serde_json::{Value, json};

use crate::context::{Context, Planned, facts, shortly};

/// 14: no failure, the same twice, and not failed where all is well.
pub(super) async fn assess(context: &Context) -> Vec<String> {
    let (plans, mut wrong) = context.plans().await;
    for planned in &plans {
        let asked = context.runner.converse(&context.subject.package, |talk| judge_all(planned, talk));
        match asked.await {
            Ok(run) => wrong.extend(run.answer),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    wrong
}

async fn judge_all(planned: &Planned, mut talk: Talk) -> Result<Vec<String>, ConversationError> {
    let made: Vec<Value> = planned.plan.objects.iter().map(|it| it.object.clone()).collect();
    let well = made.iter().cloned().map(with_status).collect();
    let mut wrong = Vec::new();
    for (what, objects, all_is_well) in [
        ("nothing", Vec::new(), false),
        ("its objects as it planned them", made, false),
        ("its objects when all is well", well, true),
    ] {
        let ask = ask(&planned.config, &objects);
        let of = format!("shown {what}, with the config {},", shortly(&planned.config));
        let one = match talk.assess(&ask).await {
            Ok(one) => one,
            Err(error) if matches!(error, ConversationError::Lost { .. }) => return Err(error),
            Err(error) => {
                wrong.push(format!("{of} it fails: {error}"));
                continue;
            }
        };
        if all_is_well && one.health == Health::Failed {
            wrong.push(format!("{of} it says that it has failed: {}", one.message));
        }
        match talk.assess(&ask).await {
            Ok(other) if other == one => {}
            Ok(_) => wrong.push(format!("{of} it judges otherwise the second time")),
            Err(error) => wrong.push(format!("{of} it fails the second time: {error}")),
        }
    }
    Ok(wrong)
}

fn ask(config: &Value, objects: &[Value]) -> AssessAsk {
    let mut left = ASSESS_BYTES;
    let mut ask = AssessAsk { config_json: config.to_string(), facts: facts(), ..AssessAsk::default() };
    for object in objects.iter().map(Value::to_string) {
        match left.checked_sub(object.len()) {
            Some(rest) => {
                left = rest;
                ask.objects_json.push(object);
            }
            None => ask.left_out += 1,
        }
    }
    ask
}

/// As a cluster would have it that has done all there is to do.
fn with_status(mut object: Value) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "observedGeneration": 1});
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let status = match object["kind"].as_str().unwrap_or_default() {
        "Deployment" => json!({
            "observedGeneration": 1, "replicas": wanted, "updatedReplicas": wanted, "readyReplicas": wanted,
            "availableReplicas": wanted, "conditions": [condition("Available")],
        }),
        "StatefulSet" => json!({
            "observedGeneration": 1, "replicas": wanted, "updatedReplicas": wanted, "readyReplicas": wanted,
            "availableReplicas": wanted, "currentRevision": "r", "updateRevision": "r",
        }),
        "DaemonSet" => json!({
            "observedGeneration": 1, "desiredNumberScheduled": 3, "currentNumberScheduled": 3,
            "updatedNumberScheduled": 3, "numberReady": 3, "numberAvailable": 3, "numberMisscheduled": 0,
        }),
        "Job" => json!({"succeeded": 1, "conditions": [condition("Complete")]}),
        "Namespace" => json!({"phase": "Active"}),
        "PersistentVolumeClaim" => json!({"phase": "Bound"}),
        "Service" => json!({"loadBalancer": {"ingress": [{"ip": "192.168.122.100"}]}}),
        _ => json!({"observedGeneration": 1, "conditions": [condition("Ready"), condition("Available")]}),
    };
    if let Some(fields) = object.as_object_mut() {
        fields.insert("status".to_owned(), status);
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("generation".to_owned(), json!(1));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let large = json!("x".repeat(ASSESS_BYTES / 2));
        let asked = ask(&json!({}), &[large.clone(), large.clone(), large, json!(1)]);
        assert_eq!((asked.objects_json.len(), asked.left_out), (2, 2));
    }

    #[test]
    fn all_is_well_with_as_many_as_were_wanted() {
        let object = json!({"kind": "Deployment", "metadata": {}, "spec": {"replicas": 5}});
        assert_eq!(with_status(object)["status"]["availableReplicas"], 5);
    }
}
