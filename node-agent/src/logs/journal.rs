//! Entries from journald, read by `journalctl`, which never ends while it follows.
//!
//! The one place that starts a program itself: [`k8sctl_command::Program`] keeps the whole output, and this one may be
//! without end. The pipe is the back-pressure; dropping a [`Reading`] kills the program.
//!
//! journalctl selects by unit and finds the place to begin; times are its coarse filter only, since what it takes for
//! times differs between its releases. The exact one is [`super::filter`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use k8sctl_types::logs::merge::Micros;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::LogError;
use super::cursor::JournalPosition;
use super::export::{Entry, Parser};
use super::filter::Filter;

/// Longest end of the error output that is kept.
const ERROR_LIMIT: u64 = 4 * 1024;
/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;
/// How much earlier than asked for journalctl begins, in seconds.
const MARGIN: i64 = 2;
/// How far behind the moment where it may end journalctl goes on, in seconds: it ends with the first entry there, and
/// where a clock was wrong for a while such entries stand before others that are wanted.
const WRONG_CLOCK: i64 = 24 * 60 * 60;

/// Which journal is read, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journalctl {
    /// The program.
    pub program: PathBuf,
    /// A directory with files of a journal. `None` means: this machine's own journal.
    pub directory: Option<PathBuf>,
}

impl Journalctl {
    /// This machine's own journal, by this program.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), directory: None }
    }

    /// The argument that names the journal, where it is not this machine's.
    fn directory_argument(&self) -> Option<OsString> {
        let directory = self.directory.as_ref()?;
        let mut argument = OsString::from("--directory=");
        argument.push(directory);
        Some(argument)
    }
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest entry, or with those of this moment.
    Time(Option<Micros>),
    /// With the entry of this cursor, or, where that is gone, with the next.
    At(String),
    /// Behind the entry of this cursor.
    Behind(String),
    /// With so many entries before the end.
    Last(u64),
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Where.
    pub start: Start,
    /// No entries behind this moment are needed.
    pub until: Option<Micros>,
    /// Wait for further entries.
    pub follow: bool,
    /// The newest first.
    pub reverse: bool,
}

impl Query {
    fn arguments(&self, matches: &[String]) -> Vec<String> {
        let seconds = |micros: Micros| micros.div_euclid(1_000_000);
        let mut arguments: Vec<String> = [
            "--quiet",
            "--no-pager",
            "--all",
            "--output=export",
            "--output-fields=MESSAGE,_SYSTEMD_UNIT,UNIT,_TRANSPORT",
        ]
        .map(str::to_owned)
        .to_vec();
        let (before, behind) = if self.reverse { (WRONG_CLOCK, MARGIN) } else { (MARGIN, WRONG_CLOCK) };
        match &self.start {
            Start::Time(since) => {
                if let Some(since) = since.map(|since| seconds(since) - before).filter(|since| *since > 0) {
                    arguments.push(format!("--since=@{since}"));
                }
            }
            // Where the entry itself is gone, `--after-cursor` leaves out the one behind it.
            Start::At(cursor) | Start::Behind(cursor) => arguments.push(format!("--cursor={cursor}")),
            // journalctl reads an int; nobody has more entries than that.
            Start::Last(lines) => arguments.push(format!("--lines={}", lines.min(&(i32::MAX as u64)))),
        }
        if let Some(until) = self.until.map(|until| (seconds(until) + behind).max(1)) {
            arguments.push(format!("--until=@{until}"));
        }
        if self.follow {
            arguments.push("--follow".to_owned());
            arguments.push("--no-tail".to_owned());
        }
        if self.reverse {
            arguments.push("--reverse".to_owned());
        }
        arguments.extend_from_slice(matches);
        arguments
    }
}

/// A journalctl that runs.
#[derive(Debug)]
pub struct Reading {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
    parser: Parser,
    /// Left out: it is the first, unless the journal does not have it any more.
    left_out: Option<String>,
    /// The journal does not have it any more.
    missed: Option<String>,
}

impl Reading {
    /// Starts it.
    pub fn start(journalctl: &Journalctl, query: &Query, matches: &[String]) -> Result<Self, LogError> {
        let program: &Path = &journalctl.program;
        let start = |source| LogError::Start { program: program.display().to_string(), source };
        #[expect(
            clippy::disallowed_methods,
            reason = "Program keeps the whole output; this one may never end"
        )]
        let mut child = Command::new(program)
            .args(journalctl.directory_argument())
            .args(query.arguments(matches))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both are piped above")
        };
        let left_out = match &query.start {
            Start::Behind(cursor) => Some(cursor.clone()),
            _ => None,
        };
        let stdout = BufReader::with_capacity(READ_BYTES, stdout);
        Ok(Self { child, stdout, stderr, parser: Parser::default(), left_out, missed: None })
    }

    /// The entry behind which it was to begin, where the journal does not have it any more; told once, with the first
    /// entries or the end.
    pub fn missed(&mut self) -> Option<String> {
        self.missed.take()
    }

    /// The next entries, one at least; `None` when it has ended well. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, LogError> {
        let read = |source| LogError::Read { what: "the output of journalctl".to_owned(), source };
        let mut entries = Vec::new();
        loop {
            let bytes = self.stdout.fill_buf().await.map_err(read)?;
            if bytes.is_empty() {
                break;
            }
            self.parser.feed(bytes, &mut entries);
            let length = bytes.len();
            self.stdout.consume(length);
            if let Some(first) = entries.first()
                && let Some(left_out) = self.left_out.take()
            {
                if left_out == first.cursor {
                    entries.remove(0);
                } else {
                    self.missed = Some(left_out);
                }
            }
            if !entries.is_empty() {
                return Ok(Some(entries));
            }
        }
        let mut says = String::new();
        // What it cannot say does not matter when it ended well.
        let _ = (&mut self.stderr).take(ERROR_LIMIT).read_to_string(&mut says).await;
        if self.child.wait().await.map_err(read)?.success() {
            self.missed = self.missed.take().or_else(|| self.left_out.take());
            return Ok(None);
        }
        Err(LogError::Failed { program: "journalctl".to_owned(), says: says.trim().to_owned() })
    }
}

