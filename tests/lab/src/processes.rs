//! Watches the command lines and environments of all processes while a test does something else.
//!
//! It looks every few milliseconds: a process that lives for less may be missed, the long-lived programs are not.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};

/// Between two looks at all processes.
const LOOK: Duration = Duration::from_millis(10);

/// What was seen of a process: `argv` or `environ`, and its bytes.
type Seen = BTreeSet<(&'static str, Vec<u8>)>;

/// See the module.
#[derive(Debug)]
pub struct Processes {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<Seen>,
}

impl Processes {
    /// Begins to watch.
    pub fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watcher = thread::spawn(move || {
            let mut seen = Seen::new();
            loop {
                let last = stopped.load(Ordering::Relaxed);
                look(&mut seen);
                if last {
                    return seen;
                }
                thread::sleep(LOOK);
            }
        });
        Self { stop, watcher }
    }

    /// Looks once more and gives all that was seen.
    pub fn end(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.watcher.join().map_err(|_| anyhow!("the watcher of processes panicked"))
    }
}

fn look(seen: &mut Seen) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        for (what, file) in [("argv", "cmdline"), ("environ", "environ")] {
            // A process may end between the two looks.
            if let Ok(bytes) = fs::read(entry.path().join(file)) {
                seen.insert((what, bytes));
            }
        }
    }
}
