//! Definitions of kinds through the life of a plugin: an upgrade adds to one, and no way back takes that from objects of
//! others.

use host_plugins::WishKind;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8sctl_types::event::EventType;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::bench::{Bench, wish};
use crate::shelf::Data;

const NAME: &str = "things.kinds.example.org";

/// With a kind whose objects have a size, and more.
fn with_kind(data: Data, more: &str) -> Data {
    let asks = format!(
        "[[permission]]\ngroup = \"apiextensions.k8s.io\"\nkind = \"CustomResourceDefinition\"\nnames = [\"{NAME}\"]\n\
         verbs = [\"get\", \"create\", \"patch\", \"delete\"]\n"
    );
    let definition = format!(
        "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: {NAME}\nspec:\n\
         \x20 group: kinds.example.org\n  scope: Namespaced\n\
         \x20 names: {{kind: Thing, listKind: ThingList, plural: things, singular: thing}}\n\
         \x20 versions:\n  - name: v1\n    served: true\n    storage: true\n    schema:\n      openAPIV3Schema:\n\
         \x20       type: object\n        properties:\n          size: {{type: integer}}\n{more}"
    );
    Data { manifest: asks.leak(), objects: definition.leak(), ..data }
}

#[tokio::test]
async fn what_an_upgrade_added_to_a_kind_stays_after_a_rollback() {
    let made = Bench::start(async |shelf| {
        let colour = "          colour: {type: string}\n";
        vec![
            shelf.data("path/kinds", &with_kind(Data::new("kinds"), "")),
            shelf.data("next/kinds", &with_kind(Data::next("kinds"), colour)),
        ]
    });
    let Some(bench) = made.await else { return };
    let definitions: Api<CustomResourceDefinition> = Api::all(bench.cluster.client.clone());
    let has_colour = async || {
        let definition = definitions.get(NAME).await.expect("it is there");
        let definition = serde_json::to_value(definition).expect("JSON");
        definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/colour").is_some()
    };
    bench.wish(&wish(WishKind::Add, "kinds", Some(&json!({"message": "one"})))).await.expect("it is added");
    assert!(!has_colour().await);
    let mut upgrade = wish(WishKind::Upgrade, "kinds", None);
    upgrade.to = Some(bench.shelf.at("next/kinds").display().to_string());
    bench.wish(&upgrade).await.expect("it is upgraded");
    assert!(has_colour().await, "an upgrade changes it");
    let status = bench.wish(&wish(WishKind::RollBack, "kinds", None)).await.expect("it is rolled back");
    assert_eq!((status.version.as_str(), has_colour().await), ("0.1.0", true));

    // Who looks after it puts back what others change, and leaves the definition alone.
    bench.told();
    let maps: Api<ConfigMap> = Api::namespaced(bench.cluster.client.clone(), "kinds");
    let somebody = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
    let theirs = Patch::Merge(json!({"data": {"text": "theirs"}}));
    maps.patch("kinds", &somebody, &theirs).await.expect("somebody changes it");
    let drift = ("kinds".to_owned(), EventType::PluginDriftCorrected);
    bench.keep_until("the change is undone", async |bench: &Bench| bench.told().contains(&drift)).await;
    assert!(has_colour().await);

    // So does another config, which is not about the definition.
    bench
        .wish(&wish(WishKind::Configure, "kinds", Some(&json!({"message": "two"}))))
        .await
        .expect("configured");
    assert_eq!(bench.text("kinds").await.map(|(text, _)| text).as_deref(), Some("two"));
    assert!(has_colour().await);
    assert_eq!(bench.remove("kinds").await.expect("it goes"), Vec::<String>::new());
}
