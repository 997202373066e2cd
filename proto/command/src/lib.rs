//! Runs a program with a deadline and keeps its evidence: argv, exit status and the end of its output.
//!
//! The one place that starts programs. Secrets go in by standard input or by file, never by argv.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

/// How much of the end of the output is kept as evidence, in bytes.
const TAIL_LIMIT: usize = 8 * 1024;
/// Stands for a line that is longer, where nothing came after it.
const LONG_LINE: &str = "(a line of more than 8 KiB)\n";

/// The last whole lines of a text, of at most so many bytes. In half a line nobody knows a secret by its name any more, so
/// that it could not be taken out of a support bundle: of a last line that is longer, nothing is left.
pub fn last_lines(text: &str, limit: usize) -> &str {
    let Some(surplus) = text.len().checked_sub(limit).filter(|surplus| *surplus > 0) else { return text };
    // With the byte before the limit: where that is a newline, the line behind it is whole.
    let from = surplus - 1;
    text.as_bytes()[from..].iter().position(|&byte| byte == b'\n').map_or("", |at| &text[from + at + 1..])
}

/// The last whole lines of a file, of at most so many bytes, and whether there is more before them.
pub fn end_of_file(path: &Path, limit: u64) -> io::Result<(String, bool)> {
    let mut file = File::open(path)?;
    let begin = file.metadata()?.len().saturating_sub(limit);
    // With the byte before the limit, as in `last_lines`.
    let from = begin.saturating_sub(1);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(limit + (begin - from)).read_to_end(&mut bytes)?;
    if begin > 0 {
        let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..end);
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), begin > 0))
}

/// A program to run.
#[derive(Debug)]
pub struct Program {
    argv: Vec<OsString>,
    deadline: Duration,
    stdin: Option<Vec<u8>>,
    envs: Vec<(OsString, OsString)>,
    lines: Option<mpsc::Sender<String>>,
}

/// What a program that ended well printed on standard output.
pub type Output = String;

/// A program that could not be started, failed, or ran past its deadline.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program is missing or may not be run.
    #[error("cannot start `{argv}`")]
    Start {
        /// The command line.
        argv: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// It ended with another status than 0.
    #[error("`{}` failed with {}: {}", .0.argv_line(), .0.exit(), .0.telling_line())]
    Failed(Evidence),
    /// It was ended at its deadline.
    #[error("`{}` still ran after {deadline:?} and was ended; it said last: {}", .evidence.argv_line(), .evidence.telling_line())]
    Deadline {
        /// What it left.
        evidence: Evidence,
        /// The deadline.
        deadline: Duration,
    },
}

impl CommandError {
    /// What the program left behind, if it ran at all.
    pub fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Start { .. } => None,
            Self::Failed(evidence) | Self::Deadline { evidence, .. } => Some(evidence),
        }
    }
}

/// What a failed program left behind.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// `None` means: ended by a signal.
    pub exit_status: Option<i32>,
    /// The last 8 KiB of standard output and standard error at most, interleaved by line, in whole lines.
    pub output_tail: String,
}

impl Evidence {
    fn argv_line(&self) -> String {
        self.argv.join(" ")
    }

    fn exit(&self) -> String {
        self.exit_status.map_or_else(|| "a signal".to_owned(), |status| format!("exit status {status}"))
    }

    /// The last line that begins with `error`, since some programs give advice after it; else the last line.
    fn telling_line(&self) -> &str {
        let is_error = |line: &&str| line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("error"));
        let mut lines = self.output_tail.lines().rev().filter(|line| !line.trim().is_empty());
        lines.clone().find(is_error).or_else(|| lines.next()).unwrap_or("(no output)")
    }
}

impl Program {
    /// A program, looked up in `PATH` unless it is a path, that may run for at most `deadline`.
    pub fn new(program: impl AsRef<Path>, deadline: Duration) -> Self {
        Self {
            argv: vec![program.as_ref().as_os_str().to_owned()],
            deadline,
            stdin: None,
            envs: Vec::new(),
            lines: None,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable in the program's environment. Never for secrets.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((key.into(), value.into()));
        self
    }

    /// Gives the program this standard input; otherwise it has none.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Sends each line of output as it comes; lines are dropped while the receiver is full.
    pub fn lines_to(mut self, sender: mpsc::Sender<String>) -> Self {
        self.lines = Some(sender);
        self
    }

    /// Runs the program to its end. Dropping the future kills it.
    pub async fn run(self) -> Result<Output, CommandError> {
        let argv: Vec<String> = self.argv.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let start_error = |source| CommandError::Start { argv: argv.join(" "), source };

        #[expect(clippy::disallowed_methods, reason = "the one place that starts a program")]
        let mut command = Command::new(&self.argv[0]);
        command
            .args(&self.argv[1..])
            .envs(self.envs)
            .kill_on_drop(true)
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(start_error)?;

        let mut record = Record { lines: self.lines, ..Record::default() };
        let (sender, mut receiver) = mpsc::channel(64);
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let input = self.stdin;
        let work = async {
            let feed = async {
                if let (Some(mut pipe), Some(bytes)) = (stdin, input) {
                    // A program that does not read its input says so by its exit status.
                    let _ = pipe.write_all(&bytes).await;
                }
            };
            let collect = async {
                while let Some((is_stdout, line)) = receiver.recv().await {
                    record.push(is_stdout, line);
                }
            };
            let out = pump(stdout, true, sender.clone());
            let err = pump(stderr, false, sender);
            tokio::join!(feed, out, err, collect);
            child.wait().await
        };
        let ended = tokio::time::timeout(self.deadline, work).await;
        let evidence = |exit_status| Evidence { argv: argv.clone(), exit_status, output_tail: record.tail() };
        match ended {
            Err(_) => {
                // Reaped here so that the program is gone when the caller goes on.
                let _ = child.kill().await;
                Err(CommandError::Deadline { evidence: evidence(None), deadline: self.deadline })
            }
            Ok(Err(source)) => Err(start_error(source)),
            Ok(Ok(status)) if status.success() => Ok(record.stdout),
            Ok(Ok(status)) => Err(CommandError::Failed(evidence(status.code()))),
        }
    }
}

async fn pump(pipe: Option<impl AsyncRead + Unpin>, is_stdout: bool, sender: mpsc::Sender<(bool, String)>) {
    let Some(pipe) = pipe else { return };
    let mut reader = BufReader::new(pipe);
    let mut buffer = Vec::new();
    while matches!(reader.read_until(b'\n', &mut buffer).await, Ok(read) if read > 0) {
        let line = String::from_utf8_lossy(&buffer).trim_end_matches('\n').to_owned();
        buffer.clear();
        if sender.send((is_stdout, line)).await.is_err() {
            return;
        }
    }
}

#[derive(Default)]
struct Record {
    stdout: String,
    all: String,
    lines: Option<mpsc::Sender<String>>,
}

impl Record {
    fn push(&mut self, is_stdout: bool, line: String) {
        if is_stdout {
            self.stdout.push_str(&line);
            self.stdout.push('\n');
        }
        self.all.push_str(&line);
        self.all.push('\n');
        if self.all.len() > 2 * TAIL_LIMIT {
            self.all = self.tail();
        }
        if let Some(sender) = &self.lines {
            // Progress only: a slow reader misses lines, the program is never held up.
            let _ = sender.try_send(line);
        }
    }

