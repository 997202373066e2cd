//! How the agent gets its certificate: a secret over virtio-serial, proof of it over TLS, a certificate back.
//!
//! [`Bootstrap::identity`] returns the kept identity when it is still valid, and joins otherwise. Key and
//! request are on disk before the first `Join`, so every retry, also after a crash, uses the same bytes.
//! Called by session; it dials no session itself.

pub mod identity;
pub mod port;
pub mod proof;
pub mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use k8sctl_proto::node::v1::join_service_client::JoinServiceClient;
use k8sctl_proto::node::v1::{JoinRequest, JoinResponse};
use tonic::transport::Channel;

use crate::clock;
use crate::machine::Machine;
use crate::retry::{self, Backoff};
use identity::{Identity, IdentityError, Pending, Store};
use port::{PortError, SecretPort};
use wire::Offer;

/// Protocol that this agent speaks, the major number: with another one nobody joins.
pub const PROTOCOL: u32 = k8sctl_types::protocol::NODE.major;
/// Longest that one `Join` call may take.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);
/// How often one offer is used again when the host agent cannot be reached, before a new one is asked for.
const TRIES_PER_OFFER: u32 = 3;

/// A connection to the host agent.
#[derive(Debug)]
pub struct Connection {
    /// The HTTP/2 channel.
    pub channel: Channel,
    /// Keying material that only the two ends of this TLS session know.
    pub exporter: Vec<u8>,
}

/// The host agent could not be reached, or is not the one that it should be.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to the host agent at {address}")]
pub struct DialError {
    /// `192.168.122.1:7443`
    pub address: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Opens connections to the host agent. Real: TLS 1.3 with only the given CA trusted.
#[async_trait]
pub trait Dialer: Send + Sync {
    /// Dials without a certificate, to join. Certificates are judged by the offer's time.
    async fn dial_to_join(&self, offer: &Offer) -> Result<Connection, DialError>;
    /// Dials with the node's certificate.
    async fn dial(&self, identity: &Identity) -> Result<Connection, DialError>;
}

/// One try to join failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No secret.
    #[error("cannot get a join secret")]
    Port(#[from] PortError),
    /// No connection.
    #[error("cannot join")]
    Dial(#[from] DialError),
    /// The host agent refused.
    #[error("the host agent refused to join this node ({:?}): {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
    /// Key or certificate could not be made or kept.
    #[error("cannot keep the node's identity")]
    Identity(#[from] IdentityError),
}

/// Gets and keeps the node's identity.
pub struct Bootstrap {
    store: Store,
    port: Box<dyn SecretPort>,
    dialer: Arc<dyn Dialer>,
    machine: Machine,
    step_clock: bool,
    sequence: u64,
}

impl Bootstrap {
    /// Nothing is read or dialled yet.
    pub fn new(
        store: Store,
        port: Box<dyn SecretPort>,
        dialer: Arc<dyn Dialer>,
        machine: Machine,
        step_clock: bool,
    ) -> Self {
        Self { store, port, dialer, machine, step_clock, sequence: 0 }
    }

    /// Where the identity is kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The kept identity, or a new one by joining; tries forever.
    pub async fn identity(&mut self) -> Identity {
        match self.store.load() {
            Ok(Some(identity)) if !identity.is_expired(SystemTime::now()) => return identity,
            Ok(Some(_)) => tracing::warn!("the node's certificate has expired; joining again"),
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %k8sctl_rpc::chain(&error), "cannot read the identity"),
        }
        self.join().await
    }

    /// Joins with a fresh secret, whatever is kept; tries forever.
    pub async fn join(&mut self) -> Identity {
        let mut backoff = Backoff::new(retry::JOIN);
        loop {
            match self.try_join().await {
                Ok(identity) => return identity,
                Err(error) => {
                    tracing::warn!(error = %k8sctl_rpc::chain(&error), "joining failed");
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    /// Asks for one secret and joins with it.
    pub async fn try_join(&mut self) -> Result<Identity, JoinError> {
        let pending = self.store.pending()?;
        let mut request = wire::Request {
            version: wire::VERSION,
            boot_id: self.machine.boot_id.clone(),
            machine_uuid: self.machine.machine_uuid.clone(),
            sequence: self.sequence,
        };
        let exchanged = self.port.exchange(&mut request).await;
        self.sequence = request.sequence;
        let offer = exchanged?;
        tracing::info!(node.id = offer.node_id, host.address = offer.host_address, "got a join secret");
        self.follow_host_clock(&offer);
        let mut backoff = Backoff::new(retry::JOIN);
        let response = loop {
            match self.call_join(&offer, &pending).await {
                Ok(response) => break response,
                Err(error) if is_transient(&error) && backoff.failures() + 1 < TRIES_PER_OFFER => {
                    tokio::time::sleep(backoff.next_pause()).await;
                }
                Err(error) => return Err(error),
            }
        };
        let identity = Identity::joined(&offer, pending, response, SystemTime::now());
        self.store.save(&identity)?;
        tracing::info!(node.id = identity.node_id, "joined");
        Ok(identity)
    }

    async fn call_join(&self, offer: &Offer, pending: &Pending) -> Result<JoinResponse, JoinError> {
        let Connection { channel, exporter } = self.dialer.dial_to_join(offer).await?;
        let mac = proof::mac(&offer.secret, &exporter, &offer.node_id, &pending.csr_der);
        let mut request = tonic::Request::new(JoinRequest {
            node_id: offer.node_id.clone(),
            machine_uuid: self.machine.machine_uuid.clone(),
            boot_id: self.machine.boot_id.clone(),
            csr_der: pending.csr_der.clone(),
            mac,
            protocol: PROTOCOL,
        });
        request.set_timeout(JOIN_DEADLINE);
        let call = JoinServiceClient::new(channel).join(request).await;
        Ok(call.map_err(|status| JoinError::Refused(Box::new(status)))?.into_inner())
    }

    fn follow_host_clock(&self, offer: &Offer) {
        let Some(host_time) = offer.host_time else { return };
        let offset = clock::offset_millis(SystemTime::now(), host_time);
        if !self.step_clock || !clock::needs_step(offset) {
            return;
        }
        match clock::step_to(host_time) {
            Ok(()) => tracing::warn!(clock.offset_millis = offset, "stepped the clock to the host's"),
            Err(error) => tracing::warn!(error = %k8sctl_rpc::chain(&error), "the clock is off"),
        }
    }
}

/// Whether the same offer may work a moment later.
fn is_transient(error: &JoinError) -> bool {
    match error {
        JoinError::Dial(_) => true,
        JoinError::Refused(status) => {
            matches!(
                status.code(),
                tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::ResourceExhausted
            )
        }
        JoinError::Port(_) | JoinError::Identity(_) => false,
    }
}
