//! How the pods that an object makes, or that use it, reach into their node. Pod specs and volumes are found wherever they
//! lie in an object: operators have them in kinds of their own.

use serde_json::Value;

/// Each way once, in the order in which it is found.
pub(super) fn privileges(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    of_kind(object, &mut found);
    walk(object, &mut found);
    let mut once: Vec<String> = Vec::new();
    for privilege in found {
        if !once.contains(&privilege) {
            once.push(privilege);
        }
    }
    once
}

/// What no pod spec shows.
fn of_kind(object: &Value, found: &mut Vec<String>) {
    let is_core = object["apiVersion"] == "v1";
    if is_core && object["kind"] == "Service" && is_list(&object["spec"]["externalIPs"]) {
        found.push("externalIPs of a Service, which take over addresses of others".to_owned());
    }
}

fn walk(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            persistent_volume(value, found);
            volumes(value, found);
            if is_pod_spec(value) {
                pod_spec(value, found);
            }
            for field in fields.values() {
                walk(field, found);
            }
        }
        Value::Array(items) => {
            for item in items {
                walk(item, found);
            }
        }
        _ => {}
    }
}

/// A claim leads any pod to such a volume: no pod spec shows it.
fn persistent_volume(object: &Value, found: &mut Vec<String>) {
    if object["kind"] == "PersistentVolume" {
        for source in ["hostPath", "local", "flexVolume"] {
            if is_set(&object["spec"][source]) {
                found.push(format!("a {source} volume"));
            }
        }
    }
}

/// Operators have lists of volumes of their own, with the same sources.
fn volumes(object: &Value, found: &mut Vec<String>) {
    for volume in object["volumes"].as_array().into_iter().flatten() {
        for source in ["hostPath", "flexVolume"] {
            if is_set(&volume[source]) {
                found.push(format!("a {source} volume"));
            }
        }
    }
}

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Whether this is what pods are made from.
pub(super) fn is_pod_spec(value: &Value) -> bool {
    CONTAINERS.iter().any(|list| value[*list].is_array())
}

fn pod_spec(spec: &Value, found: &mut Vec<String>) {
    for field in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
        if spec[field] == true {
            found.push(field.to_owned());
        }
    }
    let context = &spec["securityContext"];
    if is_list(&context["sysctls"]) {
        found.push("sysctls of its own".to_owned());
    }
    host_process(context, found);
    for container in CONTAINERS.iter().filter_map(|list| spec[*list].as_array()).flatten() {
        let context = &container["securityContext"];
        if context["privileged"] == true {
            found.push("a privileged container".to_owned());
        }
        // With one of them, an unconfined seccomp profile is what makes the most of it; alone it is the default.
        if is_list(&context["capabilities"]["add"]) {
            found.push("added capabilities".to_owned());
        }
        if context["procMount"] == "Unmasked" {
            found.push("an unmasked /proc".to_owned());
        }
        host_process(context, found);
        let mut ports = container["ports"].as_array().into_iter().flatten();
        if ports.any(|port| is_set(&port["hostPort"]) && port["hostPort"] != 0) {
            found.push("a hostPort".to_owned());
        }
    }
}

fn host_process(context: &Value, found: &mut Vec<String>) {
    if context["windowsOptions"]["hostProcess"] == true {
        found.push("a process of the host".to_owned());
    }
}

fn is_set(value: &Value) -> bool {
    !value.is_null()
}

fn is_list(value: &Value) -> bool {
    value.as_array().is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_way_into_a_node_is_found() {
        let container = |extra: Value| json!({"containers": [extra]});
        for (spec, privilege) in [
            (json!({"containers": [], "hostNetwork": true}), "hostNetwork"),
            (json!({"containers": [], "hostPID": true}), "hostPID"),
            (json!({"containers": [], "hostIPC": true}), "hostIPC"),
            (json!({"containers": [], "hostUsers": true}), "hostUsers"),
            (json!({"containers": [], "volumes": [{"hostPath": {"path": "/"}}]}), "a hostPath volume"),
            (json!({"containers": [], "volumes": [{"flexVolume": {"driver": "d"}}]}), "a flexVolume volume"),
            (
                json!({"containers": [], "securityContext": {"sysctls": [{"name": "n"}]}}),
                "sysctls of its own",
            ),
            (container(json!({"securityContext": {"privileged": true}})), "a privileged container"),
            (container(json!({"securityContext": {"procMount": "Unmasked"}})), "an unmasked /proc"),
            (container(json!({"ports": [{"hostPort": 22}]})), "a hostPort"),
            (
                container(json!({"securityContext": {"windowsOptions": {"hostProcess": true}}})),
                "a process of the host",
            ),
            (
                json!({"initContainers": [{"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}),
                "added capabilities",
            ),
            (
                json!({"ephemeralContainers": [{"securityContext": {"privileged": true}}]}),
                "a privileged container",
            ),
        ] {
            assert_eq!(privileges(&spec), [privilege], "{spec}");
            let hidden = json!({"kind": "Server", "spec": {"pods": [{"template": {"spec": spec}}]}});
            assert_eq!(privileges(&hidden), [privilege], "in an operator's kind");
        }
    }

    #[test]
    fn a_volume_of_a_nodes_own_files_is_found_and_others_are_not() {
        let volume = |source: &str| json!({"apiVersion": "v1", "kind": "PersistentVolume", "spec": {source: {"path": "/"}}});
        assert_eq!(privileges(&volume("hostPath")), ["a hostPath volume"]);
        assert_eq!(privileges(&volume("local")), ["a local volume"]);
        assert_eq!(privileges(&volume("nfs")), Vec::<String>::new());
        let list = json!({"kind": "List", "items": [volume("local")]});
        assert_eq!(privileges(&list), ["a local volume"]);
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"externalIPs": ["192.168.122.1"]}});
        assert_eq!(privileges(&service).len(), 1);
    }

    #[test]
    fn what_reaches_nowhere_is_fine() {
        for value in [
            json!({"containers": [{"ports": [{"containerPort": 80, "hostPort": 0}], "securityContext": {
                "privileged": false, "capabilities": {"drop": ["ALL"], "add": []}, "procMount": "Default"}}],
                "hostNetwork": false, "hostAliases": [{"ip": "10.0.0.1"}],
                "volumes": [{"emptyDir": {}}, {"secret": {"secretName": "s"}}, {"hostPath": null}]}),
            // The schema of a kind that has pods: these are names of fields.
            json!({"properties": {"containers": {"type": "array"}, "hostNetwork": {"type": "boolean"},
                "volumes": {"items": {"properties": {"hostPath": {"type": "object"}}}}}}),
            json!({"kind": "ConfigMap", "data": {"hostNetwork": "true"}}),
        ] {
            assert_eq!(privileges(&value), Vec::<String>::new(), "{value}");
        }
    }
}
