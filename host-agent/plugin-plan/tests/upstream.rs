//! The manifests of real projects, as they are: read, filled in, and checked against what a plugin with exactly their needs
//! would ask for. Less than that is refused.
//!
//! They lie in `K8S_MYHOME_UPSTREAM`, else beside the workspace in `shared/upstream`; where they are not there, that is said
//! and nothing is tested, but in CI it is a failure.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use common::needs::{manifest_for, wider};
use common::{FILES, Upstream, body, remote, rules_of_ready, workspace};
use plugin_package::Manifest;
use plugin_plan::remote::objects_of;
use plugin_plan::{CheckContext, CheckedPlan, Stage, UncheckedObject, UncheckedPlan, check_plan};
use serde_json::Value;

fn check(
    manifest: &Manifest,
    plan: UncheckedPlan,
    bodies: &BTreeMap<String, Vec<u8>>,
) -> Result<CheckedPlan, String> {
    let context = CheckContext {
        manifest,
        fetched: bodies,
        without_bodies: false,
        secrets: &BTreeSet::new(),
        accounts: &BTreeSet::new(),
    };
    check_plan(plan, &context).map_err(|failure| format!("{failure}\n{}", failure.evidence))
}

fn objects(upstream: &Upstream, folder: &std::path::Path) -> Vec<Value> {
    let objects = objects_of(&remote(upstream, folder), &body(upstream, folder), &[]);
    objects.unwrap_or_else(|why| panic!("{}: {why}", upstream.name))
}

#[test]
fn each_of_them_is_read_and_passes_with_what_it_needs() {
    let Some(folder) = common::upstream() else { return };
    for upstream in &FILES {
        let own = objects(upstream, &folder);
        assert_eq!(own.len(), upstream.objects, "{}", upstream.name);
        let manifest = manifest_for(&own);
        let remote = remote(upstream, &folder);
        let bodies = BTreeMap::from([(remote.sha256.clone(), body(upstream, &folder))]);
        let plan = UncheckedPlan {
            remotes: vec![remote],
            readiness: rules_of_ready(&own),
            ..UncheckedPlan::default()
        };
        let checked =
            check(&manifest, plan, &bodies).unwrap_or_else(|why| panic!("{}: {why}", upstream.name));
        assert_eq!(checked.objects.len(), upstream.objects, "{}", upstream.name);
        assert!(checked.objects.is_sorted_by_key(|planned| planned.stage), "{}", upstream.name);
        for planned in &checked.objects {
            assert_eq!(ports_without_protocol(&planned.object), 0, "{} of {}", planned.key, upstream.name);
            let is_namespaced = !planned.key.namespace.is_empty();
            assert!(!is_namespaced || planned.key.namespace == upstream.namespace, "{}", planned.key);
        }
        let text = serde_json::to_string(&checked).expect("JSON");
        assert_eq!(serde_json::from_str::<CheckedPlan>(&text).expect("a plan"), checked, "{}", upstream.name);
    }
}

