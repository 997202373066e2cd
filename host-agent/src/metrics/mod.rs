//! What the host agent tells Prometheus: of its clusters, nodes, sessions and operations, of libvirt, its database and
//! itself. `docs/metrics.md` has every metric.
//!
//! - [`Meters`]: what is counted as it happens; [`libvirt`] and [`operations`] do
//! - [`Exporter`]: puts these and all that is known anyway (`fleet`, `process`) into one `text`, anew for each reader:
//!   of a cluster or node that is gone nothing is left
//! - [`serve`]: the socket, and the port where one is configured

mod fleet;
pub mod libvirt;
pub mod operations;
mod process;
pub mod serve;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use host_store::Store;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::cluster::manager::Manager;
use crate::records::OperationKind;
use fleet::Fleet;
use process::Process;
use text::{Labels, Reading, labels};

/// Calls of libvirt: most take milliseconds, the graceful end of a VM minutes.
const CALL_SECONDS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0];
/// Operations: a `down` takes seconds, an `up` under emulation most of an hour.
const OPERATION_SECONDS: [f64; 9] = [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// What is counted as it happens. Clones count together. Every label has a few values that this program knows.
#[derive(Clone, Debug)]
pub struct Meters {
    /// By call.
    libvirt_calls: Family<Labels, Histogram>,
    /// By call.
    libvirt_errors: Family<Labels, Counter>,
    /// By kind and result.
    operations: Family<Labels, Counter>,
    /// By kind.
    operation_durations: Family<Labels, Histogram>,
}

impl Default for Meters {
    fn default() -> Self {
        let call_seconds: fn() -> Histogram = || Histogram::new(CALL_SECONDS);
        let operation_seconds: fn() -> Histogram = || Histogram::new(OPERATION_SECONDS);
        let it = Self {
            libvirt_calls: Family::new_with_constructor(call_seconds),
            libvirt_errors: Family::default(),
            operations: Family::default(),
            operation_durations: Family::new_with_constructor(operation_seconds),
        };
        // There from the beginning, so that the first end is an increase.
        for kind in OperationKind::ALL.map(OperationKind::as_str) {
            drop(it.operation_durations.get_or_create(&labels([("kind", kind)])));
            for result in operations::RESULTS {
                it.operations.get_or_create(&labels([("kind", kind), ("result", result)])).inc_by(0);
            }
        }
        it
    }
}

/// See the module.
pub struct Exporter {
    manager: Arc<Manager>,
    store: Store,
    meters: Meters,
    began: jiff::Timestamp,
    /// One text is made at a time: that of thousands of nodes has megabytes.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl Exporter {
    /// Of these clusters, this database and what these meters count.
    pub fn new(manager: Arc<Manager>, store: Store, meters: Meters) -> Arc<Self> {
        Arc::new(Self { manager, store, meters, began: jiff::Timestamp::now(), turn: Arc::default() })
    }

    /// All metrics as they are now, in the OpenMetrics text format; `None` where that broke off.
    pub async fn text(self: Arc<Self>) -> Option<String> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let read = move || {
            let text = text::encode(&self.meters, self.read());
            drop(turn);
            text
        };
        tokio::task::spawn_blocking(read).await.ok()
    }

    fn read(&self) -> Reading {
        let shared = self.manager.shared();
        let mut fleet = Fleet::default();
        for status in self.manager.watches() {
            fleet.add_cluster(&status.borrow());
        }
        for operation in shared.operations.borrow().values() {
            fleet.add_operation(operation);
        }
        let database = self.manager.config().database();
        let mut log = database.clone().into_os_string();
        log.push("-wal");
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
        let free = |path: &Path| rustix::fs::statvfs(path).map_or(0, |found| found.f_bavail * found.f_frsize);
        let config = self.manager.config();
        Reading {
            fleet,
            sent: shared.registry.traffic().sent(),
            spans: shared.tracer.counts(),
            events: *shared.events.head().borrow(),
            store: self.store.usage(),
            files: vec![("database", size(&database)), ("log", size(&PathBuf::from(log)))],
            free: vec![("state", free(&config.state_dir)), ("pool", free(&config.pool_dir))],
            process: Process::read(self.began),
        }
    }
}

#[cfg(test)]
mod tests;
