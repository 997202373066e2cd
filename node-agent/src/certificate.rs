//! How long a certificate on the disk is good: of X.509, only the two times are read.
//!
//! Used by health, which reports it, and by step `files`, which lets an expired one give way.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// From when until when a certificate is good, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not good before.
    pub not_before: SystemTime,
    /// Not good after.
    pub not_after: SystemTime,
}

impl Validity {
    /// Of the first certificate in a PEM text: the leaf's. `None` means: there is none that can be read.
    pub fn of_pem(pem: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }

    /// Whether it is over.
    pub fn is_over(&self, now: SystemTime) -> bool {
        now > self.not_after
    }
}

/// Times before 1970 count as 1970.
fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// A self-signed certificate of 127.0.0.1 and its key for tests, PEM, good until so many seconds from now.
#[cfg(test)]
pub fn example(seconds_left: i64) -> (String, String) {
    let now = UNIX_EPOCH + Duration::from_secs(jiff::Timestamp::now().as_second() as u64);
    let day = Duration::from_secs(24 * 3600);
    let end = if seconds_left < 0 {
        now - Duration::from_secs(seconds_left.unsigned_abs())
    } else {
        now + Duration::from_secs(seconds_left.unsigned_abs())
    };
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())];
    params.not_before = (end - 365 * day).into();
    params.not_after = end.into();
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_certificate_are_read() {
        let (pem, _) = example(3600);
        let validity = Validity::of_pem(pem.as_bytes()).expect("readable");
        let now = SystemTime::now();
        assert!(validity.not_before < now && !validity.is_over(now));
        assert!(validity.is_over(now + Duration::from_secs(3700)));
        let (pem, _) = example(-10);
        assert!(Validity::of_pem(pem.as_bytes()).expect("readable").is_over(now));
    }

    #[test]
    fn what_is_no_certificate_has_no_times() {
        let torn = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n";
        for text in ["", "-----BEGIN", torn] {
            assert_eq!(Validity::of_pem(text.as_bytes()), None, "{text}");
        }
    }
}
