//! A fake upstream on loopback: https with a CA of its own, releases, a token service and an OCI registry.
//!
//! Called by the fetch tests. Faults are set per path: a body cut short, wrong bytes, an outage.
#![allow(clippy::unwrap_used)]
#![expect(clippy::disallowed_methods, reason = "a server of a test ends with the test's runtime")]

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use futures::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use host_artifacts::digest::sha256;
use host_artifacts::fetch::FetchSources;
use host_artifacts::fetch::releases::companions;

/// What a path does besides serving.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The first answers end after this many bytes of the body, as many times as given.
    Cut { after: usize, times: usize },
    /// Serves other bytes of the same length.
    Wrong,
    /// 404.
    Gone,
    /// The first answers are 429 with this `Retry-After`, as many times as given.
    Busy { pause: &'static str, times: usize },
    /// Answers when [`Upstream::let_go`] was called.
    Held,
}

pub struct Upstream {
    files: HashMap<String, (Vec<u8>, String)>,
    pub faults: Mutex<HashMap<String, Fault>>,
    /// Path → the `Range` headers it was asked with, empty for none.
    pub asked: Mutex<Vec<(String, String)>>,
    base: Mutex<String>,
    held: tokio::sync::Semaphore,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            files: HashMap::new(),
            faults: Mutex::default(),
            asked: Mutex::default(),
            base: Mutex::default(),
            held: tokio::sync::Semaphore::new(0),
        }
    }
}

/// A layer that all images have.
pub const SHARED_LAYER: &[u8] = b"the base of every image";

pub const TOKEN: &str = "anonymous-pull";

impl Upstream {
    pub fn file(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), (bytes.into(), "application/octet-stream".to_owned()));
    }

    /// A file, and its published digest beside it.
    fn release(&mut self, path: &str, bytes: Vec<u8>, sums: &str, named: bool) {
        let name = path.rsplit('/').next().unwrap();
        let sum = sha256(&bytes);
        let line = if named { format!("{sum}  {name}\n") } else { sum };
        self.file(sums, line);
        self.file(path, bytes);
    }

    fn image(&mut self, repository: &str, tag: &str, listed: bool) {
        let layer = format!("layer of {repository}").repeat(2000).into_bytes();
        let config = format!("{{\"image\":\"{repository}\"}}").into_bytes();
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let descriptor = |bytes: &[u8]| serde_json::json!({"mediaType": "x", "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()});
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": manifest_type, "config": descriptor(&config), "layers": [descriptor(SHARED_LAYER), descriptor(&layer)]});
        let manifest = manifest.to_string().into_bytes();
        for blob in [SHARED_LAYER, &layer, &config] {
            self.file(format!("/v2/{repository}/blobs/sha256:{}", sha256(blob)), blob.to_vec());
        }
        let base = format!("/v2/{repository}/manifests");
        let digest = sha256(&manifest);
        if listed {
            let index = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
                {"mediaType": manifest_type, "digest": format!("sha256:{}", "0".repeat(64)), "size": 1, "platform": {"architecture": "arm64", "os": "linux"}},
                {"mediaType": manifest_type, "digest": format!("sha256:{digest}"), "size": manifest.len(), "platform": {"architecture": "amd64", "os": "linux"}},
            ]});
            self.files.insert(
                format!("{base}/{tag}"),
                (index.to_string().into_bytes(), "application/vnd.oci.image.index.v1+json".to_owned()),
            );
        } else {
            self.files.insert(format!("{base}/{tag}"), (manifest.clone(), manifest_type.to_owned()));
        }
        self.files.insert(format!("{base}/sha256:{digest}"), (manifest, manifest_type.to_owned()));
    }

    /// Everything that a fetch of v1.34.1 asks for.
    pub fn whole() -> Self {
        let mut upstream = Self::default();
        let kubeadm = "#!/bin/sh\nfor n in kube-apiserver:v1.34.1 kube-controller-manager:v1.34.1 kube-scheduler:v1.34.1 \
            kube-proxy:v1.34.1 coredns/coredns:v1.12.1 pause:3.10.1 etcd:3.6.5-0; do echo registry.k8s.io/$n; done\n";
        for (name, bytes) in
            [("kubeadm", kubeadm.as_bytes().to_vec()), ("kubectl", vec![b'c'; 5000]), ("kubelet", big())]
        {
            let path = format!("/release/v1.34.1/bin/linux/amd64/{name}");
            upstream.release(&path, bytes, &format!("{path}.sha256"), false);
        }
        let containerd =
            targz(&["bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr", "bin/containerd-stress"]);
        let with = companions(&"v1.34.1".parse().unwrap()).unwrap();
        let version = with.containerd;
        let path = format!(
            "/containerd/containerd/releases/download/v{version}/containerd-{version}-linux-amd64.tar.gz"
        );
        upstream.release(&path, containerd, &format!("{path}.sha256sum"), true);
        let base = format!("/opencontainers/runc/releases/download/v{}", with.runc);
        upstream.release(
            &format!("{base}/runc.amd64"),
            b"runc".to_vec(),
            &format!("{base}/runc.sha256sum"),
            true,
        );
        let version = with.cni;
        let path = format!(
            "/containernetworking/plugins/releases/download/v{version}/cni-plugins-linux-amd64-v{version}.tgz"
        );
        upstream.release(
            &path,
            targz(&["./bridge", "./host-local", "./loopback"]),
            &format!("{path}.sha256"),
            true,
        );
        let version = with.crictl;
        let path = format!(
            "/kubernetes-sigs/cri-tools/releases/download/v{version}/crictl-v{version}-linux-amd64.tar.gz"
        );
        upstream.release(&path, targz(&["crictl"]), &format!("{path}.sha256"), true);
        for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"] {
            upstream.image(name, "v1.34.1", true);
        }
        upstream.image("coredns/coredns", "v1.12.1", true);
        upstream.image("pause", "3.10.1", false);
        upstream.image("etcd", "3.6.5-0", true);
        upstream
    }

    pub fn fault(&self, path: &str, fault: Fault) {
        self.faults.lock().unwrap().insert(path.to_owned(), fault);
    }

    /// Answers what was held.
    pub fn let_go(&self) {
        self.held.close();
    }

    pub fn ranges_of(&self, path: &str) -> Vec<String> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .filter(|(asked, _)| asked == path)
            .map(|(_, range)| range.clone())
            .collect()
    }

    /// Serves on loopback until the test's runtime ends.
    pub async fn serve(self) -> (Arc<Self>, FetchSources) {
        let certificates = certificates();
        let config = server_config(&certificates);
        let ca = certificates.ca.into_bytes();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let base = format!("https://localhost:{}", address.port());
        *self.base.lock().unwrap() = base.clone();
        let upstream = Arc::new(self);
        let app = Router::new().fallback(answer).with_state(upstream.clone());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, app) = (acceptor.clone(), app.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = TowerToHyperService::new(app);
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let sources = FetchSources {
            kubernetes: base.clone(),
            github: base.clone(),
            registry: base,
            extra_ca_pem: Some(ca),
        };
        (upstream, sources)
    }
}