    /// Of a last line that is too long there is nothing but that it was there.
    fn tail(&self) -> String {
        let whole = last_lines(&self.all, TAIL_LIMIT);
        if whole.is_empty() && !self.all.is_empty() { LONG_LINE.to_owned() } else { whole.to_owned() }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$ {}\n{}", self.argv_line(), self.output_tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str, deadline: Duration) -> Program {
        Program::new("sh", deadline).args(["-c", script])
    }

    #[test]
    fn the_last_lines_are_whole() {
        let text = "one\ntwö\nthree";
        for (limit, last) in [(14, text), (13, "twö\nthree"), (10, "twö\nthree"), (9, "three"), (5, "three")]
        {
            assert_eq!(last_lines(text, limit), last, "{limit}");
        }
        assert_eq!((last_lines(text, 4), last_lines("", 0), last_lines("a\n", 0)), ("", "", ""));
    }

    #[test]
    fn of_a_file_too_the_last_lines_are_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        std::fs::write(&path, "one\ntwo\nthree\n").expect("writes");
        for (limit, last) in [
            (15, "one\ntwo\nthree\n"),
            (14, "one\ntwo\nthree\n"),
            (13, "two\nthree\n"),
            (10, "two\nthree\n"),
            (9, "three\n"),
            (6, "three\n"),
            (5, ""),
            (0, ""),
        ] {
            let (text, is_end) = end_of_file(&path, limit).expect("reads");
            assert_eq!((text.as_str(), is_end), (last, limit < 14), "{limit}");
        }
        end_of_file(&dir.path().join("missing"), 1).expect_err("there is none");
    }

    #[tokio::test]
    async fn output_is_standard_output_alone() {
        let output = shell("echo out; echo err >&2", LONG).run().await.expect("sh runs");
        assert_eq!(output, "out\n");
    }

    #[tokio::test]
    async fn standard_input_arrives() {
        let output = Program::new("cat", LONG).stdin("secret").run().await.expect("cat runs");
        assert_eq!(output.trim(), "secret");
    }

    #[tokio::test]
    async fn failure_keeps_argv_status_and_output() {
        let error = shell("echo why >&2; exit 3", LONG).run().await.expect_err("exit 3 is a failure");
        let evidence = error.evidence().expect("it ran");
        assert_eq!((evidence.exit_status, evidence.output_tail.as_str()), (Some(3), "why\n"));
        assert!(error.to_string().contains("exit status 3: why"), "{error}");
        let advised = shell("echo error: why; echo see --help; exit 3", LONG).run().await;
        assert!(advised.expect_err("a failure").to_string().ends_with("exit status 3: error: why"));
    }

    #[test]
    fn of_long_output_the_last_whole_lines_are_kept() {
        let tail = |lines: &[&str]| {
            let mut record = Record::default();
            lines.iter().for_each(|line| record.push(false, (*line).to_owned()));
            record.tail()
        };
        let half = "x".repeat(TAIL_LIMIT / 2);
        let secret = format!("password: {half}");
        assert_eq!(tail(&[&secret]), format!("{secret}\n"));
        assert_eq!(tail(&[&secret, &half]), format!("{half}\n"), "not the end of the secret");
        let umlauts = "ä".repeat(TAIL_LIMIT / 4);
        assert_eq!(tail(&[&umlauts, &half]), format!("{half}\n"));
        let (fits, too_long) = ("y".repeat(TAIL_LIMIT - 1), "y".repeat(TAIL_LIMIT));
        assert_eq!(tail(&["before", &fits]), format!("{fits}\n"));
        assert_eq!(tail(&["before", &too_long]), LONG_LINE);
        let huge = too_long.repeat(3);
        assert_eq!(tail(&[&huge, "the end"]), format!("{LONG_LINE}the end\n"));
    }

    #[tokio::test]
    async fn deadline_ends_the_program() {
        let error = shell("echo begun; exec sleep 1000", Duration::from_millis(300)).run().await;
        assert!(matches!(error, Err(CommandError::Deadline { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn missing_program_is_named() {
        let error = Program::new("/no/such/program", LONG).run().await.expect_err("it is not there");
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
