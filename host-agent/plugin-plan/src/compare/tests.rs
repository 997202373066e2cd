//! Comparisons of objects, and differences as text.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn what_the_server_counts_does_not_make_a_difference() {
    let live = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "1", "generation": 2, "managedFields": [],
        "creationTimestamp": "t"}, "spec": {"replicas": 2}, "status": {"replicas": 2}});
    let would_be = json!({"metadata": {"name": "a", "resourceVersion": "2"}, "spec": {"replicas": 2}});
    assert!(same(&live, &would_be));
    let other = json!({"metadata": {"name": "a"}, "spec": {"replicas": 3}});
    assert!(!same(&live, &other));
    assert!(!same(&live, &json!({"metadata": {"name": "a", "labels": {"b": "c"}}, "spec": {"replicas": 2}})));
}

#[test]
fn what_differs_is_named_by_its_place() {
    let live = json!({"spec": {"a/b": 1, "list": [1, 2], "gone": {"x": 1}, "same": [{"y": 1}]}});
    let would_be = json!({"spec": {"a/b": 2, "list": [1, 2, 3], "new": true, "same": [{"y": 1}]}});
    assert_eq!(differing(&live, &would_be, 10), ["/spec/a~1b", "/spec/gone", "/spec/list", "/spec/new"]);
    assert_eq!(differing(&live, &would_be, 2).len(), 2);
    let in_list = (json!({"l": [{"a": 1}, {"a": 2}]}), json!({"l": [{"a": 1}, {"a": 3}]}));
    assert_eq!(differing(&in_list.0, &in_list.1, 10), ["/l/1/a"]);
}

#[test]
fn what_a_server_would_not_store_is_named() {
    let wanted = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "spec": {"versions": [{"name": "v1", "selectableFields": [{"jsonPath": ".spec.x"}], "schema": {"a": {"b": 1}}}]},
    });
    let mut stored = wanted.clone();
    assert_eq!(dropped(&wanted, &stored), Vec::<String>::new());
    stored["spec"]["versions"][0].as_object_mut().expect("a map").remove("selectableFields");
    assert_eq!(dropped(&wanted, &stored), ["/spec/versions/0/selectableFields"]);
    stored["spec"]["versions"][0]["schema"]["a"] = Value::Null;
    assert_eq!(dropped(&wanted, &stored), ["/spec/versions/0/schema/a", "/spec/versions/0/selectableFields"]);
}

#[test]
fn what_says_nothing_or_is_written_otherwise_is_not_missed() {
    let wanted = json!({
        "metadata": {"name": "a", "creationTimestamp": null, "labels": {}},
        "stringData": {"password": "x"},
        "spec": {"hostNetwork": false, "terminationMessagePath": "", "weight": 0, "empty": [], "deep": {"er": {}},
                 "limits": {"cpu": "1000m"}, "template": {"metadata": {"creationTimestamp": "x"}}},
    });
    let stored = json!({"metadata": {"name": "a", "uid": "u"}, "data": {"password": "eA=="},
        "spec": {"limits": {"cpu": "1"}, "template": {"metadata": {}}, "more": "defaults"}});
    assert_eq!(dropped(&wanted, &stored), Vec::<String>::new());
}

#[test]
fn lists_are_compared_item_by_item_where_both_are_as_long() {
    let wanted = json!({"ports": [{"port": 80, "appProtocol": "http"}, {"port": 443}]});
    let merged = json!({"ports": [{"port": 80, "appProtocol": "http"}, {"port": 443}, {"port": 8080}]});
    assert_eq!(dropped(&wanted, &merged), Vec::<String>::new(), "somebody else has one more");
    let turned = json!({"ports": [{"port": 443}, {"port": 80, "appProtocol": "http"}]});
    assert_eq!(dropped(&wanted, &turned), Vec::<String>::new());
    let without = json!({"ports": [{"port": 80}, {"port": 443}]});
    assert_eq!(dropped(&wanted, &without), ["/ports/0/appProtocol"]);
}

#[test]
fn what_is_left_to_others_is_taken_from_what_is_there() {
    let mut wanted = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 1, "paused": true,
        "template": {"spec": {"containers": [{"image": "ours"}]}}}});
    let live = json!({"spec": {"replicas": 5, "strategy": {"type": "Recreate"}, "template": {"spec": {"containers": [{"image": "theirs"}]}}}});
    let leave = [
        "/spec/replicas",
        "/spec/paused",
        "/spec/strategy/type",
        "/spec/template/spec/containers/0/image",
        "/x~1y/z",
    ];
    copy_through(&mut wanted, &live, &leave.map(str::to_owned));
    assert_eq!(
        wanted["spec"],
        json!({"replicas": 5, "strategy": {"type": "Recreate"}, "template": {"spec": {"containers": [{"image": "theirs"}]}}})
    );
    assert_eq!(wanted.get("x/y"), None);
}