/// Enough for several chunks.
pub fn big() -> Vec<u8> {
    (0..400_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn targz(names: &[&str]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(&mut gz);
    for (name, mode) in names.iter().map(|name| (*name, 0o755)).chain([("LICENSE", 0o644)]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(name.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, name, name.as_bytes()).unwrap();
    }
    tar.finish().unwrap();
    drop(tar);
    gz.flush().unwrap();
    gz.finish().unwrap()
}

/// A CA and a certificate of localhost's, all PEM.
pub struct Certificates {
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

pub fn certificates() -> Certificates {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    Certificates { ca: ca.pem(), certificate: leaf.pem(), key: key.serialize_pem() }
}

fn server_config(certificates: &Certificates) -> rustls::ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(certificates.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificates.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    config.with_no_client_auth().with_single_cert(chain, key).unwrap()
}

async fn answer(State(upstream): State<Arc<Upstream>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let headers = request.headers().clone();
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (range, authorization) = (header("range"), header("authorization"));
    upstream.asked.lock().unwrap().push((path.clone(), range.clone()));
    let status = |status| Response::builder().status(status);
    let base = upstream.base.lock().unwrap().clone();
    if path == "/token" {
        return status(200).body(Body::from(format!("{{\"token\":\"{TOKEN}\"}}"))).unwrap();
    }
    if path.starts_with("/v2/")
        && authorization != format!("Bearer {TOKEN}")
        && !path.starts_with("/v2/redirected")
    {
        let challenge = format!("Bearer realm=\"{base}/token\",service=\"fake\",scope=\"repository:x:pull\"");
        return status(401).header("www-authenticate", challenge).body(Body::empty()).unwrap();
    }
    // Blobs live elsewhere, as they do upstream.
    if path.contains("/blobs/") && !request.uri().query().unwrap_or_default().contains("stored") {
        return status(307).header("location", format!("{base}{path}?stored")).body(Body::empty()).unwrap();
    }
    let fault = upstream.faults.lock().unwrap().get(&path).copied();
    if fault == Some(Fault::Held) {
        // Closed means: let go.
        let _ = upstream.held.acquire().await;
    }
    if let Some(Fault::Busy { pause, times: times @ 1.. }) = fault {
        upstream.faults.lock().unwrap().insert(path, Fault::Busy { pause, times: times - 1 });
        return status(429).header("retry-after", pause).body(Body::empty()).unwrap();
    }
    let found = upstream.files.get(&path).filter(|_| fault != Some(Fault::Gone));
    let Some((bytes, kind)) = found else {
        return status(StatusCode::NOT_FOUND.as_u16()).body(Body::empty()).unwrap();
    };
    let mut bytes = bytes.clone();
    if fault == Some(Fault::Wrong) {
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
    }
    let from: usize = range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-'))
        .map_or(0, |from| from.parse().unwrap());
    let total = bytes.len();
    let rest = bytes.split_off(from);
    let mut response = status(if from > 0 { 206 } else { 200 })
        .header("content-type", kind)
        .header("content-length", rest.len());
    if from > 0 {
        response = response.header("content-range", format!("bytes {from}-{}/{total}", total - 1));
    }
    if let Some(Fault::Cut { after, times }) =
        fault.filter(|fault| matches!(fault, Fault::Cut { times: 1.., .. }))
    {
        upstream.faults.lock().unwrap().insert(path, Fault::Cut { after, times: times - 1 });
        let head = Bytes::from(rest[..after].to_vec());
        let body = futures::stream::iter([Ok(head), Err(std::io::Error::other("cut"))]);
        // Give the first part its own turn, so that it is sent before the connection breaks.
        return response
            .body(Body::from_stream(body.then(|part| async {
                tokio::task::yield_now().await;
                part
            })))
            .unwrap();
    }
    response.body(Body::from(rest)).unwrap()
}
