//! `k8sctl` against a fleet's host agent, as a user runs it.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};

use crate::host::Host;
use crate::program::Ended;

/// Lines that were printed and are not yet looked at.
const LINES: usize = 4_096;

fn command(host: &Host, args: &[&str]) -> Command {
    let mut command = Command::new(&host.programs().k8sctl);
    command.arg("--config").arg(host.file("host-agent.toml")).arg("--socket").arg(host.socket()).args(args);
    command.stdin(Stdio::null());
    command
}

/// As it is told of.
fn name(args: &[&str]) -> String {
    format!("k8sctl {}", args.join(" "))
}

/// Runs it to its end, which must be a good one; gives how long it took. What it prints goes nowhere, so that nobody is
/// waited for.
pub fn time(host: &Host, args: &[&str], deadline: Duration) -> Result<Duration> {
    let began = Instant::now();
    let child = command(host, args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut running = Ended(child.context("cannot start k8sctl")?);
    running.wait(&name(args), deadline)?;
    Ok(began.elapsed())
}

/// Runs it to its end, which must be a good one; gives how many lines it printed, none of which is kept.
pub fn count_lines(host: &Host, args: &[&str], deadline: Duration) -> Result<u64> {
    let child = command(host, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut running = Ended(child.context("cannot start k8sctl")?);
    let stdout = running.0.stdout.take().context("its output")?;
    // Beside, so that one that hangs is ended at the deadline, and its output with it.
    let counter = thread::spawn(move || newlines(stdout));
    running.wait(&name(args), deadline)?;
    Ok(counter.join().map_err(|_| anyhow::anyhow!("the counter of lines panicked"))??)
}

fn newlines(mut from: impl Read) -> std::io::Result<u64> {
    let (mut chunk, mut count) = (vec![0; 64 * 1024], 0);
    loop {
        let length = from.read(&mut chunk)?;
        if length == 0 {
            return Ok(count);
        }
        count += chunk[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}

/// Runs it to its end, which must be a good one; gives what it printed.
pub fn run(host: &Host, args: &[&str]) -> Result<String> {
    let output = command(host, args).output().context("cannot start k8sctl")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "`{}` ended with {}: {err}", name(args), output.status);
    Ok(out.into_owned())
}

/// One that runs on, line by line. Ended when dropped.
#[derive(Debug)]
pub struct Lines {
    _running: Ended,
    lines: Receiver<(SystemTime, String)>,
}

impl Lines {
    /// Starts it.
    pub fn of(host: &Host, args: &[&str]) -> Result<Self> {
        let child = command(host, args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut running = Ended(child.context("cannot start k8sctl")?);
        let stdout = running.0.stdout.take().context("its output")?;
        let (sender, lines) = sync_channel(LINES);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send((SystemTime::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { _running: running, lines })
    }

    /// The next line, and when it was there.
    pub fn next(&self, patience: Duration) -> Result<(SystemTime, String)> {
        self.lines.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow::anyhow!("no line within {patience:?}"),
            RecvTimeoutError::Disconnected => anyhow::anyhow!("k8sctl has ended"),
        })
    }
}

/// One whose output is read at a kibibyte a second. Ended when dropped.
#[derive(Debug)]
pub struct SlowReader {
    running: Option<Ended>,
    stop: Option<SyncSender<()>>,
    reader: Option<JoinHandle<()>>,
    kibibytes: Arc<AtomicU64>,
}

impl SlowReader {
    /// Starts it.
    pub fn of(host: &Host, args: &[&str]) -> Result<Self> {
        let child = command(host, args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut running = Ended(child.context("cannot start k8sctl")?);
        let mut stdout = running.0.stdout.take().context("its output")?;
        let (stop, stopped) = sync_channel::<()>(0);
        let kibibytes = Arc::<AtomicU64>::default();
        let read = Arc::clone(&kibibytes);
        let reader = thread::spawn(move || {
            let mut bytes = [0; 1_024];
            while stopped.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                if stdout.read_exact(&mut bytes).is_err() {
                    return;
                }
                read.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { running: Some(running), stop: Some(stop), reader: Some(reader), kibibytes })
    }

    /// How many kibibytes it has read: one that hangs reads no more.
    pub fn kibibytes(&self) -> u64 {
        self.kibibytes.load(Ordering::Relaxed)
    }
}

impl Drop for SlowReader {
    fn drop(&mut self) {
        // The end of the program ends a read that waits for it.
        self.stop = None;
        self.running = None;
        if let Some(reader) = self.reader.take() {
            // It panics nowhere.
            let _ = reader.join();
        }
    }
}
