//! What each node agent shall be, as pure functions of the cluster's record.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use host_artifacts::bundle::Role as ImageRole;
use host_artifacts::image::Image;
use host_hypervisor::accelerator::Accelerator;
use host_hypervisor::change::DomainRef;
use host_hypervisor::desired::{DesiredHost, DesiredImage, DesiredNode, DesiredPool};
use host_hypervisor::observed::{ObservedDomain, ObservedHost};
use ipnet::Ipv4Net;
use k8sctl_proto::node::v1::{
    DesiredState, HostEntry, ManagedFile, NodeRequirements, NodeRole, PodRoute, Target,
};
use k8sctl_proto::plugin::v1::{ClusterFacts, NodeFact};
use k8sctl_types::spec::{ClusterSpec, Role};

use crate::config::HostConfig;
use crate::nodes::wanted::Neighbours;
use crate::records::{ClusterRecord, NodeRecord, NodeState};

/// Port of the API server.
pub const API_PORT: u16 = 6443;

/// Facts of the node image that agents need.
#[derive(Clone, Debug, Default)]
pub struct ImageFacts {
    /// Name of the pause image.
    pub pause_image: String,
    /// The bundle holds CoreDNS.
    pub coredns: bool,
    /// Repository of the control-plane images, `registry.k8s.io`.
    pub image_repository: String,
}

/// Our libvirt pool.
pub fn host_pool(config: &HostConfig) -> DesiredPool {
    DesiredPool { name: "k8s-myhome".to_owned(), path: config.pool_dir.clone() }
}

/// Where the consoles of all VMs are logged.
pub fn console_dir(config: &HostConfig) -> PathBuf {
    config.pool_dir.join("console")
}

/// The node's VM, as libvirt is asked for it.
pub fn domain_ref(cluster: &ClusterRecord, node: &NodeRecord) -> DomainRef {
    DomainRef { name: node.name.clone(), uuid: node.machine_uuid.clone(), cluster_id: cluster.id.clone() }
}

/// The node's VM, as it is seen: another one of its name is a stranger's.
pub fn vm_of<'a>(
    host: &'a ObservedHost,
    cluster: &ClusterRecord,
    node: &NodeRecord,
) -> Option<&'a ObservedDomain> {
    host.domain(&node.name).filter(|domain| {
        domain.uuid.eq_ignore_ascii_case(&node.machine_uuid)
            && domain.ours.as_ref().is_some_and(|owner| owner.cluster_id == cluster.id)
    })
}

/// The cluster's share of the host; `powered` says which VMs shall run by now, `others` has the names of all clusters
/// by their ids. Of nodes that are being drained
/// nothing is changed, and a node waits with what is new about it for one on its way out that holds its address.
pub fn desired_host(
    config: &HostConfig,
    cluster: &ClusterRecord,
    image: DesiredImage,
    accelerator: Accelerator,
    others: BTreeMap<String, String>,
    powered: impl Fn(&NodeRecord) -> bool,
) -> DesiredHost {
    let in_state = |state| cluster.nodes.iter().filter(move |node| node.state == state);
    let holds = |out: &&NodeRecord, node: &NodeRecord| {
        out.spec.ip == node.spec.ip
            || out.name == node.name
            || out.spec.mac.eq_ignore_ascii_case(&node.spec.mac)
    };
    let is_held = |node: &&NodeRecord| {
        in_state(NodeState::Draining).chain(in_state(NodeState::Removing)).any(|out| holds(&out, node))
    };
    DesiredHost {
        cluster_id: cluster.id.clone(),
        cluster_name: cluster.name.clone(),
        generation: cluster.generation,
        network: cluster.spec.network.clone(),
        nodes: in_state(NodeState::Present)
            .filter(|node| !is_held(node))
            .map(|node| DesiredNode {
                node_id: node.id.clone(),
                spec: node.spec.clone(),
                machine_uuid: node.machine_uuid.clone(),
                powered: powered(node),
                cmdline: accelerator.cmdline().to_owned(),
                is_new: false,
            })
            .collect(),
        leaving: in_state(NodeState::Draining)
            .chain(in_state(NodeState::Present).filter(is_held))
            .map(|node| node.spec.clone())
            .collect(),
        image,
        pool: host_pool(config),
        others,
    }
}

