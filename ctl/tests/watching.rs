//! Events, health and the description of a node, of the real binary against the fake host agent; and that `docs/` says
//! what their documents hold.

#![allow(clippy::unwrap_used)]

mod fake;
mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use fake::{Answers, story};
use harness::{Bench, DEADLINE, bare, finish};
use k8sctl_proto::control::v1::Event;
use k8sctl_types::failure::Failure;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;
use tonic::Code;

fn troubled() -> Bench {
    Bench::new(Answers { status: vec![story::troubled_status()], ..story::answers() })
}

#[tokio::test]
async fn events_are_narrowed_by_the_host_agent() {
    let bench = Bench::new(story::answers());
    let args = ["--node", "k8s-worker-1", "--type", "NodeJoined,StepFailed", "--tail", "3"];
    let since = ["--since", "2026-11-28T18:00:00.25+01:00"];
    bench.run(&[&["events", "home"], &args[..], &since].concat()).await.expect(0);
    let asked = "cluster_name: \"home\", from: 0, follow: false, tail: Some(3), since: Some(Timestamp { seconds: \
                 1795885200, nanos: 250000000 }), node_name: \"k8s-worker-1\", types: [\"NodeJoined\", \"StepFailed\"]";
    assert!(bench.calls().contains(asked), "{}", bench.calls());
    bench.run(&["events", "--type", "NodeJoined", "--type", "VMStarted"]).await.expect(0);
    assert!(bench.calls().contains("types: [\"NodeJoined\", \"VMStarted\"]"), "{}", bench.calls());
}

#[tokio::test]
async fn slips_of_the_pen_are_told_with_what_is_meant() {
    let bench = Bench::new(story::answers());
    let slips: [(&[&str], &[&str]); 4] = [
        (&["--since", "9999-01-01"], &["--since", "is in the future: it is"]),
        (&["--since", "soon"], &["--since", "that is no time; write it like 10m, 2h, 1d"]),
        (&["--type", "NodeJoinde"], &["'NodeJoinde'", "possible values: ", "NodeJoined", "RepairGaveUp"]),
        (&["--type", "StepFailed,Nosuch"], &["'Nosuch'"]),
    ];
    for (args, said) in slips {
        let run = bench.run(&[&["events", "-o", "json"], args].concat()).await.fails(2, said);
        let document: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(document["error"]["id"], "HOST-USAGE", "{run:?}");
    }
    assert!(bench.calls().is_empty(), "{}", bench.calls());
    let unknown = Failure::new("NODE-UNKNOWN", "node x", "no cluster has it", "the nodes are: a, b");
    let bench = Bench::failing(Code::FailedPrecondition, unknown);
    bench.run(&["events", "--node", "x"]).await.fails(1, &["error NODE-UNKNOWN: node x", "next: the nodes"]);
}

/// Lines that it prints until they are so many; it goes on then.
async fn first_lines(bench: &Bench, args: &[&str], count: usize) -> Vec<String> {
    while !bench.path("api.sock").exists() {
        tokio::task::yield_now().await;
    }
    let mut child = bench.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = Vec::new();
    let calls = async {
        while read.len() < count {
            read.push(lines.next_line().await.unwrap().unwrap());
        }
        // The second call follows the interruption.
        while bench.calls().lines().count() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, calls).await.unwrap();
    child.kill().await.unwrap();
    // What it printed after the second call, if it did.
    while let Some(line) = lines.next_line().await.unwrap() {
        read.push(line);
    }
    read
}

#[tokio::test]
async fn whoever_follows_events_goes_on_behind_the_last_one() {
    let args = ["events", "-f", "--tail", "5", "--since", "1d", "-o", "json"];
    // After two of three events; and after all of them, and the word that there are no more.
    for (broken_after, again) in [
        (2, "from: 9, follow: true, tail: None, since: Some"),
        (4, "from: 10, follow: true, tail: None, since: None"),
    ] {
        let answers = Answers { broken_after: Some(broken_after), endless: true, ..story::answers() };
        let bench = Bench::new(answers);
        let lines = first_lines(&bench, &args, 3).await;
        let number = |line: &String| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64();
        assert_eq!(lines.iter().map(number).collect::<Vec<_>>(), [Some(7), Some(8), Some(9)]);
        let calls = bench.calls();
        let calls: Vec<&str> = calls.lines().collect();
        assert!(calls[0].contains("from: 0, follow: true, tail: Some(5), since: Some"), "{calls:?}");
        assert!(calls[1].contains(again), "{calls:?}");
    }
}

