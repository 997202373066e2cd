//! The verbs that look, and bundles and images, of the real binary against the fake host agent.

#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test looks at the exit status and the output of the program itself"
)]

mod fake;
mod harness;

use fake::{Answers, story};
use harness::{Bench, DEADLINE, bare, finish};
use k8sctl_proto::control::v1::Bundle;
use k8sctl_proto::node::v1::ConditionStatus;
use k8sctl_types::failure::Failure;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;
use tonic::Code;

fn bench() -> Bench {
    Bench::new(story::answers())
}

#[tokio::test]
async fn status_as_table() {
    let bench = bench();
    let out = bench.run(&["status"]).await.expect(0);
    assert!(out.contains("k8s-worker-1         worker         192.168.122.11  running  Ready"), "{out}");
    assert!(out.contains("connected") && out.contains("1h06m") && out.contains("hello"), "{out}");
    let wide = bench.run(&["status", "home", "-o", "wide"]).await.expect(0);
    assert!(wide.contains("4.0 GiB") && wide.contains("6.1.0-41-amd64"), "{wide}");
}

#[tokio::test]
async fn status_with_trouble_says_what_and_why() {
    let bench = Bench::new(Answers { status: vec![story::troubled_status()], ..story::answers() });
    let out = bench.run(&["status"]).await.expect(0);
    for text in [
        "trial bundle, Kubernetes 1.20",
        "0198-op is running",
        "NODE-SILENT: node k8s-worker-1",
        "next: look at its console",
        "ClusterDNS=False (NotInBundle): the bundle has no CoreDNS",
        "DiskOK=False (Full): 3 % free on /var\\x1b[2J",
        "DiskOK,AgentReady ",
        "AgentReady=False (NoSession): its agent has no session",
        "seen 1m1",
    ] {
        assert!(out.contains(text), "{text:?} is not in:\n{out}");
    }
    assert!(!out.contains("KubeletReady"), "what follows from it says nothing new:\n{out}");
    assert!(!out.contains("AgentsReady"), "nor does what sums it up:\n{out}");
}

/// The table stays as narrow as it can, whatever is wrong.
#[tokio::test]
async fn of_many_conditions_the_table_names_two_and_counts_the_others() {
    let mut status = story::status();
    let parts = ["ApiServerReady", "ControllerManagerReady", "SchedulerReady", "EtcdReady"];
    status.nodes[0].conditions = parts
        .map(|part| story::condition(part, ConditionStatus::False, "Silent", "no answer within 8 s"))
        .to_vec();
    let bench = Bench::new(Answers { status: vec![status], ..story::answers() });
    let out = bench.run(&["status"]).await.expect(0);
    assert!(out.contains("  ApiServerReady,ControllerManagerReady +2  "), "{out}");
    for part in parts {
        let line = format!("  k8s-control-plane-1: {part}=False (Silent): no answer within 8 s\n");
        assert!(out.contains(&line), "{line:?} is not in:\n{out}");
    }
}

/// The next step may be to read it.
#[tokio::test]
async fn status_shows_the_end_of_the_evidence() {
    let mut status = story::troubled_status();
    let console: Vec<_> = (1..=25).map(|number| format!("line {number}\x1b[31m")).collect();
    status.last_failure.as_mut().unwrap().evidence = console.join("\n");
    let bench = Bench::new(Answers { status: vec![status], ..story::answers() });
    let out = bench.run(&["status"]).await.expect(0);
    let seen = out.lines().filter_map(|line| line.strip_prefix("  | ")).collect::<Vec<_>>();
    assert_eq!((seen.len(), seen[0], seen[19]), (20, "line 6\\x1b[31m", "line 25\\x1b[31m"), "{out}");
    let next = out.find("next: look at its console").unwrap();
    assert!(out.find("line 25") < Some(next), "{out}");
}

