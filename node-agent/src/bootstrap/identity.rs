//! The node's key and certificate on its disk: [`Pending`] before joining, [`Identity`] after.
//!
//! Both files are 0600 in the state directory. The pending key is kept until a certificate for it is kept.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use k8sctl_proto::node::v1::JoinResponse;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};

use super::wire::Offer;
use crate::{clock, durable};

/// What went wrong with the identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No key or request.
    #[error("cannot make a key and a certificate request")]
    Make(#[source] rcgen::Error),
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A key and its request, made once and used for every try to join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// PKCS#8.
    #[serde(with = "hex::serde")]
    pub key_der: Vec<u8>,
    /// PKCS#10.
    #[serde(with = "hex::serde")]
    pub csr_der: Vec<u8>,
}

/// Who the node is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Given by the host agent.
    pub cluster_id: String,
    /// Given by the host agent.
    pub node_id: String,
    /// Where the host agent listens.
    pub host_address: String,
    /// DNS name in its certificate.
    pub server_name: String,
    /// The only trusted root.
    #[serde(with = "hex::serde")]
    pub ca_der: Vec<u8>,
    /// PKCS#8.
    #[serde(with = "hex::serde")]
    pub key_der: Vec<u8>,
    /// X.509.
    #[serde(with = "hex::serde")]
    pub certificate_der: Vec<u8>,
    /// When it was received.
    pub issued: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

impl Pending {
    /// A fresh P-256 key.
    pub fn make() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Make)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(IdentityError::Make)?;
        Ok(Self { key_der: key.serialize_der(), csr_der: request.der().to_vec() })
    }
}

impl Identity {
    /// What a join gave.
    pub fn joined(offer: &Offer, pending: Pending, response: JoinResponse, now: SystemTime) -> Self {
        Self {
            cluster_id: offer.cluster_id.clone(),
            node_id: offer.node_id.clone(),
            host_address: offer.host_address.clone(),
            server_name: offer.server_name.clone(),
            ca_der: offer.ca_der.clone(),
            key_der: pending.key_der,
            certificate_der: response.certificate_der,
            issued: now,
            not_after: response.not_after.as_ref().map_or(now, clock::system_time),
        }
    }

    /// The same node with another key and certificate.
    pub fn renewed(
        &self,
        pending: Pending,
        certificate_der: Vec<u8>,
        not_after: SystemTime,
        now: SystemTime,
    ) -> Self {
        Self { key_der: pending.key_der, certificate_der, issued: now, not_after, ..self.clone() }
    }

    /// Whether the certificate has ended.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= self.not_after
    }

    /// Whether it was received by a clock that was right, as far as one that says `now` can tell.
    pub fn is_of_this_clock(&self, now: SystemTime) -> bool {
        self.issued <= now + clock::TOLERANCE && self.issued < self.not_after
    }

    /// When to renew: at half of the certificate's life, ±10 % by `jitter` in −1…1; at once when it was received by
    /// another clock, so that nobody knows how much of its life is over.
    pub fn renew_in(&self, now: SystemTime, jitter: f64) -> Duration {
        if !self.is_of_this_clock(now) {
            return Duration::ZERO;
        }
        let life = self.not_after.duration_since(self.issued).unwrap_or_default();
        let due = self.issued + life.mul_f64(0.5 + 0.05 * jitter.clamp(-1.0, 1.0));
        due.duration_since(now).unwrap_or_default()
    }
}

