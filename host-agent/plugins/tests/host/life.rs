//! The life of one plugin by commands: added, configured, upgraded, rolled back, looked after, removed.

use host_plugins::{Given, PluginState, WishError, WishKind};
use k8s_openapi::api::core::v1::ConfigMap;
use k8sctl_types::event::EventType;
use kube::Api;
use kube::api::{Patch, PatchParams};
use plugin_plan::SecretRef;
use serde_json::json;

use crate::bench::{Bench, failure, wish};
use crate::shelf::Data;

/// The second version of it has a ConfigMap in another namespace, too.
fn wider() -> Data {
    Data {
        manifest: "[[permission]]\ngroup = \"\"\nkind = \"ConfigMap\"\nnamespaces = [\"hello\", \"default\"]\n\
            names = [\"more\"]\nverbs = [\"get\", \"create\", \"patch\", \"delete\"]\nwhy = \"more of it\"\n",
        objects: "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: more\n  namespace: default\ndata: {}\n",
        ..Data::next("hello")
    }
}

#[tokio::test]
async fn a_plugin_comes_changes_goes_back_and_goes() {
    let bench = Bench::start(async |shelf| {
        vec![
            shelf.data("path/hello", &Data::new("hello")),
            shelf.data("next/hello", &wider()),
            // It needs the other one.
            shelf.data("path/top", &Data { requires: &["hello"], ..Data::new("top") }),
        ]
    });
    let Some(bench) = bench.await else { return };
    let cluster = bench.access.cluster_id.clone();
    let add = wish(WishKind::Add, "hello", Some(&json!({"message": "one"})));

    // What it would do is shown, and nothing is done.
    let offer = bench.offer(&add).await.expect("an offer");
    assert_eq!(offer.objects, ["v1 Namespace hello", "v1 ConfigMap hello/hello"]);
    assert_eq!((offer.new_permissions.len(), offer.from_version.as_deref()), (2, None));
    assert_eq!(offer.trust.to_string(), "built-in");
    assert!(!bench.has_namespace("hello").await);

    // Nobody approved it; and a plan that is another than the one that was seen is refused.
    let begun = bench.host.begin(&bench.access, &add, &Given::default()).await;
    assert_eq!(failure(begun.map(drop)).id, "PLUGIN-NOT-APPROVED");
    let given = Given {
        approved_digest: offer.permissions_digest.clone(),
        plan_digest: "another".to_owned(),
        ..Given::default()
    };
    let begun = bench.host.begin(&bench.access, &add, &given).await;
    assert!(failure(begun.map(drop)).reason.contains("another than the one that was shown"));
    assert!(!bench.has_namespace("hello").await && bench.status("hello").await.is_none());

    let status = bench.wish(&add).await.expect("it is added");
    assert_eq!((status.state, status.revision, status.objects), (PluginState::Ready, 1, 2));
    assert_eq!((status.origin.as_str(), status.trust.as_str()), ("command", "built-in"));
    let (text, uid) = bench.text("hello").await.expect("its map");
    assert_eq!(text, "one");
    let told = |kind| ("hello".to_owned(), kind);
    assert_eq!(bench.told(), [EventType::PluginApproved, EventType::PluginInstalled].map(told));

    // The same again changes nothing, and asks for no approval.
    let again = bench.host.begin(&bench.access, &add, &Given::default()).await;
    again.expect("nothing is new").ended.await;
    let status = bench.status("hello").await.expect("it is there");
    assert_eq!((status.message.as_str(), status.revision), ("no changes", 1));
    assert!(bench.told().is_empty());

    // Mistakes have their places.
    let bad = wish(WishKind::Configure, "hello", Some(&json!({"message": "", "colour": "red"})));
    let Err(WishError::Config(mistakes)) = bench.offer(&bad).await else { panic!("it has mistakes") };
    let mut places: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
    places.sort_unstable();
    assert_eq!(places, ["/colour", "/message"]);

    let configure = wish(WishKind::Configure, "hello", Some(&json!({"message": "two"})));
    let status = bench.wish(&configure).await.expect("it is configured");
    assert_eq!((status.revision, bench.text("hello").await), (2, Some(("two".to_owned(), uid.clone()))));
    let details = bench.host.show(&cluster, "hello").await.expect("it shows");
    assert_eq!(details.outputs.get("text").map(String::as_str), Some("two"));
    assert_eq!(bench.told(), [("hello".to_owned(), EventType::PluginConfigured)]);

    // Who adds it once more is told that the config is another.
    let remarks = bench.offer(&add).await.expect("an offer").remarks;
    assert!(remarks.iter().any(|remark| remark.contains("which this one replaces")), "{remarks:?}");

    // An upgrade migrates the config, and asks only for what is new.
    let mut upgrade = wish(WishKind::Upgrade, "hello", None);
    upgrade.to = Some(bench.shelf.at("next/hello").display().to_string());
    let offer = bench.offer(&upgrade).await.expect("an offer");
    assert_eq!(offer.from_version.as_deref(), Some("0.1.0"));
    let [new] = &offer.new_permissions[..] else { panic!("{:?}", offer.new_permissions) };
    assert!(new.ends_with("more of it"), "{new}");
    let status = bench.wish(&upgrade).await.expect("it is upgraded");
    assert_eq!((status.version.as_str(), status.revision, status.objects), ("0.2.0", 3, 3));
    let details = bench.host.show(&cluster, "hello").await.expect("it shows");
    assert_eq!(details.config_json, r#"{"text":"two"}"#);
    assert_eq!(details.permissions.len(), 3);
    assert_eq!(bench.told(), [EventType::PluginApproved, EventType::PluginUpgraded].map(told));

    // And back: what the upgrade brought is gone, the rest is what it was.
    let runs = bench.runs("hello").await;
    let status = bench.wish(&wish(WishKind::RollBack, "hello", None)).await.expect("it is rolled back");
    assert_eq!((status.version.as_str(), status.revision), ("0.1.0", 4));
    assert_eq!(bench.text("hello").await, Some(("two".to_owned(), uid)));
    let others: Api<ConfigMap> = Api::namespaced(bench.cluster.client.clone(), "default");
    assert!(others.get_opt("more").await.expect("the API answers").is_none());
    let details = bench.host.show(&cluster, "hello").await.expect("it shows");
    let revisions: Vec<_> = details.revisions.iter().map(|one| (one.revision, one.current)).collect();
    assert_eq!(revisions, [(4, true), (3, false), (2, false), (1, false)]);
    // It plans nothing again; only its judgement may be asked.
    assert!(bench.runs("hello").await <= runs + 1);
    assert_eq!(bench.told(), [("hello".to_owned(), EventType::PluginRolledBack)]);

    // What others change is put back.
    let maps: Api<ConfigMap> = Api::namespaced(bench.cluster.client.clone(), "hello");
    let theirs = json!({"data": {"text": "theirs"}});
    let manager = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
    maps.patch("hello", &manager, &Patch::Merge(&theirs)).await.expect("somebody changes it");
    let drift = ("hello".to_owned(), EventType::PluginDriftCorrected);
    let is_told = async |bench: &Bench| bench.told().contains(&drift);
    bench.keep_until("the change is undone, and told", is_told).await;
    assert_eq!(bench.text("hello").await.map(|(text, _)| text).as_deref(), Some("two"));

    // Others need it.
    bench.wish(&wish(WishKind::Add, "top", None)).await.expect("it is added");
    let needed = bench.remove("hello").await.expect_err("top needs it");
    assert_eq!((needed.id.as_str(), needed.reason.as_str()), ("PLUGIN-NEEDED", "it is needed by top"));
    bench.remove("top").await.expect("it goes");

    let secret = SecretRef { handle: "admin".to_owned(), key: "password".to_owned() };
    let value = zeroize::Zeroizing::new(b"secret".to_vec());
    bench.host.set_secret(&cluster, "hello", &secret, value).await.expect("it is kept");
    bench.told();
    assert_eq!(bench.remove("hello").await.expect("it goes"), Vec::<String>::new());
    assert!(!bench.has_namespace("hello").await && bench.status("hello").await.is_none());
    assert!(!bench.shelf.at("secrets").join(&cluster).join("hello").exists());
    assert_eq!(bench.told(), [("hello".to_owned(), EventType::PluginRemoved)]);
    let gone = bench.remove("hello").await.expect_err("it is gone");
    assert_eq!(gone.id, "PLUGIN-NOT-INSTALLED");
    // Its packages are, too.
    let stored = std::fs::read_dir(bench.shelf.at("store")).expect("it is there").count();
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn what_fails_before_anything_is_begun_changes_nothing() {
    let bench = Bench::start(async |shelf| {
        let forbidden = "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  namespace: default\n";
        vec![
            shelf.data("path/greedy", &Data { objects: forbidden, ..Data::new("greedy") }),
            shelf.data("path/top", &Data { requires: &["nothing-has-this"], ..Data::new("top") }),
        ]
    });
    let Some(bench) = bench.await else { return };
    let id = async |plugin: &str| failure(bench.wish(&wish(WishKind::Add, plugin, None)).await).id;
    assert_eq!(id("greedy").await, "PLUGIN-REFUSED");
    assert_eq!(id("top").await, "PLUGIN-REQUIRES");
    assert_eq!(id("unknown").await, "PLUGIN-UNKNOWN");
    // Nobody signed it, and nobody built it with the host agent.
    bench.shelf.data("path/strange", &Data::new("strange"));
    assert_eq!(id("strange").await, "PLUGIN-UNSIGNED");
    let mut dev = wish(WishKind::Add, "strange", None);
    dev.dev = true;
    assert_eq!(bench.wish(&dev).await.expect("it is added").trust, "dev");
    for name in ["greedy", "top"] {
        assert!(!bench.has_namespace(name).await && bench.status(name).await.is_none(), "{name}");
    }
    let none = failure(bench.wish(&wish(WishKind::RollBack, "strange", None)).await);
    assert_eq!(none.id, "PLUGIN-NO-REVISION");
}
