//! The node port on loopback: real TLS, a real tonic service, one CA made for the test.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use k8sctl_proto::node::v1::join_service_client::JoinServiceClient;
use k8sctl_proto::node::v1::join_service_server::{JoinService, JoinServiceServer};
use k8sctl_proto::node::v1::{JoinRequest, JoinResponse};
use k8sctl_rpc::limits;
use k8sctl_rpc::pace::Pace;
use k8sctl_rpc::patient::Patient;
use k8sctl_rpc::tls::{self, Identity, PeerInfo, ServerCertificate, TlsError};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::{Request, Response, Status};

const NAME: &str = "host.test.k8sctl.internal";

struct Authority {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        let der = params.self_signed(&key).expect("signs itself").der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, usage: ExtendedKeyUsagePurpose) -> Identity {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).expect("a DNS name");
        params.extended_key_usages = vec![usage];
        let day = Duration::from_secs(24 * 3600);
        params.not_before = (SystemTime::now() - day).into();
        params.not_after = (SystemTime::now() + day).into();
        let key = KeyPair::generate().expect("a key");
        let cert_der = params.signed_by(&key, &self.issuer).expect("signs").der().to_vec();
        Identity { cert_der, key_der: key.serialize_der() }
    }
}

/// Answers with the exporter that it saw, and whether there was a client certificate.
struct Echo(Arc<Mutex<Vec<SocketAddr>>>);

#[tonic::async_trait]
impl JoinService for Echo {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let peer = request.extensions().get::<PeerInfo>().expect("the listener gives it");
        self.0.lock().expect("no panic").push(peer.remote);
        let mut answer = peer.exporter.to_vec();
        answer.push(u8::from(peer.client_certificate.is_some()));
        Ok(Response::new(JoinResponse { certificate_der: answer, not_after: None }))
    }
}

/// Every certificate here is another node's.
fn owner(certificate: &CertificateDer<'_>) -> Option<String> {
    Some(format!("{certificate:?}"))
}

struct Server {
    address: SocketAddr,
    ca: Authority,
    certificate: Arc<ServerCertificate>,
    /// Who has asked.
    seen: Arc<Mutex<Vec<SocketAddr>>>,
    _stop: oneshot::Sender<()>,
}

/// One that knows nobody's address.
async fn server() -> Server {
    server_that_knows(&[]).await
}

async fn server_that_knows(addresses: &[IpAddr]) -> Server {
    server_with(addresses, Arc::default()).await
}

async fn server_with(addresses: &[IpAddr], pace: Arc<Pace>) -> Server {
    let known = addresses.to_owned();
    let ca = Authority::new();
    let own = ca.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = ServerCertificate::new(&own.cert_der, &own.key_der).expect("usable");
    let config = tls::server_config(&ca.der, Arc::clone(&certificate)).expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let seen = Arc::<Mutex<Vec<SocketAddr>>>::default();
    let service =
        JoinServiceServer::new(Echo(Arc::clone(&seen))).max_decoding_message_size(limits::JOIN_DECODE_BYTES);
    let incoming = tls::incoming(listener, config, owner, pace, move |address| known.contains(&address));
    let serve = limits::server()
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async { drop(stopped.await) });
    k8sctl_rpc::task::spawn("server", serve);
    Server { address, ca, certificate, seen, _stop: stop }
}

async fn ask(channel: tonic::transport::Channel, request: JoinRequest) -> Result<Vec<u8>, Status> {
    JoinServiceClient::new(channel).join(request).await.map(|answer| answer.into_inner().certificate_der)
}

#[tokio::test]
async fn both_ends_export_the_same_and_every_session_another() {
    let server = server().await;
    let mut seen = Vec::new();
    for identity in [None, Some(server.ca.issue(ExtendedKeyUsagePurpose::ClientAuth))] {
        let with_certificate = u8::from(identity.is_some());
        let (channel, exporter) = tls::connect(&server.address.to_string(), NAME, &server.ca.der, identity)
            .await
            .expect("connects");
        let answer = ask(channel, JoinRequest::default()).await.expect("answers");
        assert_eq!(answer, [&exporter[..], &[with_certificate]].concat());
        assert!(!seen.contains(&exporter));
        seen.push(exporter);
    }
}

