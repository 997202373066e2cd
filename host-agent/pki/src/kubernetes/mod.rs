//! The PKI of one Kubernetes cluster: everything that kubeadm would make, made here, so that kubeadm finds it and
//! reuses it, and workers need no TLS bootstrap.
//!
//! - `leaf`: which certificates there are and what stands in them
//! - `kubeconfig`: the files around client certificates
//!
//! Authorities, the service account key and every leaf that was issued are kept in one file, so the files of a node
//! stay the same from call to call and across restarts; a leaf is made anew when half of its life is over. What
//! kubeadm checks of files that exist: certificates must be signed by the CA beside them and carry every expected
//! SAN; kubeconfigs must have the CA's exact bytes and the endpoint's URL.

mod kubeconfig;
mod leaf;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};
use k8sctl_proto::node::v1::ManagedFile;
use k8sctl_types::version::KubernetesVersion;
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use serde::{Deserialize, Serialize};

use self::kubeconfig::kubeconfig;
use self::leaf::{
    KUBELET_SERVING, Leaf, Signer, Usage, control_plane_clients, control_plane_leaves, kubelet_client,
    kubelet_serving,
};
use crate::issue::{self, later};
use crate::{PkiError, file};

/// Lifetime of leaves.
pub const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// How far a leaf's validity reaches back.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);
/// Where kubeadm looks for certificates.
const PKI_DIR: &str = "/etc/kubernetes/pki";
/// Where kubeadm looks for kubeconfigs.
const CONFIG_DIR: &str = "/etc/kubernetes";
const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// Certificate and key, PEM.
#[derive(Clone, Serialize, Deserialize)]
struct Pair {
    certificate: String,
    key: String,
}

/// A leaf that was issued, with what was asked for.
#[derive(Clone, Serialize, Deserialize)]
struct Issued {
    leaf: Leaf,
    not_before: Timestamp,
    not_after: Timestamp,
    pair: Pair,
}

/// All that is kept.
#[derive(Clone, Serialize, Deserialize)]
struct State {
    version: u32,
    kubernetes: Pair,
    front_proxy: Pair,
    etcd: Pair,
    service_account_key: String,
    service_account_public: String,
    /// By node and file.
    issued: BTreeMap<String, Issued>,
}

/// What is kept, and what was issued besides.
struct Draft<'a> {
    state: &'a State,
    /// By node and file.
    new: BTreeMap<String, Issued>,
}

/// Form of [`State`].
const VERSION: u32 = 1;

/// The PKI of one cluster, kept in one file.
pub struct KubernetesPki {
    path: PathBuf,
    state: Mutex<State>,
}

/// What the control plane's files depend on.
#[derive(Clone, Copy, Debug)]
pub struct ControlPlane<'a> {
    /// Kubernetes node name.
    pub node_name: &'a str,
    /// The node's address, which the API server advertises.
    pub node_ip: Ipv4Addr,
    /// Service network; its first address is the API server's.
    pub service_cidr: Ipv4Net,
    /// Where everybody finds the API server, `192.168.122.10:6443`.
    pub endpoint: &'a str,
    /// Release of the control plane.
    pub version: &'a KubernetesVersion,
}

