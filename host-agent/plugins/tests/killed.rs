//! The host agent is killed at every point of an application and of a removal: a new engine on the same database goes on
//! and ends in the same state, with nothing made twice.

#[path = "common/mod.rs"]
mod common;

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use common::Installation;
use common::cluster::Cluster;
use common::kubelet::Kubelet;
use common::plans::{Plan, account, config_map, custom, definition, deployment, job, plan, service};
use futures::FutureExt;
use host_plugins::engine::POINTS;
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use plugin_plan::Handling;
use serde_json::Value;

/// Where the next engine dies, and after how many times of coming there.
static DEATH: Mutex<Option<(&str, usize)>> = Mutex::new(None);

/// Dies at its point: what was in flight is dropped, as the end of a process drops it.
fn dies(point: &'static str) {
    let mut death = DEATH.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, left)) = death.as_mut().filter(|(at, _)| *at == point) {
        if *left == 0 {
            let at = *at;
            *death = None;
            drop(death);
            panic!("killed at {at}");
        }
        *left -= 1;
    }
}

fn plan_death(point: &'static str, after: usize) {
    *DEATH.lock().unwrap_or_else(PoisonError::into_inner) = Some((point, after));
}

/// Whether it is still to come.
fn is_alive() -> bool {
    DEATH.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
}

/// A plan with something of every stage, a Job that cannot be changed, and one object too many in its first version.
fn wanted(name: &str, version: u32) -> Plan {
    let group = format!("{name}.example.org");
    let text = version.to_string();
    let anew = Handling { replace: true, ..Handling::default() };
    let image = format!("lab.k8s-myhome/busybox:{version}");
    let mut plan = plan(name)
        .objects([
            definition(&group, "Pool", "pools"),
            account("default", name),
            config_map("default", name, &text),
            service("default", name),
            deployment("default", name, version),
            custom(&group, "Pool", "default", name, version.into()),
        ])
        .with(job("default", name, &image), anew)
        .ready_when_there(&format!("{group}/v1"), "Pool");
    if version == 1 {
        plan = plan.object(config_map("default", &format!("{name}-old"), &text));
    }
    plan
}

/// Objects of a plugin as they are, without what differs between two that are the same.
async fn objects(client: &Client, plugin: &str) -> Vec<Value> {
    let group = format!("{plugin}.example.org");
    let mut found = Vec::new();
    for (group, version, kind) in [
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        ("", "v1", "ServiceAccount"),
        ("", "v1", "ConfigMap"),
        ("", "v1", "Service"),
        ("apps", "v1", "Deployment"),
        ("batch", "v1", "Job"),
        (&group, "v1", "Pool"),
    ] {
        let kind = GroupVersionKind::gvk(group, version, kind);
        let Ok((resource, _)) = kube::discovery::pinned_kind(client, &kind).await else { continue };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let ours = ListParams::default().labels(&format!("k8sctl.dev/plugin={plugin}"));
        for object in api.list(&ours).await.expect("they are listed") {
            let name = object.metadata.name.clone().unwrap_or_default().replace(plugin, "NAME");
            let mut spec = object.data.clone();
            if let Some(fields) = spec.as_object_mut() {
                fields.remove("status");
            }
            // Addresses and the UIDs in a Job's labels are each object's own.
            let mut text = spec.to_string().replace(plugin, "NAME");
            if let Some(uid) = &object.metadata.uid {
                text = text.replace(uid.as_str(), "UID");
            }
            if let Some(address) = object.data["spec"]["clusterIP"].as_str() {
                text = text.replace(address, "ADDRESS");
            }
            found.push(Value::String(format!("{} {name} {text}", resource.kind)));
        }
    }
    found
}

/// Lets an engine die at a point, and goes on with new ones until one lives. How often one died.
async fn until_it_lives(
    installation: &Installation,
    deaths: &[(&'static str, usize)],
    work: impl AsyncFn(&Installation),
) -> usize {
    let mut died = 0;
    for (point, after) in deaths.iter().copied() {
        plan_death(point, after);
        let lived = AssertUnwindSafe(work(installation)).catch_unwind().await;
        let was_spared = is_alive();
        if lived.is_ok() {
            assert!(was_spared, "it died at {point} and went on");
            return died;
        }
        assert!(!was_spared, "it ended before {point}, by something else");
        died += 1;
    }
    work(installation).await;
    died
}

async fn applied(installation: &Installation, version: u32) {
    let plan = wanted(&installation.plugin, version).checked();
    installation.apply(&plan).await.unwrap_or_else(|failure| panic!("{failure}\n{}", failure.evidence));
}

async fn removed(installation: &Installation) {
    let removed = installation.engine().remove(false).await;
    removed.unwrap_or_else(|failure| panic!("{failure}\n{}", failure.evidence));
}

#[tokio::test]
async fn a_host_agent_that_is_killed_anywhere_goes_on_to_the_same_end() {
    let Some(cluster) = Cluster::start().await else { return };
    let _kubelet = Kubelet::start(&cluster.people);
    let new = |name: &str| {
        let mut installation = Installation::new(&cluster, name);
        installation.points = dies;
        installation
    };

    // What nobody disturbs.
    let calm = new("calm");
    applied(&calm, 1).await;
    let first = objects(&cluster.people, "calm").await;
    applied(&calm, 2).await;
    let second = objects(&cluster.people, "calm").await;
    assert_eq!((first.len(), second.len()), (8, 7));

    let mut points = Vec::new();
    for (number, point) in POINTS.into_iter().enumerate() {
        let killed = new(&format!("killed-{number}"));
        let name = killed.plugin.clone();
        // Once at its first time, and once at a later one.
        let deaths = [(point, 0), (point, 2)];
        let installing = until_it_lives(&killed, &deaths, async |one| applied(one, 1).await).await;
        assert_eq!(objects(&cluster.people, &name).await, first, "installed, killed at {point}");
        let changing = until_it_lives(&killed, &deaths, async |one| applied(one, 2).await).await;
        assert_eq!(objects(&cluster.people, &name).await, second, "changed, killed at {point}");
        let plan = wanted(&name, 2).checked();
        assert_eq!(killed.apply(&plan).await.expect("again").written, 0, "{point}");
        let entries = killed.inventory().entries().await.expect("they are read");
        assert!(
            entries.len() == 7 && entries.iter().all(|entry| entry.uid.is_some()),
            "{point}: {entries:?}"
        );
        let removing = until_it_lives(&killed, &deaths, async |one| removed(one).await).await;
        assert_eq!(objects(&cluster.people, &name).await, Vec::<Value>::new(), "removed, killed at {point}");
        assert!(killed.inventory().entries().await.expect("they are read").is_empty(), "{point}");
        println!("{point}: died {installing} times installing, {changing} changing, {removing} removing");
        points.push((point, installing + changing + removing));
    }
    let missed: Vec<_> = points.iter().filter(|(_, died)| *died == 0).map(|(point, _)| *point).collect();
    assert!(missed.is_empty(), "nobody comes to these points: {missed:?}");
}
