//! What becomes of fields that others change.

use host_plugins::engine::Consent;
use kube::api::{Patch, PatchParams};
use plugin_plan::{Drift, Handling};
use serde_json::{Value, json};

use crate::Bench;
use crate::common::plans::{config_map, definition, deployment, plan};

/// Somebody changes a field.
async fn change(bench: &Bench, object: &Value, field: Value) {
    let name = object["metadata"]["name"].as_str().expect("a name");
    let params = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
    bench.api_of(object).await.patch(name, &params, &Patch::Merge(&field)).await.expect("it is changed");
}

pub async fn a_field_that_somebody_took_is_taken_back(bench: &mut Bench) {
    for (name, drift) in
        [("corrects", Drift::Correct), ("reports", Drift::Report), ("ignores", Drift::Ignore)]
    {
        let installation = bench.installation(name);
        let map = config_map("default", name, "ours");
        let handling = Handling { drift, ..Handling::default() };
        let wanted = plan(name).with(map.clone(), handling).checked();
        installation.apply(&wanted).await.expect("it installs");
        change(bench, &map, json!({"data": {"key": "theirs"}})).await;
        let value = async || bench.live(&map).await.expect("it is there")["data"]["key"].clone();
        match drift {
            Drift::Correct => {
                assert_eq!(installation.apply(&wanted).await.expect("it is applied").written, 1);
                assert_eq!(value().await, "ours");
            }
            Drift::Report => {
                let conflict = installation.apply(&wanted).await.expect_err("somebody has it");
                assert_eq!(conflict.id, "PLUGIN-CONFLICT", "{conflict}");
                assert!(conflict.reason.contains("somebody"), "{conflict}");
                assert_eq!(value().await, "theirs");
            }
            Drift::Ignore => {
                assert_eq!(installation.apply(&wanted).await.expect("it is left alone").written, 0);
                assert_eq!(value().await, "theirs");
            }
        }
    }
}

pub async fn a_field_is_left_to_others_where_the_plan_says_so(bench: &mut Bench) {
    let scaled = bench.installation("scaled");
    let handling = Handling { leave: vec!["/spec/replicas".to_owned()], ..Handling::default() };
    let of = |label: &str| {
        let mut object = deployment("default", "scaled", 2);
        object["metadata"]["labels"] = json!({"round": label});
        object
    };
    let wanted = |label| plan("scaled").with(of(label), handling.clone()).checked();
    scaled.apply(&wanted("1")).await.expect("it installs");
    change(bench, &of("1"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scaled.apply(&wanted("1")).await.expect("it is applied").written, 0);
    assert_eq!(scaled.apply(&wanted("2")).await.expect("it is applied").written, 1);
    let live = bench.live(&of("2")).await.expect("it is there");
    assert_eq!((&live["spec"]["replicas"], &live["metadata"]["labels"]["round"]), (&json!(5), &json!("2")));
}

pub async fn certificate_authorities_that_others_put_in_stay(bench: &mut Bench) {
    let installation = bench.installation("authorities");
    // It judges nothing that anybody has.
    let webhook = |round: &str| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "authorities", "labels": {"round": round}},
            "webhooks": [{
                "name": "nobody.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Ignore",
                "clientConfig": {"service": {"namespace": "default", "name": "authorities", "path": "/", "port": 443}},
                "rules": [{
                    "apiGroups": ["nobody.example.org"], "apiVersions": ["v1"], "operations": ["CREATE"],
                    "resources": ["nothings"],
                }],
            }],
        })
    };
    let service = crate::common::plans::service("default", "authorities");
    let wanted = |round| plan("authorities").objects([service.clone(), webhook(round)]).checked();
    installation.apply(&wanted("1")).await.expect("it installs");
    // Base64 of an authority as its controller would write it.
    let bundle = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCi0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K";
    let mut theirs = bench.live(&webhook("1")).await.expect("it is there")["webhooks"].clone();
    theirs[0]["clientConfig"]["caBundle"] = json!(bundle);
    change(bench, &webhook("1"), json!({"webhooks": theirs})).await;
    installation.apply(&wanted("2")).await.expect("it changes");
    let live = bench.live(&webhook("2")).await.expect("it is there");
    assert_eq!(live["webhooks"][0]["clientConfig"]["caBundle"], bundle);
    assert_eq!(live["metadata"]["labels"]["round"], "2");
    assert_eq!(installation.apply(&wanted("2")).await.expect("again").written, 0);
}

pub async fn definitions_stay_as_they_are_in_a_rollback(bench: &mut Bench) {
    let installation = bench.installation("rolled");
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let mut newer = definition("rolled.example.org", "Thing", "things");
    newer.pointer_mut(field).expect("it has some")["colour"] = json!({"type": "string"});
    let older = definition("rolled.example.org", "Thing", "things");
    installation.apply(&plan("rolled").object(newer.clone()).checked()).await.expect("it installs");
    let back = plan("rolled").objects([older, config_map("default", "rolled", "back")]).checked();
    let consent = Consent { keep_definitions: true, ..Consent::default() };
    assert_eq!(installation.apply_with(&back, consent).await.expect("it goes back").written, 1);
    // And whoever looks after it later does not take it for somebody's change.
    let engine = installation.engine();
    let look = engine.look(&back).await.expect("it is looked at");
    assert_eq!(look.worst(), None, "{look:?}");
    assert_eq!(
        engine.correct(&back, &look).await.expect("there is nothing to do").done,
        Vec::<String>::new()
    );
    let live = bench.live(&newer).await.expect("it is there");
    assert!(live.pointer(&format!("{field}/colour")).is_some(), "objects of others may have it");
}
