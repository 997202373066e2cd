//! The node port's listener. It gives tonic connections whose handshake is done, with [`PeerInfo`] in every
//! request's extensions. It asks for a client certificate and checks it against the CA, but lets peers without one
//! in: the services decide what such a peer may call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;

use super::{ALPN, EXPORTER_LABEL, Exporter, TlsError, private_key, roots};
use crate::connection::Life;
use crate::pace::Pace;
use crate::patient::Patient;
use crate::places::{Place, Places};
use crate::provider::provider;
use crate::{connection, limits, task};

/// Connections that wait for tonic to take them.
const READY: usize = 16;

/// Who is at the other end of a TLS connection.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its address.
    pub remote: SocketAddr,
    /// Keying material of this session.
    pub exporter: Exporter,
    /// Its certificate, issued by the listener's CA and valid when the connection was made. `None` means that it
    /// showed none.
    pub client_certificate: Option<CertificateDer<'static>>,
}

/// The server's certificate, replaceable while the listener runs.
#[derive(Debug)]
pub struct ServerCertificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServerCertificate {
    /// Certificate and PKCS#8 key, both DER.
    pub fn new(certificate_der: &[u8], key_der: &[u8]) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self { current: RwLock::new(certified_key(certificate_der, key_der)?) }))
    }

    /// Uses another certificate for every handshake from now on.
    pub fn replace(&self, certificate_der: &[u8], key_der: &[u8]) -> Result<(), TlsError> {
        let next = certified_key(certificate_der, key_der)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn certified_key(certificate_der: &[u8], key_der: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = vec![CertificateDer::from(certificate_der.to_vec())];
    let key =
        CertifiedKey::from_der(chain, private_key(key_der)?, &provider()).map_err(TlsError::Identity)?;
    Ok(Arc::new(key))
}

/// TLS 1.3 alone, HTTP/2 alone, client certificates of this CA alone, no session resumption.
pub fn server_config(
    ca_der: &[u8],
    certificate: Arc<ServerCertificate>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca_der)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would carry a certificate that was checked long ago.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Whose a certificate of the listener's CA is, however many of them it has. `None` means that it names nobody.
pub type Owner = fn(&CertificateDer<'_>) -> Option<String>;

/// Accepts on `listener` until the stream is dropped. Handshakes begin at `pace` and run beside each other, bounded in
/// number and time; one that fails concerns nobody else. `owner` says whose a certificate is: each owner may hold so
/// many connections. Until a certificate is shown an address may hold so many, and all addresses that `is_known` does
/// not know together.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    owner: Owner,
    pace: Arc<Pace>,
    is_known: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
) -> Incoming {
    let (ready, receiver) = mpsc::channel(READY);
    let door = Door {
        acceptor: TlsAcceptor::from(config),
        owner,
        owners: Places::new(limits::CONNECTIONS_PER_NODE),
        is_known: Arc::new(is_known),
        addresses: Places::new(limits::UNAUTHENTICATED_PER_ADDRESS),
        strange: Arc::new(Semaphore::new(limits::STRANGE_ADDRESSES)),
        nodes: Arc::new(Semaphore::new(limits::NODE_CONNECTIONS)),
        pace,
    };
    task::spawn("tls-accept", accept(listener, door, ready));
    Incoming { receiver }
}

/// Stream of connections for `serve_with_incoming_shutdown`. It never yields an error.
#[derive(Debug)]
pub struct Incoming {
    receiver: mpsc::Receiver<io::Result<Connection>>,
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context)
    }
}

