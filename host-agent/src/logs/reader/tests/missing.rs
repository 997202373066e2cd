//! What is missing and why: nodes that are away or busy, and what nobody knows.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_follower_hears_of_a_dead_node_and_gets_its_lines_when_it_is_back() {
    let registry = registry();
    let a = FakeNode::new(&registry, "a").start();
    a.write(now() - 10 * SECOND, "a");
    connected(&registry, &["a"]).await;
    let mut reader = Reader::default();
    let stream = open(&registry, &["a", "b"], follow(), &reader);
    let come_back = async {
        sleep(Duration::from_secs(60)).await;
        let b = FakeNode::new(&registry, "b").start();
        b.write(now() - 20 * SECOND, "b");
        b
    };
    let (b, failure) = tokio::join!(come_back, reader.read(stream, 2));
    assert_eq!(failure, None);
    assert_eq!(reader.texts(), ["a", "b"]);
    assert_eq!(reader.late(), 1);
    let away = "b: the node agent is not connected; its lines come when it is back";
    assert_eq!(reader.notices, [away, "b: it is read again"]);
    assert_eq!(b.asked.lock().expect("lock").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_follow_gets_the_others_lines_and_is_told_what_is_missing() {
    let registry = registry();
    let a = FakeNode::new(&registry, "a").start();
    a.write(now(), "a");
    connected(&registry, &["a"]).await;
    let mut reader = Reader::default();
    let read = reader.read(open(&registry, &["a", "b"], LogSelector::default(), &reader), usize::MAX).await;
    let failure = read.expect("something is missing");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("NODE-NOT-CONNECTED", "node b"));
    assert!(failure.reason.ends_with("the lines of the other nodes are complete"), "{}", failure.reason);
    assert_eq!(reader.texts(), ["a"]);
    assert_eq!(reader.notices, ["b: its lines are missing: the node agent is not connected"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_asked_for_too_many_logs_at_once_is_busy_and_not_away() {
    let registry = registry();
    // Its agent takes in nothing of what it is asked.
    let session = registry.open_session("a", Hello::default());
    let mut readers = Vec::new();
    while let Ok(reader) = registry.open_logs("a", LogSelector::default()) {
        readers.push(reader);
    }
    assert!(!readers.is_empty());
    let mut reader = Reader::default();
    let stream = open(&registry, &["a"], LogSelector::default(), &reader);
    let failure = reader.read(stream, 1).await.expect("there is no room");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("NODE-BUSY", "node a"));
    assert!(failure.next_step.contains("end one of the logs"), "{}", failure.next_step);
    drop(session);
    let stream = open(&registry, &["a"], LogSelector::default(), &reader);
    let failure = reader.read(stream, 1).await.expect("it is away");
    assert_eq!(failure.id, "NODE-NOT-CONNECTED");
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_says_at_once_is_the_end_and_later_it_is_asked_again() {
    let registry = registry();
    let broken = FakeNode { error: "no journal".to_owned(), ..FakeNode::new(&registry, "a") };
    let broken = broken.start();
    connected(&registry, &["a"]).await;
    for selector in [LogSelector::default(), follow()] {
        let mut reader = Reader::default();
        let failure = reader.read(open(&registry, &["a"], selector, &reader), usize::MAX).await;
        let failure = failure.expect("it fails");
        assert_eq!((failure.id.as_str(), failure.reason.as_str()), ("NODE-LOGS", "no journal"));
        assert!(failure.next_step.ends_with("k8sctl logs a"), "{}", failure.next_step);
    }
    // One that was read before.
    let mut reader = Reader::default();
    let position = Position { behind: "5".to_owned(), ..Position::default() };
    reader.positions.insert("a".to_owned(), position);
    let stream = open(&registry, &["a"], follow(), &reader);
    let (sender, mut responses) = mpsc::channel(1);
    k8sctl_rpc::task::spawn("stream", stream.run(sender));
    let first = responses.recv().await.expect("a response").expect("a notice");
    assert_eq!(first.notices[0].message, "no journal; its lines come when it is back");
    // Told once, and tried ever more rarely.
    assert!(timeout(Duration::from_secs(120), responses.recv()).await.is_err());
    let asked = broken.asked.lock().expect("lock").len();
    assert!((6..20).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn what_no_node_knows_is_an_error_and_what_one_knows_is_read() {
    let registry = registry();
    let _nodes = ["a", "b"].map(|name| frob(&registry, name).1.start());
    let knows = FakeNode::new(&registry, "c").start();
    knows.write(now(), "c");
    connected(&registry, &["a", "b", "c"]).await;
    let (units, _) = frob(&registry, "d");
    for selector in [units.clone(), LogSelector { follow: true, ..units.clone() }] {
        let mut reader = Reader::default();
        let failure = reader.read(open(&registry, &["a", "b"], selector.clone(), &reader), 1).await;
        let failure = failure.expect("nobody knows it");
        assert_eq!((failure.id.as_str(), failure.object.as_str()), ("NODE-UNIT-UNKNOWN", "unit frob"));
        let mut reader = Reader::default();
        let failure = reader.read(open(&registry, &["a", "b", "c"], selector, &reader), 1).await;
        assert_eq!((failure, reader.texts()), (None, vec!["c"]));
    }
    // It may be on the one that is away.
    let mut reader = Reader::default();
    let stream = open(&registry, &["a", "gone"], LogSelector { follow: true, ..units.clone() }, &reader);
    assert!(timeout(Duration::from_secs(60), reader.read(stream, 1)).await.is_err(), "it goes on");
    assert!(reader.notices.iter().any(|it| it.ends_with("not asked: gone")), "{:?}", reader.notices);
    let mut reader = Reader::default();
    let stream = open(&registry, &["a", "gone"], units, &reader);
    let failure = reader.read(stream, 1).await.expect("nobody knows it");
    assert_eq!(failure.reason, "no unit frob.service; not asked: gone");
}

#[tokio::test(start_paused = true)]
async fn a_node_without_lines_that_pass_may_know_what_was_asked_for() {
    let registry = registry();
    let (units, not_here) = frob(&registry, "a");
    let _not_here = not_here.start();
    let mut session = registry.open_session("b", Hello::default());
    connected(&registry, &["a"]).await;
    let mut reader = Reader::default();
    let stream = open(&registry, &["a", "b"], units, &reader);
    // Its agent has nothing to say.
    let end = async {
        let start = session.log_requests.recv().await.expect("it is asked");
        let sender = registry.claim_logs("b", &start.stream_id).expect("it is waited for");
        sender.send(Ok(whole())).await.expect("it is read");
    };
    let (_, failure) = tokio::join!(end, reader.read(stream, usize::MAX));
    assert_eq!((failure, reader.lines.len()), (None, 0));
}
