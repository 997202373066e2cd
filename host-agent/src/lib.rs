//! The host agent: owns the VMs of this host and the desired state of its clusters.
//!
//! The way of an `up`: a spec comes in at [`control`], [`cluster::manager`] makes a plan of it and commits it to
//! [`records`] together with an operation; the cluster's one owner, [`cluster::task`], then looks again and again
//! at what shall be and what is, and acts: VMs through `host_hypervisor`, node agents through [`nodes`], Kubernetes
//! through [`kubernetes`]. What happens goes into the [`events`] log.
//!
//! - [`config`]: the daemon's own configuration
//! - [`alone`]: one host agent per state directory; [`startup`]: what one says that cannot use its records
//! - [`logs`]: the logs of a cluster's nodes as one stream
//! - [`metrics`]: what Prometheus is told; [`trace`]: what an OpenTelemetry collector is
//! - [`pki`]: certificate authorities of each cluster, on disk
//! - [`doctor`]: what the host must provide
//! - [`support`]: what only the host agent sees, for a support bundle
//! - [`wire`]: conversions to wire types

pub mod alone;
pub mod cluster;
pub mod config;
pub mod control;
pub mod doctor;
pub mod events;
pub mod kubernetes;
pub mod libvirt_events;
#[cfg(test)]
mod log_lines;
pub mod logs;
pub mod metrics;
pub mod nodes;
pub mod pki;
pub mod records;
pub mod startup;
pub mod support;
pub mod trace;
pub mod wire;
