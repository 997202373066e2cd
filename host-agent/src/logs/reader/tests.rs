//! Readers of fake nodes, whose agents die and come back, and whose logs are lists of numbered lines.

mod cut_off;
mod missing;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8sctl_proto::control::v1::NodeStatus;
use k8sctl_proto::node::v1::{Hello, LogUnknown, StartLogStream, log_unknown};
use k8sctl_rpc::status::failure_from;
use tokio::time::{sleep, timeout};

use super::*;
use crate::nodes::changes::changes;
use crate::nodes::registry::{LogLost, LogSender, SessionGuard};

const SECOND: Micros = 1_000_000;

/// An agent with a log.
struct FakeNode {
    registry: Arc<NodeRegistry>,
    name: &'static str,
    lines: Mutex<Vec<LogLine>>,
    written: watch::Sender<()>,
    /// Lines in one frame.
    frame: usize,
    /// Before each frame.
    pause: Duration,
    /// It dies with every so-manieth frame.
    dies_every: usize,
    frames: AtomicUsize,
    deaths: watch::Sender<()>,
    unknown: Vec<LogUnknown>,
    error: String,
    asked: Mutex<Vec<LogSelector>>,
}

impl FakeNode {
    fn new(registry: &Arc<NodeRegistry>, name: &'static str) -> Self {
        Self {
            registry: Arc::clone(registry),
            name,
            lines: Mutex::default(),
            written: watch::Sender::new(()),
            frame: 100,
            pause: Duration::ZERO,
            dies_every: usize::MAX,
            frames: AtomicUsize::new(0),
            deaths: watch::Sender::new(()),
            unknown: Vec::new(),
            error: String::new(),
            asked: Mutex::default(),
        }
    }

    /// Its VM and its agent run.
    fn start(self) -> Arc<Self> {
        let node = Arc::new(self);
        k8sctl_rpc::task::spawn("fake-node", Arc::clone(&node).live());
        node
    }

    fn write(&self, time: Micros, text: impl Into<String>) {
        let line = LogLine { time: Some(stamp(time)), source: "kubelet".to_owned(), text: text.into() };
        self.lines.lock().expect("lock").push(line);
        self.written.send_replace(());
    }

    async fn live(self: Arc<Self>) {
        loop {
            let mut deaths = self.deaths.subscribe();
            let mut session = self.registry.open_session(self.name, Hello::default());
            let mut pushes = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(start) = session.log_requests.recv() => pushes.push(self.push(*start, deaths.clone())),
                    Some(()) = pushes.next() => {}
                    _ = deaths.changed() => break,
                }
            }
            while pushes.next().await.is_some() {}
            drop(session);
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn push(&self, start: StartLogStream, mut deaths: watch::Receiver<()>) {
        let Some(sender) = self.registry.claim_logs(self.name, &start.stream_id) else { return };
        let selector = start.selector.unwrap_or_default();
        self.asked.lock().expect("lock").push(selector.clone());
        tokio::select! {
            biased;
            _ = deaths.changed() => {
                let _ = sender.send(Err(LogLost("its agent went away".to_owned()))).await;
            }
            () = self.produce(selector, &sender) => {}
        }
    }

    async fn send(&self, sender: &LogSender, frame: LogFrame) -> bool {
        sleep(self.pause).await;
        if sender.send(Ok(frame)).await.is_err() {
            return false;
        }
        let sent = self.frames.fetch_add(1, Ordering::SeqCst) + 1;
        if sent.is_multiple_of(self.dies_every) {
            self.deaths.send_replace(());
        }
        true
    }

