//! What is stored, what is found again, and what is told once.

use host_hypervisor::desired::volume_name;

use super::*;

fn of(cluster: &str, object: &str, kind: EventType) -> NewEvent {
    NewEvent {
        cluster: cluster.to_owned(),
        object: object.to_owned(),
        kind,
        message: String::new(),
        warning: false,
    }
}

async fn log_with(count: u64, retention: u64) -> EventLog {
    let store = Store::in_memory(&[SCHEMA]).expect("opens");
    let log = EventLog::open(store, retention).await.expect("opens");
    for number in 1..=count {
        let cluster = if number % 2 == 0 { "even" } else { "odd" };
        log.record(of(cluster, "node a", EventType::NodeJoined)).await;
    }
    log
}

async fn numbers(log: &EventLog, selection: &Selection) -> Vec<u64> {
    let page = log.page(0, selection).await.expect("reads");
    page.events.iter().map(|event| event.number).collect()
}

/// Gives an event another time.
fn set_time(log: &EventLog, number: u64, time: jiff::Timestamp) {
    log.store
        .call_blocking(|c| {
            let set = "UPDATE event SET time = ?1 WHERE number = ?2";
            c.execute(set, params![selection::time_text(time), number as i64])
        })
        .expect("sets");
}

#[tokio::test]
async fn what_an_event_says_is_one_line_of_the_log() {
    let (lines, _guard) = crate::log_lines::collect(tracing::Level::INFO);
    let message = "at ease\n2026-01-01T00:00:00Z  INFO all is well".to_owned();
    let event = NewEvent { message, ..of("", "node a", EventType::NodeJoined) };
    log_with(0, 10).await.record(event).await;
    let lines = lines.all();
    assert!(lines.len() == 1 && !lines[0].contains('\n'), "{lines:?}");
    assert!(lines[0].contains("at ease\\n2026"), "{lines:?}");
}

#[tokio::test]
async fn pages_follow_each_other_without_gap() {
    let log = log_with(1200, 10_000).await;
    let (mut from, mut seen) = (0, Vec::new());
    loop {
        let page = log.page(from, &Selection::default()).await.expect("reads");
        seen.extend(page.events.iter().map(|event| event.number));
        from = page.next;
        if !page.has_more {
            break;
        }
    }
    assert_eq!(seen, (1..=1200).collect::<Vec<_>>());
    assert_eq!((*log.head().borrow(), from), (1200, 1201));
}

#[tokio::test]
async fn only_the_last_are_kept() {
    let log = log_with(25, 10).await;
    assert_eq!(log.page(3, &Selection::of_cluster("none")).await.expect("reads").oldest, 16);
    assert_eq!(numbers(&log, &Selection::default()).await, (16..=25).collect::<Vec<_>>());
    // Numbers go on after a restart, and a bound beyond all numbers keeps all.
    let log = EventLog::open(log.store, u64::MAX).await.expect("opens");
    log.record(of("odd", "node a", EventType::NodeJoined)).await;
    assert_eq!(numbers(&log, &Selection::default()).await, (16..=26).collect::<Vec<_>>());
}

/// Gives the database no more room than it has, or all that it wants.
fn set_room(log: &EventLog, has_room: bool) {
    log.store
        .call_blocking(|c| {
            let pages: i64 = c.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            let most = if has_room { i64::from(u32::MAX - 1) } else { pages };
            c.query_row(&format!("PRAGMA max_page_count = {most}"), [], |row| row.get::<_, i64>(0))
        })
        .map(drop)
        .expect("sets");
}

