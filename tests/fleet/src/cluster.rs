//! Cluster files of any size: one control plane, and workers.

use std::fmt::Write as _;

/// Most nodes that a cluster can have.
pub const MOST: usize = 1_000;

/// One cluster of a fleet.
#[derive(Clone, Debug)]
pub struct Cluster {
    number: u8,
    nodes: usize,
}

impl Cluster {
    /// Of so many nodes, at least one. The number, below 40, makes its name and its network another than the others'.
    pub fn new(number: u8, nodes: usize) -> Self {
        Self { number, nodes }
    }

    /// `fleet-0`
    pub fn name(&self) -> String {
        format!("fleet-{}", self.number)
    }

    /// Names of its nodes, the control plane first: it is started first.
    pub fn nodes(&self) -> Vec<String> {
        let name = self.name();
        let workers = (1..self.nodes).map(|number| format!("{name}-{number}"));
        std::iter::once(format!("{name}-control")).chain(workers).collect()
    }

    /// Its file.
    pub fn text(&self) -> String {
        let (name, network) = (self.name(), u16::from(self.number) + 200);
        let mut text = format!(
            "name = \"{name}\"\n\n[network]\nname = \"{name}\"\ncidr = \"10.{network}.0.0/16\"\n\
             pods = \"10.128.0.0/14\"\n\n[[node]]\nname = \"{name}-control\"\nrole = \"control-plane\"\n\
             vcpus = 2\nmemory = \"2GiB\"\ndisk = \"10GiB\"\nip = \"10.{network}.0.10\"\n",
        );
        if self.nodes > 1 {
            let workers = self.nodes - 1;
            // Writing into a text cannot fail.
            let _ = write!(
                text,
                "\n[[worker_pool]]\nname = \"{name}\"\ncount = {workers}\nfirst_ip = \"10.{network}.1.1\"\n\
                 vcpus = 1\nmemory = \"1GiB\"\ndisk = \"10GiB\"\n",
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sound_from_one_node_to_the_most() {
        for (number, nodes) in [(0, 1), (1, 2), (7, 50), (39, MOST)] {
            let cluster = Cluster::new(number, nodes);
            let parsed = k8sctl_types::spec::parse(&cluster.text()).expect("a sound file");
            let names: Vec<_> = parsed.spec.nodes.iter().map(|node| node.name.clone()).collect();
            assert_eq!(names, cluster.nodes(), "{nodes} nodes");
        }
    }
}
