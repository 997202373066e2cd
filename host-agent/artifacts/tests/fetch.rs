//! Fetching a bundle from a fake upstream on loopback: whole, cut and resumed, wrong, out of reach.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use host_artifacts::bundle::{Bundle, BundleStore, Role, store};
use host_artifacts::digest::sha256;
use host_artifacts::fetch::download::Downloader;
use host_artifacts::fetch::registry::Registry;
use host_artifacts::fetch::{self, FetchSources};
use k8sctl_command::Program;
use k8sctl_types::failure::Failure;
use support::{Fault, Upstream};
use tokio::sync::mpsc;

const KUBELET: &str = "/release/v1.34.1/bin/linux/amd64/kubelet";

async fn fetch_into(dir: &Path, sources: &FetchSources) -> Result<Bundle, Failure> {
    let (progress, _lines) = mpsc::channel(256);
    fetch_telling(dir, sources, progress).await
}

async fn fetch_telling(
    dir: &Path,
    sources: &FetchSources,
    progress: mpsc::Sender<String>,
) -> Result<Bundle, Failure> {
    fetch::fetch(&BundleStore::new(dir), &"v1.34.1".parse().unwrap(), sources, progress).await
}

/// Reads lines until one has these words.
async fn until(lines: &mut mpsc::Receiver<String>, words: &str) {
    while !lines.recv().await.expect("it says so before it ends").contains(words) {}
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
    let left: Vec<_> = fs::read_dir(dir.path().join("partial")).unwrap().flatten().collect();
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

/// Digests and manifests are no files: nothing of them is kept, so they are asked for again.
#[tokio::test]
async fn a_small_body_that_is_cut_is_asked_for_again() {
    let (upstream, sources) = Upstream::whole().serve().await;
    let (sums, manifest) = (format!("{KUBELET}.sha256"), "/v2/pause/manifests/3.10.1");
    upstream.fault(&sums, Fault::Cut { after: 10, times: 1 });
    upstream.fault(manifest, Fault::Cut { after: 20, times: 1 });
    let dir = tempfile::tempdir().unwrap();
    fetch_into(dir.path(), &sources).await.unwrap();
    assert_eq!(upstream.ranges_of(&sums).len(), 2);
    // One was asked to bring a token.
    assert_eq!(upstream.ranges_of(manifest).len(), 3);
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
async fn two_at_once_are_one_after_the_other_and_the_second_finds_the_result() {
    let (upstream, sources) = Upstream::whole().serve().await;
    upstream.fault(KUBELET, Fault::Held);
    let dir = tempfile::tempdir().unwrap();
    let (progress, mut first_lines) = mpsc::channel(256);
    let first = fetch_telling(dir.path(), &sources, progress);
    let second = async {
        until(&mut first_lines, "downloading").await;
        let (progress, mut lines) = mpsc::channel(256);
        let let_go = async {
            until(&mut lines, "another fetch or import is under way; waiting for it").await;
            upstream.let_go();
        };
        tokio::join!(fetch_telling(dir.path(), &sources, progress), let_go).0
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.unwrap().digest, second.unwrap().digest);
    assert_eq!(upstream.ranges_of(KUBELET), [""], "the second downloads nothing");
}

#[tokio::test]
async fn one_that_waited_for_a_failure_fetches_itself() {
    let (_upstream, sources) = Upstream::whole().serve().await;
    let dir = tempfile::tempdir().unwrap();
    let other = File::open(dir.path()).unwrap();
    other.lock().unwrap();
    let (progress, mut lines) = mpsc::channel(256);
    let ends = async {
        until(&mut lines, "waiting for it").await;
        drop(other);
    };
    let (fetched, ()) = tokio::join!(fetch_telling(dir.path(), &sources, progress), ends);
    store::verify(&fetched.unwrap().path).unwrap();
}

#[tokio::test]
async fn a_layer_that_images_share_is_downloaded_once() {
    let (upstream, sources) = Upstream::whole().serve().await;
    let dir = tempfile::tempdir().unwrap();
    fetch_into(dir.path(), &sources).await.unwrap();
    let layer = sha256(support::SHARED_LAYER);
    let asked = upstream.asked.lock().unwrap();
    // One request, and the one that it is led on to.
    assert_eq!(asked.iter().filter(|(path, _)| path.ends_with(&layer)).count(), 2);
}

#[tokio::test]
async fn what_is_kept_is_read_before_it_is_used() {
    let (upstream, sources) = Upstream::whole().serve().await;
    let dir = tempfile::tempdir().unwrap();
    let partial = dir.path().join("partial");
    fs::create_dir(&partial).unwrap();
    // As a crash of the host leaves them: the name is there and the content is not.
    let kubelet = support::big();
    fs::write(partial.join(sha256(&kubelet)), vec![0; kubelet.len()]).unwrap();
    let kubectl = vec![b'c'; 5000];
    fs::write(partial.join(format!("{}.part", sha256(&kubectl))), vec![0; 2000]).unwrap();
    let (progress, mut lines) = mpsc::channel(256);
    let bundle = fetch_telling(dir.path(), &sources, progress).await.unwrap();
    store::verify(&bundle.path).unwrap();
    let part = bundle.manifest.component("kubelet").unwrap();
    assert_eq!(part.sha256, sha256(&kubelet));
    assert_eq!(upstream.ranges_of(KUBELET), [""]);
    let mut said = Vec::new();
    while let Ok(line) = lines.try_recv() {
        said.push(line);
    }
    for name in ["kubelet", "kubectl"] {
        let line = format!("what was kept of {name} is damaged: downloading it anew");
        assert_eq!(said.iter().filter(|said| **said == line).count(), 1, "{said:?}");
    }
}

#[tokio::test]
async fn a_busy_host_is_left_alone_for_as_long_as_it_asks() {
    let (upstream, sources) = Upstream::whole().serve().await;
    upstream.fault(KUBELET, Fault::Busy { pause: "3", times: 1 });
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    fetch_into(dir.path(), &sources).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(upstream.ranges_of(KUBELET).len(), 2);

    upstream.fault(KUBELET, Fault::Busy { pause: "3600", times: 9 });
    upstream.asked.lock().unwrap().clear();
    let failure = fetch_into(dir.path(), &sources).await.unwrap_err();
    assert_eq!(failure.id, "BUNDLE-UPSTREAM", "{failure}");
    assert!(failure.reason.contains("429") && failure.reason.contains("3600 s"), "{failure}");
    assert_eq!(upstream.ranges_of(KUBELET), [""], "nobody waits for an hour");
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

/// A port that was free a moment ago: nobody answers there.
fn nobody() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("https://127.0.0.1:{port}")
}

#[tokio::test]
async fn no_network_is_where_nobody_answers() {
    let sources =
        FetchSources { kubernetes: nobody(), github: nobody(), registry: nobody(), extra_ca_pem: None };
    let dir = tempfile::tempdir().unwrap();
    let failure = fetch_into(dir.path(), &sources).await.unwrap_err();
    assert_eq!(failure.id, "BUNDLE-UNREACHABLE", "{failure}");
}

#[tokio::test]
async fn one_host_out_of_reach_is_named_and_is_not_the_network() {
    let (upstream, sources) = Upstream::whole().serve().await;
    let without = |change: fn(&mut FetchSources, String)| {
        let (mut sources, base) = (sources.clone(), nobody());
        change(&mut sources, base.clone());
        (sources, base.replace("https://", "host "))
    };
    let only_the_registry = {
        let kubernetes = nobody();
        let object = kubernetes.replace("https://", "host ");
        (FetchSources { github: kubernetes.clone(), kubernetes, ..sources.clone() }, object)
    };
    let cases = [
        only_the_registry,
        without(|sources, base| sources.kubernetes = base),
        without(|sources, base| sources.github = base),
        without(|sources, base| sources.registry = base),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (sources, object) in cases {
        let failure = fetch_into(dir.path(), &sources).await.unwrap_err();
        assert_eq!((failure.id.as_str(), failure.object.as_str()), ("BUNDLE-HOST-UNREACHABLE", &*object));
        assert!(failure.reason.contains("others answer (localhost:"), "{failure}");
    }
    // Where nobody has answered yet, the others are asked whether they would.
    assert!(upstream.asked.lock().unwrap().iter().any(|(path, _)| path == "/"));
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
    dir: &Path,
    certificates: &support::Certificates,
) -> (impl Future<Output = Result<String, k8sctl_command::CommandError>> + use<>, mpsc::Receiver<String>) {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    fs::write(path("cert.pem"), &certificates.certificate).unwrap();
    fs::write(path("key.pem"), &certificates.key).unwrap();
    let config = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: '127.0.0.1:0', tls: {{certificate: {}, key: {}}}}}\n",
        path("data"),
        path("cert.pem"),
        path("key.pem")
    );
    fs::write(path("config.yml"), config).unwrap();
    let (sender, lines) = mpsc::channel(256);
    let program =
        Program::new("docker-registry", Duration::from_secs(120)).args(["serve", &path("config.yml")]);
    (program.lines_to(sender).run(), lines)
}

