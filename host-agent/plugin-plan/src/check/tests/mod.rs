//! A plan that is fine and one that is not, for each rule. Larger families of rules have a file of their own.

mod hostile;
mod manifests;
mod nodes;
mod rights;
mod webhooks;

use serde_json::json;

use super::fixture::{Fixture, deployment, own};
use crate::checked::Stage;
use crate::object::ObjectKey;
use crate::unchecked::{Drift, Handling, ReadyWhen, SecretRef};

#[test]
fn objects_come_in_the_order_in_which_they_need_each_other() {
    let checked = Fixture::shop()
        .till(json!({}))
        .deployment(json!({"containers": [], "serviceAccountName": "shop"}))
        .service("b")
        .service("a")
        .role("shop", json!([]))
        .account("shop")
        .object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
        .checked();
    let order: Vec<_> =
        checked.objects.iter().map(|planned| (planned.stage, planned.key.name.as_str())).collect();
    assert_eq!(
        order,
        [
            (Stage::Definitions, "shop"),
            (Stage::Accounts, "shop"),
            (Stage::Accounts, "shop"),
            (Stage::Network, "b"),
            (Stage::Network, "a"),
            (Stage::Workloads, "first"),
            (Stage::Workloads, "shop"),
        ],
        "within a stage the plugin's order holds"
    );
    assert_eq!(checked.objects[1].key.kind, "Role");
    assert_eq!((checked.plugin.as_str(), checked.version.as_str()), ("shop", "1.0.0"));
}

#[test]
fn a_checked_plan_is_stored_and_read_again() {
    let checked = Fixture::shop()
        .object_with(
            deployment(json!({"containers": [{"ports": [{"containerPort": 80}]}]})),
            Handling {
                drift: Drift::Report,
                leave: vec!["/spec/replicas".to_owned()],
                replace: true,
                ..Handling::default()
            },
        )
        .till(json!({}))
        .ready(
            "other.example/v1",
            "Thing",
            ReadyWhen::Field { pointer: "/status/ok".to_owned(), value: json!(true) },
        )
        .generated("admin", "password", 24)
        .checked();
    let text = serde_json::to_string(&checked).expect("JSON");
    let again: super::CheckedPlan = serde_json::from_str(&text).expect("a plan");
    assert_eq!(again, checked);
    let port = checked.objects[0].object.pointer("/spec/template/spec/containers/0/ports/0/protocol");
    assert_eq!(port, Some(&json!("TCP")), "defaults are filled in");
    let older = ObjectKey { version: "v1beta1".to_owned(), ..checked.objects[0].key.clone() };
    assert_eq!(checked.object(&older), Some(&checked.objects[0]));
    assert_eq!(checked.keys().len(), 2);
}

#[test]
fn the_digest_is_one_of_what_is_applied() {
    let plan = |image: &str, handling: Handling| {
        Fixture::shop().object_with(deployment(json!({"containers": [{"image": image}]})), handling).checked()
    };
    let first = plan("a:1", Handling::default());
    assert_eq!(plan("a:1", Handling::default()).sha256, first.sha256);
    let kept = Handling { keep: true, ..Handling::default() };
    for other in [plan("a:2", Handling::default()), plan("a:1", kept)] {
        assert_ne!(other.sha256, first.sha256);
        assert_ne!(other.objects[0].sha256, first.objects[0].sha256);
    }
    let generates =
        Fixture::shop().deployment(json!({"containers": [{"image": "a:1"}]})).generated("a", "b", 8);
    assert_ne!(generates.checked().sha256, first.sha256);
}

#[test]
fn what_the_manifest_does_not_name_is_refused() {
    let pod = json!({"containers": []});
    for object in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "kube-system"}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}),
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "shop"}, "spec": {"template": {"spec": pod}}}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "other"}}),
    ] {
        Fixture::shop().object(object).is_refused_for("no permission in plugin.toml covers it");
    }
    let older = json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "shop"}});
    assert!(
        Fixture::shop().object(older).refusal().contains("no permission"),
        "another group is another permission"
    );
}

#[test]
fn an_object_lies_where_its_kind_lies() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}});
    let said = Fixture::shop().object(service).refusal();
    assert!(said.contains("it names no namespace, and its kind has one"), "{said}");
    let asking = "[[permission]]\ngroup = \"scheduling.k8s.io\"\nkind = \"PriorityClass\"\nnames = [\"shop\"]\n\
                  namespaces = [\"shop\"]\nverbs = [\"get\", \"create\", \"patch\"]";
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "shop", "namespace": "shop"}, "value": 1});
    Fixture::shop()
        .asking(asking)
        .object(class)
        .is_refused_for("it names a namespace, and its kind has none");
}