#[tokio::test]
async fn status_for_programs() {
    let bench = bench();
    let status = bench.json(&["status"]).await;
    assert_eq!(status["nodes"][0]["role"], "control-plane");
    assert_eq!(status["nodes"][0]["facts"]["boot_to_agent_seconds"], 7.25);
    assert_eq!(status["operation_id"], Value::Null);
    let powered_on = status["nodes"][1]["powered_on"].as_str().unwrap();
    assert!(powered_on.ends_with(".5Z") && powered_on.contains('T'), "{powered_on}");
    let yaml = bench.run(&["status", "-o", "yaml"]).await.expect(0);
    assert_eq!(serde_yaml_ng::from_str::<Value>(&yaml).unwrap(), bench.json(&["status"]).await);
    bench.fake.answers.lock().unwrap().status.push(story::troubled_status());
    let watched = bench.run(&["status", "-w", "-o", "json"]).await.expect(0);
    let documents: Vec<Value> = watched.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 2);
}

#[tokio::test]
async fn the_cluster_must_be_clear() {
    let bench = Bench::new(Answers { clusters: Vec::new(), ..story::answers() });
    bench.run(&["status"]).await.fails(1, &["CLUSTER-NONE", "k8sctl up"]);
    bench.fake.answers.lock().unwrap().clusters = vec!["home".to_owned(), "den".to_owned()];
    bench.run(&["status"]).await.fails(1, &["CLUSTER-WHICH", "home, den", "--cluster"]);
    bench.run(&["status", "den"]).await.expect(0);
}

#[tokio::test]
async fn events_as_lines_and_as_json() {
    let bench = bench();
    let out = bench.run(&["events", "home", "--from", "8", "--tail", "5"]).await.expect(0);
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(
        out.contains("!StepFailed") && out.contains("node k8s-worker-2: kubeadm: exit status 1"),
        "{out}"
    );
    assert!(bench.calls().contains("tail: Some(5)"));
    let json = bench.run(&["events", "-o", "json"]).await.expect(0);
    let numbers: Vec<_> = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [7, 8, 9]);
}

#[tokio::test]
async fn who_follows_a_cluster_that_is_not_there_is_told() {
    let bench = Bench::new(Answers { endless: true, ..story::answers() });
    let run = bench.follow(&["events", "hom", "-f"], 3).await;
    assert!(
        run.err.contains("there is no cluster hom yet") && run.err.contains("the clusters are: home"),
        "{run:?}"
    );
    // It waits all the same, and has shown what there is: the cluster may come.
    assert_eq!(bench.follow(&["events", "home", "-f"], 3).await.err, "");
    assert_eq!(bench.follow(&["events", "-f"], 3).await.err, "");
}

#[tokio::test]
async fn a_reader_that_leaves_ends_it_quietly() {
    let events = (1..20_000).map(|number| k8sctl_proto::control::v1::Event { number, ..Default::default() });
    let bench = Bench::new(Answers { events: events.collect(), ..story::answers() });
    bench.run(&["version"]).await.expect(0);
    let line = format!(
        "{{ {} --socket {} events; echo \"ended $?\" >&2; }} | head -1",
        env!("CARGO_BIN_EXE_k8sctl"),
        bench.path("api.sock").display()
    );
    let output = Command::new("sh").args(["-c", &line]).output().await.unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "ended 141\n");
}

/// As with `logs -f | grep -m1 …`: nothing more may come for hours.
#[tokio::test]
async fn whoever_follows_ends_with_its_reader() {
    for args in ["events -f", "logs -f", "status -w"] {
        let bench = Bench::new(Answers { endless: true, ..story::answers() });
        bench.run(&["version"]).await.expect(0);
        let line = format!(
            "{{ {} --socket {} {args}; echo \"ended $?\" >&2; }} | head -1",
            env!("CARGO_BIN_EXE_k8sctl"),
            bench.path("api.sock").display()
        );
        let output = timeout(DEADLINE, Command::new("sh").args(["-c", &line]).output()).await;
        let output = output.unwrap_or_else(|_| panic!("{args} goes on")).unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "ended 141\n", "{args}");
    }
}

