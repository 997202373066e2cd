//! Connections to a host agent: to a unix socket as any user, to a port, and with TLS and any certificate or none. All
//! block, and none for long.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use node_agent::bootstrap::identity::Identity;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Longest that one read waits: after that what is to be sent next is sent.
const READ: Duration = Duration::from_millis(50);
/// Longest that one write waits for a host agent that does not read.
const WRITE: Duration = Duration::from_millis(500);
/// Longest that a handshake waits, its turn among all the others included.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Both ways of a connection.
pub trait Duplex: Read + Write {}

impl<T: Read + Write> Duplex for T {}

/// Who somebody is on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// What a TLS client shows, and whom it believes.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Where to, and as whom.
#[derive(Clone, Debug)]
pub enum Door {
    /// A unix socket; as root where nobody else is named.
    Unix(PathBuf, Option<User>),
    /// A port.
    Tcp(SocketAddr),
    /// A port, behind a handshake.
    Tls(SocketAddr, Tls),
}

impl Door {
    /// A connection, its handshake done.
    pub fn open(&self) -> io::Result<Box<dyn Duplex>> {
        match self {
            Self::Unix(path, user) => {
                let stream = match user {
                    None => UnixStream::connect(path)?,
                    Some(user) => user.connect(path)?,
                };
                stream.set_read_timeout(Some(READ))?;
                stream.set_write_timeout(Some(WRITE))?;
                Ok(Box::new(stream))
            }
            Self::Tcp(address) => Ok(Box::new(tcp(*address)?)),
            Self::Tls(address, tls) => {
                let mut stream = tcp(*address)?;
                let mut connection = tls.connection()?;
                stream.set_read_timeout(Some(HANDSHAKE))?;
                while connection.is_handshaking() {
                    connection.complete_io(&mut stream)?;
                }
                stream.set_read_timeout(Some(READ))?;
                Ok(Box::new(StreamOwned::new(connection, stream)))
            }
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ))?;
    stream.set_write_timeout(Some(WRITE))?;
    Ok(stream)
}

impl User {
    /// A connection of this user's. Only this thread is the user, and only while it connects: the kernel tells the other
    /// end who that was.
    fn connect(self, path: &Path) -> io::Result<UnixStream> {
        set_thread_res_gid(None::<Gid>, Gid::from_raw(self.gid), None::<Gid>)?;
        let connected = set_thread_res_uid(None::<Uid>, Uid::from_raw(self.uid), None::<Uid>)
            .map_err(io::Error::from)
            .and_then(|()| UnixStream::connect(path));
        // The saved ones are root's still.
        set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>)?;
        set_thread_res_gid(None::<Gid>, Gid::ROOT, None::<Gid>)?;
        connected
    }
}

impl Tls {
    /// Of somebody who knows where a node dials, and has no certificate.
    pub fn stranger(node: &Identity) -> Result<Self> {
        let config = believing(node)?.with_no_client_auth();
        Self::new(config, node)
    }

    /// With this node's certificate.
    pub fn node(node: &Identity) -> Result<Self> {
        Self::showing(node, node.certificate_der.clone(), node.key_der.clone())
    }

    /// With a certificate that says the same, and that no authority has signed.
    pub fn forged(node: &Identity) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let uri = format!("k8sctl://{}/node/{}", node.cluster_id, node.node_id);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key)?.der().to_vec();
        Self::showing(node, certificate, key.serialize_der())
    }

    fn showing(node: &Identity, certificate_der: Vec<u8>, key_der: Vec<u8>) -> Result<Self> {
        let key = PrivateKeyDer::try_from(key_der).map_err(anyhow::Error::msg)?;
        let chain = vec![CertificateDer::from(certificate_der)];
        let config = believing(node)?.with_client_auth_cert(chain, key)?;
        Self::new(config, node)
    }

    fn new(mut config: ClientConfig, node: &Identity) -> Result<Self> {
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { config: Arc::new(config), name: ServerName::try_from(node.server_name.clone())? })
    }

    /// A connection that has said nothing yet.
    pub fn connection(&self) -> io::Result<ClientConnection> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(io::Error::other)
    }
}

type Believing = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn believing(node: &Identity) -> Result<Believing> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(node.ca_der.clone()))?;
    let builder = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
    Ok(builder.with_root_certificates(roots))
}
