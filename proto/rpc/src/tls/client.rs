//! The node agent's dialler: one TLS 1.3 connection to the host agent, whose certificate must come from one given
//! CA. The channel never reconnects by itself, so the exporter always belongs to the connection in use; whoever
//! needs a new connection dials again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{ALPN, EXPORTER_LABEL, Exporter, TlsError, private_key, roots};
use crate::limits;
use crate::patient::Patient;
use crate::provider::provider;

/// A client certificate with its key.
#[derive(Clone)]
pub struct Identity {
    /// Certificate, DER.
    pub cert_der: Vec<u8>,
    /// PKCS#8 key, DER.
    pub key_der: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Dials `address` ("192.168.122.1:7443") and expects a certificate of this CA with this DNS name. Gives the channel
/// and the session's keying material.
pub async fn connect(
    address: &str,
    server_name: &str,
    ca_der: &[u8],
    identity: Option<Identity>,
) -> Result<(Channel, Exporter), TlsError> {
    dial(None, address, server_name, ca_der, identity, Arc::new(DefaultTimeProvider)).await
}

/// The same from this address, one of ours. For many agents on one machine, each of which is a peer of its own then.
pub async fn connect_from(
    from: IpAddr,
    address: &str,
    server_name: &str,
    ca_der: &[u8],
    identity: Option<Identity>,
) -> Result<(Channel, Exporter), TlsError> {
    dial(Some(from), address, server_name, ca_der, identity, Arc::new(DefaultTimeProvider)).await
}

/// The same, but certificates are checked at the host's time instead of ours, which may be far off in a VM that was
/// just started. For joining only.
pub async fn connect_at(
    address: &str,
    server_name: &str,
    ca_der: &[u8],
    identity: Option<Identity>,
    host_time: SystemTime,
) -> Result<(Channel, Exporter), TlsError> {
    let since_epoch = host_time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let clock = HostClock { since_epoch, at: Instant::now() };
    dial(None, address, server_name, ca_der, identity, Arc::new(clock)).await
}

/// The host's clock, carried on from one reading.
#[derive(Debug)]
struct HostClock {
    since_epoch: Duration,
    at: Instant,
}

impl TimeProvider for HostClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.since_epoch + self.at.elapsed()))
    }
}

async fn dial(
    from: Option<IpAddr>,
    address: &str,
    server_name: &str,
    ca_der: &[u8],
    identity: Option<Identity>,
    time: Arc<dyn TimeProvider>,
) -> Result<(Channel, Exporter), TlsError> {
    let address: SocketAddr =
        address.parse().map_err(|_| TlsError::Address { address: address.to_owned() })?;
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|_| TlsError::ServerName { name: server_name.to_owned() })?;
    let endpoint = Endpoint::from_shared(format!("http://{server_name}"))
        .map_err(|_| TlsError::ServerName { name: server_name.to_owned() })?;
    let connector = TlsConnector::from(Arc::new(client_config(ca_der, identity, time)?));
    let limit = limits::CONNECT_TIMEOUT;
    let stream = timeout(limit, open(from, address, name, connector))
        .await
        .map_err(|_| TlsError::Timeout { address, limit })??;
    let exporter = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(TlsError::Exporter)?;

    let mut once = Some(stream);
    let give = service_fn(move |_| {
        let stream = once.take().map(TokioIo::new);
        std::future::ready(stream.ok_or_else(|| std::io::Error::other("the connection is over: dial again")))
    });
    let channel = limits::endpoint(endpoint)
        .connect_with_connector(give)
        .await
        .map_err(|source| TlsError::Http { address, source })?;
    Ok((channel, exporter))
}

async fn open(
    from: Option<IpAddr>,
    address: SocketAddr,
    name: ServerName<'static>,
    connector: TlsConnector,
) -> Result<TlsStream<Patient<TcpStream>>, TlsError> {
    let connected = match from {
        Some(from) => connect_bound(from, address).await,
        None => TcpStream::connect(address).await,
    };
    let stream = connected.map_err(|source| TlsError::Connect { address, source })?;
    stream.set_nodelay(true).map_err(|source| TlsError::Connect { address, source })?;
    connector
        .connect(name, Patient::new(stream))
        .await
        .map_err(|source| TlsError::Handshake { address, source })
}

async fn connect_bound(from: IpAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(address).await
}

fn client_config(
    ca_der: &[u8],
    identity: Option<Identity>,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots(ca_der)?);
    let mut config = match identity {
        Some(identity) => {
            let chain = vec![CertificateDer::from(identity.cert_der)];
            builder
                .with_client_auth_cert(chain, private_key(&identity.key_der)?)
                .map_err(TlsError::Identity)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
