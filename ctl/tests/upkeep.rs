//! `k8sctl upgrade agents` and `k8sctl support-bundle` of the real binary against the fake host agent.

#![allow(clippy::unwrap_used)]

mod fake;
mod harness;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fake::{Answers, story};
use harness::{Bench, bare, finish};
use k8sctl_proto::control::v1::{
    Failure as WireFailure, NodeStatus, SupportPart, UpgradeAgentsResponse, UpgradeState,
};
use k8sctl_types::failure::Failure;
use serde_json::Value;
use tonic::Code;

const CANARY: &str = "kanarienvogel0123456789";

fn upgraded(node: &str, state: UpgradeState, failure: Option<WireFailure>) -> UpgradeAgentsResponse {
    let message = "one line".to_owned();
    UpgradeAgentsResponse { node_name: node.to_owned(), state: state.into(), message, failure }
}

#[tokio::test]
async fn an_upgrade_tells_of_each_node_and_of_what_failed() {
    let failure = WireFailure { id: "NODE-AGENT-ROLLED-BACK".to_owned(), ..story::failure() };
    let upgrades = vec![
        upgraded("k8s-worker-1", UpgradeState::Running, None),
        upgraded("k8s-worker-1", UpgradeState::Done, None),
        upgraded("k8s-worker-2", UpgradeState::Failed, Some(failure)),
        upgraded("k8s-control-plane-1", UpgradeState::Skipped, None),
    ];
    let bench = Bench::new(Answers { upgrades: upgrades[..2].to_vec(), ..story::answers() });
    let out = bench.run(&["upgrade", "agents", "k8s-worker-1", "--session-deadline", "30s"]).await.expect(0);
    assert!(out.contains("k8s-worker-1") && out.contains("done"), "{out}");
    let calls = bench.calls();
    assert!(calls.contains("node_names: [\"k8s-worker-1\"]") && calls.contains("seconds: 30"), "{calls}");

    let bench = Bench::new(Answers { upgrades, ..story::answers() });
    let run = bench.run(&["upgrade", "agents", "-o", "json"]).await;
    let lines: Vec<Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[2]["failure"]["id"], &lines[3]["state"]),
        (&"NODE-AGENT-ROLLED-BACK".into(), &"skipped".into())
    );
    run.fails(1, &["error NODE-AGENT-ROLLED-BACK"]);
}

/// The files of a bundle, below its own directory.
fn files(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(File::open(path).unwrap()).unwrap());
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name.split_once('/').unwrap().1.to_owned(), text);
    }
    files
}

/// Ids of the failures in the manifest, by part.
fn missing(files: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let manifest: Value = serde_json::from_str(&files["manifest.json"]).unwrap();
    let parts = manifest["parts"].as_array().unwrap();
    let failed = parts.iter().filter_map(|part| {
        Some((part["path"].as_str()?.to_owned(), part["error"]["id"].as_str()?.to_owned()))
    });
    failed.collect()
}

fn answers() -> Answers {
    let mut answers = story::answers();
    answers.events[0].message = format!("its password: {CANARY}");
    if let Some(line) = &mut answers.logs[0].line {
        line.text = format!("started with --token {CANARY}");
    }
    let part = |path: &str, content: &str| SupportPart {
        path: path.to_owned(),
        content: content.to_owned(),
        failure: None,
        cut: false,
    };
    answers.support = vec![
        part("clusters/home/spec.json", &format!("{{\"adminPassword\": \"{CANARY}\", \"name\": \"home\"}}")),
        SupportPart { failure: Some(story::failure()), ..part("libvirt", "") },
    ];
    answers
}

#[tokio::test]
async fn a_bundle_has_everything_and_no_secret() {
    let bench = Bench::new(answers());
    let path = bench.path("help.tar.zst");
    let path_text = path.display().to_string();
    let out = bench.run(&["support-bundle", "-f", &path_text]).await.expect(0);
    assert_eq!(out.trim_end(), path_text);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let files = files(&path);
    for name in [
        "manifest.json",
        "client/machine.txt",
        "client/units.txt",
        "host/version.json",
        "host/doctor.json",
        "events.jsonl",
        "clusters/home/status.json",
        "clusters/home/spec.json",
        "clusters/home/nodes/k8s-worker-1/agent.log",
        "clusters/home/nodes/k8s-worker-1/services.log",
    ] {
        assert!(files.contains_key(name), "{name}: {:?}", files.keys());
    }
    assert!(files["events.jsonl"].contains("(redacted)"), "{}", files["events.jsonl"]);
    for (name, text) in &files {
        assert!(!text.contains(CANARY), "{name}: {text}");
    }
    assert_eq!(missing(&files).get("libvirt").map(String::as_str), Some(story::failure().id.as_str()));
    // What is there is not overwritten.
    bench.run(&["support-bundle", "-f", &path_text]).await.fails(1, &["HOST-SUPPORT-FILE"]);
}

