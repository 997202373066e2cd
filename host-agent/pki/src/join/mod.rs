//! Join secrets: how a VM becomes a node.
//!
//! - [`decide`]: the pure decision on one attempt
//! - `table`: what survives a restart of the host agent, and the atomic steps on it
//! - `rate`: how often one address may try, and one node get a certificate
//! - `telling`: what is told of it, and how much
//! - [`JoinAuthority`]: drives them, and says which certificates are still good
//!
//! A secret is in memory alone; the table knows its SHA-256. So a restart voids the secrets on their way, and the
//! agents ask again over virtio-serial. A token is burned durably before anything is signed with it; serial and time
//! of its one certificate are part of the burning, so a retry after a crash gives that same certificate.

mod authority;
pub mod decide;
mod rate;
mod table;
mod telling;

use std::net::IpAddr;
use std::sync::Arc;

use host_store::{Schema, StoreError};

pub use authority::{IdentifyError, JoinAuthority};
pub use decide::Refusal;
pub use telling::{JoinEvents, JoinTeller, join_events};

use crate::PkiError;
use crate::ca::NodeCa;
use crate::csr::CsrError;

/// Protocol of [`k8sctl_proto::node::v1::JoinRequest`].
pub const PROTOCOL: u32 = 1;
/// How long a secret is good for.
pub const TOKEN_LIFETIME: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);

/// Longest id of a node, in bytes.
const NODE_ID_BYTES: usize = 63;

/// Whether the host can have given out that id: strangers may say anything.
fn can_be_node_id(text: &str) -> bool {
    let has_alphabet = || text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (1..=NODE_ID_BYTES).contains(&text.len()) && has_alphabet()
}

/// The tables of this room.
pub const SCHEMA: Schema = Schema { room: "join", steps: &[include_str!("step1.sql")] };

/// The VMs, as the join authority needs to know them.
#[async_trait::async_trait]
pub trait Machines: Send + Sync {
    /// Whether the VM of this node has this machine UUID, was started by this host agent and runs now.
    async fn is_ours_running(&self, node_id: &str, machine_uuid: &str) -> bool;
}

/// The node CAs of all clusters.
pub trait Authorities: Send + Sync {
    /// The CA of a cluster. `Ok(None)` means that there is no such cluster.
    fn node_ca(&self, cluster_id: &str) -> Result<Option<Arc<NodeCa>>, PkiError>;
}

/// Something that a person should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinEvent {
    /// A node got its first certificate from a secret.
    Joined {
        /// Node.
        node_id: String,
        /// Where it called from.
        peer: IpAddr,
    },
    /// An attempt was refused.
    Refused {
        /// Node that the peer claimed to be. `None` means that no node can have that id.
        node_id: Option<String>,
        /// Where it called from.
        peer: IpAddr,
        /// Why.
        refusal: Refusal,
    },
    /// A certificate that a newer one had replaced was shown again: perhaps a copy of the VM.
    Replaced {
        /// Node.
        node_id: String,
        /// The old serial.
        serial: String,
    },
    /// More of the same that was not told: refusals from an address, or events of a node. Neither means: refusals from
    /// other addresses.
    LeftOut {
        /// Where the refused attempts came from.
        peer: Option<IpAddr>,
        /// Node.
        node_id: Option<String>,
        /// How many.
        count: u64,
    },
    /// Joins and refusals, of whomever, that were not told since too many waited to be recorded.
    NoRoom {
        /// How many.
        count: u64,
    },
}

/// The authority could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The peer gets no certificate.
    #[error("node {node_id:?} gets no certificate")]
    Refused {
        /// Node that it claimed to be.
        node_id: String,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// The certificate request is unusable.
    #[error("the certificate request of node {node_id} is refused")]
    Csr {
        /// Node.
        node_id: String,
        /// Why.
        #[source]
        source: CsrError,
    },
    /// The certificate is not, or no longer, good.
    #[error(
        "node {node_id} may not come in with certificate {serial}: it was replaced, or the node was removed"
    )]
    NotCurrent {
        /// Node.
        node_id: String,
        /// Serial of the certificate.
        serial: String,
    },
    /// The cluster has no authority.
    #[error("there is no cluster {cluster_id}")]
    NoCluster {
        /// Cluster.
        cluster_id: String,
    },
    /// Signing failed.
    #[error("cannot issue a certificate")]
    Pki(#[from] PkiError),
    /// The record could not be read or written.
    #[error("cannot use the join records")]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for JoinError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}
