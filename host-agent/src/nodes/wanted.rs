//! What a node shall be, as it is kept: its own part, and what all nodes of its cluster are told alike, once for all of
//! them. Routes and names of all nodes in each node's own state would be kept, and compared, as often as there are pairs
//! of nodes.

use std::sync::Arc;

use k8sctl_proto::node::v1::{DesiredState, HostEntry, PodRoute};

/// What every node of a cluster is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neighbours {
    /// The pods' network of each node, its own included.
    pub routes: Vec<PodRoute>,
    /// Names and addresses of all nodes.
    pub hosts: Vec<HostEntry>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its own part, which has neither routes nor hosts.
    pub own: DesiredState,
    neighbours: Arc<Neighbours>,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        let is_same = Arc::ptr_eq(&self.neighbours, &other.neighbours);
        self.own == other.own && (is_same || self.neighbours == other.neighbours)
    }
}

impl Wanted {
    /// Its own part, and that of all.
    pub fn new(own: DesiredState, neighbours: Arc<Neighbours>) -> Self {
        Self { own, neighbours }
    }

    /// The generation that it was given.
    pub fn generation(&self) -> u64 {
        self.own.generation
    }

    /// All of it, for the wire: without the route to the node's own pods.
    pub fn to_message(&self) -> DesiredState {
        let is_others = |route: &&PodRoute| route.cidr != self.own.node_pod_cidr;
        DesiredState {
            pod_routes: self.neighbours.routes.iter().filter(is_others).cloned().collect(),
            hosts: self.neighbours.hosts.clone(),
            ..self.own.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_of_the_others_routes_and_of_all_names() {
        let route = |cidr: &str| PodRoute { cidr: cidr.to_owned(), via: "192.168.122.10".to_owned() };
        let host = |name: &str| HostEntry { ip: "192.168.122.10".to_owned(), name: name.to_owned() };
        let neighbours = Arc::new(Neighbours {
            routes: vec![route("10.244.0.0/24"), route("10.244.1.0/24")],
            hosts: vec![host("a"), host("b")],
        });
        let own = DesiredState { node_pod_cidr: "10.244.1.0/24".to_owned(), ..DesiredState::default() };
        let message = Wanted::new(own, neighbours).to_message();
        assert_eq!(message.pod_routes, [route("10.244.0.0/24")]);
        assert_eq!(message.hosts, [host("a"), host("b")]);
        assert_eq!(message.node_pod_cidr, "10.244.1.0/24");
    }
}