/// Ports of Services and of containers, wherever they are.
fn ports_without_protocol(value: &Value) -> usize {
    let of_ports = |value: &Value, key: &str| {
        let ports = value["ports"].as_array().into_iter().flatten();
        ports.filter(|port| port.get(key).is_some() && port.get("protocol").is_none()).count()
    };
    match value {
        Value::Object(fields) => {
            of_ports(value, "port") * usize::from(fields.contains_key("selector"))
                + of_ports(value, "containerPort")
                + fields.values().map(ports_without_protocol).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(ports_without_protocol).sum(),
        _ => 0,
    }
}

/// Without what says nothing about rights, so that many checks take little time.
fn about_rights(objects: &[Value]) -> UncheckedPlan {
    const KINDS: [&str; 8] = [
        "ServiceAccount",
        "Role",
        "ClusterRole",
        "RoleBinding",
        "ClusterRoleBinding",
        "Service",
        "ValidatingWebhookConfiguration",
        "APIService",
    ];
    let kept =
        objects.iter().filter(|object| object["kind"].as_str().is_some_and(|kind| KINDS.contains(&kind)));
    let objects = kept.map(|object| UncheckedObject { object: object.clone(), handling: Default::default() });
    UncheckedPlan { objects: objects.collect(), ..UncheckedPlan::default() }
}

#[test]
fn without_any_one_of_its_needs_it_is_refused() {
    let Some(folder) = common::upstream() else { return };
    let mut needed = 0;
    for upstream in &FILES {
        let own = objects(upstream, &folder);
        let manifest = manifest_for(&own);
        let plan = about_rights(&own);
        if plan.objects.is_empty() {
            continue;
        }
        let check = |manifest: &Manifest| check(manifest, plan.clone(), &BTreeMap::new());
        check(&manifest).unwrap_or_else(|why| panic!("{}: {why}", upstream.name));
        for index in 0..manifest.grants.len() {
            let mut less = manifest.clone();
            let gone = less.grants.remove(index);
            match check(&less) {
                Err(why) => {
                    needed += 1;
                    assert!(why.contains("no [[grant]]"), "{}: {why}", upstream.name);
                }
                Ok(_) => assert!(
                    less.grants.iter().any(|grant| wider(grant, &gone)),
                    "{}: nothing covers {gone}, and nobody misses it",
                    upstream.name
                ),
            }
        }
        type Removal = fn(&mut Manifest, usize) -> String;
        let parts: [(&str, Removal); 4] = [
            ("[[bind]]", |manifest, index| manifest.binds.remove(index).why),
            ("[[webhook]]", |manifest, index| manifest.webhooks.remove(index).why),
            ("[[aggregate]]", |manifest, index| manifest.aggregates.remove(index).why),
            ("no permission", |manifest, index| manifest.permissions.remove(index).why),
        ];
        for (what, remove) in parts {
            let count = match what {
                "[[bind]]" => manifest.binds.len(),
                "[[webhook]]" => manifest.webhooks.len(),
                "[[aggregate]]" => manifest.aggregates.len(),
                _ => manifest.permissions.len(),
            };
            for index in 0..count {
                let mut less = manifest.clone();
                let of = remove(&mut less, index);
                // A permission may be for what was left out here.
                if what == "no permission"
                    && !plan.objects.iter().any(|one| one.object["kind"] == of.as_str())
                {
                    continue;
                }
                let why = check(&less).map(|plan| plan.keys()).expect_err(what);
                assert!(why.contains(what), "{}: {why}", upstream.name);
                needed += 1;
            }
        }
    }
    assert!(needed > 100, "only {needed} needs were looked at");
}

#[test]
fn who_reaches_into_nodes_is_known() {
    let Some(folder) = common::upstream() else { return };
    for upstream in &FILES {
        let own = objects(upstream, &folder);
        let manifest = Manifest { privileged_pods: false, ..manifest_for(&own) };
        let plan = UncheckedPlan {
            objects: own
                .iter()
                .map(|object| UncheckedObject { object: object.clone(), handling: Default::default() })
                .collect(),
            readiness: rules_of_ready(&own),
            ..UncheckedPlan::default()
        };
        let refused = check(&manifest, plan, &BTreeMap::new()).err();
        assert_eq!(refused.is_some(), upstream.reaches_nodes, "{}: {refused:?}", upstream.name);
        assert!(refused.is_none_or(|why| why.contains("privileged_pods")), "{}", upstream.name);
    }
}

#[test]
fn what_judges_comes_last() {
    let Some(folder) = common::upstream() else { return };
    let upstream = FILES.iter().find(|upstream| upstream.name == "metallb").expect("it is one of them");
    let mut own = objects(upstream, &folder);
    own.push(serde_json::json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "default", "namespace": "metallb-system"}, "spec": {"addresses": []}}));
    own.push(serde_json::json!({"apiVersion": "metallb.io/v1beta1", "kind": "ConfigurationState",
        "metadata": {"name": "default", "namespace": "metallb-system"}}));
    let plan = UncheckedPlan {
        objects: own
            .iter()
            .map(|object| UncheckedObject { object: object.clone(), handling: Default::default() })
            .collect(),
        readiness: rules_of_ready(&own),
        ..UncheckedPlan::default()
    };
    let checked = check(&manifest_for(&own), plan, &BTreeMap::new()).expect("it passes");
    let stage = |kind: &str| {
        checked.objects.iter().find(|planned| planned.key.kind == kind).expect("it is planned").stage
    };
    assert_eq!(stage("CustomResourceDefinition"), Stage::Definitions);
    assert_eq!(stage("ClusterRole"), Stage::Accounts);
    assert_eq!(stage("DaemonSet"), Stage::Workloads);
    assert_eq!(stage("ConfigurationState"), Stage::Workloads, "no webhook is asked about it");
    assert_eq!(stage("ValidatingWebhookConfiguration"), Stage::Admission);
    assert_eq!(stage("IPAddressPool"), Stage::Guarded);
}

#[test]
fn the_plugins_of_the_tree_may_do_what_their_projects_ship() {
    let Some(folder) = common::upstream() else { return };
    for (plugin, name) in
        [("flannel", "flannel"), ("local-path-storage", "local-path-storage"), ("metallb", "metallb")]
    {
        let file: PathBuf = workspace().join("plugins").join(plugin).join("plugin.toml");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let manifest =
            Manifest::parse(&text).unwrap_or_else(|mistakes| panic!("{plugin}: {}", mistakes.join("\n")));
        let upstream = FILES.iter().find(|upstream| upstream.name == name).expect("it is one of them");
        let pinned = manifest.manifests.first().expect("it pins a manifest");
        let mut remote = remote(upstream, &folder);
        assert_eq!(remote.sha256, pinned.sha256, "{plugin} pins another one");
        remote.url.clone_from(&pinned.url);
        let bodies = BTreeMap::from([(remote.sha256.clone(), body(upstream, &folder))]);
        let plan = UncheckedPlan { remotes: vec![remote], ..UncheckedPlan::default() };
        let checked = check(&manifest, plan, &bodies).unwrap_or_else(|why| panic!("{plugin}: {why}"));
        assert_eq!(checked.objects.len(), upstream.objects, "{plugin}");
    }
}
