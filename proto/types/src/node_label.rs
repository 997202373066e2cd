//! Who gives a node its labels. Most are given by its kubelet when it registers; in Kubernetes' own domains a kubelet
//! may use few keys (its own check of `--node-labels`, and the API server's NodeRestriction), and the host agent, an
//! administrator, gives the others after the node has joined. A few say what a node is, and are no one's to choose.

/// Besides all keys in the domains of [`KUBELET_DOMAINS`].
const KUBELET_KEYS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const KUBERNETES_DOMAINS: [&str; 2] = ["kubernetes.io", "k8s.io"];

/// What the kubelet finds out about its machine, and what follows from the node's role.
const GIVEN: [&str; 8] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
    "node-role.kubernetes.io/worker",
];

fn is_in(domain: &str, parents: &[&str]) -> bool {
    parents.iter().any(|parent| {
        domain.strip_suffix(parent).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

/// Whether a kubelet may give its own node a label with this key; else only an administrator may.
pub fn kubelet_may_set(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return true };
    !is_in(domain, &KUBERNETES_DOMAINS) || KUBELET_KEYS.contains(&key) || is_in(domain, &KUBELET_DOMAINS)
}

/// Whether a node has this label in any case, with a value that nobody chooses.
pub fn is_given(key: &str) -> bool {
    GIVEN.contains(&key)
}

/// Whether the kubelet takes this label off its node again where the value is empty.
pub fn needs_value(key: &str) -> bool {
    KUBELET_KEYS.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_may_set_what_upstream_lets_it() {
        for key in [
            "zone",
            "example.com/zone",
            "notkubernetes.io/x",
            "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/region",
            "node.kubernetes.io/anything",
            "my.node.kubernetes.io/anything",
            "kubelet.kubernetes.io/x",
        ] {
            assert!(kubelet_may_set(key), "{key}");
        }
        for key in [
            "kubernetes.io/role",
            "k8s.io/x",
            "x.k8s.io/y",
            "topology.kubernetes.io/rack",
            "node-role.kubernetes.io/storage",
            "node-restriction.kubernetes.io/team",
        ] {
            assert!(!kubelet_may_set(key), "{key}");
        }
    }

    #[test]
    fn what_a_node_is_needs_no_label_of_the_users() {
        assert!(is_given("kubernetes.io/hostname") && is_given("node-role.kubernetes.io/worker"));
        assert!(!is_given("topology.kubernetes.io/zone") && !is_given("node-role.kubernetes.io/storage"));
        assert!(needs_value("topology.kubernetes.io/zone") && !needs_value("node.kubernetes.io/gpu"));
    }
}