    async fn produce(&self, selector: LogSelector, sender: &LogSender) {
        if !self.error.is_empty() {
            self.send(sender, LogFrame { error: self.error.clone(), ..LogFrame::default() }).await;
            return;
        }
        if !self.unknown.is_empty() {
            self.send(sender, LogFrame { unknown: self.unknown.clone(), ..LogFrame::default() }).await;
        }
        let length = || self.lines.lock().expect("lock").len();
        let tail = selector.tail.map_or(0, |tail| length().saturating_sub(tail as usize));
        let mut next = selector.after_cursor.parse().unwrap_or(tail);
        let mut written = self.written.subscribe();
        let mut is_live = false;
        if !self.send(sender, LogFrame { cursor: next.to_string(), ..LogFrame::default() }).await {
            return;
        }
        loop {
            written.borrow_and_update();
            let lines: Vec<LogLine> =
                self.lines.lock().expect("lock").iter().skip(next).take(self.frame).cloned().collect();
            next += lines.len();
            let is_end = lines.is_empty();
            let caught_up = is_end && !std::mem::replace(&mut is_live, is_end);
            let frame = LogFrame { lines, cursor: next.to_string(), caught_up, ..LogFrame::default() };
            if is_end && !selector.follow {
                self.send(sender, whole()).await;
                return;
            }
            if (!is_end || caught_up) && !self.send(sender, frame).await {
                return;
            }
            if is_end && written.changed().await.is_err() {
                return;
            }
        }
    }
}

/// What the agent says behind all lines.
fn whole() -> LogFrame {
    LogFrame { whole: true, ..LogFrame::default() }
}

fn stamp(time: Micros) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.rem_euclid(SECOND) * 1_000).expect("it fits");
    prost_types::Timestamp { seconds: time.div_euclid(SECOND), nanos }
}

fn registry() -> Arc<NodeRegistry> {
    NodeRegistry::new(changes().0)
}

async fn connected(registry: &NodeRegistry, names: &[&str]) {
    let mut version = registry.version();
    while !names.iter().all(|name| registry.is_connected(name) == Some(true)) {
        version.changed().await.expect("it lives");
    }
}

/// What a reader has seen so far, over all its streams.
#[derive(Default)]
struct Reader {
    lines: Vec<ClusterLogLine>,
    positions: BTreeMap<String, Position>,
    notices: Vec<String>,
}

impl Reader {
    /// Reads until it has so many lines in all, or until the end.
    async fn read(&mut self, stream: LogStream, most: usize) -> Option<Failure> {
        let (sender, mut responses) = mpsc::channel(1);
        let ended = Arc::new(Mutex::new(None));
        let end = Arc::clone(&ended);
        k8sctl_rpc::task::spawn("stream", async move {
            let result = stream.run(sender).await;
            *end.lock().expect("lock") = result.err();
        });
        let mut newest = Micros::MIN;
        while self.lines.len() < most {
            let response = timeout(Duration::from_secs(3600), responses.recv()).await.expect("it goes on");
            let Some(response) = response else { break };
            let response = response.expect("errors come at the end");
            for line in &response.lines {
                let time = micros(line.line.as_ref().expect("a line"));
                assert_eq!(line.late, time < newest, "{line:?} behind {newest}");
                newest = newest.max(time);
            }
            self.lines.extend(response.lines);
            self.notices
                .extend(response.notices.into_iter().map(|it| format!("{}: {}", it.node_name, it.message)));
            let parsed = |it: LogPosition| (it.node_name, it.cursor.parse().expect("a position"));
            self.positions.extend(response.positions.into_iter().map(parsed));
        }
        let ended = ended.lock().expect("lock").take();
        ended.map(|status: Status| failure_from(&status).expect("a failure"))
    }

    fn texts(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line.line.as_ref().expect("a line").text.as_str()).collect()
    }

    fn of(&self, node: &str) -> Vec<&str> {
        let all = self.lines.iter().filter(|line| line.node_name == node);
        all.map(|line| line.line.as_ref().expect("a line").text.as_str()).collect()
    }

    fn late(&self) -> usize {
        self.lines.iter().filter(|line| line.late).count()
    }
}

fn open(registry: &Arc<NodeRegistry>, names: &[&str], selector: LogSelector, reader: &Reader) -> LogStream {
    let positions =
        reader.positions.iter().map(|(name, position)| (name.clone(), position.clone())).collect();
    let nodes = names.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect();
    LogStream::new(Arc::clone(registry), Wanted { selector, positions }, nodes, None, None)
}

