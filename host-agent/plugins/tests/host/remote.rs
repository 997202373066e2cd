//! A manifest of elsewhere that is not what the plugin was written for: refused, with nothing begun and nothing applied.

use host_plugins::{PluginState, WishKind};
use plugin_plan::hash;

use crate::bench::{Bench, failure, wish};
use crate::common::upstream::{Serving, Upstream};
use crate::shelf::Data;

const BODY: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: theirs\n  namespace: remote\ndata: {a: b}\n";
const PATH: &str = "/project/v1/all.yaml";

/// A plugin with a manifest that this server has.
fn with_manifest(upstream: &Upstream) -> Data {
    let (base, sha256, bytes) = (&upstream.base, hash::sha256_hex(BODY.as_bytes()), BODY.len());
    let pinned = format!("[[manifest]]\nurl = \"{base}{PATH}\"\nsha256 = \"{sha256}\"\n");
    let asks = format!(
        "[[permission]]\ngroup = \"\"\nkind = \"ConfigMap\"\nnamespaces = [\"remote\"]\nnames = [\"theirs\"]\n\
         verbs = [\"get\", \"create\", \"patch\", \"delete\"]\n\
         [[remote]]\nprefix = \"{base}/project/\"\n{pinned}bytes = {bytes}\n"
    );
    // The server has another port in each run.
    Data { manifest: asks.leak(), data: format!("{pinned}objects = 1\n").leak(), ..Data::new("remote") }
}

#[tokio::test]
async fn a_manifest_that_is_another_one_applies_nothing() {
    let upstream = Upstream::start().await;
    let made = Bench::start_with(vec![upstream.root.clone()], async |shelf| {
        vec![shelf.data("path/remote", &with_manifest(&upstream))]
    });
    let Some(bench) = made.await else { return };
    let add = wish(WishKind::Add, "remote", None);
    let offer = bench.offer(&add).await.expect("an offer");
    assert_eq!(offer.objects, ["v1 Namespace remote", "v1 ConfigMap remote/remote"]);
    assert!(offer.remarks.iter().any(|line| line.contains(PATH)), "{:?}", offer.remarks);
    // Of half a plan no differences are shown.
    let seen = bench.host.offer(&bench.access, &add, true).await.expect("it is looked at");
    assert!(seen.diffs.is_empty() && seen.remarks == offer.remarks, "{:?}", seen.remarks);

    let elsewhere = upstream.serve("/elsewhere/all.yaml", Serving::Whole(BODY.into()));
    let writes = bench.cluster.writes().await;
    for (what, serving, id) in [
        ("another body", Serving::Whole(b"something else".to_vec()), "PLUGIN-REMOTE-DIGEST"),
        ("cut", Serving::Cut(BODY.into(), 20), "PLUGIN-REMOTE-SIZE"),
        ("endless", Serving::Endless, "PLUGIN-REMOTE-SIZE"),
        ("stalled", Serving::Stalled(b"apiVersion".to_vec()), "PLUGIN-REMOTE"),
        ("elsewhere", Serving::Redirect(elsewhere), "PLUGIN-REMOTE-PLACE"),
        ("not there", Serving::Status(404), "PLUGIN-REMOTE"),
    ] {
        upstream.serve(PATH, serving);
        let refused = failure(bench.wish(&add).await);
        assert_eq!(refused.id, id, "{what}: {refused}");
        let status = bench.status("remote").await.expect("the last try is told");
        assert_eq!((status.state, status.revision, status.objects), (PluginState::Failed, 0, 0), "{what}");
        assert_eq!(bench.cluster.writes().await, writes, "{what}");
    }
    assert!(!upstream.asked().iter().any(|path| path.starts_with("/elsewhere")), "it was not even asked");

    // The right one is applied, and kept: later nobody has to be asked.
    upstream.serve(PATH, Serving::Whole(BODY.into()));
    let status = bench.wish(&add).await.expect("it is added");
    assert_eq!((status.state, status.objects), (PluginState::Ready, 3));
    upstream.serve(PATH, Serving::Status(404));
    let asked = upstream.asked().len();
    assert_eq!(bench.remove("remote").await.expect("it goes"), Vec::<String>::new());
    assert_eq!(bench.wish(&add).await.expect("it is added without a network").objects, 3);
    assert_eq!(upstream.asked().len(), asked);

    // What it has differs in nothing; and with its manifest lost, what that holds is not taken for what is planned no more.
    let same = wish(WishKind::Configure, "remote", None);
    let seen = bench.host.offer(&bench.access, &same, true).await.expect("it is looked at");
    assert_eq!((seen.diffs.len(), seen.remarks), (3, vec!["create 0, change 0, delete 0".to_owned()]));
    for file in std::fs::read_dir(bench.shelf.at("manifests")).expect("the store") {
        std::fs::remove_file(file.expect("a file").path()).expect("it is lost");
    }
    let seen = bench.host.offer(&bench.access, &same, true).await.expect("it is looked at");
    assert!(seen.diffs.is_empty(), "{:?}", seen.diffs);
    assert_eq!(seen.remarks[0], "2 objects, 0 of them new");
    assert!(seen.remarks.len() == 2 && seen.remarks[1].contains(PATH), "{:?}", seen.remarks);
}
