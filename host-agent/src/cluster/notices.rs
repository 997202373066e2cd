//! What a person should know of a plan beside its changes. Pure.

use host_artifacts::image::Image;
use host_hypervisor::accelerator::Accelerator;
use host_hypervisor::observed::ObservedHost;
use ipnet::Ipv4Net;
use k8sctl_types::spec::ClusterSpec;

use crate::records::{ClusterRecord, ClusterState};

/// That the clusters together want more memory than there is. Each by itself is judged with its spec.
pub(super) fn crowded(host_bytes: u64, spec: &ClusterSpec, clusters: &[ClusterRecord]) -> Option<String> {
    let others = clusters.iter().filter(|it| it.name != spec.name && it.state == ClusterState::Present);
    let of = |other: &ClusterRecord| other.nodes.iter().map(|node| node.spec.memory_bytes).sum::<u64>();
    let (names, theirs): (Vec<&str>, Vec<u64>) = others.map(|other| (other.name.as_str(), of(other))).unzip();
    let own: u64 = spec.nodes.iter().map(|node| node.memory_bytes).sum();
    let all = own + theirs.iter().sum::<u64>();
    (!names.is_empty() && all > host_bytes).then(|| {
        format!(
            "with {} the nodes want {} MiB of memory together, the host has {} MiB: it swaps, or a VM ends, when all of \
             it is used",
            names.join(", "),
            all >> 20,
            host_bytes >> 20
        )
    })
}

/// What of the host's surroundings pods will not reach, because their own networks have the same addresses.
fn overlaps(observed: &ObservedHost, spec: &ClusterSpec) -> Vec<String> {
    let networks = observed.networks.iter().filter_map(|it| Some((it.cidr?, format!("network {}", it.name))));
    let bridges: Vec<&str> = observed.networks.iter().filter_map(|it| it.bridge.as_deref()).collect();
    let interfaces = observed.interfaces.iter().filter(|it| !bridges.contains(&it.name.as_str()));
    let interfaces = interfaces.map(|it| (it.address.trunc(), format!("interface {}", it.name)));
    let around: Vec<_> = networks.chain(interfaces).collect();
    let ours = [("network.pods", spec.network.pods), ("network.services", spec.network.services)];
    let clash = |key: &str, own: Ipv4Net| {
        let (cidr, what) = around.iter().find(|(cidr, _)| cidr.contains(&own) || own.contains(cidr))?;
        Some(format!("{key} {own} overlaps {cidr} of the host's {what}: pods will not reach what is there"))
    };
    ours.into_iter().filter_map(|(key, own)| clash(key, own)).collect()
}

/// Of the host, of the image, and of what pods will not reach.
pub(super) fn notices(observed: &ObservedHost, image: &Image, spec: &ClusterSpec) -> Vec<String> {
    let mut notices = Vec::new();
    if observed.accelerator == Accelerator::Tcg {
        notices
            .push("no hardware virtualisation here: VMs are emulated, many times slower than KVM".to_owned());
    }
    if image.trial {
        notices.push(format!(
            "trial bundle, Kubernetes {}: for trying things out, not for use",
            image.kubernetes
        ));
    }
    notices.extend(overlaps(observed, spec));
    notices
}