#[tokio::test(start_paused = true)]
async fn what_happens_while_the_disk_is_full_is_told_in_order_when_it_is_not() {
    let log = log_with(3, 10_000).await;
    set_room(&log, false);
    let mut head = log.head();
    head.mark_unchanged();
    // Each fills pages of its own; one that is told again is still told once.
    let big = |name: &str| {
        let small = of("full", name, EventType::StepFailed);
        NewEvent { message: "x".repeat(20_000), ..small }
    };
    for name in ["node b", "node c", "node c", "node d"] {
        let told = Told::once("s", name);
        log.record_once(big(name), told).await;
    }
    assert!(!head.has_changed().expect("the log lives"), "nothing is stored");
    let before = jiff::Timestamp::now();
    set_room(&log, true);
    let all = head.wait_for(|head| *head == 6);
    let all = tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("in time");
    drop(all.expect("the log lives"));
    let page = log.page(4, &Selection::default()).await.expect("reads");
    let told: Vec<_> = page.events.iter().map(|event| event.object.as_str()).collect();
    assert_eq!(told, ["node b", "node c", "node d"]);
    let is_before = |event: &Event| {
        let time = event.time.expect("it has one");
        (time.seconds, time.nanos) <= (before.as_second(), before.subsec_nanosecond())
    };
    assert!(page.events.iter().all(is_before), "the times at which they happened");
    log.record(of("full", "node e", EventType::StepDone)).await;
    assert_eq!(*log.head().borrow(), 7);
}

#[test]
fn of_too_many_the_first_wait_and_the_rest_is_counted() {
    let mut waiting = Waiting::default();
    for _ in 0..1003 {
        waiting.add(Unwritten::new(of("a", "node a", EventType::StepFailed), None));
    }
    let all: Vec<_> = std::iter::from_fn(|| waiting.take_next()).map(|it| it.event).collect();
    assert_eq!(all.len(), 1001);
    let last = all.last().expect("there are some");
    assert_eq!(last.kind, EventType::EventsLeftOut);
    assert!(last.message.starts_with("3 more"), "{}", last.message);
    assert!(waiting.take_next().is_none());
}

#[tokio::test]
async fn tail_counts_what_fits() {
    let log = log_with(10, 100).await;
    let even = Selection::of_cluster("even");
    assert_eq!(log.tail_start(2, 0, &even).await.expect("reads"), Some(8));
    assert_eq!(log.page(8, &even).await.expect("reads").events.len(), 2);
    assert_eq!(log.tail_start(u64::MAX, 0, &even).await.expect("reads"), Some(2));
    assert_eq!(log.tail_start(u64::MAX, 5, &even).await.expect("reads"), Some(6));
    assert_eq!(log.tail_start(0, 0, &even).await.expect("reads"), None);
    assert_eq!(log.tail_start(2, 0, &Selection::of_cluster("none")).await.expect("reads"), None);
}

#[tokio::test]
async fn there_is_nothing_behind_the_last_number() {
    let log = log_with(3, 100).await;
    for from in [4, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        let page = log.page(from, &Selection::default()).await.expect("reads");
        assert_eq!((page.events, page.has_more, page.next), (Vec::new(), false, from));
    }
    // What fits nowhere is looked through once.
    let page = log.page(1, &Selection::of_cluster("none")).await.expect("reads");
    assert_eq!((page.events, page.next), (Vec::new(), 4));
}

#[tokio::test]
async fn a_nodes_events_are_also_those_of_its_vm_and_disk() {
    let log = log_with(0, 100).await;
    let id = uuid::Uuid::now_v7().to_string();
    let disk = |node: &str| format!("volume {}", volume_name(&id, node));
    for object in [
        "node worker-1".to_owned(),
        "domain worker-1".to_owned(),
        disk("worker-1"),
        "node worker-10".to_owned(),
        disk("worker-10"),
        "network worker-1".to_owned(),
        "volume worker-1".to_owned(),
        "host".to_owned(),
        disk("my-worker-1"),
    ] {
        log.record(of("home", &object, EventType::VMStarted)).await;
    }
    let node = |name: &str| Selection { node: name.to_owned(), ..Selection::default() };
    assert_eq!(numbers(&log, &node("worker-1")).await, [1, 2, 3]);
    assert_eq!(numbers(&log, &node("worker-10")).await, [4, 5]);
    assert_eq!(numbers(&log, &node("worker")).await, Vec::<u64>::new());
    let other = Selection { node: "worker-1".to_owned(), ..Selection::of_cluster("other") };
    assert_eq!(numbers(&log, &other).await, Vec::<u64>::new());
    // What was refused may call itself anything.
    log.record(of("", "node stranger", EventType::JoinRefused)).await;
    assert_eq!(log.nodes("").await.expect("reads"), ["my-worker-1", "worker-1", "worker-10"]);
    assert_eq!(log.nodes("other").await.expect("reads"), Vec::<String>::new());
}

