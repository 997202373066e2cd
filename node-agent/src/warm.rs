//! Runs the large programs of a new node once before they are needed, while it waits for others anyway.
//!
//! The first start of such a program reads it from the disk, and under emulation translates it, which takes ten
//! seconds for a kubelet; what the second start needs is in memory. Called once, when the node has
//! joined the host agent. Nothing depends on it.

use std::time::Duration;

use k8sctl_command::Program;

use crate::durable::Root;

const PROGRAMS: [(&str, &str); 2] = [("kubelet", "--version"), ("kubeadm", "version")];
const DEADLINE: Duration = Duration::from_secs(120);

/// On a node that has been set up the programs run already.
pub async fn warm_up(root: Root) {
    if !root.is_live() || root.exists("/var/lib/kubelet/config.yaml") {
        return;
    }
    for (program, argument) in PROGRAMS {
        if let Err(error) = Program::new(program, DEADLINE).arg(argument).run().await {
            tracing::debug!(program, error = %k8sctl_rpc::chain(&error), "cannot warm up");
        }
    }
}