#[test]
fn the_namespaces_of_kubernetes_are_nobodys() {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let asking = format!(
            "[[permission]]\ngroup = \"\"\nkind = \"Namespace\"\nnames = [\"{name}\"]\nverbs = [\"get\", \"create\", \"patch\"]"
        );
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        Fixture::shop()
            .asking(&asking)
            .object(namespace)
            .is_refused_for("this namespace belongs to Kubernetes");
    }
}

#[test]
fn what_is_the_servers_is_not_planned() {
    for (field, value) in [
        ("uid", json!("x")),
        ("resourceVersion", json!("1")),
        ("ownerReferences", json!([])),
        ("finalizers", json!(["a/b"])),
        ("generateName", json!("a-")),
        ("deletionTimestamp", json!("2026-01-01T00:00:00Z")),
    ] {
        let mut object = deployment(json!({"containers": []}));
        object["metadata"][field] = value;
        Fixture::shop().object(object).is_refused_for(&format!("a plugin may not set metadata.{field}"));
    }
    let mut object = deployment(json!({"containers": []}));
    object["status"] = json!({"replicas": 1});
    Fixture::shop().object(object).is_refused_for("a plugin may not set status");
    let mut object = deployment(json!({"containers": []}));
    object["status"] = json!({});
    object["metadata"]["creationTimestamp"] = json!(null);
    Fixture::shop().object(object).checked();
    let mut object = deployment(json!({"containers": []}));
    object["metadata"]["annotations"] = json!({"a": {"b": "c"}});
    Fixture::shop().object(object).is_refused_for("its metadata.annotations has something else than texts");
}

#[test]
fn an_object_is_planned_once_whatever_its_version() {
    let object = deployment(json!({"containers": []}));
    let mut older = object.clone();
    older["apiVersion"] = json!("apps/v1beta2");
    Fixture::shop().object(object).object(older).is_refused_for("planned twice");
}

#[test]
fn every_kind_has_a_rule_that_says_when_it_is_ready() {
    let till = json!({"apiVersion": "shop.example/v1", "kind": "Till", "metadata": {"name": "a", "namespace": "shop"}});
    Fixture::shop().object(till.clone()).is_refused_for("there is no rule that says when it is ready");
    let ready = |is: ReadyWhen| Fixture::shop().object(till.clone()).ready("shop.example/v1", "Till", is);
    ready(ReadyWhen::Condition("Ready".to_owned())).checked();
    ready(ReadyWhen::Exists)
        .ready("shop.example/v1", "Till", ReadyWhen::Exists)
        .is_refused_for("there are two of them");
    ready(ReadyWhen::Condition(String::new())).is_refused_for("expected a condition");
    ready(ReadyWhen::Field { pointer: "status".to_owned(), value: json!(1) })
        .is_refused_for("a JSON pointer");
    ready(ReadyWhen::Exists)
        .ready("apps/v1", "Deployment", ReadyWhen::Exists)
        .is_refused_for("Kubernetes' own kinds have rules of their own");
    ready(ReadyWhen::Exists)
        .ready("", "x", ReadyWhen::Exists)
        .is_refused_for("expected an apiVersion and a kind");
}

#[test]
fn an_empty_plan_is_refused() {
    Fixture::shop().is_refused_for("there is nothing in it");
}

#[test]
fn what_is_left_to_others_is_a_field_of_the_objects_own() {
    let leaving = |object, leave: &[&str]| {
        let leave = leave.iter().map(|pointer| (*pointer).to_owned()).collect();
        Fixture::shop().object_with(object, Handling { leave, ..Handling::default() })
    };
    let object = || deployment(json!({"containers": []}));
    leaving(object(), &["/spec/replicas"]).checked();
    for pointer in ["", "/", "spec", "/metadata/labels", "/kind", "/status"] {
        leaving(object(), &[pointer]).is_refused_for("expected a JSON pointer to a field of its own");
    }
    leaving(object(), &["/spec"; 51]).is_refused_for("it leaves 51 fields to others");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "a", "namespace": "shop"}});
    leaving(role, &["/rules"]).is_refused_for("nothing of a role or a binding is left to others");
}

#[test]
fn pods_run_as_accounts_of_the_plan() {
    let pod = |account: &str| json!({"containers": [], "serviceAccountName": account});
    Fixture::shop().deployment(pod("shop")).account("shop").checked();
    Fixture::shop().deployment(pod("default")).checked();
    Fixture::shop().deployment(json!({"containers": []})).checked();
    Fixture::shop().deployment(pod("other")).is_refused_for("run as the service account \"other\"");
    let older = json!({"containers": [], "serviceAccount": "other"});
    Fixture::shop().deployment(older).is_refused_for("run as the service account \"other\"");
    let mut known = Fixture::shop().deployment(pod("before"));
    known.accounts.insert(("shop".to_owned(), "before".to_owned()));
    known.checked();
    known.accounts = [("elsewhere".to_owned(), "before".to_owned())].into();
    known.is_refused_for("run as the service account \"before\"");
}

