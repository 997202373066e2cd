//! What the host agent's database holds of plugins, but for the rows of single objects, which are the
//! [inventory](crate::inventory)'s. Called by [`crate::host`]; decides nothing.
//!
//! - [`installs`]: one row per plugin of a cluster: what it is, where it stands, which operation is under way
//! - [`begin`]: the one transaction with which an operation begins
//! - [`revisions`]: what was applied, to go back to; the one transaction with which an operation ends
//! - [`approvals`]: the permissions that a person approved
//! - [`runs`]: how plugins' processes ended
//! - [`crashes`]: those that count, and packages that are not started any more

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use host_store::{Schema, Store};

mod approvals;
mod begin;
mod crashes;
mod installs;
mod revisions;
mod runs;
#[cfg(test)]
mod tests;

pub(crate) use begin::{Approved, NewOperation};
pub(crate) use installs::{Install, NewRemoval, OperationKind, Origin};
pub(crate) use revisions::{NodeRow, Revision};
pub(crate) use runs::NewRun;

/// The tables of this room; given to [`Store::open`].
pub const SCHEMA: Schema =
    Schema { room: "plugins", steps: &[include_str!("step1.sql"), include_str!("step2.sql")] };

/// A plugin on a cluster: the key of nearly every row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) cluster_id: String,
    pub(crate) plugin: String,
}

impl Place {
    pub(crate) fn new(cluster_id: &str, plugin: &str) -> Self {
        Self { cluster_id: cluster_id.to_owned(), plugin: plugin.to_owned() }
    }
}

/// See the module. Clones share the database.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    store: Store,
}

impl Records {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// The database, for the inventory.
    pub(crate) fn store(&self) -> Store {
        self.store.clone()
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A length of time as it is stored.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// When an operation that may take so long from now on shall have ended.
pub(crate) fn deadline_ms(length: Duration) -> i64 {
    now_ms().saturating_add(millis(length))
}

/// A stored time.
pub(crate) fn time_of(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

/// SQLite's integers have a sign.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn counted(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
