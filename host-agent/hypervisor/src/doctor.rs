//! What `k8sctl doctor` says about libvirt and the place for disks. Reads, changes nothing.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::desired::DesiredPool;
use crate::hypervisor::Hypervisor;
use crate::observed::ObservedHost;

/// Room below which a cluster of three nodes will not fit.
const LOW_SPACE_BYTES: u64 = 20 << 30;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, but not well.
    Warning,
    /// Clusters cannot be made like this.
    Failed,
}

/// One check of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable id, `HOST-KVM`.
    pub id: String,
    /// How it ended.
    pub state: State,
    /// What was found.
    pub message: String,
    /// What to do; empty where all is well.
    pub hint: String,
}

fn check(id: &str, state: State, message: impl Into<String>, hint: &str) -> Check {
    Check { id: id.to_owned(), state, message: message.into(), hint: hint.to_owned() }
}

/// All checks of this crate.
pub async fn examine(hypervisor: &dyn Hypervisor, pool: &DesiredPool) -> Vec<Check> {
    let mut checks = vec![examine_socket(Path::new("/run/libvirt/virtlogd-sock"))];
    match hypervisor.observe(pool).await {
        Err(failure) => {
            checks.push(check("LIBVIRT-UNREACHABLE", State::Failed, failure.reason, &failure.next_step))
        }
        Ok(observed) => {
            checks.push(check("LIBVIRT-UNREACHABLE", State::Ok, "libvirt answers", ""));
            checks.extend(decide_host(&observed, pool));
        }
    }
    checks.extend(examine_parents(&pool.path));
    checks
}

/// What an observation tells.
pub fn decide_host(observed: &ObservedHost, pool: &DesiredPool) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(match observed.accelerator {
        Accelerator::Kvm => check("HOST-KVM", State::Ok, "VMs run on KVM", ""),
        Accelerator::Tcg => check(
            "HOST-KVM",
            State::Warning,
            "no usable KVM: VMs are emulated, several times slower",
            "enable virtualisation in the firmware, or nested virtualisation on the outer host; `modprobe kvm_intel` or `kvm_amd`",
        ),
    });
    let free = observed.pool_free_bytes;
    let message = format!("{} GiB free at {}", free >> 30, pool.path.display());
    checks.push(if free < LOW_SPACE_BYTES {
        check(
            "HOST-DISK-FULL",
            State::Warning,
            message,
            "free space, or set pool_dir to a larger file system",
        )
    } else {
        check("HOST-DISK-FULL", State::Ok, message, "")
    });
    if observed.pool.as_ref().is_some_and(|there| there.path.as_ref() != Some(&pool.path)) {
        let message = format!("a pool named {} exists elsewhere", pool.name);
        checks.push(check(
            "LIBVIRT-FOREIGN-POOL",
            State::Failed,
            message,
            "set pool_dir to its directory, or remove it",
        ));
    }
    checks
}

fn examine_socket(socket: &Path) -> Check {
    match UnixStream::connect(socket) {
        Ok(_) => check("LIBVIRT-VIRTLOGD", State::Ok, "virtlogd answers", ""),
        Err(error) => check(
            "LIBVIRT-VIRTLOGD",
            State::Failed,
            format!("virtlogd at {} does not answer: {error}", socket.display()),
            "systemctl start virtlogd.socket",
        ),
    }
}

/// QEMU runs as another user and must be able to pass through every directory above the disks.
fn examine_parents(path: &Path) -> Option<Check> {
    let closed =
        path.ancestors().find(|it| it.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0))?;
    let message = format!("QEMU's user cannot pass through {}", closed.display());
    Some(check(
        "HOST-POOL-MODE",
        State::Warning,
        message,
        "chmod o+x that directory, or set pool_dir elsewhere",
    ))
}
