//! A tiny HTTP client for probes and a few API objects on this node: one request per connection, bounded answer.
//!
//! Used by steps and health. It is no Kubernetes client: it knows no objects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::kubeconfig::Kubeconfig;

/// Longest that one request may take.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const LIMIT: u64 = 1024 * 1024;

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200
    pub status: u16,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Connection refused, broken and so on.
    #[error("cannot talk to {address}")]
    Io {
        /// Who was asked.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Too slow.
    #[error("no answer from {address} within {deadline:?}")]
    Slow {
        /// Who was asked.
        address: SocketAddr,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// Not HTTP.
    #[error("the answer of {address} is no HTTP")]
    Malformed {
        /// Who was asked.
        address: SocketAddr,
    },
    /// Certificates of the kubeconfig are unusable.
    #[error("the credentials for {address} are unusable: {reason}")]
    Credentials {
        /// Who would have been asked.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// `GET` over plain HTTP.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer, ProbeError> {
    get_within(address, path, DEADLINE).await
}

/// The same with another deadline.
pub async fn get_within(address: SocketAddr, path: &str, deadline: Duration) -> Result<Answer, ProbeError> {
    let work = async {
        let stream = TcpStream::connect(address).await?;
        exchange(stream, &request("GET", address, path, "", b"")).await
    };
    bounded(address, deadline, work).await
}

/// Talks over TLS to one API server with one kubeconfig's credentials, or without any to another part of a control
/// plane.
#[derive(Clone)]
pub struct ApiClient {
    address: SocketAddr,
    connector: TlsConnector,
}

impl ApiClient {
    /// A client for the server at `address`, whose certificate must name that IP.
    pub fn new(address: SocketAddr, kubeconfig: &Kubeconfig) -> Result<Self, ProbeError> {
        let bad = |reason: String| ProbeError::Credentials { address, reason };
        let roots = roots(address, &kubeconfig.ca_pem)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&kubeconfig.certificate_pem).collect();
        let chain = chain.map_err(|error| bad(error.to_string()))?;
        let key =
            PrivateKeyDer::from_pem_slice(&kubeconfig.key_pem).map_err(|error| bad(error.to_string()))?;
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| bad(error.to_string()))?;
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// A client without credentials, for one who tells everybody how it is. Its certificate must be of this authority
    /// and name that IP.
    pub fn anonymous(address: SocketAddr, ca_pem: &[u8]) -> Result<Self, ProbeError> {
        let roots = roots(address, ca_pem)?;
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// `GET` a path.
    pub async fn get(&self, path: &str) -> Result<Answer, ProbeError> {
        self.send(request("GET", self.address, path, "", b"")).await
    }

    /// `PATCH` a path with a JSON merge patch.
    pub async fn merge_patch(&self, path: &str, patch: &serde_json::Value) -> Result<Answer, ProbeError> {
        let body = patch.to_string();
        let kind = "Content-Type: application/merge-patch+json\r\n";
        self.send(request("PATCH", self.address, path, kind, body.as_bytes())).await
    }

    async fn send(&self, request: Vec<u8>) -> Result<Answer, ProbeError> {
        let work = async {
            let stream = TcpStream::connect(self.address).await?;
            let stream = self.connector.connect(ServerName::from(self.address.ip()), stream).await?;
            exchange(stream, &request).await
        };
        bounded(self.address, DEADLINE, work).await
    }
}

fn roots(address: SocketAddr, ca_pem: &[u8]) -> Result<rustls::RootCertStore, ProbeError> {
    let bad = |reason: String| ProbeError::Credentials { address, reason };
    k8sctl_rpc::provider::install();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    Ok(roots)
}

/// HTTP/1.0, so that the answer is neither chunked nor kept alive.
fn request(method: &str, address: SocketAddr, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json, */*\r\n\
         User-Agent: k8s-node-agent\r\n{headers}Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> std::io::Result<Vec<u8>> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    match stream.take(LIMIT).read_to_end(&mut answer).await {
        // Some servers end TLS without saying so.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !answer.is_empty() => Ok(answer),
        Err(error) => Err(error),
        Ok(_) => Ok(answer),
    }
}

async fn bounded(
    address: SocketAddr,
    deadline: Duration,
    work: impl Future<Output = std::io::Result<Vec<u8>>>,
) -> Result<Answer, ProbeError> {
    let slow = |_| ProbeError::Slow { address, deadline };
    let answer = tokio::time::timeout(deadline, work).await.map_err(slow)?;
    parse(&answer.map_err(|source| ProbeError::Io { address, source })?)
        .ok_or(ProbeError::Malformed { address })
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = words.next()?.parse().ok()?;
    Some(Answer { status, body: bytes[end + 4..].to_vec() })
}

/// An API server on loopback, for tests.
#[cfg(test)]
pub mod fake {
    use std::sync::{Mutex, PoisonError};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, KeyPair};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// It answers while this lives.
    pub struct Api {
        /// Talks to it.
        pub client: ApiClient,
        asked: Arc<Mutex<Vec<String>>>,
        server: tokio::task::AbortHandle,
    }

    impl Api {
        /// The requests so far: `GET /healthz`.
        pub fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    impl Drop for Api {
        fn drop(&mut self) {
            self.server.abort();
        }
    }

    /// One that answers everything with this status.
    pub async fn api(status: u16) -> Api {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        let certificate = params.self_signed(&key).expect("signed");
        let (pem, key_pem) = (certificate.pem(), key.serialize_pem());
        let config = {
            k8sctl_rpc::provider::install();
            let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).expect("a key");
            let server = rustls::ServerConfig::builder().with_no_client_auth();
            server.with_single_cert(vec![certificate.der().clone()], key).expect("a pair")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = k8sctl_rpc::task::spawn("api", serve(listener, config, status, Arc::clone(&asked)));
        let text = String::from_utf8(crate::kubeconfig::example(&pem, &key_pem)).expect("text");
        // It is its own authority.
        let text = text.replace(&STANDARD.encode("CA"), &STANDARD.encode(&pem));
        let kubeconfig = Kubeconfig::parse(text.as_bytes()).expect("a kubeconfig");
        let client = ApiClient::new(address, &kubeconfig).expect("credentials");
        Api { client, asked, server }
    }

    async fn serve(
        listener: TcpListener,
        config: rustls::ServerConfig,
        status: u16,
        asked: Arc<Mutex<Vec<String>>>,
    ) {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") && stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0)
            {
            }
            let line = String::from_utf8_lossy(&seen).lines().next().unwrap_or_default().to_owned();
            let request = line.trim_end_matches(" HTTP/1.0").to_owned();
            asked.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            let answer = format!("HTTP/1.0 {status} Status\r\n\r\n{{}}");
            // A client that has gone is not answered.
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn one_who_does_not_answer_is_slow_and_not_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let error = get_within(address, "/", Duration::from_millis(20)).await.expect_err("silence");
        assert!(matches!(error, ProbeError::Slow { .. }), "{error:?}");
        drop(listener);
        let error = get(address, "/").await.expect_err("nobody listens");
        assert!(matches!(error, ProbeError::Io { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn who_is_asked_without_credentials_must_show_a_certificate_of_the_authority() {
        let (pem, key) = crate::certificate::example(3600);
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        k8sctl_rpc::provider::install();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], key).expect("a pair");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = async {
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                // One who does not trust it ends the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut seen).await.expect("a request");
                }
                stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok").await.expect("written");
                break stream.shutdown().await.expect("ended");
            }
        };
        let asked = async {
            let (stranger, _) = crate::certificate::example(3600);
            let stranger = ApiClient::anonymous(address, stranger.as_bytes()).expect("a client");
            let error = stranger.get("/healthz").await.expect_err("refused");
            assert!(matches!(error, ProbeError::Io { .. }), "{error:?}");
            ApiClient::anonymous(address, pem.as_bytes()).expect("a client").get("/healthz").await
        };
        let (answer, ()) = tokio::join!(asked, server);
        assert_eq!(answer.expect("an answer").body, b"ok");
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut seen).await.expect("a request");
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nok").await.expect("written");
            assert!(seen.starts_with(b"GET /healthz HTTP/1.0\r\n"));
        };
        let (answer, ()) = tokio::join!(get(address, "/healthz"), server);
        assert_eq!(answer.expect("an answer"), Answer { status: 200, body: b"ok".to_vec() });
    }

    #[test]
    fn other_protocols_are_no_answer() {
        assert_eq!(parse(b"SSH-2.0-x\r\n\r\n"), None);
        assert_eq!(parse(b"HTTP/1.1 200"), None);
    }
}
