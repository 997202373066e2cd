use super::*;
use crate::dashboard::fake::{at, line, model, now, operation, status, troubled};

fn lost(feed: Feed, reason: &str) -> News {
    News::Lost(feed, reason.to_owned())
}

#[test]
fn what_was_seen_stays_and_becomes_old() {
    let mut model = Model::new("home");
    assert!(model.status().is_none() && model.seen().is_none() && model.old().is_none());
    model.apply(News::Status(status()), at(100));
    model.apply(News::Live(Feed::Answer), at(90));
    assert_eq!((model.seen(), model.old()), (Some(at(90)), None), "who answers would have told");

    model.apply(lost(Feed::Answer, "it does not answer"), at(80));
    model.apply(lost(Feed::Status, "it went away"), at(70));
    model.apply(lost(Feed::Answer, "connection refused"), at(60));
    let old = model.old().expect("it is old");
    assert_eq!((old.since, old.reason.as_str()), (at(80), "connection refused"));
    assert_eq!(model.seen(), Some(at(90)));
    assert_eq!(model.status(), Some(&status()), "what was seen is kept");

    // It answers again, and has told nothing yet.
    model.apply(News::Live(Feed::Answer), at(50));
    assert_eq!((model.seen(), model.old().map(|old| old.since)), (Some(at(90)), Some(at(70))));
    model.apply(News::Status(troubled()), at(40));
    assert_eq!((model.seen(), model.old()), (Some(at(40)), None));
}

#[test]
fn logs_may_be_lost_alone() {
    let mut model = model([News::Status(status()), News::Lines(vec![line("a", "x")])]);
    model.apply(lost(Feed::Logs, "too many readers"), now());
    assert!(model.old().is_none());
    assert_eq!(model.logs_lost().map(|lost| lost.reason.as_str()), Some("too many readers"));
    model.apply(News::Live(Feed::Logs), now());
    assert!(model.logs_lost().is_none() && model.newest() == 1);
}

#[test]
fn the_operation_that_runs_is_watched_to_its_end() {
    let mut model = model([News::Status(status())]);
    assert_eq!(model.operation_to_watch(), None);
    model.apply(News::Status(troubled()), now());
    assert_eq!(model.operation_to_watch().as_deref(), Some("op"));
    model.apply(News::Operation(operation("running")), now());
    assert_eq!(model.operation_to_watch().as_deref(), Some("op"));
    // Its end was missed: the status tells of none any more.
    model.apply(News::Status(status()), now());
    assert_eq!(model.operation_to_watch().as_deref(), Some("op"));
    model.apply(News::Operation(operation("failed")), now());
    assert_eq!(model.operation_to_watch(), None);
    // The status may be behind.
    model.apply(News::Status(troubled()), now());
    assert_eq!(model.operation_to_watch(), None);
    let next = OperationView { id: "next".to_owned(), ..operation("running") };
    let told = ClusterView { operation_id: Some("next".to_owned()), ..troubled() };
    model.apply(News::Status(told), now());
    assert_eq!(model.operation_to_watch().as_deref(), Some("next"));
    model.apply(News::Operation(next), now());
    model.apply(News::NoOperation("other".to_owned()), now());
    assert!(model.operation().is_some());
    model.apply(News::NoOperation("next".to_owned()), now());
    assert!(model.operation().is_none());
}

#[test]
fn lines_are_counted_and_the_oldest_leave() {
    let mut model = Model::new("home");
    assert_eq!(model.lines_after(0).0, 0);
    let lines = (0..LINES + 5).map(|count| line("a", &count.to_string())).collect();
    model.apply(News::Lines(lines), now());
    assert_eq!((model.lines().len(), model.newest()), (LINES, LINES as u64 + 5));
    let after = |number| {
        let (left_out, lines) = model.lines_after(number);
        (left_out, lines.map(|line| line.number).next(), model.lines_after(number).1.count())
    };
    assert_eq!(after(0), (5, Some(6), LINES));
    assert_eq!(after(3), (2, Some(6), LINES));
    assert_eq!(after(5), (0, Some(6), LINES));
    assert_eq!(after(LINES as u64 + 4), (0, Some(LINES as u64 + 5), 1));
    assert_eq!(after(LINES as u64 + 5), (0, None, 0));
    assert_eq!(after(u64::MAX), (0, None, 0));
}

#[test]
fn lines_are_fit_to_be_shown() {
    let evil = LogView { node: "\x1b]0;x\x07".to_owned(), ..line("a", "a\tb\x1b[2J\u{202e}\r") };
    let long = line("a", &"ä".repeat(LINE_CHARS + 1));
    let timeless = LogView { time: None, late: true, ..line("a", "x") };
    let notice = News::Notice { node: "b".to_owned(), message: "went\x1b away".to_owned() };
    let model = model([News::Lines(vec![evil, long, timeless]), notice]);
    let lines: Vec<&Line> = model.lines().iter().collect();
    assert_eq!(lines[0].text, "a    b\\x1b[2J\\u{202e}\\r");
    assert_eq!((lines[0].node.as_str(), lines[0].time.as_str()), ("\\x1b]0;x\\x07", "10:00:00.007"));
    assert_eq!(lines[1].text, "ä".repeat(LINE_CHARS) + "…");
    assert_eq!((lines[2].time.as_str(), lines[2].late, lines[2].notice), ("", true, false));
    assert_eq!((lines[3].text.as_str(), lines[3].notice, lines[3].number), ("went\\x1b away", true, 4));
}
