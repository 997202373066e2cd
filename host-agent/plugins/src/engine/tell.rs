//! What others are told of live objects: the plugin, which judges them, and whoever reads the logs of its pods.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use k8sctl_types::failure::Failure;
use kube::Api;
use kube::api::ListParams;
use plugin_plan::{CheckedPlan, Planned, hash, limits};
use serde_json::Value;

use super::explain::selector_of;
use super::request::Trouble;
use super::{Engine, READS, all_of};

impl Engine {
    /// Live objects of the plan as a plugin is told them: without `managedFields`, without definitions, with digests in
    /// place of the values of Secrets; together at most [`limits::ASSESS_BYTES`]. And how many did not fit.
    pub async fn for_assess(&self, plan: &CheckedPlan) -> Result<(Vec<String>, u32), Failure> {
        let told: Vec<&Planned> =
            plan.objects.iter().filter(|planned| !planned.key.is_definition()).collect();
        let mut asked = Vec::with_capacity(told.len());
        for planned in told {
            asked.push(self.live_object(planned));
        }
        let (mut objects, mut bytes, mut left_out) = (Vec::new(), 0, 0);
        for live in all_of(READS, asked).await? {
            let Some(live) = live else { continue };
            let text = bared(live).to_string();
            if bytes + text.len() > limits::ASSESS_BYTES {
                left_out += 1;
                continue;
            }
            bytes += text.len();
            objects.push(text);
        }
        Ok((objects, left_out))
    }

    /// Pods of the workloads: (namespace, name).
    pub async fn pods(&self, plan: &CheckedPlan) -> Result<Vec<(String, String)>, Failure> {
        let mut asked = Vec::new();
        for planned in plan.objects.iter().filter(|planned| has_pods(planned)) {
            asked.push(self.pods_of_one(planned));
        }
        let mut pods = BTreeSet::new();
        for of_one in all_of(READS, asked).await? {
            pods.extend(of_one);
        }
        Ok(pods.into_iter().collect())
    }

    async fn live_object(&self, planned: &Planned) -> Result<Option<Value>, Failure> {
        match self.served(&planned.key).await? {
            Some(place) => self.get(&place, &planned.key).await,
            None => Ok(None),
        }
    }

    async fn pods_of_one(&self, planned: &Planned) -> Result<Vec<(String, String)>, Failure> {
        let key = &planned.key;
        let Some(live) = self.live_object(planned).await? else { return Ok(Vec::new()) };
        if key.kind == "Pod" {
            return Ok(vec![(key.namespace.clone(), key.name.clone())]);
        }
        let Some(selector) = selector_of(&live) else { return Ok(Vec::new()) };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = ListParams::default().labels(&selector);
        let listed = self.tried(key, || async { api.list(&params).await.map_err(Trouble::from) }).await;
        let listed = listed.map_err(|trouble| self.request_failure(key, "list the pods of", &trouble))?;
        let names = listed.items.into_iter().filter_map(|pod| pod.metadata.name);
        Ok(names.map(|name| (key.namespace.clone(), name)).collect())
    }
}

fn has_pods(planned: &Planned) -> bool {
    matches!(
        (planned.key.group.as_str(), planned.key.kind.as_str()),
        ("apps", "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet") | ("batch", "Job") | ("", "Pod")
    )
}

/// An object without what is the server's bookkeeping, and without values of secrets.
fn bared(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("selfLink");
    }
    if object["kind"] == "Secret" && object["apiVersion"] == "v1" {
        for part in ["data", "stringData"] {
            let values = object.get_mut(part).and_then(Value::as_object_mut);
            for value in values.into_iter().flat_map(serde_json::Map::values_mut) {
                let digest = hash::sha256_hex(value.as_str().unwrap_or_default().as_bytes());
                *value = Value::String(format!("sha256:{digest}"));
            }
        }
        // Whoever applied it by hand left the values there.
        let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
        if let Some(annotations) = annotations {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secrets_values_are_told_as_digests() {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "s", "managedFields": [{}], "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{\"data\":{\"a\":\"aHVudGVyMg==\"}}",
            }},
            "data": {"a": "aHVudGVyMg=="},
        });
        let told = bared(secret).to_string();
        assert!(!told.contains("aHVudGVyMg==") && !told.contains("managedFields"), "{told}");
        assert!(told.contains("sha256:"), "{told}");
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"a": "b"}});
        assert_eq!(bared(map.clone()), map);
    }
}
