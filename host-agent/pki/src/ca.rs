//! The node CA: one authority a cluster. It signs the certificates of node agents (clients) and of the host agent's
//! node port (server), and tells which node a certificate stands for.
//!
//! It says who somebody is, not whether they may still come: that is the [`crate::join`] authority's business.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rcgen::{ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::csr::NodeCsr;
use crate::issue::{self, later};
use crate::{PkiError, file};

/// Lifetime of a node certificate.
pub const NODE_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// Lifetime of the node port's certificate.
pub const SERVER_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How far a leaf's validity reaches back, for a peer whose clock is behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
const SCHEME: &str = "k8sctl://";
const CERTIFICATE_END: &str = "-----END CERTIFICATE-----\n";

/// The authority of one cluster.
pub struct NodeCa {
    cluster_id: String,
    server_name: String,
    certificate_der: Vec<u8>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The node port's certificate with its key.
pub struct ServerIdentity {
    /// Certificate, DER.
    pub certificate_der: Vec<u8>,
    /// PKCS#8 key, DER.
    pub key_der: Vec<u8>,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// A node certificate that was just signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNode {
    /// Certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Serial in hex.
    pub serial: String,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// The node that a certificate stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Cluster.
    pub cluster_id: String,
    /// Node.
    pub node_id: String,
    /// Serial of the certificate in hex.
    pub serial: String,
}

/// A certificate stands for no node of this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is no certificate.
    #[error("it is no DER-encoded certificate")]
    Form,
    /// Another authority signed it.
    #[error("it was not signed by this cluster's CA")]
    Issuer,
    /// Its time is over or has not begun.
    #[error("it is expired or not valid yet")]
    Validity,
    /// It is for something else than being a node.
    #[error("it is no node certificate")]
    Purpose,
    /// Its name is not a node's.
    #[error("it does not name one node")]
    Name,
    /// It names a node of another cluster.
    #[error("it names a node of another cluster")]
    Cluster,
}

impl NodeCa {
    /// A new authority.
    pub fn create(cluster_id: &str, now: Timestamp) -> Result<Self, PkiError> {
        check_label(cluster_id)?;
        let (certificate, key) = issue::authority(&format!("k8sctl node CA {cluster_id}"), now)?;
        Self::from_pem(cluster_id, &format!("{certificate}{key}"))
    }

