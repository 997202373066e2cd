//! Fetching a bundle from a fake upstream on loopback: whole, cut and resumed, wrong, out of reach.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use host_artifacts::bundle::{BundleStore, Role, store};
use host_artifacts::digest::sha256;
use host_artifacts::fetch::download::Downloader;
use host_artifacts::fetch::registry::Registry;
use host_artifacts::fetch::{self, FetchSources};
use k8sctl_command::Program;
use k8sctl_types::failure::Failure;
use support::{Fault, Upstream};
use tokio::sync::mpsc;

const KUBELET: &str = "/release/v1.34.1/bin/linux/amd64/kubelet";

async fn fetch_into(
    dir: &std::path::Path,
    sources: &FetchSources,
) -> Result<host_artifacts::bundle::Bundle, Failure> {
    let (progress, _lines) = mpsc::channel(256);
    fetch::fetch(&BundleStore::new(dir), &"v1.34.1".parse().unwrap(), sources, progress).await
}

#[tokio::test]
async fn a_bundle_is_fetched_checked_and_installed() {
    let (upstream, sources) = Upstream::whole().serve().await;
    let dir = tempfile::tempdir().unwrap();
    let bundle = fetch_into(dir.path(), &sources).await.unwrap();

    assert_eq!(bundle.path, dir.path().join("kubernetes-v1.34.1.k8sbundle"));
    store::verify(&bundle.path).unwrap();
    // kubeadm's own word, not the table's 3.6.4-0.
    assert_eq!(bundle.manifest.image(Role::Etcd).unwrap().name, "registry.k8s.io/etcd:3.6.5-0");
    assert!(bundle.manifest.image(Role::Coredns).is_some() && !bundle.manifest.trial);
    let paths: Vec<_> = bundle.manifest.components.iter().map(|part| part.path.as_str()).collect();
    assert!(
        paths.contains(&"cni/bridge") && paths.contains(&"bin/crictl") && !paths.contains(&"cni/LICENSE")
    );
    assert!(!paths.contains(&"bin/containerd-stress"));
    let left: Vec<_> = std::fs::read_dir(dir.path().join("partial")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(upstream.ranges_of(KUBELET), [""]);
}

#[tokio::test]
async fn a_cut_transfer_is_resumed_in_the_same_run() {
    let (upstream, sources) = Upstream::whole().serve().await;
    upstream.fault(KUBELET, Fault::Cut { after: 300_000, times: 1 });
    let dir = tempfile::tempdir().unwrap();
    fetch_into(dir.path(), &sources).await.unwrap();
    let ranges = upstream.ranges_of(KUBELET);
    assert!(ranges.len() == 2 && ranges[1].starts_with("bytes="), "{ranges:?}");
}

#[tokio::test]
async fn a_run_goes_on_where_the_one_before_stopped() {
    let (upstream, sources) = Upstream::whole().serve().await;
    upstream.fault(KUBELET, Fault::Cut { after: 100_000, times: 4 });
    let dir = tempfile::tempdir().unwrap();
    let failure = fetch_into(dir.path(), &sources).await.unwrap_err();
    assert_eq!(failure.id, "BUNDLE-INTERRUPTED", "{failure}");

    upstream.asked.lock().unwrap().clear();
    fetch_into(dir.path(), &sources).await.unwrap();
    let ranges = upstream.ranges_of(KUBELET);
    assert!(ranges.len() == 1 && ranges[0].starts_with("bytes="), "{ranges:?}");
    // What was whole is not asked for again.
    assert!(upstream.ranges_of("/release/v1.34.1/bin/linux/amd64/kubectl").is_empty());
}

#[tokio::test]
async fn wrong_bytes_are_named_and_thrown_away() {
    let (upstream, sources) = Upstream::whole().serve().await;
    upstream.fault(KUBELET, Fault::Wrong);
    let dir = tempfile::tempdir().unwrap();
    let failure = fetch_into(dir.path(), &sources).await.unwrap_err();
    assert_eq!(failure.id, "BUNDLE-DIGEST");
    assert!(failure.object.contains(KUBELET) && failure.reason.contains("expected"), "{failure:?}");
    // Its own only: what else was under way may be resumed.
    let part = format!("{}.part", sha256(&support::big()));
    assert!(!dir.path().join("partial").join(part).exists());
    assert!(BundleStore::new(dir.path()).newest().unwrap().is_none());
}

#[tokio::test]
async fn a_missing_release_is_upstreams() {
    let (upstream, sources) = Upstream::whole().serve().await;
    upstream.fault(&format!("{KUBELET}.sha256"), Fault::Gone);
    let dir = tempfile::tempdir().unwrap();
    let failure = fetch_into(dir.path(), &sources).await.unwrap_err();
    assert_eq!(failure.id, "BUNDLE-UPSTREAM", "{failure}");
    assert!(failure.reason.contains("404"), "{failure}");
}

#[tokio::test]
async fn an_untrusted_certificate_is_no_network_failure() {
    let (_upstream, mut sources) = Upstream::whole().serve().await;
    sources.extra_ca_pem = None;
    let dir = tempfile::tempdir().unwrap();
    let failure = fetch_into(dir.path(), &sources).await.unwrap_err();
    assert_eq!(failure.id, "BUNDLE-UPSTREAM", "{failure}");
}

#[tokio::test]
async fn out_of_reach_is_told_apart() {
    // A port that was free a moment ago: nobody answers there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base = format!("https://127.0.0.1:{port}");
    let sources =
        FetchSources { kubernetes: base.clone(), github: base.clone(), registry: base, extra_ca_pem: None };
    let dir = tempfile::tempdir().unwrap();
    let failure = fetch_into(dir.path(), &sources).await.unwrap_err();
    assert_eq!(failure.id, "BUNDLE-UNREACHABLE", "{failure}");
}

#[tokio::test]
async fn an_unknown_minor_names_the_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (progress, _lines) = mpsc::channel(1);
    let version = "v1.20.2".parse().unwrap();
    let failure = fetch::fetch(&BundleStore::new(dir.path()), &version, &FetchSources::default(), progress)
        .await
        .unwrap_err();
    assert_eq!(failure.id, "BUNDLE-UNSUPPORTED");
    assert!(failure.reason.contains("v1.29"), "{failure}");
}

