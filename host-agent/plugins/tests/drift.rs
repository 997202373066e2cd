//! What others change of an installation, and what becomes of that: seen, undone, reported, or left after a fight.

#[path = "common/mod.rs"]
mod common;

use common::Installation;
use common::cluster::Cluster;
use common::kubelet::Kubelet;
use common::plans::{config_map, deployment, namespace, plan};
use common::scenarios::wait_for;
use host_plugins::engine::Seen;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use plugin_plan::{CheckedPlan, Drift, Handling};
use serde_json::{Value, json};

struct Bench {
    cluster: Cluster,
    kubelet: Kubelet,
}

impl Bench {
    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.cluster.people.clone(), "default")
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.cluster.people.clone(), "default")
    }
}

/// As somebody who is not the engine.
fn somebody(name: &str) -> PatchParams {
    PatchParams { field_manager: Some(name.to_owned()), ..PatchParams::default() }
}

async fn set(maps: &Api<ConfigMap>, name: &str, manager: &str, value: &str) {
    let change = json!({"data": {"key": value}});
    maps.patch(name, &somebody(manager), &Patch::Merge(&change)).await.expect("it is changed");
}

async fn value(maps: &Api<ConfigMap>, name: &str) -> Option<String> {
    let map = maps.get_opt(name).await.expect("the API answers")?;
    map.data.and_then(|data| data.get("key").cloned())
}

async fn seen(installation: &Installation, plan: &CheckedPlan, name: &str) -> Seen {
    let look = installation.engine().look(plan).await.expect("it is looked at");
    look.objects.into_iter().find(|(key, _)| key.name == name).expect("it is planned").1
}

async fn an_installation_that_nobody_touches_is_fine(bench: &mut Bench) {
    let quiet = Installation::new(&bench.cluster, "quiet");
    let wanted = plan("quiet")
        .objects([config_map("default", "quiet", "1"), deployment("default", "quiet", 1)])
        .checked();
    quiet.apply(&wanted).await.expect("it installs");
    let writes = bench.cluster.writes().await;
    let look = quiet.engine().look(&wanted).await.expect("it is looked at");
    assert_eq!(look.worst(), None, "{look:?}");
    assert!(look.drifted().is_empty());
    let corrected = quiet.engine().correct(&wanted, &look).await.expect("there is nothing to do");
    assert!(corrected.done.is_empty() && corrected.fights.is_empty() && corrected.reported.is_empty());
    assert_eq!(bench.cluster.writes().await, writes);
}

async fn a_field_a_label_and_a_deletion_are_seen_and_undone(bench: &mut Bench) {
    let undone = Installation::new(&bench.cluster, "undone");
    let names = ["undone-field", "undone-label", "undone-gone"];
    let wanted = plan("undone").objects(names.map(|name| config_map("default", name, "ours"))).checked();
    undone.apply(&wanted).await.expect("it installs");
    let maps = bench.maps();
    set(&maps, names[0], "kubectl-edit", "theirs").await;
    let unlabelled = json!({"metadata": {"labels": {"k8sctl.dev/plugin": null}}});
    maps.patch(names[1], &somebody("cleaner"), &Patch::Merge(&unlabelled)).await.expect("it is changed");
    maps.delete(names[2], &DeleteParams::default()).await.expect("it is deleted");

    let engine = undone.engine();
    let look = engine.look(&wanted).await.expect("it is looked at");
    let of = |name: &str| &look.objects.iter().find(|(key, _)| key.name == name).expect("it is planned").1;
    let Seen::Drifted { fields, manager } = of(names[0]) else { panic!("{look:?}") };
    assert_eq!((fields.join(" ").as_str(), manager.as_str()), ("/data/key", "kubectl-edit"));
    let Seen::Drifted { fields, .. } = of(names[1]) else { panic!("{look:?}") };
    assert!(fields.iter().any(|field| field.contains("labels")), "{fields:?}");
    assert_eq!(of(names[2]), &Seen::Missing);
    assert_eq!(look.drifted().len(), 3);
    assert_eq!(look.worst().map(|(key, _)| key.name.as_str()), Some(names[2]));

    let corrected = engine.correct(&wanted, &look).await.expect("it is undone");
    assert_eq!((corrected.done.len(), corrected.fights.len()), (3, 0), "{corrected:?}");
    assert!(corrected.done.iter().any(|line| line.contains("/data/key by kubectl-edit")), "{corrected:?}");
    for name in names {
        assert_eq!(value(&maps, name).await.as_deref(), Some("ours"), "{name}");
    }
    assert_eq!(engine.look(&wanted).await.expect("it is looked at").worst(), None);
    assert_eq!(undone.apply(&wanted).await.expect("again").written, 0);
}

