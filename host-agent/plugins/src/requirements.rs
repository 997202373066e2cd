//! Pure: what the plugins of a cluster need of its nodes, all together. Two that want different things of the same are a
//! failure that names both. Called by [`crate::host`]; the closed lists of what a node may be told are
//! `plugin_plan`'s.

use std::collections::BTreeMap;

use k8sctl_types::failure::Failure;
use plugin_plan::{NodeRequirement, NodeWant};

use crate::host::NodeNeed;
use crate::records::NodeRow;

/// The needs of one plugin, as stored.
pub(crate) fn of_row(row: NodeRow) -> Vec<NodeNeed> {
    // Written by this program; one of before this version of it is left out.
    let requirements: Vec<NodeRequirement> = serde_json::from_str(&row.node_json).unwrap_or_default();
    let need = |requirement| NodeNeed { plugin: row.plugin.clone(), requirement, was_ready: row.was_ready };
    requirements.into_iter().map(need).collect()
}

/// The first two that do not go together.
pub(crate) fn conflict(needs: &[NodeNeed]) -> Option<Failure> {
    let mut by_subject = BTreeMap::<String, &NodeNeed>::new();
    for need in needs {
        let Some(other) = by_subject.insert(subject(&need.requirement.what), need) else { continue };
        if other.requirement.what != need.requirement.what {
            let reason = format!(
                "it wants {}, and {} wants {}",
                line(&need.requirement),
                other.plugin,
                line(&other.requirement)
            );
            let next =
                format!("configure one of them otherwise, or leave out {} or {}", need.plugin, other.plugin);
            return Some(Failure::new(
                "PLUGIN-NODE-CONFLICT",
                format!("plugin {}", need.plugin),
                reason,
                next,
            ));
        }
    }
    None
}

/// Of what a node has one.
fn subject(want: &NodeWant) -> String {
    match want {
        NodeWant::Cni { .. } => "cni".to_owned(),
        NodeWant::Sysctl { key, .. } => format!("sysctl {key}"),
        NodeWant::Module(module) => format!("module {module}"),
        NodeWant::Registry { host, .. } => format!("registry {host}"),
    }
}

/// What else becomes of nodes when a plugin with these needs comes, if anything.
pub(crate) fn restart(requirements: &[NodeRequirement]) -> Option<String> {
    let brings_network = |it: &NodeRequirement| matches!(it.what, NodeWant::Cni { .. });
    let remark =
        "the pods of all nodes restart for its pod network, node by node, and once more when it is removed";
    requirements.iter().any(brings_network).then(|| remark.to_owned())
}

/// A need as a person reads it.
pub(crate) fn line(requirement: &NodeRequirement) -> String {
    match &requirement.what {
        NodeWant::Cni { config_file } => format!("its own pod network ({config_file}) on all nodes"),
        NodeWant::Sysctl { key, value } => format!("the sysctl {key}={value} on all nodes"),
        NodeWant::Module(module) => format!("the kernel module {module} on all nodes"),
        NodeWant::Registry { host, mirrors, plain_http, ca_pem } => {
            let mut how = Vec::new();
            if *plain_http {
                how.push("without TLS".to_owned());
            }
            if !ca_pem.is_empty() {
                how.push("with a certificate authority of its own".to_owned());
            }
            if !mirrors.is_empty() {
                how.push(format!("by way of {}", mirrors.join(", ")));
            }
            let how = if how.is_empty() { String::new() } else { format!(", {}", how.join(", ")) };
            format!("the registry {host}{how} on all nodes")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(plugin: &str, what: NodeWant) -> NodeNeed {
        let requirement = NodeRequirement { what, why: String::new() };
        NodeNeed { plugin: plugin.to_owned(), requirement, was_ready: false }
    }

    fn sysctl(value: &str) -> NodeWant {
        NodeWant::Sysctl { key: "vm.max_map_count".to_owned(), value: value.to_owned() }
    }

    fn registry(mirrors: &[&str]) -> NodeWant {
        NodeWant::Registry {
            host: "harbor.home.example".to_owned(),
            ca_pem: String::new(),
            mirrors: mirrors.iter().map(|&mirror| mirror.to_owned()).collect(),
            plain_http: false,
        }
    }

    #[test]
    fn the_same_need_of_two_plugins_is_no_conflict() {
        let module = || NodeWant::Module("vxlan".to_owned());
        let all = [
            need("a", sysctl("262144")),
            need("b", sysctl("262144")),
            need("a", module()),
            need("b", module()),
            need("b", registry(&[])),
        ];
        assert_eq!(conflict(&all), None);
    }

    #[test]
    fn two_values_of_one_thing_name_both_plugins() {
        let cni = |file: &str| NodeWant::Cni { config_file: file.to_owned() };
        for (one, other) in [
            (sysctl("1"), sysctl("2")),
            (cni("10-flannel.conflist"), cni("05-cilium.conflist")),
            (registry(&[]), registry(&["https://192.168.122.100"])),
        ] {
            let failure = conflict(&[need("a", one), need("b", other)]).expect("they conflict");
            assert_eq!((failure.id.as_str(), failure.object.as_str()), ("PLUGIN-NODE-CONFLICT", "plugin b"));
            assert!(failure.reason.contains("and a wants"), "{failure}");
        }
    }

    #[test]
    fn that_pods_restart_is_told_of_a_pod_network_alone() {
        let of = |what| restart(&[need("a", what).requirement]);
        assert_eq!(of(sysctl("1")), None);
        let told = of(NodeWant::Cni { config_file: "10-flannel.conflist".to_owned() });
        assert!(told.is_some_and(|told| told.contains("pods of all nodes restart")));
    }

    #[test]
    fn needs_are_read_back_as_they_were_stored() {
        let requirement = NodeRequirement { what: sysctl("1"), why: "it maps files".to_owned() };
        let node_json = serde_json::to_string(&[&requirement]).expect("JSON");
        let row = NodeRow { plugin: "a".to_owned(), was_ready: true, node_json };
        assert_eq!(of_row(row), [NodeNeed { plugin: "a".to_owned(), requirement, was_ready: true }]);
    }
}
