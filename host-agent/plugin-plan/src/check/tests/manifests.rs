//! Manifests of upstream projects within a plan.

use serde_json::json;

use super::Fixture;
use crate::unchecked::{Drift, Handling, ManifestPatch, ObjectSelector, RemoteManifest};

const BODY: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  template:
    spec:
      serviceAccountName: shop
      containers: [{name: a, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: shop}
---
apiVersion: shop.example/v1
kind: Till
metadata: {name: first}
";

fn selector(kind: &str) -> ObjectSelector {
    ObjectSelector { kind: kind.to_owned(), ..ObjectSelector::default() }
}

/// Without the kind that nobody says anything of.
fn without_till(remote: &mut RemoteManifest) {
    remote.exclude = vec![selector("Till")];
}

#[test]
fn objects_of_a_manifest_are_checked_as_the_plugins_own() {
    let mut fixture = Fixture::shop().manifest_with(BODY, |remote| {
        without_till(remote);
        remote.handling = Handling { drift: Drift::Report, ..Handling::default() };
    });
    let checked = fixture.checked();
    let keys: Vec<_> = checked.keys().iter().map(ToString::to_string).collect();
    assert_eq!(keys, ["v1 ServiceAccount shop/shop", "apps/v1 Deployment shop/shop"]);
    assert!(checked.objects.iter().all(|planned| planned.handling.drift == Drift::Report));
    let protocol = checked.objects[1].object.pointer("/spec/template/spec/containers/0/ports/0/protocol");
    assert_eq!(protocol, Some(&json!("TCP")));
    fixture.plan.remotes[0].namespace.clear();
    let said = fixture.refusal();
    assert!(said.starts_with("PLUGIN-REFUSED") && said.contains("it names no namespace"), "{said}");
}

#[test]
fn a_kind_that_only_the_permission_knows_gets_the_namespace_too() {
    let ready = crate::unchecked::ReadyWhen::Exists;
    let checked = Fixture::shop().manifest_of(BODY).ready("shop.example/v1", "Till", ready).checked();
    assert!(checked.keys().iter().any(|key| key.to_string() == "shop.example/v1 Till shop/first"));
}

#[test]
fn a_manifest_comes_from_a_declared_place() {
    for (url, why) in [
        ("https://evil.example/v1.yaml", "it is below no [[remote]] of plugin.toml"),
        ("http://shop.example/manifests/v1.yaml", "it is not https"),
        ("https://shop.example/manifests/../v1.yaml", "it has . or .. in its path"),
        ("https://me:pw@shop.example/manifests/v1.yaml", "it has a user"),
        ("https://shop.example/manifests/v1.yaml#x", "it has a fragment"),
    ] {
        let fixture = Fixture::shop().manifest_with(BODY, |remote| {
            without_till(remote);
            remote.url = url.to_owned();
        });
        fixture.is_refused_for(why);
    }
    let changed = |change: fn(&mut RemoteManifest)| Fixture::shop().manifest_with(BODY, change);
    changed(|remote| remote.sha256 = remote.sha256.to_uppercase())
        .is_refused_for("its sha256 is not 64 hex digits");
    changed(|remote| remote.sha256 = "abc".to_owned()).is_refused_for("its sha256 is not 64 hex digits");
    changed(|remote| remote.max_bytes = 1 << 30).is_refused_for("its max_bytes is 1073741824");
    changed(|remote| remote.max_bytes = 10).is_refused_for("expected at most 10");
}

#[test]
fn a_manifest_that_is_not_at_hand_is_refused_unless_it_is_an_offer() {
    let mut fixture = Fixture::shop().manifest_with(BODY, without_till).deployment(json!({
        "containers": [], "serviceAccountName": "of-the-manifest",
    }));
    fixture.fetched.clear();
    fixture.is_refused_for("it was not fetched");
    fixture.without_bodies = true;
    assert_eq!(fixture.checked().objects.len(), 1, "what it has may be in the manifest");
    fixture.plan.objects[0].object["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    fixture.is_refused_for("it wants hostNetwork");
    let mut alone = Fixture::shop().manifest_with(BODY, without_till);
    alone.fetched.clear();
    alone.without_bodies = true;
    assert_eq!(alone.checked().objects.len(), 0);
}

#[test]
fn a_manifest_that_is_none_is_told_as_that() {
    for (body, why) in [
        ("a: [", "manifest https://shop.example/manifests/v1.yaml: "),
        ("just text", "is no object"),
        ("<!DOCTYPE html><html><body>404</body></html>", "manifest"),
    ] {
        let said = Fixture::shop().manifest_of(body).refusal();
        assert!(said.starts_with("PLUGIN-REMOTE-CONTENT: ") && said.contains(why), "{said}");
    }
    let said = Fixture::shop().manifest_with(BODY, |remote| remote.objects = 7).refusal();
    assert!(
        said.starts_with("PLUGIN-REMOTE-CONTENT: ") && said.contains("it has 3 objects, expected 7"),
        "{said}"
    );
    let patch = |kind: &str| ManifestPatch {
        target: selector(kind),
        operations: json!([{"op": "remove", "path": "/spec/no"}]),
    };
    for (kind, why) in [("Job", "patch 0: nothing in it is Job"), ("Deployment", "operation 0 at /spec/no")] {
        let said = Fixture::shop().manifest_with(BODY, |remote| remote.patches = vec![patch(kind)]).refusal();
        assert!(said.starts_with("PLUGIN-REMOTE-CONTENT: ") && said.contains(why), "{said}");
    }
}

#[test]
fn patched_objects_are_checked_as_they_are_then() {
    let patch = |operations| {
        Fixture::shop().manifest_with(BODY, |remote| {
            without_till(remote);
            remote.patches = vec![ManifestPatch { target: selector("Deployment"), operations }];
        })
    };
    let replicas = patch(json!([{"op": "add", "path": "/spec/replicas", "value": 2}])).checked();
    assert_eq!(replicas.objects[1].object["spec"]["replicas"], 2);
    patch(json!([{"op": "add", "path": "/spec/template/spec/hostPID", "value": true}]))
        .is_refused_for("hostPID");
    patch(json!([{"op": "replace", "path": "/metadata/namespace", "value": "kube-system"}]))
        .refusal()
        .lines()
        .for_each(|line| assert!(line.contains("kube-system/shop"), "{line}"));
}
