//! A change that is refused before anything is written: the plugin is what it was, is looked after by the plan that it has,
//! and the refusal is told.

use host_plugins::{Ended, Given, PluginState, Wish, WishKind};
use k8s_openapi::api::core::v1::ConfigMap;
use k8sctl_types::event::EventType;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::bench::{Bench, failure, wish};
use crate::shelf::Data;

const MORE: &str = "[[permission]]\ngroup = \"\"\nkind = \"ConfigMap\"\nnamespaces = [\"hello\"]\n\
                    verbs = [\"get\", \"create\", \"patch\", \"delete\"]\n\
                    [[permission]]\ngroup = \"\"\nkind = \"ConfigMap\"\nnamespaces = [\"default\"]\n\
                    names = [\"theirs\"]\nverbs = [\"get\", \"create\", \"patch\", \"delete\"]\n";

fn with(data: Data, objects: &str) -> Data {
    Data { manifest: MORE, objects: objects.to_owned().leak(), ..data }
}

fn map(namespace: &str, name: &str, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {namespace}\n{more}"
    )
}

fn upgrade(bench: &Bench, to: &str) -> Wish {
    Wish { to: Some(bench.shelf.at(to).display().to_string()), ..wish(WishKind::Upgrade, "hello", None) }
}

#[tokio::test]
async fn what_is_refused_changes_nothing_of_what_is_installed() {
    let many: String = (0..12).map(|number| map("hello", &format!("many-{number}"), "")).collect();
    let theirs = map("default", "theirs", "");
    let made = Bench::start(async |shelf| {
        let next = |place: &str, more: &str| {
            shelf.data(&format!("{place}/hello"), &with(Data::next("hello"), &format!("{many}{more}")))
        };
        vec![
            shelf.data("path/hello", &with(Data::new("hello"), &many)),
            next("foreign", &theirs),
            next("unknown-field", &map("hello", "odd", "nonsense: {a: b}\n")),
            shelf.data("fewer/hello", &with(Data::next("hello"), "")),
            shelf.data("path/other", &Data { namespace: "default", ..Data::new("other") }),
        ]
    });
    let Some(bench) = made.await else { return };
    let people: Api<ConfigMap> = Api::namespaced(bench.cluster.people.clone(), "default");
    for name in ["theirs", "other"] {
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a map");
        people.create(&PostParams::default(), &map).await.expect("people have one of that name");
    }
    let add = wish(WishKind::Add, "hello", Some(&json!({"message": "one"})));
    assert_eq!(bench.wish(&add).await.expect("it is added").objects, 14);
    bench.told();

    let writes = bench.cluster.writes().await;
    for (to, id) in [
        ("foreign/hello", "PLUGIN-OBJECT-FOREIGN"),
        ("unknown-field/hello", "PLUGIN-OBJECT-INVALID"),
        ("fewer/hello", "PLUGIN-REFUSED"),
    ] {
        let refused = failure(bench.wish(&upgrade(&bench, to)).await);
        assert_eq!(refused.id, id, "{refused}");
        let status = bench.status("hello").await.expect("it is there");
        let standing = (status.state, status.version.as_str(), status.revision, status.objects);
        assert_eq!(standing, (PluginState::Ready, "0.1.0", 1, 14), "{to}");
        assert_eq!(status.message, format!("the last try changed nothing: {refused}"), "{to}");
        assert_eq!(bench.told(), [("hello".to_owned(), EventType::PluginFailed)], "{to}");
        let details = bench.host.show(&bench.access.cluster_id, "hello").await.expect("it shows");
        assert_eq!(
            (details.config_json.as_str(), details.revisions.len()),
            (r#"{"message":"one"}"#, 1),
            "{to}"
        );
    }
    assert_eq!(bench.cluster.writes().await, writes);

    // What others change is put back, by the plan that is applied.
    let maps: Api<ConfigMap> = Api::namespaced(bench.cluster.people.clone(), "hello");
    let somebody = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
    let change = Patch::Merge(json!({"data": {"text": "theirs"}}));
    maps.patch("hello", &somebody, &change).await.expect("somebody changes it");
    let drift = ("hello".to_owned(), EventType::PluginDriftCorrected);
    bench.keep_until("the change is undone", async |bench: &Bench| bench.told().contains(&drift)).await;
    assert_eq!(bench.text("hello").await.map(|(text, _)| text).as_deref(), Some("one"));

    // The same with consent is carried out, and nothing is told of the last try any more.
    let given = Given { prune_many: true, by_uid: 1000, ..Given::default() };
    let follow = bench.host.begin(&bench.access, &upgrade(&bench, "fewer/hello"), &given).await;
    let Ended::Status(status) = follow.expect("it begins").ended.await else { panic!("it fails") };
    assert_eq!((status.version.as_str(), status.revision, status.objects), ("0.2.0", 2, 2));
    assert!(!status.message.contains("the last try"), "{}", status.message);

    // One that was never there is told of, until nobody wants to know.
    let refused = failure(bench.wish(&wish(WishKind::Add, "other", None)).await);
    assert_eq!(refused.id, "PLUGIN-OBJECT-FOREIGN", "{refused}");
    let status = bench.status("other").await.expect("the last try is told");
    assert_eq!((status.state, status.revision, status.objects), (PluginState::Failed, 0, 0));
    assert_eq!(status.message, refused.to_string());
    assert_eq!(bench.remove("other").await.expect_err("it is not there").id, "PLUGIN-NOT-INSTALLED");
    assert!(bench.status("other").await.is_none());
}