#[tokio::test]
async fn kubeconfig_is_printed_or_merged_beside_others() {
    let bench = bench();
    let printed = bench.run(&["kubeconfig", "--print"]).await.expect(0);
    assert!(printed.contains("current-context: k8s-myhome-home"), "{printed}");
    let document = bench.json(&["kubeconfig", "--print"]).await;
    assert_eq!(document["current-context"], "k8s-myhome-home");
    assert_eq!(document["users"][0]["name"], "k8s-myhome-home");
    assert!(!bench.path(".kube").exists());
    let theirs = "current-context: work\ncontexts: [{name: work, context: {cluster: c, user: u}}]\n";
    std::fs::create_dir(bench.path(".kube")).unwrap();
    bench.file(".kube/config", theirs);
    let out = bench.run(&["kubeconfig"]).await.expect(0);
    assert!(out.contains("your current context stays"), "{out}");
    let merged: Value =
        serde_yaml_ng::from_str(&std::fs::read_to_string(bench.path(".kube/config")).unwrap()).unwrap();
    assert_eq!(
        (&merged["current-context"], &merged["contexts"][0]["name"]),
        (&"work".into(), &"work".into())
    );
    assert_eq!(merged["contexts"][1]["name"], "k8s-myhome-home");
    assert_eq!(bench.json(&["kubeconfig", "--force-context"]).await["current"], true);
    let help = bench.run(&["bundle", "fetch", "-h"]).await.expect(0);
    assert!(help.contains("v1.29 to v1.36"), "{help}");
}

#[tokio::test]
async fn doctor_ends_badly_only_where_something_failed() {
    let bench = bench();
    let out = bench.run(&["doctor"]).await.expect(0);
    assert!(out.contains("! kvm") && out.contains("next: turn on virtualisation"), "{out}");
    bench.fake.answers.lock().unwrap().checks.push(story::failed_check());
    let out = bench.run(&["doctor"]).await.expect(1);
    assert!(out.contains("✗ libvirtd-running") && out.contains("1 check(s) failed"), "{out}");
}

#[tokio::test]
async fn bundles() {
    let bench = bench();
    let out = bench.run(&["bundle", "list"]).await.expect(0);
    assert!(out.contains("kubernetes-v1.29.0-x86_64") && out.contains("500.0 MiB"), "{out}");
    let help = bench.run(&["bundle", "fetch", "--help"]).await.expect(0);
    assert!(help.contains(&format!("[default: {}]", host_artifacts::fetch::DEFAULT_RELEASE)), "{help}");
    let out = bench.run(&["bundle", "fetch", "--kubernetes", "v1.29.0"]).await.expect(0);
    assert!(out.lines().count() < 10 && out.contains("fetched kubernetes-v1.29.0"), "{out}");
    let file = bench.file("x.k8sbundle", "no bundle");
    let out = bench.run(&["bundle", "import", &file]).await.expect(0);
    assert!(out.contains("imported"), "{out}");
    bench.run(&["bundle", "inspect", &file]).await.fails(1, &["error BUNDLE-", "next: "]);
    bench.run(&["bundle", "verify", &file]).await.fails(1, &["error BUNDLE-", "next: "]);
}

#[tokio::test]
async fn images() {
    let bench = bench();
    let out = bench.run(&["image", "list"]).await.expect(0);
    assert!(out.contains("abababababab ") && out.contains("1d1h"), "{out}");
    let out = bench.run(&["image", "build", "--suite", "bookworm"]).await.expect(0);
    assert!(out.contains("importing container images") && out.contains("image abababababab"), "{out}");
    assert!(bench.calls().contains("refresh: false"));
    bench.run(&["image", "build", "--refresh"]).await.expect(0);
    assert!(bench.calls().contains("refresh: true"));
    let home = include_str!("../../examples/home.toml");
    let text = home
        .replace("# kubernetes", "kubernetes")
        .replace("# [image]\n# suite = \"bookworm\"", "[image]\nsuite = \"trixie\"");
    let file = bench.file("pinned.toml", &text);
    bench.run(&["image", "build", "-f", &file]).await.expect(0);
    let request = "suite: \"trixie\", debug_unit: false, kubernetes_version: \"v1.29.0\", refresh: false }";
    assert!(bench.calls().contains(request), "{}", bench.calls());
    bench.run(&["image", "build", "-f", &file, "--suite", "bookworm"]).await.fails(2, &["--suite"]);
    let out = bench.run(&["image", "remove", "abab"]).await.expect(0);
    assert!(out.contains(&"ab".repeat(32)), "{out}");
    assert_eq!(bench.json(&["image", "remove", "abab"]).await["image"], "ab".repeat(32));
    assert!(bench.calls().contains("RemoveImageRequest { id: \"abab\" }"));
}

