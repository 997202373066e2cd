//! The format of container logs: `TIME stdout|stderr P|F TEXT`, where a line that is longer than the runtime's buffer
//! comes in parts, all but the last marked `P`, and the parts of both streams may be mixed.

use std::collections::VecDeque;
use std::str::FromStr;

use super::export::{TEXT_LIMIT, one_line};

/// Bytes of memory of whole lines that wait for one that began before them to end.
const WAITING_LIMIT: usize = 256 * 1024;

/// One line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part<'a> {
    nanos: i64,
    is_stderr: bool,
    is_last: bool,
    text: &'a [u8],
}

impl<'a> Part<'a> {
    /// `None` means: the runtime did not write this.
    fn of(line: &'a [u8]) -> Option<Self> {
        let mut words = line.splitn(4, |&byte| byte == b' ');
        let nanos = nanos(words.next()?)?;
        let is_stderr = match words.next()? {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        // Further tags may stand behind a colon.
        let is_last = match words.next()?.split(|&byte| byte == b':').next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { nanos, is_stderr, is_last, text: words.next().unwrap_or_default() })
    }
}

/// The time at the beginning of a line.
pub fn nanos(word: &[u8]) -> Option<i64> {
    let time = jiff::Timestamp::from_str(std::str::from_utf8(word).ok()?).ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// A line as the program in the container wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was begun, in nanoseconds since 1970.
    pub nanos: i64,
    /// Of at most [`TEXT_LIMIT`] bytes, with a mark where it was cut.
    pub text: String,
    /// Where reading can go on so that nothing is lost.
    pub offset: u64,
    /// Lines behind that offset that have been read, this one included.
    pub done: u32,
}

#[derive(Debug)]
struct Waiting {
    nanos: i64,
    is_stderr: bool,
    is_whole: bool,
    text: Vec<u8>,
    is_cut: bool,
    /// Behind its last part.
    end: u64,
}

impl Waiting {
    /// Bytes of memory, about: of empty lines there may be any number.
    fn cost(&self) -> usize {
        self.text.len() + size_of::<Self>()
    }
}

/// Makes lines of parts, in the order in which they began.
#[derive(Debug, Default)]
pub struct Joiner {
    waiting: VecDeque<Waiting>,
    /// What those that are whole cost.
    bytes: usize,
    /// Time of the newest line; what has none takes it.
    newest: i64,
    /// Behind the last part.
    end: u64,
    /// Lines given out since nothing was waiting.
    done: u32,
    /// Where nothing was waiting last.
    safe: u64,
}

impl Joiner {
    /// Goes on at this offset, with lines up to this time read before.
    pub fn at(offset: u64, newest: i64) -> Self {
        Self { end: offset, safe: offset, newest, ..Self::default() }
    }

    /// Behind the last part of the line that all others wait for, since its end is missing; `None` where none is.
    pub fn waits_behind(&self) -> Option<u64> {
        self.waiting.front().map(|first| first.end)
    }

    /// Takes the next line of the file, without its line break, and where the one behind it begins; adds what becomes
    /// whole.
    pub fn push(&mut self, line: &[u8], end: u64, lines: &mut Vec<Line>) {
        let offset = std::mem::replace(&mut self.end, end);
        if self.waiting.is_empty() {
            self.safe = offset;
            self.done = 0;
        }
        let part = Part::of(line).unwrap_or(Part {
            nanos: self.newest,
            is_stderr: false,
            is_last: true,
            text: line,
        });
        self.newest = self.newest.max(part.nanos);
        let begun = self.waiting.iter_mut().find(|it| !it.is_whole && it.is_stderr == part.is_stderr);
        let it = match begun {
            Some(begun) => begun,
            None => {
                self.waiting.push_back(Waiting {
                    nanos: part.nanos,
                    is_stderr: part.is_stderr,
                    is_whole: false,
                    text: Vec::new(),
                    is_cut: false,
                    end,
                });
                let Some(last) = self.waiting.back_mut() else { return };
                last
            }
        };
        let kept = part.text.len().min(TEXT_LIMIT - it.text.len());
        it.text.extend_from_slice(&part.text[..kept]);
        it.is_cut |= kept < part.text.len();
        it.end = end;
        it.is_whole = part.is_last;
        if it.is_whole {
            self.bytes += it.cost();
        }
        if self.bytes > WAITING_LIMIT {
            self.finish_first(lines);
        }
        self.take_whole(lines);
    }

    /// Gives out the line that all others wait for, as it is: its end may never come.
    pub fn finish_first(&mut self, lines: &mut Vec<Line>) {
        if let Some(first) = self.waiting.front_mut().filter(|first| !first.is_whole) {
            first.is_whole = true;
            self.bytes += first.cost();
        }
        self.take_whole(lines);
    }