/// Lines of a unit that a node may not have, and the node that has not.
fn frob(registry: &Arc<NodeRegistry>, name: &'static str) -> (LogSelector, FakeNode) {
    let message = "no unit frob.service".to_owned();
    let unknown = vec![LogUnknown { wanted: Some(log_unknown::Wanted::Unit(0)), message }];
    let selector = LogSelector { units: vec!["frob".to_owned()], ..LogSelector::default() };
    (selector, FakeNode { unknown, ..FakeNode::new(registry, name) })
}

fn follow() -> LogSelector {
    LogSelector { follow: true, ..LogSelector::default() }
}

fn now() -> Micros {
    Clock::new().now()
}

/// Two nodes with so many lines each, written in turns until a while ago.
fn two(registry: &Arc<NodeRegistry>, lines: usize, dies_every: [usize; 2]) -> [FakeNode; 2] {
    let begin = now() - 3_600 * SECOND;
    let node = |place: usize, name: &'static str| {
        let node = FakeNode {
            frame: 97 + 34 * place,
            dies_every: dies_every[place],
            ..FakeNode::new(registry, name)
        };
        for number in 0..lines {
            // Some at the same moment, some in bursts.
            let time = begin + (number * 7 + place * 3) as Micros * 10 - ((number % 5) * 2) as Micros;
            node.write(time, number.to_string());
        }
        node
    };
    [node(0, "a"), node(1, "b")]
}

