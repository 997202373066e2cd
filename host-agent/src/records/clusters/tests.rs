//! Generations, nodes and operations as they follow each other.

use super::operations::{KEPT, KEPT_OF_GONE};
use super::*;
use crate::records::{OperationState, SCHEMA};
use host_store::{Store, StoreError};
use plugin_plan::{NodeRequirement, NodeWant};

fn spec_with(workers: &[&str]) -> ClusterSpec {
    let nodes = workers.iter().enumerate().map(|(index, name)| {
        serde_json::json!({ "name": name, "role": "worker", "vcpus": 2, "memory_bytes": 1u64 << 32,
            "disk_bytes": 1u64 << 34, "ip": format!("192.168.122.{}", 10 + index), "mac": "52:54:00:00:00:01",
            "labels": [], "taints": [] })
    });
    serde_json::from_value(serde_json::json!({
        "name": "home", "kubernetes": null, "nodes": nodes.collect::<Vec<_>>(), "image": { "suite": "bookworm" },
        "network": { "name": "default", "cidr": "192.168.122.0/24", "pods": "10.244.0.0/16",
            "services": "10.96.0.0/12", "load_balancer": null, "dhcp": null }, "plugins": [] }))
    .expect("a spec")
}

fn generation(workers: &[&str]) -> NewGeneration {
    NewGeneration {
        spec: spec_with(workers),
        image_id: "i".to_owned(),
        kubernetes: "v1.20.2".to_owned(),
        trial: true,
        started: jiff::Timestamp::now(),
        deadline: jiff::Timestamp::now(),
        planned_on: None,
        agreed: Vec::new(),
        plugins: Vec::new(),
        pod_network: String::new(),
    }
}

/// Plans on the cluster as it is, and begins.
async fn up(records: &Records, workers: &[&str]) -> Begun {
    let cluster = records.cluster("home").await.expect("reads");
    let planned_on = cluster.as_ref().map(ClusterRecord::version);
    records.begin_up(NewGeneration { planned_on, ..generation(workers) }).await.expect("answers")
}

async fn home(records: &Records) -> ClusterRecord {
    records.cluster("home").await.expect("reads").expect("is there")
}

fn new(begun: Begun) -> OperationRecord {
    match begun {
        Begun::New(operation, _) => operation,
        other => panic!("nothing has begun: {other:?}"),
    }
}

fn runs(begun: &Begun) -> Option<&str> {
    match begun {
        Begun::Runs(operation) => Some(&operation.id),
        _ => None,
    }
}

fn records() -> Records {
    Records::new(Store::in_memory(&[SCHEMA]).expect("opens"))
}

#[tokio::test]
async fn nodes_keep_their_identity_over_generations() {
    let records = records();
    new(up(&records, &["a", "b"]).await);
    let before = home(&records).await;
    new(up(&records, &["b", "c"]).await);
    let after = home(&records).await;
    assert_eq!((before.id, after.generation), (after.id.clone(), 2));
    let states: Vec<_> = after.nodes.iter().map(|n| (n.name.as_str(), n.pod_index, n.state)).collect();
    let (present, draining) = (NodeState::Present, NodeState::Draining);
    assert_eq!(states, [("a", 0, draining), ("b", 1, present), ("c", 2, present)]);
    assert_eq!(before.nodes[1].machine_uuid, after.nodes[1].machine_uuid);
}

#[tokio::test]
async fn only_what_runs_gets_longer() {
    let records = records();
    let OperationRecord { id, deadline, .. } = new(up(&records, &["a"]).await);
    let minute = std::time::Duration::from_secs(60);
    let extend = async |until| records.extend_deadline(&id, until).await.expect("answers");
    let stored = async || records.operation(&id).await.expect("reads").expect("is there").deadline;
    assert!(extend(deadline - minute).await.is_none() && extend(deadline).await.is_none());
    assert_eq!(stored().await, deadline);
    let extended = extend(deadline + minute).await.expect("it runs");
    assert_eq!((extended.deadline, stored().await), (deadline + minute, deadline + minute));
    records.finish_operation(&id, None).await.expect("writes");
    assert!(extend(deadline + 2 * minute).await.is_none());
    assert_eq!(stored().await, deadline + minute);
}

