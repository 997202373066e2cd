//! What has to be there before what needs it: kinds, and webhooks that answer.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::Bench;
use crate::common::plans::{Plan, config_map, custom, definition, namespace, plan};
use crate::common::scenarios::wait_for;
use crate::common::webhook::Place;

pub async fn a_kind_is_served_before_its_objects_are_applied(bench: &mut Bench) {
    let kinds = bench.installation("kinds");
    let objects = [
        custom("kinds.example.org", "Pool", "default", "kinds", 1),
        definition("kinds.example.org", "Pool", "pools"),
    ];
    let wanted = || plan("kinds").objects(objects.clone()).ready_when_there("kinds.example.org/v1", "Pool");
    assert_eq!(kinds.apply(&wanted().checked()).await.expect("it installs").written, 2);
    let writes = bench.cluster.writes().await;
    assert_eq!(kinds.apply(&wanted().checked()).await.expect("again").written, 0);
    assert_eq!(bench.cluster.writes().await, writes);
    let larger = plan("kinds")
        .objects([objects[1].clone(), custom("kinds.example.org", "Pool", "default", "kinds", 2)])
        .ready_when_there("kinds.example.org/v1", "Pool")
        .checked();
    assert_eq!(kinds.apply(&larger).await.expect("it changes").written, 1);
    assert_eq!(bench.live(&objects[0]).await.expect("it is there")["spec"]["size"], 2);
}

pub async fn a_definition_whose_names_are_taken_fails_and_says_so(bench: &mut Bench) {
    bench.put(definition("taken.example.org", "Pool", "basins")).await;
    let mut taken = bench.installation("taken");
    taken.limits.kind = Duration::from_secs(5);
    let wanted = plan("taken")
        .objects([
            definition("taken.example.org", "Pool", "pools"),
            custom("taken.example.org", "Pool", "default", "taken", 1),
            config_map("default", "taken", "1"),
        ])
        .ready_when_there("taken.example.org/v1", "Pool")
        .checked();
    let failure = taken.apply(&wanted).await.expect_err("another definition has the kind");
    assert_eq!(failure.id, "PLUGIN-DEFINITION", "{failure}");
    assert!(failure.reason.contains("pools.taken.example.org"), "{failure}");
    assert!(bench.live(&config_map("default", "taken", "1")).await.is_none(), "nothing comes after it");
}

/// A plan with a kind, a webhook that judges it, and an object.
fn judged(place: &Place, group: &str) -> Plan {
    plan(&place.namespace)
        .objects([
            namespace(&place.namespace),
            place.service(),
            definition(group, "Pool", "pools"),
            place.configuration(&place.namespace, group, "pools"),
            custom(group, "Pool", &place.namespace, "judged", 1),
        ])
        .ready_when_there(&format!("{group}/v1"), "Pool")
}

/// What the webhook's own controller does, once its configuration is there.
async fn put_authority(bench: &Bench, place: &Place, group: &str) {
    let configuration = place.configuration(&place.namespace, group, "pools");
    let mut live: Value =
        wait_for("the configuration", async || bench.live(&configuration).await).await["webhooks"].clone();
    live[0]["clientConfig"]["caBundle"] = json!(place.ca_bundle());
    let change = Patch::Merge(json!({"webhooks": live}));
    let api = bench.api_of(&configuration).await;
    api.patch(&place.namespace, &PatchParams::default(), &change).await.expect("it is put in");
    bench.put(place.endpoints()).await;
}

pub async fn a_webhook_that_comes_up_late_is_waited_for(bench: &mut Bench) {
    let group = "late.example.org";
    let place = Place::new("late", "hook", "127.96.0.91:18443");
    let late = bench.installation("late");
    let wanted = judged(&place, group).checked();
    let plays = async {
        put_authority(bench, &place, group).await;
        // Its pods are ready, and it does not answer yet.
        tokio::time::sleep(Duration::from_secs(2)).await;
        place.open().await
    };
    let ((applied, said), webhook) = tokio::join!(late.lines(late.apply(&wanted)), plays);
    assert_eq!(applied.expect("it is waited for").written, 5);
    assert!(said.iter().any(|line| line.starts_with("waiting for the webhook of")), "{said:?}");
    assert!(webhook.asked() >= 4, "three times in a row, and for the object: {}", webhook.asked());
    let bundle = bench.live(&place.configuration("late", group, "pools")).await.expect("it is there");
    assert_eq!(bundle["webhooks"][0]["clientConfig"]["caBundle"], place.ca_bundle());
    assert_eq!(late.apply(&wanted).await.expect("again").written, 0);
    late.engine().remove(false).await.expect("it goes while the webhook answers");
}

pub async fn a_webhook_that_never_answers_fails_before_its_objects(bench: &mut Bench) {
    let group = "never.example.org";
    let place = Place::new("never", "hook", "127.96.0.92:18443");
    let mut never = bench.installation("never");
    never.limits.webhook = Duration::from_secs(4);
    let wanted = judged(&place, group).checked();
    let (applied, ()) = tokio::join!(never.apply(&wanted), put_authority(bench, &place, group));
    let failure = applied.expect_err("nobody answers");
    assert_eq!(failure.id, "PLUGIN-WEBHOOK", "{failure}");
    assert!(failure.reason.contains("never.example.org/v1 Pool never/judged"), "{failure}");
    let pool = custom(group, "Pool", "never", "judged", 1);
    assert!(bench.live(&pool).await.is_none(), "it was not tried");
    never.engine().remove(false).await.expect("it can be taken away");
}
