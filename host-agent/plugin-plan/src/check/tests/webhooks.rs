//! Who would judge or change what others write.

use serde_json::{Value, json};

use super::Fixture;
use crate::checked::Stage;
use crate::unchecked::ReadyWhen;

const TILLS: &str = "[[webhook]]\nkind = \"validating\"\ngroups = [\"shop.example\"]\nresources = [\"*\"]";
const PODS: &str = "[[webhook]]\nkind = \"mutating\"\ngroups = [\"\"]\nresources = [\"pods\"]";

fn webhook(group: &str, resource: &str) -> Value {
    json!({
        "name": "a.shop.example", "failurePolicy": "Fail", "sideEffects": "None",
        "clientConfig": {"service": {"namespace": "shop", "name": "hooks", "path": "/"}},
        "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["*"], "resources": [resource]}],
    })
}

fn configuration(kind: &str, webhook: Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": {"name": "shop"}, "webhooks": [webhook]})
}

fn validating(webhook: Value) -> Fixture {
    Fixture::shop().asking(TILLS).service("hooks").object(configuration("Validating", webhook))
}

fn mutating(webhook: Value) -> Fixture {
    Fixture::shop().asking(PODS).service("hooks").object(configuration("Mutating", webhook))
}

#[test]
fn a_webhook_judges_what_is_asked_for() {
    validating(webhook("shop.example", "tills")).checked();
    validating(webhook("shop.example", "*")).checked();
    validating(webhook("other.example", "tills")).is_refused_for("it would judge tills of other.example");
    let said = validating(webhook("", "pods")).refusal();
    assert!(said.contains("it would judge pods of core, and no [[webhook]] says so"), "{said}");
    let said = validating(webhook("*", "*")).refusal();
    assert!(said.contains("it would judge * of *"), "{said}");
    Fixture::shop()
        .asking(TILLS)
        .service("hooks")
        .object(configuration("Mutating", webhook("shop.example", "tills")))
        .is_refused_for("it would change tills of shop.example");
}

#[test]
fn a_webhook_that_is_down_does_not_stop_kubernetes() {
    let of_pods = |change: fn(&mut Value)| {
        let mut webhook = webhook("", "pods");
        change(&mut webhook);
        mutating(webhook)
    };
    let why = "while it is down nothing of Kubernetes could be written";
    of_pods(|_| {}).is_refused_for(why);
    of_pods(|webhook| webhook["failurePolicy"] = json!(null)).is_refused_for(why);
    of_pods(|webhook| webhook["namespaceSelector"] = json!({})).is_refused_for(why);
    of_pods(|webhook| webhook["failurePolicy"] = json!("Ignore")).checked();
    of_pods(|webhook| webhook["namespaceSelector"] = json!({"matchLabels": {"shop": "yes"}})).checked();
    of_pods(|webhook| webhook["objectSelector"] = json!({"matchLabels": {"shop": "yes"}})).checked();
}

#[test]
fn a_webhook_is_called_at_a_service_of_the_plan() {
    let at = |config: Value| {
        let mut webhook = webhook("shop.example", "tills");
        webhook["clientConfig"] = config;
        validating(webhook)
    };
    at(json!({"service": {"namespace": "kube-system", "name": "hooks"}}))
        .is_refused_for("the Service kube-system/hooks is not of this plan");
    at(json!({})).is_refused_for("it names no Service");
    let said = at(json!({"url": "https://evil.example/"})).refusal();
    assert!(said.contains("it is called at a URL"), "{said}");
    // One that is not planned now, but that it may have.
    at(json!({"service": {"namespace": "shop", "name": "later"}})).checked();
}