#[tokio::test]
async fn a_newer_operation_takes_the_place_of_the_running_one() {
    let records = records();
    let first = new(up(&records, &["a"]).await);
    let Begun::New(second, superseded) = up(&records, &["a", "b"]).await else { panic!("it begins") };
    let superseded = superseded.expect("the first gives way");
    assert_eq!(superseded.id, first.id);
    let ended = records.operation(&first.id).await.expect("reads").expect("is there");
    assert!(matches!(&ended.state, OperationState::Failed(f) if f.id == "OPERATION-SUPERSEDED"), "{ended:?}");
    assert_eq!((&superseded.state, superseded.finished), (&ended.state, ended.finished));
    let (_, running) = records.at_work("home").await.expect("reads").expect("is there");
    assert_eq!(running.map(|operation| operation.id), Some(second.id));
}

#[tokio::test]
async fn what_gave_way_leads_to_what_replaced_it() {
    let records = records();
    new(up(&records, &["a"]).await);
    let told = |begun: Result<Begun, RecordError>| match begun {
        Ok(Begun::New(_, Some(before))) => match before.state {
            OperationState::Failed(failure) => (failure.object, failure.next_step),
            state => panic!("it goes on: {state:?}"),
        },
        begun => panic!("nothing gives way: {begun:?}"),
    };
    let (object, next) = told(Ok(up(&records, &["a", "b"]).await));
    assert_eq!(object, "cluster home");
    assert!(next.contains("`k8sctl status -w home`"), "{next}");
    let (object, next) = told(records.begin_down(&home(&records).await, jiff::Timestamp::now()).await);
    assert_eq!(object, "cluster home");
    assert!(next.contains("`k8sctl down home`"), "{next}");
}

#[tokio::test]
async fn of_two_that_want_the_same_at_once_one_begins() {
    let records = records();
    // Both have planned before either begins.
    let first = new(records.begin_up(generation(&["a"])).await.expect("answers"));
    let second = records.begin_up(generation(&["a"])).await.expect("answers");
    assert_eq!(runs(&second), Some(first.id.as_str()), "{second:?}");

    let cluster = home(&records).await;
    let down = || records.begin_down(&cluster, jiff::Timestamp::now());
    let first = new(down().await.expect("answers"));
    let second = down().await.expect("answers");
    assert_eq!(runs(&second), Some(first.id.as_str()), "{second:?}");
    records.forget_cluster(&cluster.id).await.expect("forgets");
    let ended = records.operation(&first.id).await.expect("reads").expect("is there");
    assert_eq!(ended.state, OperationState::Succeeded);
    // One that comes later still is not begun for a cluster that is gone: nobody would ever end it.
    let late = down().await.expect("answers");
    assert!(matches!(late, Begun::Overtaken), "{late:?}");
    assert!(records.running_operation(&cluster.id).await.expect("reads").is_none());
}

#[tokio::test]
async fn what_was_planned_on_an_older_spec_does_not_begin() {
    let records = records();
    new(up(&records, &["a"]).await);
    let seen = home(&records).await;
    new(up(&records, &["a", "b"]).await);
    // It would drain b, of which its plan did not know.
    let planned_on = Some(seen.version());
    let late = records.begin_up(NewGeneration { planned_on, ..generation(&["a", "c"]) }).await;
    assert!(matches!(late.expect("answers"), Begun::Overtaken));
    let down = records.begin_down(&seen, jiff::Timestamp::now()).await.expect("answers");
    assert!(matches!(down, Begun::Overtaken), "{down:?}");
    let names: Vec<_> = home(&records).await.nodes.into_iter().map(|node| (node.name, node.state)).collect();
    assert_eq!(names, [("a".to_owned(), NodeState::Present), ("b".to_owned(), NodeState::Present)]);
}

#[tokio::test]
async fn what_was_planned_before_a_node_was_drained_does_not_begin() {
    let records = records();
    new(up(&records, &["a", "b"]).await);
    new(up(&records, &["a"]).await);
    let seen = home(&records).await;
    records.set_removing(&seen.nodes[1].id).await.expect("writes");
    // Its plan keeps b's VM, and b would be another machine.
    let late = NewGeneration { planned_on: Some(seen.version()), ..generation(&["a", "b"]) };
    assert!(matches!(records.begin_up(late).await.expect("answers"), Begun::Overtaken));
}

#[tokio::test]
async fn what_was_agreed_to_is_remembered() {
    let records = records();
    let (action, kind) = (host_hypervisor::change::Action::Replace, host_hypervisor::change::Kind::Domain);
    let agreed = vec![Agreed { action, kind, name: "a".to_owned() }];
    let begun = records.begin_up(NewGeneration { agreed: agreed.clone(), ..generation(&["a"]) }).await;
    let id = new(begun.expect("answers")).id;
    let stored = records.operation(&id).await.expect("reads").expect("is there");
    assert_eq!(stored.agreed, Some(agreed));
}