#[tokio::test]
async fn the_logs_of_a_few_nodes_are_written_before_the_next_ones_are_read() {
    let mut status = story::status();
    let node = status.nodes.remove(0);
    // Against the order of their names, in which they would be if all had been read first.
    let named = |number: u32| NodeStatus { name: format!("node-{number:02}"), ..node.clone() };
    status.nodes = (0..20).rev().map(named).collect();
    let bench = Bench::new(Answers { status: vec![status], ..answers() });
    let path = bench.path("many.tar.zst");
    bench.run(&["support-bundle", "-f", &path.display().to_string()]).await.expect(0);
    let manifest: Value = serde_json::from_str(&files(&path)["manifest.json"]).unwrap();
    let paths = manifest["parts"].as_array().unwrap().iter().filter_map(|part| part["path"].as_str());
    let logs: Vec<&str> = paths.filter(|path| path.ends_with(".log") && path.contains("/nodes/")).collect();
    assert_eq!(logs.len(), 40, "{logs:?}");
    let place = |name: &str| logs.iter().position(|path| path.contains(name)).unwrap();
    assert!(place("node-19") < place("node-00"), "{logs:?}");
}

#[tokio::test]
async fn a_bundle_may_be_named_as_with_other_programs() {
    let bench = Bench::new(answers());
    let path = bench.path("bundle.tar.gz").display().to_string();
    let out = bench.run(&["support-bundle", "-o", &path]).await.expect(0);
    assert_eq!(out.trim_end(), path);
    assert!(std::fs::read(&path).unwrap().starts_with(&[0x1f, 0x8b]), "it is no gzip");
    // A format is still one.
    let path = bench.path("bundle.tar.zst").display().to_string();
    let document = bench.json(&["support-bundle", "-f", &path]).await;
    assert_eq!(document["path"], path);
}

#[tokio::test]
async fn of_a_cluster_that_is_not_there_is_no_bundle() {
    let failure = Failure::new("CLUSTER-UNKNOWN", "cluster hom", "there is none", "the clusters are: home");
    let bench = Bench::failing(Code::NotFound, failure);
    let path = bench.path("bundle.tar.zst");
    let run = bench.run(&["support-bundle", "hom", "-f", &path.display().to_string()]).await;
    run.fails(1, &["error CLUSTER-UNKNOWN: cluster hom", "next: the clusters are: home"]);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_host_agent_that_fails_or_is_not_there_is_named_and_the_rest_is_in_it() {
    let failure = Failure::new("HOST-BUSY", "host agent", format!("token={CANARY}"), "try again");
    let bench = Bench::failing(Code::Unavailable, failure);
    let path = bench.path("failing.tar.zst");
    bench.run(&["support-bundle", "-f", &path.display().to_string()]).await.expect(0);
    let files_of_it = files(&path);
    let lacks = missing(&files_of_it);
    for name in ["host/version.json", "host/doctor.json", "events.jsonl", "clusters"] {
        assert_eq!(lacks.get(name).map(String::as_str), Some("HOST-BUSY"), "{lacks:?}");
    }
    assert!(files_of_it.values().all(|text| !text.contains(CANARY)));

    let dir = tempfile::tempdir().unwrap();
    let mut command = bare(dir.path());
    let (socket, path) = (dir.path().join("no.sock"), dir.path().join("alone.tar.zst"));
    command.args([
        "--socket",
        &socket.display().to_string(),
        "support-bundle",
        "-f",
        &path.display().to_string(),
    ]);
    finish(command).await.expect(0);
    let files_of_it = files(&path);
    assert!(files_of_it["client/machine.txt"].contains("k8sctl "));
    assert_eq!(missing(&files_of_it).get("host").map(String::as_str), Some("HOST-AGENT-UNREACHABLE"));
}

#[tokio::test]
async fn what_does_not_come_in_time_is_named_and_what_came_is_kept() {
    // Each stream stays open behind its last message.
    let bench = Bench::new(Answers { endless: true, ..answers() });
    let path = bench.path("late.tar.zst");
    let run = bench.run(&["support-bundle", "--deadline", "3s", "-f", &path.display().to_string()]).await;
    run.expect(0);
    let files = files(&path);
    assert!(files.contains_key("clusters/home/spec.json"), "it came before: {:?}", files.keys());
    assert_eq!(missing(&files).get("host/gathered").map(String::as_str), Some("HOST-SUPPORT-PART"));
}
