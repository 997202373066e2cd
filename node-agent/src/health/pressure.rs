//! Lets the kernel say when everything waits for memory: a trigger on its pressure file, which costs nothing until then.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The kernel's file; Debian's kernels have it only when they are started with `psi=1`.
pub const FILE: &str = "/proc/pressure/memory";
/// Everything waited for a tenth of 2 s, in µs: what [`super::resources`] calls pressure. The kernel takes windows of
/// half a second and more, and says it at most once in each.
const TRIGGER: &[u8] = b"full 200000 2000000\0";

/// The trigger; empty where the kernel has none.
#[derive(Debug)]
pub struct Pressure(Option<AsyncFd<File>>);

impl Pressure {
    /// Sets it.
    #[expect(
        deprecated,
        reason = "the same without a promise to the compiler; a File's descriptor is its own"
    )]
    pub fn watch(file: &Path) -> Self {
        let set = || {
            let mut file = OpenOptions::new().read(true).write(true).open(file)?;
            file.write_all(TRIGGER)?;
            AsyncFd::with_interest(file, Interest::PRIORITY)
        };
        match set() {
            Ok(trigger) => Self(Some(trigger)),
            Err(error) => {
                tracing::debug!(%error, "no trigger on memory pressure, it is looked at now and then");
                Self(None)
            }
        }
    }

    /// Waits until everything waits. Never ends where the kernel does not say it. Cancel-safe.
    pub async fn rises(&self) {
        let Some(trigger) = &self.0 else { return std::future::pending().await };
        match trigger.ready(Interest::PRIORITY).await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn without_the_kernels_file_nothing_is_ever_told() {
        for file in ["/nowhere", "/proc/self/stat"] {
            let pressure = Pressure::watch(Path::new(file));
            assert!(tokio::time::timeout(Duration::from_millis(20), pressure.rises()).await.is_err());
        }
    }
}