    /// An authority from what [`NodeCa::to_pem`] gave.
    pub fn from_pem(cluster_id: &str, pem: &str) -> Result<Self, PkiError> {
        check_label(cluster_id)?;
        let what = format!("node CA of cluster {cluster_id}");
        let unusable =
            || PkiError::Stored { what: what.clone(), source: rcgen::Error::CouldNotParseCertificate };
        let split = pem.find(CERTIFICATE_END).ok_or_else(unusable)? + CERTIFICATE_END.len();
        let (certificate_pem, key_pem) = pem.split_at(split);
        let certificate_der =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| unusable())?.to_vec();
        Ok(Self {
            cluster_id: cluster_id.to_owned(),
            server_name: format!("host.{cluster_id}.k8sctl.internal"),
            certificate_der,
            pem: pem.to_owned(),
            issuer: issue::issuer(&what, certificate_pem, key_pem)?,
        })
    }

    /// Certificate and key. Secret.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// The authority kept in this file, mode 0600; made now if there is none.
    pub fn open(path: &Path, cluster_id: &str) -> Result<Self, PkiError> {
        if let Some(pem) = file::read(path)? {
            return Self::from_pem(cluster_id, &pem);
        }
        let created = Self::create(cluster_id, Timestamp::now())?;
        file::write(path, created.to_pem())?;
        Ok(created)
    }

    /// The cluster.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The authority's certificate: the only root that a node agent trusts.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// DNS name in the node port's certificate.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// A new certificate for the node port on the bridge's address.
    pub fn server_certificate(&self, address: IpAddr, now: Timestamp) -> Result<ServerIdentity, PkiError> {
        let name = self.server_name.as_str();
        let not_after = later(name, now, SERVER_LIFETIME)?;
        let key = issue::key(name)?;
        let mut params = issue::params(
            name,
            issue::subject(name, None),
            &issue::random_serial()?,
            later(name, now, -BACKDATE)?,
            not_after,
        )?;
        params.subject_alt_names = vec![SanType::DnsName(dns(name)?), SanType::IpAddress(address)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|source| PkiError::Sign { what: name.to_owned(), source })?;
        Ok(ServerIdentity {
            certificate_der: certificate.der().to_vec(),
            key_der: key.serialize_der(),
            not_after: issue::whole_second(name, not_after)?,
        })
    }

    /// Signs a certificate for a node. Everything but the public key comes from us. Given the same serial and time
    /// it is the same certificate, but for the randomness in the signature.
    pub(crate) fn sign_node(
        &self,
        node_id: &str,
        csr: &NodeCsr,
        serial: &[u8; 16],
        issued: Timestamp,
    ) -> Result<SignedNode, PkiError> {
        check_label(node_id)?;
        let not_after = later(node_id, issued, NODE_LIFETIME)?;
        let mut params = issue::params(
            node_id,
            rcgen::DistinguishedName::new(),
            serial,
            later(node_id, issued, -BACKDATE)?,
            not_after,
        )?;
        let uri = format!("{SCHEME}{}/node/{node_id}", self.cluster_id);
        let uri = uri.clone().try_into().map_err(|_| PkiError::Name { name: uri })?;
        let name = dns(&format!("{node_id}.node.k8sctl.internal"))?;
        params.subject_alt_names = vec![SanType::URI(uri), SanType::DnsName(name)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params
            .signed_by(&csr.public_key, &self.issuer)
            .map_err(|source| PkiError::Sign { what: format!("node {node_id}"), source })?;
        Ok(SignedNode {
            certificate_der: certificate.der().to_vec(),
            serial: hex::encode(serial),
            not_after: issue::whole_second(node_id, not_after)?,
        })
    }

    /// The node that a certificate stands for, if it is ours, valid now and a node's.
    pub fn verify_node(&self, certificate_der: &[u8], now: Timestamp) -> Result<NodeIdentity, IdentityError> {
        let (_, authority) =
            X509Certificate::from_der(&self.certificate_der).map_err(|_| IdentityError::Form)?;
        let (rest, certificate) =
            X509Certificate::from_der(certificate_der).map_err(|_| IdentityError::Form)?;
        if !rest.is_empty() {
            return Err(IdentityError::Form);
        }
        certificate.verify_signature(Some(authority.public_key())).map_err(|_| IdentityError::Issuer)?;
        let validity = certificate.validity();
        if now.as_second() < validity.not_before.timestamp()
            || now.as_second() > validity.not_after.timestamp()
        {
            return Err(IdentityError::Validity);
        }
        let usage = certificate.extended_key_usage().ok().flatten().ok_or(IdentityError::Purpose)?;
        if certificate.is_ca() || !usage.value.client_auth || usage.value.server_auth || usage.value.any {
            return Err(IdentityError::Purpose);
        }
        let identity = identity(&certificate)?;
        if identity.cluster_id != self.cluster_id {
            return Err(IdentityError::Cluster);
        }
        Ok(identity)
    }
}

impl fmt::Debug for NodeCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCa").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// What a certificate claims, unchecked: for finding the authority to check it with.
pub fn node_identity(certificate_der: &[u8]) -> Result<NodeIdentity, IdentityError> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).map_err(|_| IdentityError::Form)?;
    identity(&certificate)
}

fn identity(certificate: &X509Certificate<'_>) -> Result<NodeIdentity, IdentityError> {
    let names = certificate.subject_alternative_name().ok().flatten().ok_or(IdentityError::Name)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(IdentityError::Name);
    };
    let (cluster_id, node_id) =
        uri.strip_prefix(SCHEME).and_then(|path| path.split_once("/node/")).ok_or(IdentityError::Name)?;
    if check_label(cluster_id).is_err() || check_label(node_id).is_err() {
        return Err(IdentityError::Name);
    }
    Ok(NodeIdentity {
        cluster_id: cluster_id.to_owned(),
        node_id: node_id.to_owned(),
        serial: hex::encode(certificate.raw_serial()),
    })
}

fn dns(name: &str) -> Result<rcgen::string::Ia5String, PkiError> {
    name.to_owned().try_into().map_err(|_| PkiError::Name { name: name.to_owned() })
}

/// Ids of clusters and nodes are DNS labels.
fn check_label(name: &str) -> Result<(), PkiError> {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let well_formed = (1..=63).contains(&name.len())
        && name.bytes().all(inside)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if well_formed { Ok(()) } else { Err(PkiError::Name { name: name.to_owned() }) }
}
