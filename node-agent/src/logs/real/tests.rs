//! Journal and files of a node, with programs in place of journalctl and systemctl: a journal is a file in the export
//! format, and the cursor of an entry its place in it and its time.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8sctl_proto::node::v1::{LogFrame, LogSource, PodLogs};
use tokio::sync::mpsc;

use super::super::cursor::JournalPosition;
use super::super::filter::stamp;
use super::*;
use crate::clock::Offset;

const JOURNALCTL: &str = r#"#!/bin/sh
folder=$(dirname "$0")
for argument in "$@"; do
  case $argument in --directory=*) folder=${argument#--directory=} ;; esac
done
file=$folder/journal
at=0 lines= reverse= follow= since=0 until=9999999999
for argument in "$@"; do
  case $argument in
    --cursor=s=*) at=${argument#--cursor=s=}; at=${at%%;*} ;;
    --since=@*) since=${argument#--since=@} ;;
    --until=@*) until=${argument#--until=@} ;;
    --lines=*) lines=${argument#--lines=} ;;
    --reverse) reverse=1 ;;
    --follow) follow=1 ;;
  esac
done
if [ -e "$file.broken" ]; then echo "the journal is broken" >&2; exit 1; fi
if [ "$since" -gt "$until" ]; then echo "--since= must be before --until=." >&2; exit 1; fi
if [ "$follow" ]; then exec tail -c "+$((at + 1))" -f "$file"; fi
if [ "$reverse" ]; then
  exec awk 'BEGIN { RS = ""; ORS = "\n\n" } { all[NR] = $0 } END { for (n = NR; n > 0; n--) print all[n] }' "$file"
fi
if [ "$lines" ]; then
  exec awk -v "want=$lines" 'BEGIN { RS = ""; ORS = "\n\n" } { all[NR] = $0 }
    END { for (n = (NR > want ? NR - want : 0) + 1; n <= NR; n++) print all[n] }' "$file"
fi
# It ends at the first entry behind that, wherever it began.
tail -c "+$((at + 1))" "$file" | awk -v "since=$since" -v "until=$until" 'BEGIN { RS = ""; ORS = "\n\n" }
  { split($0, field, "\n"); split(field[2], time, "="); second = time[2] / 1000000 }
  second > until { exit } second >= since { print }'
"#;
const SYSTEMCTL: &str = "#!/bin/sh\ncase $5 in known.service) echo loaded ;; *) echo not-found ;; esac\n";

const SECOND: Micros = 1_000_000;
/// 2026-11-24T10:00:00Z
const TEN: Micros = 1_795_514_400 * SECOND;

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, script) in [("journalctl", JOURNALCTL), ("systemctl", SYSTEMCTL)] {
            let path = dir.path().join(name);
            std::fs::write(&path, script).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("made a program");
        }
        std::fs::write(dir.path().join("journal"), "").expect("written");
        Self { dir }
    }

    fn append(&self, path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("opened");
        file.write_all(text.as_bytes()).expect("written");
    }

    /// Writes to the journal.
    fn journal(&self, micros: Micros, text: &str) {
        let path = self.dir.path().join("journal");
        let at = std::fs::metadata(&path).expect("it is there").len();
        let entry = format!(
            "__CURSOR=s={at};t={micros:x}\n__REALTIME_TIMESTAMP={micros}\n_SYSTEMD_UNIT=kubelet.service\nMESSAGE={text}\n\n"
        );
        self.append(&path, &entry);
    }

    /// Writes to the container `app` of the pod `default/web`.
    fn pod(&self, micros: Micros, text: &str) {
        let time = jiff::Timestamp::from_microsecond(micros).expect("a time");
        let path = self.dir.path().join("pods/default_web_1/app/0.log");
        self.append(&path, &format!("{time} stdout F {text}\n"));
    }

    fn logs(&self) -> RealLogs {
        let path = |name: &str| self.dir.path().join(name);
        RealLogs {
            journalctl: Journalctl::new(path("journalctl")),
            systemctl: path("systemctl"),
            pods: path("pods"),
        }
    }

    async fn try_read(&self, selector: LogSelector) -> Result<Vec<LogFrame>, LogError> {
        let (sender, mut sent) = mpsc::channel(100);
        let logs = self.logs();
        let mut frames = Frames::new(sender, Offset::default());
        let read = logs.read(selector, &mut frames).await;
        drop(frames);
        let mut all = Vec::new();
        while let Some(frame) = sent.recv().await {
            all.push(frame);
        }
        read.map(|()| all)
    }

    async fn read(&self, selector: LogSelector) -> Vec<LogFrame> {
        self.try_read(selector).await.expect("read")
    }

    fn follow(&self, selector: LogSelector) -> Follower {
        let (sender, sent) = mpsc::channel(4);
        let logs = self.logs();
        k8sctl_rpc::task::spawn("follow", async move {
            let mut frames = Frames::new(sender, Offset::default());
            logs.read(LogSelector { follow: true, ..selector }, &mut frames).await
        });
        Follower { sent, cursor: String::new() }
    }
}

