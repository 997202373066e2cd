//! Everything about keys and certificates on the host.
//!
//! - [`ca`]: one certificate authority a cluster, for node agents and the node port
//! - [`csr`]: certificate requests of node agents, of which only the public key is taken
//! - [`join`]: single-use join secrets: the pure decision, its table, and the authority that drives it
//! - [`service`]: the gRPC join service, and who is behind a request
//! - [`kubernetes`]: the PKI that kubeadm would make, made here instead
//!
//! Called by the host agent. It starts no VM and applies no file: it only makes bytes and keeps its own records.

pub mod ca;
pub mod csr;
mod error;
mod file;
mod issue;
pub mod join;
pub mod kubernetes;
pub mod service;

pub use error::PkiError;
