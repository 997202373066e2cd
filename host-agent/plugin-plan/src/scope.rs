//! Has a kind a namespace? Decided without a server: Kubernetes' own kinds are known, others are defined by the plan, and
//! for what is left the permission says it.

use std::collections::BTreeMap;

use plugin_package::Manifest;
use serde_json::Value;

/// Groups of the API that belong to Kubernetes, whoever serves them.
const GROUPS: [&str; 25] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "metrics.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Whether Kubernetes itself defines the kinds of this group.
pub fn is_kubernetes_group(group: &str) -> bool {
    GROUPS.contains(&group)
}

/// Whether objects of one of Kubernetes' own kinds have a namespace; `None`: it is no such kind, or one that is not known.
pub fn built_in(group: &str, kind: &str) -> Option<bool> {
    let cluster: &[&str] = match group {
        "" => &["Namespace", "Node", "PersistentVolume", "ComponentStatus"],
        // All of them judge what anybody writes.
        "admissionregistration.k8s.io" => return Some(false),
        "apiextensions.k8s.io" => &["CustomResourceDefinition"],
        "apiregistration.k8s.io" => &["APIService"],
        "certificates.k8s.io" => &["CertificateSigningRequest", "ClusterTrustBundle"],
        "extensions" | "policy" => &["PodSecurityPolicy"],
        "flowcontrol.apiserver.k8s.io" => &["FlowSchema", "PriorityLevelConfiguration"],
        "networking.k8s.io" => &["IngressClass", "IPAddress", "ServiceCIDR"],
        "node.k8s.io" => &["RuntimeClass"],
        "rbac.authorization.k8s.io" => &["ClusterRole", "ClusterRoleBinding"],
        "resource.k8s.io" => &["DeviceClass", "ResourceSlice"],
        "scheduling.k8s.io" => &["PriorityClass"],
        "storage.k8s.io" => {
            &["StorageClass", "CSIDriver", "CSINode", "VolumeAttachment", "VolumeAttributesClass"]
        }
        _ => &[],
    };
    if cluster.contains(&kind) {
        return Some(false);
    }
    let namespaced: &[&str] = match group {
        "" => &[
            "Binding",
            "ConfigMap",
            "Endpoints",
            "Event",
            "LimitRange",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
            "Secret",
            "Service",
            "ServiceAccount",
        ],
        "apps" => &["ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"],
        "autoscaling" => &["HorizontalPodAutoscaler"],
        "batch" => &["CronJob", "Job"],
        "coordination.k8s.io" => &["Lease", "LeaseCandidate"],
        "discovery.k8s.io" => &["EndpointSlice"],
        "events.k8s.io" => &["Event"],
        "extensions" => &["DaemonSet", "Deployment", "Ingress", "NetworkPolicy", "ReplicaSet"],
        "networking.k8s.io" => &["Ingress", "NetworkPolicy"],
        "policy" => &["PodDisruptionBudget"],
        "rbac.authorization.k8s.io" => &["Role", "RoleBinding"],
        "resource.k8s.io" => &["ResourceClaim", "ResourceClaimTemplate"],
        "storage.k8s.io" => &["CSIStorageCapacity"],
        _ => &[],
    };
    namespaced.contains(&kind).then_some(true)
}

/// What a plan knows of the scopes of kinds.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    /// By group and kind: whether it has a namespace.
    known: BTreeMap<(String, String), bool>,
}

impl Scopes {
    /// With the kinds that these objects define; what is no definition is passed over.
    pub fn of<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut known = BTreeMap::new();
        for object in objects {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            if text("/kind") == Some("CustomResourceDefinition")
                && let (Some(group), Some(kind), Some(scope)) =
                    (text("/spec/group"), text("/spec/names/kind"), text("/spec/scope"))
            {
                known.insert((group.to_owned(), kind.to_owned()), scope == "Namespaced");
            }
        }
        Self { known }
    }

    /// With what the permissions say of kinds that nobody defined.
    pub fn with_permissions(mut self, manifest: &Manifest) -> Self {
        for permission in &manifest.permissions {
            let kind = (permission.group.clone(), permission.kind.clone());
            self.known.entry(kind).or_insert(!permission.namespaces.is_empty());
        }
        self
    }

    /// Whether objects of this kind have a namespace; `None`: nobody said.
    pub fn is_namespaced(&self, group: &str, kind: &str) -> Option<bool> {
        built_in(group, kind).or_else(|| self.known.get(&(group.to_owned(), kind.to_owned())).copied())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kubernetes_own_kinds_are_known() {
        for (group, kind, namespaced) in [
            ("", "Pod", Some(true)),
            ("", "Namespace", Some(false)),
            ("rbac.authorization.k8s.io", "RoleBinding", Some(true)),
            ("rbac.authorization.k8s.io", "ClusterRole", Some(false)),
            ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", Some(false)),
            ("metallb.io", "IPAddressPool", None),
            ("", "Anything", None),
        ] {
            assert_eq!(built_in(group, kind), namespaced, "{kind}.{group}");
        }
        for group in GROUPS {
            assert!(is_kubernetes_group(group));
        }
        assert!(!is_kubernetes_group("gateway.networking.k8s.io"));
    }

    #[test]
    fn a_definition_says_it_of_its_own_kind_only() {
        let definition = |kind: &str, group: &str, scope: &str| {
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "spec": {"group": group, "names": {"kind": kind}, "scope": scope},
            })
        };
        let pool = definition("Pool", "a.example", "Namespaced");
        let zone = definition("Zone", "a.example", "Cluster");
        let liar = definition("ClusterRole", "rbac.authorization.k8s.io", "Namespaced");
        let scopes = Scopes::of([&pool, &zone, &liar]);
        assert_eq!(scopes.is_namespaced("a.example", "Pool"), Some(true));
        assert_eq!(scopes.is_namespaced("a.example", "Zone"), Some(false));
        assert_eq!(scopes.is_namespaced("b.example", "Pool"), None);
        assert_eq!(scopes.is_namespaced("rbac.authorization.k8s.io", "ClusterRole"), Some(false));
    }
}