/// What VMs boot from.
pub fn desired_image(image: &Image) -> DesiredImage {
    DesiredImage {
        id: image.id.clone(),
        disk: image.disk.clone(),
        kernel: image.kernel.clone(),
        initrd: image.initrd.clone(),
        cmdline: image.cmdline.clone(),
        size_bytes: image.size,
    }
}

/// What VMs boot from while the store has no sound image of theirs: its copy in the pool. No new VM can be made of it.
pub fn pool_image(cluster: &ClusterRecord) -> DesiredImage {
    DesiredImage {
        id: cluster.image_id.clone(),
        disk: PathBuf::new(),
        kernel: PathBuf::new(),
        initrd: PathBuf::new(),
        cmdline: String::new(),
        size_bytes: 0,
    }
}

/// What agents need to know of the image with these container images.
pub fn image_facts(images: &BTreeMap<ImageRole, String>) -> ImageFacts {
    let name = |role| images.get(&role).cloned().unwrap_or_default();
    let repository = name(ImageRole::KubeApiserver);
    ImageFacts {
        pause_image: name(ImageRole::Pause),
        coredns: images.contains_key(&ImageRole::Coredns),
        image_repository: repository
            .split_once("/kube-apiserver")
            .map(|(r, _)| r.to_owned())
            .unwrap_or_default(),
    }
}

/// What plugins are told of a cluster, whose node image has these container images. Nodes that leave are none of it: what
/// is told while they do is what is told afterwards.
pub fn cluster_facts(cluster: &ClusterRecord, images: Option<&BTreeMap<ImageRole, String>>) -> ClusterFacts {
    let network = &cluster.spec.network;
    let end = |range: Option<k8sctl_types::spec::AddressRange>, last: bool| {
        range.map(|range| if last { range.last } else { range.first }.to_string()).unwrap_or_default()
    };
    let name_of = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let present = || cluster.nodes.iter().filter(|node| node.state == NodeState::Present);
    let images = images.into_iter().flatten();
    ClusterFacts {
        cluster_name: cluster.name.clone(),
        kubernetes_version: cluster.kubernetes.clone(),
        pod_cidr: network.pods.to_string(),
        service_cidr: network.services.to_string(),
        node_cidr: network.cidr.to_string(),
        node_names: present().map(|node| node.name.clone()).collect(),
        load_balancer_first: end(network.load_balancer, false),
        load_balancer_last: end(network.load_balancer, true),
        has_dns: images.clone().any(|(role, _)| *role == ImageRole::Coredns),
        images: images.map(|(role, name)| (name_of(serde_json::to_value(role)), name.clone())).collect(),
        nodes: present()
            .map(|node| NodeFact {
                name: node.name.clone(),
                role: name_of(serde_json::to_value(node.spec.role)),
                ip: node.spec.ip.to_string(),
                // What VMs of ours are.
                arch: "amd64".to_owned(),
                labels: node.spec.labels.iter().cloned().collect(),
            })
            .collect(),
        dhcp_first: end(network.dhcp, false),
        dhcp_last: end(network.dhcp, true),
        gateway: network.gateway().to_string(),
        cluster_dns: cluster_dns(network.services).to_string(),
        api_endpoint: control_plane_endpoint(&cluster.spec),
    }
}

/// The /24 of a node inside the pod network.
pub fn node_pod_cidr(pods: Ipv4Net, index: u32) -> Ipv4Net {
    let base = u32::from(pods.network()) + (index << 8);
    Ipv4Net::new(Ipv4Addr::from(base), 24).expect("24 is a prefix length")
}

