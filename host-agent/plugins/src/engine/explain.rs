//! Why is an object not ready, or not gone? Asks for pods and for warning events. What it finds is for a person;
//! nothing decides by it.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::ListParams;
use kube::core::DynamicObject;
use serde_json::Value;

use super::Engine;
use crate::plan::ObjectKey;

/// Pods and events that are shown.
const SHOWN: usize = 5;

impl Engine {
    /// What the first blocked pod says, and all that was found, line by line. Requests that fail are left out:
    /// the failure that is being explained matters more.
    pub(super) async fn explain(
        &self,
        key: &ObjectKey,
        live: Option<&DynamicObject>,
    ) -> (Option<String>, String) {
        if key.namespace.is_empty() {
            return (None, String::new());
        }
        let mut lines = Vec::new();
        if let Some(selector) = live.and_then(selector_of) {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
            let list = pods.list(&ListParams::default().labels(&selector).limit(50)).await;
            let pods = list.map(|list| list.items).unwrap_or_default();
            let complaints = pods.iter().filter_map(|pod| complaint(&serde_json::to_value(pod).ok()?));
            lines.extend(complaints.take(SHOWN));
        }
        let first = lines.first().cloned();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &key.namespace);
        let warnings = events.list(&ListParams::default().fields("type=Warning").limit(100)).await;
        let mut warnings = warnings.map(|list| list.items).unwrap_or_default();
        warnings.sort_by(|a, b| a.last_timestamp.cmp(&b.last_timestamp));
        for event in warnings.iter().rev().take(SHOWN) {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let about = &event.involved_object;
            let (kind, name) = (text(&about.kind), text(&about.name));
            lines.push(format!("event {kind} {name}: {}: {}", text(&event.reason), text(&event.message)));
        }
        (first, lines.join("\n"))
    }

    /// Why an object that was deleted is still there: its finalizers; of a namespace the pods in it, or what its
    /// controller says.
    pub(super) async fn what_holds(&self, key: &ObjectKey, live: &DynamicObject) -> String {
        let finalizers = live.metadata.finalizers.as_deref().unwrap_or_default();
        if !finalizers.is_empty() {
            return format!("its finalizers are {}", finalizers.join(", "));
        }
        if key.group.is_empty() && key.kind == "Namespace" {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.name);
            let pods = pods.list(&ListParams::default().limit(50)).await.map(|list| list.items);
            let pods: Vec<String> = pods.unwrap_or_default().iter().map(leaving).collect();
            if !pods.is_empty() {
                let more = pods.len().saturating_sub(SHOWN);
                let more = if more == 0 { String::new() } else { format!(", and {more} more") };
                return format!("{}{more}", pods[..pods.len().min(SHOWN)].join(", "));
            }
        }
        let conditions = live.data.pointer("/status/conditions").and_then(Value::as_array);
        let bad = conditions.into_iter().flatten().filter(|condition| condition["status"] == "True");
        let said: Vec<&str> = bad.filter_map(|condition| condition["message"].as_str()).collect();
        if said.is_empty() { "nothing says why".to_owned() } else { said.join("; ") }
    }
}

/// A pod that holds its namespace.
fn leaving(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let finalizers = pod.metadata.finalizers.as_deref().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    match (finalizers, node) {
        ([], Some(node)) => format!("pod {name} has not ended on {node}"),
        ([], None) => format!("pod {name} has no node"),
        (finalizers, _) => format!("pod {name} has the finalizers {}", finalizers.join(", ")),
    }
}

fn selector_of(live: &DynamicObject) -> Option<String> {
    let labels = live.data.pointer("/spec/selector/matchLabels")?.as_object()?;
    let pairs = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    Some(pairs.collect::<Vec<_>>().join(","))
}

/// What a pod that is not ready says: its containers' waiting reasons, else its conditions.
fn complaint(pod: &Value) -> Option<String> {
    let name = pod.pointer("/metadata/name")?.as_str()?;
    let list = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let containers =
        list("/status/initContainerStatuses").into_iter().chain(list("/status/containerStatuses"));
    for container in containers.filter(|container| container["ready"] != true) {
        for state in ["waiting", "terminated"] {
            if let Some(reason) = container["state"][state]["reason"].as_str() {
                let message = container["state"][state]["message"].as_str().unwrap_or_default();
                let container = container["name"].as_str().unwrap_or_default();
                return Some(
                    format!("pod {name}, container {container}: {reason} {message}").trim_end().to_owned(),
                );
            }
        }
    }
    for condition in list("/status/conditions").iter().filter(|condition| condition["status"] == "False") {
        if let Some(reason) = condition["reason"].as_str() {
            let message = condition["message"].as_str().unwrap_or_default();
            return Some(format!("pod {name}: {reason}: {message}").trim_end().to_owned());
        }
    }
    None
}
