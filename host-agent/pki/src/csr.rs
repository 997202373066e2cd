//! Certificate requests of node agents. Of a request only the public key is taken; names, roles and extensions that
//! it asks for are not even read.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::prelude::FromDer as _;

/// Longest request, in bytes: an honest one has some hundreds.
const LIMIT: usize = 16 * 1024;

/// A request cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is too long.
    #[error("the certificate request is longer than {LIMIT} bytes")]
    Long,
    /// It is no PKCS#10.
    #[error("the certificate request is no DER-encoded PKCS#10")]
    Form,
    /// Its sender does not have the key.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// Its key is of another kind.
    #[error("the key of the certificate request is neither P-256 nor Ed25519")]
    KeyType,
}

/// A request whose sender has the private key, which is of a kind that we sign.
#[derive(Clone, Debug)]
pub struct NodeCsr {
    pub(crate) public_key: SubjectPublicKeyInfo,
    hash: [u8; 32],
}

impl NodeCsr {
    /// Checks a request.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > LIMIT {
            return Err(CsrError::Long);
        }
        let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Form)?;
        if !rest.is_empty() {
            return Err(CsrError::Form);
        }
        let key = &csr.certification_request_info.subject_pki;
        let parameter = key.algorithm.parameters.as_ref().and_then(|parameter| parameter.as_oid().ok());
        let algorithm = &key.algorithm.algorithm;
        let known = (*algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && parameter == Some(OID_EC_P256))
            || *algorithm == OID_SIG_ED25519;
        if !known {
            return Err(CsrError::KeyType);
        }
        csr.verify_signature().map_err(|_| CsrError::Signature)?;
        let public_key = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::KeyType)?;
        Ok(Self { public_key, hash: sha256(der) })
    }

    /// SHA-256 of the whole request.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
