//! `k8sctl dashboard` of the real binary against the fake host agent: in a terminal, and as a browser sees it.

#![allow(clippy::unwrap_used)]

mod fake;
mod harness;

use std::io::{Read as _, Write as _};

use fake::{Answers, story};
use harness::{Bench, DEADLINE, send, terminal};
use k8sctl_types::failure::Failure;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;

fn lively() -> Answers {
    Answers { endless: true, ..story::answers() }
}

#[tokio::test]
async fn off_a_terminal_it_says_what_to_use() {
    let bench = Bench::new(lively());
    bench.run(&["dashboard"]).await.fails(2, &["error HOST-TERMINAL: dashboard", "with: k8sctl status -w;"]);
    let named = bench.run(&["dashboard", "home"]).await;
    named.fails(2, &["k8sctl status -w home"]);
    let json = bench.run(&["dashboard", "-o", "json"]).await.fails(2, &["k8sctl status -w -o json"]);
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(document["error"]["id"], "HOST-TERMINAL");
    assert!(bench.calls().is_empty(), "{}", bench.calls());
    bench.run(&["dashboard", "--port", "8080"]).await.fails(2, &["--web"]);
    bench.run(&["dashboard", "--web", "--port", "0"]).await.fails(2, &["--port"]);
}

#[tokio::test]
async fn what_cannot_be_seen_at_all_is_told_at_once() {
    let failure = Failure::new("CLUSTER-UNKNOWN", "cluster den", "there is none", "the clusters are: home");
    let bench = Bench::failing(Code::NotFound, failure);
    bench.run(&["dashboard", "den", "--web"]).await.fails(1, &["error CLUSTER-UNKNOWN: cluster den"]);
    let bench = Bench::new(lively());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    bench.run(&["dashboard", "--web", "--port", &port]).await.fails(1, &["error HOST-PORT: 127.0.0.1:"]);
}

/// What happens to it.
#[derive(Clone, Copy)]
enum End {
    Keys(&'static [u8]),
    Signal(Signal),
    /// Its terminal is gone.
    Gone,
}

/// Runs it in a terminal, ends it when it shows this, and gives the exit code and all that it wrote.
async fn in_a_terminal(bench: &Bench, shows: &str, end: End) -> (Option<i32>, String) {
    bench.listening().await;
    let (mut ours, theirs) = terminal();
    tcsetwinsize(&ours, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let mut command = bench.command_in_a_session(&["dashboard"]);
    command.env("TERM", "xterm-256color").stdin(theirs.try_clone().unwrap());
    command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let mut child = command.spawn().unwrap();
    // It keeps the terminal's other side open.
    drop(command);
    let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    let shows = shows.to_owned();
    let said = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        let mut ended = false;
        // EIO is how the end of a terminal's other side is told.
        while let Ok(count @ 1..) = ours.read(&mut buffer) {
            said.extend_from_slice(&buffer[..count]);
            if !ended && String::from_utf8_lossy(&said).contains(&shows) {
                match end {
                    End::Keys(keys) => ours.write_all(keys).unwrap(),
                    End::Signal(signal) => kill_process(pid, signal).unwrap(),
                    End::Gone => break,
                }
                ended = true;
            }
        }
        String::from_utf8_lossy(&said).into_owned()
    });
    let status = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    (status.code(), said.await.unwrap())
}

const TAKEN: &str = "\x1b[?1049h";
const GIVEN_BACK: &str = "\x1b[?1049l";

