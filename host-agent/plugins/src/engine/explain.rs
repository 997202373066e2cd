//! Why is an object not ready, or not gone? Asks for pods and for warning events. What it finds is for a person;
//! nothing decides by it.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::ListParams;
use kube::core::ObjectList;
use plugin_plan::ObjectKey;
use serde_json::Value;

use super::Engine;
use super::request::Trouble;

/// Pods and events that are shown.
const SHOWN: usize = 5;
/// Pods of one object or namespace that are looked at.
const PODS: u32 = 50;

impl Engine {
    /// What the first blocked pod says, and all that was found, line by line. Requests that fail are left out:
    /// the failure that is being explained matters more.
    pub(super) async fn explain(&self, key: &ObjectKey, live: Option<&Value>) -> (Option<String>, String) {
        if key.namespace.is_empty() {
            return (None, String::new());
        }
        let mut lines = Vec::new();
        if let Some(selector) = live.and_then(selector_of) {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
            let listed = self.listed(pods.list(&ListParams::default().labels(&selector).limit(PODS))).await;
            let pods = listed.iter().filter_map(|pod| serde_json::to_value(pod).ok());
            let mut complaints: Vec<Complaint> = pods.filter_map(|pod| complaint(&pod)).collect();
            // What takes its course says less than what went wrong.
            complaints.sort_by_key(|complaint| complaint.is_in_course);
            lines.extend(complaints.into_iter().take(SHOWN).map(|complaint| complaint.text));
        }
        let first = lines.first().cloned();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut warnings =
            self.listed(events.list(&ListParams::default().fields("type=Warning").limit(100))).await;
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
    pub(super) async fn what_holds(&self, key: &ObjectKey, live: &Value) -> String {
        let finalizers = live.pointer("/metadata/finalizers").and_then(Value::as_array);
        let finalizers: Vec<&str> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
        if !finalizers.is_empty() {
            return format!("its finalizers are {}", finalizers.join(", "));
        }
        if key.is_namespace() {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.name);
            let pods = self.listed(pods.list(&ListParams::default().limit(PODS))).await;
            if !pods.is_empty() {
                return leaving_all(&pods);
            }
        }
        let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
        let bad = conditions.into_iter().flatten().filter(|condition| condition["status"] == "True");
        let said: Vec<&str> = bad.filter_map(|condition| condition["message"].as_str()).collect();
        if said.is_empty() { "nothing says why".to_owned() } else { said.join("; ") }
    }

    async fn listed<T: Clone>(
        &self,
        asked: impl Future<Output = Result<ObjectList<T>, kube::Error>>,
    ) -> Vec<T> {
        let answer = self.once(async { asked.await.map_err(Trouble::from) }).await;
        answer.map(|list| list.items).unwrap_or_default()
    }
}

/// Pods that hold what they are in.
pub(super) fn leaving_all(pods: &[Pod]) -> String {
    let shown: Vec<String> = pods.iter().take(SHOWN).map(leaving).collect();
    let more = pods.len() - shown.len();
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!("{}{more}", shown.join(", "))
}

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

/// The label selector of a workload.
pub(super) fn selector_of(live: &Value) -> Option<String> {
    let labels = live.pointer("/spec/selector/matchLabels")?.as_object()?;
    let pairs = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    Some(pairs.collect::<Vec<_>>().join(","))
}

/// What a pod that is not ready says.
#[derive(Debug, PartialEq, Eq)]
struct Complaint {
    text: String,
    /// It is on its way, as far as it knows.
    is_in_course: bool,
}

/// Its containers' reasons, else its conditions.
fn complaint(pod: &Value) -> Option<Complaint> {
    let name = pod.pointer("/metadata/name")?.as_str()?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str);
    let node = node.map(|node| format!(" on {node}")).unwrap_or_default();
    let list = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let containers =
        list("/status/initContainerStatuses").into_iter().chain(list("/status/containerStatuses"));
    for container in containers.filter(|container| container["ready"] != true) {
        for state in ["waiting", "terminated"] {
            let Some(reason) = container["state"][state]["reason"].as_str() else { continue };
            if reason == "Completed" {
                continue;
            }
            let text = |field: &str| container[field].as_str().unwrap_or_default();
            let message = container["state"][state]["message"].as_str().unwrap_or_default();
            let (container, image) = (text("name"), text("image"));
            let text = format!("pod {name}{node}: container {container} ({image}): {reason}: {message}");
            let is_in_course = matches!(reason, "ContainerCreating" | "PodInitializing");
            return Some(Complaint { text: text.trim_end_matches(": ").to_owned(), is_in_course });
        }
    }
    for condition in list("/status/conditions").iter().filter(|condition| condition["status"] == "False") {
        if let Some(reason) = condition["reason"].as_str() {
            let message = condition["message"].as_str().unwrap_or_default();
            let text = format!("pod {name}{node}: {reason}: {message}");
            let is_in_course = reason == "ContainersNotReady" || reason == "PodCompleted";
            return Some(Complaint { text: text.trim_end_matches(": ").to_owned(), is_in_course });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(state: Value) -> Value {
        json!({
            "metadata": {"name": "hello-1"}, "spec": {"nodeName": "k8s-worker-1"},
            "status": {"containerStatuses": [
                {"name": "hello", "image": "lab.k8s-myhome/none:1", "ready": false, "state": state},
            ]},
        })
    }

    #[test]
    fn a_pod_that_cannot_pull_names_container_image_and_reason() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}});
        let said = complaint(&pod(waiting)).expect("it complains");
        assert_eq!(
            said.text,
            "pod hello-1 on k8s-worker-1: container hello (lab.k8s-myhome/none:1): ImagePullBackOff: \
             Back-off pulling image"
        );
        assert!(!said.is_in_course);
        let creating =
            complaint(&pod(json!({"waiting": {"reason": "ContainerCreating"}}))).expect("it waits");
        assert!(creating.is_in_course && creating.text.ends_with("ContainerCreating"), "{creating:?}");
    }

    #[test]
    fn a_pod_without_a_node_says_why_it_has_none() {
        let pending = json!({
            "metadata": {"name": "hello-1"},
            "status": {"conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
            ]},
        });
        let said = complaint(&pending).expect("it complains");
        assert_eq!(said.text, "pod hello-1: Unschedulable: 0/3 nodes are available");
    }
}
