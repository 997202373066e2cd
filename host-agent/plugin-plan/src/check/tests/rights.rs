//! What a plan hands on: rules of roles, bindings, aggregation.

use serde_json::{Value, json};

use super::{Fixture, own};

const PODS: &str = "[[grant]]\ngroups = [\"\"]\nresources = [\"pods\"]\nverbs = [\"get\", \"list\"]\nnamespaces = [\"shop\"]";
const NODES: &str = "[[grant]]\ngroups = [\"\"]\nresources = [\"nodes\"]\nverbs = [\"get\"]";
const EVERYTHING: &str = "[[grant]]\ngroups = [\"*\"]\nresources = [\"*\"]\nverbs = [\"*\"]";

fn rule(resource: &str, verb: &str) -> Value {
    json!([{"apiGroups": [""], "resources": [resource], "verbs": [verb]}])
}

#[test]
fn a_role_holds_what_is_granted_for_its_namespace_or_for_all() {
    let shop = || Fixture::shop().asking(PODS).asking(NODES);
    shop().role("a", rule("pods", "list")).checked();
    shop().role("a", rule("nodes", "get")).checked();
    shop()
        .role("a", rule("pods", "watch"))
        .is_refused_for("rules[0]: no [[grant]] for shop covers: watch pods");
    shop().role("a", rule("secrets", "get")).is_refused_for("covers: get secrets");
    shop().cluster_role(rule("nodes", "get")).checked();
    shop()
        .cluster_role(rule("pods", "list"))
        .is_refused_for("no [[grant]] for the whole cluster covers: list pods");
    Fixture::shop().role("a", json!([])).checked();
    Fixture::shop().asking(EVERYTHING).cluster_role(rule("*", "*")).checked();
}

#[test]
fn everything_is_granted_by_everything_only() {
    let star = |field: &str| {
        let mut rule = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]});
        rule[field] = json!(["*"]);
        json!([rule])
    };
    for field in ["apiGroups", "resources", "verbs"] {
        let said = Fixture::shop().asking(NODES).cluster_role(star(field)).refusal();
        assert!(said.contains('*') && said.contains("no [[grant]]"), "{field}: {said}");
        Fixture::shop().asking(EVERYTHING).cluster_role(star(field)).checked();
    }
}

#[test]
fn paths_of_the_api_are_granted_as_such() {
    let urls = json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]);
    let asking = "[[grant]]\nurls = [\"/metrics\"]\nverbs = [\"get\"]";
    Fixture::shop().asking(asking).cluster_role(urls.clone()).checked();
    Fixture::shop().asking(EVERYTHING).cluster_role(urls.clone()).is_refused_for("covers: get /metrics");
    let said = Fixture::shop().asking(asking).role("a", urls).refusal();
    assert!(said.contains("URLs are in a ClusterRole"), "{said}");
}

#[test]
fn who_may_not_escalate_hands_on_no_escalation() {
    for (resource, verb) in [("clusterroles", "escalate"), ("clusterroles", "bind"), ("users", "impersonate")]
    {
        let rules = json!([{"apiGroups": ["rbac.authorization.k8s.io", ""], "resources": [resource], "verbs": [verb]}]);
        let said = Fixture::shop().asking(NODES).cluster_role(rules).refusal();
        assert!(said.contains(&format!("{verb} {resource}")), "{said}");
    }
}

#[test]
fn rules_that_are_none_are_refused() {
    for rules in [json!("all"), json!([1]), json!([{"apiGroups": "*"}]), json!([{"verbs": [1]}])] {
        let said = Fixture::shop().role("a", rules.clone()).refusal();
        assert!(said.contains("list") || said.contains("is no rule"), "{rules}: {said}");
    }
}

