//! Which fields may be changed by deleting an object and making it anew. A list, since everything that is not on it loses
//! somebody's data or takes others' objects along.

use crate::object::ObjectKey;

/// Fields by group and kind, as the server names them in the causes of its refusal. A field stands for all below it.
const FIELDS: [(&str, &str, &[&str]); 19] = [
    ("apps", "Deployment", &["spec.selector"]),
    ("apps", "DaemonSet", &["spec.selector"]),
    ("apps", "ReplicaSet", &["spec.selector"]),
    // The server does not say which of its fields it is about.
    ("apps", "StatefulSet", &["spec"]),
    (
        "batch",
        "Job",
        &[
            "spec.template",
            "spec.selector",
            "spec.completions",
            "spec.completionMode",
            "spec.podFailurePolicy",
        ],
    ),
    ("", "Pod", &["spec"]),
    ("", "Service", &["spec.clusterIP", "spec.clusterIPs", "spec.ipFamilies", "spec.ipFamilyPolicy"]),
    ("", "ConfigMap", &["data", "binaryData", "immutable"]),
    ("", "Secret", &["data", "immutable", "type"]),
    ("rbac.authorization.k8s.io", "RoleBinding", &["roleRef"]),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", &["roleRef"]),
    (
        "storage.k8s.io",
        "StorageClass",
        &[
            "parameters",
            "provisioner",
            "reclaimPolicy",
            "volumeBindingMode",
            "mountOptions",
            "allowedTopologies",
        ],
    ),
    ("storage.k8s.io", "CSIDriver", &["spec"]),
    ("scheduling.k8s.io", "PriorityClass", &["value", "preemptionPolicy"]),
    ("node.k8s.io", "RuntimeClass", &["handler"]),
    ("networking.k8s.io", "IngressClass", &["spec.controller"]),
    ("policy", "PodDisruptionBudget", &["spec"]),
    ("discovery.k8s.io", "EndpointSlice", &["addressType"]),
    ("apiregistration.k8s.io", "APIService", &["spec.group", "spec.version"]),
];

/// Whether a kind's field may be changed by making the object anew; `field` as in a status' cause.
pub fn may_replace(key: &ObjectKey, field: &str) -> bool {
    let is_below = |listed: &str| match field.strip_prefix(listed) {
        Some(rest) => rest.is_empty() || rest.starts_with(['.', '[']),
        None => false,
    };
    FIELDS
        .iter()
        .filter(|(group, kind, _)| *group == key.group && *kind == key.kind)
        .any(|(_, _, fields)| fields.iter().any(|listed| is_below(listed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(group: &str, kind: &str) -> ObjectKey {
        ObjectKey {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            namespace: String::new(),
            name: "a".to_owned(),
        }
    }

    #[test]
    fn only_what_is_listed_is_made_anew() {
        for (group, kind, field) in [
            ("batch", "Job", "spec.template"),
            ("batch", "Job", "spec.template.spec.containers[0].image"),
            ("apps", "StatefulSet", "spec"),
            ("", "Service", "spec.clusterIPs[0]"),
            ("rbac.authorization.k8s.io", "RoleBinding", "roleRef"),
        ] {
            assert!(may_replace(&key(group, kind), field), "{kind} {field}");
        }
        for (group, kind, field) in [
            ("batch", "Job", "spec.templates"),
            ("batch", "Job", "spec"),
            ("apps", "Deployment", "spec.template"),
            ("extensions", "Deployment", "spec.selector"),
            ("", "Service", ""),
        ] {
            assert!(!may_replace(&key(group, kind), field), "{kind} {field}");
        }
    }

    #[test]
    fn what_holds_other_things_or_data_is_never_made_anew() {
        for (group, kind) in [
            ("", "Namespace"),
            ("", "PersistentVolume"),
            ("", "PersistentVolumeClaim"),
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
            ("metallb.io", "IPAddressPool"),
        ] {
            for field in ["spec", "spec.scope", "data", "metadata.name"] {
                assert!(!may_replace(&key(group, kind), field), "{kind} {field}");
            }
        }
    }
}
