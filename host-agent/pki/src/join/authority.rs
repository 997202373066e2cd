//! Drives the join decision: secrets in memory, records in the table, keys in the CA. One for all clusters.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_lc_rs::hmac;
use host_store::Store;
use jiff::Timestamp;
use k8sctl_proto::node::v1::JoinRequest;
use k8sctl_rpc::tls::Exporter;
use rusqlite::Connection;
use secrecy::{ExposeSecret as _, SecretSlice};

use super::decide::{Attempt, Decision, Grant, Refusal, TokenRecord, TokenState};
use super::rate::RateLimit;
use super::{
    Authorities, JoinError, JoinEvent, JoinTeller, Machines, PROTOCOL, TOKEN_LIFETIME, can_be_node_id, table,
};
use crate::ca::{IdentityError, NODE_LIFETIME, NodeCa, NodeIdentity, SignedNode, node_identity};
use crate::csr::{NodeCsr, sha256};
use crate::issue;

/// Keeps this MAC apart from every other use of the secret.
const LABEL: &[u8] = b"k8sctl-join-v1";

/// Attempts to join of one address: at once, and a second after that.
const ADDRESS_RATE: (f64, f64) = (10.0, 1.0);
/// Certificates of one node, which are a signature and writes to the disk each: at once, and a second after that. An
/// honest one needs two a day.
const NODE_RATE: (f64, f64) = (10.0, 0.1);

/// Tells the time; replaced in tests.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
/// Called between the steps of giving a certificate; does nothing but in tests.
type Points = Arc<dyn Fn(&str) + Send + Sync>;

/// Gives out join secrets and node certificates, and knows which certificates are good.
pub struct JoinAuthority {
    store: Store,
    authorities: Arc<dyn Authorities>,
    machines: Arc<dyn Machines>,
    secrets: Mutex<HashMap<String, SecretSlice<u8>>>,
    address_rate: Mutex<RateLimit<IpAddr>>,
    node_rate: Mutex<RateLimit<String>>,
    events: Option<JoinTeller>,
    clock: Clock,
    points: Points,
}

impl JoinAuthority {
    /// An authority on this store, which must have been opened with [`super::SCHEMA`]. It has no secrets yet: those
    /// that an earlier process gave out are void.
    pub fn new(store: Store, authorities: Arc<dyn Authorities>, machines: Arc<dyn Machines>) -> Self {
        Self {
            store,
            authorities,
            machines,
            secrets: Mutex::default(),
            address_rate: Mutex::new(RateLimit::new(ADDRESS_RATE.0, ADDRESS_RATE.1)),
            node_rate: Mutex::new(RateLimit::new(NODE_RATE.0, NODE_RATE.1)),
            events: None,
            clock: Arc::new(Timestamp::now),
            points: Arc::new(|_| ()),
        }
    }

    /// The same authority, telling of joins, refusals and replaced certificates.
    pub fn with_events(mut self, events: JoinTeller) -> Self {
        self.events = Some(events);
        self
    }

    /// The same authority with another clock.
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The same authority, calling this with the name of each point at which a test may end the process.
    pub fn with_points(mut self, points: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.points = Arc::new(points);
        self
    }

    /// The same authority with so many certificates for one node at once, and so many a second after that.
    pub fn with_node_rate(mut self, burst: f64, per_second: f64) -> Self {
        self.node_rate = Mutex::new(RateLimit::new(burst, per_second));
        self
    }

    /// A fresh secret for the VM of this node, good for ten minutes and one key. It voids the previous one.
    pub async fn offer(
        &self,
        cluster_id: &str,
        node_id: &str,
        machine_uuid: &str,
    ) -> Result<SecretSlice<u8>, JoinError> {
        let secret = SecretSlice::from(issue::random::<32>()?.to_vec());
        let record = TokenRecord {
            cluster_id: cluster_id.to_owned(),
            machine_uuid: machine_uuid.to_owned(),
            secret_hash: sha256(secret.expose_secret()),
            expires: issue::later("a join secret", (self.clock)(), TOKEN_LIFETIME)?,
            state: TokenState::Unused,
        };
        let node = node_id.to_owned();
        if !self.call(move |connection| table::offer(connection, &node, &record)).await? {
            return Err(JoinError::Refused { node_id: node_id.to_owned(), refusal: Refusal::Removed });
        }
        // Two offers at once may end here in another order than in the table. Then no proof matches, and the agent
        // asks again.
        lock(&self.secrets).insert(node_id.to_owned(), secret.clone());
        Ok(secret)
    }

