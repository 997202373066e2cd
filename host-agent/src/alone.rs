//! One host agent per state directory, and one per socket: two would undo each other's work. Called by `main` before
//! anything is opened.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use k8sctl_types::failure::Failure;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::config::HostConfig;

/// Between two tries.
const INTERVAL: Duration = Duration::from_millis(50);

/// Nobody else is the host agent of this configuration until this is dropped.
#[derive(Debug)]
pub struct Alone {
    _state: File,
    _pid: File,
}

impl Alone {
    /// Locks the state directory and the pid file, which are there. One that ends has so long to do so.
    pub fn lock(config: &HostConfig, patience: Duration) -> Result<Self, Failure> {
        let until = Instant::now() + patience;
        Ok(Self { _state: lock(&config.lock_file(), until)?, _pid: lock(&config.pid_file(), until)? })
    }
}

/// Locks the file and writes the process id into it.
fn lock(path: &Path, until: Instant) -> Result<File, Failure> {
    let unusable = |error: std::io::Error| {
        let reason = format!("{} cannot be used: {error}", path.display());
        let next = "check owner, mode and disk of its directory, then start it again";
        Failure::new("HOST-AGENT-START", "host agent", reason, next)
    };
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        // Whoever can open it can lock it, and so keep a host agent from starting.
        .mode(0o600)
        .open(path)
        .map_err(unusable)?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(INTERVAL),
            Err(Errno::WOULDBLOCK) => return Err(held(path, &mut file)),
            Err(error) => return Err(unusable(error.into())),
        }
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(unusable)?;
    Ok(file)
}

fn held(path: &Path, file: &mut File) -> Failure {
    let mut holder = String::new();
    // Who it is helps; that somebody holds it is known without.
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut holder));
    let who = match holder.trim() {
        "" => "another one runs".to_owned(),
        pid => format!("another one runs, process {pid}"),
    };
    let reason = format!("{who}: it holds {}", path.display());
    Failure::new(
        "HOST-AGENT-RUNS",
        "host agent",
        reason,
        "use that one, or end it before this one is started",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_host_agent_whatever_its_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = |state: &str, run: &str| {
            let config = HostConfig {
                state_dir: dir.path().join(state),
                run_dir: dir.path().join(run),
                ..HostConfig::default()
            };
            for dir in [&config.state_dir, &config.run_dir] {
                std::fs::create_dir_all(dir).expect("a directory");
            }
            config
        };
        let lock = |state, run| Alone::lock(&config(state, run), Duration::ZERO);
        let first = lock("state", "run").expect("nobody runs");
        for (state, run) in [("state", "other"), ("other", "run"), ("state", "run")] {
            let failure = lock(state, run).expect_err("it is refused");
            assert_eq!(failure.id, "HOST-AGENT-RUNS", "{failure}");
            assert!(failure.reason.contains(&format!("process {}", std::process::id())), "{failure}");
        }
        lock("third", "third").expect("that is another one");
        drop(first);
        let second = lock("state", "other").expect("the first has ended");
        let ends = thread::spawn(move || {
            thread::sleep(4 * INTERVAL);
            drop(second);
        });
        Alone::lock(&config("state", "run"), Duration::from_secs(60)).expect("it is ending");
        ends.join().expect("it ends");
    }
}