#[test]
fn a_policy_is_as_a_webhook() {
    let policy = |kind: &str, group: &str, failure: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}AdmissionPolicy"),
            "metadata": {"name": "shop"}, "spec": {"failurePolicy": failure, "matchConstraints": {"resourceRules": [
                {"apiGroups": [group], "apiVersions": ["*"], "operations": ["*"], "resources": ["tills"]}]}}})
    };
    let shop = || Fixture::shop().asking(TILLS);
    shop().object(policy("Validating", "shop.example", "Fail")).checked();
    shop().object(policy("Validating", "apps", "Fail")).is_refused_for("it would judge tills of apps");
    shop()
        .object(policy("Mutating", "shop.example", "Fail"))
        .is_refused_for("it would change tills of shop.example");
    let all = "[[webhook]]\nkind = \"validating\"\ngroups = [\"*\"]\nresources = [\"*\"]";
    let everything = |failure: &str| Fixture::shop().asking(all).object(policy("Validating", "*", failure));
    everything("Fail").is_refused_for("where it fails nothing of Kubernetes could be written");
    everything("Ignore").checked();
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "shop"}, "spec": {"policyName": "shop"}});
    shop().object(policy("Validating", "shop.example", "Fail")).object(binding.clone()).checked();
    shop()
        .object(binding)
        .is_refused_for("it puts the policy \"shop\" into force, which is not of this plan");
}

fn definition(spec: Value) -> Value {
    let mut whole =
        json!({"group": "shop.example", "scope": "Namespaced", "names": {"kind": "Till", "plural": "tills"}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key.as_str()] = value.clone();
    }
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "tills.shop.example"}, "spec": whole})
}

#[test]
fn a_definition_is_of_a_group_of_its_own_and_converted_by_the_plan() {
    Fixture::shop().object(definition(json!({}))).checked();
    Fixture::shop().object(definition(json!({"group": "apps"}))).is_refused_for("which is Kubernetes' own");
    let converted = |service: &str| {
        let client = json!({"service": {"namespace": "shop", "name": service}});
        definition(json!({"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": client}}}))
    };
    Fixture::shop().service("hooks").object(converted("hooks")).checked();
    let elsewhere = definition(json!({"conversion": {"strategy": "Webhook",
        "webhookClientConfig": {"service": {"namespace": "default", "name": "hooks"}}}}));
    Fixture::shop()
        .object(elsewhere)
        .is_refused_for("spec.conversion: the Service default/hooks is not of this plan");
}

#[test]
fn a_part_of_the_api_that_is_kubernetes_own_is_not_taken_over() {
    let api = |group: &str, service: Value| {
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.shop"},
            "spec": {"group": group, "version": "v1", "service": service}})
    };
    let hooks = json!({"namespace": "shop", "name": "hooks"});
    let shop = || Fixture::shop().service("hooks");
    shop().object(api("shop.example", hooks.clone())).checked();
    shop().object(api("metrics.k8s.io", hooks.clone())).checked();
    for group in ["apps", "batch", "", "rbac.authorization.k8s.io", "gateway.networking.k8s.io"] {
        shop().object(api(group, hooks.clone())).is_refused_for("which is Kubernetes' own");
    }
    shop().object(api("shop.example", Value::Null)).is_refused_for("it names no Service");
    shop()
        .object(api("shop.example", json!({"namespace": "kube-system", "name": "hooks"})))
        .is_refused_for("the Service kube-system/hooks is not of this plan");
}

#[test]
fn what_a_webhook_judges_waits_for_it() {
    let stage = |fixture: Fixture| {
        let checked = fixture.till(json!({})).checked();
        checked.objects.into_iter().find(|planned| planned.key.kind == "Till").expect("it is planned").stage
    };
    assert_eq!(stage(Fixture::shop()), Stage::Workloads);
    assert_eq!(stage(validating(webhook("shop.example", "tills"))), Stage::Guarded, "by its usual plural");
    assert_eq!(stage(validating(webhook("shop.example", "receipts"))), Stage::Workloads);
    assert_eq!(stage(validating(webhook("shop.example", "*"))), Stage::Guarded);
    let named = definition(json!({"names": {"kind": "Till", "plural": "tillen"}}));
    assert_eq!(stage(validating(webhook("shop.example", "tills")).object(named.clone())), Stage::Workloads);
    assert_eq!(stage(validating(webhook("shop.example", "tillen/*")).object(named)), Stage::Guarded);
    let client = json!({"service": {"namespace": "shop", "name": "hooks"}});
    let converted =
        definition(json!({"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": client}}}));
    assert_eq!(
        stage(Fixture::shop().service("hooks").object(converted)),
        Stage::Guarded,
        "it has to be converted"
    );
    let webhooks =
        validating(webhook("shop.example", "*")).ready("x.example/v1", "X", ReadyWhen::Exists).checked();
    assert_eq!(webhooks.objects.last().expect("one").stage, Stage::Admission);
}
