//! What a plan hands on: the rules inside its Roles and ClusterRoles. Each of them, taken apart, must be in a `[[grant]]` of
//! `plugin.toml`; a rule that says `*` only in one that says `*`.

use plugin_package::Grant;
use serde_json::Value;

use super::view::View;
use crate::object::ObjectKey;

const GROUP: &str = "rbac.authorization.k8s.io";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";
/// Most combinations into which one rule is taken apart.
const COMBINATIONS: usize = 20_000;
/// What is named of a rule that is covered by nothing.
const NAMED: usize = 5;

pub(super) fn refusals(view: &View<'_>, key: &ObjectKey, object: &Value) -> Vec<String> {
    if key.group != GROUP || !matches!(key.kind.as_str(), "Role" | "ClusterRole") {
        return Vec::new();
    }
    let is_cluster = key.kind == "ClusterRole";
    let applies = |grant: &&Grant| {
        grant.namespaces.is_empty() || !is_cluster && grant.namespaces.contains(&key.namespace)
    };
    let grants: Vec<&Grant> = view.manifest.grants.iter().filter(applies).collect();
    let mut why = Vec::new();
    match rules(object) {
        Ok(rules) => {
            for (index, rule) in rules.iter().enumerate() {
                if !is_cluster && !rule.urls.is_empty() {
                    why.push(format!("rules[{index}]: URLs are in a ClusterRole"));
                }
                let missing = uncovered(rule, &grants);
                if !missing.is_empty() {
                    let place = if is_cluster {
                        "for the whole cluster".to_owned()
                    } else {
                        format!("for {}", key.namespace)
                    };
                    let missing = missing.join(", ");
                    why.push(format!("rules[{index}]: no [[grant]] {place} covers: {missing}"));
                }
            }
        }
        Err(reason) => why.push(reason),
    }
    if is_cluster {
        why.extend(aggregation(view, object, &grants));
    }
    why
}

/// Rules that come from other roles, and rules that others' roles get.
fn aggregation(view: &View<'_>, object: &Value, grants: &[&Grant]) -> Vec<String> {
    let mut why = Vec::new();
    let everything = Rule {
        groups: vec!["*".to_owned()],
        resources: vec!["*".to_owned()],
        verbs: vec!["*".to_owned()],
        ..Rule::default()
    };
    if object.get("aggregationRule").is_some_and(|rule| !rule.is_null())
        && !uncovered(&everything, grants).is_empty()
    {
        why.push(
            "it gathers the rules of other roles, whatever they are: that takes a [[grant]] of everything"
                .to_owned(),
        );
    }
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    for label in labels.into_iter().flat_map(|labels| labels.keys()) {
        if let Some(to) = label.strip_prefix(AGGREGATE)
            && !view.manifest.aggregates.iter().any(|aggregate| aggregate.to.iter().any(|has| has == to))
        {
            why.push(format!("it adds to the role {to}, and no [[aggregate]] of plugin.toml says so"));
        }
    }
    why
}

/// A rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    names: Vec<String>,
    urls: Vec<String>,
}

fn rules(object: &Value) -> Result<Vec<Rule>, String> {
    let rules = match &object["rules"] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(rules) => rules,
        _ => return Err("its rules are no list".to_owned()),
    };
    let read = |(index, rule): (usize, &Value)| {
        let list = |field: &str| {
            texts(&rule[field]).ok_or_else(|| format!("rules[{index}].{field} is no list of texts"))
        };
        if !rule.is_object() {
            return Err(format!("rules[{index}] is no rule"));
        }
        Ok(Rule {
            groups: list("apiGroups")?,
            resources: list("resources")?,
            verbs: list("verbs")?,
            names: list("resourceNames")?,
            urls: list("nonResourceURLs")?,
        })
    };
    rules.iter().enumerate().map(read).collect()
}

/// A list of texts; one that is not there is empty.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// What of a rule no grant covers, as people read it; at most [`NAMED`] of it.
fn uncovered(rule: &Rule, grants: &[&Grant]) -> Vec<String> {
    let mut missing = Vec::new();
    for url in &rule.urls {
        for verb in &rule.verbs {
            let covers = |grant: &&Grant| has(&grant.urls, url) && has(&grant.verbs, verb);
            if missing.len() < NAMED && !grants.iter().any(covers) {
                missing.push(format!("{verb} {url}"));
            }
        }
    }
    if rule.groups.is_empty()
        || rule.resources.is_empty()
        || grants.iter().any(|grant| covers_whole(grant, rule))
    {
        return missing;
    }
    let names = rule.names.len().max(1);
    let combinations = [rule.groups.len(), rule.resources.len(), rule.verbs.len(), names];
    let combinations = combinations.into_iter().fold(1_usize, usize::saturating_mul);
    if combinations > COMBINATIONS {
        missing.push(format!("{combinations} combinations, which is more than anybody takes apart"));
        return missing;
    }
    let named: Vec<Option<&String>> =
        if rule.names.is_empty() { vec![None] } else { rule.names.iter().map(Some).collect() };
    for group in &rule.groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                for name in &named {
                    let covers = |grant: &&Grant| {
                        has(&grant.groups, group)
                            && has(&grant.resources, resource)
                            && has(&grant.verbs, verb)
                            && has_name(grant, *name)
                    };
                    if missing.len() >= NAMED {
                        return missing;
                    }
                    if !grants.iter().any(covers) {
                        missing.push(describe(verb, resource, group, *name));
                    }
                }
            }
        }
    }
    missing
}