#[test]
fn a_secret_stands_by_name_in_the_data_of_a_secret_only() {
    let password = SecretRef { handle: "admin".to_owned(), key: "password".to_owned() };
    let mut named = Fixture::shop().secret(json!({"password": password.placeholder(), "plain": "x"}));
    named.is_refused_for("names the secret \"admin\", key \"password\"");
    named.secrets.insert(password.clone());
    let checked = named.checked();
    assert_eq!(checked.secret_refs().into_iter().collect::<Vec<_>>(), std::slice::from_ref(&password));
    let made = Fixture::shop().secret(json!({"password": password.placeholder()}));
    made.clone().generated("admin", "password", 24).checked();
    made.clone().generated("admin", "other", 24).is_refused_for("names the secret");

    let with = |object| {
        let mut fixture = Fixture::shop().object(object);
        fixture.secrets.insert(password.clone());
        fixture
    };
    let place = password.placeholder();
    let metadata = json!({"name": "a", "namespace": "shop"});
    for object in [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"password": place}}),
        deployment(json!({"containers": [{"env": [{"name": "P", "value": place}]}]})),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"a": {"b": place}}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": place}),
    ] {
        let said = with(object.clone()).refusal();
        assert!(said.contains("directly below data of a Secret only"), "{object}: {said}");
    }
    for odd in [
        json!({"$k8sctl.secret": {"handle": "admin", "key": "password"}, "more": 1}),
        json!({"$k8sctl.secret": {"handle": "admin"}}),
        json!({"$k8sctl.secret": {"handle": "admin", "key": "password", "encode": "no"}}),
        json!({"$k8sctl.secret": "admin/password"}),
    ] {
        let said = with(Fixture::shop().secret(json!({"a": odd})).plan.objects[0].object.clone()).refusal();
        assert!(said.contains("expected {\"$k8sctl.secret\""), "{odd}: {said}");
    }
}

#[test]
fn what_a_plan_has_generated_has_plain_names_and_a_length() {
    let made = |handle: &str, key: &str, length: u32| {
        Fixture::shop().deployment(json!({"containers": []})).generated(handle, key, length)
    };
    made("admin", "password", 8).checked();
    made("admin", "tls.KEY_1", 1024).checked();
    for handle in ["", "../admin", "Admin", "-admin", ".admin", "a/b"] {
        made(handle, "password", 24).is_refused_for("expected at most 63 lower case letters");
    }
    for key in ["", "..", "a/b", ".a", "ä"] {
        made("admin", key, 24).is_refused_for("expected one as in the data of a Secret");
    }
    for length in [0, 7, 1025] {
        made("admin", "password", length).is_refused_for("expected 8 to 1024");
    }
    made("admin", "password", 24).generated("admin", "password", 32).is_refused_for("there are two of them");
}

#[test]
fn tokens_of_accounts_are_for_own_accounts() {
    let token = |account: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "t", "namespace": "shop", "annotations": {"kubernetes.io/service-account.name": account}}})
    };
    Fixture::shop().account("shop").object(token("shop")).checked();
    Fixture::shop()
        .account("shop")
        .object(token("default"))
        .is_refused_for("the token of the service account \"default\"");
    let bootstrap = json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "shop"}});
    Fixture::shop().object(bootstrap).is_refused_for("a bootstrap token makes nodes of strangers");
}

#[test]
fn privileged_pods_are_asked_for() {
    let pod = json!({"containers": [], "hostNetwork": true});
    Fixture::shop()
        .deployment(pod.clone())
        .is_refused_for("it wants hostNetwork, and plugin.toml does not ask");
    Fixture::shop().privileged().deployment(pod).checked();
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "shop"},
        "spec": {"hostPath": {"path": "/"}}});
    Fixture::shop().object(volume.clone()).is_refused_for("it wants a hostPath volume");
    Fixture::shop().privileged().object(volume).checked();
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let fixture = Fixture::shop()
        .deployment(json!({"containers": [], "hostNetwork": true, "serviceAccountName": "other"}))
        .role("a", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]))
        .binding("Role b", own("c"));
    let said = fixture.refusal();
    assert!(said.starts_with("PLUGIN-REFUSED: apps/v1 Deployment shop/shop: "), "{said}");
    assert_eq!(said.lines().count(), 4, "{said}");
    for object in ["Deployment shop/shop", "Role shop/a", "RoleBinding shop/shop"] {
        assert!(said.contains(object), "{object}: {said}");
    }
}