#[tokio::test]
async fn images_come_from_a_real_registry() {
    let version = Program::new("docker-registry", Duration::from_secs(20)).arg("--version").run().await;
    version.expect(
        "docker-registry is on the PATH: tests/lab/prepare gets it, tests/lab/cargo-test puts it there",
    );
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
        assert_eq!(fs::read(path).unwrap(), layer);
        let missing = Failure::from(registry.manifest("etcd", "none").await.unwrap_err());
        assert_eq!(missing.id, "BUNDLE-UPSTREAM", "{missing}");
    };
    // Whichever ends first: dropping the registry's future ends its process.
    tokio::select! {
        () = test => {}
        ended = registry => panic!("the registry ended: {ended:?}"),
    }
}

const PROXY_TEST: &str = "a_proxy_of_the_environment_is_used_and_its_password_stays_there";

/// Answers each CONNECT with a tunnel, or with a refusal; sends on what it was asked.
async fn proxy(listener: tokio::net::TcpListener, refuses: bool, heads: mpsc::Sender<String>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let serve = |mut stream: tokio::net::TcpStream| {
        let heads = heads.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            heads.send(head).await.unwrap();
            if refuses {
                return stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
            }
            let mut upstream = tokio::net::TcpStream::connect(target).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            tokio::io::copy_bidirectional(&mut stream, &mut upstream).await.map(drop)
        }
    };
    let mut open = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => open.push(serve(accepted.unwrap().0)),
            // A client may break off.
            Some(_) = futures::StreamExt::next(&mut open) => {}
        }
    }
}

