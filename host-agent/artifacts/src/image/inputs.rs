//! What an image is made of, and the id that follows: equal inputs and equal packages, equal id, no work.
//!
//! Called by [`super::store`]. Decides the id and nothing else.

use std::path::PathBuf;

use k8sctl_types::suite::Suite;
use sha2::{Digest, Sha256};

use super::base;
use crate::bundle::Bundle;

/// Raised with every change of the builder that changes what comes out of it.
const BUILDER: u32 = 3;

/// The kernel's command line. `net.ifnames=0`: the first virtio NIC is `eth0`. `noinit_itable` is
/// the initrd's: growing a disk to 50 GiB would otherwise zero its inode tables behind everyone's back.
/// `psi=1`: Debian's kernels tell of memory pressure only when they are asked to.
pub const CMDLINE: &str = "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet loglevel=4 \
    systemd.show_status=no audit=0 no_timer_check random.trust_cpu=on psi=1 panic=10";

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct BuildInputs {
    /// The Kubernetes release.
    pub bundle: Bundle,
    /// Debian or Ubuntu suite, `bookworm`.
    pub suite: String,
    /// The static node agent.
    pub node_agent: PathBuf,
    /// Adds the lab's debug unit. Never in an image for users.
    pub debug_unit: bool,
}

/// How new an image's packages are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packages {
    /// As they are in the newest image of the same inputs; where there is none, at most two weeks old.
    AsBuilt,
    /// What the mirrors have now.
    Current,
}

/// The id of an image: of what it was asked to be made of and of the packages in its base system, 32 hexadecimal
/// digits.
pub(super) fn image_id(inputs_id: &str, base: &str) -> String {
    hex::encode(&Sha256::digest(format!("inputs={inputs_id}\nbase={base}\n"))[..16])
}

/// What these inputs and no others have: 32 hexadecimal digits.
pub(super) fn inputs_id(inputs: &BuildInputs, suite: &Suite, node_agent_sha256: &str) -> String {
    let mut hash = Sha256::new();
    let mut part = |name: &str, value: &str| hash.update(format!("{name}={}:{value}\n", value.len()));
    part("builder", &BUILDER.to_string());
    part("bundle", &inputs.bundle.digest);
    part("suite", suite.name);
    part("packages", &base::packages(suite).join(","));
    part("node-agent", node_agent_sha256);
    part("cmdline", CMDLINE);
    part("debug-unit", &inputs.debug_unit.to_string());
    part("files", &super::rootfs::fingerprint(inputs.debug_unit));
    part("recipe", &super::base::RECIPE.to_string());
    hex::encode(&hash.finalize()[..16])
}