#[tokio::test]
async fn the_wrong_server_is_refused() {
    let server = server().await;
    let address = server.address.to_string();
    let other = Authority::new();
    let error = tls::connect(&address, NAME, &other.der, None).await.expect_err("another CA");
    assert!(matches!(error, TlsError::Handshake { .. }), "{error:?}");
    let error =
        tls::connect(&address, "host.other.internal", &server.ca.der, None).await.expect_err("another name");
    assert!(matches!(error, TlsError::Handshake { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_dials_from_the_address_that_it_is_given() {
    let node = IpAddr::from([127, 0, 7, 9]);
    let server = server().await;
    let address = server.address.to_string();
    let (channel, _) = tls::connect_from(node, &address, NAME, &server.ca.der, None).await.expect("connects");
    ask(channel, JoinRequest::default()).await.expect("answers");
    assert_eq!(server.seen.lock().expect("no panic").iter().map(SocketAddr::ip).collect::<Vec<_>>(), [node]);
    let foreign = IpAddr::from([192, 0, 2, 1]);
    let error = tls::connect_from(foreign, &address, NAME, &server.ca.der, None).await;
    assert!(matches!(error.map(|_| ()), Err(TlsError::Connect { .. })), "it is not this machine's");
}

#[tokio::test]
async fn certificates_are_checked_at_the_given_time() {
    let server = server().await;
    let address = server.address.to_string();
    let long_ago = SystemTime::now() - Duration::from_secs(90 * 24 * 3600);
    let error =
        tls::connect_at(&address, NAME, &server.ca.der, None, long_ago).await.expect_err("not valid yet");
    assert!(k8sctl_rpc::chain(&error).to_string().contains("not valid yet"), "{}", k8sctl_rpc::chain(&error));
    let now = SystemTime::now();
    tls::connect_at(&address, NAME, &server.ca.der, None, now).await.expect("valid now");
}

#[tokio::test]
async fn a_client_certificate_of_another_authority_opens_nothing() {
    let server = server().await;
    let stranger = Authority::new().issue(ExtendedKeyUsagePurpose::ClientAuth);
    // In TLS 1.3 the client hears of it with its first read, so either step may fail.
    let refused = match tls::connect(&server.address.to_string(), NAME, &server.ca.der, Some(stranger)).await
    {
        Ok((channel, _)) => ask(channel, JoinRequest::default()).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    let (channel, _) =
        tls::connect(&server.address.to_string(), NAME, &server.ca.der, None).await.expect("goes on");
    ask(channel, JoinRequest::default()).await.expect("answers");
}

#[tokio::test]
async fn half_open_connections_shut_nobody_else_out() {
    let server = server().await;
    let mut idle = Vec::new();
    for _ in 0..limits::UNAUTHENTICATED_PER_ADDRESS {
        idle.push(TcpStream::connect(server.address).await.expect("TCP connects"));
    }
    // The address has used up its places, so the listener hangs up on the next.
    let mut refused = TcpStream::connect(server.address).await.expect("TCP connects");
    let read = refused.read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(idle);
    // Level-triggered: as soon as the listener saw that they are gone, a dial succeeds.
    let address = server.address.to_string();
    let dial = async {
        while tls::connect(&address, NAME, &server.ca.der, None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), dial).await.expect("the places come back");
}

/// A connection that says nothing, from 127.0.0.`host`.
async fn silent(server: &Server, host: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into()).expect("an address of this host");
    socket.connect(server.address).await.expect("TCP connects")
}

/// Whether such a connection has a place: what it says is answered then, with an alert, and not just closed.
async fn has_place(server: &Server, host: u8) -> bool {
    let mut stream = silent(server, host).await;
    let garbage = async {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
        stream.read(&mut [0; 1]).await
    };
    let read = tokio::time::timeout(Duration::from_secs(10), garbage).await.expect("it is not left waiting");
    read.is_ok_and(|bytes| bytes > 0)
}

#[tokio::test]
async fn strangers_of_many_addresses_shut_no_node_out() {
    let node = IpAddr::from([127, 0, 0, 1]);
    let server = server_that_knows(&[node]).await;
    assert!(has_place(&server, 20).await, "there is room");
    let mut idle = Vec::new();
    for host in 2..10 {
        for _ in 0..limits::UNAUTHENTICATED_PER_ADDRESS {
            idle.push(silent(&server, host).await);
        }
    }
    assert!(idle.len() > limits::STRANGE_ADDRESSES);
    assert!(!has_place(&server, 20).await, "all places of strange addresses are taken");
    let address = server.address.to_string();
    let dial = async {
        let (channel, _) = tls::connect(&address, NAME, &server.ca.der, None).await.expect("connects");
        ask(channel, JoinRequest::default()).await.expect("answers");
    };
    tokio::time::timeout(Duration::from_secs(10), dial)
        .await
        .expect("a node's address has places of its own");
    drop(idle);
    // Level-triggered: as soon as the listener saw that they are gone.
    let again = async { while !has_place(&server, 20).await {} };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("the places come back");
}

#[tokio::test]
async fn who_has_shown_a_certificate_is_no_stranger() {
    let server = server().await;
    let address = server.address.to_string();
    let mut held = Vec::new();
    for _ in 0..=limits::STRANGE_ADDRESSES {
        let identity = Some(server.ca.issue(ExtendedKeyUsagePurpose::ClientAuth));
        let (channel, _) = tls::connect(&address, NAME, &server.ca.der, identity).await.expect("connects");
        ask(channel.clone(), JoinRequest::default()).await.expect("answers");
        held.push(channel);
    }
}

#[tokio::test]
async fn one_node_cannot_hold_the_places_of_all() {
    let server = server().await;
    let address = server.address.to_string();
    let dial = async |identity: &Option<Identity>| {
        let (channel, _) = tls::connect(&address, NAME, &server.ca.der, identity.clone()).await.ok()?;
        ask(channel.clone(), JoinRequest::default()).await.ok()?;
        Some(channel)
    };
    let [greedy, other] = [(); 2].map(|()| Some(server.ca.issue(ExtendedKeyUsagePurpose::ClientAuth)));
    let mut held = Vec::new();
    for _ in 0..limits::CONNECTIONS_PER_NODE {
        held.push(dial(&greedy).await.expect("has a place"));
    }
    assert!(dial(&greedy).await.is_none(), "it has used up its places");
    dial(&other).await.expect("another node at the same address");
    dial(&None).await.expect("one that has yet to join");
    drop(held);
    // Level-triggered: as soon as the listener saw that they are gone, a dial succeeds.
    let again = async { while dial(&greedy).await.is_none() {} };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("the places come back");
}

#[tokio::test]
async fn handshakes_begin_at_a_pace_and_who_would_wait_too_long_is_closed() {
    let apart = Duration::from_millis(100);
    let server = server_with(&[], Arc::new(Pace::new(apart, 2 * apart))).await;
    let address = server.address.to_string();
    let began = std::time::Instant::now();
    let dial = || tls::connect(&address, NAME, &server.ca.der, None);
    let dialled = tokio::join!(dial(), dial(), dial(), dial(), dial());
    let dialled: [Result<_, TlsError>; 5] = dialled.into();
    let (well, badly): (Vec<_>, Vec<_>) = dialled.into_iter().partition(Result::is_ok);
    // The last ones may have come when the first turn was over, on a machine that is slow.
    assert!(well.len() >= 3, "{} came in", well.len());
    assert!(began.elapsed() >= apart * (well.len() as u32 - 1), "{:?}", began.elapsed());
    let is_cut = |error: &TlsError| {
        matches!(error, TlsError::Connect { .. } | TlsError::Handshake { .. } | TlsError::Http { .. })
    };
    assert!(badly.iter().all(|it| it.as_ref().is_err_and(is_cut)), "something else failed");
    let (channel, _) = dial().await.expect("later there is room again");
    ask(channel, JoinRequest::default()).await.expect("answers");
}

#[tokio::test]
async fn garbage_and_large_messages_are_refused_and_the_listener_lives() {
    let server = server().await;
    let mut garbage = TcpStream::connect(server.address).await.expect("TCP connects");
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("is sent");
    let (channel, _) =
        tls::connect(&server.address.to_string(), NAME, &server.ca.der, None).await.expect("connects");
    let large = JoinRequest { csr_der: vec![0; limits::JOIN_DECODE_BYTES + 1], ..JoinRequest::default() };
    let status = ask(channel.clone(), large).await.expect_err("is too large");
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status:?}");
    ask(channel, JoinRequest::default()).await.expect("answers");
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_does_not_stay_under_tls_either() {
    let ca = Authority::new();
    let own = ca.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = ServerCertificate::new(&own.cert_der, &own.key_der).expect("usable");
    let acceptor = TlsAcceptor::from(tls::server_config(&ca.der, certificate).expect("a configuration"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.der.clone())).expect("a root");
    k8sctl_rpc::provider::install();
    let config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let (ours, theirs) = tokio::io::duplex(4 * 1024);
    let name = ServerName::try_from(NAME).expect("a name");
    let (served, connected) =
        tokio::join!(acceptor.accept(Patient::new(ours)), connector.connect(name, theirs));
    let (mut served, _connected) = (served.expect("a handshake"), connected.expect("a handshake"));

    let begun = Instant::now();
    // More than the peer is sent, and so little that TLS keeps it: no write waits, only the flush does.
    served.write_all(&[7; 16 * 1024]).await.expect("it is kept");
    let flushed = timeout(10 * limits::WRITE_PATIENCE, served.flush()).await.expect("it ends");
    assert_eq!(flushed.expect_err("nobody reads it").kind(), ErrorKind::TimedOut);
    assert!(begun.elapsed() >= limits::WRITE_PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_new_certificate_is_used_from_the_next_handshake_on() {
    let server = server().await;
    let other = Authority::new();
    let own = other.issue(ExtendedKeyUsagePurpose::ServerAuth);
    server.certificate.replace(&own.cert_der, &own.key_der).expect("usable");
    tls::connect(&server.address.to_string(), NAME, &other.der, None).await.expect("the new CA is met");
}