/// What a fetch through the proxy of its environment says, and what the proxy was asked.
async fn fetch_through_a_proxy(refuses: bool) -> (String, Vec<String>) {
    let (_upstream, sources) = Upstream::whole().serve().await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, sources.extra_ca_pem.unwrap()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://somebody:canary@{}", listener.local_addr().unwrap());
    let (sender, mut heads) = mpsc::channel(256);
    // This very test, in a process of its own, for an environment is a process's.
    let child = Program::new(std::env::current_exe().unwrap(), Duration::from_secs(120))
        .args(["--exact", PROXY_TEST, "--nocapture"])
        .env("FETCH_TEST_UPSTREAM", &sources.kubernetes)
        .env("FETCH_TEST_CA", ca)
        .env("https_proxy", url)
        .env("no_proxy", "")
        .env("NO_PROXY", "");
    let said = tokio::select! {
        said = child.run() => said.unwrap(),
        () = proxy(listener, refuses, sender) => unreachable!("it serves for ever"),
    };
    heads.close();
    let mut asked = Vec::new();
    while let Some(head) = heads.recv().await {
        asked.push(head);
    }
    (said, asked)
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_used_and_its_password_stays_there() {
    if let Ok(base) = std::env::var("FETCH_TEST_UPSTREAM") {
        let ca = fs::read(std::env::var_os("FETCH_TEST_CA").unwrap()).unwrap();
        let sources = FetchSources {
            kubernetes: base.clone(),
            github: base.clone(),
            registry: base,
            extra_ca_pem: Some(ca),
        };
        let dir = tempfile::tempdir().unwrap();
        let (progress, mut lines) = mpsc::channel(256);
        let ended = fetch_telling(dir.path(), &sources, progress).await;
        println!("ended: {:?}", ended.map(|bundle| bundle.manifest.name));
        while let Ok(line) = lines.try_recv() {
            println!("progress: {line}");
        }
        return;
    }
    let (said, asked) = fetch_through_a_proxy(false).await;
    assert!(said.contains(r#"ended: Ok("kubernetes-v1.34.1")"#) && !said.contains("canary"), "{said}");
    let login = "c29tZWJvZHk6Y2FuYXJ5";
    assert!(!asked.is_empty() && asked.iter().all(|head| head.contains(login)), "{asked:?}");

    let (said, _) = fetch_through_a_proxy(true).await;
    assert!(said.contains("BUNDLE-UPSTREAM") && said.contains("proxy authorization required"), "{said}");
    assert!(!said.contains("canary") && !said.contains(login), "{said}");
}