/// Programs read standard output only, whatever went wrong; people are told as ever.
#[tokio::test]
async fn a_wrong_command_line_is_a_document_too() {
    let bench = bench();
    for args in [
        ["status", "--nosuch", "-o", "json"].as_slice(),
        &["-o", "json", "nosuch"],
        &["logs", "--tail", "x", "-ojson"],
        &["bundle", "--output=json"],
        &["up", "--deadline", "0s", "--output", "json"],
    ] {
        let run = bench.run(args).await.fails(2, &["error: ", "--help"]);
        let document: Value =
            serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        assert_eq!(document["error"]["id"], "HOST-USAGE", "{run:?}");
        assert!(!document["error"]["reason"].as_str().unwrap().is_empty(), "{run:?}");
    }
    let run = bench.run(&["status", "--nosuch", "-o", "yaml"]).await.fails(2, &["--nosuch"]);
    assert!(run.out.starts_with("error:\n  id: HOST-USAGE\n"), "{run:?}");
    assert_eq!(bench.run(&["status", "--nosuch"]).await.fails(2, &["--nosuch"]).out, "");
    let help = bench.run(&["up", "--help", "-o", "json"]).await.expect(0);
    assert!(help.starts_with("Make the cluster"), "{help}");
}

/// A variable that is not set must not become: the only cluster, the newest release, whichever bundle.
#[tokio::test]
async fn an_empty_name_is_none() {
    let bench = bench();
    for args in [
        ["down", "", "--yes"].as_slice(),
        &["status", ""],
        &["events", ""],
        &["events", "--node", ""],
        &["health", ""],
        &["node", "describe", ""],
        &["node", "describe", "k8s-worker-1", "--cluster", ""],
        &["kubeconfig", ""],
        &["logs", ""],
        &["logs", "k8s-worker-1", "--cluster", ""],
        &["bundle", "fetch", "--kubernetes", ""],
        &["image", "build", "--bundle="],
        &["image", "build", "--suite", ""],
        &["image", "remove", ""],
        &["plugin", "add", "", "--yes"],
        &["plugin", "add", "hello", "--cluster", "", "--yes"],
        &["plugin", "list", "--cluster", ""],
        &["plugin", "remove", ""],
        &["plugin", "remove", "hello", "--cluster", ""],
        &["plugin", "upgrade", ""],
        &["plugin", "status", "--cluster", ""],
        &["plugin", "test", ".", "--cluster", ""],
        &["plugin", "verify", ""],
        &["plugin", "new", ""],
    ] {
        bench.run(args).await.fails(2, &["error: ", "a value is required", "--help"]);
    }
    assert!(bench.calls().is_empty(), "{}", bench.calls());
}

/// The host agent is told a path as text: another file than the one that is meant must not be it.
#[tokio::test]
async fn a_path_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let bench = bench();
    let path = bench.dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.k8sbundle"));
    std::fs::write(&path, "").unwrap();
    // The server must listen before a command that is not run by the bench.
    while !bench.path("api.sock").exists() {
        tokio::task::yield_now().await;
    }
    let mut command = bench.command(&["bundle", "import"]);
    command.arg(&path);
    finish(command).await.fails(1, &["error BUNDLE-UNREADABLE", "not UTF-8", "next: "]);
    assert!(bench.calls().is_empty(), "{}", bench.calls());
}

#[tokio::test]
async fn refusals_have_their_exit_codes() {
    let failure = |id| Failure::new(id, "method Apply", "needs the role operator", "ask an admin");
    let denied = Bench::failing(Code::PermissionDenied, failure("AUTH-ROLE"));
    denied
        .run(&["events"])
        .await
        .fails(5, &["error AUTH-ROLE: method Apply: needs the role operator\nnext: ask an admin"]);
    let failed = Bench::failing(Code::FailedPrecondition, failure("HOST-X"));
    failed.run(&["image", "list"]).await.fails(1, &["error HOST-X"]);
}

