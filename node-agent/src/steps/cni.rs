//! Step `cni`: the built-in pod network of this node: a bridge with this node's share of the pod CIDR, one masquerade
//! rule for what leaves the pod network, one that keeps pods from the host agent, and the routes to other nodes' pods,
//! last, because they alone wait for the node's address.

use async_trait::async_trait;
use k8sctl_proto::node::v1::DesiredState;

use super::{OwnedFile, all, network, write_files, wrong_files};
use crate::converge::step::{Check, Step, StepError};
use crate::durable::Root;
use crate::status::Progress;

const CONFLIST: &str = "/etc/cni/net.d/10-k8s-myhome.conflist";

/// The step.
pub struct Cni {
    root: Root,
}

impl Cni {
    /// Works below this root.
    pub fn new(root: Root) -> Self {
        Self { root }
    }

    fn files(&self, desired: &DesiredState) -> Vec<OwnedFile> {
        vec![OwnedFile::public(CONFLIST, render(&desired.node_pod_cidr, smallest_mtu()))]
    }
}

fn render(node_pod_cidr: &str, mtu: Option<u32>) -> String {
    let mut bridge = serde_json::json!({
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "isDefaultGateway": true,
        "ipMasq": false,
        "hairpinMode": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": node_pod_cidr}]]},
    });
    if let Some(mtu) = mtu {
        bridge["mtu"] = mtu.into();
    }
    let list = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "k8s-myhome",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": true}}],
    });
    serde_json::to_string_pretty(&list).expect("JSON values print") + "\n"
}

/// The smallest MTU of the machine's network cards, for packets that leave without fragmentation.
fn smallest_mtu() -> Option<u32> {
    let cards = std::fs::read_dir("/sys/class/net").ok()?;
    let mtu = |card: std::fs::DirEntry| {
        let name = card.file_name();
        let name = name.to_str().filter(|name| name.starts_with('e'))?;
        std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok()?.trim().parse().ok()
    };
    cards.filter_map(Result::ok).filter_map(mtu).min()
}

#[async_trait]
impl Step for Cni {
    fn name(&self) -> &'static str {
        "cni"
    }

    fn unit(&self) -> Option<&'static str> {
        None
    }

    fn members_only(&self) -> bool {
        false
    }

    async fn check(&self, desired: &DesiredState) -> Result<Check, StepError> {
        let files = self.files(desired);
        let mut wrong: Vec<String> =
            wrong_files(&self.root, &files)?.iter().map(|file| file.path.clone()).collect();
        if self.root.is_live() {
            if !network::observe_rules(desired).await?.is_empty() {
                wrong.push("rules of the packet filter".to_owned());
            }
            let routes = network::observe_routes(desired).await?;
            // They go and come with the address, which is the network's to give: waiting for it is no repair.
            if wrong.is_empty() && !routes.replace.is_empty() && network::lacks_address(&desired.node_ip) {
                return Ok(Check::Waits(format!("the node does not have its address {}", desired.node_ip)));
            }
            if !routes.is_empty() {
                wrong.push(format!("{} pod routes", routes.replace.len() + routes.remove.len()));
            }
        }
        Ok(Check::from_missing(wrong))
    }

    async fn apply(&self, desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        let files = write_files(&self.root, &self.files(desired)).map(|_| ());
        if !self.root.is_live() {
            return files;
        }
        let rules = async { network::execute_rules(&network::observe_rules(desired).await?).await };
        let rules = rules.await;
        let routes = network::observe_routes(desired).await?;
        if !routes.replace.is_empty() {
            progress.say("waiting for the node's address");
            network::await_address(&desired.node_ip).await?;
        }
        all([files, rules, network::execute_routes(&routes).await])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_golden() {
        insta::assert_snapshot!("conflist", render("10.244.1.0/24", Some(1500)));
    }
}