    /// A certificate for the peer of this TLS session, if it proves that it has the node's secret. The same request
    /// gets the same certificate again until the node came in with it.
    pub async fn join(
        &self,
        request: &JoinRequest,
        exporter: &Exporter,
        peer: SocketAddr,
    ) -> Result<SignedNode, JoinError> {
        let result = self.try_join(request, exporter, peer).await;
        let node_id = request.node_id.as_str();
        match &result {
            Ok(signed) => {
                let (serial, address) = (&signed.serial, peer.ip());
                if self.tell(JoinEvent::Joined { node_id: node_id.to_owned(), peer: address }) {
                    tracing::info!(node.id = node_id, peer.address = %peer, certificate.serial = serial, "node joined");
                } else {
                    tracing::debug!(node.id = node_id, peer.address = %peer, certificate.serial = serial, "node joined");
                }
            }
            Err(JoinError::Refused { refusal, .. }) => {
                let named = can_be_node_id(node_id).then(|| node_id.to_owned());
                let refused =
                    JoinEvent::Refused { node_id: named.clone(), peer: peer.ip(), refusal: *refusal };
                if self.tell(refused) {
                    let (reason, second_use) = (refusal.to_string(), refusal.is_second_use());
                    let node_id = named.unwrap_or_default();
                    tracing::warn!(node.id = node_id, peer.address = %peer, reason, second_use, "join refused");
                }
            }
            // The service logs what else went wrong.
            Err(_) => {}
        }
        result
    }

    async fn try_join(
        &self,
        request: &JoinRequest,
        exporter: &Exporter,
        peer: SocketAddr,
    ) -> Result<SignedNode, JoinError> {
        // What no node can be called is not carried further.
        let sound = can_be_node_id(&request.node_id);
        let node_id = if sound { request.node_id.clone() } else { "without a valid id".to_owned() };
        let refused = |refusal| JoinError::Refused { node_id: node_id.clone(), refusal };
        if !lock(&self.address_rate).allow(peer.ip(), Instant::now()) {
            return Err(refused(Refusal::Rate));
        }
        if request.protocol != PROTOCOL {
            return Err(refused(Refusal::Protocol));
        }
        if !sound {
            return Err(refused(Refusal::Proof));
        }
        let proven = self.proven_secret(request, exporter);
        if proven.is_some() && !self.may_get(&node_id) {
            return Err(refused(Refusal::Rate));
        }
        let csr = NodeCsr::parse(&request.csr_der).ok();
        // Only a peer with the secret makes the host look at its VMs.
        let machine_running =
            proven.is_some() && self.machines.is_ours_running(&node_id, &request.machine_uuid).await;
        let attempt = Attempt {
            revoked: false, // read together with the token
            proven,
            machine_uuid: request.machine_uuid.clone(),
            machine_running,
            csr_hash: csr.as_ref().map(NodeCsr::hash),
        };
        let now = (self.clock)();
        let grant = Grant {
            csr_hash: csr.as_ref().map(NodeCsr::hash).unwrap_or_default(),
            serial: issue::random_serial()?,
            issued: issue::whole_second("a node", now)?,
            certificate: None,
        };
        let node = node_id.clone();
        let (record, decision) =
            self.call(move |connection| table::decide(connection, &node, &attempt, &grant, now)).await?;
        match (decision, record, csr) {
            (Decision::Finish(grant), Some(record), Some(csr)) => {
                (self.points)("after-burn-token");
                let ca = self.node_ca(&record.cluster_id)?;
                let signed = ca.sign_node(&node_id, &csr, &grant.serial, grant.issued)?;
                (self.points)("after-sign-certificate");
                let (node, certificate) = (node_id.clone(), signed.certificate_der.clone());
                let stored = self.call(move |c| table::certify(c, &node, &grant, &certificate)).await?;
                (self.points)("after-store-certificate");
                let certificate_der = stored.ok_or_else(|| refused(Refusal::Used))?;
                Ok(SignedNode { certificate_der, ..signed })
            }
            (Decision::Again(certificate_der, issued), _, _) => {
                let serial =
                    node_identity(&certificate_der).map(|identity| identity.serial).unwrap_or_default();
                Ok(SignedNode {
                    certificate_der,
                    serial,
                    not_after: issue::later(&node_id, issued, NODE_LIFETIME)?,
                })
            }
            (Decision::Refuse(refusal), _, _) => Err(refused(refusal)),
            (Decision::Burn | Decision::Finish(_), _, _) => Err(refused(Refusal::Proof)),
        }
    }

