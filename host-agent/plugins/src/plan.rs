//! Is every object of a plan covered by the manifest, and in what order are they applied? Pure; called by
//! [`crate::PluginHost`] before anything is written.

use std::fmt;

use k8sctl_types::failure::Failure;
use serde_json::Value;

use crate::manifest::Manifest;

/// Largest object, in bytes: etcd takes 1.5 MiB.
pub const OBJECT_LIMIT: usize = 1024 * 1024;

/// Longest name, in bytes: what Kubernetes takes. Kinds and versions are shorter.
const NAME_LIMIT: usize = 253;

/// Namespaces that no plugin ever owns.
const SYSTEM_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Which object: its kind and its name, without its identity in time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// API group; empty: core.
    pub group: String,
    /// Version of the group.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty: none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// `apps/v1` or `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The same object whatever version of the API it was written in.
    pub fn same_object(&self, other: &Self) -> bool {
        (&self.group, &self.kind, &self.namespace, &self.name)
            == (&other.group, &other.kind, &other.namespace, &other.name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.api_version(), self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// When an object of a kind without a built-in rule counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessRule {
    /// `cert-manager.io/v1`
    pub api_version: String,
    /// `ClusterIssuer`
    pub kind: String,
    /// Condition that must be True for the current generation.
    pub condition: String,
}

/// An object that passed the check.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Which one.
    pub key: ObjectKey,
    /// The whole object.
    pub object: Value,
}

/// Checks every object against the manifest and puts them into the order in which they are applied. All that is
/// wrong is in the one failure.
pub fn check_plan(
    manifest: &Manifest,
    objects: Vec<Value>,
    readiness: &[ReadinessRule],
) -> Result<Vec<Planned>, Failure> {
    let mut planned: Vec<Planned> = Vec::new();
    let mut refusals = Vec::new();
    for (index, object) in objects.into_iter().enumerate() {
        match key_of(&object) {
            Ok(key) => {
                refusals.extend(
                    refusals_of(manifest, &key, &object, readiness)
                        .into_iter()
                        .map(|why| format!("{key}: {why}")),
                );
                if planned.iter().any(|other| other.key.same_object(&key)) {
                    refusals.push(format!("{key}: planned twice"));
                }
                planned.push(Planned { key, object });
            }
            Err(why) => refusals.push(format!("object {}: {why}", index + 1)),
        }
    }
    if refusals.is_empty() {
        planned.sort_by_key(|planned| rank(&planned.key));
        return Ok(planned);
    }
    let next = "nothing was changed; the plugin's author must declare it in plugin.toml or plan less";
    let count = refusals.len();
    let reason = format!("its plan was refused for {count} reason(s): {}", refusals[0]);
    Err(Failure::new("PLUGIN-REFUSED", format!("plugin {}", manifest.name), reason, next)
        .with_evidence(refusals.join("\n")))
}

fn key_of(object: &Value) -> Result<ObjectKey, String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let namespace = text("/metadata/namespace");
    for (what, value) in [
        ("apiVersion", &api_version),
        ("kind", &kind),
        ("metadata.name", &name),
        ("metadata.namespace", &namespace),
    ] {
        if value.len() > NAME_LIMIT {
            let length = value.len();
            return Err(format!("its {what} has {length} bytes, expected at most {NAME_LIMIT}"));
        }
        // A slash or a dot name would lead the request to another path of the API.
        let slashes = if what == "apiVersion" { 1 } else { 0 };
        let may_be_empty = what == "metadata.namespace";
        if value.is_empty() && !may_be_empty || value.matches('/').count() > slashes || value.contains("..") {
            return Err(format!("its {what} is {value:?}"));
        }
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
    Ok(ObjectKey { group: group.to_owned(), version: version.to_owned(), kind, namespace, name })
}