#[tokio::test]
async fn types_narrow_it_down() {
    let log = log_with(0, 100).await;
    let kinds = [EventType::StepDone, EventType::StepFailed, EventType::NodeJoined, EventType::StepFailed];
    for kind in kinds {
        log.record(of("home", "node a", kind)).await;
    }
    let types = |types: &[EventType]| Selection { types: types.to_vec(), ..Selection::default() };
    assert_eq!(numbers(&log, &types(&[EventType::StepFailed])).await, [2, 4]);
    assert_eq!(numbers(&log, &types(&[EventType::NodeJoined, EventType::StepDone])).await, [1, 3]);
    let both = Selection { node: "a".to_owned(), ..types(&[EventType::StepFailed, EventType::StepDone]) };
    assert_eq!(log.tail_start(2, 0, &both).await.expect("reads"), Some(2));
}

#[tokio::test]
async fn the_last_of_each_object_is_found() {
    use EventType::{VMDefined, VMDeleted, VMStarted};
    let log = log_with(0, 100).await;
    let told = [
        ("home", "domain a", VMStarted),
        ("home", "domain b", VMDeleted),
        ("home", "domain a", VMDeleted),
        ("home", "domain b", VMStarted),
        ("home", "domain b", VMDefined),
        ("other", "domain a", VMStarted),
    ];
    for (cluster, object, kind) in told {
        log.record(of(cluster, object, kind)).await;
    }
    let last = log.last_of("home", &[VMStarted, VMDeleted]).await.expect("reads");
    let expected = [("domain a", VMDeleted), ("domain b", VMStarted)];
    assert_eq!(last, HashMap::from(expected.map(|(object, kind)| (object.to_owned(), kind))));
    assert!(log.last_of("home", &[EventType::NodeJoined]).await.expect("reads").is_empty());
}

#[tokio::test]
async fn since_is_exact_and_holds_nothing_back_that_comes_later() {
    let log = log_with(4, 100).await;
    let second = jiff::Timestamp::from_second(1_800_000_000).expect("a time");
    let nanosecond = jiff::SignedDuration::from_nanos(1);
    // As text with as few digits as possible, ".5Z" would come behind ".500000001Z".
    let half = second + jiff::SignedDuration::from_millis(500);
    for (number, time) in [(1, second), (2, half - nanosecond), (3, half), (4, half + nanosecond)] {
        set_time(&log, number, time);
    }
    let since = |moment| {
        let since = Some(Since { moment, stored: 4 });
        Selection { since, ..Selection::default() }
    };
    assert_eq!(numbers(&log, &since(half)).await, [3, 4]);
    assert_eq!(numbers(&log, &since(half + nanosecond)).await, [4]);
    assert_eq!(numbers(&log, &since(second)).await, [1, 2, 3, 4]);
    assert_eq!(log.tail_start(2, 0, &since(half)).await.expect("reads"), Some(3));
    // The clock was set back.
    log.record(of("home", "node a", EventType::NodeJoined)).await;
    set_time(&log, 5, second);
    assert_eq!(numbers(&log, &since(half)).await, [3, 4, 5]);
}

