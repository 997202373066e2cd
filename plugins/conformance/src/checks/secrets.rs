//! Does it leave secrets where they are?

use std::collections::BTreeSet;

use plugin_plan::SecretRef;
use serde_json::Value;

use crate::context::{CANARY, Context};

/// How a plan stands for a value that only the host has.
const PLACEHOLDER: &str = "$k8sctl.secret";

/// 13: placeholders only as values of Secrets, and of nothing but what the config names or the plan has generated.
pub(super) async fn secrets(context: &Context) -> Vec<String> {
    let (plans, mut wrong) = context.plans().await;
    for planned in &plans {
        let generated = planned.plan.secrets.iter();
        let generated = generated.map(|it| SecretRef { handle: it.handle.clone(), key: it.key.clone() });
        let mut known: BTreeSet<SecretRef> = context.secrets_in(&planned.config);
        known.extend(generated);
        for object in &planned.plan.objects {
            wrong.extend(of_object(&object.object, &known));
        }
        let mut patches = planned.plan.remotes.iter().flat_map(|remote| &remote.patches);
        if patches.any(|patch| patch.operations.to_string().contains(CANARY)) {
            wrong.push(format!("a patch names the secret {CANARY}, for which nobody has asked"));
        }
    }
    wrong
}

fn of_object(object: &Value, known: &BTreeSet<SecretRef>) -> Vec<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = format!("{} {}", text("/kind"), text("/metadata/name"));
    let mut wrong = Vec::new();
    let mut rest = object.clone();
    if text("/apiVersion") == "v1" && text("/kind") == "Secret" {
        for field in ["data", "stringData"] {
            for value in
                rest.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(|it| it.values_mut())
            {
                let Some(secret) = SecretRef::of_placeholder(value) else { continue };
                if !known.contains(&secret) {
                    let SecretRef { handle, key } = &secret;
                    wrong.push(format!("{name} holds the secret {handle}/{key}, for which nobody has asked"));
                }
                // It stands where it may.
                *value = Value::Null;
            }
        }
    }
    let rest = rest.to_string();
    if rest.contains(PLACEHOLDER) {
        wrong.push(format!("{name} has a placeholder elsewhere than as a value of a Secret"));
    }
    if rest.contains(CANARY) {
        wrong.push(format!("{name} names the secret {CANARY}, for which nobody has asked"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(handle: &str) -> SecretRef {
        SecretRef { handle: handle.to_owned(), key: "k".to_owned() }
    }

    #[test]
    fn placeholders_stand_in_secrets_only_and_for_what_is_known() {
        let known = BTreeSet::from([secret("a")]);
        let object = |kind: &str, field: &str, value: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "n"}, field: {"x": value}});
        let placeholder = |handle: &str| secret(handle).placeholder();
        assert_eq!(
            of_object(&object("Secret", "stringData", placeholder("a")), &known),
            Vec::<String>::new()
        );
        for (object, says) in [
            (object("Secret", "data", placeholder("b")), "the secret b/k"),
            (object("Secret", "metadata", placeholder("a")), "elsewhere"),
            (object("ConfigMap", "data", placeholder("a")), "elsewhere"),
            (object("ConfigMap", "data", json!(CANARY)), CANARY),
            (object("Secret", "data", json!({"x": placeholder("a")})), "elsewhere"),
        ] {
            let wrong = of_object(&object, &known).join("\n");
            assert!(wrong.contains(says), "{object}: {wrong}");
        }
    }
}