#[test]
fn own_roles_are_bound_to_own_accounts() {
    let shop = || Fixture::shop().account("a").role("r", json!([])).cluster_role(json!([]));
    shop().binding("Role r", own("a")).checked();
    shop().binding("ClusterRole shop", own("a")).checked();
    shop().cluster_binding("ClusterRole shop", own("a")).checked();
    // As Argo CD writes it: a subject is in the namespace of its binding.
    shop().binding("Role r", json!([{"kind": "ServiceAccount", "name": "a"}])).checked();
    shop().binding("Role r", json!(null)).checked();
    for (subject, said) in [
        (json!({"kind": "ServiceAccount", "name": "b", "namespace": "shop"}), "to ServiceAccount shop/b"),
        (
            json!({"kind": "ServiceAccount", "name": "a", "namespace": "kube-system"}),
            "to ServiceAccount kube-system/a",
        ),
        (json!({"kind": "User", "name": "a"}), "to User a"),
        (json!({"kind": "Group", "name": "system:authenticated"}), "to Group system:authenticated"),
    ] {
        shop().binding("Role r", json!([subject])).is_refused_for(said);
    }
    shop().binding("Role other", own("a")).is_refused_for("it binds Role other to ServiceAccount shop/a");
    shop()
        .binding("ClusterRole cluster-admin", own("a"))
        .is_refused_for("it binds ClusterRole cluster-admin");
    shop()
        .cluster_binding("ClusterRole cluster-admin", own("a"))
        .is_refused_for("it binds ClusterRole cluster-admin");
    // A role of the plan in another namespace is another role.
    shop().cluster_binding("Role r", own("a")).is_refused_for("it binds Role r");
}

#[test]
fn an_account_of_an_earlier_plan_is_still_the_plugins_own() {
    let mut fixture = Fixture::shop().role("r", json!([])).binding("Role r", own("before"));
    fixture.is_refused_for("to ServiceAccount shop/before");
    fixture.accounts.insert(("shop".to_owned(), "before".to_owned()));
    fixture.checked();
}

#[test]
fn other_bindings_are_asked_for_role_and_subject_both() {
    let own_subjects = "[[bind]]\nrole = \"ClusterRole system:auth-delegator\"";
    let shop = || Fixture::shop().account("a").role("r", json!([]));
    shop().asking(own_subjects).cluster_binding("ClusterRole system:auth-delegator", own("a")).checked();
    shop()
        .asking(own_subjects)
        .cluster_binding("ClusterRole system:auth-delegator", json!([{"kind": "User", "name": "a"}]))
        .is_refused_for("to User a");
    shop()
        .asking(own_subjects)
        .cluster_binding("ClusterRole cluster-admin", own("a"))
        .is_refused_for("it binds ClusterRole cluster-admin");
    let group = "[[bind]]\nrole = \"Role r\"\nsubject = \"Group shopkeepers\"";
    shop().asking(group).binding("Role r", json!([{"kind": "Group", "name": "shopkeepers"}])).checked();
    shop()
        .asking(group)
        .binding("Role r", json!([{"kind": "Group", "name": "thieves"}]))
        .is_refused_for("thieves");
    let account = "[[bind]]\nrole = \"Role r\"\nsubject = \"ServiceAccount kube-system/a\"";
    let foreign = json!([{"kind": "ServiceAccount", "name": "a", "namespace": "kube-system"}]);
    shop().asking(account).binding("Role r", foreign).checked();
}

#[test]
fn a_binding_names_a_role() {
    let mut fixture = Fixture::shop().account("a").binding("Role r", own("a"));
    for (field, value) in [("kind", json!("Deployment")), ("name", json!("")), ("apiGroup", json!("apps"))] {
        let mut object = fixture.plan.objects[1].object.clone();
        object["roleRef"][field] = value;
        let mut other = fixture.clone();
        other.plan.objects[1].object = object;
        other.is_refused_for("its roleRef names no role");
    }
    fixture.plan.objects[1].object["subjects"] = json!({});
    fixture.is_refused_for("its subjects are no list");
}

#[test]
fn rules_of_other_roles_are_gathered_by_who_is_granted_everything() {
    let role = || {
        let mut object = Fixture::shop().cluster_role(json!([])).plan.objects[0].object.clone();
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
        object
    };
    Fixture::shop().asking(NODES).object(role()).is_refused_for("it gathers the rules of other roles");
    Fixture::shop().asking(EVERYTHING).object(role()).checked();
}

#[test]
fn adding_to_roles_that_others_hold_is_asked_for() {
    let role = |to: &str| {
        let mut object = Fixture::shop().cluster_role(json!([])).plan.objects[0].object.clone();
        object["metadata"]["labels"] =
            json!({format!("rbac.authorization.k8s.io/aggregate-to-{to}"): "true"});
        object
    };
    let asking = "[[aggregate]]\nto = [\"view\"]";
    Fixture::shop().asking(asking).object(role("view")).checked();
    Fixture::shop().asking(asking).object(role("admin")).is_refused_for("it adds to the role admin");
    Fixture::shop().asking(asking).object(role("anything")).is_refused_for("it adds to the role anything");
}
