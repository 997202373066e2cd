use super::*;

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        group: "apps".to_owned(),
        version: "v1".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: "hello".to_owned(),
        name: name.to_owned(),
    }
}

fn bad(looks: u32) -> Found {
    let object = ("apps/v1 Deployment hello/hello".to_owned(), "1 of 2 replicas".to_owned());
    Found { bad: Some(object), bad_looks: looks, ..Found::default() }
}

fn degraded(message: &str) -> Install {
    Install { state: PluginState::Degraded, message: message.to_owned(), ..Install::ready("hello", 1) }
}

#[test]
fn one_bad_look_is_none_and_two_are() {
    let ready = Install::ready("hello", 1);
    assert_eq!(decide_state(&ready, &bad(1)), None);
    let message = "apps/v1 Deployment hello/hello is not ready: 1 of 2 replicas".to_owned();
    assert_eq!(decide_state(&ready, &bad(2)), Some((PluginState::Degraded, message.clone())));
    // Told once.
    assert_eq!(decide_state(&degraded(&message), &bad(3)), None);
}

#[test]
fn what_is_ready_again_recovers_and_what_was_ready_stays_so() {
    let good = Found::default();
    assert_eq!(decide_state(&Install::ready("hello", 1), &good), None);
    let again = Some((PluginState::Ready, "ready again".to_owned()));
    assert_eq!(decide_state(&degraded("why"), &good), again);
}

#[test]
fn a_plugin_that_is_not_content_is_degraded_and_says_why() {
    let found =
        Found { complaint: Some("it says: no speaker on k8s-worker-2".to_owned()), ..Found::default() };
    let (state, message) = decide_state(&Install::ready("hello", 1), &found).expect("it changes");
    assert_eq!((state, message.as_str()), (PluginState::Degraded, "it says: no speaker on k8s-worker-2"));
}

#[test]
fn what_is_given_up_names_the_other_one() {
    let corrected = Corrected {
        done: Vec::new(),
        fights: vec![(key("hello"), "argocd".to_owned()), (key("other"), "argocd".to_owned())],
        reported: Vec::new(),
    };
    let found = Found { fight: fight("hello", &corrected), ..Found::default() };
    let (state, message) = decide_state(&Install::ready("hello", 1), &found).expect("it changes");
    assert_eq!(state, PluginState::Degraded);
    let start =
        "PLUGIN-FIGHT: plugin hello: argocd changes apps/v1 Deployment hello/hello (and 1 more) again";
    assert!(message.starts_with(start), "{message}");
}

#[test]
fn the_worst_object_is_told_and_a_changed_one_is_no_matter_of_readiness() {
    let drifted = Seen::Drifted { fields: vec!["/spec/replicas".to_owned()], manager: "kubectl".to_owned() };
    let look = |objects: Vec<(&str, Seen)>| Look {
        objects: objects.into_iter().map(|(name, seen)| (key(name), seen)).collect(),
    };
    assert_eq!(worst(&look(vec![("a", Seen::Fine), ("b", drifted)])), None);
    let waiting = || Seen::Waiting("0 of 1".to_owned());
    let found = worst(&look(vec![("a", waiting()), ("b", Seen::Missing), ("c", Seen::Missing)]));
    assert_eq!(found, Some(("apps/v1 Deployment hello/b".to_owned(), "it is gone".to_owned())));
    let failed = Seen::Failed("the deadline has passed".to_owned());
    let found = worst(&look(vec![("a", waiting()), ("b", Seen::Missing), ("c", failed)]));
    assert_eq!(found.map(|(_, why)| why).as_deref(), Some("the deadline has passed"));
}
