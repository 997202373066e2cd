use k8sctl_types::failure::Failure;
use plugin_plan::ObjectKey;

use super::*;
use crate::inventory::Inventory;
use crate::status::PluginState;

fn records() -> Records {
    Records::new(Store::in_memory(&[SCHEMA]).expect("a database in memory"))
}

fn place() -> Place {
    Place::new("c", "hello")
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        group: String::new(),
        version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespace: "hello".to_owned(),
        name: name.to_owned(),
    }
}

/// An operation of a package, which is called by one letter, with this config.
fn operation(package: &str, config: &str) -> NewOperation {
    NewOperation {
        kind: OperationKind::Install,
        origin: Origin::Command,
        attempt: "command 1".to_owned(),
        deadline_ms: 1000,
        adopt: false,
        prune_many: false,
        approved: Some(Approved { lines: vec!["a line".to_owned()], by_uid: 1000 }),
        version: "1.0.0".to_owned(),
        package_sha256: package.repeat(64),
        binary_sha256: String::new(),
        config_version: 1,
        config_json: config.to_owned(),
        plan_sha256: format!("plan of {config}"),
        ask_sha256: format!("ask of {config}"),
        plan: vec![1, 2, 3],
        node_json: "[]".to_owned(),
        keys: vec![(key("one"), false)],
    }
}

async fn install(records: &Records) -> Install {
    records.install(&place()).await.expect("readable").expect("it is there")
}

async fn numbers(records: &Records) -> Vec<u64> {
    let revisions = records.revisions(&place()).await.expect("readable");
    revisions.into_iter().map(|revision| revision.revision).collect()
}

#[tokio::test]
async fn what_began_is_unfinished_until_it_is_applied() {
    let records = records();
    let target = records.begin(&place(), operation("a", "{}")).await.expect("begun");
    assert_eq!((target.revision, target.is_current), (1, false));
    let begun = install(&records).await;
    assert_eq!((begun.revision, begun.target, begun.objects), (0, 1, 1));
    assert_eq!((begun.state, begun.operation), (PluginState::Installing, Some(OperationKind::Install)));
    assert!(!begun.is_settled());
    assert_eq!(records.plan(&place(), 1).await.expect("readable"), Some(vec![1, 2, 3]));
    assert_eq!(records.approved(&place()).await.expect("readable"), ["a line"]);

    let unused = records.applied(&place(), PluginState::Ready, "ready").await.expect("written");
    assert_eq!(unused, Vec::<String>::new());
    let applied = install(&records).await;
    assert!(applied.is_settled() && applied.installed.is_some(), "{applied:?}");
    assert_eq!((applied.plan_sha256.as_str(), applied.ask_sha256.as_str()), ("plan of {}", "ask of {}"));
}

#[tokio::test]
async fn the_same_again_is_no_new_revision() {
    let records = records();
    records.begin(&place(), operation("a", "{}")).await.expect("begun");
    records.applied(&place(), PluginState::Ready, "ready").await.expect("written");
    let again = NewOperation { ask_sha256: "other facts".to_owned(), ..operation("a", "{}") };
    let target = records.begin(&place(), again).await.expect("begun");
    assert_eq!((target.revision, target.is_current), (1, true));
    records.applied(&place(), PluginState::Ready, "no changes").await.expect("written");
    assert_eq!(install(&records).await.ask_sha256, "other facts");
    // Another config with the same plan is one: it is to be found again.
    let other = NewOperation { plan_sha256: "plan of {}".to_owned(), ..operation("a", "{\"x\":1}") };
    assert_eq!(records.begin(&place(), other).await.expect("begun").revision, 2);
    assert_eq!(numbers(&records).await, [2, 1]);
}

#[tokio::test]
async fn a_failure_is_kept_until_the_next_operation() {
    let records = records();
    records.begin(&place(), operation("a", "{}")).await.expect("begun");
    records.applied(&place(), PluginState::Ready, "ready").await.expect("written");
    records.begin(&place(), operation("b", "{}")).await.expect("begun");
    let failure = Failure::new("PLUGIN-NOT-READY", "plugin hello", "why", "next");
    records.fail(&place(), &failure).await.expect("written");
    let failed = install(&records).await;
    assert_eq!(
        (failed.state, failed.operation, &failed.failure),
        (PluginState::Failed, None, &Some(failure))
    );
    // What is applied is still the one of before.
    assert_eq!((failed.revision, failed.target), (1, 2));
    records.begin(&place(), operation("a", "{}")).await.expect("begun");
    let next = install(&records).await;
    assert_eq!((next.failure, next.target), (None, 1));
}

