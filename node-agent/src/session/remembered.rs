//! The last desired state, on the node's disk, so that a node that boots while its host is away is made what it
//! was: routes, containerd, kubelet. What the host says later counts instead.
//!
//! It holds nothing that is not on the disk anyway, and is as private: 0600.

use std::path::{Path, PathBuf};

use k8sctl_proto::node::v1::DesiredState;
use prost::Message;

use crate::durable;

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("desired.pb")
}

/// What was kept, if it can be read.
pub fn load(state_dir: &Path) -> Option<DesiredState> {
    DesiredState::decode(std::fs::read(file(state_dir)).ok()?.as_slice()).ok()
}

/// Keeps it. That it cannot be kept only matters at a boot without the host.
pub fn keep(state_dir: &Path, desired: &DesiredState) {
    if let Err(error) = durable::write(&file(state_dir), &desired.encode_to_vec(), 0o600) {
        tracing::warn!(%error, "cannot keep the desired state");
    }
}

/// Forgets it: the node was removed.
pub fn forget(state_dir: &Path) {
    if let Err(error) = durable::remove(&file(state_dir)) {
        tracing::warn!(%error, "cannot forget the desired state");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_after_a_restart_and_gone_after_removal() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let desired = DesiredState { generation: 7, node_name: "n".into(), ..DesiredState::default() };
        keep(dir.path(), &desired);
        assert_eq!(load(dir.path()), Some(desired));
        forget(dir.path());
        assert_eq!(load(dir.path()), None);
    }
}
