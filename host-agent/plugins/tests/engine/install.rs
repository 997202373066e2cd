//! Installing, again, changing, pruning, taking over.

use host_plugins::engine::{Applied, Consent, DiffAction};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::Bench;
use crate::common::plans::{account, config_map, deployment, namespace, plan, secret, service};

pub async fn an_installation_comes_stays_changes_and_goes(bench: &mut Bench) {
    let hello = bench.installation("hello");
    let objects = [namespace("hello"), service("hello", "hello"), deployment("hello", "hello", 2)];
    let of = |replicas| {
        plan("hello")
            .objects([objects[0].clone(), objects[1].clone(), deployment("hello", "hello", replicas)])
            .checked()
    };
    let first = of(2);
    let applied = hello.apply(&first).await.expect("it installs");
    assert_eq!(applied, Applied { written: 3, unchanged: 0, pruned: 0 });
    let live = bench.live(&objects[1]).await.expect("it is there");
    assert_eq!(live["spec"]["ports"][0]["protocol"], "TCP", "old servers want it said");

    // Again: nothing is written, by the audit log and by the objects' versions.
    let (before, writes) = (versions(bench, &objects).await, bench.cluster.writes().await);
    let again = hello.apply(&first).await.expect("it installs again");
    assert_eq!(again, Applied { written: 0, unchanged: 3, pruned: 0 });
    assert_eq!(bench.cluster.writes().await, writes);
    assert_eq!(versions(bench, &objects).await, before);

    // Another plan: only the Deployment changes.
    let changed = hello.apply(&of(3)).await.expect("it changes");
    assert_eq!((changed.written, changed.unchanged), (1, 2));
    let after = versions(bench, &objects).await;
    assert_eq!((&after[0], &after[1]), (&before[0], &before[1]));
    assert_ne!(after[2], before[2]);

    let engine = hello.engine();
    let (removed, said) = hello.lines(engine.remove(false)).await;
    assert!(removed.expect("it is removed").kept.is_empty());
    let order: Vec<_> = said.iter().map(String::as_str).filter(|line| line.starts_with("deleted")).collect();
    assert_eq!(
        order,
        [
            "deleted apps/v1 Deployment hello/hello",
            "deleted v1 Service hello/hello",
            "deleted v1 Namespace hello"
        ]
    );
    assert!(bench.live(&objects[0]).await.is_none());
    assert!(hello.inventory().entries().await.expect("they are read").is_empty());
}

async fn versions(bench: &Bench, objects: &[serde_json::Value]) -> Vec<String> {
    let mut versions = Vec::new();
    for object in objects {
        versions.push(bench.version(object).await);
    }
    versions
}

pub async fn what_a_plan_has_no_more_goes_by_its_uid(bench: &mut Bench) {
    let pruned = bench.installation("pruned");
    let place = namespace("pruned");
    let maps = ["stays", "goes", "others"].map(|name| config_map("pruned", name, "1"));
    let whole = plan("pruned").object(place.clone()).objects(maps.clone()).checked();
    pruned.apply(&whole).await.expect("it installs");

    // People made another one of that name meanwhile.
    let api = bench.maps("pruned");
    api.delete("others", &DeleteParams::default()).await.expect("ours goes");
    let theirs: ConfigMap = serde_json::from_value(maps[2].clone()).expect("a map");
    let theirs = api.create(&PostParams::default(), &theirs).await.expect("and theirs comes");

    let less = plan("pruned").object(maps[0].clone()).checked();
    let (applied, said) = pruned.lines(pruned.apply(&less)).await;
    assert_eq!(applied.expect("it is pruned"), Applied { written: 0, unchanged: 1, pruned: 1 });
    assert!(bench.live(&maps[1]).await.is_none() && bench.live(&maps[0]).await.is_some());
    let left = bench.live(&maps[2]).await.expect("it is still there");
    assert_eq!(left["metadata"]["uid"].as_str(), theirs.metadata.uid.as_deref());
    assert!(said.iter().any(|line| line.starts_with("left v1 ConfigMap pruned/others")), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("kept v1 Namespace pruned")), "{said:?}");
    assert!(bench.live(&place).await.is_some(), "a plan never deletes a namespace");
}