#[tokio::test]
async fn the_last_five_revisions_stay_and_packages_of_others_are_told() {
    let records = records();
    for number in 0..7 {
        let package = if number == 0 { "a" } else { "b" };
        let operation = operation(package, &format!("{{\"n\":{number}}}"));
        records.begin(&place(), operation).await.expect("begun");
        if number == 3 {
            // It is never applied.
            continue;
        }
        let unused = records.applied(&place(), PluginState::Ready, "ready").await.expect("written");
        let expected = if number == 6 { vec!["a".repeat(64)] } else { Vec::new() };
        assert_eq!(unused, expected, "{number}");
    }
    assert_eq!(numbers(&records).await, [7, 6, 5, 3, 2]);

    // Another cluster has the same package: it stays in use.
    let other = Place::new("d", "hello");
    records.begin(&other, operation("b", "{}")).await.expect("begun");
    assert_eq!(records.end(&place()).await.expect("gone"), Vec::<String>::new());
    assert_eq!(records.install(&place()).await.expect("readable"), None);
    assert_eq!(records.approved(&place()).await.expect("readable"), Vec::<String>::new());
    let entries = Inventory::new(records.store(), "c", "hello").entries().await.expect("readable");
    assert!(entries.is_empty());
    assert_eq!(records.forget_cluster("d").await.expect("gone"), ["b".repeat(64)]);
}

#[tokio::test]
async fn a_removal_that_began_is_unfinished() {
    let records = records();
    records.begin(&place(), operation("a", "{}")).await.expect("begun");
    records.applied(&place(), PluginState::Ready, "ready").await.expect("written");
    let removal = NewRemoval { purge: true, attempt: "up 1".to_owned(), deadline_ms: 5 };
    records.begin_removal(&place(), removal).await.expect("written");
    let leaving = install(&records).await;
    assert_eq!((leaving.state, leaving.operation), (PluginState::Removing, Some(OperationKind::Remove)));
    assert!(leaving.purge && leaving.attempt == "up 1" && leaving.deadline_ms == Some(5), "{leaving:?}");
}

#[tokio::test]
async fn node_requirements_are_those_of_the_last_plan() {
    let records = records();
    records.begin(&place(), operation("a", "{}")).await.expect("begun");
    assert!(records.node_rows("c").await.expect("readable").is_empty());
    let with = NewOperation { node_json: "[1]".to_owned(), ..operation("b", "{}") };
    records.begin(&place(), with).await.expect("begun");
    let rows = records.node_rows("c").await.expect("readable");
    assert_eq!((rows.len(), rows[0].was_ready, rows[0].node_json.as_str()), (1, false, "[1]"));
}

#[tokio::test]
async fn the_last_runs_stay_and_crashes_of_long_ago_are_forgotten() {
    let records = records();
    for number in 0..25 {
        let run = NewRun {
            package_sha256: "a".repeat(64),
            purpose: "plan",
            took: Duration::from_millis(25),
            outcome: format!("run {number}"),
            stderr: String::new(),
        };
        records.ran(&place(), run).await.expect("written");
    }
    let runs = records.runs("hello").await.expect("readable");
    assert_eq!((runs.len(), runs[0].outcome.as_str(), runs[19].outcome.as_str()), (20, "run 24", "run 5"));
    assert!(records.runs("other").await.expect("readable").is_empty());

    let package = "a".repeat(64);
    records.crashed(&package, "signal 11").await.expect("written");
    assert_eq!(records.crashes(&package, 0).await.expect("readable").len(), 1);
    assert!(records.crashes("other", 0).await.expect("readable").is_empty());
    assert!(records.crashes(&package, i64::MAX).await.expect("readable").is_empty());
    assert!(records.crashes(&package, 0).await.expect("readable").is_empty());
}

#[tokio::test]
async fn a_quarantine_is_told_once_and_ends_when_it_is_lifted() {
    let records = records();
    let package = "a".repeat(64);
    assert_eq!(records.quarantined(&package).await.expect("readable"), None);
    assert!(records.quarantine(&place(), &package, "it crashed").await.expect("written"));
    assert!(!records.quarantine(&place(), &package, "again").await.expect("written"));
    assert_eq!(records.quarantined(&package).await.expect("readable").as_deref(), Some("it crashed"));
    assert_eq!(records.quarantines().await.expect("readable").len(), 1);
    records.lift_quarantine(&package).await.expect("written");
    assert_eq!(records.quarantined(&package).await.expect("readable"), None);
}

#[tokio::test]
async fn a_plugin_of_before_packages_had_digests_is_still_there() {
    let before = Schema { room: "plugins", steps: &[include_str!("step1.sql")] };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("store.db");
    let store = Store::open(&file, &[before]).expect("opens");
    let insert = "INSERT INTO plugin_install VALUES ('c', 'hello', '0.1.0', '', '{}', 'Ready', 'ready', 5);
        INSERT INTO plugin_object VALUES ('c', 'hello', '', 'v1', 'ConfigMap', 'hello', 'one', 0, 'uid');";
    store
        .call_blocking(|connection| connection.execute_batch(insert).map_err(host_store::StoreError::from))
        .expect("written");
    drop(store);
    let records = Records::new(Store::open(&file, &[SCHEMA]).expect("opens again"));
    let old = install(&records).await;
    assert_eq!((old.state, old.origin, old.objects), (PluginState::Ready, Origin::Command, 1));
    assert_eq!((old.package_sha256.as_str(), old.revision, old.is_settled()), ("", 0, false));
    // It is removed as any other.
    assert_eq!(records.end(&place()).await.expect("gone"), Vec::<String>::new());
}
