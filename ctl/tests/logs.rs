//! `k8sctl logs` of the real binary against the fake host agent.

#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test looks at the exit status and the output of the program itself"
)]

mod fake;
mod harness;

use std::process::Stdio;
use std::time::Duration;

use fake::{Answers, story};
use harness::{Bench, finish};
use k8sctl_proto::control::v1::{ClusterLogLine, LogNotice};
use k8sctl_proto::node::v1::LogLine;
use k8sctl_types::failure::Failure;
use serde_json::Value;
use tokio::process::Command;
use tonic::Code;

fn bench() -> Bench {
    Bench::new(story::answers())
}

fn documents(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn lines_have_their_node_unless_it_was_named_alone() {
    let bench = bench();
    let all = bench.run(&["logs"]).await.expect(0);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 3, "{all}");
    assert!(lines[0].ends_with("Z k8s-worker-1 kubelet    started"), "{all}");
    assert!(lines[1].ends_with(" k8s-worker-2 kubelet    (late) started late"), "{all}");
    assert!(lines[0].starts_with("20") && lines[0].contains(".500Z "), "{all}");
    let one = bench.run(&["logs", "k8s-worker-1", "--timestamps=false"]).await.expect(0);
    assert!(one.starts_with("kubelet    started\n"), "{one}");
    assert_eq!(bench.run(&["logs", "--timestamps"]).await.expect(0), all);
}

#[tokio::test]
async fn every_flag_reaches_the_host_agent() {
    let bench = bench();
    let args = "logs a b --source kubelet,controller-manager --unit x --unit y.mount --pod default/web --container app \
                --tail 3 --since 2026-11-24T10:00:00Z --until 2026-11-24T11:00:00.5Z --grep fail -o json";
    bench.run(&args.split_whitespace().collect::<Vec<_>>()).await.expect(0);
    let calls = bench.calls();
    for part in [
        "node_names: [\"a\", \"b\"]",
        "sources: [Kubelet, ControllerManager], follow: false, tail: Some(3)",
        "units: [\"x\", \"y.mount\"]",
        "pods: [PodLogs { namespace: \"default\", name: \"web\", container: \"app\" }]",
        "since: Some(Timestamp { seconds: 1795514400, nanos: 0 })",
        "until: Some(Timestamp { seconds: 1795518000, nanos: 500000000 })",
        "grep: \"fail\"",
        "positions: []",
    ] {
        assert!(calls.contains(part), "{part} is not in {calls}");
    }
}

#[tokio::test]
async fn times_of_here_are_times_of_here() {
    let bench = bench();
    bench.run(&["version"]).await.expect(0);
    let mut command = bench.command(&["logs", "--since", "2026-11-24 10:00"]);
    command.env("TZ", "UTC-2");
    finish(command).await.expect(0);
    assert!(
        bench.calls().contains("since: Some(Timestamp { seconds: 1795507200, nanos: 0 })"),
        "{}",
        bench.calls()
    );
    for (args, said) in [
        (["logs", "--since", "soon"], "write it like 10m, 2h, 1d"),
        (["logs", "--until", "25:00"], "write it like 10m"),
        (["logs", "--pod", "web"], "write it as NAMESPACE/NAME"),
        (["logs", "--container", "app"], "--pod"),
        (["logs", "--source", "nosuch"], "etcd"),
        (["logs", "--tail", "-1"], "-1"),
    ] {
        bench.run(&args).await.fails(2, &["error: ", said]);
    }
}

#[tokio::test]
async fn lines_go_as_they_are_into_a_pipe_and_visible_to_a_terminal() {
    let bench = bench();
    let out = bench.run(&["logs", "k8s-worker-1"]).await.expect(0);
    assert!(out.contains("evil \x1b[31mred"), "{out:?}");
    let json = documents(&bench.run(&["logs", "-o", "json"]).await.expect(0));
    assert_eq!(json.last().unwrap()["text"], "evil \x1b[31mred");
    let keys: Vec<&String> = json[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["late", "node", "source", "text", "time"]);
    assert_eq!((&json[1]["late"], &json[1]["node"]), (&Value::from(true), &Value::from("k8s-worker-2")));
    let yaml = bench.run(&["logs", "-o", "yaml"]).await.expect(0);
    assert_eq!(yaml.matches("---\n").count(), 3, "{yaml}");
    let (_, seen) = in_a_terminal(&bench, "logs", &[]).await;
    assert!(seen.contains("evil \\x1b[31mred"), "{seen:?}");
}