fn refusals_of(
    manifest: &Manifest,
    key: &ObjectKey,
    object: &Value,
    readiness: &[ReadinessRule],
) -> Vec<String> {
    let mut why = Vec::new();
    let covered = manifest.permissions.iter().any(|permission| {
        let placed = if permission.namespaces.is_empty() {
            key.namespace.is_empty()
        } else {
            permission.namespaces.contains(&key.namespace)
        };
        let verbs = ["get", "create", "patch"].iter().all(|verb| permission.verbs.iter().any(|v| v == verb));
        let named = permission.names.is_empty() || permission.names.contains(&key.name);
        permission.group == key.group && permission.kind == key.kind && placed && named && verbs
    });
    if !covered {
        why.push("no permission in plugin.toml covers it".to_owned());
    }
    if key.group.is_empty() && key.kind == "Namespace" && SYSTEM_NAMESPACES.contains(&key.name.as_str()) {
        why.push("this namespace belongs to Kubernetes".to_owned());
    }
    if object.to_string().len() > OBJECT_LIMIT {
        why.push(format!("larger than {OBJECT_LIMIT} bytes"));
    }
    const SERVERS: [&str; 8] = [
        "uid",
        "resourceVersion",
        "managedFields",
        "ownerReferences",
        "finalizers",
        "generateName",
        "creationTimestamp",
        "deletionTimestamp",
    ];
    for field in SERVERS.iter().filter(|field| object["metadata"].get(**field).is_some_and(|v| !v.is_null()))
    {
        why.push(format!("a plugin may not set metadata.{field}"));
    }
    if object.get("status").is_some() {
        why.push("a plugin may not set status".to_owned());
    }
    if !crate::engine::has_readiness(key, readiness) {
        why.push("there is no rule that says when it is ready".to_owned());
    }
    if !manifest.privileged_pods {
        for privilege in privileges(object) {
            why.push(format!("it wants {privilege}, and plugin.toml does not ask for privileged_pods"));
        }
    }
    why
}

/// How the pods that an object makes, or that use it, reach into their node. Finds pod specs and volumes wherever they
/// lie in the object.
fn privileges(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    // A claim leads any pod to such a volume: no pod spec shows it.
    if object["kind"] == "PersistentVolume" {
        for field in ["hostPath", "local"] {
            if object["spec"].get(field).is_some_and(|source| !source.is_null()) {
                found.push(format!("a {field} volume"));
            }
        }
    }
    // Operators have lists of volumes of their own, with the same sources.
    let volumes = object["volumes"].as_array().into_iter().flatten();
    if volumes.into_iter().any(|volume| volume.get("hostPath").is_some_and(|source| !source.is_null())) {
        found.push("a hostPath volume".to_owned());
    }
    if object.get("containers").is_some_and(Value::is_array) {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if object[field] == true {
                found.push(field.to_owned());
            }
        }
        let lists = ["containers", "initContainers", "ephemeralContainers"];
        for container in lists.iter().filter_map(|list| object[*list].as_array()).flatten() {
            let context = &container["securityContext"];
            if context["privileged"] == true {
                found.push("a privileged container".to_owned());
            }
            if context
                .pointer("/capabilities/add")
                .and_then(Value::as_array)
                .is_some_and(|add| !add.is_empty())
            {
                found.push("added capabilities".to_owned());
            }
            let ports = container["ports"].as_array().into_iter().flatten();
            if ports.into_iter().any(|port| port.get("hostPort").is_some_and(|port| port != 0)) {
                found.push("a hostPort".to_owned());
            }
        }
    }
    match object {
        Value::Object(fields) => found.extend(fields.values().flat_map(privileges)),
        Value::Array(items) => found.extend(items.iter().flat_map(privileges)),
        _ => {}
    }
    found
}

