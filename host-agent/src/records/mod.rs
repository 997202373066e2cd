//! What the host agent must not forget: clusters with their desired spec, nodes, operations.
//!
//! Rows and queries only; every decision is made by [`crate::cluster`]. Each function is one transaction.

mod clusters;
mod operations;

pub use clusters::{
    ClusterRecord, ClusterState, ClusterVersion, DamagedCluster, NewGeneration, NodeRecord, NodeState,
};
pub use operations::{Agreed, Begun, OperationKind, OperationRecord, OperationState};

use host_store::{Schema, Store, StoreError};
use k8sctl_types::failure::Failure;

/// Tables of this room.
pub const SCHEMA: Schema = Schema {
    room: "clusters",
    steps: &[include_str!("step1.sql"), include_str!("step2.sql"), include_str!("step3.sql")],
};

/// A query failed, or a row does not hold what this program wrote.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The database failed.
    #[error("cannot use the host agent's records")]
    Store(#[from] StoreError),
    /// A stored value cannot be read back.
    #[error("the stored {what} of {object} is damaged")]
    Damaged {
        /// Column.
        what: &'static str,
        /// Row.
        object: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl RecordError {
    /// As a person meets it.
    pub fn failure(&self) -> Failure {
        let reason = k8sctl_rpc::chain(self).to_string();
        match self {
            Self::Store(_) => Failure::new(
                "HOST-RECORDS",
                "host agent",
                reason,
                "check the disk under the host agent's state directory",
            ),
            Self::Damaged { object, .. } => Failure::new(
                "HOST-RECORD-DAMAGED",
                object.as_str(),
                reason,
                "restore the host agent's database from a backup",
            ),
        }
    }
}

impl From<rusqlite::Error> for RecordError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The records of all clusters.
#[derive(Clone, Debug)]
pub struct Records {
    store: Store,
}

impl Records {
    /// Records in this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our records have string keys and finite numbers only")
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}