/// Nearly every rule is one that a single grant was written for.
fn covers_whole(grant: &Grant, rule: &Rule) -> bool {
    let all = |granted: &[String], asked: &[String]| asked.iter().all(|asked| has(granted, asked));
    let named = if rule.names.is_empty() {
        grant.resource_names.is_empty()
    } else {
        rule.names.iter().all(|name| has_name(grant, Some(name)))
    };
    all(&grant.groups, &rule.groups)
        && all(&grant.resources, &rule.resources)
        && all(&grant.verbs, &rule.verbs)
        && named
}

pub(super) fn has(granted: &[String], asked: &str) -> bool {
    granted.iter().any(|has| has == "*" || has == asked)
}

/// A grant without names is one for all of them; names have no `*`.
fn has_name(grant: &Grant, name: Option<&String>) -> bool {
    grant.resource_names.is_empty() || name.is_some_and(|name| grant.resource_names.contains(name))
}

fn describe(verb: &str, resource: &str, group: &str, name: Option<&String>) -> String {
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    let name = name.map(|name| format!(" named {name}")).unwrap_or_default();
    format!("{verb} {resource}{group}{name}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]) -> Grant {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Grant {
            groups: owned(groups),
            resources: owned(resources),
            verbs: owned(verbs),
            resource_names: owned(names),
            namespaces: Vec::new(),
            urls: Vec::new(),
            why: String::new(),
        }
    }

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]) -> Rule {
        let grant = grant(groups, resources, verbs, names);
        Rule {
            groups: grant.groups,
            resources: grant.resources,
            verbs: grant.verbs,
            names: grant.resource_names,
            urls: Vec::new(),
        }
    }

    #[test]
    fn grants_together_cover_a_rule() {
        let pods = grant(&[""], &["pods", "pods/log"], &["get", "list"], &[]);
        let leases = grant(&["coordination.k8s.io"], &["leases"], &["*"], &["leader"]);
        let all = [&pods, &leases];
        assert_eq!(uncovered(&rule(&[""], &["pods"], &["get"], &[]), &all), Vec::<String>::new());
        assert_eq!(
            uncovered(&rule(&[""], &["pods"], &["get"], &["a"]), &all),
            Vec::<String>::new(),
            "narrower"
        );
        assert_eq!(uncovered(&rule(&[""], &["pods"], &["watch"], &[]), &all), ["watch pods"]);
        assert_eq!(uncovered(&rule(&[""], &["pods/exec"], &["get"], &[]), &all), ["get pods/exec"]);
        assert_eq!(uncovered(&rule(&["*"], &["pods"], &["get"], &[]), &all), ["get pods.*"]);
        assert_eq!(uncovered(&rule(&[""], &["*"], &["get"], &[]), &all), ["get *"]);
        assert_eq!(uncovered(&rule(&[""], &["pods"], &["*"], &[]), &all), ["* pods"]);
        let leader = rule(&["coordination.k8s.io"], &["leases"], &["update"], &["leader"]);
        assert_eq!(uncovered(&leader, &all), Vec::<String>::new());
        let any = rule(&["coordination.k8s.io"], &["leases"], &["update"], &[]);
        assert_eq!(uncovered(&any, &all), ["update leases.coordination.k8s.io"]);
        let other = rule(&["coordination.k8s.io"], &["leases"], &["update"], &["leader", "x"]);
        assert_eq!(uncovered(&other, &all), ["update leases.coordination.k8s.io named x"]);
    }

    #[test]
    fn a_rule_that_several_grants_cover_is_taken_apart() {
        let first = grant(&["", "apps"], &["pods"], &["get"], &[]);
        let second = grant(&["apps"], &["deployments"], &["get"], &[]);
        let third = grant(&[""], &["deployments"], &["get"], &[]);
        let whole = rule(&["", "apps"], &["pods", "deployments"], &["get"], &[]);
        assert_eq!(uncovered(&whole, &[&first, &second, &third]), Vec::<String>::new());
        assert_eq!(uncovered(&whole, &[&first, &second]), ["get deployments"]);
    }

    #[test]
    fn a_rule_of_very_many_combinations_is_refused() {
        let many: Vec<String> = (0..100).map(|number| format!("r{number}")).collect();
        let wide = Rule { groups: many.clone(), resources: many.clone(), verbs: many, ..Rule::default() };
        let why = uncovered(&wide, &[]);
        assert!(why.len() == 1 && why[0].contains("1000000 combinations"), "{why:?}");
        let all = grant(&["*"], &["*"], &["*"], &[]);
        assert_eq!(uncovered(&wide, &[&all]), Vec::<String>::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// What one grant covers is covered by it taken apart, and what a grant does not have is named.
        #[test]
        fn the_short_way_and_the_long_way_agree(
            granted in prop::collection::btree_set("[abc*]", 0..4),
            asked in prop::collection::vec("[abcd]", 1..4),
        ) {
            let granted: Vec<String> = granted.into_iter().collect();
            let of = |list: &[String]| Rule {
                groups: list.to_vec(), resources: list.to_vec(), verbs: list.to_vec(), ..Rule::default()
            };
            let grant = Grant {
                groups: granted.clone(), resources: granted.clone(), verbs: granted.clone(), resource_names: Vec::new(),
                namespaces: Vec::new(), urls: Vec::new(), why: String::new(),
            };
            let whole = covers_whole(&grant, &of(&asked));
            let each = asked.iter().all(|one| covers_whole(&grant, &of(std::slice::from_ref(one))));
            prop_assert_eq!(whole, each);
            prop_assert_eq!(uncovered(&of(&asked), &[&grant]).is_empty(), whole);
        }
    }
}