/// What later objects need comes first; the order of the plugin decides among equals.
pub(crate) fn rank(key: &ObjectKey) -> u8 {
    match (key.group.as_str(), key.kind.as_str()) {
        ("apiextensions.k8s.io", _) | ("", "Namespace") => 0,
        (_, "PriorityClass" | "StorageClass" | "IngressClass" | "RuntimeClass") => 0,
        ("", "ServiceAccount") | ("rbac.authorization.k8s.io", _) => 1,
        ("", "ResourceQuota" | "LimitRange" | "ConfigMap" | "Secret") | (_, "NetworkPolicy") => 2,
        ("", "Service" | "PersistentVolume" | "PersistentVolumeClaim") => 3,
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => 5,
        (group, _) if group.contains('.') && !group.ends_with(".k8s.io") => 6,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest() -> Manifest {
        toml::from_str(include_str!("../../../plugins/hello/plugin.toml")).expect("parses")
    }

    fn deployment(spec: Value) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "hello", "namespace": "hello"},
            "spec": {"template": {"spec": spec}},
        })
    }

    fn refusal(object: Value) -> String {
        check_plan(&manifest(), vec![object], &[]).expect_err("it is refused").evidence
    }

    #[test]
    fn a_namespace_comes_before_what_lies_in_it() {
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "hello"}});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hello"}});
        let planned = check_plan(&manifest(), vec![service, namespace], &[]).expect("it is covered");
        let kinds: Vec<_> = planned.iter().map(|planned| planned.key.kind.as_str()).collect();
        assert_eq!(kinds, ["Namespace", "Service"]);
    }

    #[test]
    fn what_no_permission_covers_is_refused() {
        for object in [
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "hello"}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "kube-system"}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}),
            json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "hello", "namespace": "hello"}}),
        ] {
            assert!(refusal(object.clone()).contains("no permission"), "{object}");
        }
    }

    #[test]
    fn pods_that_reach_into_the_node_are_refused_wherever_their_spec_lies() {
        for (spec, privilege) in [
            (json!({"containers": [], "hostNetwork": true}), "hostNetwork"),
            (json!({"containers": [], "volumes": [{"hostPath": {"path": "/"}}]}), "hostPath"),
            (json!({"containers": [{"securityContext": {"privileged": true}}]}), "privileged container"),
            (
                json!({"containers": [], "initContainers": [{"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}),
                "capabilities",
            ),
            (json!({"containers": [{"ports": [{"hostPort": 22}]}]}), "hostPort"),
        ] {
            assert!(refusal(deployment(spec)).contains(privilege), "{privilege}");
        }
    }

    #[test]
    fn volumes_of_a_nodes_own_files_take_privileged_pods() {
        let volume = |source: &str| {
            json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
                "spec": {"capacity": {"storage": "1Gi"}, source: {"path": "/"}},
            })
        };
        let operators = json!({
            "apiVersion": "example.org/v1", "kind": "Server", "metadata": {"name": "s", "namespace": "hello"},
            "spec": {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
        });
        for (object, privilege) in [
            (volume("hostPath"), "a hostPath volume"),
            (volume("local"), "a local volume"),
            (
                json!({"apiVersion": "v1", "kind": "List", "metadata": {"name": "l"}, "items": [volume("local")]}),
                "a local volume",
            ),
            (operators, "a hostPath volume"),
        ] {
            let why = privileges(&object);
            assert_eq!(why, [privilege], "{object}");
            assert!(refusal(object).contains(&format!("it wants {privilege}")), "{privilege}");
        }
        assert_eq!(privileges(&volume("nfs")), Vec::<String>::new());
        let asks = Manifest { privileged_pods: true, ..manifest() };
        let why = check_plan(&asks, vec![volume("hostPath")], &[]).expect_err("no permission").evidence;
        assert!(!why.contains("privileged_pods"), "{why}");
    }

    #[test]
    fn names_are_as_long_as_those_of_kubernetes_at_most() {
        for pointer in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
            let mut object = deployment(json!({"containers": []}));
            *object.pointer_mut(pointer).expect("it is there") = json!("x".repeat(254));
            let why = refusal(object);
            assert!(why.contains("has 254 bytes, expected at most 253") && why.len() < 200, "{why}");
        }
    }

    #[test]
    fn fields_of_the_server_and_paths_in_names_are_refused() {
        let mut object = deployment(json!({"containers": []}));
        object["metadata"]["uid"] = json!("x");
        assert!(refusal(object.clone()).contains("metadata.uid"));
        object["metadata"]["name"] = json!("../../../api/v1/nodes/n");
        assert!(refusal(object).contains("metadata.name"));
    }
}