async fn what_is_to_be_reported_or_ignored_is_left_alone(bench: &mut Bench) {
    for (name, drift) in [("reported", Drift::Report), ("ignored", Drift::Ignore)] {
        let installation = Installation::new(&bench.cluster, name);
        let handling = Handling { drift, ..Handling::default() };
        let wanted = plan(name).with(config_map("default", name, "ours"), handling).checked();
        installation.apply(&wanted).await.expect("it installs");
        let maps = bench.maps();
        set(&maps, name, "kubectl-edit", "theirs").await;
        let engine = installation.engine();
        let look = engine.look(&wanted).await.expect("it is looked at");
        let corrected = engine.correct(&wanted, &look).await.expect("it is left alone");
        match drift {
            Drift::Report => {
                assert!(
                    matches!(&look.objects[0].1, Seen::Drifted { manager, .. } if manager == "kubectl-edit"),
                    "{look:?}"
                );
                assert_eq!(corrected.reported.len(), 1);
            }
            _ => assert_eq!((look.worst(), corrected.reported.len()), (None, 0)),
        }
        assert_eq!(value(&maps, name).await.as_deref(), Some("theirs"));
    }
}

async fn who_changes_it_again_and_again_is_named_and_has_it(bench: &mut Bench) {
    let fought = Installation::new(&bench.cluster, "fought");
    let wanted = plan("fought").object(config_map("default", "fought", "ours")).checked();
    fought.apply(&wanted).await.expect("it installs");
    let maps = bench.maps();
    for round in 1..=4 {
        set(&maps, "fought", "other-operator", &format!("theirs-{round}")).await;
        let engine = fought.engine();
        let look = engine.look(&wanted).await.expect("it is looked at");
        let corrected = engine.correct(&wanted, &look).await.expect("it is dealt with");
        if round <= 3 {
            assert_eq!(
                (corrected.done.len(), corrected.fights.len()),
                (1, 0),
                "round {round}: {corrected:?}"
            );
            assert_eq!(value(&maps, "fought").await.as_deref(), Some("ours"));
        } else {
            assert_eq!(corrected.done.len(), 0, "{corrected:?}");
            assert_eq!(corrected.fights.len(), 1, "{corrected:?}");
            assert_eq!(corrected.fights[0].1, "other-operator");
            assert_eq!(value(&maps, "fought").await.as_deref(), Some("theirs-4"));
        }
    }
    // Somebody else's first change is no fight.
    set(&maps, "fought", "kubectl-edit", "a person's").await;
    let look = fought.engine().look(&wanted).await.expect("it is looked at");
    let corrected = fought.engine().correct(&wanted, &look).await.expect("it is dealt with");
    assert_eq!((corrected.done.len(), corrected.fights.len()), (1, 0), "{corrected:?}");
    // And a person who says so takes it back at once.
    set(&maps, "fought", "other-operator", "theirs-5").await;
    fought.apply(&wanted).await.expect("it is applied");
    assert_eq!(value(&maps, "fought").await.as_deref(), Some("ours"));
}

