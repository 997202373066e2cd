//! The certificate authorities of each cluster on this host's disk: one for node agents, one set for Kubernetes.
//!
//! Files lie in one directory per cluster, mode 0700, and are made when a cluster is first looked at, never again.
//! Certificates are made by `host_pki`; this room only knows where they are kept and for which cluster.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use host_pki::PkiError;
use host_pki::ca::{NodeCa, ServerIdentity};
use host_pki::join::Authorities;
use host_pki::kubernetes::KubernetesPki;
use k8sctl_proto::node::v1::ManagedFile;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::Role;
use k8sctl_types::version::{KubernetesVersion, VersionError};

use crate::cluster::desired::control_plane_endpoint;
use crate::records::{ClusterRecord, NodeRecord};

/// How long an administrator's certificate lives. It is the user's kubeconfig, so it lasts for a while.
const ADMIN_LIFETIME: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

/// Whether a certificate is to be made anew: it is as old as that, or the clock went back and its time has not begun.
/// By the clock on the wall, which jumps where the host was suspended and where it is set.
pub fn is_due(issued: jiff::Timestamp, after: jiff::SignedDuration, now: jiff::Timestamp) -> bool {
    let age = now.duration_since(issued);
    age.is_negative() || age >= after
}

/// Both authorities of one cluster. Clones share them.
#[derive(Clone, Debug)]
pub struct ClusterPki {
    node: Arc<NodeCa>,
    kubernetes: Arc<KubernetesPki>,
}

/// The authorities of all clusters. Clones share what is open.
#[derive(Clone, Debug)]
pub struct PkiStore {
    dir: PathBuf,
    open: Arc<Mutex<HashMap<String, ClusterPki>>>,
}

impl PkiStore {
    /// Authorities below this directory.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, open: Arc::default() }
    }

    /// The authorities of a cluster, made now if it is new.
    pub fn open(&self, cluster: &ClusterRecord) -> Result<ClusterPki, Failure> {
        // Whole entries are inserted and removed, so what a panic leaves behind is sound.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pki) = open.get(&cluster.id) {
            return Ok(pki.clone());
        }
        let dir = self.dir.join(&cluster.id);
        let (node, kubernetes) = (dir.join("node-ca.pem"), dir.join("kubernetes.json"));
        // Where agents can have dialled they trust the authorities of then, and no others.
        if cluster.node_port.is_some() {
            for file in [&node, &kubernetes] {
                refuse_missing(cluster, file)?;
            }
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|error| self.failure(&cluster.name, &error))?;
        let opened =
            NodeCa::open(&node, &cluster.id).and_then(|node| Ok((node, KubernetesPki::open(&kubernetes)?)));
        let (node, kubernetes) = opened.map_err(|error| self.failure(&cluster.name, &error))?;
        let pki = ClusterPki { node: Arc::new(node), kubernetes: Arc::new(kubernetes) };
        open.insert(cluster.id.clone(), pki.clone());
        Ok(pki)
    }

    /// Removes the authorities of a cluster that is gone.
    pub fn remove(&self, cluster_id: &str) -> Result<(), Failure> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(cluster_id);
        match std::fs::remove_dir_all(self.dir.join(cluster_id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(self.failure(cluster_id, &error))
            }
            _ => Ok(()),
        }
    }

    fn failure(&self, cluster: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::new(
            "HOST-PKI",
            format!("certificate authorities of cluster {cluster}"),
            k8sctl_rpc::chain(error).to_string(),
            format!("check the disk under {}, or restore it from a backup", self.dir.display()),
        )
    }
}

impl Authorities for PkiStore {
    fn node_ca(&self, cluster_id: &str) -> Result<Option<Arc<NodeCa>>, PkiError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(open.get(cluster_id).map(|pki| Arc::clone(&pki.node)))
    }
}

impl ClusterPki {
    /// The only root that node agents trust.
    pub fn node_ca_der(&self) -> &[u8] {
        self.node.certificate_der()
    }

    /// The name in the node port's certificate.
    pub fn server_name(&self) -> &str {
        self.node.server_name()
    }

    /// A new certificate for the node port.
    pub fn server_certificate(
        &self,
        cluster: &ClusterRecord,
        address: IpAddr,
    ) -> Result<ServerIdentity, Failure> {
        self.node
            .server_certificate(address, jiff::Timestamp::now())
            .map_err(|error| issue_failure(&cluster.name, &error))
    }