/// When the entry of a cursor was written, in microseconds since 1970.
pub fn moment_of(cursor: &str) -> Option<Micros> {
    let hex = cursor.split(';').find_map(|part| part.strip_prefix("t="))?;
    Micros::from_str_radix(hex, 16).ok()
}

/// The last entries that pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Where they begin.
    pub start: Start,
    /// How many they are.
    pub lines: u64,
}

/// Finds the last `lines` entries that pass the filter, or all where there are fewer, without keeping them.
pub async fn tail(
    journalctl: &Journalctl,
    matches: &[String],
    filter: &Filter,
    lines: u64,
) -> Result<Tail, LogError> {
    let start = Start::Time(filter.since);
    let query = Query { start: start.clone(), until: filter.until, follow: false, reverse: true };
    let mut reading = Reading::start(journalctl, &query, matches)?;
    let mut found = Tail { start, lines: 0 };
    while let Some(entries) = reading.next().await? {
        for entry in entries {
            if lines == 0 {
                return Ok(Tail { start: Start::Behind(entry.cursor), lines });
            }
            if filter.accepts(entry.micros, &entry.text) {
                found = Tail { start: Start::At(entry.cursor), lines: found.lines + 1 };
            }
            if found.lines == lines {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// Whether the journal has any entry of these.
pub async fn has_entries(journalctl: &Journalctl, matches: &[String]) -> Result<bool, LogError> {
    let query = Query { start: Start::Last(1), until: None, follow: false, reverse: false };
    Ok(Reading::start(journalctl, &query, matches)?.next().await?.is_some())
}

impl From<&JournalPosition> for Start {
    fn from(position: &JournalPosition) -> Self {
        match position {
            JournalPosition::Behind(cursor) => Self::Behind(cursor.clone()),
            JournalPosition::At(cursor) => Self::At(cursor.clone()),
            JournalPosition::From(moment) => Self::Time(Some(*moment)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_tells_when_its_entry_was_written() {
        let cursor = "s=6c0e;i=4f;b=9b1d;m=1a2b;t=60a24181e4000;x=5e";
        assert_eq!(moment_of(cursor), Some(0x6_0a24_181e_4000));
        assert_eq!((moment_of("s=1;i=2"), moment_of("t=x"), moment_of("")), (None, None, None));
    }

    #[test]
    fn a_query_becomes_arguments() {
        let query = |start, until| Query { start, until, follow: false, reverse: false };
        let line = |query: Query| query.arguments(&["_TRANSPORT=kernel".to_owned()]).join(" ");
        let whole = line(query(Start::Time(None), None));
        assert!(whole.contains(" --output=export ") && whole.ends_with("UNIT,_TRANSPORT _TRANSPORT=kernel"));
        let timed = line(query(Start::Time(Some(100_999_999)), Some(200_000_001)));
        assert!(timed.ends_with(" --since=@98 --until=@86600 _TRANSPORT=kernel"), "{timed}");
        let backwards =
            Query { reverse: true, ..query(Start::Time(Some(90_000_000_000)), Some(90_000_000_001)) };
        let backwards = line(backwards);
        assert!(
            backwards.ends_with(" --since=@3600 --until=@90002 --reverse _TRANSPORT=kernel"),
            "{backwards}"
        );
        // Before 1970 there is nothing to leave out, and a number below 1 is no time.
        let early = line(query(Start::Time(Some(-5)), Some(-90_000_000_000)));
        assert!(early.ends_with("UNIT,_TRANSPORT --until=@1 _TRANSPORT=kernel"), "{early}");
        for start in [Start::At("s=1".to_owned()), Start::Behind("s=1".to_owned())] {
            let follow = line(Query { follow: true, ..query(start, None) });
            assert!(follow.ends_with(" --cursor=s=1 --follow --no-tail _TRANSPORT=kernel"), "{follow}");
        }
        let last = line(query(Start::Last(3_000_000_000), None));
        assert!(last.contains(" --lines=2147483647 "), "journalctl's int: {last}");
    }
}