async fn a_namespace_that_somebody_deletes_is_made_again_when_it_is_gone(bench: &mut Bench) {
    let swept = Installation::new(&bench.cluster, "swept");
    let map = config_map("swept", "swept", "ours");
    let wanted = plan("swept").objects([namespace("swept"), map]).checked();
    swept.apply(&wanted).await.expect("it installs");
    let maps: Api<ConfigMap> = Api::namespaced(bench.cluster.people.clone(), "swept");
    let holds = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "holds", "finalizers": ["example.com/hold"]},
    });
    maps.patch("holds", &PatchParams::apply("people"), &Patch::Apply(&holds)).await.expect("it is made");
    let spaces: Api<Namespace> = Api::all(bench.cluster.people.clone());
    spaces.delete("swept", &DeleteParams::default()).await.expect("it begins to end");
    wait_for("ours to be gone", async || maps.get_opt("swept").await.ok()?.is_none().then_some(())).await;

    // Nothing can be made there now: it is not even tried, and counts as no correction.
    let engine = swept.engine();
    let look = engine.look(&wanted).await.expect("it is looked at");
    assert!(look.objects.iter().any(|(_, seen)| *seen == Seen::Missing), "{look:?}");
    let corrected = engine.correct(&wanted, &look).await.expect("it waits");
    assert!(corrected.done.is_empty() && corrected.fights.is_empty(), "{corrected:?}");

    let free = json!({"metadata": {"finalizers": null}});
    maps.patch("holds", &PatchParams::default(), &Patch::Merge(&free)).await.expect("it is let go");
    wait_for("the namespace to be gone", async || {
        spaces.get_opt("swept").await.ok()?.is_none().then_some(())
    })
    .await;
    let engine = swept.engine();
    let look = engine.look(&wanted).await.expect("it is looked at");
    let corrected = engine.correct(&wanted, &look).await.expect("both are made again");
    assert_eq!(corrected.done.len(), 2, "{corrected:?}");
    assert_eq!(value(&maps, "swept").await.as_deref(), Some("ours"));
}

async fn a_status_is_no_drift_and_what_is_not_ready_is_said(bench: &mut Bench) {
    let serves = Installation::new(&bench.cluster, "serves");
    let wanted = plan("serves").object(deployment("default", "serves", 2)).checked();
    serves.apply(&wanted).await.expect("it installs");
    bench.kubelet.leave_alone("serves");
    let status = json!({"status": {"availableReplicas": 1, "readyReplicas": 1}});
    let deployments = bench.deployments();
    deployments
        .patch_status("serves", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .expect("it is told");
    let Seen::Waiting(why) = seen(&serves, &wanted, "serves").await else {
        panic!("one of two is available")
    };
    assert!(why.contains("1 of 2"), "{why}");
    let status = json!({"status": {"availableReplicas": 2, "readyReplicas": 2}});
    deployments
        .patch_status("serves", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .expect("it is told");
    assert_eq!(seen(&serves, &wanted, "serves").await, Seen::Fine);
}

async fn what_a_plugin_is_told_has_no_values_of_secrets(bench: &mut Bench) {
    let told = Installation::new(&bench.cluster, "told");
    let secret = common::plans::secret("default", "told", json!({"word": "plain-in-the-plan"}));
    let wanted = plan("told").objects([secret, deployment("default", "told", 1)]).checked();
    told.apply(&wanted).await.expect("it installs");
    let (objects, left_out) = told.engine().for_assess(&wanted).await.expect("they are read");
    assert_eq!((objects.len(), left_out), (2, 0));
    let all = objects.join("\n");
    assert!(!all.contains("managedFields") && !all.contains("plain-in-the-plan"), "{all}");
    assert!(!all.contains("cGxhaW4taW4tdGhlLXBsYW4"), "{all}");
    let parsed: Vec<Value> = objects.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
    assert!(parsed.iter().any(|object| object["status"]["availableReplicas"] == 1), "a status is told");
    assert!(told.engine().pods(&wanted).await.expect("they are listed").is_empty());
}

#[tokio::test]
async fn changes_of_others_are_seen_and_dealt_with() {
    let Some(cluster) = Cluster::start().await else { return };
    let kubelet = Kubelet::start(&cluster.people);
    let mut bench = Bench { cluster, kubelet };
    let all = crate::scenarios![Bench:
        an_installation_that_nobody_touches_is_fine,
        a_field_a_label_and_a_deletion_are_seen_and_undone,
        what_is_to_be_reported_or_ignored_is_left_alone,
        who_changes_it_again_and_again_is_named_and_has_it,
        a_namespace_that_somebody_deletes_is_made_again_when_it_is_gone,
        a_status_is_no_drift_and_what_is_not_ready_is_said,
        what_a_plugin_is_told_has_no_values_of_secrets,
    ];
    common::scenarios::run(&mut bench, &all).await;
}