    /// Gives out what waits, as it is: its end does not come.
    pub fn finish(&mut self, lines: &mut Vec<Line>) {
        for it in &mut self.waiting {
            if !it.is_whole {
                it.is_whole = true;
                self.bytes += it.cost();
            }
        }
        self.take_whole(lines);
    }

    fn take_whole(&mut self, lines: &mut Vec<Line>) {
        while self.waiting.front().is_some_and(|it| it.is_whole) {
            let Some(it) = self.waiting.pop_front() else { return };
            self.bytes -= it.cost();
            self.done += 1;
            // Where one is left, parts of both may be anywhere behind the place where nothing waited.
            let (offset, done) = if self.waiting.is_empty() { (self.end, 0) } else { (self.safe, self.done) };
            lines.push(Line { nanos: it.nanos, text: one_line(it.text, it.is_cut), offset, done });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::export::CUT;
    use super::*;

    /// What becomes of a file from an offset on, with the first so many lines left out.
    fn read(file: &str, from: u64, done: usize) -> Vec<Line> {
        let (mut joiner, mut lines) = (Joiner::at(from, 0), Vec::new());
        let mut end = from;
        for line in file[usize::try_from(from).expect("it fits")..].split_inclusive('\n') {
            end += line.len() as u64;
            joiner.push(line.trim_end_matches('\n').as_bytes(), end, &mut lines);
        }
        joiner.finish(&mut lines);
        lines.split_off(done.min(lines.len()))
    }

    fn part(second: u32, rest: &str) -> String {
        format!("2026-11-24T10:00:{second:02}.5Z {rest}\n")
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn parts_become_lines_in_the_order_in_which_they_began() {
        let file = [
            part(1, "stdout F one two"),
            part(2, "stderr P a"),
            part(3, "stdout P b"),
            part(4, "stdout F"),
            part(5, "stderr P:x a"),
            part(6, "stderr F:x  c"),
            part(7, "stdout F "),
        ]
        .concat();
        let lines = read(&file, 0, 0);
        assert_eq!(texts(&lines), ["one two", "aa c", "b", ""]);
        let seconds: Vec<i64> = lines.iter().map(|line| line.nanos / 1_000_000_000 % 60).collect();
        assert_eq!(seconds, [1, 2, 3, 7]);
    }

    #[test]
    fn reading_goes_on_behind_any_line_without_loss() {
        let file = [
            part(1, "stderr P s1"),
            part(1, "stdout P t1"),
            part(2, "stderr F s2"),
            part(3, "stderr F u"),
            part(4, "stdout F t2"),
            part(5, "stdout F v"),
        ]
        .concat();
        let lines = read(&file, 0, 0);
        assert_eq!(texts(&lines), ["s1s2", "t1t2", "u", "v"]);
        for (place, line) in lines.iter().enumerate() {
            let rest = read(&file, line.offset, line.done as usize);
            assert_eq!(texts(&rest), texts(&lines[place + 1..]), "behind {line:?}");
        }
    }

    #[test]
    fn what_the_runtime_did_not_write_is_a_line_of_the_time_before_it() {
        let file =
            [part(1, "stdout F a"), "garbage\n".to_owned(), part(2, "other F b"), "\n".to_owned()].concat();
        let lines = read(&file, 0, 0);
        assert_eq!(texts(&lines), ["a", "garbage", "2026-11-24T10:00:02.5Z other F b", ""]);
        assert!(lines.iter().all(|line| line.nanos == lines[0].nanos));
    }

    #[test]
    fn a_line_without_end_is_bounded_and_holds_the_others_up_only_so_long() {
        let long = part(1, &format!("stdout P {}", "x".repeat(16 * 1024)));
        let lines = read(&long.repeat(4), 0, 0);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].text.len(), TEXT_LIMIT + CUT.len());

        let (mut joiner, mut lines) = (Joiner::default(), Vec::new());
        joiner.push(part(1, "stdout P a").trim_end().as_bytes(), 1, &mut lines);
        for end in 2..60 {
            joiner.push(
                part(2, &format!("stderr F {}", "y".repeat(8 * 1024))).trim_end().as_bytes(),
                end,
                &mut lines,
            );
        }
        assert_eq!((lines.len(), lines[0].text.as_str()), (59, "a"));
        assert_eq!(joiner.waits_behind(), None);

        // Lines without any text take memory too.
        let (mut joiner, mut lines) = (Joiner::default(), Vec::new());
        joiner.push(part(1, "stdout P a").trim_end().as_bytes(), 1, &mut lines);
        let empty = part(2, "stderr F");
        for end in 2..10_000 {
            joiner.push(empty.trim_end().as_bytes(), end, &mut lines);
        }
        assert_eq!((lines.len(), joiner.bytes), (9_999, 0));
    }

    #[test]
    fn times_of_other_zones_are_times() {
        assert_eq!(nanos(b"2026-11-24T11:00:00.000000001+01:00"), nanos(b"2026-11-24T10:00:00.000000001Z"));
        assert_eq!(nanos(b"soon"), None);
    }
}