struct Follower {
    sent: mpsc::Receiver<LogFrame>,
    cursor: String,
}

impl Follower {
    /// The next lines, until there are so many, or until it has caught up.
    async fn next(&mut self, lines: usize) -> Vec<String> {
        let mut found = Vec::new();
        while found.len() < lines {
            let frame = tokio::time::timeout(Duration::from_secs(20), self.sent.recv());
            let frame = frame.await.expect("in time").expect("it goes on");
            self.cursor.clone_from(&frame.cursor);
            found.extend(texts(std::slice::from_ref(&frame)));
            if frame.caught_up && lines == usize::MAX {
                break;
            }
        }
        found
    }

    async fn caught_up(&mut self) -> Vec<String> {
        self.next(usize::MAX).await
    }
}

fn texts(frames: &[LogFrame]) -> Vec<String> {
    frames.iter().flat_map(|frame| &frame.lines).map(|line| line.text.clone()).collect()
}

/// The kubelet and the pod.
fn both() -> LogSelector {
    let pod = PodLogs { namespace: "default".into(), name: "web".into(), container: String::new() };
    LogSelector { sources: vec![LogSource::Kubelet.into()], pods: vec![pod], ..LogSelector::default() }
}

#[tokio::test]
async fn journal_and_files_are_merged_by_time() {
    let node = Node::new();
    for second in 0..4 {
        node.journal(TEN + second * SECOND, &format!("j{second}"));
        node.pod(TEN + second * SECOND + 1, &format!("p{second}"));
    }
    let frames = node.read(both()).await;
    assert_eq!(texts(&frames), ["j0", "p0", "j1", "p1", "j2", "p2", "j3", "p3"]);
    // Before the first line it is told where that is.
    assert!(frames[0].lines.is_empty() && !frames[0].cursor.is_empty(), "{frames:?}");
    let sources: Vec<&str> = frames[1].lines[..2].iter().map(|line| line.source.as_str()).collect();
    assert_eq!(sources, ["kubelet", "default/web/app"]);
    assert_eq!(frames[1].lines[0].time, Some(stamp(TEN)));
}

#[tokio::test]
async fn moments_and_expressions_select_exactly() {
    let node = Node::new();
    for micro in 0..6 {
        node.journal(TEN + micro, &format!("j{micro}"));
        node.pod(TEN + micro, &format!("p{micro}"));
    }
    let moment = |micro| Some(stamp(TEN + micro));
    let between = LogSelector { since: moment(2), until: moment(3), ..both() };
    assert_eq!(texts(&node.read(between.clone()).await), ["j2", "p2", "j3", "p3"]);
    let grep = LogSelector { grep: "^p|3".to_owned(), ..between };
    assert_eq!(texts(&node.read(grep).await), ["p2", "j3", "p3"]);
}

