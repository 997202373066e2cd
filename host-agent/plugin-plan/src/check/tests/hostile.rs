//! Plans of somebody who wants more than what was approved. Each of them is refused, and the failure stays readable.

use serde_json::{Value, json};

use super::{Fixture, deployment, own};
use crate::limits;
use crate::unchecked::{Handling, ManifestPatch, ObjectSelector, ReadyWhen, RemoteManifest, UncheckedObject};

#[test]
fn a_privileged_pod_is_found_wherever_it_hides() {
    let pod = json!({"containers": [{"name": "a", "securityContext": {"privileged": true}}]});
    let why = "it wants a privileged container";
    Fixture::shop().deployment(pod.clone()).is_refused_for(why);
    Fixture::shop().till(json!({"workers": [{"template": {"spec": pod}}]})).is_refused_for(why);
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "a", "namespace": "shop"},
        "template": {"spec": pod}});
    Fixture::shop().object(template).is_refused_for(why);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [deployment(pod.clone())]}).to_string();
    Fixture::shop().manifest_of(&list).is_refused_for(why);
    let asking = "[[permission]]\ngroup = \"\"\nkind = \"List\"\nnames = [\"a\"]\nverbs = [\"get\", \"create\", \"patch\"]";
    let list =
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"name": "a"}, "items": [deployment(pod)]});
    let said = Fixture::shop().asking(asking).object(list).ready("v1", "List", ReadyWhen::Exists).refusal();
    assert!(said.contains(why) && said.contains("a List is taken apart in manifests only"), "{said}");
}

#[test]
fn nobody_becomes_somebody_else() {
    let mighty = json!([{"kind": "ServiceAccount", "name": "clusterrole-aggregation-controller", "namespace": "kube-system"}]);
    Fixture::shop().cluster_role(json!([])).cluster_binding("ClusterRole shop", mighty).is_refused_for(
        "it binds ClusterRole shop to ServiceAccount kube-system/clusterrole-aggregation-controller",
    );
    let pod = json!({"containers": [], "serviceAccountName": "clusterrole-aggregation-controller"});
    Fixture::shop().deployment(pod.clone()).is_refused_for("clusterrole-aggregation-controller");
    let mut elsewhere = deployment(pod);
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    let said = Fixture::shop().object(elsewhere).refusal();
    assert!(said.contains("no permission") && said.contains("clusterrole-aggregation-controller"), "{said}");
    let token = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "t", "namespace": "shop",
            "annotations": {"kubernetes.io/service-account.name": "clusterrole-aggregation-controller"}}});
    Fixture::shop().object(token).is_refused_for("it asks for the token of the service account");
    let escalate = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["escalate"]}]);
    Fixture::shop().cluster_role(escalate.clone()).is_refused_for("escalate clusterroles");
    Fixture::shop().role("a", escalate).is_refused_for("escalate clusterroles");
    Fixture::shop()
        .account("a")
        .binding("ClusterRole cluster-admin", own("a"))
        .is_refused_for("it binds ClusterRole cluster-admin");
}

#[test]
fn nobody_judges_or_serves_what_is_kubernetes_own() {
    let webhook = json!({"name": "a.b.c", "clientConfig": {"url": "https://evil.example"}, "failurePolicy": "Ignore",
        "rules": [{"apiGroups": [""], "resources": ["pods", "secrets"]}]});
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "shop"}, "webhooks": [webhook]});
    let said = Fixture::shop().object(configuration).refusal();
    for why in ["it is called at a URL", "it would change pods of core", "it would change secrets of core"] {
        assert!(said.contains(why), "{why}: {said}");
    }
    let asking = "[[permission]]\ngroup = \"apiregistration.k8s.io\"\nkind = \"APIService\"\nnames = [\"v1.apps\"]\n\
                  verbs = [\"get\", \"create\", \"patch\"]";
    let api = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.apps"},
        "spec": {"group": "apps", "version": "v1", "service": {"namespace": "shop", "name": "a"}}});
    Fixture::shop()
        .asking(asking)
        .service("a")
        .object(api)
        .is_refused_for("it would serve the group \"apps\"");
}

#[test]
fn a_foreign_namespace_is_not_reached_by_a_detour() {
    for namespace in ["kube-system", "other"] {
        let mut object = deployment(json!({"containers": []}));
        object["metadata"]["namespace"] = json!(namespace);
        Fixture::shop().object(object).is_refused_for("no permission");
    }
    for name in ["../../kube-system/pods/x", "a/../../b", "a%2f..%2fb", "a?x"] {
        let mut object = deployment(json!({"containers": []}));
        object["metadata"]["name"] = json!(name);
        Fixture::shop().object(object).is_refused_for("object 1: its metadata.name is");
    }
}