impl KubernetesPki {
    /// The PKI kept in this file, mode 0600; made now if there is none.
    pub fn open(path: &Path) -> Result<Self, PkiError> {
        let state = match file::read(path)? {
            Some(text) => serde_json::from_str::<State>(&text)
                .ok()
                .filter(|state| state.version == VERSION)
                .ok_or_else(|| PkiError::Content {
                    path: path.to_owned(),
                    expected: "the PKI of a cluster",
                })?,
            None => {
                let state = State::create(Timestamp::now())?;
                save(path, &state)?;
                state
            }
        };
        Ok(Self { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// All files of a control-plane node: `/etc/kubernetes/pki/**`, the kubeconfigs, and what the kubelet serves with.
    pub fn control_plane_files(
        &self,
        node_name: &str,
        node_ip: Ipv4Addr,
        service_cidr: Ipv4Net,
        endpoint: &str,
        version: &KubernetesVersion,
    ) -> Result<Vec<ManagedFile>, PkiError> {
        self.control_plane_files_at(
            &ControlPlane { node_name, node_ip, service_cidr, endpoint, version },
            Timestamp::now(),
        )
    }

    /// The same at a given time.
    pub fn control_plane_files_at(
        &self,
        wanted: &ControlPlane<'_>,
        now: Timestamp,
    ) -> Result<Vec<ManagedFile>, PkiError> {
        self.with_draft(|draft| {
            let (state, mut files) = (draft.state, Vec::new());
            for (name, pair) in
                [("ca", &state.kubernetes), ("front-proxy-ca", &state.front_proxy), ("etcd/ca", &state.etcd)]
            {
                push_pair(&mut files, &format!("{PKI_DIR}/{name}"), pair);
            }
            files.push(managed(format!("{PKI_DIR}/sa.key"), &state.service_account_key, SECRET));
            files.push(managed(format!("{PKI_DIR}/sa.pub"), &state.service_account_public, PUBLIC));
            for (name, leaf) in control_plane_leaves(wanted)? {
                let pair = draft.issue(wanted.node_name, name, leaf, now)?;
                push_pair(&mut files, &format!("{PKI_DIR}/{name}"), &pair);
            }
            draft.push_kubelet_serving(&mut files, wanted.node_name, wanted.node_ip, now)?;
            for client in control_plane_clients(wanted) {
                let pair = draft.issue(wanted.node_name, client.file, client.leaf, now)?;
                let text = kubeconfig(
                    "kubernetes",
                    &client.server,
                    &client.user,
                    &state.kubernetes.certificate,
                    &pair.certificate,
                    &pair.key,
                );
                files.push(managed(format!("{CONFIG_DIR}/{}", client.file), &text, SECRET));
            }
            Ok(files)
        })
    }

    /// All files of a worker: the CA's certificate, the kubelet's kubeconfig, and what it serves with.
    pub fn worker_files(
        &self,
        node_name: &str,
        node_ip: Ipv4Addr,
        endpoint: &str,
    ) -> Result<Vec<ManagedFile>, PkiError> {
        self.worker_files_at(node_name, node_ip, endpoint, Timestamp::now())
    }

    /// The same at a given time.
    pub fn worker_files_at(
        &self,
        node_name: &str,
        node_ip: Ipv4Addr,
        endpoint: &str,
        now: Timestamp,
    ) -> Result<Vec<ManagedFile>, PkiError> {
        self.with_draft(|draft| {
            let client = kubelet_client(node_name, endpoint);
            let pair = draft.issue(node_name, client.file, client.leaf, now)?;
            let authority = &draft.state.kubernetes.certificate;
            let text = kubeconfig(
                "kubernetes",
                &client.server,
                &client.user,
                authority,
                &pair.certificate,
                &pair.key,
            );
            let mut files = vec![
                managed(format!("{PKI_DIR}/ca.crt"), authority, PUBLIC),
                managed(format!("{CONFIG_DIR}/{}", client.file), &text, SECRET),
            ];
            draft.push_kubelet_serving(&mut files, node_name, node_ip, now)?;
            Ok(files)
        })
    }

    /// A kubeconfig with a fresh administrator certificate that lives for `ttl`. It is not kept.
    pub fn admin_kubeconfig(
        &self,
        endpoint: &str,
        cluster_name: &str,
        ttl: SignedDuration,
    ) -> Result<String, PkiError> {
        let now = Timestamp::now();
        let (signer, authority) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.kubernetes.clone(), state.kubernetes.certificate.clone())
        };
        let leaf = Leaf {
            signer: Signer::Kubernetes,
            common_name: "k8sctl-admin".to_owned(),
            organization: Some("system:masters".to_owned()),
            names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
        };
        let pair = sign(
            &signer,
            &leaf,
            later("an administrator", now, -BACKDATE)?,
            later("an administrator", now, ttl)?,
        )?;
        let user = format!("{cluster_name}-admin");
        Ok(kubeconfig(cluster_name, &leaf::url(endpoint), &user, &authority, &pair.certificate, &pair.key))
    }

    /// The cluster CA's certificate, PEM.
    pub fn ca_pem(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).kubernetes.certificate.clone()
    }

    /// Forgets the leaves of a node that was removed.
    pub fn forget_node(&self, node_name: &str) -> Result<(), PkiError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = format!("{node_name}/");
        if !state.issued.keys().any(|name| name.starts_with(&prefix)) {
            return Ok(());
        }
        let mut next = state.clone();
        next.issued.retain(|name, _| !name.starts_with(&prefix));
        save(&self.path, &next)?;
        *state = next;
        Ok(())
    }

    /// Runs work on the state and stores what it issued before anybody sees it. As a rule that is nothing: a cluster's
    /// task asks for the files of all its nodes again and again.
    fn with_draft<R>(&self, work: impl FnOnce(&mut Draft<'_>) -> Result<R, PkiError>) -> Result<R, PkiError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut draft = Draft { state: &state, new: BTreeMap::new() };
        let result = work(&mut draft)?;
        let new = draft.new;
        if !new.is_empty() {
            // On a copy, so nothing is half-changed if the writing fails.
            let mut next = state.clone();
            next.issued.extend(new);
            save(&self.path, &next)?;
            *state = next;
        }
        Ok(result)
    }
}