#[tokio::test]
async fn what_needs_no_host_agent_works_without() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &'static [&'static str]| {
        let mut command = bare(dir.path());
        command.args(["--socket", "/no/such/socket"]).args(args);
        finish(command)
    };
    for shell in ["bash", "zsh", "fish"] {
        let mut command = bare(dir.path());
        command.args(["completion", shell]);
        let script = finish(command).await.expect(0);
        for word in ["kubeconfig", "describe", "health", "StepFailed"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert!(run(&["version"]).await.expect(0).contains("host agent  - (no host agent answers"));
    assert!(!run(&["version", "--client"]).await.expect(0).contains("host agent"));
    assert!(run(&["help", "exit-codes"]).await.expect(0).contains("consent is missing"));
    assert!(run(&["help", "up"]).await.expect(0).contains("--deadline"));
    assert!(run(&["health", "--help"]).await.expect(0).contains("9 waited in vain"));
    run(&["frobnicate"]).await.fails(2, &["frobnicate"]);
    run(&["status"]).await.fails(4, &["error HOST-AGENT-UNREACHABLE: socket /no/such/socket"]);
}

#[tokio::test]
async fn versions_of_both() {
    let bench = bench();
    let versions = bench.json(&["version"]).await;
    assert_eq!(
        (&versions["host_agent"]["version"], &versions["k8sctl"]["protocol"]),
        (&"9.9.9".into(), &1.into())
    );
}

#[tokio::test]
async fn what_cannot_be_used_is_a_row_with_what_is_wrong() {
    let problem = |id: &str, object: &str| {
        Some(k8sctl_proto::control::v1::Failure {
            id: id.to_owned(),
            object: object.to_owned(),
            ..story::failure()
        })
    };
    let mut answers = story::answers();
    answers.bundles = vec![Bundle {
        path: "/bundles/b.k8sbundle".to_owned(),
        problem: problem("BUNDLE-CORRUPT", "bundle /bundles/b.k8sbundle"),
        ..Bundle::default()
    }];
    answers.images[0].problem = problem("IMAGE-DAMAGED", "image abab");
    let bench = Bench::new(answers);
    let out = bench.run(&["bundle", "list"]).await.expect(0);
    assert!(
        out.contains("broken") && out.contains("warning BUNDLE-CORRUPT: bundle /bundles/b.k8sbundle: "),
        "{out}"
    );
    assert!(!out.contains("no bundle is installed"), "{out}");
    let out = bench.run(&["image", "list"]).await.expect(0);
    assert!(
        out.contains("abababababab ") && out.contains("damaged") && out.contains("warning IMAGE-DAMAGED"),
        "{out}"
    );
    let bundles = bench.json(&["bundle", "list"]).await;
    assert_eq!(bundles[0]["problem"]["id"], "BUNDLE-CORRUPT");
    assert_eq!(bench.json(&["image", "list"]).await[0]["problem"]["object"], "image abab");
}

#[tokio::test]
async fn a_failure_is_a_document_for_programs() {
    let failure =
        Failure::new("HOST-BUSY", "host agent", "too much at once", "try again").with_evidence("a line");
    let bench = Bench::failing(Code::Unavailable, failure);
    let run = bench.run(&["image", "list", "-o", "json"]).await;
    let document: Value = serde_json::from_str(&run.out).unwrap();
    let expected = serde_json::json!({"error": {"id": "HOST-BUSY", "object": "host agent",
        "reason": "too much at once", "next_step": "try again", "evidence": "a line"}});
    assert_eq!(document, expected);
    run.fails(1, &["error HOST-BUSY: host agent: too much at once", "next: try again"]);
    let run = bench.run(&["image", "list", "-o", "yaml"]).await;
    assert!(run.out.starts_with("error:\n  id: HOST-BUSY\n"), "{}", run.out);
    let run = bench.run(&["image", "list"]).await;
    assert_eq!(run.out, "");
}