#[tokio::test]
async fn whoever_leafs_through_events_slowly_misses_none() {
    let keepalive = Duration::from_secs(2);
    // Far more than is on its way at once.
    let message = "x".repeat(4096);
    let event = |number| Event { number, message: message.clone(), ..Event::default() };
    let events = (1..=500).map(event).collect();
    let bench = Bench::new(Answers { events, keepalive: Some(keepalive), ..story::answers() });
    bench.run(&["version"]).await.expect(0);
    let mut command = bench.command(&["events"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A pager whose user reads the first page.
    tokio::time::sleep(3 * keepalive).await;
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 500);
}

#[tokio::test]
async fn health_is_an_exit_code_and_says_what_is_wrong() {
    let bench = Bench::new(story::answers());
    assert_eq!(bench.run(&["health"]).await.expect(0), "cluster home is well: 3 of 3 nodes Ready\n");
    assert!(bench.calls().contains("watch: false"), "{}", bench.calls());
    let health = bench.json(&["health", "home"]).await;
    assert_eq!((&health["healthy"], &health["problems"]), (&true.into(), &Value::Array(vec![])));

    let bench = troubled();
    let out = bench.run(&["health"]).await.expect(8);
    for text in [
        "note ClusterDNS: the bundle has no CoreDNS\n",
        "cluster home is not well: 3 problems\n",
        "NODE          CONDITION   STATUS  REASON        SINCE  MESSAGE\n",
        "k8s-worker-1  DiskOK      False   Full          1m0",
        "3 % free on /var\\x1b[2J\n",
        "k8s-worker-1  AgentReady  False   NoSession     1m0",
        "-             Ready       False   NotAsDesired  1m0",
    ] {
        assert!(out.contains(text), "{text:?} is not in:\n{out}");
    }
    let run = bench.run(&["health", "-o", "json"]).await;
    let document: Value = serde_json::from_str(&run.expect(8)).unwrap();
    assert_eq!((&document["healthy"], &document["timed_out"]), (&false.into(), &false.into()));
    assert_eq!(document["problems"][0]["condition"], "DiskOK");
    // Nobody has looked yet.
    bench.fake.answers.lock().unwrap().status[0].conditions.clear();
    assert!(bench.run(&["health"]).await.expect(8).contains("Ready      Unknown  NotSeen"));
}

#[tokio::test]
async fn health_without_an_answer_has_the_usual_exit_codes() {
    let failure = Failure::new("CLUSTER-UNKNOWN", "cluster den", "there is none", "the clusters are: home");
    let bench = Bench::failing(Code::FailedPrecondition, failure);
    for args in [&["health", "den"][..], &["health", "den", "--wait"]] {
        bench.run(args).await.fails(1, &["error CLUSTER-UNKNOWN"]);
    }
    bench.run(&["health", "--timeout", "5m"]).await.fails(2, &["--wait"]);
    bench.run(&["health", "--wait", "--timeout", "0s"]).await.fails(2, &["no time at all"]);
    let dir = tempfile::tempdir().unwrap();
    let mut command = bare(dir.path());
    command.args(["--socket", "/no/such/socket", "health", "--wait"]);
    finish(command).await.fails(4, &["HOST-AGENT-UNREACHABLE"]);
    // One that hangs does not hold up who waits so long and no longer.
    let socket = dir.path().join("api.sock");
    let _hangs = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for name in [&["home"][..], &[]] {
        let mut command = bare(dir.path());
        command.args(["--socket", &socket.display().to_string(), "health", "--wait", "--timeout", "1s"]);
        command.args(name);
        let began = std::time::Instant::now();
        let out = finish(command).await.expect(9);
        let whose = if name.is_empty() { "the cluster" } else { "cluster home" };
        assert!(out.contains(&format!("{whose} is not well after 1s: 1 problem\n")), "{out}");
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn waiting_for_health_goes_on_through_restarts_of_the_host_agent() {
    let status = vec![story::troubled_status(), story::status()];
    let answers = Answers { status, broken_after: Some(1), away: 1, ..story::answers() };
    let bench = Bench::new(answers);
    let run = bench.run(&["health", "--wait", "--timeout", "60s"]).await;
    for text in
        ["waiting for HostAgent=Unknown (Away)\n", "waiting for node k8s-worker-1: DiskOK=False (Full)\n"]
    {
        assert!(run.err.contains(text), "{text:?} is not in:\n{}", run.err);
    }
    assert_eq!(run.err.lines().count(), 2, "what is no news is not told: {}", run.err);
    assert!(run.expect(0).contains("is well: 3 of 3"));
    let watches = bench.calls().lines().filter(|call| call.contains("watch: true")).count();
    assert_eq!(watches, 3, "nobody, an end, and all is well: {}", bench.calls());
}

#[tokio::test]
async fn waiting_in_vain_ends_in_time() {
    let bench = troubled();
    bench.fake.answers.lock().unwrap().endless = true;
    let out = bench.run(&["health", "-w", "--timeout", "1s"]).await.expect(9);
    assert!(out.contains("cluster home is not well after 1s: 3 problems"), "{out}");
    let run = bench.run(&["health", "--wait", "--timeout", "2s", "-o", "json"]).await;
    let document: Value = serde_json::from_str(&run.expect(9)).unwrap();
    assert_eq!(
        (&document["timed_out"], &document["problems"][0]["node"]),
        (&true.into(), &"k8s-worker-1".into())
    );
}

#[tokio::test]
async fn a_node_is_described_with_all_that_is_known() {
    let bench = troubled();
    let out = bench.run(&["node", "describe", "k8s-worker-1"]).await.expect(0);
    for text in [
        "node       k8s-worker-1\n",
        "role       worker\n",
        "VM         running, for 1h06m\n",
        "phase      Disconnected: its agent has no session\n",
        "seen 1m1",
        ", version 0.1.0, first session 1h06m ago\n",
        "machine    2 CPUs, 4.0 GiB of memory, 30.0 GiB of disk\n",
        "system     Debian GNU/Linux 12, kernel 6.1.0-41-amd64, hostname k8s-worker-1\n",
        "boot       7.2 s from power-on to the agent\n",
        "DiskOK        False    Full       1m0",
        "kubeadm     failed  3      12s   kubeadm join failed\n",
        "What failed in kubeadm\n$ kubeadm join\n  | [preflight] no\\x1b[2J\n  | -- journal --\n  | kubelet says\nexit status 1\n",
        "17      gave-up   2m0",
        "it does not run; restarted containerd.service\n",
        "it does not run; rests until 19:00\\x1b[2J\n",
        "Last events\n",
        "!StepFailed",
    ] {
        assert!(out.contains(text), "{text:?} is not in:\n{out}");
    }
    let asked = "cluster_name: \"home\", from: 0, follow: false, tail: Some(10), since: None, node_name: \"k8s-worker-1\"";
    assert!(bench.calls().contains(asked), "{}", bench.calls());
    let well = bench.run(&["node", "describe", "k8s-worker-2", "--cluster", "home"]).await.expect(0);
    assert!(well.contains("connected, version") && !well.contains("Repairs\n"), "{well}");
    let said = ["error NODE-UNKNOWN: node k8s-worker-7", "k8s-control-plane-1, k8s-worker-1, k8s-worker-2"];
    bench.run(&["node", "describe", "k8s-worker-7"]).await.fails(1, &said);
    let yaml = bench.run(&["node", "describe", "k8s-worker-1", "-o", "yaml"]).await.expect(0);
    let document = bench.json(&["node", "describe", "k8s-worker-1"]).await;
    assert_eq!(
        serde_yaml_ng::from_str::<Value>(&yaml).unwrap()["node"]["repairs"],
        document["node"]["repairs"]
    );
}

/// Fields by where they are: of the document itself, and of everything in it that has fields.
fn fields(value: &Value, place: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(object) => {
            let here = if place.is_empty() { "document" } else { place };
            found.entry(here.to_owned()).or_default().extend(object.keys().cloned());
            let dot = if place.is_empty() { "" } else { "." };
            object.iter().for_each(|(name, value)| fields(value, &format!("{place}{dot}{name}"), found));
        }
        Value::Array(all) => all.iter().for_each(|one| fields(one, &format!("{place}[]"), found)),
        _ => {}
    }
}

/// The table below a heading of a page, in the same form.
fn documented(page: &str, heading: &str) -> BTreeMap<String, BTreeSet<String>> {
    let section = page.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no {heading:?}"));
    let section = section.split("\n#").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let names = cells[1].split(", ").map(|name| name.trim_matches('`').to_owned());
        (cells[0].trim_matches('`').to_owned(), names.collect())
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn the_pages_have_every_field() {
    let (health, events) = (include_str!("../../docs/health.md"), include_str!("../../docs/events.md"));
    let bench = troubled();
    let mut last = BTreeMap::new();
    for (page, heading, args) in [
        (health, "### `health -o json`", &["health"][..]),
        (health, "### `node describe -o json`", &["node", "describe", "k8s-worker-1"]),
        (health, "### `status -o json`", &["status"]),
        (events, "## For programs", &["events", "--tail", "1"]),
    ] {
        let run = bench.run(&[args, &["-o", "json"]].concat()).await;
        let mut found = BTreeMap::new();
        // Events are a document a line, all others one document.
        let documents = serde_json::Deserializer::from_str(&run.out).into_iter::<Value>();
        documents.for_each(|document| fields(&document.unwrap(), "", &mut found));
        // One node is documented at its own verb.
        let nodes = found.remove("nodes[]");
        found.retain(|place, _| !place.starts_with("nodes[]."));
        assert_eq!(documented(page, heading), found, "{heading}");
        if let Some(nodes) = nodes {
            assert_eq!(last.get("node"), Some(&nodes), "{heading}");
        }
        last = found;
    }
}