/// What a real registry needs to run on loopback, and its address once it says so.
async fn debian_registry(
    dir: &std::path::Path,
    certificates: &support::Certificates,
) -> (impl Future<Output = Result<String, k8sctl_command::CommandError>> + use<>, mpsc::Receiver<String>) {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    std::fs::write(path("cert.pem"), &certificates.certificate).unwrap();
    std::fs::write(path("key.pem"), &certificates.key).unwrap();
    let config = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: '127.0.0.1:0', tls: {{certificate: {}, key: {}}}}}\n",
        path("data"),
        path("cert.pem"),
        path("key.pem")
    );
    std::fs::write(path("config.yml"), config).unwrap();
    let (sender, lines) = mpsc::channel(256);
    let program =
        Program::new("docker-registry", Duration::from_secs(120)).args(["serve", &path("config.yml")]);
    (program.lines_to(sender).run(), lines)
}

#[tokio::test]
async fn images_come_from_a_real_registry() {
    let version = Program::new("docker-registry", Duration::from_secs(20)).arg("--version").run().await;
    if version.is_err() {
        eprintln!("skipped: the package docker-registry is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let certificates = support::certificates();
    let (registry, mut lines) = debian_registry(dir.path(), &certificates).await;
    let test = async {
        let base = loop {
            let line = lines.recv().await.expect("the registry says where it listens");
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break format!("https://localhost:{port}");
            }
        };
        let ca = certificates.ca.clone().into_bytes();
        let client = reqwest::Client::builder()
            .tls_certs_merge(reqwest::Certificate::from_pem_bundle(&ca).unwrap())
            .build()
            .unwrap();
        let (layer, config) = (b"a layer".to_vec(), b"{}".to_vec());
        for blob in [&layer, &config] {
            let start = client.post(format!("{base}/v2/etcd/blobs/uploads/")).send().await.unwrap();
            let place = start.headers()["location"].to_str().unwrap().to_owned();
            let put = client.put(format!("{place}&digest=sha256:{}", sha256(blob))).body(blob.clone());
            assert!(put.send().await.unwrap().status().is_success());
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let part = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()});
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": part("application/vnd.oci.image.config.v1+json", &config),
            "layers": [part("application/vnd.oci.image.layer.v1.tar", &layer)],
        })
        .to_string();
        let put = client.put(format!("{base}/v2/etcd/manifests/3.6.5-0")).header("content-type", kind);
        assert!(put.body(manifest.clone()).send().await.unwrap().status().is_success());

        let sources =
            FetchSources { registry: base.clone(), extra_ca_pem: Some(ca), ..FetchSources::default() };
        let (progress, _lines) = mpsc::channel(16);
        let downloader = Downloader::new(&sources, dir.path().join("partial"), progress).unwrap();
        let registry = Registry::new(&base, &downloader);
        let pulled = registry.manifest("etcd", "3.6.5-0").await.unwrap();
        assert_eq!(
            (pulled.sha256.as_str(), pulled.bytes.as_slice()),
            (&*sha256(manifest.as_bytes()), manifest.as_bytes())
        );
        let path = registry.blob("etcd", &sha256(&layer), &pulled).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), layer);
        let missing = Failure::from(registry.manifest("etcd", "none").await.unwrap_err());
        assert_eq!(missing.id, "BUNDLE-UPSTREAM", "{missing}");
    };
    // Whichever ends first: dropping the registry's future ends its process.
    tokio::select! {
        () = test => {}
        ended = registry => panic!("the registry ended: {ended:?}"),
    }
}
