//! What each node is told of what plugins need of it. Pure.
//!
//! Plugins of the spec are counted from the moment on at which they were agreed to, so that new nodes have it from the
//! start; all others while they are installed.

use std::collections::BTreeMap;

use host_plugins::{NodeNeed, PinnedPlugin};
use k8sctl_proto::node::v1::{CniMode, NodeRequirements, RegistryTrust};
use plugin_plan::NodeWant;

/// A pod network that is not the built-in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNetwork {
    /// The plugin that brings it.
    pub plugin: String,
    /// Name of the file that its pods write on each node.
    pub config_file: String,
    /// The plugin was Ready once: it can take over.
    pub was_ready: bool,
}

/// Another pod network than the built-in one, where a plugin brings it.
pub fn pod_network(pinned: &[PinnedPlugin], installed: &[NodeNeed]) -> Option<PodNetwork> {
    let (plugin, config_file) = wants(pinned, installed).find_map(|(plugin, want)| match want {
        NodeWant::Cni { config_file } => Some((plugin.to_owned(), config_file.clone())),
        _ => None,
    })?;
    let was_ready = installed.iter().any(|need| need.plugin == plugin && need.was_ready);
    Some(PodNetwork { plugin, config_file, was_ready })
}

/// All that a node is told; `None` means: nothing is needed of it. `is_elsewhere` says that its pods are on another
/// network than the one that is wanted: it keeps that until the other one has been ready.
pub fn of_node(
    pinned: &[PinnedPlugin],
    installed: &[NodeNeed],
    is_elsewhere: bool,
) -> Option<NodeRequirements> {
    let mut needs = NodeRequirements::default();
    if let Some(network) = pod_network(pinned, installed) {
        let waits = is_elsewhere && !network.was_ready;
        needs.cni = if waits { CniMode::Handover } else { CniMode::External }.into();
        needs.cni_config_file = network.config_file;
    }
    let mut registries: BTreeMap<String, RegistryTrust> = BTreeMap::new();
    for (_, want) in wants(pinned, installed) {
        match want {
            NodeWant::Cni { .. } => {}
            NodeWant::Sysctl { key, value } => drop(needs.sysctls.insert(key.clone(), value.clone())),
            NodeWant::Module(module) => needs.kernel_modules.push(module.clone()),
            NodeWant::Registry { host, ca_pem, mirrors, plain_http } => {
                let trust = RegistryTrust {
                    host: host.clone(),
                    ca_pem: ca_pem.clone(),
                    mirrors: mirrors.clone(),
                    plain_http: *plain_http,
                };
                registries.insert(host.clone(), trust);
            }
        }
    }
    // In one order, whoever was installed first: another one would be another desired state.
    needs.kernel_modules.sort();
    needs.kernel_modules.dedup();
    needs.registries = registries.into_values().collect();
    (needs != NodeRequirements::default()).then_some(needs)
}

/// The same of the whole cluster, for a person; empty: nothing.
pub fn shown(pinned: &[PinnedPlugin], installed: &[NodeNeed]) -> String {
    let network = pod_network(pinned, installed).map(|network| format!("the pod network {}", network.plugin));
    let needs = of_node(pinned, installed, false).unwrap_or_default();
    let mut sysctls: Vec<String> =
        needs.sysctls.iter().map(|(key, value)| format!("sysctl {key}={value}")).collect();
    sysctls.sort();
    let modules = needs.kernel_modules.iter().map(|module| format!("kernel module {module}"));
    let registries = needs.registries.iter().map(|registry| format!("registry {}", registry.host));
    network.into_iter().chain(sysctls).chain(modules).chain(registries).collect::<Vec<_>>().join(", ")
}

/// What is wanted, each with its plugin: of one that is agreed to anew, what was agreed to.
fn wants<'a>(
    pinned: &'a [PinnedPlugin],
    installed: &'a [NodeNeed],
) -> impl Iterator<Item = (&'a str, &'a NodeWant)> {
    let agreed = pinned.iter().flat_map(|plugin| {
        plugin.node.iter().map(move |requirement| (plugin.name.as_str(), &requirement.what))
    });
    let others = installed.iter().filter(move |need| pinned.iter().all(|plugin| plugin.name != need.plugin));
    agreed.chain(others.map(|need| (need.plugin.as_str(), &need.requirement.what)))
}

#[cfg(test)]
pub(crate) mod tests {
    use plugin_plan::NodeRequirement;

    use super::*;

    fn cni(file: &str) -> NodeWant {
        NodeWant::Cni { config_file: file.to_owned() }
    }

    fn sysctl(key: &str, value: &str) -> NodeWant {
        NodeWant::Sysctl { key: key.to_owned(), value: value.to_owned() }
    }

