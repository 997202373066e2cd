//! The plugins of this tree pass all checks, where this is CI with all effort: each once, with 200 fresh processes that plan,
//! 12,000 configs through one process, and a thousand others of which its schema is asked too. That is some minutes of two
//! slow processors for all of them: what is of the tree and no plugin of it has the small effort there as well.

mod common;

use plugin_conformance::{Effort, Subject, run};
use plugin_package::Manifest;

const SMALL: Effort = Effort { plans: 20, configs: 1_000, seed: 1 };

async fn passes(source: &str) {
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    passes_with(source, if is_ci { Effort::default() } else { SMALL }).await;
}

async fn passes_with(source: &str, effort: Effort) {
    let source = common::workspace().join("plugins").join(source);
    let text = std::fs::read_to_string(source.join("plugin.toml")).expect("its plugin.toml");
    let manifest = Manifest::parse(&text).expect("it is sound");
    let program = common::programs().await.join(&manifest.program.name);
    let folder = tempfile::tempdir().expect("a folder");
    let package = common::package(&source, &program, &folder.path().join("package")).await;
    let subject = Subject::read(package, &source).expect("its fixtures");
    let mut wrong = Vec::new();
    run(&subject, &effort, &mut |result| {
        println!("{} {}: {:?}", result.number, result.name, result.took);
        if !result.passed {
            wrong.push(format!("{} {}:\n  {}", result.number, result.name, result.details.join("\n  ")));
        }
    })
    .await;
    assert!(wrong.is_empty(), "{}:\n{}", manifest.name, wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hello() {
    passes("hello").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_hello() {
    // For upgrades in tests; nobody is given it.
    passes_with("hello/tests/next", SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metallb() {
    passes("metallb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flannel() {
    passes("flannel").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_path_storage() {
    passes("local-path-storage").await;
}

#[test]
fn no_plugin_of_the_tree_is_left_out() {
    let here = include_str!("tree.rs");
    let entries = std::fs::read_dir(common::workspace().join("plugins")).expect("the plugins").flatten();
    for entry in entries.filter(|entry| entry.path().join("plugin.toml").is_file()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(here.contains(&format!("passes(\"{name}\")")), "{name} is not tried");
    }
}
