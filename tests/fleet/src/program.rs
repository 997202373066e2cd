//! A program that runs beside this one: waited for so long at most, and ended when it is dropped.

use std::io::Read as _;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// Between two looks whether a program has ended: only how often, never whether.
const LOOK: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) Child);

impl Ended {
    /// Waits for its end, which must be a good one. Of one that is not, `name` and what it said, if that is kept, are
    /// told.
    pub(crate) fn wait(&mut self, name: &str, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        let status = loop {
            if let Some(status) = self.0.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < end, "`{name}` still runs after {deadline:?}");
            thread::sleep(LOOK);
        };
        if status.success() {
            return Ok(());
        }
        let mut said = String::new();
        if let Some(stderr) = &mut self.0.stderr {
            stderr.read_to_string(&mut said)?;
        }
        bail!("`{name}` ended with {status}: {said}")
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