#[cfg(test)]
impl Identity {
    /// One for tests, with this life.
    pub(crate) fn example(issued: SystemTime, not_after: SystemTime) -> Self {
        Self {
            cluster_id: "c".into(),
            node_id: "n".into(),
            host_address: "127.0.0.1:1".into(),
            server_name: "host".into(),
            ca_der: vec![1],
            key_der: Pending::make().expect("a key").key_der,
            certificate_der: vec![2],
            issued,
            not_after,
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending { .. }")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

impl Store {
    /// Makes nothing yet.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self(state_dir.into())
    }

    /// The kept identity.
    pub fn load(&self) -> Result<Option<Identity>, IdentityError> {
        self.read("identity.json")
    }

    /// Keeps an identity; the pending key has served.
    pub fn save(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.write("identity.json", identity)?;
        let path = self.0.join("pending.json");
        durable::remove(&path).map_err(|source| IdentityError::Write { path, source })
    }

    /// Forgets the identity, so that the next start joins.
    pub fn forget(&self) -> Result<(), IdentityError> {
        let path = self.0.join("identity.json");
        durable::remove(&path).map_err(|source| IdentityError::Write { path, source })
    }

    /// The pending key, made and kept at the first call.
    pub fn pending(&self) -> Result<Pending, IdentityError> {
        match self.read("pending.json") {
            Ok(Some(pending)) => return Ok(pending),
            Ok(None) => {}
            Err(IdentityError::Damaged { .. }) => {
                tracing::warn!("the pending key is damaged; making another")
            }
            Err(error) => return Err(error),
        }
        let pending = Pending::make()?;
        self.write("pending.json", &pending)?;
        Ok(pending)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, IdentityError> {
        let path = self.0.join(name);
        match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IdentityError::Read { path, source }),
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| IdentityError::Damaged { path, source }),
        }
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), IdentityError> {
        let path = self.0.join(name);
        let text = serde_json::to_vec(value).expect("only strings and numbers: always JSON");
        durable::write(&path, &text, 0o600).map_err(|source| IdentityError::Write { path, source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn identity() -> Identity {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Identity::example(at(1_000), at(2_000))
    }

    #[test]
    fn the_pending_key_is_the_same_until_an_identity_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::new(dir.path());
        let first = store.pending().expect("made");
        assert_eq!(first, Store::new(dir.path()).pending().expect("read"));
        let mode = std::fs::metadata(dir.path().join("pending.json")).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
        store.save(&identity()).expect("kept");
        assert_eq!(store.load().expect("read"), Some(identity_like(&store)));
        assert_ne!(first, store.pending().expect("made"));
    }

    fn identity_like(store: &Store) -> Identity {
        store.load().expect("read").expect("there")
    }

    #[test]
    fn renewal_is_due_at_half_life_within_a_tenth() {
        let identity = identity();
        for (jitter, due) in [(0.0, 500), (1.0, 550), (-1.0, 450)] {
            assert_eq!(identity.renew_in(identity.issued, jitter), Duration::from_secs(due));
        }
        assert_eq!(identity.renew_in(identity.not_after, 0.0), Duration::ZERO);
        assert!(identity.is_expired(identity.not_after));
    }

    #[test]
    fn renewal_is_due_when_another_clock_received_the_certificate() {
        let day = Duration::from_secs(24 * 3600);
        let host = SystemTime::UNIX_EPOCH + 100 * day;
        let by_a_clock_of = |issued| Identity::example(issued, host + day);
        // 30 h ahead when it was received, then set back to the host's.
        let ahead = by_a_clock_of(host + day + day / 4);
        for now in [host, ahead.issued] {
            assert!(!ahead.is_of_this_clock(now));
            assert_eq!(ahead.renew_in(now, 0.0), Duration::ZERO);
        }
        let a_little_ahead = by_a_clock_of(host + day / 4);
        assert_eq!(a_little_ahead.renew_in(host, 0.0), Duration::ZERO);
        for issued in [host, host + clock::TOLERANCE, host - day] {
            assert!(by_a_clock_of(issued).is_of_this_clock(host));
        }
        assert!(by_a_clock_of(host).renew_in(host, 0.0) > day / 3);
    }

    #[test]
    fn debug_shows_no_key() {
        let identity = identity();
        assert!(!format!("{identity:?}").contains(&hex::encode(&identity.key_der)[..8]));
    }
}
