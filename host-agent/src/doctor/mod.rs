//! What the host must provide, looked at now. Each finding says what to do about it. Called by the control service;
//! reads only, changes nothing.
//!
//! - [`processor`]: KVM, nesting, control groups
//! - [`firewall`]: whether VMs reach the node port
//! - [`storage`]: AppArmor and the pool's directory
//! - [`room`]: memory and disk against what the clusters want
//! - [`sandbox`]: what keeps plugins' processes in

pub mod firewall;
pub mod processor;
pub mod room;
pub mod sandbox;
pub mod storage;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host_hypervisor::observed::ObservedHost;
use k8sctl_proto::control::v1::{Check, CheckState};
use k8sctl_rpc::task::blocking;
use k8sctl_types::failure::Failure;

use crate::cluster::desired::host_pool;
use crate::cluster::shared::Shared;
use crate::control::roles::{ADMIN_GROUP, OPERATOR_GROUP};
use crate::records::ClusterRecord;

/// Programs that we start, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 8] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("dnsmasq", "dnsmasq-base"),
    ("ip", "iproute2"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("unshare", "util-linux"),
    ("tar", "tar"),
];

/// The host's files and programs: of this host, or of a test.
#[derive(Clone, Debug)]
pub struct Host {
    /// What `/` is.
    pub root: PathBuf,
    /// Where programs are, as in `PATH`.
    pub path: OsString,
}

impl Host {
    /// This host.
    pub fn this() -> Self {
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        path.push(":/usr/sbin:/sbin");
        Self { root: "/".into(), path }
    }

    /// A file, by its absolute path.
    fn file(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file; `None` where there is none.
    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.file(path)).ok()
    }

    /// The first program of that name.
    fn program(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path).map(|dir| dir.join(name)).find(|file| file.is_file())
    }
}

/// All checks, in the order in which one would mend them.
pub async fn check(shared: &Arc<Shared>) -> Vec<Check> {
    let host = Host::this();
    let pool = host_pool(&shared.config);
    let (found, observed) = host_hypervisor::doctor::examine(&*shared.hypervisor, &pool).await;
    let (clusters, damaged) = shared.records.all_clusters().await.unwrap_or_default();
    let bridge = bridge(observed.as_ref(), &clusters);
    let firewall = firewall::examine(&host, &bridge, shared.config.node_port).await;
    let shared = Arc::clone(shared);
    // Programs, files and the user database: all of that is read at once, and none of it on the runtime's threads.
    let read = move || {
        let config = &shared.config;
        let mut checks: Vec<Check> =
            PROGRAMS.iter().map(|(name, package)| program(&host, name, package)).collect();
        checks.extend(processor::examine(&host));
        checks.extend(found.into_iter().map(from_hypervisor));
        checks.push(storage::examine_apparmor(&host, &pool.path));
        checks.extend(room::examine(&host, observed.as_ref(), &clusters));
        checks.push(firewall);
        checks.extend(sandbox::examine(&host, shared.plugin_cgroups));
        checks.extend(rights());
        checks.extend(damaged.iter().map(|cluster| {
            let failure = cluster.error.failure();
            failed(&failure.id, format!("cluster {}: {}", cluster.name, failure.reason), failure.next_step)
        }));
        checks.extend(artifacts(&shared));
        checks.push(file("node-agent", &config.node_agent, "install it with `make up`, or set `node_agent`"));
        checks.push(file(
            "plugin-dir",
            &config.plugin_dir,
            "install the plugins with `make up`, or set `plugin_dir`",
        ));
        checks
    };
    blocking(read).await
}

/// The bridge that VMs are on: that of a cluster's network, else that of libvirt's own.
fn bridge(observed: Option<&ObservedHost>, clusters: &[ClusterRecord]) -> String {
    let names = clusters.iter().map(|cluster| cluster.spec.network.name.as_str()).chain(["default"]);
    let known = names.filter_map(|name| observed?.network(name)?.bridge.clone()).next();
    known.unwrap_or_else(|| "virbr0".to_owned())
}