    /// SHA-256 of the node's secret, if the request proves that the peer has it. The comparison takes the same time
    /// wherever the MACs differ.
    fn proven_secret(&self, request: &JoinRequest, exporter: &Exporter) -> Option<[u8; 32]> {
        let secret = lock(&self.secrets).get(&request.node_id).cloned()?;
        let message = [LABEL, exporter, request.node_id.as_bytes(), &sha256(&request.csr_der)].concat();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret());
        hmac::verify(&key, &message, &request.mac).ok().map(|()| sha256(secret.expose_secret()))
    }

    /// The node that a certificate stands for, if it is valid, of our CA, and still good.
    pub async fn identify(&self, certificate_der: &[u8]) -> Result<NodeIdentity, IdentifyError> {
        let claimed = node_identity(certificate_der)?;
        let ca = self.node_ca(&claimed.cluster_id)?;
        let identity = ca.verify_node(certificate_der, (self.clock)())?;
        let (node, serial) = (identity.node_id.clone(), identity.serial.clone());
        if self.call(move |connection| table::is_good(connection, &node, &serial)).await? {
            return Ok(identity);
        }
        Err(self.not_current(&identity).into())
    }

    /// A node opened its session with this certificate: its join token is closed, and its older certificate ends.
    pub async fn session_started(&self, identity: &NodeIdentity) -> Result<(), JoinError> {
        let (node, serial) = (identity.node_id.clone(), identity.serial.clone());
        if !self.call(move |connection| table::session(connection, &node, &serial)).await? {
            return Err(self.not_current(identity));
        }
        lock(&self.secrets).remove(&identity.node_id);
        Ok(())
    }

    /// A successor for the caller's certificate. The old one is good until the new one is first used.
    pub async fn renew(&self, identity: &NodeIdentity, csr_der: &[u8]) -> Result<SignedNode, JoinError> {
        if !self.may_get(&identity.node_id) {
            let node_id = identity.node_id.clone();
            return Err(JoinError::Refused { node_id, refusal: Refusal::Rate });
        }
        let csr = NodeCsr::parse(csr_der)
            .map_err(|source| JoinError::Csr { node_id: identity.node_id.clone(), source })?;
        let ca = self.node_ca(&identity.cluster_id)?;
        let now = issue::whole_second("a node", (self.clock)())?;
        let signed = ca.sign_node(&identity.node_id, &csr, &issue::random_serial()?, now)?;
        let (node, serial, next) = (identity.node_id.clone(), identity.serial.clone(), signed.serial.clone());
        if !self.call(move |connection| table::renewed(connection, &node, &serial, &next)).await? {
            return Err(self.not_current(identity));
        }
        Ok(signed)
    }

    /// Ends a node for ever: its secret, its certificates, and every later offer. For a node that is removed; a new
    /// node of the same name has another id.
    pub async fn revoke(&self, node_id: &str) -> Result<(), JoinError> {
        lock(&self.secrets).remove(node_id);
        let (node, now) = (node_id.to_owned(), (self.clock)());
        self.call(move |connection| table::revoke(connection, &node, now)).await
    }

    /// Whether a node may get a certificate by now, from whatever address.
    fn may_get(&self, node_id: &str) -> bool {
        lock(&self.node_rate).allow(node_id.to_owned(), Instant::now())
    }

    fn not_current(&self, identity: &NodeIdentity) -> JoinError {
        let NodeIdentity { node_id, serial, .. } = identity.clone();
        if self.tell(JoinEvent::Replaced { node_id: node_id.clone(), serial: serial.clone() }) {
            tracing::warn!(
                node.id = node_id,
                certificate.serial = serial,
                "a replaced or revoked certificate was shown"
            );
        }
        JoinError::NotCurrent { node_id, serial }
    }

    fn node_ca(&self, cluster_id: &str) -> Result<Arc<NodeCa>, JoinError> {
        let found = self.authorities.node_ca(cluster_id)?;
        found.ok_or_else(|| JoinError::NoCluster { cluster_id: cluster_id.to_owned() })
    }

    /// `false` means that it is not to be told.
    fn tell(&self, event: JoinEvent) -> bool {
        self.events.as_ref().is_some_and(|events| events.tell(event))
    }

    async fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<R, JoinError> + Send + 'static,
    ) -> Result<R, JoinError> {
        self.store.call(work).await
    }
}

impl fmt::Debug for JoinAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinAuthority").finish_non_exhaustive()
    }
}

/// A certificate opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum IdentifyError {
    /// It is no valid certificate of a node.
    #[error("the certificate is refused")]
    Certificate(#[from] IdentityError),
    /// It is, but it is no longer good; or the check failed.
    #[error("the certificate cannot be accepted")]
    Join(#[from] JoinError),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is one call on a map, so a panic leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
