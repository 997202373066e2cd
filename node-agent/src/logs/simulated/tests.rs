//! What a reader sees of lines that count.

use super::*;
use crate::clock::Offset;
use k8sctl_proto::node::v1::LogSource;
use tokio::sync::mpsc;

/// A log of so many lines, an hour apart: nothing comes while it is read.
fn old(lines: u64) -> SimulatedLogs {
    let pause = Duration::from_secs(3600);
    SimulatedLogs::new(now(), SimulatedLog { before: lines, pause, bytes: 0 })
}

async fn read(logs: SimulatedLogs, selector: LogSelector) -> Vec<LogFrame> {
    let (sender, mut sent) = mpsc::channel(1000);
    logs.read(selector, &mut Frames::new(sender, Offset::default())).await.expect("read");
    let mut frames = Vec::new();
    while let Some(frame) = sent.recv().await {
        frames.push(frame);
    }
    frames
}

fn numbers(frames: &[LogFrame]) -> Vec<u64> {
    let number = |line: &LogLine| line.text.split(' ').nth(2)?.parse().ok();
    frames.iter().flat_map(|frame| &frame.lines).map(|line| number(line).expect("a number")).collect()
}

#[tokio::test]
async fn lines_are_selected_by_place_time_and_text() {
    let whole = read(old(20), LogSelector::default()).await;
    assert_eq!(numbers(&whole), (1..=20).collect::<Vec<_>>());
    let tail =
        |tail, grep: &str| LogSelector { tail: Some(tail), grep: grep.to_owned(), ..LogSelector::default() };
    assert_eq!(numbers(&read(old(20), tail(3, "")).await), [18, 19, 20]);
    assert_eq!(numbers(&read(old(20), tail(3, "5$|7$")).await), [7, 15, 17]);
    assert_eq!(numbers(&read(old(20), tail(0, "")).await), [0; 0]);
    let logs = old(20);
    let time = |number| Some(stamp(logs.time(number)));
    let between = LogSelector { since: time(3), until: time(5), ..LogSelector::default() };
    let frames = read(logs, between.clone()).await;
    assert_eq!(numbers(&frames), [3, 4, 5]);
    let again = LogSelector { after_cursor: frames[0].cursor.clone(), ..between };
    assert_eq!(numbers(&read(logs, again).await), [3, 4, 5]);
    let just_behind = LogSelector { since: Some(stamp(logs.time(3) + 1)), ..LogSelector::default() };
    assert_eq!(numbers(&read(logs, just_behind).await), (4..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn reading_goes_on_behind_every_frame() {
    let logs = old(20_000);
    let whole = read(logs, LogSelector::default()).await;
    assert!(whole.len() > 3, "{}", whole.len());
    for (place, frame) in whole.iter().enumerate() {
        let selector =
            LogSelector { after_cursor: frame.cursor.clone(), tail: Some(1), ..LogSelector::default() };
        assert_eq!(numbers(&read(logs, selector).await), numbers(&whole[place + 1..]));
    }
    let (sender, _sent) = mpsc::channel(1);
    let selector = LogSelector { after_cursor: "1x".to_owned(), ..LogSelector::default() };
    let error = logs.read(selector, &mut Frames::new(sender, Offset::default())).await.expect_err("none");
    assert!(error.to_string().contains("\"1x\" is none"), "{error}");
}

#[tokio::test]
async fn the_log_goes_on_with_the_next_start_of_the_agent() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = SimulatedLogs::kept(dir.path(), SimulatedLog::default());
    let second = SimulatedLogs::kept(dir.path(), SimulatedLog::default());
    assert_eq!((first.began, first.time(7)), (second.began, second.time(7)));
}

#[tokio::test]
async fn a_follower_is_told_when_it_has_caught_up_and_then_gets_every_line() {
    let log = SimulatedLog { before: 5, pause: Duration::from_millis(1), bytes: 40 };
    let logs = SimulatedLogs::new(now(), log);
    let (sender, mut sent) = mpsc::channel(1);
    let reading = k8sctl_rpc::task::spawn("read", async move {
        let selector = LogSelector { follow: true, ..LogSelector::default() };
        let read = logs.read(selector, &mut Frames::new(sender, Offset::default())).await;
        read.expect("it ends with its reader");
    });
    let (mut frames, mut caught_up) = (Vec::new(), Vec::new());
    let mut behind = 0;
    while behind < 100 {
        let frame = sent.recv().await.expect("it goes on");
        if caught_up.contains(&true) {
            behind += frame.lines.len();
        }
        caught_up.push(frame.caught_up);
        frames.push(frame);
    }
    assert_eq!(numbers(&frames), (1..=numbers(&frames).len() as u64).collect::<Vec<_>>());
    assert_eq!(caught_up.iter().filter(|it| **it).count(), 1);
    assert!(frames.iter().all(|frame| !frame.cursor.is_empty()));
    assert!(frames.iter().flat_map(|frame| &frame.lines).all(|line| line.text.len() == 40));
    drop(sent);
    while !reading.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn sources_take_turns_and_what_is_not_known_is_told() {
    let pod = |name: &str, container: &str| PodLogs {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        container: container.to_owned(),
    };
    let selector = LogSelector {
        sources: vec![LogSource::Etcd.into()],
        units: vec!["frob".to_owned(), "systemd-networkd".to_owned()],
        pods: vec![pod("simulated", ""), pod("simulated", "x"), pod("y", "")],
        ..LogSelector::default()
    };
    let frames = read(old(3), selector).await;
    let told: Vec<_> = frames[0].unknown.iter().map(|it| (it.wanted, it.message.as_str())).collect();
    let expected = [
        (log_unknown::Wanted::Unit(0), "no unit frob.service: neither systemd nor the journal knows it"),
        (log_unknown::Wanted::Pod(1), "pod default/simulated has no container x; it has: main"),
        (log_unknown::Wanted::Pod(2), "no pod default/y has logs here"),
    ];
    assert_eq!(told, expected.map(|(wanted, message)| (Some(wanted), message)));
    let sources: Vec<&str> = frames[2].lines.iter().map(|line| line.source.as_str()).collect();
    assert_eq!(sources, ["systemd-networkd.service", "default/simulated/main", "etcd"]);
    let nothing = LogSelector { units: vec!["frob".to_owned()], ..LogSelector::default() };
    assert_eq!(numbers(&read(old(3), nothing).await), [0; 0]);
}
