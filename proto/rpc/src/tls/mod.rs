//! TLS 1.3 between node agent and host agent.
//!
//! Both ends export the same 32 bytes of keying material: the join proof is made over them, which binds it to this
//! one session and defeats a relay.

pub mod client;
pub mod server;

pub use client::{Identity, connect, connect_at, connect_from};
pub use server::{Connection, Incoming, Owner, PeerInfo, ServerCertificate, incoming, server_config};

/// Label of the exporter that join proofs are made over.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-k8sctl-join";
/// Protocol that both sides offer.
const ALPN: &[u8] = b"h2";

/// Keying material of one TLS session.
pub type Exporter = [u8; 32];

/// A TLS endpoint could not be configured, or a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate authority's certificate is unusable.
    #[error("the CA certificate is unusable")]
    Authority(#[source] rustls::Error),
    /// No verifier could be made for it.
    #[error("no certificates can be verified with this CA")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The own certificate or key is unusable.
    #[error("the certificate and its key are unusable")]
    Identity(#[source] rustls::Error),
    /// The key is in no known form.
    #[error("the private key is no PKCS#8, SEC1 or PKCS#1 key: {0}")]
    Key(&'static str),
    /// The library refuses the protocol version.
    #[error("TLS 1.3 cannot be configured")]
    Protocol(#[source] rustls::Error),
    /// The address to dial is malformed.
    #[error("{address:?} is no address (expected the form 192.168.122.1:7443)")]
    Address {
        /// What was given.
        address: String,
    },
    /// The name expected in the server's certificate is malformed.
    #[error("{name:?} is no DNS name")]
    ServerName {
        /// What was given.
        name: String,
    },
    /// The peer could not be reached.
    #[error("cannot connect to {address}")]
    Connect {
        /// Who was dialled.
        address: std::net::SocketAddr,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The peer was reached, but is not who it should be, or refused us.
    #[error("the TLS handshake with {address} failed")]
    Handshake {
        /// Who was dialled.
        address: std::net::SocketAddr,
        /// TLS's reason.
        #[source]
        source: std::io::Error,
    },
    /// Connection and handshake took too long.
    #[error("no connection to {address} within {limit:?}")]
    Timeout {
        /// Who was dialled.
        address: std::net::SocketAddr,
        /// The deadline.
        limit: std::time::Duration,
    },
    /// The session gives no keying material.
    #[error("the TLS session exports no keying material")]
    Exporter(#[source] rustls::Error),
    /// HTTP/2 could not be started on the connection.
    #[error("HTTP/2 with {address} failed")]
    Http {
        /// Who was dialled.
        address: std::net::SocketAddr,
        /// The transport's reason.
        #[source]
        source: tonic::transport::Error,
    },
}

fn roots(ca_der: &[u8]) -> Result<std::sync::Arc<rustls::RootCertStore>, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_der.to_vec().into()).map_err(TlsError::Authority)?;
    Ok(std::sync::Arc::new(roots))
}

fn private_key(der: &[u8]) -> Result<rustls::pki_types::PrivateKeyDer<'static>, TlsError> {
    der.to_vec().try_into().map_err(TlsError::Key)
}
