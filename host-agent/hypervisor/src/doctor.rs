//! What `k8sctl doctor` says about libvirt and the place for disks. Reads, changes nothing.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::desired::DesiredPool;
use crate::hypervisor::Hypervisor;
use crate::observed::ObservedHost;

/// Room below which a cluster of three nodes will not fit.
const LOW_SPACE_BYTES: u64 = 20 << 30;
/// libvirt's major version on the oldest supported host.
const OLDEST_MAJOR: u32 = 8;

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
    /// Stable id, `LIBVIRT-VIRTLOGD`.
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

/// All checks of this crate, and what libvirt told meanwhile; `None` where it does not answer.
pub async fn examine(hypervisor: &dyn Hypervisor, pool: &DesiredPool) -> (Vec<Check>, Option<ObservedHost>) {
    let mut checks = vec![examine_socket(Path::new("/run/libvirt/virtlogd-sock"))];
    let observed = match hypervisor.observe(pool).await {
        Err(failure) => {
            checks.push(check(&failure.id, State::Failed, failure.reason, &failure.next_step));
            None
        }
        Ok(observed) => {
            checks.push(decide_version(&observed.libvirt_version));
            checks.extend(decide_host(&observed, pool));
            Some(observed)
        }
    };
    checks.push(examine_parents(&pool.path));
    (checks, observed)
}

/// libvirt answers; whether it is one that we know.
pub fn decide_version(version: &str) -> Check {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major < OLDEST_MAJOR => check(
            "LIBVIRT-UNREACHABLE",
            State::Warning,
            format!("libvirt {version} answers, older than any that was tried"),
            "use Debian 12, Ubuntu 22.04 or later",
        ),
        _ => check("LIBVIRT-UNREACHABLE", State::Ok, format!("libvirt {version} answers"), ""),
    }
}

/// What an observation tells.
pub fn decide_host(observed: &ObservedHost, pool: &DesiredPool) -> Vec<Check> {
    let mut checks = Vec::new();
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
fn examine_parents(path: &Path) -> Check {
    let is_closed = |path: &&Path| path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0);
    match path.ancestors().find(is_closed) {
        None => check("HOST-POOL-MODE", State::Ok, format!("QEMU's user can reach {}", path.display()), ""),
        Some(closed) => check(
            "HOST-POOL-MODE",
            State::Warning,
            format!("QEMU's user cannot pass through {}", closed.display()),
            "chmod o+x that directory, or set pool_dir elsewhere",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_libvirt_is_a_warning() {
        assert_eq!(decide_version("9.0.0").state, State::Ok);
        assert_eq!(decide_version("7.6.0").state, State::Warning);
        assert_eq!(decide_version("").state, State::Ok);
    }

    #[test]
    fn a_closed_directory_above_the_pool_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let pool = dir.path().join("closed/pool");
        std::fs::create_dir_all(&pool).expect("directories");
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        // A directory of a test is its owner's alone.
        std::fs::set_permissions(dir.path(), mode(0o755)).expect("a mode");
        assert_eq!(examine_parents(&pool).state, State::Ok);
        std::fs::set_permissions(dir.path().join("closed"), mode(0o750)).expect("a mode");
        let found = examine_parents(&pool);
        assert_eq!(found.state, State::Warning);
        assert!(found.message.ends_with("/closed"), "{found:?}");
    }

    #[test]
    fn a_pool_elsewhere_and_a_full_disk_are_found() {
        let pool = DesiredPool { name: "k8s-myhome".to_owned(), path: "/pool".into() };
        let there = |path: &str| {
            let pool =
                crate::observed::ObservedPool { path: Some(path.into()), active: true, autostart: true };
            ObservedHost { pool: Some(pool), pool_free_bytes: 1 << 40, ..ObservedHost::default() }
        };
        let states = |observed: &ObservedHost| -> Vec<State> {
            decide_host(observed, &pool).iter().map(|check| check.state).collect()
        };
        assert_eq!(states(&there("/pool")), [State::Ok]);
        assert_eq!(states(&there("/other")), [State::Ok, State::Failed]);
        assert_eq!(states(&ObservedHost { pool_free_bytes: 1 << 30, ..there("/pool") }), [State::Warning]);
    }
}