    /// All files that a node shall have.
    pub fn node_files(
        &self,
        cluster: &ClusterRecord,
        node: &NodeRecord,
    ) -> Result<Vec<ManagedFile>, Failure> {
        let endpoint = control_plane_endpoint(&cluster.spec);
        let version: KubernetesVersion =
            cluster.kubernetes.parse().map_err(|error: VersionError| issue_failure(&cluster.name, &error))?;
        let services = cluster.spec.network.services;
        let files = match node.spec.role {
            Role::ControlPlane => {
                self.kubernetes.control_plane_files(&node.name, node.spec.ip, services, &endpoint, &version)
            }
            Role::Worker => self.kubernetes.worker_files(&node.name, node.spec.ip, &endpoint),
        };
        files.map_err(|error| issue_failure(&cluster.name, &error))
    }

    /// Forgets the keys and certificates of a node that was removed: one that comes again under its name gets others.
    pub fn forget_node(&self, cluster: &ClusterRecord, node_name: &str) -> Result<(), Failure> {
        self.kubernetes.forget_node(node_name).map_err(|error| issue_failure(&cluster.name, &error))
    }

    /// A kubeconfig with a fresh administrator certificate.
    pub fn admin_kubeconfig(&self, cluster: &ClusterRecord) -> Result<String, Failure> {
        let endpoint = control_plane_endpoint(&cluster.spec);
        self.kubernetes
            .admin_kubeconfig(&endpoint, &cluster.name, ADMIN_LIFETIME)
            .map_err(|error| issue_failure(&cluster.name, &error))
    }
}

/// New authorities in the place of lost ones would be told by nothing but nodes that stay silent.
fn refuse_missing(cluster: &ClusterRecord, file: &Path) -> Result<(), Failure> {
    // One that cannot be looked at is for whoever reads it to tell.
    if file.try_exists().unwrap_or(true) {
        return Ok(());
    }
    let name = &cluster.name;
    Err(Failure::new(
        "HOST-PKI",
        format!("certificate authorities of cluster {name}"),
        format!("{} is gone, and its nodes trust no other", file.display()),
        format!(
            "restore it from a backup; without one take the cluster down with `k8sctl down {name}` and bring it up \
             again with `k8sctl up`"
        ),
    ))
}

fn issue_failure(cluster: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(
        "HOST-PKI",
        format!("certificate authorities of cluster {cluster}"),
        k8sctl_rpc::chain(error).to_string(),
        "look into the host agent's log",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_after_a_day_and_when_the_clock_went_back() {
        const DAY: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);
        let issued: jiff::Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
        let after =
            |age: jiff::SignedDuration| is_due(issued, DAY, issued.checked_add(age).expect("in range"));
        for (age, due) in [(0, false), (23 * 3600, false), (24 * 3600, true), (24 * 3600 * 90, true)] {
            assert_eq!(after(jiff::SignedDuration::from_secs(age)), due, "{age} s");
        }
        assert!(after(jiff::SignedDuration::from_hours(-3)), "agents take it for one that is not valid yet");
    }

    #[test]
    fn lost_authorities_of_a_living_cluster_are_not_replaced() {
        let spec =
            "name = \"home\"\n[[node]]\nname = \"cp\"\nrole = \"control-plane\"\nip = \"192.168.122.10\"\n";
        let spec = k8sctl_types::spec::parse(spec).expect("a sound spec").spec;
        let new = ClusterRecord::planned(&spec, None, "image", "v1.29.0");
        let living = ClusterRecord { node_port: Some(7443), ..new.clone() };
        let room = tempfile::tempdir().expect("a directory");
        // A host agent that has just started has nothing open.
        let store = || PkiStore::new(room.path().join("pki"));
        store().open(&new).expect("made");
        let first = store().open(&living).expect("they are there").node_ca_der().to_vec();
        assert_eq!(store().open(&new).expect("again").node_ca_der(), first, "an `up` that was killed early");

        let file = |name: &str| room.path().join("pki").join(&living.id).join(name);
        for name in ["kubernetes.json", "node-ca.pem"] {
            let aside = file("aside");
            std::fs::rename(file(name), &aside).expect("moves");
            let failure = store().open(&living).expect_err("it is gone");
            assert_eq!(failure.id, "HOST-PKI");
            assert!(failure.reason.contains(&file(name).display().to_string()), "{failure}");
            assert!(failure.next_step.contains("k8sctl down home"), "{}", failure.next_step);
            assert!(!file(name).exists(), "{name} was made anew");
            std::fs::rename(&aside, file(name)).expect("moves back");
            assert_eq!(store().open(&living).expect("restored").node_ca_der(), first);
        }
        // The whole directory, and what `down` does then.
        std::fs::remove_dir_all(room.path().join("pki")).expect("removes");
        assert_eq!(store().open(&living).expect_err("all is gone").id, "HOST-PKI");
        store().remove(&living.id).expect("nothing is left to remove");
    }
}