async fn accept(listener: TcpListener, door: Door, ready: mpsc::Sender<io::Result<Connection>>) {
    let connections = Arc::new(Semaphore::new(limits::CONNECTIONS));
    loop {
        // Cancel-safe: accept() takes no connection when it is dropped before it returns.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection");
                sleep(limits::ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Nobody waits for a place in front of others.
        let Some(stranger) = door.admit(remote.ip()) else {
            tracing::debug!(peer.address = %remote, "too many connections without certificate");
            continue;
        };
        let Ok(connection) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::debug!(peer.address = %remote, "too many connections");
            continue;
        };
        let Some(turn) = door.pace.turn() else {
            tracing::debug!(peer.address = %remote, "too many handshakes wait");
            continue;
        };
        let (door, ready) = (door.clone(), ready.clone());
        task::spawn("tls-handshake", async move {
            turn.begin().await;
            let shake = door.shake(stream, remote, stranger, connection);
            match timeout(limits::HANDSHAKE_TIMEOUT, shake).await {
                // The listener's stream was dropped meanwhile: the connection goes with it.
                Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                Ok(Err(error)) => {
                    tracing::debug!(peer.address = %remote, error = %error, "TLS handshake failed")
                }
                Err(_) => tracing::debug!(peer.address = %remote, "TLS handshake took too long"),
            }
        });
    }
}

/// What the connections of one listener have in common.
#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    owner: Owner,
    owners: Places<String>,
    is_known: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    addresses: Places<IpAddr>,
    strange: Arc<Semaphore>,
    /// Connections with a certificate, so that those without cannot take the places of nodes.
    nodes: Arc<Semaphore>,
    pace: Arc<Pace>,
}

/// The place of a peer that has shown no certificate: one of its address and, where that is not known, one of those that
/// all such addresses have together.
#[derive(Debug)]
struct Stranger {
    _of_address: Place<IpAddr>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Door {
    fn admit(&self, address: IpAddr) -> Option<Stranger> {
        let of_address = self.addresses.take(address)?;
        let of_all = if (self.is_known)(address) {
            None
        } else {
            Some(Arc::clone(&self.strange).try_acquire_owned().ok()?)
        };
        Some(Stranger { _of_address: of_address, _of_all: of_all })
    }

    async fn shake(
        self,
        stream: TcpStream,
        remote: SocketAddr,
        stranger: Stranger,
        permit: OwnedSemaphorePermit,
    ) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let stream = self.acceptor.accept(Patient::new(stream)).await?;
        let session = stream.get_ref().1;
        let exporter =
            session.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(io::Error::other)?;
        let client_certificate =
            session.peer_certificates().and_then(<[_]>::first).map(|leaf| leaf.clone().into_owned());
        let (life, places) = match &client_certificate {
            Some(certificate) => {
                let owner = self.place_of(certificate)?;
                let permit = Arc::clone(&self.nodes).try_acquire_owned();
                let permit = permit.map_err(|_| io::Error::other("too many connections of nodes"))?;
                (Life::Unbounded, Held { _owner: Some(owner), _stranger: None, _permit: permit })
            }
            None => {
                let life = Life::bounded(limits::UNAUTHENTICATED_LIFETIME);
                (life, Held { _owner: None, _stranger: Some(stranger), _permit: permit })
            }
        };
        let info = PeerInfo { remote, exporter, client_certificate };
        Ok(Connection::new(stream, info, life, places))
    }

    fn place_of(&self, certificate: &CertificateDer<'_>) -> io::Result<Place<String>> {
        let owner = (self.owner)(certificate)
            .ok_or_else(|| io::Error::other("the client certificate names nobody"))?;
        let full = format!("{owner} has {} connections already", limits::CONNECTIONS_PER_NODE);
        self.owners.take(owner).ok_or_else(|| io::Error::other(full))
    }
}

/// What a TLS connection holds while it is open: its place among all with or all without a certificate, and among those
/// of its owner or the strangers'.
#[derive(Debug)]
pub struct Held {
    _owner: Option<Place<String>>,
    _stranger: Option<Stranger>,
    _permit: OwnedSemaphorePermit,
}

/// A TLS connection whose handshake is done. One without certificate may not stay.
pub type Connection = connection::Connection<TlsStream<Patient<TcpStream>>, PeerInfo, Held>;