    fn registry(host: &str) -> NodeWant {
        NodeWant::Registry {
            host: host.to_owned(),
            ca_pem: String::new(),
            mirrors: vec!["https://cache".to_owned()],
            plain_http: false,
        }
    }

    /// A plugin of the spec that needs this of nodes.
    pub(crate) fn pinned(name: &str, wants: Vec<NodeWant>) -> PinnedPlugin {
        let node = wants.into_iter().map(|what| NodeRequirement { what, why: String::new() }).collect();
        PinnedPlugin {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            package_sha256: "00".repeat(32),
            approved: Vec::new(),
            provides: Vec::new(),
            requires: Vec::new(),
            node,
        }
    }

    /// flannel, of the spec.
    pub(crate) fn flannel() -> PinnedPlugin {
        pinned("flannel", vec![cni("10-flannel.conflist"), NodeWant::Module("vxlan".to_owned())])
    }

    /// What an installed plugin needs.
    pub(crate) fn need(plugin: &str, what: NodeWant, was_ready: bool) -> NodeNeed {
        let requirement = NodeRequirement { what, why: String::new() };
        NodeNeed { plugin: plugin.to_owned(), requirement, was_ready }
    }

    fn modes(pinned: &[PinnedPlugin], installed: &[NodeNeed]) -> [CniMode; 2] {
        [true, false].map(|is_elsewhere| {
            of_node(pinned, installed, is_elsewhere).map(|needs| needs.cni()).unwrap_or_default()
        })
    }

    #[test]
    fn a_node_keeps_its_network_until_the_other_one_was_ready_and_a_new_one_begins_with_that() {
        assert_eq!(modes(&[], &[]), [CniMode::Unspecified; 2]);
        assert_eq!(of_node(&[], &[], true), None);
        let of_spec = [flannel()];
        assert_eq!(modes(&of_spec, &[]), [CniMode::Handover, CniMode::External], "it is not begun yet");
        let begun = [need("flannel", cni("10-flannel.conflist"), false)];
        assert_eq!(modes(&of_spec, &begun), [CniMode::Handover, CniMode::External]);
        let ready = [need("flannel", cni("10-flannel.conflist"), true)];
        assert_eq!(modes(&of_spec, &ready), [CniMode::External; 2]);
        // By a command it is the same; when it is gone, the built-in one is back.
        assert_eq!(modes(&[], &begun), [CniMode::Handover, CniMode::External]);
        assert_eq!(modes(&[], &ready), [CniMode::External; 2]);
        let network = pod_network(&[], &ready).expect("it is another's");
        assert_eq!((network.plugin.as_str(), network.was_ready), ("flannel", true));
        let told = of_node(&of_spec, &ready, true).expect("something");
        assert_eq!(
            (told.cni_config_file.as_str(), &told.kernel_modules[..]),
            ("10-flannel.conflist", &["vxlan".to_owned()][..])
        );
    }

    #[test]
    fn what_all_plugins_need_is_told_together_and_in_one_order() {
        let metallb = pinned("metallb", vec![sysctl("net.ipv4.conf.all.arp_announce", "2")]);
        let installed = [
            need("storage", NodeWant::Module("nbd".to_owned()), true),
            need("harbor", registry("b.example"), true),
            need("harbor", registry("a.example"), true),
            need("storage", sysctl("vm.max_map_count", "262144"), false),
        ];
        let told = of_node(&[metallb.clone(), flannel()], &installed, false).expect("something");
        assert_eq!(told.kernel_modules, ["nbd", "vxlan"]);
        assert_eq!(told.sysctls.len(), 2);
        let hosts: Vec<&str> = told.registries.iter().map(|registry| registry.host.as_str()).collect();
        assert_eq!(hosts, ["a.example", "b.example"]);
        assert_eq!(told.registries[0].mirrors, ["https://cache"]);
        let mut reversed = installed.to_vec();
        reversed.reverse();
        assert_eq!(of_node(&[flannel(), metallb.clone()], &reversed, false), Some(told));
        assert_eq!(
            shown(&[metallb, flannel()], &installed),
            "the pod network flannel, sysctl net.ipv4.conf.all.arp_announce=2, sysctl vm.max_map_count=262144, \
             kernel module nbd, kernel module vxlan, registry a.example, registry b.example"
        );
        assert_eq!(shown(&[], &[]), "");
    }

    #[test]
    fn of_a_plugin_that_is_upgraded_counts_what_was_agreed_to() {
        let old = [need("storage", sysctl("vm.max_map_count", "65530"), true)];
        let new = [pinned("storage", vec![sysctl("vm.max_map_count", "262144")])];
        let told = of_node(&new, &old, false).expect("something");
        assert_eq!(told.sysctls["vm.max_map_count"], "262144");
        assert_eq!(of_node(&[pinned("storage", Vec::new())], &old, false), None, "it needs nothing any more");
    }
}
