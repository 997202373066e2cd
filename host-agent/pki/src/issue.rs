//! Parts that every certificate is made of: keys, serials, validity, authorities.

use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SerialNumber,
};

use crate::PkiError;

/// Lifetime of every authority.
const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// How far an authority's validity reaches back, for machines whose clock is behind.
const AUTHORITY_BACKDATE: SignedDuration = SignedDuration::from_hours(24);

/// A new P-256 key.
pub(crate) fn key(what: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| PkiError::Key { what: what.to_owned(), source })
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    Ok(bytes)
}

/// A random serial of 16 bytes, positive and of full length.
pub(crate) fn random_serial() -> Result<[u8; 16], PkiError> {
    let mut bytes = random::<16>()?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(bytes)
}

/// Parameters of a certificate with this subject, serial and validity, and nothing else.
pub(crate) fn params(
    what: &str,
    subject: DistinguishedName,
    serial: &[u8],
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::new())
        .map_err(|source| PkiError::Sign { what: what.to_owned(), source })?;
    params.distinguished_name = subject;
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.not_before = SystemTime::from(whole_second(what, not_before)?).into();
    params.not_after = SystemTime::from(whole_second(what, not_after)?).into();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Certificates have no parts of seconds.
pub(crate) fn whole_second(what: &str, time: Timestamp) -> Result<Timestamp, PkiError> {
    Timestamp::from_second(time.as_second()).map_err(|_| PkiError::Time { what: what.to_owned() })
}

/// `time + by`, or an error instead of an overflow.
pub(crate) fn later(what: &str, time: Timestamp, by: SignedDuration) -> Result<Timestamp, PkiError> {
    time.checked_add(by).map_err(|_| PkiError::Time { what: what.to_owned() })
}

/// A subject of a common name and at most one organization.
pub(crate) fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// A new authority that signs leaves alone: certificate and key as PEM.
pub(crate) fn authority(common_name: &str, now: Timestamp) -> Result<(String, String), PkiError> {
    let key = key(common_name)?;
    let mut params = params(
        common_name,
        subject(common_name, None),
        &random_serial()?,
        later(common_name, now, -AUTHORITY_BACKDATE)?,
        later(common_name, now, AUTHORITY_LIFETIME)?,
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate =
        params.self_signed(&key).map_err(|source| PkiError::Sign { what: common_name.to_owned(), source })?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// The signer of a stored authority.
pub(crate) fn issuer(
    what: &str,
    certificate_pem: &str,
    key_pem: &str,
) -> Result<Issuer<'static, KeyPair>, PkiError> {
    let unusable = |source| PkiError::Stored { what: what.to_owned(), source };
    let key = KeyPair::from_pem(key_pem).map_err(unusable)?;
    Issuer::from_ca_cert_pem(certificate_pem, key).map_err(unusable)
}