/// `192.168.122.10:6443` of the first control-plane node.
pub fn control_plane_endpoint(spec: &ClusterSpec) -> String {
    let ip = spec.nodes.iter().find(|node| node.role == Role::ControlPlane).map(|node| node.ip);
    format!("{}:{API_PORT}", ip.unwrap_or(Ipv4Addr::UNSPECIFIED))
}

/// The cluster DNS address: the tenth of the service network, as kubeadm has it.
pub fn cluster_dns(services: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(services.network()) + 10)
}

/// A role on the wire.
pub fn wire_role(role: Role) -> NodeRole {
    match role {
        Role::ControlPlane => NodeRole::ControlPlane,
        Role::Worker => NodeRole::Worker,
    }
}

/// What all nodes of a cluster are told alike.
pub fn neighbours(cluster: &ClusterRecord) -> Neighbours {
    let ip = |node: &NodeRecord| node.spec.ip.to_string();
    let route = |node: &NodeRecord| PodRoute {
        cidr: node_pod_cidr(cluster.spec.network.pods, node.pod_index).to_string(),
        via: ip(node),
    };
    let host = |node: &NodeRecord| HostEntry { ip: ip(node), name: node.name.clone() };
    Neighbours {
        routes: cluster.nodes.iter().map(route).collect(),
        hosts: cluster.nodes.iter().map(host).collect(),
    }
}