#[tokio::test]
async fn the_last_lines_are_those_of_all_together() {
    let node = Node::new();
    for second in 0..10 {
        node.journal(TEN + second * SECOND, &format!("j{second}"));
    }
    node.pod(TEN + 8 * SECOND + 1, "p");
    let tail = |tail| LogSelector { tail: Some(tail), ..both() };
    assert_eq!(texts(&node.read(tail(0)).await), [""; 0]);
    assert_eq!(texts(&node.read(tail(1)).await), ["j9"]);
    assert_eq!(texts(&node.read(tail(3)).await), ["j8", "p", "j9"]);
    assert_eq!(texts(&node.read(tail(100)).await).len(), 11);
    let journal = LogSelector { pods: Vec::new(), ..tail(2) };
    assert_eq!(texts(&node.read(journal.clone()).await), ["j8", "j9"]);
    let matching = LogSelector { grep: "[13]".to_owned(), ..journal.clone() };
    assert_eq!(texts(&node.read(matching).await), ["j1", "j3"]);
    let until = LogSelector { until: Some(stamp(TEN + 5 * SECOND)), ..journal };
    assert_eq!(texts(&node.read(until).await), ["j4", "j5"]);
}

#[tokio::test]
async fn reading_goes_on_behind_a_frame_without_tail_or_since() {
    let node = Node::new();
    for second in 0..3 {
        node.journal(TEN + second * SECOND, &format!("j{second}"));
        node.pod(TEN + second * SECOND, &format!("p{second}"));
    }
    let frames = node.read(both()).await;
    let cursor = frames.last().expect("a frame").cursor.clone();
    node.journal(TEN + 4 * SECOND, "j4");
    node.pod(TEN + 3 * SECOND, "p3");
    let rest =
        LogSelector { after_cursor: cursor, tail: Some(1), since: Some(stamp(TEN + 9 * SECOND)), ..both() };
    assert_eq!(texts(&node.read(rest.clone()).await), ["p3", "j4"]);
    let other = LogSelector { after_cursor: "1{}".to_owned(), ..both() };
    assert!(matches!(node.try_read(other).await, Err(LogError::Cursor { .. })));
}

#[tokio::test]
async fn reading_goes_on_before_the_first_of_the_last_lines() {
    let node = Node::new();
    for second in 0..5 {
        node.journal(TEN + second * SECOND, &format!("j{second}"));
        node.pod(TEN + second * SECOND + 1, &format!("p{second}"));
    }
    for (sources, expected) in [(both(), ["j4", "p4"]), (LogSelector::default(), ["j3", "j4"])] {
        let selector = LogSelector { tail: Some(2), ..sources };
        let cursor = node.read(selector.clone()).await[0].cursor.clone();
        let again = LogSelector { after_cursor: cursor, ..selector };
        assert_eq!(texts(&node.read(again).await), expected);
    }
}

#[tokio::test]
async fn lines_before_the_first_moment_are_left_out_also_when_reading_goes_on() {
    let node = Node::new();
    node.pod(TEN, "old");
    node.journal(TEN + 5 * SECOND, "j");
    node.pod(TEN + 6 * SECOND, "p");
    let since = LogSelector { since: Some(stamp(TEN + 3 * SECOND)), ..both() };
    for selector in [since.clone(), LogSelector { tail: Some(5), ..since }] {
        let frames = node.read(selector.clone()).await;
        assert_eq!(texts(&frames), ["j", "p"]);
        // It broke off before the first line.
        let again = LogSelector { after_cursor: frames[0].cursor.clone(), ..selector };
        assert_eq!(texts(&node.read(again.clone()).await), ["j", "p"]);
        let mut follower = node.follow(again);
        assert_eq!(follower.caught_up().await, ["j", "p"]);
        assert!(!follower.cursor.contains("since"), "{}", follower.cursor);
    }
}

