use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn part(name: &str) -> Part {
    Part {
        name: name.to_owned(),
        version: semver::Version::new(1, 2, 3),
        provides: Vec::new(),
        requires: Vec::new(),
        conflicts: Vec::new(),
    }
}

fn requirement(what: &str) -> Requirement {
    Requirement { what: what.to_owned(), version: None, optional: false, why: String::new() }
}

impl Part {
    fn requiring(mut self, what: &str) -> Self {
        self.requires.push(requirement(what));
        self
    }

    fn with(mut self, required: Requirement) -> Self {
        self.requires.push(required);
        self
    }

    fn providing(mut self, what: &str) -> Self {
        self.provides.push(what.to_owned());
        self
    }
}

fn nothing() -> Vec<(String, &'static str)> {
    Vec::new()
}

fn told(parts: &[Part]) -> Vec<(String, &'static str)> {
    mistakes(parts).into_iter().map(|mistake| (mistake.plugin, mistake.id)).collect()
}

#[test]
fn a_capability_is_met_by_whoever_provides_it_and_the_built_in_one_by_nobody() {
    let ingress = part("ingress").requiring("loadbalancer").requiring("cni");
    assert_eq!(told(std::slice::from_ref(&ingress)), [("ingress".to_owned(), "PLUGIN-REQUIRES")]);
    let metallb = part("metallb").providing("loadbalancer").requiring("cni");
    assert_eq!(told(&[ingress.clone(), metallb.clone()]), nothing());
    assert_eq!(waits_for(&[ingress, metallb]), [vec![1_usize], Vec::new()]);
}

#[test]
fn a_version_that_does_not_fit_is_named_with_the_one_that_is_wanted() {
    let range = |range: &str| Requirement {
        version: Some(range.parse().expect("a range")),
        why: "its new API".to_owned(),
        ..requirement("base")
    };
    let mut base = part("base");
    assert_eq!(told(&[base.clone(), part("top").with(range(">=1.2"))]), nothing());
    let wrong = mistakes(&[base.clone(), part("top").with(range(">=2"))]);
    assert!(wrong[0].message.contains("base >=2, and there is 1.2.3: its new API"), "{wrong:?}");
    // An optional one may be missing, and not be of another version.
    let optional = Requirement { optional: true, ..range(">=2") };
    assert_eq!(told(&[part("top").with(optional.clone())]), nothing());
    assert_eq!(told(&[base.clone(), part("top").with(optional.clone())]).len(), 1);
    base.version = "2.0.0-rc.1".parse().expect("a version");
    assert_eq!(told(&[base, part("top").with(optional)]), nothing());
}

#[test]
fn of_some_things_there_may_be_one() {
    let parts = [part("flannel").providing("cni"), part("cilium").providing("cni")];
    let found = mistakes(&parts);
    assert_eq!((found[0].plugin.as_str(), found[0].id), ("cilium", "PLUGIN-EXCLUSIVE"));
    assert!(found[0].message.starts_with("flannel and cilium provide cni"), "{found:?}");
    // Others may be there twice.
    assert_eq!(
        told(&[part("a").providing("ingress-class"), part("b").providing("ingress-class")]),
        nothing()
    );
}

#[test]
fn a_conflict_is_told_at_the_plugin_that_has_it_and_never_with_itself() {
    let mut harbor = part("harbor").providing("registry");
    harbor.conflicts = vec!["registry".to_owned()];
    assert_eq!(told(std::slice::from_ref(&harbor)), nothing());
    let found = mistakes(&[part("zot").providing("registry"), harbor]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message, "it cannot be beside zot, which provides registry");
}

#[test]
fn a_cycle_is_told_once_with_all_that_are_in_it() {
    let parts = [part("a").requiring("b"), part("b").requiring("c"), part("c").requiring("a"), part("d")];
    let found = mistakes(&parts);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].message, "plugins that wait for each other: a → b → c → a");
}

#[test]
fn dependents_are_those_that_would_lack_something_the_last_one_first() {
    let parts = [
        part("top").requiring("middle"),
        part("base").providing("loadbalancer"),
        part("middle").requiring("loadbalancer"),
        part("maybe").with(Requirement { optional: true, ..requirement("base") }),
    ];
    assert_eq!(dependents(&parts, "base"), ["top", "middle"]);
    assert_eq!(dependents(&parts, "top"), Vec::<String>::new());
    // Somebody else provides it, too; and the built-in network comes back.
    let mut more = parts.to_vec();
    more.push(part("other").providing("loadbalancer"));
    assert_eq!(dependents(&more, "base"), Vec::<String>::new());
    let network = [part("flannel").providing("cni"), part("metallb").requiring("cni")];
    assert_eq!(dependents(&network, "flannel"), Vec::<String>::new());
}

/// Plugins `p0` to `p7`, each with a few requirements among them, and whether those lead to earlier ones alone.
fn some_parts(acyclic: bool) -> impl Strategy<Value = Vec<Part>> {
    vec(vec(0..8_usize, 0..4), 8).prop_map(move |edges| {
        let required = |index: usize, edges: &[usize]| -> Vec<usize> {
            edges
                .iter()
                .filter(move |&&other| other != index && (!acyclic || other < index))
                .copied()
                .collect()
        };
        let edges = edges.iter().enumerate().map(|(index, edges)| required(index, edges));
        edges
            .enumerate()
            .map(|(index, edges)| {
                edges
                    .iter()
                    .fold(part(&format!("p{index}")), |part, other| part.requiring(&format!("p{other}")))
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn an_order_puts_each_behind_all_that_it_waits_for(parts in some_parts(true)) {
        prop_assert_eq!(told(&parts), nothing());
        let (order, waits) = (order(&parts), waits_for(&parts));
        prop_assert_eq!(order.len(), parts.len());
        for (at, index) in order.iter().enumerate() {
            prop_assert!(waits[*index].iter().all(|other| order[..at].contains(other)));
        }
    }

    #[test]
    fn a_cycle_is_found_if_and_only_if_nothing_can_begin(parts in some_parts(false)) {
        let waits = waits_for(&parts);
        let mut done = BTreeSet::new();
        loop {
            let free = |index: &usize| !done.contains(index) && waits[*index].iter().all(|one| done.contains(one));
            let Some(next) = (0..parts.len()).find(free) else { break };
            done.insert(next);
        }
        let found = mistakes(&parts).iter().any(|mistake| mistake.id == "PLUGIN-CYCLE");
        prop_assert_eq!(found, done.len() < parts.len());
    }

    #[test]
    fn removed_in_the_order_of_dependents_nothing_is_ever_missing(parts in some_parts(true)) {
        let mut left = parts.clone();
        for name in dependents(&parts, "p0").into_iter().chain(["p0".to_owned()]) {
            left.retain(|part| part.name != name);
            prop_assert_eq!(told(&left), nothing(), "without {}", name);
        }
    }
}
