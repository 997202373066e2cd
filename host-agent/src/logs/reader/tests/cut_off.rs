//! Logs that are cut off, and nodes that are away at first.

use super::*;

/// An agent that is the test's: what it is asked next, and its end of that log.
async fn asked(registry: &NodeRegistry, session: &mut SessionGuard) -> (LogSelector, LogSender) {
    let start = session.log_requests.recv().await.expect("it is asked");
    let sender = registry.claim_logs("b", &start.stream_id).expect("it is waited for");
    (start.selector.unwrap_or_default(), sender)
}

/// A frame of one line, with where to go on behind it.
fn one(text: &str, cursor: &str) -> LogFrame {
    let line = LogLine { time: Some(stamp(now())), source: "kubelet".to_owned(), text: text.to_owned() };
    LogFrame { lines: vec![line], cursor: cursor.to_owned(), ..LogFrame::default() }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_cut_off_is_read_on_and_not_taken_for_whole() {
    let ends = LogSelector { until: Some(stamp(now() + 60 * SECOND)), ..follow() };
    for selector in [LogSelector::default(), ends] {
        let registry = registry();
        let mut session = registry.open_session("b", Hello::default());
        let mut reader = Reader::default();
        let stream = open(&registry, &["b"], selector, &reader);
        let agent = async {
            let (_, sender) = asked(&registry, &mut session).await;
            sender.send(Ok(one("first", "1"))).await.expect("it is read");
            // As when the connection breaks: nobody is left to say so.
            drop(sender);
            let (selector, sender) = asked(&registry, &mut session).await;
            sender.send(Ok(one("second", "2"))).await.expect("it is read");
            sender.send(Ok(whole())).await.expect("it is read");
            selector.after_cursor
        };
        let (behind, failure) = tokio::join!(agent, reader.read(stream, usize::MAX));
        assert_eq!((behind.as_str(), failure), ("1", None));
        assert_eq!(reader.texts(), ["first", "second"]);
        assert!(reader.notices[0].starts_with("b: its log broke off; "), "{:?}", reader.notices);
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_cut_off_again_and_again_is_no_success() {
    let registry = registry();
    let mut session = registry.open_session("b", Hello::default());
    let mut reader = Reader::default();
    let stream = open(&registry, &["b"], LogSelector::default(), &reader);
    let agent = async {
        while let Some(start) = session.log_requests.recv().await {
            drop(registry.claim_logs("b", &start.stream_id));
        }
    };
    let failure = tokio::select! {
        () = agent => None,
        failure = reader.read(stream, usize::MAX) => failure,
    };
    let failure = failure.expect("something is missing");
    assert_eq!((failure.id.as_str(), failure.reason.as_str()), ("NODE-LOGS", "its log broke off"));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_follow_waits_for_what_a_node_that_is_away_knows() {
    let registry = registry();
    let (units, not_here) = frob(&registry, "a");
    let _not_here = not_here.start();
    let mut session = registry.open_session("b", Hello::default());
    connected(&registry, &["a"]).await;
    let mut reader = Reader::default();
    let stream = open(&registry, &["a", "b"], units, &reader);
    let agent = async {
        let (_, sender) = asked(&registry, &mut session).await;
        sender.send(Err(LogLost("its agent went away".to_owned()))).await.expect("it is read");
        let (_, sender) = asked(&registry, &mut session).await;
        sender.send(Ok(one("b", "1"))).await.expect("it is read");
        sender.send(Ok(whole())).await.expect("it is read");
    };
    let ((), failure) = tokio::join!(agent, reader.read(stream, usize::MAX));
    assert_eq!((failure, reader.texts()), (None, vec!["b"]));
}

#[tokio::test(start_paused = true)]
async fn all_that_is_written_meanwhile_comes_of_a_node_that_is_away_at_first() {
    // Behind an end that has passed nothing can have come: there the last lines are right.
    for (until, tail) in [(None, None), (Some(stamp(now() - SECOND)), Some(3))] {
        let registry = registry();
        let mut reader = Reader::default();
        let selector = LogSelector { tail: Some(3), until, ..follow() };
        let stream = open(&registry, &["a"], selector, &reader);
        let began = stamp(stream.clock.began);
        let come_back = async {
            sleep(Duration::from_secs(10)).await;
            let a = FakeNode::new(&registry, "a").start();
            a.write(now(), "a");
            a
        };
        let (a, failure) = tokio::join!(come_back, reader.read(stream, 1));
        assert_eq!((failure, reader.texts()), (None, vec!["a"]));
        let asked = a.asked.lock().expect("lock");
        assert_eq!((asked[0].tail, asked[0].since), (tail, tail.is_none().then_some(began)));
    }
}