fn counted(lines: usize) -> Vec<String> {
    (0..lines).map(|number| number.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_there_is_is_merged_exactly_also_when_nodes_die_meanwhile() {
    let registry = registry();
    let nodes = two(&registry, 5_000, [11, 17]).map(FakeNode::start);
    connected(&registry, &["a", "b"]).await;
    let mut reader = Reader::default();
    let failure =
        reader.read(open(&registry, &["a", "b"], LogSelector::default(), &reader), usize::MAX).await;
    assert_eq!(failure, None, "{:?}", reader.notices);
    assert_eq!(reader.of("a"), counted(5_000));
    assert_eq!(reader.of("b"), counted(5_000));
    assert_eq!(reader.late(), 0);
    assert!(
        reader.notices.iter().any(|it| it == "a: its agent went away; it is waited for"),
        "{:?}",
        reader.notices
    );
    assert!(nodes[0].asked.lock().expect("lock").len() > 3);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_lines_come_once_through_restarts_of_nodes_and_of_the_reader() {
    let registry = registry();
    let lines = 50_000;
    let nodes = two(&registry, lines, [23, 19]).map(FakeNode::start);
    connected(&registry, &["a", "b"]).await;
    let mut reader = Reader::default();
    let mut streams = 0;
    while reader.lines.len() < 2 * lines {
        streams += 1;
        let most = (reader.lines.len() + 7_919).min(2 * lines);
        // The tail is not applied again.
        let selector = LogSelector { tail: Some(lines as u64), ..follow() };
        let failure = reader.read(open(&registry, &["a", "b"], selector, &reader), most).await;
        assert_eq!(failure, None);
    }
    assert!(streams > 10, "{streams}");
    assert!(nodes.iter().all(|node| node.asked.lock().expect("lock").len() > 20));
    let expected = counted(lines);
    assert_eq!(reader.of("a"), expected);
    assert_eq!(reader.of("b"), expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_while_following_is_in_order_within_the_window() {
    let registry = registry();
    let [a, b] = ["a", "b"].map(|name| FakeNode::new(&registry, name).start());
    connected(&registry, &["a", "b"]).await;
    let mut reader = Reader::default();
    let stream = open(&registry, &["a", "b"], follow(), &reader);
    let clock = stream.clock;
    let write = async {
        sleep(Duration::from_secs(1)).await;
        for round in 0..50 {
            let time = clock.now();
            // Of both the one that was written first arrives last.
            b.write(time + 1_000, format!("{round} second"));
            sleep(Duration::from_millis(200)).await;
            a.write(time, format!("{round} first"));
            sleep(Duration::from_millis(300)).await;
        }
    };
    let (_, failure) = tokio::join!(write, reader.read(stream, 100));
    assert_eq!(failure, None);
    assert_eq!(reader.late(), 0);
    let texts = reader.texts();
    assert_eq!(texts[..4], ["0 first", "0 second", "1 first", "1 second"]);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_comes_too_late_is_passed_on_and_marked() {
    let registry = registry();
    let [a, b] = ["a", "b"].map(|name| FakeNode::new(&registry, name).start());
    connected(&registry, &["a", "b"]).await;
    let mut reader = Reader::default();
    let stream = open(&registry, &["a", "b"], follow(), &reader);
    let clock = stream.clock;
    let write = async {
        sleep(Duration::from_secs(1)).await;
        let time = clock.now();
        b.write(time + 1, "younger");
        sleep(Duration::from_secs(1)).await;
        a.write(time, "older");
    };
    tokio::join!(write, reader.read(stream, 2));
    assert_eq!(reader.texts(), ["younger", "older"]);
    assert_eq!(reader.lines.iter().map(|line| line.late).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn one_alone_is_not_waited_for() {
    let registry = registry();
    let a = FakeNode::new(&registry, "a").start();
    connected(&registry, &["a"]).await;
    let mut reader = Reader::default();
    let stream = open(&registry, &["a"], follow(), &reader);
    let clock = stream.clock;
    let write = async {
        sleep(Duration::from_secs(1)).await;
        a.write(clock.now(), "x");
        Instant::now()
    };
    let read = async {
        reader.read(stream, 1).await;
        Instant::now()
    };
    let (written, read) = tokio::join!(write, read);
    assert!(read - written < Duration::from_millis(5), "{:?}", read - written);
}

#[tokio::test(start_paused = true)]
async fn a_follower_who_named_an_end_does_not_wait_for_a_dead_node_for_ever() {
    let registry = registry();
    let mut reader = Reader::default();
    let until = LogSelector { until: Some(stamp(now() + 60 * SECOND)), ..follow() };
    let began = Instant::now();
    let failure = reader.read(open(&registry, &["gone"], until, &reader), 1).await.expect("it is missing");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("NODE-NOT-CONNECTED", "node gone"));
    assert!(began.elapsed() > Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nodes_that_join_are_read_too_and_removed_ones_end() {
    let registry = registry();
    let a = FakeNode::new(&registry, "a").start();
    a.write(now(), "a");
    connected(&registry, &["a"]).await;
    let status = |names: &[&str]| ClusterStatus {
        nodes: names
            .iter()
            .map(|name| NodeStatus {
                name: (*name).to_owned(),
                id: (*name).to_owned(),
                ..NodeStatus::default()
            })
            .collect(),
        ..ClusterStatus::default()
    };
    let (members, watched) = watch::channel(status(&["a"]));
    let nodes = vec![("a".to_owned(), "a".to_owned())];
    let selector = LogSelector { tail: Some(0), ..follow() };
    let wanted = Wanted { selector, positions: HashMap::new() };
    let stream = LogStream::new(Arc::clone(&registry), wanted, nodes, Some(watched), None);
    let mut reader = Reader::default();
    let change = async {
        sleep(Duration::from_secs(1)).await;
        let b = FakeNode::new(&registry, "b").start();
        b.write(now(), "b");
        members.send_replace(status(&["a", "b"]));
        sleep(Duration::from_secs(5)).await;
        registry.remove("a");
        registry.remove("b");
        drop(members);
    };
    let (_, failure) = tokio::join!(change, reader.read(stream, usize::MAX));
    assert_eq!((failure, reader.texts()), (None, vec!["b"]));
    assert!(reader.notices.contains(&"b: it is new, and is read too".to_owned()), "{:?}", reader.notices);
    assert!(reader.notices.contains(&"a: it was removed".to_owned()), "{:?}", reader.notices);
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_takes_nothing_holds_the_nodes_back() {
    let registry = registry();
    let node = FakeNode { frame: 1, ..FakeNode::new(&registry, "a") }.start();
    for number in 0..1_000 {
        node.write(now(), number.to_string());
    }
    connected(&registry, &["a"]).await;
    let (sender, mut responses) = mpsc::channel(1);
    let stream = open(&registry, &["a"], LogSelector::default(), &Reader::default());
    k8sctl_rpc::task::spawn("stream", stream.run(sender));
    // Time passes only when nothing is left to do.
    sleep(Duration::from_secs(1)).await;
    let sent = node.frames.load(Ordering::SeqCst);
    assert!(sent <= 12, "{sent} frames are kept");
    let mut lines = 0;
    while let Some(response) = responses.recv().await {
        lines += response.expect("lines").lines.len();
    }
    assert_eq!(lines, 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_sends_nothing_holds_a_follower_up_only_so_long() {
    let registry = registry();
    let a = FakeNode::new(&registry, "a").start();
    a.write(now() - SECOND, "a");
    // Has a session and answers nothing.
    let _silent = registry.open_session("b", Hello::default());
    connected(&registry, &["a"]).await;
    let mut reader = Reader::default();
    let stream = open(&registry, &["a", "b"], follow(), &reader);
    let began = Instant::now();
    reader.read(stream, 1).await;
    assert!(began.elapsed() >= CATCH_UP && began.elapsed() < 2 * CATCH_UP, "{:?}", began.elapsed());
    assert!(reader.notices[0].starts_with("b: it has sent nothing for 10s"), "{:?}", reader.notices);
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_is_waited_for_as_long_as_something_comes() {
    let registry = registry();
    let [a, b] = two(&registry, 1_000, [usize::MAX; 2]);
    let _nodes = [FakeNode { pause: Duration::from_secs(4), ..a }, b].map(FakeNode::start);
    connected(&registry, &["a", "b"]).await;
    let mut reader = Reader::default();
    let began = Instant::now();
    reader.read(open(&registry, &["a", "b"], follow(), &reader), 2_000).await;
    assert!(began.elapsed() > 3 * CATCH_UP, "{:?}", began.elapsed());
    assert_eq!((reader.late(), reader.notices.len()), (0, 0), "{:?}", reader.notices);
}

/// As when the task of the first node panics: its end of the channel is gone.
fn breaks(mut stream: LogStream) -> LogStream {
    let (gone, receiver) = mpsc::channel(1);
    drop(gone);
    stream.coming.clear();
    stream.await_event(0, receiver);
    stream
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_told_as_a_mistake_of_the_host_agent() {
    let registry = registry();
    for selector in [LogSelector::default(), follow()] {
        let (sender, mut responses) = mpsc::channel(1);
        let stream = breaks(open(&registry, &["a"], selector, &Reader::default()));
        let ended = stream.run(sender).await.expect_err("no clean end");
        assert_eq!(ended.code(), Code::Internal);
        let failure = failure_from(&ended).expect("a failure");
        assert_eq!((failure.id.as_str(), failure.object.as_str()), ("HOST-INTERNAL", "node a"));
        assert_eq!(failure.reason, "the host agent's reading of it broke off");
        assert!(responses.recv().await.is_none());
    }
    // Whoever follows others too is not left without them unawares.
    let node = FakeNode::new(&registry, "b").start();
    connected(&registry, &["b"]).await;
    let mut reader = Reader::default();
    let mut stream = breaks(open(&registry, &["a"], follow(), &reader));
    stream.add("b".to_owned(), "b".to_owned(), follow(), State::Live);
    let failure = reader.read(stream, usize::MAX).await.expect("it ends");
    assert!(failure.reason.ends_with("the log of the other nodes ends with it"), "{failure:?}");
    drop(node);
}