/// Who may use the host agent, and whether it may do its work.
fn rights() -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(if rustix::process::geteuid().is_root() {
        ok("HOST-RIGHTS", "the host agent runs as root")
    } else {
        warning(
            "HOST-RIGHTS",
            "the host agent does not run as root: it can neither build images nor put files into the pool",
            "end it and start it with `systemctl start k8s-host-agent`, or as root",
        )
    });
    let exists = |name: &&str| nix::unistd::Group::from_name(name).is_ok_and(|group| group.is_some());
    let groups = [OPERATOR_GROUP, ADMIN_GROUP];
    let missing: Vec<&str> = groups.into_iter().filter(|name| !exists(name)).collect();
    checks.push(if missing.is_empty() {
        ok("HOST-GROUPS", format!("the groups {} exist", groups.join(" and ")))
    } else {
        let add: Vec<String> = missing.iter().map(|name| format!("groupadd --system {name}")).collect();
        warning(
            "HOST-GROUPS",
            format!("only root may use k8sctl: there is no group {}", missing.join(" and no ")),
            format!("{}; then usermod -aG {OPERATOR_GROUP},{ADMIN_GROUP} USER", add.join("; ")),
        )
    });
    checks
}

/// Bundles and images that are there.
fn artifacts(shared: &Shared) -> Vec<Check> {
    let bundles = shared.bundles.list().map(|listing| {
        let names: Vec<String> = listing.bundles.iter().map(|bundle| bundle.manifest.name.clone()).collect();
        (names, listing.broken)
    });
    let images = shared.images.list().map(|images| images.len());
    decide_artifacts(bundles, images)
}

fn decide_artifacts(
    bundles: Result<(Vec<String>, Vec<Failure>), Failure>,
    images: Result<usize, Failure>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    match bundles {
        Err(failure) => checks.push(failed(&failure.id, failure.reason, failure.next_step)),
        Ok((names, broken)) => {
            checks.push(if names.is_empty() {
                warning("BUNDLE-MISSING", "no Kubernetes bundle is installed", "k8sctl bundle fetch")
            } else {
                ok("BUNDLE-MISSING", format!("bundles: {}", names.join(", ")))
            });
            let broken = broken.into_iter();
            checks.extend(broken.map(|failure| {
                warning(&failure.id, format!("{}: {}", failure.object, failure.reason), failure.next_step)
            }));
        }
    }
    checks.push(match images {
        Err(failure) => failed(&failure.id, failure.reason, failure.next_step),
        Ok(0) => warning("IMAGE-MISSING", "no node image is built", "k8sctl image build"),
        Ok(1) => ok("IMAGE-MISSING", "1 node image"),
        Ok(count) => ok("IMAGE-MISSING", format!("{count} node images")),
    });
    checks
}

fn from_hypervisor(finding: host_hypervisor::doctor::Check) -> Check {
    use host_hypervisor::doctor::State;
    let state = match finding.state {
        State::Ok => CheckState::Ok,
        State::Warning => CheckState::Warning,
        State::Failed => CheckState::Failed,
    };
    check_of(&finding.id, state, finding.message, finding.hint)
}

fn program(host: &Host, name: &str, package: &str) -> Check {
    let id = format!("program-{name}");
    match host.program(name) {
        Some(found) => ok(&id, found.display().to_string()),
        None => failed(&id, format!("{name} is not installed"), format!("apt-get install {package}")),
    }
}

fn file(id: &str, path: &Path, hint: &str) -> Check {
    if path.exists() {
        ok(id, path.display().to_string())
    } else {
        failed(id, format!("{} does not exist", path.display()), hint)
    }
}

fn ok(id: &str, message: impl Into<String>) -> Check {
    check_of(id, CheckState::Ok, message, "")
}

fn warning(id: &str, message: impl Into<String>, hint: impl Into<String>) -> Check {
    check_of(id, CheckState::Warning, message, hint)
}

fn failed(id: &str, message: impl Into<String>, hint: impl Into<String>) -> Check {
    check_of(id, CheckState::Failed, message, hint)
}

fn check_of(id: &str, state: CheckState, message: impl Into<String>, hint: impl Into<String>) -> Check {
    Check { id: id.to_owned(), state: state.into(), message: message.into(), hint: hint.into() }
}

#[cfg(test)]
mod tests;
