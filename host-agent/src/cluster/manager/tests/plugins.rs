//! `up` with plugins in the file: what the plan shows, who may agree to it, what is kept before it begins.

use super::*;
use crate::cluster::node_requirements::tests::flannel;

const HELLO: &str = "[plugins.hello]\nreplicas = 2\n";
const FLANNEL: &str = "[plugins.flannel]\n";

fn with(plugins: &str) -> String {
    format!("{SPEC}{plugins}")
}

async fn planned(agent: &FakeHostAgent, text: &str) -> Result<PlannedUp, RequestError> {
    planning::plan_up(&agent.shared, &spec_file(text, "cluster.toml")).await
}

fn change_of<'a>(planned: &'a PlannedUp, kind: &str) -> Option<&'a control::Change> {
    planned.plan.changes.iter().find(|change| change.kind == kind)
}

#[tokio::test]
async fn a_plan_shows_what_plugins_become_and_what_they_ask_for() {
    let agent = FakeHostAgent::new().await;
    agent.plugins.state().unapproved = vec!["create Pod in namespace hello".to_owned()];
    let plan = planned(&agent, &with(HELLO)).await.expect("it can be done");
    let change = change_of(&plan, "plugin").expect("it is new");
    assert_eq!((change.name.as_str(), change.action()), ("hello", control::Action::Create));
    assert_eq!(change.permissions, ["create Pod in namespace hello"]);
    assert!(!change.permissions_digest.is_empty());
    assert_eq!(plan.plugins.iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>(), ["hello"]);
    assert!(change_of(&planned(&agent, SPEC).await.expect("it can be done"), "plugin").is_none());
}

#[tokio::test]
async fn what_a_plugin_says_of_its_config_is_told_with_its_line() {
    let agent = FakeHostAgent::new().await;
    let said = |warning| host_plugins::Diagnostic {
        code: "HELLO-REPLICAS".to_owned(),
        path: "/replicas".to_owned(),
        message: "an even number".to_owned(),
        hint: "take an odd one".to_owned(),
        warning,
    };
    let line = SPEC.lines().count() as u32 + 2;
    agent.plugins.state().said = vec![("hello".to_owned(), said(false))];
    match planned(&agent, &with(HELLO)).await {
        Err(RequestError::Diagnostics(found)) => {
            let seen: Vec<_> = found.iter().map(|one| (&*one.id, one.line)).collect();
            assert!(seen.contains(&("HELLO-REPLICAS", line)), "{seen:?}");
        }
        other => panic!("it is not refused: {other:?}"),
    }
    // A remark stops nothing.
    agent.plugins.state().said = vec![("hello".to_owned(), said(true))];
    let plan = planned(&agent, &with(HELLO)).await.expect("it can be done");
    assert!(plan.warnings.iter().any(|one| one.id == "HELLO-REPLICAS" && one.line == line && one.warning));
}

#[tokio::test]
async fn what_nobody_approved_takes_an_administrator_and_packages_are_kept_first() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    agent.plugins.state().unapproved = vec!["create Pod in namespace hello".to_owned()];
    agent.plugins.state().stuck = Some(("hello".to_owned(), "it has not begun".to_owned()));
    let file = spec_file(&with(HELLO), "cluster.toml");
    let apply = |yes: bool, by: Role| manager.apply(&file, "", yes, None, by);
    assert_eq!(refusal(apply(false, Role::Admin).await).id, "PLAN-CONSENT");
    let failure = refusal(apply(true, Role::Operator).await);
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("PLUGIN-APPROVE-ADMIN", "plugin hello"));
    assert!(agent.plugins.state().kept.is_empty());
    assert_eq!(refusal(manager.find("home").await).id, "CLUSTER-UNKNOWN");

    let operation = id(apply(true, Role::Admin).await);
    assert_eq!(agent.plugins.state().kept, ["hello"]);
    assert_eq!(agent.cluster("home").await.plugins, [agent.plugins.pinned("hello")]);
    // Who asks for the same follows it, and agrees to nothing.
    let again = apply(false, Role::Operator).await;
    assert!(again.as_ref().is_ok_and(|applied| applied.attached), "{again:?}");
    assert_eq!(id(again), operation);

    // Another config asks for nothing new: what was approved with the spec is approved, although nothing has begun.
    let file = spec_file(&with("[plugins.hello]\nreplicas = 3\n"), "cluster.toml");
    let other = id(manager.apply(&file, "", true, None, Role::Operator).await);
    assert_ne!(other, operation);
    // More than that takes an administrator again.
    agent.plugins.state().unapproved.push("create Secret in namespace hello".to_owned());
    let file = spec_file(&with("[plugins.hello]\nreplicas = 4\n"), "cluster.toml");
    let failure = refusal(manager.apply(&file, "", true, None, Role::Operator).await);
    assert_eq!(failure.id, "PLUGIN-APPROVE-ADMIN");
    assert_eq!(failure.evidence, "create Secret in namespace hello");
}

#[tokio::test]
async fn another_package_of_a_plugin_is_another_operation() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let first = id(up(&manager, &with(HELLO), true).await);
    let newer = host_plugins::PinnedPlugin {
        package_sha256: "11".repeat(32),
        version: "0.2.0".to_owned(),
        ..agent.plugins.pinned("hello")
    };
    agent.plugins.state().known = vec![newer.clone()];
    assert_ne!(id(up(&manager, &with(HELLO), true).await), first);
    assert_eq!(agent.cluster("home").await.plugins, [newer]);
}

#[tokio::test]
async fn another_pod_network_is_agreed_to_where_there_are_pods_already() {
    let agent = FakeHostAgent::new().await;
    agent.plugins.state().known = vec![flannel()];
    let new = planned(&agent, &with(FLANNEL)).await.expect("it can be done");
    assert_eq!((change_of(&new, "pod-network").is_none(), new.pod_network.as_str()), (true, "flannel"));

    agent.begin(agent.generation(SPEC).await).await;
    let living = planned(&agent, &with(FLANNEL)).await.expect("it can be done");
    let change = change_of(&living, "pod-network").expect("pods restart");
    assert_eq!((change.name.as_str(), change.destructive), ("flannel", true));
    let manager = agent.start().await;
    let failure = refusal(up(&manager, &with(FLANNEL), false).await);
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("PLAN-CONSENT", "pod-network flannel"));
}

#[tokio::test]
async fn a_lock_file_that_cannot_be_read_is_refused() {
    let agent = FakeHostAgent::new().await;
    let file =
        control::SpecFile { lock_text: "format = 'x'".to_owned(), ..spec_file(&with(HELLO), "cluster.toml") };
    assert_eq!(refusal(planning::plan_up(&agent.shared, &file).await).id, "PLUGIN-LOCK");
}