fn flannel(sha256: &str) -> PinnedPlugin {
    let cni = NodeWant::Cni { config_file: "10-flannel.conflist".to_owned() };
    PinnedPlugin {
        name: "flannel".to_owned(),
        version: "0.28.9".to_owned(),
        package_sha256: sha256.to_owned(),
        approved: vec!["takes over the pod network of all nodes".to_owned()],
        provides: vec!["cni".to_owned()],
        requires: Vec::new(),
        node: vec![NodeRequirement { what: cni, why: "the pod network".to_owned() }],
    }
}

#[tokio::test]
async fn plugins_are_agreed_to_with_the_spec_and_new_nodes_begin_with_their_network() {
    let records = records();
    new(up(&records, &["a"]).await);
    let with = async |workers: &[&str], sha256: &str| {
        let planned_on = Some(home(&records).await.version());
        let wanted = NewGeneration {
            planned_on,
            plugins: vec![flannel(sha256)],
            pod_network: "flannel".to_owned(),
            ..generation(workers)
        };
        records.begin_up(wanted).await.expect("answers")
    };
    let first = new(with(&["a", "b"], "1").await);
    let cluster = home(&records).await;
    assert_eq!(cluster.plugins, [flannel("1")]);
    let networks = |cluster: &ClusterRecord| -> Vec<String> {
        cluster.nodes.iter().map(|node| node.pod_network.clone()).collect()
    };
    assert_eq!(networks(&cluster), ["", "flannel"], "a is still on the built-in one");
    assert_eq!(runs(&with(&["a", "b"], "1").await), Some(first.id.as_str()));
    // The same spec with another package is another wish.
    let second = new(with(&["a", "b"], "2").await);
    assert_ne!(second.id, first.id);
    records.set_pod_network(&cluster.nodes[0].id, "flannel").await.expect("writes");
    let cluster = home(&records).await;
    assert_eq!(
        (networks(&cluster), &cluster.plugins[..]),
        (vec!["flannel".to_owned(); 2], &[flannel("2")][..])
    );
}

#[tokio::test]
async fn a_cluster_of_the_release_before_has_no_plugins_and_the_built_in_network() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state.db");
    let before = host_store::Schema { steps: &SCHEMA.steps[..2], ..SCHEMA };
    let store = Store::open(&file, &[before]).expect("opens");
    let spec = to_json(&spec_with(&["a"]));
    let node = to_json(&spec_with(&["a"]).nodes[0]);
    let write = move |c: &mut Connection| {
        c.execute(
            "INSERT INTO cluster (id, name, state, generation, spec, image_id, kubernetes, trial, created)
             VALUES ('c', 'home', 'present', 1, ?1, 'i', 'v1.20.2', 0, ?2)",
            [spec.as_str(), now().as_str()],
        )?;
        c.execute(
            "INSERT INTO node (id, cluster_id, name, spec, machine_uuid, pod_index, state)
             VALUES ('n', 'c', 'a', ?1, 'm', 0, 'present')",
            [node.as_str()],
        )
    };
    store.call_blocking(write).expect("writes");
    drop(store);
    let records = Records::new(Store::open(&file, &[SCHEMA]).expect("opens"));
    let cluster = home(&records).await;
    assert_eq!((cluster.plugins, cluster.nodes[0].pod_network.as_str()), (Vec::new(), ""));
}

#[tokio::test]
async fn an_operation_of_the_release_before_is_not_taken_for_one_that_may_destroy_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state.db");
    let before = host_store::Schema { steps: &SCHEMA.steps[..1], ..SCHEMA };
    let store = Store::open(&file, &[before]).expect("opens");
    let begin = |c: &mut Connection| {
        c.execute(
            "INSERT INTO operation (id, cluster_id, cluster, kind, generation, state, started, deadline)
             VALUES ('o', 'c', 'home', 'up', 1, 'running', ?1, ?1)",
            [now()],
        )
    };
    store.call_blocking(begin).expect("writes");
    drop(store);
    let records = Records::new(Store::open(&file, &[SCHEMA]).expect("opens"));
    let stored = records.running_operation("c").await.expect("reads").expect("is there");
    assert_eq!(stored.agreed, None);
}

#[tokio::test]
async fn forgetting_a_cluster_ends_its_operation() {
    let records = records();
    let up = new(up(&records, &["a"]).await);
    records.forget_cluster(&up.cluster_id).await.expect("forgets");
    assert!(records.cluster("home").await.expect("reads").is_none());
    let ended = records.operation(&up.id).await.expect("reads").expect("is there");
    assert_eq!(ended.state, OperationState::Succeeded);
}

