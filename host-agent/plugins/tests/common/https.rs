//! An https server on loopback with an authority of its own, ended with its test: what upstream and admission webhooks are
//! played by.

use std::convert::Infallible;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub type Body = BoxBody<Bytes, std::io::Error>;

/// An authority, and the server that it vouches for.
pub struct Identity {
    /// The authority, DER and PEM.
    pub root: Vec<u8>,
    pub root_pem: String,
    config: rustls::ServerConfig,
}

impl Identity {
    pub fn of(host: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority.self_signed(&key).expect("an authority");
        let issuer = Issuer::new(authority, key);
        let server_key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        let server = server.signed_by(&server_key, &issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![server.der().clone()], key)
            .expect("a server");
        Self { root: root.der().to_vec(), root_pem: root.pem(), config }
    }

    /// Answers every request of every connection, until the set is dropped.
    pub fn serve<A>(&self, listener: TcpListener, answer: A) -> JoinSet<()>
    where
        A: Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Clone + Send + Sync + 'static,
    {
        let acceptor = TlsAcceptor::from(Arc::new(self.config.clone()));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| {
                        let response = answer(request);
                        async move { Ok::<_, Infallible>(response.await) }
                    });
                    // A client that goes in the middle is what some tests are about.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        task
    }
}
