//! Real programs against each other, without VMs: a host agent on libvirt's test driver and whoever calls it.
//!
//! - `host`: the host agent of a test, in directories of its own
//! - `root`: runs a test again as root where it is not
//! - `control_roles`: who may call what on the control socket
//! - `logs`: logs of agents that die and come back
//! - `metrics`: who may read them, and where
//! - `node_port`: what a node certificate opens, and what it does not
//! - `versions`: agents of other protocol versions, and one that is replaced
//!
//! What needs VMs, or a libvirtd, is in `tests/lab`.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start whole programs as other users, and end them themselves"
)]

mod control_roles;
mod host;
mod logs;
mod metrics;
mod node_port;
mod root;
mod versions;
