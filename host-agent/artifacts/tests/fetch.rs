//! Fetching a bundle from a fake upstream on loopback: whole, cut and resumed, wrong, out of reach.
#![allow(clippy::unwrap_used)]

mod support;

use host_artifacts::bundle::{BundleStore, Role, store};
use host_artifacts::fetch::{self, FetchSources};
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
    let names = std::fs::read_dir(dir.path().join("partial")).unwrap().flatten();
    assert!(!names.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().ends_with(".part")));
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
