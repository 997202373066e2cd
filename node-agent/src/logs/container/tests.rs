//! Files that are written, rotated, packed and removed while they are read.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::*;

/// A container's directory, written like its runtime does.
struct Written {
    dir: tempfile::TempDir,
    next: u32,
}

impl Written {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), next: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes lines that count on.
    fn write(&mut self, name: &str, lines: u32) {
        let mut file = fs::File::options().append(true).create(true).open(self.path(name)).expect("opened");
        for _ in 0..lines {
            writeln!(file, "2026-11-24T10:00:00.{:09}Z stdout F {}", self.next, self.next).expect("written");
            self.next += 1;
        }
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    fn pack(&self, name: &str) {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&fs::read(self.path(name)).expect("read")).expect("packed");
        fs::write(self.path(&format!("{name}.gz")), packed.finish().expect("packed")).expect("written");
        fs::remove_file(self.path(name)).expect("removed");
    }

    fn container(&self) -> Container {
        Container::new(self.dir.path().to_owned())
    }

    fn resume(&self, position: FilePosition) -> Container {
        Container::resume(self.dir.path().to_owned(), position).expect("resumed")
    }
}

/// All that is there, as often as it takes a follower to believe it.
fn read(container: &mut Container, pass: Pass) -> Vec<Read> {
    let mut lines = Vec::new();
    let mut quiet = 0;
    while quiet <= 2 * LAST_LOOKS {
        quiet = if container.read(pass, &mut lines).expect("read") { 0 } else { quiet + 1 };
    }
    lines
}

fn numbers(lines: &[Read]) -> Vec<u32> {
    lines.iter().map(|line| line.text.parse().expect("a number")).collect()
}

fn count(numbers: std::ops::Range<u32>) -> Vec<u32> {
    numbers.collect()
}

#[test]
fn all_files_are_one_log() {
    let mut written = Written::new();
    written.write("0.log", 3);
    written.write("1.log", 3);
    written.rename("1.log", "1.log.20261124-100000");
    written.write("1.log", 3);
    written.rename("1.log", "1.log.20261124-110000");
    written.write("1.log", 3);
    written.pack("1.log.20261124-100000");
    assert_eq!(numbers(&read(&mut written.container(), Pass::Whole)), count(0..12));
}

#[test]
fn a_log_is_followed_through_rotation_packing_and_restarts() {
    let mut written = Written::new();
    let mut container = written.container();
    assert_eq!(read(&mut container, Pass::Following), []);
    written.write("0.log", 2);
    assert_eq!(numbers(&read(&mut container, Pass::Following)), [0, 1]);
    written.rename("0.log", "0.log.20261124-100000");
    // The runtime has not noticed yet.
    written.write("0.log.20261124-100000", 1);
    assert_eq!(numbers(&read(&mut container, Pass::Following)), [2]);
    written.write("0.log", 1);
    assert_eq!(numbers(&read(&mut container, Pass::Following)), [3]);
    written.write("0.log", 1);
    written.rename("0.log", "0.log.20261124-110000");
    written.pack("0.log.20261124-110000");
    written.write("0.log", 1);
    written.write("1.log", 1);
    fs::remove_file(written.path("0.log.20261124-100000")).expect("removed");
    assert_eq!(numbers(&read(&mut container, Pass::Following)), [4, 5, 6]);
}

#[test]
fn a_container_that_ended_without_a_word_is_no_end_of_the_log() {
    let mut written = Written::new();
    written.write("0.log", 3);
    written.write("1.log", 0);
    written.write("2.log", 2);
    for pass in [Pass::Whole, Pass::BeforeFollowing, Pass::Following] {
        assert_eq!(numbers(&read(&mut written.container(), pass)), count(0..5), "{pass:?}");
    }
    let (mut tail, found) = Container::tail(written.dir.path().to_owned(), 4, |_| true).expect("found");
    assert_eq!((numbers(&read(&mut tail, Pass::Whole)), found), (count(0..5), 5));
    // The same behind a file that was rotated away meanwhile.
    let mut container = written.container();
    let mut lines = Vec::new();
    while lines.len() < 3 {
        container.read(Pass::Following, &mut lines).expect("read");
    }
    fs::remove_file(written.path("0.log")).expect("removed");
    assert_eq!(numbers(&read(&mut container, Pass::Following)), [3, 4]);
}

#[test]
fn reading_goes_on_behind_any_line_whatever_became_of_its_file() {
    let mut written = Written::new();
    written.write("0.log", 5);
    written.rename("0.log", "0.log.20261124-100000");
    written.write("0.log", 5);
    let lines = read(&mut written.container(), Pass::Whole);
    let positions: Vec<FilePosition> = lines.iter().map(|line| line.position).collect();
    let all_resume = |written: &Written, total: u32| {
        for (place, position) in positions.iter().enumerate() {
            let rest = read(&mut written.resume(*position), Pass::Whole);
            let expected = count(place as u32 + 1..total);
            assert_eq!(numbers(&rest), expected, "behind line {place}");
        }
    };
    all_resume(&written, 10);
    written.rename("0.log", "0.log.20261124-110000");
    written.write("0.log", 5);
    all_resume(&written, 15);
    written.pack("0.log.20261124-110000");
    written.write("1.log", 5);
    all_resume(&written, 20);
}

