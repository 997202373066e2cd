//! What the host agent tells a plugin beside its config: [`Facts`] about the cluster, the plugins that it requires, and
//! for which secrets there is a value. Wire types stop here.

use std::collections::{BTreeMap, BTreeSet};

use k8sctl_proto::plugin::v1 as wire;
use serde::Serialize;

/// All that a plan may depend on beside the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The cluster.
    pub facts: Facts,
    /// The plugins that this one requires, by name.
    pub dependencies: BTreeMap<String, Dependency>,
    /// Handle and key of each secret that the host agent has a value for. The values are never told.
    pub secrets: BTreeSet<(String, String)>,
}

impl Context {
    /// What a request carries.
    pub(crate) fn of(
        facts: Option<wire::ClusterFacts>,
        dependencies: Vec<wire::Dependency>,
        secrets: Vec<wire::SecretName>,
    ) -> Self {
        let dependency = |it: wire::Dependency| {
            (it.name, Dependency { version: it.version, outputs: it.outputs.into_iter().collect() })
        };
        Self {
            facts: facts.unwrap_or_default().into(),
            dependencies: dependencies.into_iter().map(dependency).collect(),
            secrets: secrets.into_iter().map(|secret| (secret.handle, secret.key)).collect(),
        }
    }

    /// Major and minor number of the cluster's Kubernetes, `(1, 29)`; `(0, 0)` where the facts name none.
    pub fn kubernetes(&self) -> (u32, u32) {
        let version = self.facts.kubernetes_version.trim_start_matches('v');
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or_default());
        (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
    }

    /// What a required plugin told its dependents.
    pub fn output(&self, plugin: &str, key: &str) -> Option<&str> {
        self.dependencies.get(plugin)?.outputs.get(key).map(String::as_str)
    }
}

/// A plugin that this one requires.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// Its version; empty: it is not installed yet.
    pub version: String,
    /// What it told its dependents.
    pub outputs: BTreeMap<String, String>,
}

/// What the host agent says about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The cluster's name.
    pub cluster_name: String,
    /// `v1.29.0`
    pub kubernetes_version: String,
    /// Network of the pods.
    pub pod_cidr: String,
    /// Network of the services.
    pub service_cidr: String,
    /// Network of the nodes.
    pub node_cidr: String,
    /// Names of the nodes.
    pub node_names: Vec<String>,
    /// First and last address of the load balancer pool; `None`: the spec has none.
    pub load_balancer: Option<(String, String)>,
    /// Images that every node has already, by role.
    pub images: BTreeMap<String, String>,
    /// The nodes.
    pub nodes: Vec<NodeFact>,
    /// First and last address that DHCP gives away on the nodes' network; `None`: none.
    pub dhcp: Option<(String, String)>,
    /// The host's address on the nodes' network.
    pub gateway: String,
    /// Address of the cluster's name server.
    pub cluster_dns: String,
    /// Whether the cluster has CoreDNS.
    pub has_dns: bool,
    /// `192.168.122.10:6443`
    pub api_endpoint: String,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeFact {
    /// Its name.
    pub name: String,
    /// `control-plane` or `worker`
    pub role: String,
    /// Its address.
    pub ip: String,
    /// `amd64`
    pub arch: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Both ends of a range, where the first one is given.
fn range(first: String, last: String) -> Option<(String, String)> {
    (!first.is_empty()).then_some((first, last))
}

impl From<wire::ClusterFacts> for Facts {
    fn from(facts: wire::ClusterFacts) -> Self {
        Self {
            cluster_name: facts.cluster_name,
            kubernetes_version: facts.kubernetes_version,
            pod_cidr: facts.pod_cidr,
            service_cidr: facts.service_cidr,
            node_cidr: facts.node_cidr,
            node_names: facts.node_names,
            load_balancer: range(facts.load_balancer_first, facts.load_balancer_last),
            images: facts.images.into_iter().collect(),
            nodes: facts.nodes.into_iter().map(NodeFact::from).collect(),
            dhcp: range(facts.dhcp_first, facts.dhcp_last),
            gateway: facts.gateway,
            cluster_dns: facts.cluster_dns,
            has_dns: facts.has_dns,
            api_endpoint: facts.api_endpoint,
        }
    }
}

impl From<wire::NodeFact> for NodeFact {
    fn from(node: wire::NodeFact) -> Self {
        let wire::NodeFact { name, role, ip, arch, labels } = node;
        Self { name, role, ip, arch, labels: labels.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_kubernetes_are_two_numbers() {
        for (version, numbers) in [
            ("v1.29.0", (1, 29)),
            ("1.33.1+k3s1", (1, 33)),
            ("v1.20", (1, 20)),
            ("", (0, 0)),
            ("new", (0, 0)),
        ] {
            let facts = Facts { kubernetes_version: version.to_owned(), ..Facts::default() };
            assert_eq!(Context { facts, ..Context::default() }.kubernetes(), numbers, "{version}");
        }
    }

    #[test]
    fn what_a_request_carries_is_found_by_name() {
        let outputs = [("storage_class".to_owned(), "fast".to_owned())].into();
        let dependency =
            wire::Dependency { name: "storage".to_owned(), version: "1.0.0".to_owned(), outputs };
        let secret = wire::SecretName { handle: "admin".to_owned(), key: "password".to_owned() };
        let facts = wire::ClusterFacts { dhcp_last: "ignored".to_owned(), ..wire::ClusterFacts::default() };
        let context = Context::of(Some(facts), vec![dependency], vec![secret]);
        assert_eq!(context.output("storage", "storage_class"), Some("fast"));
        assert_eq!(context.output("storage", "other"), None);
        assert_eq!(context.output("other", "storage_class"), None);
        assert!(context.secrets.contains(&("admin".to_owned(), "password".to_owned())));
        assert_eq!(context.facts.dhcp, None, "a range begins somewhere");
    }
}