pub async fn many_at_once_go_with_consent_only(bench: &mut Bench) {
    let many = bench.installation("many");
    let maps: Vec<_> = (0..12).map(|number| config_map("default", &format!("many-{number}"), "1")).collect();
    many.apply(&plan("many").objects(maps.clone()).checked()).await.expect("it installs");
    let writes = bench.cluster.writes().await;
    let few = plan("many").object(maps[0].clone()).checked();
    let refused = many.apply(&few).await.expect_err("eleven of twelve");
    assert_eq!(refused.id, "PLUGIN-REFUSED", "{refused}");
    assert_eq!(refused.evidence.lines().count(), 11);
    assert_eq!(bench.cluster.writes().await, writes, "nothing is deleted");
    let consent = Consent { prune_many: true, ..Consent::default() };
    assert_eq!(many.apply_with(&few, consent).await.expect("it is meant").pruned, 11);
}

pub async fn what_others_made_stays_theirs_unless_it_is_taken_over(bench: &mut Bench) {
    let mut theirs = config_map("default", "theirs", "people");
    theirs["data"]["more"] = json!("people");
    bench.put(theirs.clone()).await;
    let taker = bench.installation("taker");
    let wanted = plan("taker")
        .objects([account("default", "taker"), config_map("default", "theirs", "plugin")])
        .checked();
    let writes = bench.cluster.writes().await;
    let refused = taker.apply(&wanted).await.expect_err("it is somebody else's");
    assert_eq!(refused.id, "PLUGIN-OBJECT-FOREIGN", "{refused}");
    assert!(refused.reason.contains("v1 ConfigMap default/theirs"), "{refused}");
    assert_eq!(bench.cluster.writes().await, writes, "not even the account");

    let consent = Consent { adopt: true, ..Consent::default() };
    assert_eq!(taker.apply_with(&wanted, consent).await.expect("it is taken over").written, 2);
    let live = bench.live(&theirs).await.expect("it is there");
    assert_eq!(live["data"], json!({"key": "plugin", "more": "people"}), "what the plan does not set stays");
    assert_eq!(taker.apply(&wanted).await.expect("it is ours now").written, 0);
}

pub async fn a_difference_is_shown_and_nothing_is_written(bench: &mut Bench) {
    let differs = bench.installation("differs");
    let stays = config_map("default", "differs-stays", "1");
    let hidden = |value: &str| secret("default", "differs-hidden", json!({"word": value}));
    let before = plan("differs")
        .objects([stays.clone(), config_map("default", "differs-changes", "1"), hidden("before-the-change")])
        .object(config_map("default", "differs-goes", "1"))
        .checked();
    differs.apply(&before).await.expect("it installs");
    let after = plan("differs")
        .objects([stays, config_map("default", "differs-changes", "2"), hidden("behind-the-change")])
        .object(config_map("default", "differs-comes", "1"))
        .checked();
    let writes = bench.cluster.writes().await;
    let diffs = differs.engine().diff(&after).await.expect("it is shown");
    assert_eq!(bench.cluster.writes().await, writes);
    let of = |name: &str| diffs.iter().find(|diff| diff.key.name == name).expect("it is shown");
    assert_eq!(of("differs-stays").action, DiffAction::Keep);
    assert_eq!(of("differs-comes").action, DiffAction::Create);
    assert_eq!(of("differs-goes").action, DiffAction::Delete);
    let changed = of("differs-changes");
    assert_eq!(changed.action, DiffAction::Change);
    assert!(changed.text.contains('1') && changed.text.contains('2'), "{}", changed.text);
    let secret = of("differs-hidden");
    assert_eq!(secret.action, DiffAction::Change);
    assert!(
        !secret.text.contains("the-change") && !secret.text.contains("LXRoZS1jaGFuZ2"),
        "{}",
        secret.text
    );
}