#[tokio::test]
async fn a_node_that_comes_back_stays_or_is_another_machine() {
    let records = records();
    new(up(&records, &["a", "b"]).await);
    let first = home(&records).await;
    new(up(&records, &[]).await);
    records.set_removing(&first.nodes[1].id).await.expect("writes");
    // Both are back in the file: one was still drained, the other's certificate may be void.
    new(up(&records, &["a", "b"]).await);
    records.set_removing(&first.nodes[0].id).await.expect("writes");
    let now = home(&records).await;
    let seen: Vec<_> = now.nodes.iter().map(|n| (n.name.as_str(), n.pod_index, n.state)).collect();
    assert_eq!(seen, [("a", 0, NodeState::Present), ("b", 1, NodeState::Present)]);
    let machine = |node: &NodeRecord| (node.id.clone(), node.machine_uuid.clone());
    assert_eq!(machine(&now.nodes[0]), machine(&first.nodes[0]));
    assert_ne!(now.nodes[1].id, first.nodes[1].id);
    assert_ne!(now.nodes[1].machine_uuid, first.nodes[1].machine_uuid);
}

#[tokio::test]
async fn whatever_is_damaged_in_one_cluster_the_others_can_be_read() {
    for (what, object) in [
        ("UPDATE cluster SET node_port = 70000 WHERE name = 'home'", "cluster home"),
        ("UPDATE cluster SET image_id = CAST(x'ff' AS TEXT) WHERE name = 'home'", "cluster home"),
        ("UPDATE cluster SET name = CAST(x'ff' AS TEXT) WHERE name = 'home'", "cluster \u{fffd}"),
        ("UPDATE node SET pod_index = -1 WHERE name = 'a'", "a node of cluster home"),
        ("UPDATE node SET spec = '{' WHERE name = 'a'", "node a"),
        ("UPDATE cluster SET plugins = '[' WHERE name = 'home'", "cluster home"),
    ] {
        let store = Store::in_memory(&[SCHEMA]).expect("opens");
        let records = Records::new(store.clone());
        new(up(&records, &["a"]).await);
        let mut other = generation(&["b"]);
        other.spec.name = "other".to_owned();
        new(records.begin_up(other).await.expect("answers"));
        let damaged = store.call_blocking(|c| Ok::<_, StoreError>(c.execute(what, [])?)).expect("writes");
        assert_eq!(damaged, 1, "{what}");
        let (clusters, damaged) = records.all_clusters().await.expect(what);
        let names: Vec<_> = clusters.into_iter().map(|cluster| cluster.name).collect();
        assert_eq!(names, ["other"], "{what}");
        let failures: Vec<_> = damaged.iter().map(|cluster| cluster.error.failure()).collect();
        assert_eq!(failures.len(), 1, "{what}");
        assert_eq!((failures[0].id.as_str(), failures[0].object.as_str()), ("HOST-RECORD-DAMAGED", object));
    }
}

#[tokio::test]
async fn a_cluster_that_is_being_removed_takes_no_new_spec() {
    let records = records();
    new(up(&records, &["a"]).await);
    let cluster = home(&records).await;
    let down = new(records.begin_down(&cluster, jiff::Timestamp::now()).await.expect("begins"));
    assert!(matches!(up(&records, &["a"]).await, Begun::BeingRemoved));
    let running = records.running_operation(&cluster.id).await.expect("reads");
    assert_eq!(running.map(|operation| operation.id), Some(down.id));
}

#[tokio::test]
async fn only_the_last_operations_are_kept() {
    let records = records();
    let mut ids = Vec::new();
    for round in 0..KEPT + 5 {
        let workers: &[&str] = if round % 2 == 0 { &["a"] } else { &["a", "b"] };
        ids.push(new(up(&records, workers).await).id);
    }
    let mut kept = Vec::new();
    for id in &ids {
        kept.push(records.operation(id).await.expect("reads").is_some());
    }
    // The one that runs is not among those.
    let gone = ids.len() - 1 - KEPT as usize;
    assert_eq!(kept, [vec![false; gone], vec![true; KEPT as usize + 1]].concat());

    for _ in 0..KEPT_OF_GONE {
        records.forget_cluster(&home(&records).await.id).await.expect("forgets");
        new(up(&records, &["a"]).await);
    }
    let count = |c: &mut Connection| {
        let count = c.query_row("SELECT count(*) FROM operation", [], |row| row.get::<_, u32>(0));
        Ok::<_, StoreError>(count?)
    };
    assert_eq!(records.store.call_blocking(count).expect("counts"), KEPT_OF_GONE + 1);
}