#[tokio::test]
async fn what_is_told_again_is_recorded_once() {
    let store = Store::in_memory(&[SCHEMA]).expect("opens");
    let log = EventLog::open(store.clone(), 10).await.expect("opens");
    let tell = async |log: &EventLog, source: &str, mark: u32| {
        let told = Told::once(source, mark.to_string());
        log.record_once(of("home", "node a", EventType::RepairSucceeded), told).await;
        *log.head().borrow()
    };
    assert_eq!((tell(&log, "a", 1).await, tell(&log, "a", 2).await, tell(&log, "a", 1).await), (1, 2, 2));
    assert_eq!(tell(&log, "b", 1).await, 3, "another source's is another one");
    // A restart, and events that retention has taken since: it was told nevertheless.
    let log = EventLog::open(store, 10).await.expect("opens");
    for _ in 0..20 {
        log.record(of("home", "node a", EventType::NodeJoined)).await;
    }
    assert_eq!(tell(&log, "a", 2).await, 23);
    // Of one that tells more and more the last ones are kept, and others' marks are not its to take.
    for mark in 3..1000 {
        tell(&log, "a", mark).await;
    }
    let head = *log.head().borrow();
    for mark in 1000 - MARKS..1000 {
        assert_eq!(tell(&log, "a", mark).await, head, "{mark}");
    }
    assert_eq!(tell(&log, "b", 1).await, head);
    let marks: i64 = log
        .store
        .call_blocking(|c| c.query_row("SELECT count(*) FROM told", [], |row| row.get(0)))
        .expect("counts");
    assert_eq!(marks, i64::from(MARKS) + 1);
    log.forget("a").await.expect("forgets");
    assert_eq!(tell(&log, "a", 999).await, head + 1);
}

#[tokio::test]
async fn of_turns_the_last_one_counts() {
    let store = Store::in_memory(&[SCHEMA]).expect("opens");
    let tell = async |turn: &str, first: First| {
        // Each by another life of the host agent.
        let log = EventLog::open(store.clone(), 1000).await.expect("opens");
        let before = *log.head().borrow();
        let turn_of = Turn { of: "DiskOK ".to_owned(), first };
        let told = Told { source: "a".to_owned(), mark: format!("DiskOK {turn}"), turn: Some(turn_of) };
        let event = of("home", "node a", EventType::ConditionChanged);
        log.record_once(NewEvent { warning: true, ..event }, told).await;
        let page = log.page(before + 1, &Selection::default()).await.expect("reads");
        page.events.first().map(|event| event.warning)
    };
    assert_eq!(tell("False 1", First::Calm).await, Some(false), "nothing has turned bad");
    assert_eq!(tell("False 1", First::Calm).await, None);
    assert_eq!(tell("True 2", First::Calm).await, Some(true));
    assert_eq!(tell("False 3", First::Calm).await, Some(true));
    assert_eq!(tell("False 1", First::Calm).await, Some(true), "an old turn is one again");
    let other = Told { source: "b".to_owned(), mark: "DiskOK False 1".to_owned(), turn: None };
    let log = EventLog::open(store.clone(), 1000).await.expect("opens");
    log.record_once(of("home", "node b", EventType::ConditionChanged), other).await;
    log.forget("a").await.expect("forgets");
    assert_eq!(tell("True 4", First::Untold).await, None);
    assert_eq!(tell("False 5", First::Untold).await, Some(true));
}

#[tokio::test]
async fn a_log_of_the_first_schema_is_taken_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store.db");
    let first = Schema { room: SCHEMA.room, steps: &SCHEMA.steps[..1] };
    let old = Store::open(&path, &[first]).expect("opens");
    let times = ["2026-11-28T18:00:00Z", "2026-11-28T18:00:00.5Z", "2026-11-28T18:00:00.123456789Z"];
    for time in times {
        old.call_blocking(|c| {
            let insert = "INSERT INTO event (time, cluster, object, type, message, warning)
                          VALUES (?1, 'home', 'domain a', 'VMStarted', '', 0)";
            c.execute(insert, [time])
        })
        .expect("inserts");
    }
    drop(old);
    let store = Store::open(&path, &[SCHEMA]).expect("opens again");
    let log = EventLog::open(store, 10).await.expect("opens");
    let node = Selection { node: "a".to_owned(), ..Selection::default() };
    let page = log.page(0, &node).await.expect("reads");
    let found: Vec<_> = page.events.into_iter().map(|event| event.time).collect();
    let expected = times.map(|time| Some(wire::timestamp(time.parse().expect("a time"))));
    assert_eq!(found, expected);
    let since = Since { moment: times[2].parse().expect("a time"), stored: 3 };
    assert_eq!(numbers(&log, &Selection { since: Some(since), ..Selection::default() }).await, [2, 3]);
}