#[test]
fn ca_bundles_that_others_fill_in_stay() {
    let hook = |bundle: Value| json!({"name": "a.example", "clientConfig": {"service": {"name": "s"}, "caBundle": bundle}});
    let configuration = |hooks: Vec<Value>| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "webhooks": hooks});
    let live = configuration(vec![json!({"name": "other"}), hook(json!("THEIRS"))]);
    for (ours, expected) in [(Value::Null, "THEIRS"), (json!(""), "THEIRS"), (json!("OURS"), "OURS")] {
        let mut wanted = configuration(vec![hook(ours)]);
        copy_through(&mut wanted, &live, &[]);
        assert_eq!(wanted["webhooks"][0]["clientConfig"]["caBundle"], expected);
    }
    let definition = |bundle: Value| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
               "spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": bundle}}}}})
    };
    let mut wanted = definition(Value::Null);
    copy_through(&mut wanted, &definition(json!("THEIRS")), &[]);
    assert_eq!(wanted, definition(json!("THEIRS")));
    let service = |bundle: Value| json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": {"caBundle": bundle}});
    let mut wanted = service(Value::Null);
    copy_through(&mut wanted, &service(json!("THEIRS")), &[]);
    assert_eq!(wanted, service(json!("THEIRS")));
}

#[test]
fn a_difference_reads_like_one() {
    let live = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "uid": "u"},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "web", "image": "a:1", "args": ["-v", "true"]}]}}}});
    let mut would_be = live.clone();
    would_be["spec"]["replicas"] = json!(3);
    would_be["spec"]["template"]["spec"]["containers"][0]["image"] = json!("a:2");
    let expected = "\
@@ -3,7 +3,7 @@
 metadata:
   name: web
 spec:
-  replicas: 2
+  replicas: 3
   template:
     spec:
       containers:
@@ -11,5 +11,5 @@
           args:
             - \"-v\"
             - \"true\"
-          image: a:1
+          image: a:2
           name: web
";
    assert_eq!(diff_text(&live, &would_be), expected);
    assert_eq!(diff_text(&live, &live), "");
}

#[test]
fn values_of_secrets_are_never_in_a_difference() {
    let secret = |password: &str, user: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": password}}, "data": {"password": password, "user": user}})
    };
    let text = diff_text(&secret("GEHEIM1", "JEMAND"), &secret("GEHEIM2", "JEMAND"));
    assert!(!text.contains("GEHEIM") && !text.contains("JEMAND"), "{text}");
    assert!(
        text.contains("-  password: *** (before)") || text.contains("-  password: \"*** (before)\""),
        "{text}"
    );
    assert!(text.contains("+  password: ") && text.contains("(after)"), "{text}");
}

#[test]
fn a_very_large_difference_is_told_as_a_whole() {
    let object = |word: &str| {
        let lines: Vec<_> = (0..3000).map(|number| format!("{word} {number}")).collect();
        json!({"kind": "ConfigMap", "data": {"lines": lines.join("\n")}})
    };
    let text = diff_text(&object("before"), &object("after"));
    assert_eq!(text.lines().filter(|line| line.starts_with('-')).count(), 3000);
    assert_eq!(text.lines().filter(|line| line.starts_with('+')).count(), 3000);
}

/// Any JSON, not very deep.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z~/\n ]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z~/]{1,6}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_differs_from_itself(object in json_value()) {
        prop_assert!(same(&object, &object));
        prop_assert_eq!(dropped(&object, &object), Vec::<String>::new());
        prop_assert_eq!(diff_text(&object, &object), "");
        let mut copied = object.clone();
        copy_through(&mut copied, &object, &differing(&object, &Value::Null, 10));
        prop_assert_eq!(copied, object);
    }

    #[test]
    fn what_differs_is_found_at_its_place(a in json_value(), b in json_value()) {
        let places = differing(&a, &b, 1000);
        prop_assert_eq!(places.is_empty(), same(&a, &b));
        let (a, b) = (bare(&a), bare(&b));
        for place in places {
            let at = |value: &Value| value.pointer(&place).cloned().unwrap_or_default();
            prop_assert_ne!(at(&a), at(&b), "{}", place);
        }
    }

    #[test]
    fn what_is_stored_with_more_beside_it_is_not_dropped(wanted in json_value(), more in json_value()) {
        let mut stored = wanted.clone();
        if let (Some(fields), Some(more)) = (stored.as_object_mut(), more.as_object()) {
            for (key, value) in more {
                fields.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        prop_assert_eq!(dropped(&wanted, &stored), Vec::<String>::new());
    }
}