/// The desired state of one node, which dials `host_address`, and of which plugins need `requirements`, but for
/// [`neighbours`] and for the host's processors. The registry counts its generation and adds the program that its agent
/// shall be.
pub fn desired_state(
    cluster: &ClusterRecord,
    node: &NodeRecord,
    image: &ImageFacts,
    files: Vec<ManagedFile>,
    target: Target,
    host_address: String,
    requirements: Option<NodeRequirements>,
) -> DesiredState {
    let network = &cluster.spec.network;
    DesiredState {
        generation: 0,
        cluster_name: cluster.name.clone(),
        node_name: node.name.clone(),
        role: wire_role(node.spec.role).into(),
        node_ip: node.spec.ip.to_string(),
        kubernetes_version: cluster.kubernetes.clone(),
        control_plane_endpoint: control_plane_endpoint(&cluster.spec),
        pod_cidr: network.pods.to_string(),
        service_cidr: network.services.to_string(),
        node_pod_cidr: node_pod_cidr(network.pods, node.pod_index).to_string(),
        pod_routes: Vec::new(),
        files,
        target: target.into(),
        pause_image: image.pause_image.clone(),
        cluster_dns: cluster_dns(network.services).to_string(),
        coredns: image.coredns,
        labels: node.spec.labels.iter().cloned().collect(),
        taints: node.spec.taints.clone(),
        hosts: Vec::new(),
        image_repository: image.image_repository.clone(),
        step_deadline: None,
        spec_generation: cluster.generation,
        host_address,
        processors: 0,
        agent: None,
        requirements,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_own_part_of_the_pod_network() {
        let pods: Ipv4Net = "10.244.0.0/16".parse().expect("valid");
        assert_eq!(node_pod_cidr(pods, 0).to_string(), "10.244.0.0/24");
        assert_eq!(node_pod_cidr(pods, 255).to_string(), "10.244.255.0/24");
    }

    #[test]
    fn dns_is_where_kubeadm_puts_it() {
        assert_eq!(cluster_dns("10.96.0.0/12".parse().expect("valid")).to_string(), "10.96.0.10");
    }

    #[test]
    fn plugins_are_told_of_what_stays() {
        let text = |workers: &str| {
            format!(
                "name = \"home\"\n[network]\ndhcp = \"192.168.122.200-192.168.122.254\"\n\
                 [[node]]\nname = \"cp\"\nrole = \"control-plane\"\nip = \"192.168.122.10\"\n{workers}"
            )
        };
        let worker =
            "[[node]]\nname = \"w\"\nrole = \"worker\"\nip = \"192.168.122.11\"\nlabels = { zone = \"a\" }\n";
        let spec = |workers: &str| k8sctl_types::spec::parse(&text(workers)).expect("a sound spec").spec;
        let both = ClusterRecord::planned(&spec(worker), None, "image", "v1.29.0");
        let images = BTreeMap::from([(ImageRole::Coredns, "coredns:1".to_owned())]);
        let facts = cluster_facts(&both, Some(&images));
        assert_eq!((facts.has_dns, facts.images["coredns"].as_str()), (true, "coredns:1"));
        assert_eq!(
            (facts.dhcp_first.as_str(), facts.dhcp_last.as_str()),
            ("192.168.122.200", "192.168.122.254")
        );
        assert_eq!((facts.gateway.as_str(), facts.cluster_dns.as_str()), ("192.168.122.1", "10.96.0.10"));
        assert_eq!(facts.api_endpoint, "192.168.122.10:6443");
        let shown = |node: &NodeFact| format!("{} {} {} {}", node.name, node.role, node.ip, node.arch);
        let nodes: Vec<String> = facts.nodes.iter().map(shown).collect();
        assert_eq!(nodes, ["cp control-plane 192.168.122.10 amd64", "w worker 192.168.122.11 amd64"]);
        assert_eq!(facts.nodes[1].labels["zone"], "a");
        let leaving = ClusterRecord::planned(&spec(""), Some(&both), "image", "v1.29.0");
        let mut gone = leaving.clone();
        gone.nodes.retain(|node| node.state == NodeState::Present);
        assert_eq!(cluster_facts(&leaving, None), cluster_facts(&gone, None));
        assert!(!cluster_facts(&gone, None).has_dns);
    }

    #[test]
    fn a_new_node_waits_for_the_one_whose_address_it_gets() {
        let spec = |worker: &str| {
            let text = format!(
                "name = \"home\"\n[[node]]\nname = \"cp\"\nrole = \"control-plane\"\nip = \"192.168.122.10\"\n\
                 [[node]]\nname = \"{worker}\"\nrole = \"worker\"\nip = \"192.168.122.11\"\n"
            );
            k8sctl_types::spec::parse(&text).expect("a sound spec").spec
        };
        let before = ClusterRecord::planned(&spec("old"), None, "image", "v1.29.0");
        let mut now = ClusterRecord::planned(&spec("new"), Some(&before), "image", "v1.29.0");
        let image = Image {
            id: "image".to_owned(),
            dir: PathBuf::new(),
            disk: PathBuf::new(),
            kernel: PathBuf::new(),
            initrd: PathBuf::new(),
            cmdline: String::new(),
            kubernetes: "v1.29.0".parse().expect("a version"),
            bundle: String::new(),
            trial: false,
            images: BTreeMap::new(),
            suite: "bookworm".to_owned(),
            debug_unit: false,
            size: 0,
            built: std::time::SystemTime::UNIX_EPOCH,
        };
        let names = |cluster: &ClusterRecord| {
            let others = BTreeMap::new();
            let (config, image) = (HostConfig::default(), desired_image(&image));
            let host = desired_host(&config, cluster, image, Accelerator::Tcg, others, |_| true);
            let of = |specs: Vec<&k8sctl_types::spec::NodeSpec>| {
                specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>().join(" ")
            };
            (of(host.nodes.iter().map(|node| &node.spec).collect()), of(host.leaving.iter().collect()))
        };
        let pair = |nodes: &str, leaving: &str| (nodes.to_owned(), leaving.to_owned());
        assert_eq!(names(&now), pair("cp", "old new"));
        for node in now.nodes.iter_mut().filter(|node| node.state == NodeState::Draining) {
            node.state = NodeState::Removing;
        }
        assert_eq!(names(&now), pair("cp", "new"));
        now.nodes.retain(|node| node.state == NodeState::Present);
        assert_eq!(names(&now), pair("cp new", ""));
    }
}
