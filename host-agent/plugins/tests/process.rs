//! The real program `hello`, static, in the real sandbox: what the host asks of it and what it answers.

mod common;

use common::{facts, hello_program, host, plugin_folder};
use host_plugins::{ClusterAccess, InstallError, PluginState};
use kube::{Client, Config};

/// A cluster that is never reached.
fn nowhere() -> ClusterAccess {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = Config::new("https://127.0.0.1:1".parse().expect("a URL"));
    let client = Client::try_from(config).expect("a client");
    ClusterAccess { cluster_id: "c".to_owned(), client, facts: facts() }
}

#[tokio::test]
async fn it_says_what_it_is_and_what_its_config_looks_like() {
    let folder = tempfile::tempdir().expect("a folder");
    plugin_folder(&folder.path().join("hello"), &hello_program().await, |manifest| manifest);
    let description = host(folder.path()).describe("hello").await.expect("it answers");
    assert_eq!((description.name.as_str(), description.version.as_str()), ("hello", "0.1.0"));
    assert_eq!(description.config_schema["additionalProperties"], false);
}

#[tokio::test]
async fn an_offer_shows_permissions_and_objects_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    plugin_folder(&folder.path().join("hello"), &hello_program().await, |manifest| manifest);
    let host = host(folder.path());
    let offer = host.offer(&nowhere(), "hello", "").await.expect("it offers");
    assert_eq!(
        offer.objects,
        ["v1 Namespace hello", "v1 Service hello/hello", "apps/v1 Deployment hello/hello"]
    );
    assert_eq!(offer.permissions.len(), 3);
    let list = host.list("c").await.expect("it lists");
    assert_eq!((list.len(), list[0].state), (1, PluginState::Available));
    let (progress, _lines) = tokio::sync::mpsc::channel(1);
    let refused = host.install(&nowhere(), "hello", "", "another digest", progress).await;
    let Err(InstallError::Failure(failure)) = refused else { panic!("{refused:?}") };
    assert_eq!(failure.id, "PLUGIN-NOT-APPROVED");
}

#[tokio::test]
async fn every_mistake_in_the_config_is_named_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    plugin_folder(&folder.path().join("hello"), &hello_program().await, |manifest| manifest);
    let config = r#"{"replicas": 0, "message": 7, "colour": "red"}"#;
    let refused = host(folder.path()).offer(&nowhere(), "hello", config).await;
    let Err(InstallError::Config(mistakes)) = refused else { panic!("{refused:?}") };
    let mut places: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
    places.sort_unstable();
    assert_eq!(places, ["/colour", "/message", "/replicas"]);
}

#[tokio::test]
async fn a_program_that_is_not_what_its_manifest_says_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = hello_program().await;
    plugin_folder(&folder.path().join("hello"), &program, |manifest| manifest.replace("0.1.0", "0.2.0"));
    let failure = host(folder.path()).describe("hello").await.expect_err("the versions differ");
    assert_eq!(failure.id, "PLUGIN-PROTOCOL");
    assert!(failure.reason.contains("0.2.0"), "{failure}");
}

#[tokio::test]
async fn a_plan_beyond_the_permissions_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = hello_program().await;
    let narrow = |manifest: String| manifest.replace("kind = \"Deployment\"", "kind = \"StatefulSet\"");
    plugin_folder(&folder.path().join("hello"), &program, narrow);
    let refused = host(folder.path()).offer(&nowhere(), "hello", "{}").await;
    let Err(InstallError::Failure(failure)) = refused else { panic!("{refused:?}") };
    assert_eq!(failure.id, "PLUGIN-REFUSED");
    assert!(failure.reason.contains("apps/v1 Deployment hello/hello"), "{failure}");
}

#[tokio::test]
async fn an_unknown_plugin_is_named_with_those_that_there_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let failure = host(folder.path()).describe("metallb").await.expect_err("there is none");
    assert_eq!(failure.id, "PLUGIN-UNKNOWN");
}
