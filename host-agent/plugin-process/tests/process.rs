//! The real program `hello`, static, in the real sandbox: what the host asks of it and what it answers.

mod common;

use std::time::Duration;

use common::{ask, hello, runner};
use plugin_process::{AssessAsk, Ceilings, Deadlines, PlanAnswer, RunErrorKind, Runner};
use serde_json::json;

/// Processes at once.
const MANY: usize = 8;

#[tokio::test]
async fn it_says_what_it_is_and_what_its_config_looks_like() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = hello(folder.path(), |manifest| manifest).await;
    let description = runner().describe(&package).await.expect("it answers").answer;
    assert_eq!((description.name.as_str(), description.version.as_str()), ("hello", "0.1.0"));
    assert_eq!(description.config_schema["additionalProperties"], false);
    assert_eq!(plugin_process::schema::complaints(&description.config_schema), Vec::<String>::new());
    assert!(description.sdk.starts_with("plugin-sdk"), "{}", description.sdk);
}

#[tokio::test]
async fn two_processes_make_the_same_plan() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = hello(folder.path(), |manifest| manifest).await;
    let run = runner().plan_twice(&package, &ask(&json!({"replicas": 3}))).await.expect("it plans");
    let PlanAnswer::Plan { plan, .. } = run.answer else { panic!("{:?}", run.answer) };
    let kinds: Vec<_> =
        plan.objects.iter().map(|it| it.object["kind"].as_str().unwrap_or_default()).collect();
    for kind in ["Namespace", "Service", "Deployment"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
}

#[tokio::test]
async fn every_mistake_in_the_config_is_named_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = hello(folder.path(), |manifest| manifest).await;
    let config = json!({"replicas": 0, "message": 7, "colour": "red"});
    let answer = runner().plan(&package, &ask(&config)).await.expect("it answers").answer;
    let PlanAnswer::Mistakes(mistakes) = answer else { panic!("{answer:?}") };
    let mut places: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
    places.sort_unstable();
    assert_eq!(places, ["/colour", "/message", "/replicas"]);
}

#[tokio::test]
async fn it_judges_nothing_at_all_without_an_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = hello(folder.path(), |manifest| manifest).await;
    let question = AssessAsk { config_json: "{}".to_owned(), facts: common::facts(), ..AssessAsk::default() };
    let (one, other) =
        (runner().assess(&package, &question).await, runner().assess(&package, &question).await);
    assert_eq!(one.expect("it answers").answer, other.expect("it answers").answer);
}

#[tokio::test]
async fn a_program_that_is_not_what_its_manifest_says_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = hello(folder.path(), |manifest| manifest.replace("\"0.1.0\"", "\"0.2.0\"")).await;
    let error = runner().describe(&package).await.expect_err("the versions differ");
    assert_eq!((error.kind, error.failure.id.as_str()), (RunErrorKind::Contract, "PLUGIN-PROTOCOL"));
    assert!(error.failure.reason.contains("\"0.2.0\""), "{error}");
}

#[tokio::test]
async fn a_program_that_was_changed_does_not_run_and_one_that_was_read_runs_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = hello(folder.path(), |manifest| manifest).await;
    let (_, program) = package.program().expect("it has one");
    let before = runner();
    before.describe(&package).await.expect("it answers");
    let mut bytes = std::fs::read(&program).expect("read");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&program, bytes).expect("written");
    let error = runner().describe(&package).await.expect_err("it is another one");
    assert_eq!((error.kind, error.failure.id.as_str()), (RunErrorKind::Launch, "PLUGIN-DIGEST"), "{error:?}");
    before.describe(&package).await.expect("the copy is kept");
}

#[tokio::test]
async fn many_at_once_have_users_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = hello(folder.path(), |manifest| manifest).await;
    let (runner, all_run) = (runner(), tokio::sync::Barrier::new(MANY));
    let (runner, all_run) = (&runner, &all_run);
    let one = || {
        runner.bare(&package, move |started| async move {
            all_run.wait().await;
            let user = started.user;
            drop(started);
            Ok(user)
        })
    };
    let runs = futures::future::try_join_all((0..MANY).map(|_| one())).await.expect("all start");
    let mut users: Vec<_> = runs.into_iter().map(|run| run.answer).collect();
    if !rustix::process::geteuid().is_root() {
        assert!(users.iter().all(Option::is_none), "{users:?}");
        println!("not root: there are no users to give");
        return;
    }
    users.sort_unstable();
    users.dedup();
    let is_of_the_pool = |user: &Option<u32>| user.is_some_and(|user| (61100..61164).contains(&user));
    assert!(users.len() == MANY && users.iter().all(is_of_the_pool), "{users:?}");
}

#[tokio::test]
async fn it_ends_when_its_socket_is_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = hello(folder.path(), |manifest| manifest).await;
    let deadlines = Deadlines { goodbye: Duration::from_secs(20), ..Deadlines::default() };
    let run = Runner::new(deadlines, Ceilings::default()).describe(&package).await.expect("it answers");
    assert!(run.took < Duration::from_secs(10), "{:?}", run.took);
}
