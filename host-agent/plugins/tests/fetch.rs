//! Manifests from an https server that is what it should be, and from those that are not. No cluster.

#[path = "common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::upstream::{Serving, Upstream};
use host_plugins::{FetchSetup, Manifests};
use k8sctl_types::failure::Failure;
use plugin_plan::{RemoteManifest, hash};
use tempfile::TempDir;

const BODY: &[u8] = b"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: upstream\n";

struct Bench {
    upstream: Upstream,
    manifests: Manifests,
    folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
        let setup = FetchSetup {
            roots: vec![upstream.root.clone()],
            deadline: Duration::from_secs(6),
            idle: Duration::from_secs(1),
            ..FetchSetup::new(folder.path().join("manifests"))
        };
        let manifests = Manifests::new(setup).expect("a client");
        Self { upstream, manifests, folder }
    }

    async fn get(&self, remote: &RemoteManifest) -> Result<Vec<u8>, Failure> {
        let prefix = format!("{}/project/", self.upstream.base);
        let below = move |url: &str| url.starts_with(&prefix);
        self.manifests.get("hello", remote, &below).await
    }

    /// That nothing is kept of what was refused.
    fn is_empty(&self) -> bool {
        let kept = std::fs::read_dir(self.folder.path().join("manifests"));
        kept.map_or(true, |files| files.count() == 0)
    }
}

fn remote(url: &str, body: &[u8]) -> RemoteManifest {
    RemoteManifest { url: url.to_owned(), sha256: hash::sha256_hex(body), ..RemoteManifest::default() }
}

#[tokio::test]
async fn a_manifest_is_fetched_once_and_kept_by_its_digest() {
    let bench = Bench::new().await;
    let url = bench.upstream.serve("/project/v1/all.yaml", Serving::Whole(BODY.to_vec()));
    let wanted = remote(&url, BODY);
    assert_eq!(bench.manifests.stored(&wanted.sha256).await, None);
    assert_eq!(bench.get(&wanted).await.expect("it is fetched"), BODY);
    // From now on upstream is not needed.
    bench.upstream.serve("/project/v1/all.yaml", Serving::Status(500));
    assert_eq!(bench.get(&wanted).await.expect("it is there"), BODY);
    assert_eq!(bench.upstream.asked(), ["/project/v1/all.yaml"]);
    assert_eq!(bench.manifests.stored(&wanted.sha256).await.as_deref(), Some(BODY));
}

#[tokio::test]
async fn two_at_once_fetch_it_once() {
    let bench = Bench::new().await;
    let url = bench.upstream.serve("/project/all.yaml", Serving::Whole(BODY.to_vec()));
    let wanted = remote(&url, BODY);
    let (one, two) = tokio::join!(bench.get(&wanted), bench.get(&wanted));
    assert_eq!((one.expect("it is fetched"), two.expect("it is there")), (BODY.to_vec(), BODY.to_vec()));
    assert_eq!(bench.upstream.asked().len(), 1);
}

#[tokio::test]
async fn redirects_stay_below_the_prefix() {
    let bench = Bench::new().await;
    let upstream = &bench.upstream;
    upstream.serve("/project/v1/all.yaml", Serving::Whole(BODY.to_vec()));
    let url = upstream.serve("/project/latest", Serving::Redirect("v1/all.yaml".to_owned()));
    assert_eq!(bench.get(&remote(&url, BODY)).await.expect("it leads to a file of the project"), BODY);

    upstream.serve("/elsewhere/all.yaml", Serving::Whole(BODY.to_vec()));
    let other = b"another body";
    for to in
        ["/elsewhere/all.yaml", "https://127.0.0.1:1/project/all.yaml", "http://localhost/project/all.yaml"]
    {
        let url = upstream.serve("/project/away", Serving::Redirect(to.to_owned()));
        let failure = bench.get(&remote(&url, other)).await.expect_err(to);
        assert_eq!(failure.id, "PLUGIN-REMOTE-PLACE", "{failure}");
    }
    let round = upstream.serve("/project/round", Serving::Redirect("/project/round".to_owned()));
    let failure = bench.get(&remote(&round, other)).await.expect_err("it never ends");
    assert_eq!(failure.id, "PLUGIN-REMOTE-PLACE", "{failure}");
    assert!(!upstream.asked().iter().any(|path| path.starts_with("/elsewhere")), "it was not even asked");
    let direct = format!("{}/elsewhere/all.yaml", upstream.base);
    let failure = bench.get(&remote(&direct, other)).await.expect_err("it is no declared place");
    assert_eq!(failure.id, "PLUGIN-REMOTE-PLACE", "{failure}");
}

#[tokio::test]
async fn what_is_not_what_it_should_be_is_refused_and_not_kept() {
    let bench = Bench::new().await;
    let long = vec![b'#'; 100_000];
    for (what, serving, max_bytes, id) in [
        ("another body", Serving::Whole(b"something else".to_vec()), 0, "PLUGIN-REMOTE-DIGEST"),
        ("cut", Serving::Cut(BODY.to_vec(), 10), 0, "PLUGIN-REMOTE-SIZE"),
        ("too long", Serving::Whole(long), 50_000, "PLUGIN-REMOTE-SIZE"),
        ("endless", Serving::Endless, 50_000, "PLUGIN-REMOTE-SIZE"),
        ("not there", Serving::Status(404), 0, "PLUGIN-REMOTE"),
        ("busy", Serving::Status(503), 0, "PLUGIN-REMOTE"),
        ("stalled", Serving::Stalled(BODY.to_vec()), 0, "PLUGIN-REMOTE"),
    ] {
        let url = bench.upstream.serve("/project/all.yaml", serving);
        let begun = Instant::now();
        let wanted = RemoteManifest { max_bytes, ..remote(&url, BODY) };
        let failure = bench.get(&wanted).await.expect_err(what);
        assert_eq!(failure.id, id, "{what}: {failure}");
        assert!(failure.reason.contains(&url), "{failure}");
        assert!(begun.elapsed() < Duration::from_secs(9), "{what}: {:?}", begun.elapsed());
        assert!(bench.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn files_of_a_directory_are_as_good_as_upstream() {
    let bench = Bench::new().await;
    let from = tempfile::tempdir().expect("a folder");
    std::fs::write(from.path().join("whatever.yaml"), BODY).expect("written");
    let wanted = remote("https://nowhere.invalid/project/all.yaml", BODY);
    let found = bench.manifests.take_from(from.path(), std::slice::from_ref(&wanted.sha256)).await;
    assert_eq!(found.expect("they are read"), std::slice::from_ref(&wanted.sha256));
    assert_eq!(bench.get(&wanted).await.expect("it is there"), BODY, "without a network");
    let failure =
        bench.manifests.take_from(&from.path().join("nowhere"), &[]).await.expect_err("it is not there");
    assert_eq!(failure.id, "PLUGIN-REMOTE", "{failure}");
}
