//! Writes down what the API server would fill in, where older servers cannot merge without it: the protocol of ports is part
//! of their key in a list, and before Kubernetes 1.21 server-side apply does not know its default.

use serde_json::{Value, json};

/// Fills in the protocol of ports of Services and containers, and takes out what is written but says nothing.
pub fn fill(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get("creationTimestamp").is_some_and(Value::is_null)
    {
        metadata.remove("creationTimestamp");
    }
    if let Some(fields) = object.as_object_mut()
        && fields.get("status").is_some_and(|status| status.is_null() || *status == json!({}))
    {
        fields.remove("status");
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    if group.is_empty() && kind == "Service" {
        fill_ports(object.pointer_mut("/spec/ports"));
    }
    let Some(spec) = pod_spec(group, &kind).and_then(|pointer| object.pointer_mut(pointer)) else { return };
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            fill_ports(container.get_mut("ports"));
        }
    }
}

/// Where a kind of Kubernetes' own has its pod spec.
fn pod_spec(group: &str, kind: &str) -> Option<&'static str> {
    match (group, kind) {
        ("", "Pod") => Some("/spec"),
        ("", "PodTemplate") => Some("/template/spec"),
        ("", "ReplicationController") => Some("/spec/template/spec"),
        ("apps" | "extensions", "Deployment" | "DaemonSet" | "ReplicaSet" | "StatefulSet") => {
            Some("/spec/template/spec")
        }
        ("batch", "Job") => Some("/spec/template/spec"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template/spec"),
        _ => None,
    }
}

fn fill_ports(ports: Option<&mut Value>) {
    for port in ports.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut()
            && port.get("protocol").is_none_or(Value::is_null)
        {
            port.insert("protocol".to_owned(), json!("TCP"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_without_a_protocol_get_the_one_that_the_server_means() {
        let pod = json!({
            "containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}],
            "initContainers": [{"name": "b", "ports": [{"containerPort": 81, "protocol": null}]}],
        });
        let template = json!({"template": {"spec": pod}});
        for (api_version, kind, spec, place) in [
            ("apps/v1", "Deployment", template.clone(), "/spec/template/spec"),
            (
                "batch/v1",
                "CronJob",
                json!({"jobTemplate": {"spec": template}}),
                "/spec/jobTemplate/spec/template/spec",
            ),
            ("v1", "Pod", pod.clone(), "/spec"),
        ] {
            let mut object = json!({"apiVersion": api_version, "kind": kind, "spec": spec});
            fill(&mut object);
            let protocol = |rest: &str| object.pointer(&format!("{place}{rest}/protocol")).cloned();
            assert_eq!(protocol("/containers/0/ports/0"), Some(json!("TCP")), "{kind}");
            assert_eq!(protocol("/containers/0/ports/1"), Some(json!("UDP")), "{kind}");
            assert_eq!(protocol("/initContainers/0/ports/0"), Some(json!("TCP")), "{kind}");
        }
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}});
        fill(&mut service);
        assert_eq!(
            service["spec"]["ports"],
            json!([{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}])
        );
    }

    #[test]
    fn nothing_else_is_touched() {
        for object in [
            json!({"apiVersion": "example.org/v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"ports": "x"}, "status": {"a": 1}}),
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": "x"}}),
            json!("no object"),
        ] {
            let mut filled = object.clone();
            fill(&mut filled);
            assert_eq!(filled, object);
        }
        let mut generated = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "creationTimestamp": null}, "status": {},
        });
        fill(&mut generated);
        assert_eq!(generated, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    }
}