#[tokio::test]
async fn in_a_terminal_it_shows_all_and_gives_the_screen_back() {
    let answers = Answers { status: vec![story::troubled_status()], ..lively() };
    for (end, code) in [
        (End::Keys(b"q"), 0),
        (End::Keys(b"\x03"), 130),
        (End::Signal(Signal::TERM), 130),
        (End::Signal(Signal::HUP), 130),
        (End::Signal(Signal::INT), 130),
    ] {
        let bench = Bench::new(answers.clone());
        // The line of a stranger, made visible.
        let (status, said) = in_a_terminal(&bench, "\\x1b[31mred", end).await;
        assert_eq!(status, Some(code), "{said}");
        for text in ["k8s-worker-1", "Disconnected", "hello", "NODE-SILENT"] {
            assert!(said.contains(text), "{text:?} is not in {said:?}");
        }
        assert!(!said.contains("\x1b[31mred") && !said.contains("/var\x1b[2J"), "{said:?}");
        let (taken, given_back) = (said.find(TAKEN), said.rfind(GIVEN_BACK));
        assert!(taken.is_some() && taken < given_back, "{said:?}");
        assert!(said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l"), "the cursor is back: {said:?}");
    }
}

#[tokio::test]
async fn a_terminal_that_is_gone_ends_it() {
    let (status, said) = in_a_terminal(&Bench::new(lively()), "hello", End::Gone).await;
    // It is told of that, or notices it while it draws.
    assert!(matches!(status, Some(130 | 1)), "{status:?}: {said}");
}

async fn get(url: &str) -> TcpStream {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// Reads on until this has come.
async fn until(stream: &mut TcpStream, read: &mut String, text: &str) {
    let more = async {
        while !read.contains(text) {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "it ended: {read}");
            read.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    timeout(DEADLINE, more).await.unwrap_or_else(|_| panic!("{text:?} never came"));
}

#[tokio::test]
async fn a_browser_sees_the_same() {
    let answers = Answers { status: vec![story::troubled_status()], ..lively() };
    let bench = Bench::new(answers);
    let (mut child, url) = bench.served().await;
    assert!(url.starts_with("http://127.0.0.1:") && url.ends_with('/'), "{url}");
    let token = url.trim_end_matches('/').rsplit('/').next().unwrap();
    assert_eq!(token.len(), 64, "{url}");
    let mut page = String::new();
    timeout(DEADLINE, get(&url).await.read_to_string(&mut page)).await.unwrap().unwrap();
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<tbody id=\"nodes\">"), "{page}");
    let mut stranger = String::new();
    let root = url.replace(token, "0");
    timeout(DEADLINE, get(&root).await.read_to_string(&mut stranger)).await.unwrap().unwrap();
    assert!(stranger.starts_with("HTTP/1.1 403 "), "{stranger}");

    let mut live = get(&format!("{url}live")).await;
    let mut read = String::new();
    for text in [
        "\"name\":\"k8s-worker-1\"",
        "not well",
        "NODE-SILENT",
        "up succeeded",
        "evil \\\\x1b[31mred",
        "3 % free on /var\\\\x1b[2J",
    ] {
        until(&mut live, &mut read, text).await;
    }
    assert!(!read.contains('\x1b'), "{read}");
    send(&child, Signal::INT);
    let status = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    // Nobody can do anything: it asked only what a reader may ask.
    let calls = bench.calls();
    let asked = ["ListClusters", "WatchStatus", "WatchOperation", "StreamLogs", "GetVersion"];
    let is_reading = |call: &str| asked.iter().any(|asked| call.starts_with(asked));
    assert!(calls.lines().all(is_reading), "{calls}");
}

#[tokio::test]
async fn what_was_seen_stays_while_the_host_agent_is_away() {
    let answers = Answers { broken_after: Some(1), away: 8, logs_lost_after: Some(1), ..lively() };
    let bench = Bench::new(answers);
    let (mut child, url) = bench.served().await;
    let mut live = get(&format!("{url}live")).await;
    let mut read = String::new();
    until(&mut live, &mut read, "\"old\":\"the host agent does not answer, for ").await;
    until(&mut live, &mut read, "\"text\":\"was well: 3 of 3 nodes Ready\"").await;
    // It is back, and was asked for the lines behind the last one.
    let seen = read.rfind("was well").unwrap();
    while !read[seen..].contains("\"old\":null") {
        let mut more = String::new();
        until(&mut live, &mut more, "event: picture").await;
        read.push_str(&more);
    }
    until(&mut live, &mut read, "evil ").await;
    assert_eq!(read.matches("\"text\":\"started\"").count(), 1, "no line comes twice: {read}");
    child.kill().await.unwrap();
}