#[test]
fn another_file_with_the_same_number_is_not_taken_for_the_old_one() {
    let mut written = Written::new();
    written.write("0.log", 3);
    let position = read(&mut written.container(), Pass::Whole)[1].position;
    // In place: the number stays, the content is another.
    fs::write(written.path("0.log"), "").expect("emptied");
    written.next = 100;
    written.write("0.log", 5);
    assert_eq!(numbers(&read(&mut written.resume(position), Pass::Whole)), count(100..105));
}

#[test]
fn an_emptied_file_is_read_from_its_beginning() {
    let mut written = Written::new();
    written.write("0.log", 3);
    let mut container = written.container();
    assert_eq!(numbers(&read(&mut container, Pass::Following)), [0, 1, 2]);
    fs::write(written.path("0.log"), "").expect("emptied");
    assert_eq!(read(&mut container, Pass::Following), []);
    written.write("0.log", 1);
    let lines = read(&mut container, Pass::Following);
    assert_eq!(numbers(&lines), [3]);
    written.write("0.log", 1);
    assert_eq!(numbers(&read(&mut written.resume(lines[0].position), Pass::Whole)), [4]);
}

#[test]
fn the_end_is_found_over_several_files() {
    let mut written = Written::new();
    written.write("0.log", 10);
    written.write("1.log", 10);
    written.write("2.log", 10);
    let tail = |lines: u64, modulo: u32| {
        let passes = |line: &Read| line.text.parse::<u32>().expect("a number").is_multiple_of(modulo);
        let dir = written.dir.path().to_owned();
        let (mut container, count) = Container::tail(dir, lines, passes).expect("read");
        let lines = read(&mut container, Pass::Whole);
        let passing = lines.iter().filter(|line| passes(line)).count() as u64;
        assert_eq!(passing, count);
        (numbers(&lines)[0], count)
    };
    assert_eq!(tail(0, 1), (20, 10));
    assert_eq!(tail(10, 1), (20, 10));
    assert_eq!(tail(11, 1), (10, 20));
    assert_eq!(tail(5, 5), (0, 6));
    assert_eq!(tail(1000, 1), (0, 30));
    let none = Container::tail(Path::new("/nonexistent").to_owned(), 1, |_| true);
    none.expect_err("there is no such directory");
}

#[test]
fn where_nothing_was_read_yet_reading_begins_where_it_would_have() {
    let mut written = Written::new();
    written.write("0.log", 4);
    written.write("1.log", 4);
    let (tail, _) = Container::tail(written.dir.path().to_owned(), 2, |_| true).expect("read");
    assert_eq!(numbers(&read(&mut written.resume(tail.position()), Pass::Whole)), count(4..8));
    let empty = Written::new();
    assert_eq!(read(&mut empty.resume(empty.container().position()), Pass::Whole), []);
}

#[test]
fn a_line_without_end_is_waited_for_while_following_and_shown_by_who_does_not() {
    let written = Written::new();
    let path = written.path("0.log");
    fs::write(&path, "2026-11-24T10:00:00Z stdout P half\n2026-11-24T10:00:01Z stdo").expect("written");
    let mut follower = written.container();
    assert_eq!(read(&mut follower, Pass::Following), []);
    let shown = read(&mut written.container(), Pass::Whole);
    assert_eq!(shown.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["half"]);
    let mut file = fs::File::options().append(true).open(&path).expect("opened");
    file.write_all(b"ut F  and half\n").expect("written");
    let whole = read(&mut follower, Pass::Following);
    assert_eq!(whole.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["half and half"]);
}

#[test]
fn who_is_about_to_follow_leaves_a_line_without_end_for_then() {
    let written = Written::new();
    let path = written.path("0.log");
    fs::write(&path, "2026-11-24T10:00:00Z stdout P half\n").expect("written");
    let mut follower = written.container();
    assert_eq!(read(&mut follower, Pass::BeforeFollowing), []);
    let mut file = fs::File::options().append(true).open(&path).expect("opened");
    file.write_all(b"2026-11-24T10:00:01Z stdout F  and half\n").expect("written");
    assert_eq!(texts(&read(&mut follower, Pass::Following)), ["half and half"]);
}

#[test]
fn a_line_without_end_holds_others_up_for_a_moment_only() {
    let written = Written::new();
    let path = written.path("0.log");
    let mut file = fs::File::options().append(true).create(true).open(&path).expect("opened");
    let mut follower = written.container();
    file.write_all(b"2026-11-24T10:00:00Z stdout P half\n2026-11-24T10:00:01Z stderr F one\n")
        .expect("written");
    assert_eq!(read(&mut follower, Pass::Following), []);
    let (behind, _) = follower.waiting.expect("it waits");
    follower.waiting = Some((behind, Instant::now().checked_sub(2 * PATIENCE).expect("it runs longer")));
    // It is not quiet: only that line is.
    file.write_all(b"2026-11-24T10:00:02Z stderr F two\n2026-11-24T10:00:03Z stderr P th").expect("written");
    file.write_all(b"r\n").expect("written");
    assert_eq!(texts(&read(&mut follower, Pass::Following)), ["half", "one", "two"]);
    file.write_all(b"2026-11-24T10:00:04Z stderr F ee\n").expect("written");
    assert_eq!(texts(&read(&mut follower, Pass::Following)), ["three"]);
}

fn texts(lines: &[Read]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}
