//! A program that runs on, line by line: what it prints, and when each line was there.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

/// Lines that were printed and are not yet looked at.
const LINES: usize = 4_096;

/// See the module. The program is ended when this is dropped.
#[derive(Debug)]
pub struct Lines {
    child: Child,
    name: String,
    lines: Receiver<(SystemTime, String)>,
}

impl Lines {
    /// Starts it. What it says on standard error is this program's.
    pub fn of(program: &str, args: &[&str]) -> Result<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "it has no deadline, and is read while it runs; Lines ends it"
        )]
        let child = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("cannot start {program}"))?;
        let stdout = child.stdout.take().context("its output")?;
        let (sender, lines) = sync_channel(LINES);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send((SystemTime::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, name: format!("{program} {}", args.join(" ")), lines })
    }

    /// The next line, and when it was there.
    pub fn next(&self, patience: Duration) -> Result<(SystemTime, String)> {
        self.lines.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow::anyhow!("`{}`: no line within {patience:?}", self.name),
            RecvTimeoutError::Disconnected => anyhow::anyhow!("`{}` has ended", self.name),
        })
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_as_they_are_printed_and_the_end_is_told() {
        let minute = Duration::from_secs(60);
        let lines = Lines::of("sh", &["-c", "echo one; echo two"]).expect("started");
        let before = SystemTime::UNIX_EPOCH;
        for expected in ["one", "two"] {
            let (there, line) = lines.next(minute).expect("a line");
            assert_eq!(line, expected);
            assert!(there > before);
        }
        let error = lines.next(minute).expect_err("there are no more").to_string();
        assert!(error.contains("`sh -c echo one; echo two` has ended"), "{error}");
    }
}