impl fmt::Debug for KubernetesPki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesPki").field("path", &self.path).finish_non_exhaustive()
    }
}

impl State {
    fn create(now: Timestamp) -> Result<Self, PkiError> {
        let authority =
            |name| issue::authority(name, now).map(|(certificate, key)| Pair { certificate, key });
        let service_account = issue::key("service accounts")?;
        Ok(Self {
            version: VERSION,
            // The names that kubeadm gives them.
            kubernetes: authority("kubernetes")?,
            front_proxy: authority("front-proxy-ca")?,
            etcd: authority("etcd-ca")?,
            service_account_key: service_account.serialize_pem(),
            service_account_public: service_account.public_key_pem(),
            issued: BTreeMap::new(),
        })
    }
}

impl Draft<'_> {
    fn push_kubelet_serving(
        &mut self,
        files: &mut Vec<ManagedFile>,
        node_name: &str,
        node_ip: Ipv4Addr,
        now: Timestamp,
    ) -> Result<(), PkiError> {
        let pair = self.issue(node_name, "kubelet-serving", kubelet_serving(node_name, node_ip), now)?;
        push_pair(files, KUBELET_SERVING, &pair);
        Ok(())
    }

    /// The leaf that was issued under this name, if it is still what is wanted and in the first half of its life;
    /// else a new one.
    fn issue(&mut self, node_name: &str, name: &str, leaf: Leaf, now: Timestamp) -> Result<Pair, PkiError> {
        let key = format!("{node_name}/{name}");
        if let Some(issued) = self.new.get(&key).or_else(|| self.state.issued.get(&key))
            && issued.leaf == leaf
            && is_fresh(issued.not_before, issued.not_after, now)
        {
            return Ok(issued.pair.clone());
        }
        let signer = match leaf.signer {
            Signer::Kubernetes => &self.state.kubernetes,
            Signer::FrontProxy => &self.state.front_proxy,
            Signer::Etcd => &self.state.etcd,
        };
        let (not_before, not_after) = (later(name, now, -BACKDATE)?, later(name, now, LEAF_LIFETIME)?);
        let pair = sign(signer, &leaf, not_before, not_after)?;
        self.new.insert(key, Issued { leaf, not_before, not_after, pair: pair.clone() });
        Ok(pair)
    }
}

/// Less than half of its life is over.
fn is_fresh(not_before: Timestamp, not_after: Timestamp, now: Timestamp) -> bool {
    now >= not_before && now.duration_since(not_before) < not_after.duration_since(now)
}

fn sign(signer: &Pair, leaf: &Leaf, not_before: Timestamp, not_after: Timestamp) -> Result<Pair, PkiError> {
    let what = leaf.common_name.as_str();
    let key = issue::key(what)?;
    let subject = issue::subject(what, leaf.organization.as_deref());
    let mut params = issue::params(what, subject, &issue::random_serial()?, not_before, not_after)?;
    for name in &leaf.names {
        let name = name.clone().try_into().map_err(|_| PkiError::Name { name: name.clone() })?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.subject_alt_names.extend(leaf.addresses.iter().copied().map(SanType::IpAddress));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    params.extended_key_usages = match leaf.usage {
        Usage::Server => vec![server],
        Usage::Client => vec![client],
        Usage::Both => vec![server, client],
    };
    let issuer = issue::issuer("cluster CA", &signer.certificate, &signer.key)?;
    let certificate =
        params.signed_by(&key, &issuer).map_err(|source| PkiError::Sign { what: what.to_owned(), source })?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn save(path: &Path, state: &State) -> Result<(), PkiError> {
    let text = serde_json::to_string(state).expect("texts and times become JSON");
    file::write(path, &text)
}

/// The two files at this path without ending.
fn push_pair(files: &mut Vec<ManagedFile>, path: &str, pair: &Pair) {
    files.push(managed(format!("{path}.crt"), &pair.certificate, PUBLIC));
    files.push(managed(format!("{path}.key"), &pair.key, SECRET));
}

fn managed(path: String, content: &str, mode: u32) -> ManagedFile {
    ManagedFile { path, content: content.as_bytes().to_vec(), mode }
}