/// What a verb shows in a terminal with this environment, and its exit code.
async fn in_a_terminal(bench: &Bench, verb: &str, set: &[(&str, &str)]) -> (Option<i32>, String) {
    let line =
        format!("{} --socket {} {verb}", env!("CARGO_BIN_EXE_k8sctl"), bench.path("api.sock").display());
    // `script` gives it a terminal.
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env_remove("NO_COLOR").envs(set.iter().copied());
    let output = script.output().await.unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn a_terminal_gets_colours_only_where_it_can_and_is_wanted() {
    let bench = bench();
    bench.run(&["version"]).await.expect(0);
    let (xterm, dumb) = (("TERM", "xterm-256color"), ("TERM", "dumb"));
    let (code, coloured) = in_a_terminal(&bench, "logs", &[xterm]).await;
    assert!(code == Some(0) && coloured.contains("\x1b[36m"), "{coloured:?}");
    for set in [&[dumb][..], &[xterm, ("NO_COLOR", "1")]] {
        for verb in ["logs", "logs -o json", "logs -o yaml", "events", "status", "health"] {
            let (code, seen) = in_a_terminal(&bench, verb, set).await;
            assert!(code == Some(0) && !seen.contains('\x1b'), "{verb} {set:?}: {seen:?}");
        }
        let (_, seen) = in_a_terminal(&bench, "logs", set).await;
        assert!(seen.contains("evil \\x1b[31mred"), "{set:?}: {seen:?}");
    }
    let (code, seen) = in_a_terminal(&bench, "status -w", &[dumb]).await;
    assert!(code == Some(0) && !seen.contains('\x1b') && seen.contains("k8s-worker-1"), "{seen:?}");
    let (code, seen) = in_a_terminal(&bench, "dashboard", &[dumb]).await;
    assert!(code == Some(2) && seen.contains("TERM is dumb"), "{seen:?}");
    assert!(seen.contains("status -w; or in a browser, with --web") && !seen.contains('\x1b'), "{seen:?}");
}

#[tokio::test]
async fn notices_go_to_standard_error() {
    let notice =
        LogNotice { node_name: "k8s-worker-2".to_owned(), message: "its agent went away\x1b[2J".to_owned() };
    let bench = Bench::new(Answers { log_notices: vec![notice], ..story::answers() });
    let run = bench.run(&["logs", "-o", "json"]).await;
    assert!(run.err.contains("k8s-worker-2: its agent went away\\x1b[2J\n"), "{run:?}");
    assert_eq!(documents(&run.expect(0)).len(), 3);
}

#[tokio::test]
async fn a_follower_goes_on_where_it_was_when_the_host_agent_comes_back() {
    for lost in 0..3 {
        let bench = Bench::new(Answers { logs_lost_after: Some(lost), ..story::answers() });
        let run = bench.run(&["logs", "-f", "-o", "json"]).await;
        assert_eq!(
            run.err.matches("the host agent went away; trying to reach it again").count(),
            1,
            "{run:?}"
        );
        let texts: Vec<String> =
            documents(&run.expect(0)).iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect();
        assert_eq!(texts, ["started", "started late", "evil \x1b[31mred"], "lost after {lost}");
    }
    let bench = Bench::new(Answers { logs_lost_after: Some(2), ..story::answers() });
    bench.run(&["logs", "-f"]).await.expect(0);
    let position = "LogPosition { node_name: \"k8s-worker-2\", cursor: \"2\" }";
    assert!(bench.calls().contains(position), "{}", bench.calls());
    // A node that was away all the time is read from where following began, not from its last lines.
    for (until, goes_on) in [("2100-01-01T00:00:00Z", true), ("2026-11-24T11:00:00Z", false)] {
        let bench = Bench::new(Answers { logs_lost_after: Some(2), ..story::answers() });
        bench.run(&["logs", "-f", "--tail", "3", "--until", until]).await.expect(0);
        let calls = bench.calls();
        let requests: Vec<&str> = calls.split("StreamLogsRequest").skip(1).collect();
        let [first, again] = requests[..] else { panic!("{calls}") };
        assert!(first.contains("tail: Some(3)") && first.contains("since: None"), "{first}");
        let is_from_the_beginning = again.contains("tail: None") && again.contains("since: Some(");
        assert_eq!(is_from_the_beginning, goes_on, "{again}");
    }
    // Who does not follow is told.
    let bench = Bench::new(Answers { logs_lost_after: Some(1), ..story::answers() });
    bench.run(&["logs"]).await.fails(4, &["error HOST-AGENT-LOST"]);
}

#[tokio::test]
async fn who_reads_slowly_loses_nothing() {
    let keepalive = Duration::from_secs(2);
    // Far more than is on its way at once.
    let line = |number: usize| ClusterLogLine {
        node_name: "a".to_owned(),
        line: Some(LogLine { text: format!("{number} {}", "x".repeat(4096)), ..LogLine::default() }),
        late: false,
    };
    let logs = (0..500).map(line).collect();
    let bench = Bench::new(Answers { logs, keepalive: Some(keepalive), ..story::answers() });
    bench.run(&["version"]).await.expect(0);
    let mut command = bench.command(&["logs", "--timestamps=false"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A pager whose user reads the first page.
    tokio::time::sleep(3 * keepalive).await;
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 500);
}

#[tokio::test]
async fn refusals_are_failures() {
    let failure = Failure::new("NODE-LOGS-REQUEST", "--grep", "unclosed group, at character 2", "mend it")
        .with_evidence("a(\n ^");
    let bench = Bench::failing(Code::FailedPrecondition, failure);
    let run = bench.run(&["logs", "--cluster", "home", "--grep", "a("]).await;
    run.fails(1, &["error NODE-LOGS-REQUEST: --grep: unclosed group", "  | a(\n  |  ^\n", "next: mend it"]);
    // A mistake of the host agent's own is no lost connection: who follows is told of it too.
    let failure = Failure::new("HOST-INTERNAL", "node a", "the reading of it broke off", "read it again");
    let bench = Bench::failing(Code::Internal, failure);
    for args in [&["logs", "--cluster", "home"][..], &["logs", "--cluster", "home", "-f"]] {
        let said = ["error HOST-INTERNAL: node a: the reading of it broke off", "next: read it again"];
        bench.run(args).await.fails(1, &said);
    }
}