#[tokio::test]
async fn behind_an_entry_that_the_journal_has_lost_reading_goes_on_by_time() {
    let node = Node::new();
    for second in 0..4 {
        node.journal(TEN + second * SECOND, &format!("j{second}"));
    }
    let behind = |at: u32, moment: Micros| {
        let entry = format!("s={at};i=1;t={moment:x};x=0");
        let cursor = Cursor { journal: Some(JournalPosition::Behind(entry)), ..Cursor::default() };
        LogSelector { after_cursor: cursor.to_string(), ..LogSelector::default() }
    };
    // Others have its number, or none has got so far again.
    for at in [0, 1_000_000] {
        let selector = behind(at, TEN + SECOND);
        assert_eq!(texts(&node.read(selector.clone()).await), ["j2", "j3"]);
        assert_eq!(node.follow(selector).caught_up().await, ["j2", "j3"]);
    }
    let mut follower = node.follow(behind(1_000_000, TEN + 9 * SECOND));
    assert_eq!(follower.caught_up().await, [""; 0]);
    node.journal(TEN + 10 * SECOND, "new");
    assert_eq!(follower.next(1).await, ["new"]);
}

#[tokio::test]
async fn a_follower_gets_every_line_once_also_when_it_goes_on() {
    let node = Node::new();
    node.journal(TEN, "j0");
    node.pod(TEN, "p0");
    let mut follower = node.follow(both());
    assert_eq!(follower.caught_up().await, ["j0", "p0"]);
    let mut expected = Vec::new();
    let mut found = Vec::new();
    for round in 1..=20 {
        // Now, as the node's clock has it.
        node.journal(now(), &format!("j{round}"));
        node.pod(now() + 1, &format!("p{round}"));
        expected.extend([format!("j{round}"), format!("p{round}")]);
        found.extend(follower.next(1).await);
        if round % 4 == 0 {
            let cursor = std::mem::take(&mut follower.cursor);
            follower = node.follow(LogSelector { after_cursor: cursor, tail: Some(0), ..both() });
        }
    }
    let missing = expected.len() - found.len();
    found.extend(follower.next(missing).await);
    // On a busy machine a line may come later than the window is long.
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_follows_an_empty_log_is_not_lost_either() {
    for selector in [
        LogSelector { tail: Some(0), ..both() },
        LogSelector { since: Some(stamp(TEN + 1)), ..both() },
        LogSelector { grep: "new".to_owned(), ..both() },
    ] {
        let node = Node::new();
        node.journal(TEN, "old");
        let mut follower = node.follow(selector.clone());
        assert_eq!(follower.caught_up().await, [""; 0]);
        node.journal(TEN + 2, "new 1");
        node.pod(TEN + 3, "new 2");
        // It went away before it got a line.
        let resumed = LogSelector { after_cursor: follower.cursor.clone(), ..selector };
        let mut found = node.follow(resumed).next(2).await;
        found.sort();
        assert_eq!(found, ["new 1", "new 2"]);
    }
}

#[tokio::test]
async fn a_pod_that_comes_while_following_is_read_from_its_first_line() {
    let node = Node::new();
    let pods = LogSelector { sources: Vec::new(), ..both() };
    let mut follower = node.follow(LogSelector { tail: Some(0), ..pods });
    assert_eq!(follower.caught_up().await, [""; 0]);
    node.pod(TEN, "first");
    node.pod(TEN, "second");
    assert_eq!(follower.next(2).await, ["first", "second"]);
}

#[tokio::test]
async fn a_follower_ends_with_the_last_moment() {
    let node = Node::new();
    node.journal(TEN, "a");
    node.journal(TEN + SECOND, "b");
    let selector = LogSelector { follow: true, until: Some(stamp(TEN)), ..both() };
    let read = tokio::time::timeout(Duration::from_secs(20), node.read(selector));
    assert_eq!(texts(&read.await.expect("it ends")), ["a"]);
}

#[tokio::test]
async fn a_follower_of_what_is_long_over_ends_though_later_entries_were_read() {
    let node = Node::new();
    for minute in 0..5 {
        node.journal(TEN + minute * 60 * SECOND, &format!("j{minute}"));
    }
    let selector = LogSelector { follow: true, until: Some(stamp(TEN + 90 * SECOND)), ..both() };
    let read = tokio::time::timeout(Duration::from_secs(20), node.read(selector.clone()));
    let frames = read.await.expect("it ends");
    assert_eq!(texts(&frames), ["j0", "j1"]);
    // So does one that goes on behind any of them.
    let after_cursor = frames.last().expect("a frame").cursor.clone();
    let again = node.read(LogSelector { after_cursor, ..selector });
    let frames = tokio::time::timeout(Duration::from_secs(20), again).await.expect("it ends");
    assert_eq!(texts(&frames), [""; 0]);
}

#[tokio::test]
async fn a_follower_whose_reader_is_slow_gets_every_line_up_to_the_last_moment() {
    let node = Node::new();
    let began = now();
    let mut follower = node.follow(LogSelector { until: Some(stamp(began + SECOND)), ..both() });
    assert_eq!(follower.caught_up().await, [""; 0]);
    // Far more than there can be on its way.
    let mut expected = Vec::new();
    for number in 0..100 {
        for name in [format!("j{number}"), format!("p{number}")] {
            let text = format!("{name} {}", "x".repeat(16 * 1024));
            match name.starts_with('j') {
                true => node.journal(began + number, &text),
                false => node.pod(began + number, &text),
            }
            expected.push(name);
        }
    }
    // Until that moment is over, and what comes late of it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut found = Vec::new();
    let rest = async {
        while let Some(frame) = follower.sent.recv().await {
            let names = frame.lines.iter().filter_map(|line| line.text.split(' ').next());
            found.extend(names.map(str::to_owned));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), rest).await.expect("it ends");
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_nobody_knows_is_told_first() {
    let node = Node::new();
    node.pod(TEN, "p");
    let pod = |name: &str, container: &str| PodLogs {
        namespace: "default".into(),
        name: name.into(),
        container: container.into(),
    };
    let selector = LogSelector {
        sources: vec![LogSource::Etcd.into()],
        units: vec!["known".into(), "frob".into()],
        pods: vec![pod("web", "app"), pod("web", "x"), pod("gone", "")],
        ..LogSelector::default()
    };
    let frames = node.read(selector).await;
    let told: Vec<_> = frames[0].unknown.iter().map(|it| (it.wanted, it.message.as_str())).collect();
    let expected = [
        (log_unknown::Wanted::Unit(1), "no unit frob.service: neither systemd nor the journal knows it"),
        (log_unknown::Wanted::Pod(1), "pod default/web has no container x; it has: app"),
        (log_unknown::Wanted::Pod(2), "no pod default/gone has logs here"),
    ];
    assert_eq!(told, expected.map(|(wanted, message)| (Some(wanted), message)));
    assert_eq!(texts(&frames), ["p"]);
    // Gone from systemd, but not from the journal.
    node.journal(TEN, "j");
    let units = LogSelector { units: vec!["frob".into()], ..LogSelector::default() };
    assert!(node.read(units).await.iter().all(|frame| frame.unknown.is_empty()));
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_says_why() {
    let node = Node::new();
    std::fs::write(node.dir.path().join("journal.broken"), "").expect("written");
    let error = node.try_read(LogSelector::default()).await.expect_err("it is broken");
    assert_eq!(error.to_string(), "journalctl failed: the journal is broken");
    let gone = RealLogs { journalctl: Journalctl::new("/nonexistent/journalctl"), ..node.logs() };
    let (sender, _sent) = mpsc::channel(1);
    let error = gone.read(LogSelector::default(), &mut Frames::new(sender, Offset::default())).await;
    assert_eq!(error.expect_err("it is not there").to_string(), "cannot start /nonexistent/journalctl");
}

#[tokio::test]
async fn a_journal_that_lies_in_a_directory_is_read_there() {
    let (node, other) = (Node::new(), Node::new());
    node.journal(TEN, "of this machine");
    other.journal(TEN, "of the directory");
    let directory = other.dir.path().to_owned();
    let journalctl = Journalctl { directory: Some(directory), ..node.logs().journalctl };
    let (sender, mut sent) = mpsc::channel(100);
    let mut frames = Frames::new(sender, Offset::default());
    let logs = RealLogs { journalctl, ..node.logs() };
    logs.read(LogSelector::default(), &mut frames).await.expect("read");
    drop(frames);
    let mut all = Vec::new();
    while let Some(frame) = sent.recv().await {
        all.push(frame);
    }
    assert_eq!(texts(&all), ["of the directory"]);
}