#[test]
fn more_than_anybody_plans_is_refused_at_once() {
    let mut many = Fixture::shop();
    let one = UncheckedObject { object: json!({}), handling: Handling::default() };
    many.plan.objects = vec![one; limits::OBJECTS + 1];
    many.is_refused_for("it has 2001 objects, expected at most 2000");

    let body = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n".repeat(1500);
    let mut twice = Fixture::shop().manifest_of(&body);
    twice.plan.remotes.push(twice.plan.remotes[0].clone());
    twice.is_refused_for("it has 3000 objects with those of its manifests");

    // Five of 15 MiB, nearly all of it one text: each may be, and is read with a budget of its own, so that the first four
    // are no matter; with the fifth they are too much, and it is not read.
    let body = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{a: {}}}\n",
        "x".repeat(15 << 20)
    );
    let mut large = Fixture::shop().manifest_with(&body, |remote| remote.max_bytes = 16 << 20);
    let one = large.plan.remotes[0].clone();
    let url = |number: u32| format!("https://shop.example/manifests/v{number}.yaml");
    let numbered = |number| RemoteManifest { url: url(number), ..one.clone() };
    large.plan.remotes = (1..=5).map(numbered).collect();
    let why = "with it the manifests have more than 67108864 bytes together";
    large.is_refused_for(&format!("manifest {}: {why}", url(5)));
    // Without it what is in them is looked at: none of them was refused for how much it is.
    large.plan.remotes.truncate(4);
    let said = large.refusal();
    assert!(
        said.starts_with("PLUGIN-REFUSED") && said.contains("v1 ConfigMap shop/a: planned twice"),
        "{said}"
    );
    assert!(said.contains("larger than 1048576 bytes") && !said.contains("together"), "{said}");

    let mut remotes = Fixture::shop();
    remotes.plan.remotes = vec![RemoteManifest::default(); 33];
    remotes.is_refused_for("it has 33 manifests, expected at most 32");

    let operations = Value::Array(vec![json!({"op": "remove", "path": "/a"}); 501]);
    let patch = ManifestPatch { target: ObjectSelector::default(), operations };
    Fixture::shop()
        .manifest_with("a: b", |remote| remote.patches = vec![patch])
        .is_refused_for("it has 501 operations in patches");

    let mut rules = Fixture::shop();
    for number in 0..201 {
        rules = rules.ready("a.example/v1", &format!("K{number}"), ReadyWhen::Exists);
    }
    rules.is_refused_for("it has 201 readiness rules");
}

#[test]
fn an_object_is_as_large_and_as_deep_as_the_store_takes() {
    let map = |bytes: usize| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "shop"},
            "data": {"a": "x".repeat(bytes)}})
    };
    Fixture::shop().object(map(1_000_000)).checked();
    Fixture::shop().object(map(1 << 20)).is_refused_for("larger than 1048576 bytes");
    let mut deep = json!({});
    for _ in 0..70 {
        deep = json!({"a": deep});
    }
    Fixture::shop().till(deep).is_refused_for("nested deeper than 64 levels");
    let mut fine = json!({});
    for _ in 0..55 {
        fine = json!({"a": fine});
    }
    let checked = Fixture::shop().till(fine).checked();
    let text = serde_json::to_string(&checked).expect("JSON");
    assert_eq!(serde_json::from_str::<crate::CheckedPlan>(&text).expect("it can be read again"), checked);
}

#[test]
fn a_manifest_that_grows_is_none() {
    let bomb = "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n\
                c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c]\n";
    let said = Fixture::shop().manifest_of(bomb).refusal();
    assert!(said.starts_with("PLUGIN-REMOTE-CONTENT"), "{said}");
    let double = |number: u32| json!({"op": "copy", "from": "", "path": format!("/a{number}")});
    let doubles = (0..60).map(double).collect();
    let patch = ManifestPatch { target: ObjectSelector::default(), operations: doubles };
    let said =
        Fixture::shop().manifest_with("kind: X\na: text", |remote| remote.patches = vec![patch]).refusal();
    assert!(said.contains("it grows beyond"), "{said}");
}

#[test]
fn a_refusal_stays_readable() {
    let mut many = Fixture::shop();
    for number in 0..500 {
        let mut object = deployment(json!({"containers": []}));
        object["metadata"]["name"] = json!(format!("{}{number}", "n".repeat(200)));
        object["metadata"]["namespace"] = json!("other");
        many = many.object(object);
    }
    let said = many.refusal();
    assert_eq!(said.lines().count(), 101);
    assert!(said.ends_with("and 400 more") && said.len() < 100 * 700, "{}", said.len());
    let line = Fixture::shop()
        .account("a")
        .binding("Role x", json!([{"kind": "User", "name": "a\nb".repeat(1000)}]));
    let said = line.refusal();
    assert!(said.lines().count() == 1 && said.len() < 700, "{said}");
}
