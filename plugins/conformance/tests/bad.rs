//! Every check fails for a plugin that breaks its rule and only that, and none for one that breaks none. Two rules no plugin
//! can break by itself: that it is ended at a deadline, and that it has the sandbox; these are the host's.

mod common;

use std::path::Path;

use plugin_conformance::{CheckResult, Effort, Subject, names, run, run_some};
use plugin_package::Package;
use serde_json::json;

/// Enough to be broken by whoever breaks it.
const EFFORT: Effort = Effort { plans: 5, configs: 2_400, seed: 1 };
/// What the program has where its mode is written.
const MARK: &[u8] = b"bad-plugin-mode:";
const ROOM: usize = 32;

const MANIFEST: &str = r#"
format = 1
name = "bad"
version = "0.1.0"
summary = "Keeps to every rule but one"
protocol = [1]
config_version = 2

[program]
name = "bad-plugin"

[[permission]]
group = ""
kind = "Namespace"
names = ["bad"]
verbs = ["get", "create", "patch", "delete"]
why = "a namespace of its own"

[[permission]]
group = "apps"
kind = "Deployment"
namespaces = ["bad"]
verbs = ["get", "create", "patch", "delete"]
why = "pods"

[[permission]]
group = ""
kind = "Secret"
namespaces = ["bad"]
verbs = ["get", "create", "patch", "delete"]
why = "a password"

[[permission]]
group = ""
kind = "ConfigMap"
namespaces = ["bad"]
verbs = ["get", "create", "patch", "delete"]
why = "what no plugin should say"

[[permission]]
group = "bad.invalid"
kind = "Thing"
namespaces = ["bad"]
verbs = ["get", "create", "patch", "delete"]
why = "of which nobody knows when it is ready"
"#;

/// A check, and modes of the program that break its rule.
const BROKEN: [(&str, &[&str]); 15] = [
    ("versions", &["nonce"]),
    ("schema", &["open-schema", "bad-default"]),
    ("determinism", &["unstable"]),
    ("configs", &["fails"]),
    ("schema-and-program", &["lenient"]),
    ("fixtures", &["takes-all"]),
    ("permissions", &["greedy"]),
    ("pinned", &["latest"]),
    ("readiness", &["unready"]),
    ("effective-config", &["restless"]),
    ("migration", &["no-migration"]),
    ("secrets", &["leaks"]),
    ("assess", &["no-judge", "moody"]),
    ("cancel", &["lingers"]),
    ("budget", &["slow-start", "fat"]),
];

/// The program, of which each mode is a copy.
struct Bad {
    program: Vec<u8>,
    /// Where its mode is written.
    at: usize,
}

impl Bad {
    async fn new() -> Self {
        let program = std::fs::read(common::bad_program().await).expect("the program");
        let mut places = program.windows(MARK.len()).enumerate().filter(|(_, it)| *it == MARK);
        let (place, more) = (places.next(), places.next());
        assert!(more.is_none(), "its mode is written in two places");
        let at = place.expect("its mode is written there").0 + MARK.len();
        Self { program, at }
    }

    /// A package of the program that does this wrong.
    async fn package(&self, folder: &Path, mode: &str) -> Package {
        let (source, copy) = (folder.join("source"), folder.join("program"));
        std::fs::create_dir_all(&source).expect("made");
        std::fs::write(source.join("plugin.toml"), MANIFEST).expect("written");
        let mut changed = self.program.clone();
        changed[self.at..self.at + ROOM].copy_from_slice(format!("{mode:.<ROOM$}").as_bytes());
        std::fs::write(&copy, changed).expect("written");
        common::package(&source, &copy, &folder.join("package")).await
    }
}

fn subject(package: Package) -> Subject {
    let password = json!({"handle": "admin", "key": "password"});
    Subject {
        package,
        valid: vec![json!({}), json!({"size": 3, "password": password})],
        invalid: vec![
            (json!({"size": 10}), "/size".to_owned()),
            (json!({"colour": "red"}), "/colour".to_owned()),
        ],
    }
}

fn told(results: &[CheckResult]) -> String {
    let failed = results.iter().filter(|result| !result.passed);
    failed
        .map(|it| format!("{} {}:\n  {}", it.number, it.name, it.details.join("\n  ")))
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_breaks_no_rule_passes_all_checks() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = Bad::new().await.package(folder.path(), "good").await;
    let mut heard = Vec::new();
    let results = run(&subject(package), &EFFORT, &mut |result| heard.push(result.name)).await;
    assert_eq!(told(&results), "");
    assert_eq!(heard, names().collect::<Vec<_>>(), "each is told");
    assert!(results.len() >= 16, "{}", results.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_check_fails_for_one_that_breaks_its_rule() {
    let bad = Bad::new().await;
    let mut wrong = Vec::new();
    for (check, modes) in BROKEN {
        for mode in modes {
            let folder = tempfile::tempdir().expect("a folder");
            let subject = subject(bad.package(folder.path(), mode).await);
            let results = run_some(&subject, &EFFORT, |name| name == check, &mut |_| ()).await;
            let result = results.first().expect("the check is run");
            println!("{mode}: {}", result.details.join("; "));
            if result.passed {
                wrong.push(format!("{check} passes for {mode}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_package_that_says_otherwise_than_its_program_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut package = Bad::new().await.package(folder.path(), "good").await;
    package.manifest.summary = "Something else".to_owned();
    let results = run_some(&subject(package), &EFFORT, |name| name == "manifest", &mut |_| ()).await;
    assert!(told(&results).contains("Something else"), "{}", told(&results));
}

#[test]
fn every_check_is_broken_by_somebody_or_is_the_hosts() {
    let hosts = ["manifest", "deadline", "sandbox"];
    let broken: Vec<_> = BROKEN.iter().map(|(check, _)| *check).chain(hosts).collect();
    assert!(names().all(|name| broken.contains(&name)), "{broken:?}");
    assert_eq!(names().count(), broken.len());
}

#[test]
fn fixtures_are_read_and_named_when_they_are_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let tests = folder.path().join("tests");
    for name in ["valid", "invalid"] {
        std::fs::create_dir_all(tests.join(name)).expect("made");
    }
    let package = || {
        let manifest = plugin_package::Manifest::parse(MANIFEST).expect("it is sound");
        let trust = plugin_package::Trust::Dev;
        Package { manifest, sha256: String::new(), folder: folder.path().to_owned(), trust }
    };
    std::fs::write(tests.join("valid/a.json"), "{\"size\": 1}").expect("written");
    std::fs::write(tests.join("valid/notes.md"), "none").expect("written");
    std::fs::write(tests.join("invalid/b.json"), "{\"config\": {\"size\": 0}, \"path\": \"/size\"}")
        .expect("written");
    let subject = Subject::read(package(), folder.path()).expect("they are fixtures");
    assert_eq!(subject.valid, [json!({"size": 1})]);
    assert_eq!(subject.invalid, [(json!({"size": 0}), "/size".to_owned())]);
    std::fs::write(tests.join("invalid/c.json"), "{\"size\": 0}").expect("written");
    let why = Subject::read(package(), folder.path()).expect_err("it has no path");
    assert!(why.contains("c.json") && why.contains("\"path\""), "{why}");
    std::fs::write(tests.join("invalid/c.json"), "{").expect("written");
    let why = Subject::read(package(), folder.path()).expect_err("it is no JSON");
    assert!(why.contains("c.json"), "{why}");
}
